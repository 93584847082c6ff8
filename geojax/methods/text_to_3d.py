"""DreamFusion: a field whose every rendering is likely under a text-to-image model.

Symbols: theta field parameters, x rendering, z latent, t time step, y condition of a view.
    (1)  x = render(theta, camera, light) over a random background
    (2)  L(theta) = SDS(encode(x); y(camera), t) + lambda_o opacity + lambda_e entropy
                    + lambda_n orientation
    (3)  theta <- optimiser(theta, dL/dtheta)
    (4)  x is itself the latent, and L has + lambda_m emptiness + lambda_c centre depth

Poole et al., "DreamFusion" (2022), section 3 and appendix A; (4) H. Wang et al., "Score Jacobian
Chaining" (2023). The gradient of (2) in x is any of `methods/score_distillation`, the other terms
are `methods/regularizers` and `methods/sjc`.

A batch of views is sharded over the devices of a mesh along its axis "views"; one device is a mesh
of one. Everything that depends on a view is drawn per view, so the mesh does not change the result.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from geojax.geometry.camera_sampling import CameraDistribution, ViewSample, sample_views
from geojax.geometry.occupancy import OccupancyGrid, update_grid
from geojax.methods import regularizers, sjc
from geojax.methods.radiance import Rendering, render
from geojax.methods.random_scenery import random_backgrounds, random_light
from geojax.methods.score_distillation import SDS, Loss, score_distillation_loss
from geojax.methods.surrogate import DistillationMetrics
from geojax.methods.variational import OwnScore, OwnTraining, own_denoise, train_own_score
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.models.fields import Field
from geojax.priors.prior import Prior

Params = Any
Times = Callable[[Key[Array, ""], Int[Array, ""], int], Int[Array, "B"]]
BackgroundOf = Callable[[Params, Float[Array, "N 3"]], Float[Array, "N C"]]
Metrics = dict[str, Float[Array, ""]]


class State(NamedTuple):
    """All that is needed to go on, bit for bit.

    Attributes:
      params: of the field.
      optimiser: its state.
      grid: occupancy of the field, which lets the renderer skip empty space.
      step: steps taken.
      key: random key of the next step.
      own: the network that learns the renderings, where the loss has one.
    """

    params: Params
    optimiser: optax.OptState
    grid: OccupancyGrid
    step: Int[Array, ""]
    key: Key[Array, ""]
    own: OwnScore | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptViews:
    """A prompt seen from a grid of directions, and the prompts without a direction.

    Attributes:
      embeddings: [E, K, L, D]; column k is for azimuth 2 pi k / K.
      elevations: [E] of the rows, radians, increasing.
      unconditional: [L, D].
      negative: [L, D], for losses that ask for it.
    """

    embeddings: Float[Array, "E K L D"]
    elevations: Float[Array, " E"]
    unconditional: Float[Array, "L D"]
    negative: Float[Array, "L D"] | None = None


class Seen(NamedTuple):
    """A step's latents [B, h, w, c], their conditions [B, L, D] and camera_to_world [B, 4, 4]."""

    x: Float[Array, "B h w c"]
    cond: Float[Array, "B L D"]
    camera_to_world: Float[Array, "B 4 4"]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The lambdas of (2) and (4). They belong to this sum of pixels, and to no other codebase."""

    opacity: float = 0.0
    entropy: float = 0.0
    orientation: float = 0.0
    emptiness: float = 0.0
    centre_depth: float = 0.0


def embed_views(
    prior: Prior,
    prompt: str,
    suffixes: Sequence[Sequence[str]],
    elevations: Float[np.ndarray, " E"],
    negative: str | None = None,
) -> PromptViews:
    """Embed a prompt with the name of every view after it.

    Args:
      prior: whose text encoder is used.
      prompt: what is to be seen; not empty.
      suffixes: [E][K] names of the views, such as ", front view".
      elevations: [E] of the rows, radians.
      negative: what is not to be seen, for losses that ask for it.

    Returns:
      the table that `interpolate_view_embeddings` reads.

    Raises:
      ValueError: an empty prompt, or rows of different lengths.
    """
    if not prompt.strip():
        raise ValueError("the prompt is empty; expected a description such as 'a red mug'")
    if len({len(row) for row in suffixes}) != 1 or len(suffixes) != len(elevations):
        raise ValueError(
            f"expected {len(elevations)} equal rows of view names, got {[len(r) for r in suffixes]}"
        )
    names = [prompt + suffix for row in suffixes for suffix in row]
    embedded = prior.embed(names)
    table = embedded.reshape(len(suffixes), len(suffixes[0]), *embedded.shape[1:])
    unwanted = None if negative is None else prior.embed([negative])[0]
    rows = jnp.asarray(elevations, jnp.float32)
    return PromptViews(table, rows, prior.embed([""])[0], unwanted)


def init_state(
    key: Key[Array, ""],
    field: Field,
    optimiser: optax.GradientTransformation,
    grid: OccupancyGrid,
    own: OwnScore | None = None,
) -> State:
    """A fresh field; the key is consumed."""
    init_key, key = jax.random.split(key)
    params = field.init(init_key)
    return State(params, optimiser.init(params), grid, jnp.zeros((), jnp.int32), key, own)


def distillation_step(
    prior: Prior,
    field: Field,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
    *,
    views: int,
    size: int,
    distribution: CameraDistribution,
    radius: float,
    samples: int,
    capacity: int | None,
    shaded: bool,
    ambient: tuple[float, float],
    textureless: float,
    guidance: float,
    times: Times,
    steps: int,
    weights: Weights,
    grid_every: int,
    loss: Loss = SDS,
    latent: bool = False,
    background: BackgroundOf | None = None,
    own: OwnTraining | None = None,
) -> Callable[[State, Params, PromptViews], tuple[State, Metrics]]:
    """One step of equations (1)-(3), jitted; the state is donated.

    Args:
      prior: the image model; its parameters are passed to the step.
      field: what is optimised.
      optimiser: of the field.
      mesh: devices, with an axis "views" that divides `views`.
      views: cameras a step.
      size: side of the rendering in pixels; it is enlarged to the prior's.
      distribution: of the cameras.
      radius: of the ball that the field lives in, world units.
      samples: intervals a ray.
      capacity: most samples a step at which the field is evaluated (see `render`).
      shaded: light the surface (2 to 3 times as dear), or show its albedo.
      ambient: range of the ambient share of the light.
      textureless: probability of a white surface in a shaded view.
      guidance: g of eps_u + g (eps_c - eps_u).
      times: (key, step, B) -> t [B], of `methods/timesteps`.
      steps: length of the run.
      weights: of the regularisers; entropy and orientation grow linearly from 0 to theirs.
      grid_every: steps between refreshes of the occupancy grid.
      loss: which of the family.
      latent: the field's features are the prior's latents, equation (4), never shaded.
      background: (params, directions [N, 3]) -> colour, learnt with the field; None: random plain
        ones.
      own: how the network of VSD is trained along; None: there is none.

    Returns:
      step(state, prior_params, prompt_views) -> (state, metrics).
    """
    sharded = NamedSharding(mesh, PartitionSpec("views"))

    def total_loss(
        params: Params, prior_params: Params, key: Key[Array, ""], state: State, prompt: PromptViews
    ) -> tuple[Float[Array, ""], tuple[Rendering, DistillationMetrics, Seen]]:
        keys = jax.random.split(key, 6)
        seen: ViewSample = sample_views(keys[0], distribution, views, size, size)
        seen = jax.lax.with_sharding_constraint(seen, sharded)
        light = random_light(keys[1], seen.camera.position, ambient, textureless)
        rendering = render(
            field.apply,
            params,
            seen.camera,
            keys[2],
            samples=samples,
            radius=radius,
            background=(
                random_backgrounds(keys[3], views)
                if background is None
                else lambda directions: background(params, directions)
            ),
            light=light if shaded else None,
            occupancy=state.grid,
            capacity=capacity,
        )
        x = _enlarge(rendering.rgb, prior.latent_size if latent else prior.image_size)
        x = x if latent else prior.encode(prior_params, x)
        x = jax.lax.with_sharding_constraint(x, sharded)
        done = state.step.astype(jnp.float32) / steps
        t = times(keys[4], state.step, views)
        y = interpolate_view_embeddings(
            prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation
        )
        empty = jnp.broadcast_to(prompt.unconditional, y.shape)
        unwanted = None if prompt.negative is None else jnp.broadcast_to(prompt.negative, y.shape)
        pose, phi = seen.camera.camera_to_world, state.own
        distillation, metrics = score_distillation_loss(
            keys[5],
            lambda z, t, y: prior.denoise(prior_params, z, t, y),
            prior.schedule,
            x,
            t,
            y,
            empty,
            guidance,
            loss,
            negative=unwanted,
            own=None if phi is None else own_denoise(prior, prior_params, phi.params, pose),
        )
        total = distillation + weights.opacity * regularizers.opacity_loss(rendering.opacity)
        total += done * weights.entropy * regularizers.entropy_loss(rendering.opacity)
        if rendering.orientation is not None:  # shaded: there are normals
            away = regularizers.orientation_loss(rendering.orientation, rendering.opacity)
            total += done * weights.orientation * away
        if weights.emptiness:
            empty_weight = sjc.emptiness_schedule(state.step, steps, weights.emptiness)
            total += empty_weight * sjc.emptiness_loss(rendering.emptiness, samples)
        if weights.centre_depth:
            far = seen.distance + radius
            depth = sjc.filled_depth(rendering.depth, rendering.opacity, far)
            total += weights.centre_depth * sjc.centre_depth_loss(depth)
        return total, (rendering, metrics, Seen(x, y, pose))

    def step(state: State, prior_params: Params, prompt: PromptViews) -> tuple[State, Metrics]:
        key, use, grid_key = jax.random.split(state.key, 3)
        gradient, (rendering, distillation, seen) = jax.grad(total_loss, has_aux=True)(
            state.params, prior_params, use, state, prompt
        )
        updates, opt_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        grid = jax.lax.cond(
            state.step % grid_every == grid_every - 1,
            lambda: update_grid(grid_key, state.grid, lambda p: field.apply(params, p)[0]),
            lambda: state.grid,
        )
        metrics = {
            "opacity": jnp.mean(rendering.opacity),
            "gradient_norm": optax.global_norm(gradient),
            "residual": distillation.residual_rms,
            "coherence": distillation.coherence,
            "t": distillation.mean_t,
            "dropped": rendering.dropped,
            "occupied": rendering.occupied.astype(jnp.float32),
            "finite_rendering": _all_finite(rendering.rgb).astype(jnp.float32),
            "finite_residual": distillation.finite.astype(jnp.float32),
            "finite_gradient": _all_finite(gradient).astype(jnp.float32),
        }
        phi = state.own
        if own is not None and phi is not None:
            # The loss has split `use` in six: the seventh key is none of those.
            own_key = jax.random.fold_in(use, 6)
            phi, metrics["own_loss"] = train_own_score(
                own_key, phi, own, prior, prior_params, *seen
            )
        return State(params, opt_state, grid, state.step + 1, key, phi), metrics

    return jax.jit(step, donate_argnums=0)


def non_finite_cause(metrics: dict[str, float]) -> str | None:
    """What first went wrong in a step, or None: the rendering, the prior, or the gradient."""
    causes = {
        "finite_rendering": "the rendering is not finite: the field has diverged (learning rate?)",
        "finite_residual": "the prior's prediction is not finite: bad weights, or half precision",
        "finite_gradient": "the gradient of the field is not finite although its rendering is",
    }
    return next((cause for name, cause in causes.items() if not metrics[name]), None)


def collapse(opacity: float) -> str | None:
    """Whether a field has become empty or solid, by the mean opacity of its pictures; or None."""
    if opacity < 0.01:
        return "empty: nothing is left of the field (guidance too low, or opacity weight too high)"
    if opacity > 0.95:
        return "solid: the field fills the picture (opacity weight too low, or cameras inside it)"
    return None


def _enlarge(image: Float[Array, "B h w C"], size: int) -> Float[Array, "B H W C"]:
    if image.shape[1] == size:
        return image
    return jax.image.resize(image, (image.shape[0], size, size, image.shape[3]), "linear")


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
