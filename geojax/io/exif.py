"""What a picture's EXIF says of the lens: plain numbers, for `geojax.geometry.intrinsics`.

Cameras write zero, or a fraction over zero, for what they do not know; both count as absent.

EXIF 2.32 (CIPA DC-008), section 4.6.5: FocalLength, FocalLengthIn35mmFilm, FocalPlaneXResolution,
FocalPlaneResolutionUnit, PixelXDimension and PixelYDimension.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import IFD, Base

# Millimetres; 4 and 5 are not in the standard, and are written.
_UNITS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}


class Lens(NamedTuple):
    """Focal lengths in mm, and the sensor's density; None where the file does not say.

    Attributes:
      focal: of the lens.
      equivalent: of 35 mm film.
      pixels_per_millimetre: of the picture as it was taken.
      sensor_side: longer side of the picture as it was taken, pixels.
    """

    focal: float | None = None
    equivalent: float | None = None
    pixels_per_millimetre: float | None = None
    sensor_side: int | None = None


def read_lens(path: str | Path) -> Lens:
    """The lens of a picture file; all None where it has no EXIF.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    try:
        with Image.open(path) as opened:
            exif = opened.getexif()
            tags = dict(exif) | dict(exif.get_ifd(IFD.Exif))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error
    return lens_of(tags)


def lens_of(tags: Mapping[int, Any]) -> Lens:
    """The same of Pillow's EXIF tags, by number."""

    def number(tag: int) -> float | None:
        try:
            value = float(tags.get(tag, 0.0))
        except (TypeError, ValueError, ZeroDivisionError):  # a text, a pair, or 1 / 0
            return None
        return value if math.isfinite(value) and value > 0 else None

    sides = [number(t) for t in (Base.ExifImageWidth, Base.ExifImageHeight)]
    density = number(Base.FocalPlaneXResolution)
    unit = _UNITS.get(int(number(Base.FocalPlaneResolutionUnit) or 2))
    return Lens(
        focal=number(Base.FocalLength),
        equivalent=number(Base.FocalLengthIn35mmFilm),
        pixels_per_millimetre=density / unit if density and unit else None,
        sensor_side=int(max(s for s in sides if s)) if all(sides) else None,
    )
