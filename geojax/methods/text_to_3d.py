"""DreamFusion: a field whose every rendering is likely under a text-to-image model.

Symbols: theta field parameters, x rendering, z latent, t time step, y condition of a view.
    (1)  x = render(theta, camera, light) over a random background
    (2)  L(theta) = SDS(encode(x); y(camera), t) + lambda_o opacity + lambda_e entropy
                    + lambda_n orientation
    (3)  theta <- optimiser(theta, dL/dtheta)

Poole et al., "DreamFusion" (2022), section 3 and appendix A. The gradient of (2) in x is
`methods/score_distillation`, the last three terms are `methods/regularizers`.

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

from geojax.geometry.camera_sampling import (
    CameraDistribution,
    ViewSample,
    sample_light,
    sample_views,
)
from geojax.geometry.occupancy import OccupancyGrid, update_grid
from geojax.methods import regularizers, timesteps
from geojax.methods.radiance import Light, Rendering, render
from geojax.methods.score_distillation import DistillationMetrics, score_distillation_loss
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.models.fields import Field
from geojax.priors.prior import Prior

Params = Any
Metrics = dict[str, Float[Array, ""]]


class State(NamedTuple):
    """All that is needed to go on, bit for bit.

    Attributes:
      params: of the field.
      optimiser: its state.
      grid: occupancy of the field, which lets the renderer skip empty space.
      step: steps taken.
      key: random key of the next step.
    """

    params: Params
    optimiser: optax.OptState
    grid: OccupancyGrid
    step: Int[Array, ""]
    key: Key[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptViews:
    """A prompt seen from a grid of directions, and the empty prompt.

    Attributes:
      embeddings: [E, K, L, D]; column k is for azimuth 2 pi k / K.
      elevations: [E] of the rows, radians, increasing.
      unconditional: [L, D].
    """

    embeddings: Float[Array, "E K L D"]
    elevations: Float[Array, " E"]
    unconditional: Float[Array, "L D"]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The lambdas of equation (2). They belong to this sum of pixels, and to no other codebase."""

    opacity: float = 0.0
    entropy: float = 0.0
    orientation: float = 0.0


def embed_views(
    prior: Prior,
    prompt: str,
    suffixes: Sequence[Sequence[str]],
    elevations: Float[np.ndarray, " E"],
) -> PromptViews:
    """Embed a prompt with the name of every view after it.

    Args:
      prior: whose text encoder is used.
      prompt: what is to be seen; not empty.
      suffixes: [E][K] names of the views, such as ", front view".
      elevations: [E] of the rows, radians.

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
    return PromptViews(table, jnp.asarray(elevations, jnp.float32), prior.embed([""])[0])


def random_light(
    key: Key[Array, ""],
    positions: Float[Array, "B 3"],
    ambient: tuple[float, float],
    textureless: float,
) -> Light:
    """DreamFusion's random light around each camera; some views lose their texture.

    Args:
      key: consumed.
      positions: of the cameras, world units.
      ambient: range of the ambient share; the diffuse share is the rest.
      textureless: probability that a view shows a white surface, which only shape can please.
    """
    light_key, ambient_key, texture_key = jax.random.split(key, 3)
    low, high = ambient
    share = jax.random.uniform(ambient_key, positions.shape[:1], minval=low, maxval=high)
    white = jax.random.bernoulli(texture_key, textureless, positions.shape[:1])
    return Light(
        position=sample_light(light_key, positions),
        ambient=share,
        diffuse=1.0 - share,
        texture=1.0 - white.astype(jnp.float32),
    )


def random_backgrounds(key: Key[Array, ""], count: int) -> Float[Array, "B 3"]:
    """Plain random backgrounds in [0, 1]: what is not solid cannot please before all of them."""
    grey_key, tint_key = jax.random.split(key)
    grey = jax.random.uniform(grey_key, (count, 1), minval=0.3, maxval=1.0)
    return jnp.clip(grey + 0.06 * jax.random.normal(tint_key, (count, 3)), 0.0, 1.0)


def init_state(
    key: Key[Array, ""], field: Field, optimiser: optax.GradientTransformation, grid: OccupancyGrid
) -> State:
    """A fresh field; the key is consumed."""
    init_key, key = jax.random.split(key)
    params = field.init(init_key)
    return State(params, optimiser.init(params), grid, jnp.zeros((), jnp.int32), key)


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
    t_first: tuple[float, float],
    t_last: tuple[float, float],
    steps: int,
    weights: Weights,
    grid_every: int,
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
      t_first: range of t at step 0, fractions of the schedule.
      t_last: range of t at step `steps`; between the two it moves linearly.
      steps: length of the run.
      weights: of the regularisers; entropy and orientation grow linearly from 0 to theirs.
      grid_every: steps between refreshes of the occupancy grid.

    Returns:
      step(state, prior_params, prompt_views) -> (state, metrics).
    """
    sharded = NamedSharding(mesh, PartitionSpec("views"))

    def loss(
        params: Params, prior_params: Params, key: Key[Array, ""], state: State, prompt: PromptViews
    ) -> tuple[Float[Array, ""], tuple[Rendering, DistillationMetrics]]:
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
            background=random_backgrounds(keys[3], views),
            light=light if shaded else None,
            occupancy=state.grid,
            capacity=capacity,
        )
        image = _enlarge(rendering.rgb, prior.image_size)
        x = jax.lax.with_sharding_constraint(prior.encode(prior_params, image), sharded)
        done = state.step.astype(jnp.float32) / steps
        between = timesteps.linear_range(state.step, t_first, t_last, steps)
        t = timesteps.stratified(keys[4], views, between, prior.schedule.num_steps)
        y = interpolate_view_embeddings(
            prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation
        )
        empty = jnp.broadcast_to(prompt.unconditional, y.shape)
        distillation, metrics = score_distillation_loss(
            keys[5],
            lambda z, t, y: prior.denoise(prior_params, z, t, y),
            prior.schedule,
            x,
            t,
            y,
            empty,
            guidance,
        )
        total = distillation + weights.opacity * regularizers.opacity_loss(rendering.opacity)
        total += done * weights.entropy * regularizers.entropy_loss(rendering.opacity)
        if rendering.orientation is not None:  # shaded: there are normals
            away = regularizers.orientation_loss(rendering.orientation, rendering.opacity)
            total += done * weights.orientation * away
        return total, (rendering, metrics)

    def step(state: State, prior_params: Params, prompt: PromptViews) -> tuple[State, Metrics]:
        key, use, grid_key = jax.random.split(state.key, 3)
        gradient, (rendering, distillation) = jax.grad(loss, has_aux=True)(
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
        return State(params, opt_state, grid, state.step + 1, key), metrics

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


def _enlarge(image: Float[Array, "B h w 3"], size: int) -> Float[Array, "B H W 3"]:
    if image.shape[1] == size:
        return image
    return jax.image.resize(image, (image.shape[0], size, size, 3), "linear")


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
