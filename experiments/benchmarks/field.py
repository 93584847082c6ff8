"""The hash-grid field forward and backward, against a plain PyTorch version of the same field.

Both get the same parameters, points and output weights, and run in turn on the same cores. PyTorch
is optional: without it only geojax's time is measured.
"""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import interleaved
from experiments.recipe import make_field
from experiments.table import format_table


def make_problem(config: Any, count: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Parameters of the recipe's field, points [N, 3] in its ball, output weights [N, 4].

    Table entries are of the size that training gives them, so that no gradient is lost in rounding.
    """
    rng = np.random.default_rng(0)
    params = make_field(config).init(jax.random.key(0))
    params["grid"] = {
        name: jnp.asarray(rng.normal(0.0, 0.1, table.shape), jnp.float32)
        for name, table in params["grid"].items()
    }
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    points = direction * (config.field.radius * rng.uniform(size=(count, 1)) ** (1.0 / 3.0))
    return params, points.astype(np.float32), rng.normal(size=(count, 4)).astype(np.float32)


def gradient_program(config: Any) -> Any:
    """Jitted (params, points, weights) -> d sum(weights * output) / d params."""
    field = make_field(config)

    def loss(params: Any, points: jax.Array, weights: jax.Array) -> jax.Array:
        density, feature = field.apply(params, points)
        return jnp.sum(weights * jnp.concatenate([density[:, None], feature], axis=-1))

    return jax.jit(jax.grad(loss))


def measure(config: Any, repeats: int) -> dict[str, Any]:
    """Seconds of geojax and, where it is installed, of PyTorch, and their ratio."""
    rays = config.views * config.small_size**2
    count = rays * config.samples
    params, points, weights = make_problem(config, count)
    program = gradient_program(config)
    on_device = jax.device_put((params, points, weights))
    functions = {"geojax": lambda: program(*on_device)}
    found: dict[str, Any] = {"rays": rays, "samples": config.samples, "points": count}
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed, so there is no comparison: pip install -e '.[torch]'")
        return {**found, **interleaved(functions, repeats), "pytorch": None, "ratio": None}

    from experiments.benchmarks import hash_grid_torch

    network = hash_grid_torch.HashGridField(config.field, jax.device_get(params))
    inputs = hash_grid_torch.tensors(points, weights)
    functions["pytorch"] = lambda: network.gradient(*inputs)
    seconds = interleaved(functions, repeats)
    return {**found, **seconds, "ratio": seconds["geojax"] / seconds["pytorch"]}


def title(figures: dict[str, Any]) -> str:
    """What the table shows."""
    return (
        f"The field, forward and backward: {figures['rays']} rays x {figures['samples']} samples, "
        "milliseconds"
    )


def table(figures: dict[str, Any]) -> str:
    """A row for each implementation."""
    names = [name for name in ("geojax", "pytorch") if figures[name] is not None]
    rows = [[name, f"{1e3 * figures[name]:.1f}"] for name in names]
    if figures["ratio"] is not None:
        rows.append(["ratio", f"{figures['ratio']:.2f}"])
    return format_table(["implementation", "ms"], rows)
