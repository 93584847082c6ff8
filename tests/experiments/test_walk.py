"""The walk on tiny random models, whole: made, broken off, gone on with, and fed with mistakes."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from configs.walk import worlds
from experiments import walk
from experiments.painting import stories
from experiments.walking import models as walking
from experiments.walking import paths, results, start
from experiments.walking.records import count_records, read_record, record_file
from geojax.geometry import camera_paths
from geojax.geometry.camera import look_at
from geojax.geometry.colmap import camera_to_colmap
from geojax.geometry.nerfstudio import camera_from_transforms
from geojax.io.depth_files import read_depth
from geojax.io.media import read_image, write_png
from tests.experiments.binaries import run, strict_json
from tests.tiny_family import IMAGE_SIZE

PROMPT = "a corridor with brick walls"


def tiny_config(inpainting_folder, depth_folder, clip_folder=None, variant="mesh", **changes):
    config = worlds.get_config(variant)
    fields = {
        "model": str(inpainting_folder),
        "depth.model": str(depth_folder),
        "clip": str(clip_folder or ""),
        "candidates": 2 if clip_folder else 1,
        "steps": 2,
        "decoder.steps": 2,
        "depth.steps": 2,
        "dome_rows": 32,
        "path.step": -0.3,
        "path.angle": 0.0,
        **changes,
    }
    for name, value in fields.items():
        *parents, leaf = name.split(".")
        at = config
        for parent in parents:
            at = at[parent]
        with at.ignore_type():
            at[leaf] = value
    return config


def settings_of(**changes):
    empty = dict.fromkeys((*stories.FLAGS, "image", "depth", "intrinsics"))
    return {
        **empty,
        "story_every": 4,
        "story_cache": "",
        "prompt": PROMPT,
        "frames": 4,
        "blend": False,
        "seed": 0,
        **changes,
    }


def go(config, out, **changes):
    """As main does, but for the flags."""
    settings = settings_of(**changes)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        plan, models = walk.prepare(config, settings)
        with walk.open_walk(config, settings, plan, out) as opened:
            return walk.walk(config, plan, opened, models)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture that is not square, and its depth: a wall with a nearer box before it."""
    folder = tmp_path_factory.mktemp("start")
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (24, 36, 3), dtype=np.uint8)
    depth = np.full((24, 36), 4.0, np.float32)
    depth[12:20, 10:18] = 2.0
    depth[:4, 30:] = 99.0  # sky
    write_png(folder / "image.png", image)
    np.savez(folder / "depth.npz", depth=depth)
    return folder


@pytest.fixture(scope="module")
def walked(inpainting_folder, depth_folder, clip_folder, picture, tmp_path_factory):
    """A walk of four frames from a picture with depth and intrinsics, and its config."""
    out = tmp_path_factory.mktemp("walk") / "run"
    config = tiny_config(inpainting_folder, depth_folder, clip_folder)
    given = {
        "image": str(picture / "image.png"),
        "depth": str(picture / "depth.npz"),
        "intrinsics": "30,33,17,13",
    }
    return out, config, given, go(config, out, **given)


