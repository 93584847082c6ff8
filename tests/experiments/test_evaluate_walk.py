"""The suite of walks: known answers from the truth itself, and the whole on tiny models."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluation import scene_walk
from experiments.walking.records import Record
from geojax.worlds.room_render import SKY_DEPTH
from tests.experiments.binaries import run, strict_json
from tests.experiments.test_walk import tiny_config
from tests.tiny_family import IMAGE_SIZE

FRAMES = 3


@pytest.fixture(scope="module")
def truth():
    return scene_walk.true_walks(0, 1, FRAMES, IMAGE_SIZE)[0]


def perfect(truth):
    """Records of a walk that saw everything as it is."""
    figures = {"clip": 0.3, "brightness": 0.5, "contrast": 0.1, "saturation": 0.2}
    none = np.zeros(truth.depth.shape[1:], bool)
    return [
        Record(image, depth, none, none, none, image, truth.camera[i], figures)
        for i, (image, depth) in enumerate(zip(truth.image, truth.depth, strict=True))
    ]


def test_a_walk_that_saw_the_truth_has_the_best_figures(truth):
    found = scene_walk.measure(truth, perfect(truth))
    assert found["psnr_truth"] == scene_walk.PSNR_LIMIT
    assert (found["depth_error"], found["control"], found["hole"]) == (0.0, 0.0, 0.0)
    assert found["psnr_reprojection"] > 18.0
    assert found["clip_drift"] == 0.0
    off = [
        record._replace(image=record.image + np.float32(0.1), depth=record.depth * 1.2)
        for record in perfect(truth)
    ]
    worse = scene_walk.measure(truth, off)
    assert worse["psnr_truth"] == pytest.approx(20.0, abs=1e-3)
    assert worse["depth_error"] == pytest.approx(0.2, abs=1e-3)
    moved = perfect(truth)
    pose = np.asarray(moved[2].camera.camera_to_world).copy()
    pose[0, 3] += 0.25
    camera = dataclasses.replace(moved[2].camera, camera_to_world=jnp.asarray(pose))
    moved[2] = moved[2]._replace(camera=camera)
    assert scene_walk.measure(truth, moved)["control"] == pytest.approx(0.25, abs=1e-5)


def test_what_frame_0_saw_is_in_sight_and_the_rim_of_a_backward_walk_is_not(truth):
    sight = scene_walk.in_first_sight(truth)
    assert sight[0].all()
    middle = np.s_[IMAGE_SIZE // 2 - 2 : IMAGE_SIZE // 2 + 2]
    assert sight[2][middle, middle].mean() > 0.7
    rim = np.ones((IMAGE_SIZE, IMAGE_SIZE), bool)
    rim[1:-1, 1:-1] = False
    assert sight[2][rim].mean() < 0.2
    assert (truth.depth <= SKY_DEPTH).all() and truth.caption


def test_a_walk_there_and_back_ends_where_it_began(truth):
    back = scene_walk.there_and_back(truth)
    assert len(back.image) == FRAMES
    np.testing.assert_array_equal(back.image[-1], truth.image[0])
    np.testing.assert_array_equal(back.camera.camera_to_world[-1], truth.camera.camera_to_world[0])
    np.testing.assert_array_equal(back.image[1], truth.image[1])


def test_psnr_of_nothing_is_nan():
    grey, none = np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), bool)
    assert np.isnan(scene_walk.psnr(grey, grey, none))


def test_variants_change_a_copy_of_the_recipe(inpainting_folder, depth_folder):
    config = tiny_config(inpainting_folder, depth_folder)
    back = scene_walk.changed(config, {"path.there_and_back": True, "match": 0.0})
    assert back.path.there_and_back and not config.path.there_and_back
    assert back.match == 0.0 and config.match > 0.0


@pytest.mark.end_to_end
def test_the_suite_runs_and_does_nothing_twice(
    inpainting_folder, depth_folder, clip_folder, tmp_path
):
    config = tiny_config(inpainting_folder, depth_folder, clip_folder)
    names = ["mesh"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = scene_walk.evaluate_scene_walk(config, names, 1, FRAMES, 0, tmp_path)
        text = strict_json((tmp_path / "scene_walk.json").read_text())
        assert text == json.loads(json.dumps(found))
        frame = tmp_path / "mesh/00/records/0002.npz"
        before = frame.stat().st_mtime_ns
        again = scene_walk.evaluate_scene_walk(config, names, 1, FRAMES, 0, tmp_path)
    assert frame.stat().st_mtime_ns == before
    assert again["each"] == found["each"]
    mesh = found["variants"]["mesh"]
    assert mesh["control"]["mean"] < 1e-5 and 0.0 < mesh["hole"]["mean"] < 0.9
    # What is in sight is the true picture, seen again.
    assert mesh["psnr_truth"]["mean"] > 15.0
    assert mesh["clip_chosen"]["mean"] >= mesh["clip_first"]["mean"]
    assert (tmp_path / "walk_00.png").is_file()
    assert "seconds a frame" in scene_walk.walk_table(found)


@pytest.mark.end_to_end
def test_a_recipe_of_objects_is_refused(tmp_path):
    done = run("evaluate", "--suite=scene_walk", f"--out={tmp_path / 'out'}")
    assert done.returncode != 0
    assert "needs a recipe of configs/walk" in done.stderr
