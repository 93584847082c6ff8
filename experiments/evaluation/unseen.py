"""Pictures that no training draws, with captions: rooms and objects of seeds kept apart."""

from typing import NamedTuple

import jax
import numpy as np

from geojax.worlds import captions, pictures, room_captions, room_pictures, solids

DETAILS = 3
"""Things that the caption of a room names, apart from its walls and its floor."""


class Rooms(NamedTuple):
    """Pictures of rooms with their truth, each of another room, and a caption of each."""

    batch: room_pictures.Batch
    texts: list[str]


class Pictures(NamedTuple):
    """Pictures [N, S, S, 3] in [0, 1], and a caption of each; no two are the same text."""

    image: np.ndarray
    texts: list[str]


def unseen_rooms(seed: int, count: int, size: int) -> Rooms:
    """`count` rooms at size x size."""
    pool = room_pictures.trace_unseen(seed, count, size)
    batch = room_pictures.take(pool, np.arange(count))
    views = [room_captions.from_row(row) for row in batch.facts]
    return Rooms(batch, [room_captions.describe(view, DETAILS) for view in views])


def distinct_rooms(seed: int, count: int, size: int) -> Pictures:
    """`count` rooms whose captions differ: of the rooms in turn, those that say something new.

    Raises:
      ValueError: too few of them do.
    """
    rooms = unseen_rooms(seed, count + count // 2 + 4, size)
    first = {text: i for i, text in reversed(list(enumerate(rooms.texts)))}
    chosen = sorted(first.values())[:count]
    if len(chosen) < count:
        raise ValueError(f"{len(rooms.texts)} rooms have {len(chosen)} captions, not {count}")
    return Pictures(rooms.batch.image[chosen], [rooms.texts[i] for i in chosen])


def distinct_objects(seed: int, count: int, size: int) -> Pictures:
    """`count` objects whose captions differ: all pairs of kind and colour in turn, held out or not.

    A pair comes again only when all have come: from the left and from the right a ball is the
    same picture, so captions of one pair that name other views need not tell pictures apart.

    Raises:
      ValueError: a pair has too few views to say something new of it.
    """
    kinds, colours = list(solids.KINDS), list(solids.COLOURS)
    turns = -(-count // (len(kinds) * len(colours)))
    rng = np.random.default_rng((room_pictures.UNSEEN_SEED, seed))
    order = [rng.permutation(len(kinds) * len(colours)) for _ in range(turns)]
    pairs = [divmod(int(pair), len(colours)) for pair in np.concatenate(order)[:count]]
    seed_key = jax.random.key(room_pictures.UNSEEN_SEED + seed)
    # Twice as many views as are shown: where a caption has come, the next view is taken.
    pools = {
        k: pictures.trace_kind(
            jax.random.fold_in(seed_key, k), kinds[k], 2 * sum(k == of for of, _ in pairs), size
        )
        for k in sorted({k for k, _ in pairs})
    }
    next_view = [0] * len(kinds)
    images: list[np.ndarray] = []
    texts: list[str] = []
    for k, colour in pairs:
        while True:
            at, next_view[k] = next_view[k], next_view[k] + 1
            if at == len(pools[k].kind):
                raise ValueError(f"{at} views of a {kinds[k]} do not make {count} captions differ")
            azimuth, elevation = float(pools[k].azimuth[at]), float(pools[k].elevation[at])
            nearest = max(captions.grid_weights(azimuth, elevation), key=lambda node: node[2])
            text = captions.subject(colours[colour], kinds[k])
            text += captions.view_suffix(nearest[1], nearest[0])
            if text not in texts:
                break
        images.append(coloured(rng, pools[k], at, colour))
        texts.append(text)
    return Pictures(np.stack(images), texts)


def coloured(rng: np.random.Generator, pool: pictures.Pool, index: int, colour: int) -> np.ndarray:
    """One view of a pool in a given colour before a random background, [S, S, 3] in [0, 1]."""
    albedo = np.asarray(list(solids.COLOURS.values()), np.float32)[colour]
    layers = pool.layers[index].astype(np.float32) / 255.0
    body, accent, coverage = layers[..., :1], layers[..., 1:4], layers[..., 4:]
    behind = (1.0 - coverage) * pictures.random_backgrounds(rng, 1)[0]
    return np.clip(body * albedo + accent + behind, 0.0, 1.0).astype(np.float32)