@pytest.mark.end_to_end
def test_a_walk_leaves_everything_behind(walked):
    out, _, _, summary = walked
    assert strict_json((out / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["frames"] == 4 and summary["stopped"] is None
    assert summary["prompts"] == {"frames": [0], "prompts": [PROMPT]}
    assert 0.0 < summary["hole"] < 0.9 and -1.0 <= summary["clip"] <= 1.0
    for name in ("walk.mp4", "walk_reverse.mp4", "sheet.png", "points.ply"):
        assert (out / name).stat().st_size > 100
    for index in range(4):
        for folder in ("frames", "masks", "warped", "depth"):
            assert (out / folder / f"{index:04d}.png").is_file()
    mesh = trimesh.load(out / "mesh.glb", force="mesh")
    assert len(mesh.faces) == summary["faces"] > 300
    assert np.isfinite(mesh.vertices).all()


@pytest.mark.end_to_end
def test_frame_0_is_the_picture_and_its_cameras_are_honoured(walked, picture):
    """Scaled to the model's side, 24 to 16 rows, and the intrinsics with it."""
    out, *_ = walked
    record = read_record(out, 0)
    assert record.image.shape == (IMAGE_SIZE, 24, 3)
    whole = read_image(picture / "image.png").rgb
    means = record.image.mean(axis=(0, 1)), whole.mean(axis=(0, 1))
    np.testing.assert_allclose(*means, atol=0.01)
    assert record.far.any() and not record.depth[record.far].any()
    assert set(np.unique(record.depth)) == {0.0, 2.0, 4.0}
    transforms = json.loads((out / "transforms.json").read_text())
    camera, files = camera_from_transforms(transforms)
    assert files == [f"frames/{i:04d}.png" for i in range(4)]
    scale = 16 / 24
    expected = [30 * scale, 33 * scale, 17 * scale, 13 * scale]
    found = [float(v[0]) for v in (camera.fx, camera.fy, camera.cx, camera.cy)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Backward along x, .3 a frame.
    positions = np.asarray(camera.camera_to_world)[:, :3, 3]
    np.testing.assert_allclose(positions[:, 0], [0, -0.3, -0.6, -0.9], atol=1e-6)
    assert transforms["frames"][1]["depth_file_path"] == "depth/0001.png"
    np.testing.assert_allclose(
        read_depth(out / "depth/0001.png"), read_record(out, 1).depth, rtol=2e-3
    )


@pytest.mark.end_to_end
def test_what_was_known_is_kept_and_what_was_not_is_painted(walked):
    out, *_ = walked
    for index in range(1, 4):
        record = read_record(out, index)
        known = ~record.hole
        np.testing.assert_array_equal(record.image[known], record.shown[known])
        assert record.hole.any() and known.mean() > 0.3
        # Every pixel has a depth or is far.
        assert ((record.depth > 0) | record.far).all()
        np.testing.assert_array_equal(
            read_image(out / f"masks/{index:04d}.png").rgb[..., 0], record.hole
        )


@pytest.mark.end_to_end
def test_a_broken_walk_goes_on_to_the_same_frames(walked, tmp_path):
    """Frames 2 and 3 lost, a half-written file left over: the same bytes again; none twice."""
    out, config, given, _ = walked
    copy = shutil.copytree(out, tmp_path / "run")
    for index in (2, 3):
        record_file(copy, index).unlink()
        (copy / "frames" / f"{index:04d}.png").unlink()
    (copy / "summary.json").unlink()
    (copy / "records" / ".0002.77.npz").write_bytes(b"PK half")
    kept = record_file(copy, 1).stat().st_mtime_ns
    go(config, copy, **given)
    assert record_file(copy, 1).stat().st_mtime_ns == kept
    for index in range(4):
        before, after = read_record(out, index), read_record(copy, index)
        for name in ("image", "depth", "new", "hole", "far", "shown"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
        frame = f"frames/{index:04d}.png"
        assert (out / frame).read_bytes() == (copy / frame).read_bytes()
    assert (out / "mesh.glb").read_bytes() == (copy / "mesh.glb").read_bytes()
    assert count_records(copy) == 4


@pytest.mark.end_to_end
def test_a_damaged_frame_is_named_and_nothing_is_overwritten(walked, tmp_path):
    out, config, given, _ = walked
    copy = shutil.copytree(out, tmp_path / "run")
    damaged = record_file(copy, 2).read_bytes()[:200]
    record_file(copy, 2).write_bytes(damaged)
    with pytest.raises(ValueError, match=r"0002.npz is damaged .*remove it"):
        go(config, copy, **given)
    assert record_file(copy, 2).read_bytes() == damaged
    with pytest.raises(ValueError, match="prompt: the run has"):
        go(config, copy, **given, prompt="a church")


@pytest.mark.end_to_end
def test_from_a_prompt_by_plain_warp_there_and_back(inpainting_folder, depth_folder, tmp_path):
    """Nothing is known of frame 0; a story changes the prompt; no CLIP; the end is the start."""
    changes = {"path.there_and_back": True, "depth.fit": "align", "decoder.steps": 0, "pad": 4}
    config = tiny_config(inpainting_folder, depth_folder, variant="warp", **changes)
    story = tmp_path / "story.json"
    story.write_text(json.dumps({"frames": [0, 2], "prompts": ["a church", "a cellar"]}))
    out = tmp_path / "run"
    summary = go(config, out, frames=3, prompt=None, story=str(story))
    assert summary["frames"] == 3 and summary["vertices"] == 0
    assert not (out / "mesh.glb").exists()
    first, last = read_record(out, 0), read_record(out, 2)
    assert first.hole.all() and last.hole.mean() < 0.2
    np.testing.assert_array_equal(first.camera.camera_to_world, last.camera.camera_to_world)


@pytest.mark.end_to_end
def test_a_camera_that_sees_nothing_known_shortens_its_step_and_then_stops(
    inpainting_folder, depth_folder, picture, tmp_path
):
    changes = {"path.kind": "sideways", "path.step": 6.0}
    config = tiny_config(inpainting_folder, depth_folder, **changes)
    given = {"image": str(picture / "image.png"), "depth": str(picture / "depth.npz")}
    summary = go(config, tmp_path / "short", frames=2, **given)
    assert summary["step_share"] in (0.5, 0.25)
    config = tiny_config(inpainting_folder, depth_folder, **changes, widest_hole=0.01)
    with pytest.raises(ValueError, match=r"frame 1: \d+ % of the view would be new"):
        go(config, tmp_path / "stopped", frames=3, **given)
    summary = strict_json((tmp_path / "stopped/summary.json").read_text())
    assert summary["frames"] == 1 and summary["stopped"].startswith("frame 1")
    assert (tmp_path / "stopped/walk.mp4").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "--frames=0"),
        ({"intrinsics": "30,30"}, "four numbers"),
        ({"intrinsics": "-30,30,2,2"}, "must be positive"),
        ({"image": None}, "--depth and --intrinsics describe --image"),
        ({"image": "absent.png"}, "--image: no image file"),
        ({"depth": "absent.npz"}, "no such file"),
        ({"prompt": " "}, "--prompt is empty"),
        ({"path.kind": "jump"}, "config.path.kind='jump'"),
        ({"path.step": float("inf")}, "config.path: step"),
        ({"path.kind": "poses", "path.poses": "absent.json"}, "no such transforms.json or folder"),
        ({"candidates": 3}, "needs config.clip"),
        ({"depth.fit": "guess"}, "config.depth.fit='guess'"),
        ({"widest_hole": 0.0}, "config.widest_hole=0.0"),
        ({"size": 13}, "config.size=13 must be a multiple"),
        ({"pad": 3}, "config.pad=3 must be a multiple"),
        ({"fov": 190.0}, "config.fov=190.0"),
        ({"guidance": float("nan")}, "holds a nan"),
    ],
)
def test_mistakes_are_said_before_work_starts(
    inpainting_folder, depth_folder, picture, tmp_path, changes, message
):
    settings = settings_of(image=str(picture / "image.png"), depth=str(picture / "depth.npz"))
    settings |= {name: value for name, value in changes.items() if name in settings}
    fields = {name: value for name, value in changes.items() if name not in settings}
    config = tiny_config(inpainting_folder, depth_folder, **fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        walk.prepare(config, settings)


def test_depth_maps_that_say_nothing_are_refused(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((4, 5), np.nan, np.float32))
    with pytest.raises(ValueError, match="no positive depth"):
        start.read_depth_map(str(tmp_path / "nan.npy"), 4, 5)
    with pytest.raises(ValueError, match="is 4x6 pixels"):
        start.read_depth_map(str(tmp_path / "nan.npy"), 4, 6)
    some = np.ones((4, 5), np.float32)
    some[0] = [np.nan, np.inf, -1.0, 0.0, 2.0]
    np.save(tmp_path / "some.npy", some)
    found = start.read_depth_map(str(tmp_path / "some.npy"), 4, 5)
    np.testing.assert_array_equal(found[0], [0, 0, 0, 0, 2])


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(24, 36, (16, 24)), (100, 100, (16, 16)), (9, 40, (16, 72))]
)
def test_frames_keep_the_pictures_proportions_in_whole_cells(height, width, expected):
    assert start.frame_size(height, width, 16, 2) == expected


