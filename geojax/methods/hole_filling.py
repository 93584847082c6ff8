"""Holes in pictures: their edges, and what to put in them before a diffusion model has its say.

Symbols: x image [B, H, W, 3]; m mask, True in the hole; p a pixel; K the known pixels, m = 0.
    (1) dilate    m'(p) = any m within k of p, along either axis;   erode m = not dilate(not m)
    (2) seam      dilate(m) and not erode(m): the band around the hole's edge
    (3) nearest   x'(p) = x(argmin_{q in K} |p - q|),  the exact Euclidean distance, as
                  min over columns c of (c_p - c)^2 + (rows to the nearest known in column c)^2
    (4) noise     x'(p) = x(q), q uniform in K: the colours of the picture, and none of its order
    (5) fragment  x'(p) = y(p), of another picture y

(3) in two passes: Saito and Toriwaki (1994), "New algorithms for Euclidean distance transformation
of an n-dimensional digitized picture", equations 3 and 4. Everything may be jitted; masks stay
arrays. Outside the picture nothing is known and nothing is a hole.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

Mask = Bool[Array, "B H W"]
Image = Float[Array, "B H W 3"]
FAR = 2**14  # rows; its square and a picture's diagonal fit in 32 bits


def dilate(mask: Mask, reach: int) -> Mask:
    """The mask grown by `reach` pixels along either axis (a square window), equation (1)."""
    window = (1, 2 * reach + 1, 2 * reach + 1)
    return jax.lax.reduce_window(mask, False, jax.lax.max, window, (1, 1, 1), "SAME")


def erode(mask: Mask, reach: int) -> Mask:
    """The mask shrunk by `reach` pixels from what is known; not from the border of the picture."""
    return ~dilate(~mask, reach)


def seam_band(mask: Mask, reach: int, *, outside: bool = False) -> Mask:
    """The band along the hole's edge, equation (2).

    Args:
      mask: [B, H, W], True in the hole.
      reach: width of the band on either side, pixels.
      outside: take the known side too; by default the band lies within the hole, and painting it
        again changes no known pixel.
    """
    return (dilate(mask, reach) if outside else mask) & ~erode(mask, reach)


def fill_nearest(image: Image, mask: Mask) -> Image:
    """Each hole pixel takes the colour of the known pixel nearest to it, equation (3).

    Args:
      image: [B, H, W, 3]; what is under the mask is not looked at. Sides below 2^14.
      mask: [B, H, W], True in the hole.

    Returns:
      [B, H, W, 3]; where nothing is known, mid-grey.
    """
    height, width = mask.shape[1:]
    rows, columns = jnp.arange(height, dtype=jnp.int32), jnp.arange(width, dtype=jnp.int32)

    def one(image: Float[Array, "H W 3"], hole: Bool[Array, "H W"]) -> Float[Array, "H W 3"]:
        here = jnp.where(hole, -FAR, rows[:, None])
        above = jax.lax.cummax(here, axis=0)
        below = jax.lax.cummin(jnp.where(hole, FAR, rows[:, None]), axis=0, reverse=True)
        up, down = rows[:, None] - above, below - rows[:, None]
        nearest_row = jnp.clip(jnp.where(up <= down, above, below), 0, height - 1)
        rise = jnp.minimum(jnp.minimum(up, down), FAR) ** 2
        across = (columns[:, None] - columns[None]) ** 2

        def fill_row(at):
            rise, nearest = at
            column = jnp.argmin(across + rise[None], axis=1)
            return image[nearest[column], column]

        filled = jax.lax.map(fill_row, (rise, nearest_row))
        filled = jnp.where(jnp.all(hole), jnp.asarray(0.5, image.dtype), filled)
        return jnp.where(hole[..., None], filled, image)

    return jax.lax.map(lambda pair: one(*pair), (image, mask))


def fill_noise(key: Key[Array, ""], image: Image, mask: Mask) -> Image:
    """Each hole pixel takes the colour of a known pixel drawn at random, equation (4).

    Args:
      key: consumed.
      image: [B, H, W, 3]; what is under the mask is not looked at.
      mask: [B, H, W], True in the hole.

    Returns:
      [B, H, W, 3]; where nothing is known, uniform noise in [0, 1].
    """
    pick_key, noise_key = jax.random.split(key)
    batch, height, width, _ = image.shape
    colours, holes = image.reshape(batch, -1, 3), mask.reshape(batch, -1)
    known = jnp.argsort(holes, axis=1, stable=True)  # known pixels first
    count = jnp.sum(~holes, axis=1, keepdims=True)
    # Below count, whatever the float's rounding.
    place = jax.random.uniform(pick_key, (batch, height * width)) * count.astype(jnp.float32)
    place = jnp.minimum(place.astype(count.dtype), jnp.maximum(count - 1, 0))
    source = jnp.take_along_axis(known, place, axis=1)
    drawn = jnp.take_along_axis(colours, source[..., None], axis=1)
    noise = jax.random.uniform(noise_key, drawn.shape, image.dtype)
    filled = jnp.where((count > 0)[..., None], drawn, noise).reshape(image.shape)
    return jnp.where(mask[..., None], filled, image)


def fill_fragment(image: Image, mask: Mask, other: Image) -> Image:
    """Each hole pixel takes the other picture's colour at the same place, equation (5).

    Args:
      image: [B, H, W, 3].
      mask: [B, H, W], True in the hole.
      other: [B, H, W, 3], of the same size; see `fit_to_box`.
    """
    return jnp.where(mask[..., None], other, image)


def fit_to_box(
    picture: Float[Array, "h w 3"], height: int, width: int, box: tuple[int, int, int, int]
) -> Float[Array, "height width 3"]:
    """A picture scaled to cover a box of a canvas, centred on it; black elsewhere.

    Args:
      picture: [h, w, 3], of any size.
      height: of the canvas.
      width: of the canvas.
      box: top, left, bottom, right, in pixels of the canvas; the ends are not in it.

    Returns:
      [height, width, 3]; shapes are static, so the box is of Python integers.

    Raises:
      ValueError: a box that is empty or leaves the canvas.
    """
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"box {box} (top, left, bottom, right) is not in a {height}x{width} canvas"
        )
    tall, wide = bottom - top, right - left
    scale = max(tall / picture.shape[0], wide / picture.shape[1])
    size = tuple(max(round(scale * n), 1) for n in picture.shape[:2])
    # Rounding may leave a side one pixel short.
    size = (max(size[0], tall), max(size[1], wide))
    scaled = jnp.clip(jax.image.resize(picture, (*size, 3), "linear", antialias=True), 0.0, 1.0)
    y, x = (size[0] - tall) // 2, (size[1] - wide) // 2
    canvas = jnp.zeros((height, width, 3), picture.dtype)
    return canvas.at[top:bottom, left:right].set(scaled[y : y + tall, x : x + wide])
