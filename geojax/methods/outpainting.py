"""Outpainting: beyond the edge of a picture, by shifting its canvas or by shrinking it.

Symbols: x picture [B, H, W, 3]; b border, pixels; r = (W - 2 b) / W the share of the width that is
left of it when it is shrunk; k frame of a zoom, F_k; u how far along, in frames.
    (1) shift    x moved by (dy, dx); the strip that it leaves is the hole
    (2) shrink   x scaled to (H - 2 b_y, W - 2 b_x) in the middle; the border is the hole
    (3) zoom     F_{k+1} = inpaint(shrink(F_k)): its middle is F_k, so nothing drifts
    (4) view     between frames, u = k + f: the middle r^(1 - f) of F_{k+1}, with F_k over it, which
                 is sharper and covers the middle r^f of the view

Zooming by (3) and showing it by (4) is the "infinite zoom" of outpainting demos; (4) makes an even
speed, since the width of what is seen grows by 1 / r in each frame. At f = 0 the view is F_k, at
f = 1 it is F_{k+1}.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Image = Float[Array, "B H W 3"]
Mask = Bool[Array, "B H W"]


def shift_canvas(image: Image, down: int, right: int) -> tuple[Image, Mask]:
    """Equation (1): the picture moved, and the hole it leaves.

    Args:
      image: [B, H, W, 3].
      down: pixels that the picture moves down; negative for up.
      right: the same to the right.

    Returns:
      (canvas [B, H, W, 3], hole [B, H, W]); the canvas is 0 in the hole. What moves past the edge
      is gone: keep it elsewhere.

    Raises:
      ValueError: no shift, or one that leaves nothing of the picture.
    """
    batch, height, width, _ = image.shape
    if (down, right) == (0, 0):
        raise ValueError("a shift by 0 pixels leaves no hole")
    if abs(down) >= height or abs(right) >= width:
        raise ValueError(
            f"a shift by {down} down and {right} right leaves nothing of {width}x{height} pixels"
        )
    rows, columns = jnp.arange(height) - down, jnp.arange(width) - right
    kept = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
    hole = jnp.broadcast_to(~kept, (batch, height, width))
    moved = jnp.roll(image, (down, right), axis=(1, 2))
    return jnp.where(hole[..., None], jnp.asarray(0.0, image.dtype), moved), hole


def borders(height: int, width: int, border: int) -> tuple[int, int]:
    """(b_y, b_x): the border of equation (2) along either side, both at least 1.

    Args:
      height: of the picture.
      width: of the picture.
      border: b of the longer side; the other is in proportion, rounded.

    Raises:
      ValueError: a border below 1, or one that leaves nothing of the picture.
    """
    if border < 1:
        raise ValueError(f"the border must be at least 1 pixel, got {border}")
    longer = max(height, width)
    found = max(round(border * height / longer), 1), max(round(border * width / longer), 1)
    if 2 * found[0] >= height or 2 * found[1] >= width:
        raise ValueError(f"a border of {border} leaves nothing of {width}x{height} pixels")
    return found


def shrink_canvas(image: Image, border: int) -> tuple[Image, Mask]:
    """Equation (2): the picture scaled down in the middle of its canvas, and the hole around it.

    Args:
      image: [B, H, W, 3].
      border: as in `borders`.

    Returns:
      (canvas [B, H, W, 3], hole [B, H, W]); the canvas is 0 in the hole.

    Raises:
      ValueError: as `borders`.
    """
    batch, height, width, _ = image.shape
    y, x = borders(height, width, border)
    inside = _covered(height, (height - 2 * y) / height)[:, None]
    inside = inside & _covered(width, (width - 2 * x) / width)[None]
    scale = jnp.asarray([(height - 2 * y) / height, (width - 2 * x) / width], jnp.float32)
    canvas = jnp.where(inside[None, ..., None], _scaled(image, scale), 0.0)
    return canvas, jnp.broadcast_to(~inside, (batch, height, width))


def zoom_view(
    inner: Image, outer: Image, border: int, fraction: float | Float[Array, ""]
) -> Float[Array, "B H W 3"]:
    """Equation (4): what is seen between a frame and the one around it.

    Args:
      inner: F_k [B, H, W, 3].
      outer: F_{k+1}, whose middle is F_k shrunk.
      border: as it was shrunk.
      fraction: f in [0, 1]; traced, so that all views of a film compile once.

    Returns:
      [B, H, W, 3]; F_k at 0 and F_{k+1} at 1.
    """
    height, width = inner.shape[1:3]
    y, x = borders(height, width, border)
    kept = jnp.asarray([(height - 2 * y) / height, (width - 2 * x) / width], jnp.float32)
    shown = kept ** jnp.asarray(fraction, jnp.float32)  # the share of the view that F_k covers
    inside = _covered(height, shown[0])[:, None] & _covered(width, shown[1])[None]
    return jnp.where(inside[None, ..., None], _scaled(inner, shown), _scaled(outer, shown / kept))


def _covered(size: int, share: float | Float[Array, ""]) -> Bool[Array, "size"]:
    """Pixels whose centre lies in the middle `share` of a side; half a thousandth is rounding."""
    centre = jnp.abs(jnp.arange(size, dtype=jnp.float32) + 0.5 - 0.5 * size)
    return centre < 0.5 * size * jnp.asarray(share, jnp.float32) - 5e-4


def _scaled(image: Image, scale: Float[Array, "2"]) -> Image:
    """The picture scaled about its centre, antialiased; black where it ends."""
    size = jnp.asarray(image.shape[1:3], jnp.float32)
    return jax.image.scale_and_translate(
        image, image.shape, (1, 2), scale, 0.5 * size * (1.0 - scale), "linear", antialias=True
    )
