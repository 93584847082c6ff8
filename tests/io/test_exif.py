import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from geojax.io.exif import Lens, lens_of, read_lens

FULL = {
    Base.FocalLength: IFDRational(50, 1),
    Base.FocalLengthIn35mmFilm: 75,
    Base.FocalPlaneXResolution: IFDRational(3810, 1),
    Base.FocalPlaneResolutionUnit: 2,
    Base.ExifImageWidth: 4000,
    Base.ExifImageHeight: 6000,
}


def write(path, tags, side=8):
    image = Image.fromarray(np.zeros((side, side, 3), np.uint8))
    exif = Image.Exif()
    exif[Base.Make] = "x"  # Pillow takes one without tags of its own for empty
    exif.get_ifd(IFD.Exif).update(tags)
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_file_says_all_of_its_lens(suffix, tmp_path):
    found = read_lens(write(tmp_path / f"a.{suffix}", FULL))
    assert found == Lens(50.0, 75.0, pytest.approx(3810 / 25.4), 6000)


def test_a_file_without_exif_says_nothing(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    assert read_lens(tmp_path / "a.png") == Lens()


@pytest.mark.parametrize(
    ("unit", "expected"), [(2, 150.0), (3, 381.0), (4, 3810.0), (None, 150.0), (1, None)]
)
def test_units_of_the_sensors_density(unit, expected):
    tags = {**FULL, Base.FocalPlaneResolutionUnit: unit}
    if unit is None:
        del tags[Base.FocalPlaneResolutionUnit]
    assert lens_of(tags).pixels_per_millimetre == pytest.approx(expected)


@pytest.mark.parametrize("value", [0, IFDRational(0, 0), IFDRational(1, 0), "", (1, 2), -3])
def test_what_the_camera_did_not_know_counts_as_absent(value):
    tags = dict.fromkeys(FULL, value)
    assert lens_of(tags) == Lens()


def test_one_side_alone_is_not_the_longer_one():
    tags = {k: v for k, v in FULL.items() if k != Base.ExifImageHeight}
    assert lens_of(tags).sensor_side is None


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image file at"):
        read_lens(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(ValueError, match="not a readable image"):
        read_lens(tmp_path / "text.jpg")
