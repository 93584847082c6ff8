"""Tasks beyond the edge of a picture: outpaint and zoom, frame by frame.

Each frame is what its file holds, 8 bits a colour, so that the same command goes on where an
earlier one was stopped and comes to the same pictures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.painting import inputs
from experiments.painting.editing import AnyPrior, Brush, Result, make_brush, make_fill, paint_hole
from experiments.painting.sampling import check_finite, contact_sheet
from geojax.io.media import read_image, to_uint8, write_png, write_video
from geojax.methods.outpainting import borders, shift_canvas, shrink_canvas, zoom_view
from geojax.methods.prompt_schedule import PromptSchedule, condition_at

# Where the view goes, as (down, right); the picture moves the other way.
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
# image [1, H, W, 3] -> canvas, hole
Step = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def paint_frames(
    settings: dict[str, Any],
    prior: AnyPrior,
    brush: Brush,
    schedule: PromptSchedule,
    folder: Path,
    first: np.ndarray | None,
    size: tuple[int, int],
    step: Step,
) -> np.ndarray:
    """Frames 0..N [N + 1, H, W, 3]: each the step of the one before, its hole painted.

    Args:
      settings: of the command.
      prior: the image model.
      brush: how holes are painted.
      schedule: what is in them, by frame.
      folder: of the frames' files; those that are there are taken as they are.
      first: frame 0 [1, H, W, 3]; None paints it too.
      size: (H, W).
      step: from a frame to the canvas of the next.

    Raises:
      FloatingPointError: a frame is not finite.
    """
    embedded = prior.embed(["", *schedule.prompts])
    unconditional, embedded = embedded[:1], embedded[1:]

    @jax.jit
    def follow(params, key, image, condition):
        return paint_hole(prior, brush, params, key, *step(image), condition, unconditional)

    @jax.jit
    def begin(params, key, condition):
        free = brush._replace(strength=1.0, seam=0)
        image, mask = jnp.zeros((1, *size, 3)), jnp.ones((1, *size), bool)
        return paint_hole(prior, free, params, key, image, mask, condition, unconditional)

    frames: list[np.ndarray] = []
    for k in range(settings["frames"] + 1):
        file = folder / f"{k:04d}.png"
        if file.is_file():
            frames.append(read_image(file).rgb[None])
            continue
        key = jax.random.fold_in(jax.random.key(settings["seed"]), k)
        condition = condition_at(schedule, embedded, k, blend=settings["blend"])
        if k:
            frame = follow(prior.params, key, jnp.asarray(frames[-1]), condition)
        else:
            frame = begin(prior.params, key, condition) if first is None else first
        write_png(file, check_finite(np.asarray(frame))[0])
        frames.append(to_uint8(frame).astype(np.float32) / np.float32(255))
        print(f"frame {k} of {settings['frames']}", flush=True)
    return np.concatenate(frames)


def panorama(frames: np.ndarray, down: int, right: int) -> np.ndarray:
    """Frames [N, H, W, 3], each `down` and `right` pixels past the one before, in one picture."""
    count, height, width, _ = frames.shape
    rows, columns = ((count - 1) * abs(shift) for shift in (down, right))
    whole = np.zeros((height + rows, width + columns, 3), frames.dtype)
    for k, frame in enumerate(frames):
        y = k * down if down >= 0 else rows + k * down
        x = k * right if right >= 0 else columns + k * right
        whole[y : y + height, x : x + width] = frame
    return whole


def _open(settings: dict[str, Any], prior: AnyPrior) -> tuple[np.ndarray | None, tuple[int, int]]:
    """Frame 0, if there is one, and its size."""
    if settings["image"] is None:
        return None, (prior.image_size, prior.image_size)
    image, alpha = inputs.read_picture(settings["image"], "--image")
    if alpha is not None and (alpha < 1.0).any():
        raise ValueError("--image has transparent pixels: fill them first with --task=inpaint")
    return image, image.shape[1:3]


def _brush(settings: dict[str, Any], prior: AnyPrior, size: tuple[int, int]) -> Brush:
    fill = make_fill(settings["fill"], settings["fill_image"], *size, (0, 0, *size))
    return make_brush(settings, prior, fill)


def prepare_outpaint(
    settings: dict[str, Any], prior: AnyPrior, schedule: PromptSchedule
) -> Callable[[Path], Result]:
    """outpaint: read and check; what is returned paints into a run's folder.

    Settles `settings["shift"]`: a quarter of the side.

    Raises:
      FileNotFoundError, ValueError: naming the flag.
    """
    first, size = _open(settings, prior)
    down, right = DIRECTIONS[settings["direction"]]
    settings["shift"] = settings["shift"] or max(size[0 if down else 1] // 4, 1)
    down, right = (settings["shift"] * sign for sign in (down, right))
    jax.eval_shape(lambda x: shift_canvas(x, -down, -right), jnp.zeros((1, *size, 3)))
    brush = _brush(settings, prior, size)

    def run(folder: Path) -> Result:
        frames = paint_frames(
            settings,
            prior,
            brush,
            schedule,
            folder / "frames",
            first,
            size,
            lambda image: shift_canvas(image, -down, -right),
        )
        whole = panorama(frames, down, right)
        write_png(folder / "panorama.png", whole)
        return Result(frames, contact_sheet(frames), {"panorama": list(whole.shape[:2])})

    return run


def prepare_zoom(
    settings: dict[str, Any], prior: AnyPrior, schedule: PromptSchedule
) -> Callable[[Path], Result]:
    """zoom: read and check; what is returned paints into a run's folder.

    Settles `settings["border"]`: an eighth of the longer side.

    Raises:
      FileNotFoundError, ValueError: naming the flag.
    """
    first, size = _open(settings, prior)
    settings["border"] = border = settings["border"] or max(max(size) // 8, 1)
    y, _ = borders(*size, border)
    brush = _brush(settings, prior, size)
    view = jax.jit(lambda inner, outer, f: zoom_view(inner, outer, border, f)[0])

    def run(folder: Path) -> Result:
        frames = paint_frames(
            settings,
            prior,
            brush,
            schedule,
            folder / "frames",
            first,
            size,
            lambda image: shrink_canvas(image, border),
        )
        film = []
        for k in range(len(frames) - 1):
            pair = jnp.asarray(frames[k : k + 1]), jnp.asarray(frames[k + 1 : k + 2])
            for part in range(settings["views"]):
                film.append(np.asarray(view(*pair, part / settings["views"])))
        film.append(frames[-1])
        write_video(folder / "zoom.mp4", film, settings["fps"])
        figures = {
            "views": len(film),
            "zoom": round((size[0] / (size[0] - 2 * y)) ** (len(frames) - 1), 2),
        }
        return Result(frames, contact_sheet(frames), figures)

    return run
