"""The models of a walk, compiled for its frames: each function is one line of walk.py's loop."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from experiments.painting.inputs import load_model
from experiments.painting.sampling import sampler_named
from experiments.walking.records import Record
from geojax.geometry.camera import Camera
from geojax.methods import candidate_selection, hole_cleanup, scene_walk
from geojax.methods.hole_cleanup import CleanView
from geojax.methods.hole_filling import fill_nearest
from geojax.methods.inpainting import match_edge
from geojax.methods.mesh_scene import mesh_scene
from geojax.methods.scene import Learnt, Scene, View
from geojax.methods.test_time_tuning import scale_invariant_error
from geojax.methods.warp_scene import warp_scene
from geojax.priors.clip_score import CLIPScore, load_clip
from geojax.priors.depth import Alignment, DepthModel, load_depth
from geojax.priors.inpainting import ConditionedPrior
from geojax.priors.prior import Prior

METHODS = ("mesh", "warp")
DEPTHS = ("tune", "align", "predict")


class Known(NamedTuple):
    """What is known of a frame before it is painted.

    Attributes:
      view: what the scene shows.
      clean: the same with its hole made fit to be painted.
    """

    view: View
    clean: CleanView

    @property
    def has_depth(self) -> Bool[Array, "H W"]:
        """Pixels of known finite depth."""
        return ~self.clean.hole & (self.clean.depth > 0)


class Painting(NamedTuple):
    """The chosen candidate, and CLIP's scores of all [K] (none without CLIP)."""

    latent: Float[Array, "h w c"]
    picture: Float[Array, "H W 3"]
    scores: Float[Array, "K"]


class Hands(NamedTuple):
    """The compiled functions of a walk: (parameters, arrays) -> arrays."""

    paint: Any
    decode: Any
    depth: Any
    score: Any


class Models(NamedTuple):
    """What is loaded once, for any number of walks.

    Attributes:
      scene: the kind of scene.
      prior: paints.
      depth: predicts depth.
      clip: chooses and scores, or None.
      hands: what is done with them.
    """

    scene: Scene
    prior: Prior | ConditionedPrior
    depth: DepthModel
    clip: CLIPScore | None
    hands: Hands


def load_models(config: Any) -> Models:
    """The models that a recipe names.

    Raises:
      FileNotFoundError, ValueError: as their loaders; or CLIP is needed and not named.
    """
    if config.candidates > 1 and not config.clip:
        raise ValueError(f"config.candidates={config.candidates} needs config.clip to choose by")
    kinds = {
        "mesh": lambda: mesh_scene(antialias=config.antialias, dome_rows=config.dome_rows),
        "warp": lambda: warp_scene(splat=config.splat, dome_rows=config.dome_rows),
    }
    prior, depth = load_model("inpaint", config.model), load_depth(config.depth.model)
    clip = load_clip(config.clip) if config.clip else None
    hands = compile_hands(config, prior, depth, clip)
    return Models(kinds[config.method](), prior, depth, clip, hands)


def look(
    config: Any, models: Models, scene: Any, before: Sequence[Record], camera: Camera
) -> Known:
    """What the scene shows of a camera, its hole made fit to be painted.

    Args:
      config: of the walk.
      models: of the walk.
      scene: so far.
      before: the previous frame, or none.
      camera: of the frame.
    """
    view = models.scene.look(scene, camera)
    depth, hole = view.depth, view.hole
    if config.floater_margin > 0.0 and before:
        loose = _floaters(
            before[0].camera,
            jnp.asarray(before[0].depth),
            camera,
            depth,
            border=max(depth.shape) // 2,
            margin=config.floater_margin,
        )
        depth, hole = jnp.where(loose, 0.0, depth), hole | loose
    return Known(view, _clean(view.image, depth, hole, reach=config.crack))


_floaters = jax.jit(hole_cleanup.floaters, static_argnames=("border", "margin"))
_clean = jax.jit(hole_cleanup.clean, static_argnames="reach")


