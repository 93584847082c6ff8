"""Pictures and video: read what cameras and editors write, write what people look at.

Images are float32 [H, W, 3] in [0, 1], sRGB-encoded as in the file. Every file appears whole or not
at all. No plotting library: depth and normals are coloured here.
"""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import jax
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from geojax.io.atomic import replacing

# What a caller holds: an array of the host or of a device.
Pixels = np.ndarray | jax.Array

# Ten colours at equal steps of viridis (public domain), dark to bright, as 0xRRGGBB.
_VIRIDIS = (
    *(0x440154, 0x482878, 0x3E4989, 0x31688E, 0x26828E),
    *(0x1F9E89, 0x35B779, 0x6ECE58, 0xB5DE2B, 0xFDE725),
)


class Picture(NamedTuple):
    """An image file: colours as stored (not multiplied by alpha), and alpha if the file has it."""

    rgb: Float[np.ndarray, "H W 3"]
    alpha: Float[np.ndarray, "H W"] | None


def read_image(path: str | Path) -> Picture:
    """Read a picture of any usual kind: grey, palette, RGB, RGBA, CMYK, 16-bit grey.

    Upright as its EXIF orientation says; values in [0, 1]. 16 bits of grey are kept; 16-bit RGB
    comes with 8 bits, which is all that Pillow decodes. Raises FileNotFoundError, and ValueError
    when the file is not a whole image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, np.float32)
        # Mode I is what Pillow makes of 16-bit grey too; F holds [0, 1] or [0, 255] by habit.
        limit = 65535.0 if image.mode.startswith("I") else (1.0 if grey.max() <= 1.0 else 255.0)
        grey = np.clip(grey / limit, 0.0, 1.0).astype(np.float32)
        return Picture(np.repeat(grey[..., None], 3, axis=-1), None)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
        return Picture(rgba[..., :3], rgba[..., 3])
    return Picture(np.asarray(image.convert("RGB"), np.float32) / np.float32(255), None)


def to_uint8(image: Shaped[Pixels, "..."]) -> UInt8[np.ndarray, "..."]:
    """[0, 1] to 0..255, rounded; values outside are clipped. ValueError on a non-finite value."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected uint8 or floats in [0, 1], got {image.dtype}")
    if not np.isfinite(image).all():
        raise ValueError(f"{(~np.isfinite(image)).sum()} values of the image are not finite")
    return np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def write_png(path: str | Path, image: Shaped[Pixels, "..."]) -> None:
    """Write [H, W], [H, W, 3] or [H, W, 4]: floats in [0, 1], uint8, or uint16 (grey)."""
    image = np.asarray(image)
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[-1] in (3, 4)):
        raise ValueError(f"expected [H, W], [H, W, 3] or [H, W, 4], got shape {image.shape}")
    if image.dtype == np.uint16:
        if image.ndim != 2:
            raise ValueError(f"16-bit PNG is written for grey [H, W] only, got {image.shape}")
        pixels = np.ascontiguousarray(image)
    else:
        pixels = np.ascontiguousarray(to_uint8(image))
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def write_video(path: str | Path, frames: Iterable[Pixels], fps: float = 24.0) -> None:
    """Write frames [H, W, 3] in [0, 1] as .mp4 (H.264) or .gif, chosen by the suffix.

    H.264 needs even sizes: an odd edge is doubled. Raises ValueError on another suffix, no frames,
    or frames of several sizes.
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"expected a path ending in .mp4 or .gif, got {path}")
    shapes, pixels = set(), []
    for frame in frames:
        pixels.append(to_uint8(frame))
        shapes.add(pixels[-1].shape)
    if not pixels:
        raise ValueError(f"no frames for {path}")
    if len(shapes) > 1 or pixels[0].ndim != 3 or pixels[0].shape[-1] != 3:
        raise ValueError(f"expected frames of one shape [H, W, 3], got {sorted(shapes)}")
    with replacing(path) as temporary:
        (_write_mp4 if path.suffix == ".mp4" else _write_gif)(temporary, pixels, fps)


def _write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Pipe raw frames to the ffmpeg binary that imageio-ffmpeg carries.

    Its own writer forks with a hook that runs Python in the child: with JAX's threads alive that
    may deadlock, and Python warns of it. `bitexact` leaves out time and version: same bytes again.
    """
    odd = [(0, size % 2) for size in frames[0].shape[:2]]
    even = [np.pad(frame, (*odd, (0, 0)), mode="edge") for frame in frames]
    height, width = even[0].shape[:2]
    options = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i - -an -c:v libx264"
    options += " -crf 18 -pix_fmt yuv420p -movflags +faststart -fflags +bitexact -flags +bitexact"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *options.split()]
    result = subprocess.run(
        [*command, str(path)], input=b"".join(f.tobytes() for f in even), capture_output=True
    )
    if result.returncode:
        raise OSError(f"ffmpeg could not write {path}: {result.stderr.decode(errors='replace')}")


