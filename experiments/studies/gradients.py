"""Gradients of score distillation at a rendering, under captions of growing detail.

The draws of all captions and guidance scales share their noise, so they differ by nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.studies.field_gradients import KEY
from geojax.diffusion.guidance import guided
from geojax.methods.gradient_statistics import GradientStatistics, gradient_statistics
from geojax.methods.score_distillation import diffuse, predict
from geojax.priors.prior import Prior

BATCH = 32
GUIDANCE = (1.0, 5.0, 20.0, 100.0)
"""Of the fullest caption; the others have 1."""


def captions_of(kind: str, colour: str, article: str, view: str) -> dict[str, str]:
    """Captions of growing detail; the first is none at all."""
    return {
        "none": "",
        "kind": f"a {kind}",
        "colour": f"{article} {colour} {kind}",
        "view": f"{article} {colour} {kind}{view}",
    }


def gradients_at(
    prior: Prior, batches: int
) -> Callable[[jax.Array, Any, Array, Array, Array], dict[str, GradientStatistics]]:
    """A jitted function (key, prior params, x [1, h, w, c], t [], conditions [4, L, D]).

    It gives statistics of the residual of every caption (guidance 1), of the fullest one at every
    other guidance scale, and of their difference ("condition"), over `BATCH` x `batches` draws. The
    gradient is the residual itself (w = 1): a weight that depends on t alone changes no ratio.

    Raises:
      ValueError: fewer than two draws.
    """

    def measure(
        key: jax.Array,
        params: Any,
        x: Float[Array, "1 h w c"],
        t: Array,
        conditions: Float[Array, "K L D"],
    ) -> dict[str, GradientStatistics]:
        many = jnp.broadcast_to(x, (BATCH, *x.shape[1:]))
        times = jnp.full((BATCH,), t)
        stacked = jnp.broadcast_to(
            conditions[:, None], (conditions.shape[0], BATCH, *conditions.shape[1:])
        )

        def draw(key: jax.Array) -> dict[str, Array]:
            z, noise = diffuse(key, prior.schedule, many, times)
            eps = predict(lambda *args: prior.denoise(params, *args), z, times, stacked)
            none, kind, colour, view = eps
            found = {
                "none": none - noise,
                "kind": kind - noise,
                "colour": colour - noise,
                "view": view - noise,
                "condition": view - none,
            }
            for g in GUIDANCE[1:]:
                found[f"view, g={g:g}"] = guided(none, view, g) - noise
            return found

        return gradient_statistics(key, draw, batches)

    return jax.jit(measure)


def by_time(
    prior: Prior,
    measure: Callable[..., dict[str, GradientStatistics]],
    views: Sequence[tuple[Float[np.ndarray, "1 S S 3"], dict[str, str]]],
    times: Sequence[int],
    seed: int,
    uncaptioned: Prior | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Statistics over some views of an object, a list over `times` for each name and figure.

    Args:
      prior: the image model.
      measure: of `gradients_at`.
      views: pictures in [0, 1] and their captions.
      times: time steps.
      seed: of the noise; the same for each view and time step.
      uncaptioned: a model of the same networks that was trained without captions; adds the name
        "uncaptioned", of the same noise.

    Returns:
      name -> figure -> [len(times)]: means over the views. The ratio "snr" is that of the means.
    """
    encode = jax.jit(prior.encode)
    table: dict[str, dict[str, list[float]]] = {}
    latents = [(encode(prior.params, jnp.asarray(image)), c) for image, c in views]
    embedded = [(x, prior.embed(list(c.values()))) for x, c in latents]
    nothing = None if uncaptioned is None else uncaptioned.embed([""] * len(views[0][1]))
    for t in times:
        key, at = jax.random.fold_in(jax.random.key(seed), KEY), jnp.asarray(t)
        parts = [measure(key, prior.params, x, at, y) for x, y in embedded]
        if uncaptioned is not None:
            others = [measure(key, uncaptioned.params, x, at, nothing) for x, _ in embedded]
            parts = [
                part | {"uncaptioned": other["none"]}
                for part, other in zip(parts, others, strict=True)
            ]
        parts = jax.device_get(parts)
        for name in parts[0]:
            figures = {
                figure: float(np.mean([getattr(part[name], figure) for part in parts]))
                for figure in GradientStatistics._fields
            }
            figures["snr"] = figures["signal"] / max(figures["variance"], 1e-30)
            row = table.setdefault(name, {figure: [] for figure in figures})
            for figure, value in figures.items():
                row[figure].append(value)
    return table