def compile_hands(
    config: Any, prior: Prior | ConditionedPrior, depth_model: DepthModel, clip: CLIPScore | None
) -> Hands:
    """Each compiles at its first call, once for all frames of all walks of one size."""
    pad = config.pad
    sampler = sampler_named(config.sampler)

    def padded(image: Array, hole: Array) -> tuple[Array, Array]:
        around = ((pad, pad), (pad, pad))
        return jnp.pad(image, (*around, (0, 0))), jnp.pad(hole, around, constant_values=True)

    def cropped(picture: Array) -> Array:
        height, width = (side - pad for side in picture.shape[-3:-1])
        return picture[..., pad:height, pad:width, :]

    @jax.jit
    def paint(params, clip_params, key, known, condition, unconditional, text) -> Painting:
        image, hole = padded(known.clean.image, known.clean.hole)
        filled = fill_nearest(image[None], hole[None])[0]
        found = scene_walk.paint(
            key,
            prior,
            params,
            image,
            hole,
            filled,
            condition,
            unconditional,
            count=config.candidates,
            sampler=sampler,
            steps=config.steps,
            guidance=config.guidance,
            strength=config.strength,
        )
        if clip is None:
            return Painting(found.latents[0], found.pictures[0], jnp.zeros((0,)))
        choice = candidate_selection.choose(
            clip.embed_image, clip_params, cropped(found.pictures), text
        )
        chosen = candidate_selection.taken(choice, found)
        return Painting(chosen.latents, chosen.pictures, choice.scores)

    @jax.jit
    def decode(params, painting, known):
        image, hole = padded(known.clean.image, known.clean.hole)
        rebuilt, _ = scene_walk.tune_decoder(
            prior,
            params,
            painting.latent,
            painting.picture,
            image,
            hole,
            optimiser=optax.adam(config.decoder.learning_rate),
            steps=config.decoder.steps,
            preservation=config.decoder.preservation,
        )
        image, mask = known.clean.image, known.clean.hole
        figures = {
            "psnr_decoded": _psnr(cropped(painting.picture), image, ~mask),
            "psnr_tuned": _psnr(cropped(rebuilt), image, ~mask),
        }
        picture = cropped(rebuilt)
        if config.match > 0.0:
            picture = match_edge(picture[None], image[None], mask[None], config.match)[0]
        if config.keep_known:
            picture = jnp.where(mask[..., None], picture, image)
        return picture, figures

    steps = config.depth.steps if config.depth.fit == "tune" else 0

    @jax.jit
    def depth(params, picture, known, scale) -> tuple[scene_walk.Completed, dict[str, Array]]:
        there, z = known.has_depth, known.clean.depth
        before = scene_walk.predict(depth_model, params, picture, scale)
        disparity, _ = scene_walk.tune_depth(
            depth_model,
            params,
            picture,
            z,
            there,
            scale,
            optimiser=optax.adam(config.depth.learning_rate),
            steps=steps,
            relative=config.depth.relative,
        )
        if config.depth.fit == "align":
            disparity = jnp.maximum(
                scene_walk.fit_scale(disparity, z, there)(disparity[None])[0], scene_walk.FLOOR
            )
        found = scene_walk.complete_depth(
            disparity,
            z,
            there,
            known.clean.hole,
            known.view.far,
            farthest=config.farthest,
            reach=config.depth.reach,
        )
        errors = {
            f"depth_error_{name}": scale_invariant_error((1.0 / d)[None], z[None], there[None])
            for name, d in (("predicted", before), ("fitted", disparity))
        }
        return found, errors

    @jax.jit
    def score(clip_params, picture, text):
        if clip is None:
            return jnp.zeros(())
        return jnp.sum(clip.embed_image(clip_params, picture[None])[0] * text)

    return Hands(paint, decode, depth, score)


def first_scale(models: Models, image: np.ndarray | None, depth: np.ndarray | None) -> Alignment:
    """What turns the model's disparity into the scene's unit; the model's own without a depth."""
    if image is None or depth is None:
        return Alignment(jnp.ones(1), jnp.zeros(1))
    disparity = jax.jit(models.depth.predict)(models.depth.params, jnp.asarray(image)[None])[0]
    return scene_walk.fit_scale(disparity, jnp.asarray(depth), jnp.asarray(depth > 0))


def learnt(record: Record) -> Learnt:
    """What the scene is to remember of a frame."""
    parts = (record.image, record.depth, record.new, record.far)
    return Learnt(*(jnp.asarray(part) for part in parts))


def _psnr(
    picture: Float[Array, "H W 3"], truth: Float[Array, "H W 3"], where: Bool[Array, "H W"]
) -> Float[Array, ""]:
    weight = where.astype(picture.dtype)[..., None]
    count = jnp.maximum(3.0 * jnp.sum(weight), 1.0)
    return -10.0 * jnp.log10(jnp.maximum(jnp.sum(weight * (picture - truth) ** 2) / count, 1e-10))
