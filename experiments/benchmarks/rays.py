"""Cost against the number of rays: a picture rendered in chunks, forward and backward.

Seconds should grow with the rays, memory should not: only one chunk's samples exist at a time, and
the backward pass makes them again. What is left to grow is the picture itself and the list of its
rays, some tens of bytes a pixel.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.timing import interleaved
from experiments.recipe import make_field
from experiments.table import format_table
from geojax.geometry.camera_sampling import orbit
from geojax.methods.radiance import render

SIZES = (64, 128, 256, 512)
CHUNK = 4096  # rays


def measure(config: Any, repeats: int, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Seconds and bytes of the gradient of a picture, by its size."""
    field = make_field(config)
    params = field.init(jax.random.key(0))
    found = []
    for size in sizes:
        camera = orbit(1, 0.3, 1.45, 1.05, size, size).camera

        def loss(params: Any, key: jax.Array, camera: Any) -> jax.Array:
            picture = render(
                field.apply,
                params,
                camera,
                key,
                samples=config.samples,
                radius=config.field.radius,
                background=0.5,
                chunk=CHUNK,
            )
            return jnp.mean(picture.rgb**2)

        inputs = (params, jax.random.key(1), camera)
        program = jax.jit(jax.grad(loss)).lower(*inputs).compile()
        memory = program.memory_analysis()
        assert memory is not None  # every backend of XLA has one
        # One picture at a time: more repeats of a large one only cost time.
        times = interleaved({"all": functools.partial(program, *inputs)}, min(repeats, 3))
        found.append(
            {
                "size": size,
                "rays": size * size,
                "samples": config.samples,
                "chunk": CHUNK,
                "seconds": times["all"],
                "microseconds_a_ray": 1e6 * times["all"] / size**2,
                "temporary_bytes": memory.temp_size_in_bytes,
            }
        )
    return found


def title(figures: list[dict[str, Any]]) -> str:
    """What the table shows."""
    first = figures[0]
    return (
        f"A picture forward and backward, {first['samples']} samples a ray, "
        f"{first['chunk']} rays at a time"
    )


def table(figures: list[dict[str, Any]]) -> str:
    """A row a size."""
    rows = [
        [
            f"{f['size']} px",
            str(f["rays"]),
            f"{f['seconds']:.2f}",
            f"{f['microseconds_a_ray']:.1f}",
            f"{f['temporary_bytes'] / 1e6:.1f}",
        ]
        for f in figures
    ]
    return format_table(["picture", "rays", "seconds", "us a ray", "memory, MB"], rows)
