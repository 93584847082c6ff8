"""A pool of object pictures to train on: traced once, coloured and captioned anew at every draw."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from geojax.geometry.camera_sampling import CameraDistribution, sample_light, sample_views
from geojax.worlds import captions, solids
from geojax.worlds.render import render_layers, render_truth

VIEWS = CameraDistribution(
    elevation=(-10.0, 90.0),
    distance=(1.42, 1.48),
    focal=(1.24, 1.28),
    position_jitter=0.01,
    target_std=0.01,
    up_std=0.01,
)
"""DreamFusion's law of cameras, narrowed: the solid fills the frame, and its size in the picture
tells its size in the world. (A caption says nothing of distance or focal length; where they vary
by 15 % a distilled solid is free to be 15 % too small, which alone costs a third of its IoU.)"""

AMBIENT = (0.35, 0.65)
"""Range of the ambient share of the light."""

_TRACED_AT_ONCE = 50


class Pool(NamedTuple):
    """Traced views. `layers` are uint8: body, accent (3), coverage.

    Attributes:
      layers: [N, S, S, 5].
      kind: [N], index into `solids.KINDS`.
      azimuth: [N] radians.
      elevation: [N] radians.
    """

    layers: np.ndarray
    kind: np.ndarray
    azimuth: np.ndarray
    elevation: np.ndarray


class Batch(NamedTuple):
    """Pictures with what they show.

    Attributes:
      image: [B, S, S, 3] float32 in [0, 1].
      kind: [B], index into `solids.KINDS`.
      colour: [B], index into `solids.COLOURS`.
      azimuth: [B] radians.
      elevation: [B] radians.
    """

    image: np.ndarray
    kind: np.ndarray
    colour: np.ndarray
    azimuth: np.ndarray
    elevation: np.ndarray


def _views(key: jax.Array, start: int, count: int, size: int) -> tuple[Any, jax.Array, jax.Array]:
    """The cameras of a block of pictures, and the keys of their lights."""
    view_key, light_key, ambient_key = jax.random.split(jax.random.fold_in(key, start), 3)
    return sample_views(view_key, VIEWS, count, size, size), light_key, ambient_key


def trace_kind(key: jax.Array, kind: str, count: int, size: int) -> Pool:
    """Trace `count` views of one kind at size x size, under random cameras and lights."""
    parts: list[Pool] = []
    for start in range(0, count, _TRACED_AT_ONCE):
        n = min(_TRACED_AT_ONCE, count - start)
        views, light_key, ambient_key = _views(key, start, n, size)
        light = sample_light(light_key, views.camera.camera_to_world[:, :3, 3])
        low, high = AMBIENT
        ambient = jax.random.uniform(ambient_key, (n,), minval=low, maxval=high)
        layers = render_layers(kind, views.camera, light, ambient)
        stacked = jnp.concatenate(
            [layers.body[..., None], layers.accent, layers.coverage[..., None]], axis=-1
        )
        parts.append(
            Pool(
                layers=np.asarray(jnp.round(stacked * 255.0)).astype(np.uint8),
                kind=np.full(n, list(solids.KINDS).index(kind), np.int32),
                azimuth=np.asarray(views.azimuth),
                elevation=np.asarray(views.elevation),
            )
        )
    return Pool(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def load_or_trace(folder: Path, seed: int, per_kind: int, size: int) -> Iterator[tuple[str, Pool]]:
    """The pool of every kind, kept as one .npz a kind so that an interrupted trace goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, kind in enumerate(solids.KINDS):
        path = folder / f"{kind}-{size}-{per_kind}-{seed}.npz"
        if path.exists():
            with np.load(path) as stored:
                yield kind, Pool(**stored)
            continue
        key = jax.random.fold_in(jax.random.key(seed), index)
        pool = trace_kind(key, kind, per_kind, size)
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(unfinished, **pool._asdict())
        unfinished.rename(path)
        yield kind, pool


