"""View-dependent prompts: which side of the object the prompt speaks of.

Symbols
    a, e        azimuth and elevation of the camera, radians; a = 0 faces the object's front
    c           prompt embedding [L, D]

DreamFusion (Poole et al. 2022, section 3.2) interpolates the embeddings of four names: front, side,
back, overhead. Here the table is any size, so that left and right are told apart, and the quarters
between them:
    (1)  c(a, e) is bilinear between the prompts at K azimuths and E elevations

A text encoder cuts what is over its limit at the end, where the view is named: of a long prompt
every side would be the same. So it is the prompt that is cut, before the name.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float


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


def interpolate_view_embeddings(
    embeddings: Float[Array, "e k l d"],
    elevations: Float[Array, "e"],
    azimuth: Float[Array, "b"],
    elevation: Float[Array, "b"],
) -> Float[Array, "b l d"]:
    """Embeddings between the entries of a table of views, equation (1).

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
