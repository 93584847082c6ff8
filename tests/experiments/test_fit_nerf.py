"""Posed pictures become a field: the folder that is read, the run, and its resumption."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.fit_nerf.worlds import get_config
from experiments import fit_nerf
from experiments.fitting import report
from experiments.fitting.capture import read_capture, seen_points
from geojax.geometry.camera_sampling import orbit
from geojax.geometry.colmap import camera_to_colmap
from geojax.geometry.nerfstudio import camera_to_transforms
from geojax.io.depth_files import write_depth
from geojax.io.media import write_png
from geojax.io.metric_log import read_metrics
from geojax.worlds import render
from tests.experiments.binaries import run, strict_json

SIZE, FRAMES, SCALE = 32, 8, 40.0
PLACE = np.array([100.0, -50.0, 7.0])
BLACK = (0.0, 0.0, 0.0)
TINY = {
    "steps": 40,
    "learning_rate": 0.03,
    "rays": 256,
    "samples": 16,
    "importance": 16,
    "checkpoint_every": 20,
    "picture_every": 40,
    "film_frames": 2,
    "field.levels": 4,
    "field.finest": 48,
    "field.table_size": 2**13,
}


@pytest.fixture(scope="module")
def exact():
    """Eight views of a red mug, 10 degrees apart, on grey; 40 times the size, elsewhere."""
    views = orbit(36, np.radians(25.0), 1.45, 1.26, SIZE, SIZE).camera[:FRAMES]
    light = jnp.tile(jnp.asarray([[3.0, 2.0, 4.0]]), (FRAMES, 1))
    layers = render.render_layers("mug", views, light, jnp.full(FRAMES, 0.5))
    colours = (jnp.tile(jnp.asarray([c]), (FRAMES, 1)) for c in ((0.8, 0.1, 0.1), (0.5, 0.5, 0.5)))
    pictures = np.asarray(render.colourise(layers, *colours))
    truth = render.render_truth("mug", views)
    pose = np.asarray(views.camera_to_world).copy()
    pose[:, :3, 3] = pose[:, :3, 3] * SCALE + PLACE
    fields = (views.fx, views.fy, views.cx, views.cy)
    camera = type(views)(jnp.asarray(pose), *fields, SIZE, SIZE)
    return camera, pictures, np.asarray(truth.depth) * SCALE


@pytest.fixture(scope="module")
def walk(exact, tmp_path_factory):
    """They, as a walk leaves them."""
    folder = tmp_path_factory.mktemp("capture") / "walk"
    camera, pictures, depth = exact
    transforms = camera_to_transforms(camera, [f"frames/{i:04d}.png" for i in range(FRAMES)])
    for i, frame in enumerate(transforms["frames"]):
        write_png(folder / frame["file_path"], pictures[i])
        frame["depth_file_path"] = f"depth/{i:04d}.png"
        write_depth(folder / frame["depth_file_path"], depth[i])
    (folder / "transforms.json").write_text(json.dumps(transforms))
    return folder


def copied(walk, tmp_path, change):
    """A copy of the folder with its transforms changed."""
    folder = tmp_path / "copy"
    shutil.copytree(walk, folder)
    transforms = json.loads((folder / "transforms.json").read_text())
    change(folder, transforms)
    (folder / "transforms.json").write_text(json.dumps(transforms))
    return folder


def flags(data, out, **changes):
    fields = TINY | changes | {"background": "(0.5, 0.5, 0.5)"}
    return [f"--data={data}", f"--out={out}", *(f"--config.{k}={v}" for k, v in fields.items())]


def figures(folder):
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in read_metrics(folder / "metrics.jsonl")
    ]


def test_a_folder_is_read_as_it_is(walk, exact):
    camera, pictures, depth = exact
    capture = read_capture(walk, BLACK)
    assert capture.image.shape == (FRAMES, SIZE, SIZE, 3) and capture.kept.all()
    np.testing.assert_allclose(capture.image / 255, pictures, atol=0.51 / 255)
    np.testing.assert_allclose(capture.depth, depth, atol=0.52e-3)
    np.testing.assert_allclose(capture.camera.camera_to_world, camera.camera_to_world, atol=1e-4)
    # All that is seen lies within the mug.
    away = np.linalg.norm(seen_points(capture) - PLACE, axis=1)
    assert 0.2 * SCALE < away.max() < SCALE
    assert len(seen_points(capture, most=100)) <= 200
    assert read_capture(walk / "transforms.json", BLACK).digest == capture.digest


def test_masks_transparency_and_a_missing_suffix(walk, tmp_path):
    def change(folder, transforms):
        frame = transforms["frames"][0]
        rgba = np.zeros((SIZE, SIZE, 4), np.float32)
        rgba[..., 0] = 1.0
        rgba[:, : SIZE // 2, 3] = 1.0
        write_png(folder / "frames" / "0000.png", rgba)
        frame["file_path"] = "./frames/0000"
        del frame["depth_file_path"], transforms["w"], transforms["h"]
        mask = np.zeros((SIZE, SIZE), np.float32)
        mask[:5] = 1.0
        write_png(folder / "mask.png", mask)
        frame["mask_path"] = "mask.png"

    folder = copied(walk, tmp_path, change)
    capture = read_capture(folder, (0.0, 0.0, 1.0))
    np.testing.assert_array_equal(capture.image[0, :, : SIZE // 2], [[[255, 0, 0]] * 16] * SIZE)
    np.testing.assert_array_equal(capture.image[0, :, SIZE // 2 :], [[[0, 0, 255]] * 16] * SIZE)
    assert capture.kept[0].sum() == 5 * SIZE and capture.kept[1:].all()
    assert not capture.depth[0].any() and capture.depth[1].any()
    assert capture.digest != read_capture(walk, BLACK).digest


def test_a_model_of_colmap_is_the_same_capture(walk, exact, tmp_path):
    camera, _, _ = exact
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "images").symlink_to(walk / "frames")
    texts = camera_to_colmap(camera, [f"{i:04d}.png" for i in range(FRAMES)])
    for name, text in zip(("cameras.txt", "images.txt"), texts, strict=True):
        (tmp_path / "sparse" / "0" / name).write_text(text)
    found, expected = read_capture(tmp_path, BLACK), read_capture(walk, BLACK)
    np.testing.assert_array_equal(found.image, expected.image)
    for a, b in zip(jax.tree.leaves(found.camera), jax.tree.leaves(expected.camera), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert not found.depth.any()
    for name in ("cameras.txt", "images.txt"):
        (tmp_path / "sparse" / "0" / name).unlink()
    with pytest.raises(FileNotFoundError, match="has neither transforms"):
        read_capture(tmp_path, BLACK)
    (tmp_path / "sparse" / "0" / "cameras.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="model_converter"):
        read_capture(tmp_path, BLACK)


def missing(folder, transforms):
    (folder / "frames" / "0003.png").unlink()


def smaller(folder, transforms):
    write_png(folder / "frames" / "0003.png", np.zeros((8, 9, 3), np.float32))


def small_depth(folder, transforms):
    write_depth(folder / "depth" / "0003.png", np.ones((8, 9), np.float32))


def scaled(folder, transforms):
    transforms["frames"][2]["transform_matrix"][0][0] = 7.0


def negative(folder, transforms):
    transforms["fl_x"] = -3.0


def unnamed(folder, transforms):
    del transforms["frames"][1]["file_path"]


def alone(folder, transforms):
    del transforms["frames"][1:]


def none(folder, transforms):
    transforms["frames"] = []


def wordy(folder, transforms):
    transforms["frames"][0]["transform_matrix"] = "none"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (missing, FileNotFoundError, "no image file at .*0003.png"),
        (smaller, ValueError, "0003.png is 9x8 pixels, its camera 32x32"),
        (small_depth, ValueError, "0003.png is 9x8 pixels"),
        (scaled, ValueError, "does not start with a rotation"),
        (negative, ValueError, "fx must be positive"),
        (unnamed, ValueError, "frame 1 has no file_path"),
        (alone, ValueError, "has 1 frame; a fit needs at least 2"),
        (none, ValueError, "no frames"),
        (wordy, ValueError, "transforms.json: "),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_bad_folder_is_refused(walk, tmp_path, change, error, said):
    with pytest.raises(error, match=said):
        read_capture(copied(walk, tmp_path, change), BLACK)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_capture(tmp_path / "absent", BLACK)
    for text in ("{", "[]", '{"frames": 3}'):
        (tmp_path / "transforms.json").write_text(text)
        with pytest.raises(ValueError, match=r"transforms.json (is not JSON|has no list)"):
            read_capture(tmp_path, BLACK)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 0, "config.steps must be at least 1, got 0"),
        ("importance", 1, "may be 0 or at least 2"),
        ("near", 1.0, r"config.near must lie in \[0, 1\)"),
        ("learning_rate", float("nan"), "every number must be finite"),
        ("learning_rate", -1.0, "must be positive"),
        ("background", (0.0, 0.0, 2.0), "config.background"),
        ("ball", (0.0, 0.0, 0.0, -1.0), "config.ball"),
        ("inside", 0.0, "config.inside"),
    ],
)
def test_a_bad_setting_is_refused(field, value, said):
    config = get_config()
    fit_nerf.check_config(config)
    config[field] = value
    with pytest.raises(ValueError, match=said):
        fit_nerf.check_config(config)


def test_the_middle_of_every_eight_is_held_out():
    assert np.flatnonzero(report.held_out(24, 8)).tolist() == [4, 12, 20]
    assert not report.held_out(4, 8).any() and not report.held_out(24, 0).any()


def test_a_flight_goes_through_the_cameras_and_stays_a_way_where_they_stand_still(exact):
    camera, _, _ = exact
    poses = np.asarray(camera.camera_to_world)
    still = report.flight(camera, 15, 0.0)
    np.testing.assert_allclose(still[::2], poses, atol=1e-4)
    moved = report.flight(camera, 15, 3.0)
    np.testing.assert_array_equal(moved[:, :3, :3], still[:, :3, :3])
    away = np.einsum("nji,nj->ni", still[:, :3, :3], (moved - still)[:, :3, 3])
    np.testing.assert_allclose(np.linalg.norm(away - [0, -3.0, 0], axis=1), 3.0, atol=1e-4)
    turning = type(camera)(
        jnp.asarray(poses).at[:, :3, 3].set(1.0), camera.fx, camera.fy, camera.cx, camera.cy, 32, 32
    )
    np.testing.assert_allclose(report.flight(turning, 8, 0.0)[:, :3, 3], 1.0)


@pytest.mark.end_to_end
def test_pictures_become_a_field_and_a_resumed_run_the_same_one(walk, exact, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    done = run("fit_nerf", *flags(walk, whole))
    assert done.returncode == 0, done.stderr[-3000:]
    summary = strict_json((whole / "summary.json").read_text())
    assert (summary["frames"], summary["held_out"]) == (FRAMES, ["0004.png"])
    away = np.linalg.norm(np.asarray(exact[0].position) - summary["centre"], axis=1)
    assert (away < summary["radius"]).all() and summary["radius"] < 2 * SCALE
    assert summary["psnr_train"] > summary["psnr_plain"] + 5.0
    assert summary["psnr_held_out"] > summary["psnr_plain"] + 4.0
    assert summary["depth_error_train"] < 0.05
    for name in ("views.png", "held_out.png", "flight.mp4", "config.json"):
        assert (whole / name).stat().st_size > 100, name
    assert sorted(p.name for p in (whole / "progress").iterdir()) == ["000040.png"]
    assert [line["step"] for line in figures(whole)] == list(range(40))

    # As a kill between the first checkpoint and the last leaves it.
    shutil.copytree(whole, resumed)
    for name in ("checkpoints/40", "progress"):
        shutil.rmtree(resumed / name)
    for name in ("views.png", "held_out.png", "flight.mp4", "summary.json"):
        (resumed / name).unlink()
    done = run("fit_nerf", *flags(walk, resumed))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step 20" in done.stdout
    assert figures(resumed) == figures(whole)
    for name in ("views.png", "held_out.png", "flight.mp4", "progress/000040.png"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.end_to_end
def test_an_error_comes_before_anything_is_written(tmp_path):
    refused = run("fit_nerf", *flags(tmp_path / "absent", tmp_path / "out"))
    assert refused.returncode != 0 and "no such folder" in refused.stderr
    assert not (tmp_path / "out").exists()
