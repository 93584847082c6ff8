"""View-dependent prompts: which side of the object the prompt speaks of.

Symbols
    a, e        azimuth and elevation of the camera, radians; a = 0 faces the object's front
    c           prompt embedding [L, D]
    r           share of the first of the two neighbours

Three ways, from coarse to fine:
    (1)  a name by thresholds                  overhead if e > 60 deg, front if |a| < 45 deg,
                                               back if |a| > 135 deg, else side
    (2)  interpolated embeddings               Poole et al. 2022, DreamFusion, sec. 3.2
         r = 1 - |a| / 90 deg:   c = r front + (1 - r) side          |a| < 90 deg
         r = 2 - |a| / 90 deg:   c = r side + (1 - r) back           else
    (3)  bilinear in (a, e) over a table of prompts at K azimuths and E elevations: left and right
         are told apart, and so are the quarters between them.

A text encoder cuts what is over its limit at the end, where the view is named: of a long prompt
every side would be the same. So it is the prompt that is cut, before the name.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

VIEW_NAMES = ("front view", "side view", "back view", "overhead view")
_OVERHEAD = jnp.pi / 3.0


def view_prompts(prompt: str) -> tuple[str, ...]:
    """The prompt with each of VIEW_NAMES after it: "a red mug, front view", ..."""
    return tuple(f"{prompt}, {name}" for name in VIEW_NAMES)


def shorten_prompt(
    cut: Callable[[Sequence[str]], Sequence[str]], prompt: str, suffixes: Sequence[str]
) -> str:
    """The longest beginning of a prompt, whole words where there are any, before which all fit.

    Args:
        cut: texts -> what of each is over the limit of tokens, "" where all of it fits.
        prompt: any length.
        suffixes: names of views, such as ", front view".

    Raises:
        ValueError: a suffix alone is over the limit.
    """
    # The longest in letters need not be so in tokens, so all are asked, each but once.
    names = list(dict.fromkeys(suffixes))

    def fits(beginning: str) -> bool:
        return not any(cut([beginning + name for name in names]))

    if fits(prompt):
        return prompt
    low, high = 0, len(prompt)  # in letters: `low` fit, `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(prompt[:middle]) else (low, middle)
    kept = prompt[:low]
    words = kept.split()
    if len(words) > 1 and not kept[-1].isspace() and not prompt[low].isspace():
        kept = kept[: -len(words[-1])]
    kept = kept.rstrip(" \t\n,;.")
    if not kept:
        raise ValueError(f"{max(names, key=len)!r} leaves no room for the prompt {prompt!r}")
    return kept


def view_index(azimuth: Float[Array, "*b"], elevation: Float[Array, "*b"]) -> Int[Array, "*b"]:
    """The view's place in VIEW_NAMES, rule (1). Radians; any turn of azimuth."""
    turn = _unsigned(azimuth)
    name = jnp.where(turn < 0.25 * jnp.pi, 0, jnp.where(turn > 0.75 * jnp.pi, 2, 1))
    return jnp.where(elevation > _OVERHEAD, 3, name).astype(jnp.int32)


def interpolate_named(
    embeddings: Float[Array, "4 l d"], azimuth: Float[Array, "b"], elevation: Float[Array, "b"]
) -> Float[Array, "b l d"]:
    """Embeddings between the named views, rule (2).

    Args:
        embeddings: [4, L, D], in the order of VIEW_NAMES.
        azimuth: [B], radians, any turn.
        elevation: [B], radians; above 60 degrees the overhead embedding is taken whole.

    Returns:
        [B, L, D].
    """
    front, side, back, overhead = embeddings[:, None]
    turn = (_unsigned(azimuth) / (0.5 * jnp.pi))[:, None, None]  # in [0, 2]
    between = jnp.where(
        turn < 1.0,
        (1.0 - turn) * front + turn * side,
        (2.0 - turn) * side + (turn - 1.0) * back,
    )
    return jnp.where((elevation > _OVERHEAD)[:, None, None], overhead, between)


def interpolate_view_embeddings(
    embeddings: Float[Array, "e k l d"],
    elevations: Float[Array, "e"],
    azimuth: Float[Array, "b"],
    elevation: Float[Array, "b"],
) -> Float[Array, "b l d"]:
    """Embeddings between the entries of a table of views, rule (3).

    Args:
        embeddings: [E, K, L, D]; column k is the prompt for azimuth 2 pi k / K.
        elevations: [E], radians, increasing; the elevation of each row.
        azimuth: [B], radians, any turn (periodic).
        elevation: [B], radians, clamped to the first and the last row.

    Returns:
        [B, L, D]; at the table's own views exactly its entries.
    """
    rows, columns = embeddings.shape[:2]
    column = azimuth * (columns / (2.0 * jnp.pi)) % columns
    left = jnp.floor(column)
    to_right = column - left
    left = left.astype(jnp.int32) % columns  # -0.0 % K may round up to K itself
    right = (left + 1) % columns

    # Fractional row: elevations need not be evenly spaced.
    row = jnp.interp(elevation, elevations, jnp.arange(rows, dtype=elevations.dtype))
    low = jnp.clip(jnp.floor(row).astype(jnp.int32), 0, max(rows - 2, 0))
    high = jnp.minimum(low + 1, rows - 1)
    to_high = row - low.astype(row.dtype)

    def mix(a, b, share):
        return a + share[:, None, None] * (b - a)

    return mix(
        mix(embeddings[low, left], embeddings[low, right], to_right),
        mix(embeddings[high, left], embeddings[high, right], to_right),
        to_high,
    )


def _unsigned(azimuth: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """|azimuth| after whole turns are taken off, in [0, pi]."""
    return jnp.abs(jnp.arctan2(jnp.sin(azimuth), jnp.cos(azimuth)))
