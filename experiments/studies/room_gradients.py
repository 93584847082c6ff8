"""What a camera does to the density before its lens.

Symbols: o position of a camera, x its rendering, C the loss of score distillation, sigma density.
    (1)  sigma_e(p) = (1 + e [|p - o| < r]) sigma(p),  r = a tenth of the box's longest side
    (2)  pull = dC(x_e) / de at e = 0: over 0 and the step takes density away before the lens, under
         0 and it puts some there
    (3)  within: the camera stands in density, r_f sigma(o) > tau_free, with the clearance r_f and
         the thickness tau_free of `geometry/inside_cameras`; the others stand in the air

That a camera within density empties the place where it stands says that (2) is positive for those
of (3).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.recipe import choose_cameras, choose_critic
from experiments.room_recipe import density_of
from experiments.room_report import NEAR
from geojax.methods.radiance import render
from geojax.methods.random_scenery import random_backgrounds
from geojax.methods.text_to_3d import PromptViews, Shown, State
from geojax.methods.view_prompts import interpolate_view_embeddings
from geojax.models.fields import Field
from geojax.priors.prior import Prior


def pulls_at(
    config: Any, field: Field, prior: Prior, draws: int
) -> Callable[[jax.Array, State, Any, PromptViews], tuple[Array, Array]]:
    """A jitted function (key, state, the prior's params, prompt) -> (2) and (3), each [draws].

    Cameras are those of the recipe's rule at the state, one a draw, at the small size and over
    plain backgrounds; t is drawn as in training at the state's step.
    """
    cameras, critic = choose_cameras(config, field), choose_critic(config, prior, None)
    near = NEAR * 2.0 * max(config.inside.half)
    air = config.inside.free.thickness / config.inside.free.clearance

    def measure(
        key: jax.Array, state: State, params: Any, prompt: PromptViews
    ) -> tuple[Array, Array]:
        def draw(key: jax.Array) -> tuple[Array, Array]:
            keys = jax.random.split(key, 5)
            seen = cameras(keys[0], 1, config.small_size, state)
            behind = random_backgrounds(keys[1], 1)

            def thickened(params: Any, points: Array, share: Array) -> tuple[Array, Array]:
                density, feature = field.apply(params, points)
                away = jnp.linalg.norm(points - seen.camera.position, axis=-1)
                return density * jnp.where(away < near, 1.0 + share, 1.0), feature

            def loss(share: Array) -> Array:
                rendering = render(
                    lambda params, points: thickened(params, points, share),
                    state.params,
                    seen.camera,
                    keys[2],
                    samples=config.samples,
                    radius=config.field.radius,
                    background=behind,
                )
                y = interpolate_view_embeddings(
                    prompt.embeddings, prompt.elevations, seen.azimuth, seen.elevation
                )
                shown = Shown(rendering, seen, y, prompt, state)
                return critic.opinion(keys[3:], params, shown).loss

            within = density_of(field, state)(seen.camera.position)[0] > air
            return jax.grad(loss)(jnp.float32(0.0)), within

        return jax.lax.map(draw, jax.random.split(key, draws))

    return jax.jit(measure)


def summary(pull: Array, within: Array) -> dict[str, Any]:
    """Share of the cameras of (3), and mean and standard error of (2) for them and the others."""
    pulls, inside = np.asarray(pull, np.float64), np.asarray(within)

    def mean(values: np.ndarray) -> dict[str, float | None]:
        count = len(values)
        return {
            "mean": float(values.mean()) if count else None,
            "error": float(values.std(ddof=1) / count**0.5) if count > 1 else None,
        }

    return {
        "within": float(inside.mean()),
        "pull_within": mean(pulls[inside]),
        "pull_free": mean(pulls[~inside]),
    }