def _write_gif(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    # One palette for the whole film: with one a frame the colours flicker and the file doubles.
    some = frames[:: max(1, len(frames) // 8)]
    palette = Image.fromarray(np.concatenate(some)).quantize(255)
    images = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0
    )


def grid(
    images: Float[Pixels, "rows columns H W 3"],
    row_captions: Sequence[str] = (),
    column_captions: Sequence[str] = (),
    gap: int = 2,
) -> Float[np.ndarray, "height width 3"]:
    """A contact sheet on white: images side by side with `gap` pixels between, captions outside."""
    images = np.asarray(images, np.float32)
    if images.ndim != 5 or images.shape[-1] != 3:
        raise ValueError(f"expected [rows, columns, H, W, 3], got {images.shape}")
    rows, columns, height, width, _ = images.shape
    for captions, count, name in (
        (row_captions, rows, "row"),
        (column_captions, columns, "column"),
    ):
        if captions and len(captions) != count:
            raise ValueError(f"{len(captions)} {name} captions for {count} {name}s")
    font = ImageFont.load_default(size=12)
    left = max((int(font.getlength(text)) + 8 for text in row_captions), default=0)
    top = 18 if column_captions else 0
    sheet = np.ones(
        (top + rows * (height + gap) - gap, left + columns * (width + gap) - gap, 3), np.float32
    )
    for r in range(rows):
        for c in range(columns):
            y, x = top + r * (height + gap), left + c * (width + gap)
            sheet[y : y + height, x : x + width] = images[r, c]
    if not left and not top:
        return sheet
    # Text is drawn on a picture of its own, so that the images keep their exact values.
    text = Image.new("L", (sheet.shape[1], sheet.shape[0]), 255)
    draw = ImageDraw.Draw(text)
    for r, caption in enumerate(row_captions):
        draw.text((4, top + r * (height + gap) + height // 2), caption, 0, font, anchor="lm")
    for c, caption in enumerate(column_captions):
        # A caption wider than its column would run into the next one: cut it.
        while caption and font.getlength(caption) > width + gap:
            caption = caption[:-1]
        draw.text((left + c * (width + gap) + width // 2, top // 2), caption, 0, font, anchor="mm")
    return np.minimum(sheet, np.asarray(text, np.float32)[..., None] / np.float32(255))


def color_map(values: Float[Pixels, "*b"]) -> Float[np.ndarray, "*b 3"]:
    """Viridis: 0 is dark violet, 1 bright yellow; values outside [0, 1] are clipped."""
    values = np.asarray(values)
    table = np.array([[(c >> shift & 255) / 255 for shift in (16, 8, 0)] for c in _VIRIDIS])
    at = np.linspace(0.0, 1.0, len(table))
    values = np.clip(values, 0.0, 1.0)
    return np.stack([np.interp(values, at, table[:, i]) for i in range(3)], -1).astype(np.float32)


def color_depth(
    depth: Float[Pixels, "*b H W"],
    mask: Bool[Pixels, "*b H W"] | None = None,
    near: float | None = None,
    far: float | None = None,
) -> Float[np.ndarray, "*b H W 3"]:
    """Colour z-depth, near bright and far dark; what is masked out or not finite is white.

    `near` and `far` default to the range of the shown pixels of the whole batch, so that views side
    by side share one scale.
    """
    depth = np.asarray(depth, np.float32)
    shown = np.isfinite(depth) if mask is None else np.isfinite(depth) & np.asarray(mask, bool)
    if not shown.any():
        return np.ones((*depth.shape, 3), np.float32)
    near = float(depth[shown].min()) if near is None else near
    far = float(depth[shown].max()) if far is None else far
    fraction = (far - np.where(shown, depth, far)) / max(far - near, 1e-6)
    return np.where(shown[..., None], color_map(fraction), np.float32(1.0))


def color_normals(
    normal: Float[Pixels, "*b H W 3"], opacity: Float[Pixels, "*b H W"] | None = None
) -> Float[np.ndarray, "*b H W 3"]:
    """Colour unit normals, (n + 1) / 2, laid over white by opacity (default: opaque).

    Lengths other than 1 are scaled to 1; a zero normal is mid grey.
    """
    normal = np.asarray(normal, np.float32)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    color = 0.5 * (normal / np.maximum(length, 1e-8) + 1.0)
    if opacity is None:
        return color
    weight = np.clip(np.asarray(opacity, np.float32), 0.0, 1.0)[..., None]
    return weight * color + (1.0 - weight)
