"""DreamFusion: a field whose every rendering is likely under an image model.

Symbols: theta field parameters, x rendering, y condition of a view, C a critic's loss.
    (1)  x = render(theta, camera, light) over a random background
    (2)  L(theta) = C(x; y(camera)) + lambda_o opacity + lambda_e entropy + lambda_n orientation
                    + lambda_m emptiness + lambda_c centre depth + lambda_a air
    (3)  theta <- optimiser(theta, dL/dtheta)

Poole et al., "DreamFusion" (2022), section 3 and appendix A; emptiness and centre depth: H. Wang et
al., "Score Jacobian Chaining" (2023). C is score distillation (`denoiser_critic`) or any model that
scores images (`scorer_critic`); the other terms are `methods/regularizers` and `methods/sjc`.

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

from geojax.geometry.camera_sampling import ViewSample
from geojax.geometry.occupancy import OccupancyGrid, update_grid
from geojax.methods import regularizers, sjc
from geojax.methods.radiance import Rendering, render
from geojax.methods.random_scenery import random_backgrounds, random_light
from geojax.methods.surrogate import DistillationMetrics
from geojax.methods.variational import OwnScore
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.models.fields import Field
from geojax.priors.image_scorer import ImageScorer
from geojax.priors.prior import Prior

Params = Any
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


class Shown(NamedTuple):
    """What a critic is shown in a step.

    Attributes:
      rendering: of the field, at the step's size.
      views: its cameras.
      condition: [B, L, D] of each view, between the prompts that name views.
      prompt: the prompt from every side.
      state: before the step.
    """

    rendering: Rendering
    views: ViewSample
    condition: Float[Array, "B L D"]
    prompt: PromptViews
    state: State


class Verdict(NamedTuple):
    """What a critic says of a step's renderings.

    Attributes:
      loss: C of (2), a scalar; its gradient reaches the renderings.
      metrics: of that gradient.
      seen: what the critic learns from, arrays; None where it does not learn.
      figures: scalars to log besides.
    """

    loss: Float[Array, ""]
    metrics: DistillationMetrics
    seen: Any
    figures: Metrics


class Critic(NamedTuple):
    """What says how good renderings are, C of (2); it may learn along.

    Attributes:
      opinion: (keys [2], the model's params, what is shown) -> verdict; consumes the keys.
      learn: (key, the model's params, state.own, verdict.seen) -> (own, figures), or None.
    """

    opinion: Callable[[Key[Array, "2"], Params, Shown], Verdict]
    learn: Callable[[Key[Array, ""], Params, OwnScore, Any], tuple[OwnScore, Metrics]] | None = None


Cameras = Callable[[Key[Array, ""], int, int, State], ViewSample]
"""(key, count, size in pixels, state) -> views: where to stand may depend on field and step."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """The lambdas of (2). They belong to this sum of pixels, and to no other codebase."""

    opacity: float = 0.0
    entropy: float = 0.0
    orientation: float = 0.0
    emptiness: float = 0.0
    centre_depth: float = 0.0
    air: float = 0.0
    air_radius: float = 0.1  # r, world units


def embed_views(
    model: Prior | ImageScorer,
    prompt: str,
    suffixes: Sequence[Sequence[str]],
    elevations: Float[np.ndarray, " E"],
    negative: str | None = None,
) -> PromptViews:
    """Embed a prompt with the name of every view after it.

    Args:
      model: whose text encoder is used.
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
    embedded = model.embed(names)
    table = embedded.reshape(len(suffixes), len(suffixes[0]), *embedded.shape[1:])
    unwanted = None if negative is None else model.embed([negative])[0]
    rows = jnp.asarray(elevations, jnp.float32)
    return PromptViews(table, rows, model.embed([""])[0], unwanted)


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
    critic: Critic,
    field: Field,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
    *,
    views: int,
    size: int,
    cameras: Cameras,
    radius: float,
    samples: int,
    capacity: int | None,
    shaded: bool,
    ambient: tuple[float, float],
    textureless: float,
    steps: int,
    weights: Weights,
    grid_every: int,
    background: BackgroundOf | None = None,
) -> Callable[[State, Params, PromptViews], tuple[State, Metrics]]:
    """One step of equations (1)-(3), jitted; the state is donated.

    Args:
      critic: what judges the renderings; its model's parameters are passed to the step.
      field: what is optimised.
      optimiser: of the field.
      mesh: devices, with an axis "views" that divides `views`.
      views: cameras a step.
      size: side of the rendering in pixels; the critic enlarges it to the model's.
      cameras: where a step looks from.
      radius: of the ball that the field lives in, world units.
      samples: intervals a ray.
      capacity: most samples a step at which the field is evaluated (see `render`).
      shaded: light the surface (2 to 3 times as dear), or show its albedo.
      ambient: range of the ambient share of the light.
      textureless: probability of a white surface in a shaded view.
      steps: length of the run.
      weights: of the regularisers; entropy and orientation grow linearly from 0 to theirs.
      grid_every: steps between refreshes of the occupancy grid.
      background: (params, directions [N, 3]) -> colour, learnt with the field; None: random plain
        ones.

    Returns:
      step(state, model_params, prompt_views) -> (state, metrics).
    """
    sharded = NamedSharding(mesh, PartitionSpec("views"))

    def total_loss(
        params: Params, model_params: Params, key: Key[Array, ""], state: State, prompt: PromptViews
    ) -> tuple[Float[Array, ""], tuple[Rendering, Verdict]]:
        keys = jax.random.split(key, 6)
        seen: ViewSample = cameras(keys[0], views, size, state)
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
        x = jax.lax.with_sharding_constraint(rendering.rgb, sharded)
        rendering = rendering._replace(rgb=x)
        done = state.step.astype(jnp.float32) / steps
        y = interpolate_view_embeddings(
            prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation
        )
        shown = Shown(rendering, seen, y, prompt, state)
        verdict = critic.opinion(keys[4:], model_params, shown)
        total = verdict.loss + weights.opacity * regularizers.opacity_loss(rendering.opacity)
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
        if weights.air:
            air_key = jax.random.fold_in(key, 7)  # split in six; the critic learns with a seventh
            points = regularizers.around(air_key, seen.camera.position, weights.air_radius)
            density = field.apply(params, points)[0]
            total += weights.air * regularizers.air_loss(density, weights.air_radius)
        return total, (rendering, verdict)

    def step(state: State, model_params: Params, prompt: PromptViews) -> tuple[State, Metrics]:
        key, use, grid_key = jax.random.split(state.key, 3)
        gradient, (rendering, verdict) = jax.grad(total_loss, has_aux=True)(
            state.params, model_params, use, state, prompt
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
            "depth": jnp.mean(rendering.depth),
            "gradient_norm": optax.global_norm(gradient),
            "residual": verdict.metrics.residual_rms,
            "coherence": verdict.metrics.coherence,
            "t": verdict.metrics.mean_t,
            "dropped": rendering.dropped,
            "occupied": rendering.occupied.astype(jnp.float32),
            "finite_rendering": _all_finite(rendering.rgb).astype(jnp.float32),
            "finite_residual": verdict.metrics.finite.astype(jnp.float32),
            "finite_gradient": _all_finite(gradient).astype(jnp.float32),
        }
        metrics |= verdict.figures
        phi = state.own
        if critic.learn is not None and phi is not None:
            # The loss has split `use` in six: the seventh key is none of those.
            own_key = jax.random.fold_in(use, 6)
            phi, figures = critic.learn(own_key, model_params, phi, verdict.seen)
            metrics |= figures
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


def collapse(opacity: float, inside: bool = False) -> str | None:
    """Whether a field is empty, or solid (not seen from `inside`), by its mean opacity; or None."""
    if opacity < 0.01:
        return "empty: nothing is left of the field (guidance too low, or opacity weight too high)"
    if opacity > 0.95 and not inside:
        return "solid: the field fills the picture (opacity weight too low, or cameras inside it)"
    return None


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
