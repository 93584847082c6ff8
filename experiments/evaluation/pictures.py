"""Pictures of captions that the denoiser was never trained on, and what the judge sees in them."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import object_report
from experiments.painting.sampling import contact_sheet, make_painter, paint_prompts
from experiments.table import format_table
from geojax.io.atomic import write_json
from geojax.io.media import write_png
from geojax.priors.stable_diffusion import load_stable_diffusion
from geojax.worlds import captions, solids


def held_out_captions(count: int) -> list[tuple[str, str, str]]:
    """(kind, colour, caption) of held-out pairs in turn, going around and up the named views.

    From straight overhead a ball, a cone and a cylinder are the same disc, so no caption asks for
    that view.
    """
    pairs = sorted(solids.HELD_OUT)
    views = (len(captions.AZIMUTHS), len(captions.ELEVATIONS) - 1)
    result = []
    for i in range(count):
        (kind, colour), turn = pairs[i % len(pairs)], i // len(pairs)
        azimuth, elevation = (i + 3 * turn) % views[0], (i // 2 + turn) % views[1]
        caption = captions.subject(colour, kind) + captions.view_suffix(azimuth, elevation)
        result.append((kind, colour, caption))
    return result


def evaluate_pictures(
    model: str, count: int, seed: int, out: Path, **settings: Any
) -> dict[str, Any]:
    """Sample held-out captions, ask the judge, write generate.json and generate.png.

    Args:
      model: folder of the family.
      count: pictures.
      seed: of the noise.
      out: folder.
      settings: sampler, steps and guidance, as in `make_painter`.
    """
    judge, judge_params = object_report.load_judge(Path(model))
    prior = load_stable_diffusion(model)
    painter = make_painter(prior, size=prior.image_size, **settings)
    asked = held_out_captions(count)
    images = paint_prompts(prior, painter, [c for *_, c in asked], seed, batch=16)
    logits = object_report.judge_logits(judge, judge_params, jnp.asarray(images))
    kinds, colours = (np.argmax(np.asarray(x), axis=-1) for x in logits)
    said = [
        (judge.config.kinds[i], judge.config.colours[j])
        for i, j in zip(kinds, colours, strict=True)
    ]
    kind_right = np.asarray([s[0] == a[0] for s, a in zip(said, asked, strict=True)])
    colour_right = np.asarray([s[1] == a[1] for s, a in zip(said, asked, strict=True)])
    both = kind_right & colour_right
    result = {
        "suite": "generate",
        "model": model,
        "seed": seed,
        "count": count,
        **settings,
        "right": float(np.mean(both)),
        "kind_right": float(np.mean(kind_right)),
        "colour_right": float(np.mean(colour_right)),
        "wrong": [
            {"picture": i, "caption": asked[i][2], "judge_says": f"{said[i][1]} {said[i][0]}"}
            for i in np.flatnonzero(~both).tolist()
        ],
    }
    write_json(out / "generate.json", result)
    write_png(out / "generate.png", contact_sheet(images, columns=12))
    names = ("right", "kind_right", "colour_right")
    rows = [[name, f"{100 * result[name]:.1f} %"] for name in names]
    print(format_table([f"judge, {count} held-out captions", "share"], rows))
    for wrong in result["wrong"]:
        print(f"  {wrong['picture']}: {wrong['caption']!r}, judged a {wrong['judge_says']}")
    return result
