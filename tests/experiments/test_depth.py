"""The depth binary on a tiny random DPT, as a user would run it; its parts on known depth."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from PIL import Image
from PIL.ExifTags import IFD, Base

from experiments import depth
from geojax.io.media import read_image
from geojax.priors.depth import DepthModel
from tests.experiments.binaries import run, strict_json


def write_picture(path, mode="RGB", size=(40, 30), tags=None, orientation=None):
    """A picture of noise, `size` in columns and rows as stored."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), np.uint8), "RGBA")
    exif = Image.Exif()
    exif[Base.Make] = "x"
    if orientation:
        exif[Base.Orientation] = orientation
    exif.get_ifd(IFD.Exif).update(tags or {})
    colours.convert(mode).save(path, exif=exif)
    return path


def test_a_folder_of_pictures_of_every_kind(depth_folder, tmp_path):
    """RGBA, grey, and one turned by its EXIF, with a lens of its own; twice."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_picture(folder / "a.png", "RGBA")
    write_picture(folder / "b.png", "L")
    tags = {Base.FocalLengthIn35mmFilm: 50}
    write_picture(folder / "c.jpg", tags=tags, size=(30, 40), orientation=6)
    (folder / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    flags = [f"--image={folder}", f"--model={depth_folder}", f"--out={out}"]
    done = run("depth", *flags)
    assert done.returncode == 0, done.stderr
    summary = strict_json((out / "summary.json").read_text())
    assert list(summary["pictures"]) == ["a.png", "b.png", "c.jpg"]
    sources = [figures["focal_from"] for figures in summary["pictures"].values()]
    assert sources == ["default field of view"] * 2 + ["EXIF: 35 mm equivalent"]
    focal = 20 / math.tan(math.radians(27.5))
    assert summary["pictures"]["a.png"]["focal"] == pytest.approx(focal, rel=1e-4)
    assert summary["pictures"]["c.jpg"]["focal"] == pytest.approx(50 * 50 / 43.267, rel=1e-3)
    for name, figures in summary["pictures"].items():
        arrays = np.load(out / name / "depth.npz")
        assert arrays["depth"].shape == (30, 40)
        stored = np.asarray(Image.open(out / name / "depth.png"))
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(
            stored * figures["depth_png_unit"], arrays["depth"], atol=figures["depth_png_unit"]
        )
        assert arrays["intrinsics"][0, 0] == pytest.approx(figures["focal"], rel=1e-4)
        assert read_image(out / name / "preview.png").rgb.shape == (30, 82, 3)
        assert len(trimesh.load(out / name / "points.ply").vertices) == figures["points"]
        assert figures["points"] == np.sum(arrays["valid"])
    # Half of the pixels of noise are transparent.
    assert summary["pictures"]["a.png"]["points"] < 0.7 * 30 * 40

    before = {p: p.read_bytes() for p in out.rglob("*.p*") if p.is_file()}
    again = run("depth", *flags)
    assert again.returncode == 0, again.stderr
    assert before == {p: p.read_bytes() for p in out.rglob("*.p*") if p.is_file()}


def constant_model(disparity):
    """A model that sees one disparity map in every picture."""
    found = jnp.asarray(disparity, jnp.float32)[None]
    return DepthModel({}, lambda params, image: found, False, 32)


def test_points_lie_where_the_camera_sees_them(tmp_path):
    """A wall at depth 2: in the world x = 2 everywhere, y to the left, z up."""
    path = write_picture(tmp_path / "a.png", size=(6, 4))
    model = constant_model(np.full((4, 6), 0.5))
    scene = depth.predict(model, model.predict, path, 0.01, fov=None, focal=3.0)
    points, colors = depth.points_of(scene)
    assert scene.focal == depth.Focal(3.0, "--focal")
    np.testing.assert_allclose(points[:, 0], 2.0, rtol=1e-5)
    np.testing.assert_allclose(points[0], [2.0, 2.5 / 3 * 2, 1.5 / 3 * 2], rtol=1e-5)
    np.testing.assert_allclose(points[-1], [2.0, -2.5 / 3 * 2, -1.5 / 3 * 2], rtol=1e-5)
    np.testing.assert_allclose(colors, scene.rgb.reshape(-1, 3))


def test_what_is_beyond_the_floor_has_depth_and_no_point(tmp_path):
    path = write_picture(tmp_path / "a.png", size=(6, 4))
    disparity = np.full((4, 6), 0.5)
    disparity[0] = -0.1
    model = constant_model(disparity)
    scene = depth.predict(model, model.predict, path, 0.1, fov=60.0, focal=None)
    np.testing.assert_allclose(scene.depth[0], 20.0)
    assert not scene.valid[0].any()
    assert scene.valid[1:].all()
    assert scene.focal.pixels == pytest.approx(3 / math.tan(math.radians(30)))
    assert len(depth.points_of(scene)[0]) == 18
    nothing = constant_model(np.zeros((4, 6)))
    with pytest.raises(ValueError, match="nowhere above 0"):
        depth.predict(nothing, nothing.predict, path, 0.1, fov=60.0, focal=None)


def test_metric_depth_is_stored_in_millimetres_where_it_fits(tmp_path):
    rgb, valid = np.zeros((4, 6, 3), np.float32), np.ones((4, 6), bool)
    for metres, unit in ((2.5, 1e-3), (131.07, 131.07 / 65535)):
        z = np.full((4, 6), metres, np.float32)
        scene = depth.Scene(rgb, valid, 1 / z, z, depth.Focal(5.0, "--focal"), True)
        figures = depth.write_scene(tmp_path, scene)
        assert figures["depth_png_unit"] == pytest.approx(unit)
        stored = np.asarray(Image.open(tmp_path / "depth.png"))
        np.testing.assert_array_equal(stored, round(metres / unit))


def test_the_sensor_goes_before_the_equivalent_and_the_flags_before_both(tmp_path):
    tags = {Base.FocalLengthIn35mmFilm: 50, Base.FocalLength: 10.0}
    tags |= {Base.FocalPlaneXResolution: 100.0, Base.FocalPlaneResolutionUnit: 4}
    tags |= {Base.ExifImageWidth: 80, Base.ExifImageHeight: 60}
    path = write_picture(tmp_path / "a.jpg", tags=tags)
    found = depth.find_focal(path, 30, 40, None, None)
    assert found == depth.Focal(pytest.approx(500.0), "EXIF: lens and sensor")
    assert depth.find_focal(path, 30, 40, 90.0, None).pixels == pytest.approx(20.0)
    assert depth.find_focal(path, 30, 40, None, 7.0) == depth.Focal(7.0, "--focal")


@pytest.mark.parametrize(
    ("fov", "focal", "floor", "message"),
    [
        (60.0, 50.0, 0.01, "give one"),
        (180.0, None, 0.01, r"--fov=180\.0"),
        (None, 0.0, 0.01, r"--focal=0\.0"),
        (None, math.inf, 0.01, "--focal=inf"),
        (None, None, 0.0, r"--floor=0\.0"),
        (None, None, math.nan, "--floor=nan"),
    ],
)
def test_flags_out_of_range_are_refused(fov, focal, floor, message):
    with pytest.raises(ValueError, match=message):
        depth.check_flags(fov, focal, floor)


def test_no_picture_is_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--image is missing"):
        depth.pictures_in(None)
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        depth.pictures_in(str(tmp_path / "none.png"))
    with pytest.raises(ValueError, match="holds no picture"):
        depth.pictures_in(str(tmp_path))
    (tmp_path / "text.png").write_text("text")
    model = constant_model(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"--image: .* not a readable image"):
        depth.predict(model, model.predict, tmp_path / "text.png", 0.1, fov=None, focal=None)
    monkeypatch.setattr(depth, "EMBEDDED", tmp_path / "depth")
    with pytest.raises(FileNotFoundError, match="name one with --model"):
        depth.open_model(None)