def test_a_way_through_poses_starts_where_the_walk_does(tmp_path):
    camera = walk_start_camera()
    way = paths.make_way(worlds.get_config().path, camera, 5)
    transforms = {
        "fl_x": 10.0,
        "frames": [{"file_path": "", "transform_matrix": pose.tolist()} for pose in way[:3]],
    }
    file = tmp_path / "poses.json"
    file.write_text(json.dumps(transforms))
    config = worlds.get_config()
    config.path.kind, config.path.poses = "poses", str(file)
    found = paths.make_way(config.path, camera, 7)
    np.testing.assert_allclose(found[0], camera.camera_to_world, atol=1e-6)
    assert found.shape == (7, 4, 4)

    # From a folder of COLMAP, which gives them in a world of its own.
    up, ones = jnp.asarray([0.0, 0.0, 1.0]), jnp.ones(3)
    elsewhere = np.asarray(look_at(jnp.asarray([1.0, 2.0, 3.0]), jnp.zeros(3), up))
    moved = dataclasses.replace(
        camera,
        camera_to_world=jnp.asarray(elsewhere @ way[:3], jnp.float32),
        **{name: ones * getattr(camera, name) for name in ("fx", "fy", "cx", "cy")},
    )
    (tmp_path / "sparse").mkdir()
    cameras, images = camera_to_colmap(moved, ["a.png", "b.png", "c.png"])
    (tmp_path / "sparse" / "cameras.txt").write_text(cameras)
    (tmp_path / "sparse" / "images.txt").write_text(images)
    config.path.poses = str(tmp_path)
    expected = camera_paths.spline(way[:3], 7)
    np.testing.assert_allclose(paths.make_way(config.path, camera, 7), expected, atol=1e-4)


def walk_start_camera():
    settings = dict.fromkeys(("image", "depth", "intrinsics"))
    return start.open_start(settings, worlds.get_config(), 64, 4).camera


def test_colours_of_a_grey_picture():
    found = results.colours(np.full((4, 5, 3), 0.25, np.float32))
    assert found == {"brightness": 0.25, "contrast": 0.0, "saturation": 0.0}


def test_psnr_counts_what_is_known_alone():
    truth = np.zeros((4, 4, 3), np.float32)
    picture = np.where(np.arange(4)[:, None, None] < 2, np.float32(0.1), np.float32(0.9))
    known = np.broadcast_to(np.arange(4)[:, None] < 2, (4, 4))
    parts = (np.broadcast_to(picture, (4, 4, 3)), truth, known)
    found = walking._psnr(*(jax.numpy.asarray(part) for part in parts))
    assert float(found) == pytest.approx(20.0, abs=1e-3)


@pytest.mark.end_to_end
def test_the_binary_says_what_is_wrong(tmp_path):
    done = run("walk", "--frames=2", f"--out={tmp_path / 'out'}")
    assert done.returncode != 0 and "--prompt is missing" in done.stderr
    assert not (tmp_path / "out").exists()
