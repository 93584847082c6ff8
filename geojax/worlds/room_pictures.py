"""A pool of room pictures to train on: traced once, kept in files, captioned anew at every draw.

Picture, depth, and what is seen come from the same cameras, so one pool trains the autoencoder, the
denoiser, the inpainting denoiser, the depth model, and the pair that scores captions.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from geojax.worlds import room_captions
from geojax.worlds.room_cameras import sample_views
from geojax.worlds.room_holes import random_hole
from geojax.worlds.room_render import render, render_truth
from geojax.worlds.room_scene import Room, Scene
from geojax.worlds.rooms import sample_room

VIEWS_PER_ROOM = 4
ROOMS_PER_FILE = 128
UNSEEN_SEED = 1 << 31
"""Seeds from here on are of rooms to judge by; `load_or_trace`, for training, refuses them."""

_AT_ONCE = 16  # pictures rendered together: their arrays stay in the cache


class Pool(NamedTuple):
    """Traced views of rooms.

    Attributes:
      rgb: [N, S, S, 3] uint8.
      depth: z-depth in metres, [N, S, S] float16; `room_render.SKY_DEPTH` in the sky.
      facts: what is seen, [N, room_captions.FACTS] int8 (`room_captions.to_row`).
      focal: in pixels, [N] float32; the principal point is in the middle.
      pose: camera_to_world, [N, 4, 4] float32.
      room: number of the room within the pool's seed, [N] int32.
    """

    rgb: np.ndarray
    depth: np.ndarray
    facts: np.ndarray
    focal: np.ndarray
    pose: np.ndarray
    room: np.ndarray


class Batch(NamedTuple):
    """Pictures with their truth.

    Attributes:
      image: [B, S, S, 3] float32 in [0, 1].
      depth: z-depth in metres, [B, S, S] float32.
      facts: what is seen, [B, room_captions.FACTS] int8.
      focal: in pixels, [B] float32.
    """

    image: np.ndarray
    depth: np.ndarray
    facts: np.ndarray
    focal: np.ndarray


def room_of(seed: int, number: int, *, held_out: bool = False) -> Room:
    """The room of a number: the same for ever, so that a pool need not store it."""
    return sample_room(np.random.default_rng((seed, number, int(held_out))), held_out=held_out)


def trace_rooms(seed: int, numbers: Sequence[int], size: int, *, held_out: bool = False) -> Pool:
    """Trace `VIEWS_PER_ROOM` views of each room at size x size."""
    rooms = [room_of(seed, n, held_out=held_out) for n in numbers]
    # Rooms of like numbers of solids together: a batch takes as long as its fullest room.
    order = np.argsort([int(np.asarray(room.scene.used)[0]) for room in rooms], kind="stable")
    at_once = _AT_ONCE // VIEWS_PER_ROOM
    parts: dict[int, Pool] = {}
    for start in range(0, len(rooms), at_once):
        some = [int(i) for i in order[start : start + at_once]]
        # The last rooms are repeated until the batch is full: one shape, one compilation.
        some += some[-1:] * (at_once - len(some))
        traced = _trace(seed, [numbers[i] for i in some], [rooms[i] for i in some], size)
        parts.update(zip(some, traced, strict=True))
    return concatenate([parts[i] for i in range(len(rooms))])


def _trace(seed: int, numbers: Sequence[int], rooms: Sequence[Room], size: int) -> list[Pool]:
    """The views of a few rooms, a pool for each."""
    cameras = [
        sample_views(np.random.default_rng((seed, n, 2)), room, VIEWS_PER_ROOM, size).camera
        for n, room in zip(numbers, rooms, strict=True)
    ]
    camera = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *cameras)
    scenes = [np.stack(leaves) for leaves in zip(*(room.scene for room in rooms), strict=True)]
    scene = Scene(*(np.repeat(leaf, VIEWS_PER_ROOM, axis=0) for leaf in scenes))
    image, truth = render(scene, camera), render_truth(scene, camera)
    things = np.asarray(truth.thing)
    facts = [
        room_captions.to_row(room_captions.observe(rooms[i // VIEWS_PER_ROOM], seen))
        for i, seen in enumerate(things)
    ]
    pool = Pool(
        rgb=np.asarray(jnp.round(image * 255.0)).astype(np.uint8),
        depth=np.asarray(truth.depth).astype(np.float16),
        facts=np.stack(facts),
        focal=np.asarray(camera.fx),
        pose=np.asarray(camera.camera_to_world),
        room=np.repeat(np.asarray(numbers, np.int32), VIEWS_PER_ROOM),
    )
    views = [slice(i, i + VIEWS_PER_ROOM) for i in range(0, len(things), VIEWS_PER_ROOM)]
    return [Pool(*(leaf[view] for leaf in pool)) for view in views]


def trace_unseen(seed: int, count: int, size: int) -> Pool:
    """`count` pictures that no training draws, each of another room, of any materials."""
    pool = trace_rooms(UNSEEN_SEED + seed, range(count), size)
    return Pool(*(leaf[::VIEWS_PER_ROOM] for leaf in pool))


def concatenate(pools: Sequence[Pool]) -> Pool:
    """One pool of several."""
    return Pool(*(np.concatenate(leaves) for leaves in zip(*pools, strict=True)))


def load_or_trace(
    folder: Path, seed: int, rooms: int, size: int, *, held_out: bool = False
) -> Iterator[Pool]:
    """The pool of rooms 0 ... rooms - 1, in files of `ROOMS_PER_FILE`; a broken trace goes on.

    Args:
      folder: where the files are, or will be.
      seed: of the rooms and their cameras, under `UNSEEN_SEED`.
      rooms: how many; each gives `VIEWS_PER_ROOM` pictures.
      size: height and width, pixels.
      held_out: rooms of the pairs of materials that are never trained on.

    Yields:
      the pool of each file.

    Raises:
      ValueError: if the seed is one of those kept to judge by.
    """
    if seed >= UNSEEN_SEED:
        raise ValueError(f"seed {seed}: rooms to train on have seeds under {UNSEEN_SEED}")
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, rooms, ROOMS_PER_FILE):
        end = min(start + ROOMS_PER_FILE, rooms)
        which = "held-out" if held_out else "rooms"
        path = folder / f"{which}-{size}-{seed}-{start}-{end}.npz"
        if path.exists():
            with np.load(path) as stored:
                yield Pool(**stored)
            continue
        pool = trace_rooms(seed, range(start, end), size, held_out=held_out)
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(unfinished, **pool._asdict())
        unfinished.rename(path)
        yield pool


def draw(rng: np.random.Generator, pool: Pool, batch: int, *, mirror: bool = True) -> Batch:
    """Draw pictures with their truth.

    Args:
      rng: consumed.
      pool: traced views.
      batch: how many.
      mirror: whether half of them are mirrored, left and right of their things with them.

    Returns:
      the batch.
    """
    return take(pool, rng.integers(len(pool.focal), size=batch), rng if mirror else None)


def take(pool: Pool, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
    """The pictures of given indices; with a generator, half of them mirrored."""
    image = pool.rgb[index].astype(np.float32) / 255.0
    depth, facts = pool.depth[index].astype(np.float32), pool.facts[index]
    if rng is not None:
        turned = rng.uniform(size=len(index)) < 0.5
        image[turned], depth[turned] = image[turned, :, ::-1], depth[turned, :, ::-1]
        facts[turned] = room_captions.mirrored(facts[turned])
    return Batch(image, depth, facts, pool.focal[index])


def captions(rng: np.random.Generator, batch: Batch, *, dropped: float = 0.0) -> list[str]:
    """A random caption of each picture, "" with probability `dropped`."""
    return [
        ""
        if rng.uniform() < dropped
        else room_captions.random_caption(rng, room_captions.from_row(row))
        for row in batch.facts
    ]


def holes(rng: np.random.Generator, batch: Batch) -> np.ndarray:
    """A random hole for each picture, [B, S, S] bool, True where it is to be filled."""
    size = batch.image.shape[1]
    return np.stack(
        [
            random_hole(rng, size, depth, float(focal))
            for depth, focal in zip(batch.depth, batch.focal, strict=True)
        ]
    )