def load_or_trace_depths(
    folder: Path, seed: int, per_kind: int, pool_per_kind: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact depth of the first `per_kind` pictures of every kind in a pool; kept in a file.

    Args:
      folder: of the pool.
      seed: of the pool.
      per_kind: how many of each kind.
      pool_per_kind: how many the pool has.
      size: height and width.

    Returns:
      z-depth [N, S, S] float16, 0 behind the object, and the pool's rows [N] that it is of.

    Raises:
      ValueError: more are asked for than the pool has.
    """
    if not 0 < per_kind <= pool_per_kind:
        raise ValueError(f"per_kind={per_kind} must be in 1..{pool_per_kind}, the pool's number")
    rows = np.concatenate(
        [k * pool_per_kind + np.arange(per_kind) for k in range(len(solids.KINDS))]
    )
    path = folder / f"depths-{size}-{per_kind}-{pool_per_kind}-{seed}.npz"
    if not path.exists():
        parts = []
        for index, kind in enumerate(solids.KINDS):
            key = jax.random.fold_in(jax.random.key(seed), index)
            for start in range(0, per_kind, _TRACED_AT_ONCE):
                # As many at once as the pool traced, or the cameras would be others.
                n = min(_TRACED_AT_ONCE, pool_per_kind - start)
                truth = render_truth(kind, _views(key, start, n, size)[0].camera)
                parts.append(np.asarray(truth.depth, np.float16)[: per_kind - start])
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(unfinished, depth=np.concatenate(parts))
        unfinished.rename(path)
    with np.load(path) as stored:
        return stored["depth"], rows


def _allowed_colours(held_out: bool) -> list[np.ndarray]:
    """For each kind, the colours (indices) it is seen in: the trained, or the held-out ones."""
    return [
        np.asarray(
            [i for i, c in enumerate(solids.COLOURS) if ((kind, c) in solids.HELD_OUT) == held_out]
        )
        for kind in solids.KINDS
    ]


def random_backgrounds(rng: np.random.Generator, count: int) -> np.ndarray:
    """Plain backgrounds [count, 3] in [0, 1]: greys from dim to white, slightly tinted."""
    grey = rng.uniform(0.3, 1.0, (count, 1))
    return np.clip(grey + rng.normal(0.0, 0.06, (count, 3)), 0.0, 1.0).astype(np.float32)


def draw(
    rng: np.random.Generator,
    pool: Pool,
    batch: int,
    *,
    held_out: bool = False,
    jitter: float = 0.03,
    index: np.ndarray | None = None,
) -> Batch:
    """Draw pictures, each in a random allowed colour (jittered) before a random background.

    Args:
      rng: consumed.
      pool: traced views of all kinds.
      batch: how many.
      held_out: draw only the pairs that are never trained on, instead of only the others.
      jitter: standard deviation of the albedo around the colour word's.
      index: [batch] rows of the pool to take; None draws them.

    Returns:
      the batch.
    """
    if index is None:
        index = rng.integers(len(pool.kind), size=batch)
    kind = pool.kind[index]
    allowed = _allowed_colours(held_out)
    colour = np.asarray([rng.choice(allowed[k]) for k in kind], int)
    albedo = np.asarray(list(solids.COLOURS.values()), np.float32)[colour]
    albedo = np.clip(albedo + rng.normal(0.0, jitter, albedo.shape), 0.0, 1.0)
    layers = pool.layers[index].astype(np.float32) / 255.0
    body, accent, coverage = layers[..., :1], layers[..., 1:4], layers[..., 4:]
    behind = (1.0 - coverage) * random_backgrounds(rng, batch)[:, None, None, :]
    image = body * albedo[:, None, None, :] + accent + behind
    return Batch(
        image=np.clip(image, 0.0, 1.0).astype(np.float32),
        kind=kind,
        colour=colour,
        azimuth=pool.azimuth[index],
        elevation=pool.elevation[index],
    )


def random_caption(rng: np.random.Generator, kind: int, colour: int) -> str:
    """A caption of the subject in a random phrasing, without a view."""
    phrase = captions.PHRASES[rng.integers(len(captions.PHRASES))]
    return captions.subject(list(solids.COLOURS)[colour], list(solids.KINDS)[kind], phrase)


def between_captions(
    rng: np.random.Generator, batch: Batch, index: int
) -> tuple[list[str], list[float]]:
    """The captions of the four view-grid nodes around a picture and their weights."""
    text = random_caption(rng, int(batch.kind[index]), int(batch.colour[index]))
    nodes = captions.grid_weights(float(batch.azimuth[index]), float(batch.elevation[index]))
    return [text + captions.view_suffix(a, e) for e, a, _ in nodes], [w for _, _, w in nodes]


def loose_caption(rng: np.random.Generator, batch: Batch, index: int) -> str:
    """One caption: empty (20 %), no view (15 %), a coarse view (20 %), or the nearest node."""
    draw_ = rng.uniform()
    if draw_ < 0.2:
        return ""
    text = random_caption(rng, int(batch.kind[index]), int(batch.colour[index]))
    azimuth, elevation = float(batch.azimuth[index]), float(batch.elevation[index])
    if draw_ < 0.35:
        return text
    if draw_ < 0.55:
        return f"{text}, {captions.coarse_view(azimuth, elevation)}"
    e, a, _ = max(captions.grid_weights(azimuth, elevation), key=lambda node: node[2])
    return text + captions.view_suffix(a, e)
