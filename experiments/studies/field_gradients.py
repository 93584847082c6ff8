"""Gradients of score distillation in the field: do the cameras agree on what is to be there?

Symbols: theta the field, x_k its rendering at camera k, z_k the latent of x_k, J_k = dz_k / dtheta,
r_kn the residual of noise n there, under a caption.
    (1)  g_kn = J_k^T r_kn
    (2)  the variances of g_kn between the draws of noise at a camera, and between cameras:
         `gradient_statistics`, equation (6)

In a picture each camera has pixels of its own; only in the field can two of them contradict each
other. All captions, and a model trained without them, share their cameras and their noise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from geojax.diffusion.guidance import guided
from geojax.geometry.camera_sampling import CameraDistribution, sample_views
from geojax.methods.gradient_statistics import NestedStatistics, nested_statistics
from geojax.methods.radiance import render
from geojax.methods.random_scenery import random_backgrounds
from geojax.methods.score_distillation import diffuse, predict
from geojax.methods.surrogate import enlarge
from geojax.methods.text_to_3d import PromptViews, State
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.models.fields import Field
from geojax.priors.prior import Prior

NOISES = 4  # a camera
KEY = 100
"""Folded into a run's seed for what a study draws."""


def field_gradients_at(
    config: Any, field: Field, prior: Prior, cameras: int
) -> Callable[..., dict[str, NestedStatistics]]:
    """A jitted function (key, state, params, uncaptioned, t [], prompt) -> statistics by name.

    Its arguments: the state of a run; parameters of the prior; those of one that was trained
    without captions, with what its own text encoder says of none [L, D], or None; the time step;
    the prompt from every side. The names are "none" (no caption), "view" (the prompt with the name
    of the view), "guided" (the same with the recipe's guidance; the others have 1), and
    "uncaptioned".

    Args:
      config: the recipe: cameras, size and samples of the first half of a run.
      field: what the state is of.
      prior: the image model.
      cameras: random ones, at least 2; `NOISES` draws at each.
    """
    distribution, size = CameraDistribution(**config.cameras), config.small_size

    def measure(
        key: jax.Array,
        state: State,
        params: Any,
        uncaptioned: tuple[Any, Array] | None,
        t: Array,
        prompt: PromptViews,
    ) -> dict[str, NestedStatistics]:
        def draw(key: jax.Array) -> dict[str, Array]:
            keys = jax.random.split(key, 4)
            seen = sample_views(keys[0], distribution, 1, size, size)
            behind = random_backgrounds(keys[1], 1)

            def latent(theta: Any) -> Array:
                rendering = render(
                    field.apply,
                    theta,
                    seen.camera,
                    keys[2],
                    samples=config.samples,
                    radius=config.field.radius,
                    background=behind,
                    occupancy=state.grid,
                    capacity=config.capacity,
                )
                return prior.encode(params, enlarge(rendering.rgb, prior.image_size))

            x, pull = jax.vjp(latent, state.params)
            many = jnp.broadcast_to(x, (NOISES, *x.shape[1:]))
            times = jnp.full((NOISES,), t)
            z, noise = diffuse(keys[3], prior.schedule, many, times)
            named = interpolate_view_embeddings(
                prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation
            )
            conditions = jnp.stack([prompt.unconditional[None], named])
            conditions = jnp.broadcast_to(conditions, (2, NOISES, *prompt.unconditional.shape))
            none, view = predict(lambda *args: prior.denoise(params, *args), z, times, conditions)
            residuals = {
                "none": none - noise,
                "view": view - noise,
                "guided": guided(none, view, config.guidance) - noise,
            }
            if uncaptioned is not None:
                weights, nothing = uncaptioned
                nothing = jnp.broadcast_to(nothing, (NOISES, *nothing.shape))
                eps = prior.denoise(weights, z, times, nothing)
                residuals["uncaptioned"] = eps - noise

            def in_field(residual: Array) -> Array:
                (gradient,) = pull(residual[None])
                return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

            return jax.tree.map(jax.vmap(in_field), residuals)

        return nested_statistics(key, draw, cameras)

    return jax.jit(measure)


def by_time(
    measure: Callable[..., dict[str, NestedStatistics]],
    arguments: tuple[State, Any, Any],
    prompt: PromptViews,
    times: Sequence[int],
    seed: int,
) -> dict[str, dict[str, list[float]]]:
    """name -> figure -> [len(times)]; the same cameras and noise at every time step.

    Args:
      measure: of `field_gradients_at`.
      arguments: state, params and uncaptioned of it.
      prompt: from every side.
      times: time steps.
      seed: of cameras and noise.
    """
    table: dict[str, dict[str, list[float]]] = {}
    for t in times:
        # A key apart from those of the runs, which start from the seed itself.
        key = jax.random.fold_in(jax.random.key(seed), KEY)
        found = measure(key, *arguments, jnp.asarray(t), prompt)
        for name, figures in jax.device_get(found).items():
            row = table.setdefault(name, {figure: [] for figure in figures._fields})
            for figure, value in figures._asdict().items():
                row[figure].append(float(value))
    return table
