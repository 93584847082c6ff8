"""Tasks on one picture: image_to_image, depth_to_image, inpaint. Also how a hole is painted.

A task is prepared (what is wrong is said before a run's folder exists) and then run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments.painting import inputs
from experiments.painting.sampling import contact_sheet, in_batches, picture_keys, sampler_named
from geojax.diffusion.resampling import resampling
from geojax.diffusion.samplers import Sampler, start_index
from geojax.io.media import to_uint8
from geojax.methods.hole_filling import fill_fragment, fill_nearest, fill_noise, fit_to_box
from geojax.methods.image_to_image import image_to_image
from geojax.methods.inpainting import inpaint, inpaint_and_mend
from geojax.priors.inpainting import ConditionedPrior, depth_channels
from geojax.priors.prior import Prior

AnyPrior = Prior | ConditionedPrior
# (key, image, mask) -> image with its hole filled.
Fill = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
PLAIN_REPEATS = 4  # of RePaint, where a model was not trained to inpaint


class Result(NamedTuple):
    """What a task leaves: pictures [N, H, W, 3], a contact sheet, figures for the summary."""

    pictures: np.ndarray
    sheet: np.ndarray
    figures: dict[str, Any]


class Brush(NamedTuple):
    """How a hole is painted, whatever the picture; the fields are those of `inpaint`."""

    sampler: Sampler
    steps: int
    strength: float
    guidance: float
    fill: Fill
    seam: int
    seam_strength: float
    outside: bool
    grow: int
    fresh: bool
    match: float


def make_brush(settings: dict[str, Any], prior: AnyPrior, fill: Fill) -> Brush:
    """The brush of a command; settles `settings["resample"]` and `settings["match"]`.

    Raises:
      ValueError: steps, strengths or resampling out of range, or resampling with a model that was
        trained to inpaint.
    """
    trained = isinstance(prior, ConditionedPrior)
    if settings["resample"] is None:
        settings["resample"] = 1 if trained else PLAIN_REPEATS
    if settings["match"] is None:
        settings["match"] = float(prior.image_size)
    repeats = settings["resample"]
    if trained and repeats > 1:
        raise ValueError(f"--resample={repeats} is for a model that was not trained to inpaint")
    sampler = resampling(settings["jump"], repeats) if repeats > 1 else None
    sampler = sampler or sampler_named(settings["sampler"])
    check_steps(sampler, prior, settings["steps"], settings["strength"], "--strength")
    if settings["seam"]:
        check_steps(sampler, prior, settings["steps"], settings["seam_strength"], "--seam_strength")
    return Brush(
        sampler=sampler,
        steps=settings["steps"],
        strength=settings["strength"],
        guidance=settings["guidance"],
        fill=fill,
        seam=settings["seam"],
        seam_strength=settings["seam_strength"],
        outside=settings["seam_outside"],
        grow=0 if trained else 1,
        fresh=repeats > 1,
        match=settings["match"],
    )


def check_steps(sampler: Sampler, prior: AnyPrior, steps: int, strength: float, flag: str) -> None:
    """ValueError naming the flag: steps outside the schedule, or a strength that cannot be."""
    sampler.time_steps(prior.schedule, steps)
    try:
        if strength != 0.0:
            start_index(steps, strength)
    except ValueError as error:
        raise ValueError(f"{flag}={strength}: {error}") from error


def make_fill(
    kind: str,
    fill_image: str | None,
    height: int,
    width: int,
    box: tuple[int, int, int, int],
) -> Fill:
    """The fill of a command: "nearest", "noise", or "image", a picture over the hole's box.

    Raises:
      FileNotFoundError, ValueError: --fill=image without a picture, a picture without it, or one
        that cannot be read.
    """
    if (kind == "image") != (fill_image is not None):
        raise ValueError(f"--fill={kind} with --fill_image={fill_image}: give both or neither")
    if fill_image is None:
        return fill_noise if kind == "noise" else lambda key, *hole: fill_nearest(*hole)
    picture = jnp.asarray(inputs.read_picture(fill_image, "--fill_image")[0])
    if picture.shape[1:3] != (height, width):  # of the same size: its pixels at their own places
        picture = fit_to_box(picture[0], height, width, box)[None]

    def fill(key: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
        return fill_fragment(image, mask, padded(picture, image.shape[1:3]))

    return fill


def padded(image: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """[B, H, W, ...] to a larger size, the last row and column repeated."""
    extra = [(0, after - before) for after, before in zip(size, image.shape[1:3], strict=True)]
    return jnp.pad(image, ((0, 0), *extra, *((0, 0),) * (image.ndim - 3)), mode="edge")


def whole_cells(prior: AnyPrior, height: int, width: int) -> tuple[int, int]:
    """The next size whose sides the model's factor divides."""
    factor = prior.image_size // prior.latent_size
    return height + -height % factor, width + -width % factor


