"""Where the time of a distillation step goes.

The parts are measured as programs of their own: `render` and `encode` forward, `denoise` with and
without the prompt, `backward` as what the gradient through encoder and renderer takes beyond the
two forward. `whole` is the step itself; `rest`, its difference from the sum of the parts, is
optimiser, cameras, occupancy grid and losses, less what one program saves.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import distill, recipe
from experiments.benchmarks.timing import interleaved
from experiments.table import format_table
from geojax.geometry.camera_sampling import CameraDistribution, sample_views
from geojax.geometry.occupancy import full_grid
from geojax.methods import text_to_3d
from geojax.methods.radiance import render
from geojax.methods.score_distillation import predict

PARTS = ("render", "encode", "denoise", "backward", "rest", "whole")


def _measure_step(
    config: Any, tools: distill.Tools, large: bool, shaded: bool, repeats: int
) -> dict[str, float]:
    prior, field = tools.prior, tools.field
    size = config.large_size if large else config.small_size
    prompt = text_to_3d.embed_views(
        prior, "a red mug", config.view_suffixes, np.radians(config.view_elevations)
    )
    grid = full_grid(config.grid_resolution, config.field.radius)
    state = text_to_3d.init_state(jax.random.key(0), field, tools.optimiser, grid)
    params = jax.tree.map(jnp.copy, state.params)  # the state's own are donated

    def picture(params: Any, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        cameras = CameraDistribution(**config.cameras)
        camera = sample_views(keys[0], cameras, config.views, size, size).camera
        light = text_to_3d.random_light(
            keys[1], camera.position, config.ambient, config.textureless
        )
        rgb = render(
            field.apply,
            params,
            camera,
            keys[2],
            samples=config.samples,
            radius=config.field.radius,
            background=text_to_3d.random_backgrounds(keys[3], config.views),
            light=light if shaded else None,
            occupancy=grid,
            capacity=recipe.sample_capacity(config, large),
        ).rgb
        if size == prior.image_size:
            return rgb
        shape = (config.views, prior.image_size, prior.image_size, 3)
        return jax.image.resize(rgb, shape, "linear")

    def latent(params: Any, prior_params: Any, key: jax.Array) -> jax.Array:
        return jnp.sum(prior.encode(prior_params, picture(params, key)))

    def eps(prior_params: Any, z: jax.Array, t: jax.Array, conds: jax.Array) -> jax.Array:
        return predict(lambda *inputs: prior.denoise(prior_params, *inputs), z, t, conds)

    key = jax.random.key(1)
    image = jnp.full((config.views, prior.image_size, prior.image_size, 3), 0.5)
    z = jnp.zeros((config.views, prior.latent_size, prior.latent_size, prior.latent_channels))
    t = jnp.full(config.views, 500, jnp.int32)
    conds = jnp.broadcast_to(prompt.unconditional, (2, config.views, *prompt.unconditional.shape))
    programs = [jax.jit(f) for f in (picture, prior.encode, eps, jax.grad(latent))]
    render_, encode, denoise, gradient = programs

    def whole() -> Any:
        nonlocal state
        state, metrics = tools.steps[large, shaded](state, prior.params, prompt)
        return metrics

    seconds = interleaved(
        {
            "render": lambda: render_(params, key),
            "encode": lambda: encode(prior.params, image),
            "denoise": lambda: denoise(prior.params, z, t, conds),
            "gradient": lambda: gradient(params, prior.params, key),
            "whole": whole,
        },
        repeats,
    )
    forward = seconds["render"] + seconds["encode"]
    seconds["backward"] = seconds.pop("gradient") - forward
    seconds["rest"] = seconds["whole"] - forward - seconds["denoise"] - seconds["backward"]
    return seconds


def measure(config: Any, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each part, of each kind of step that the recipe has."""
    tools = distill.prepare(config)
    return [
        {
            "size": config.large_size if large else config.small_size,
            "views": config.views,
            "shaded": shaded,
            **_measure_step(config, tools, large, shaded, repeats),
        }
        for large, shaded in kinds_of_step(config)
    ]


def kinds_of_step(config: Any) -> list[tuple[bool, bool]]:
    """(large, shaded) of the steps that a run of the recipe can take."""
    kinds = set()
    for step in range(config.steps):
        large = step >= config.large_from * config.steps
        lit = step >= config.shaded_from * config.steps
        kinds |= {(large, True)} if lit and config.shaded_share > 0.0 else set()
        kinds |= {(large, False)} if not lit or config.shaded_share < 1.0 else set()
    return sorted(kinds)


def title(figures: list[dict[str, Any]]) -> str:
    """What the table shows."""
    return f"A distillation step of {figures[0]['views']} views, milliseconds"


def table(figures: list[dict[str, Any]]) -> str:
    """A row for each kind of step."""
    rows = [
        [
            f"{f['size']} px, {'lit' if f['shaded'] else 'unlit'}",
            *(f"{1e3 * f[part]:.1f}" for part in PARTS),
        ]
        for f in figures
    ]
    return format_table(["step", *PARTS], rows)