def paint_hole(
    prior: AnyPrior,
    brush: Brush,
    params: Any,
    key: jax.Array,
    image: Float[jax.Array, "1 H W 3"],
    mask: Bool[jax.Array, "1 H W"],
    condition: Float[jax.Array, "1 L D"],
    unconditional: Float[jax.Array, "1 L D"],
) -> Float[jax.Array, "1 H W 3"]:
    """Fill, paint, mend the seam. To be jitted; a size the model cannot take is padded and cut."""
    height, width = image.shape[1:3]
    size = whole_cells(prior, height, width)
    image, mask = padded(image, size), padded(mask, size)
    fill_key, key = jax.random.split(key)

    def paint(key, image, mask, filled, *, strength):
        return inpaint(
            key,
            prior,
            params,
            image,
            mask,
            filled,
            condition,
            unconditional,
            sampler=brush.sampler,
            steps=brush.steps,
            strength=strength,
            guidance=brush.guidance,
            grow=brush.grow,
            fresh=brush.fresh,
            match=brush.match,
        )

    painted = inpaint_and_mend(
        key,
        paint,
        image,
        mask,
        brush.fill(fill_key, image, mask),
        strength=brush.strength,
        seam=brush.seam,
        seam_strength=brush.seam_strength,
        outside=brush.outside,
    )
    return painted[:, :height, :width]


def paint_count(
    settings: dict[str, Any], prior: AnyPrior, paint_one: Callable[..., jax.Array], *pictures: Any
) -> np.ndarray:
    """`settings["count"]` pictures [N, H, W, 3], each with its own key.

    Args:
      settings: of the command.
      prior: the image model.
      paint_one: (params, key, *pictures, condition, unconditional) -> [1, H, W, 3].
      pictures: what all of them are made from.

    Raises:
      FloatingPointError: a picture is not finite.
    """
    embedded = prior.embed(["", settings["prompt"]])
    keys = picture_keys(settings["seed"], settings["count"])
    fixed = (*map(jnp.asarray, pictures), embedded[1:], embedded[:1])
    # Mapped over keys alone: a picture does not depend on those beside it.
    axes = (None, 0, *(None,) * len(fixed))
    painter = jax.jit(jax.vmap(paint_one, in_axes=axes))
    return in_batches(
        lambda rows: painter(prior.params, keys[rows], *fixed)[:, 0],
        settings["count"],
        settings["batch"],
    )


def prepare_image_to_image(settings: dict[str, Any], prior: AnyPrior) -> Callable[[], Result]:
    """image_to_image and depth_to_image: read and check; what is returned paints.

    Raises:
      FileNotFoundError, ValueError: naming the flag.
    """
    image, _ = inputs.read_picture(settings["image"], "--image")
    height, width = image.shape[1:3]
    size = whole_cells(prior, height, width)
    sampler = sampler_named(settings["sampler"])
    check_steps(sampler, prior, settings["steps"], settings["strength"], "--strength")
    shown: list[Any] = [image]
    if isinstance(prior, ConditionedPrior):
        if settings["depth"] is None:
            disparity = inputs.predict_disparity(settings["depth_model"], image)
        else:
            disparity = inputs.read_disparity(settings["depth"], image)
        # Beyond the picture's edge the map goes on as the picture does.
        rows, columns = (
            round(after / before * n)
            for after, before, n in zip(size, (height, width), disparity.shape[1:], strict=True)
        )
        shown.append(padded(jnp.asarray(disparity), (rows, columns)))

    def paint_one(params, key, image, *rest):
        *depth, condition, unconditional = rest
        given = prior
        if isinstance(given, ConditionedPrior):
            factor = given.image_size // given.latent_size
            cells = (n // factor for n in size)
            given = given.given(depth_channels(depth[0], *cells))
        painted = image_to_image(
            key,
            given,
            params,
            padded(image, size),
            condition,
            unconditional,
            sampler=sampler,
            steps=settings["steps"],
            strength=settings["strength"],
            guidance=settings["guidance"],
        )
        return painted[:, :height, :width]

    def run() -> Result:
        pictures = paint_count(settings, prior, paint_one, *shown)
        figures = {"mean_change": round(float(np.abs(pictures - image).mean()), 4)}
        return Result(pictures, contact_sheet(np.concatenate([image, pictures])), figures)

    return run


def prepare_inpaint(settings: dict[str, Any], prior: AnyPrior) -> Callable[[], Result]:
    """inpaint: read and check; what is returned paints.

    Raises:
      FileNotFoundError, ValueError: naming the flag, or what is wrong with the mask.
    """
    image, alpha = inputs.read_picture(settings["image"], "--image")
    mask = inputs.read_mask(settings["mask"], image, alpha)
    height, width = image.shape[1:3]
    rows, columns = (np.flatnonzero(mask[0].any(axis=1 - axis)) for axis in (0, 1))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    fill = make_fill(settings["fill"], settings["fill_image"], height, width, box)
    brush = make_brush(settings, prior, fill)

    def paint_one(params, key, *rest):
        return paint_hole(prior, brush, params, key, *rest)

    def run() -> Result:
        pictures = paint_count(settings, prior, paint_one, image, mask)
        # What the files hold, at 8 bits.
        changed = (to_uint8(pictures) != to_uint8(image)).any(axis=-1) & ~mask
        figures = {
            "hole": round(float(mask.mean()), 4),
            "known_pixels_changed": int(changed.sum()),
        }
        shown = np.where(mask[..., None], np.float32(1.0), image)
        return Result(pictures, contact_sheet(np.concatenate([image, shown, pictures])), figures)

    return run
