"""The suites of the editor: figures with known answers, and each of them whole on tiny models."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluation import clip_pair, depth, inpainting, unseen
from geojax.priors.clip_score import CLIPScore
from geojax.priors.depth import DepthModel
from geojax.worlds import captions, pictures, room_pictures, solids
from tests.experiments import plain_colours
from tests.experiments.binaries import run, strict_json
from tests.tiny_family import IMAGE_SIZE

HOLE = np.zeros((2, 8, 8), bool)
HOLE[0, 2:6, 2:6] = HOLE[1, :, :4] = True
RED = np.asarray(plain_colours.COLOURS["red"], np.float32)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)


def colour_clip():
    """It knows colours: a picture's mean, and the prompt's."""

    def unit(x):
        x = x - 0.3
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    return CLIPScore(
        params={},
        embed_text=lambda texts: unit(jnp.asarray([plain_colours.COLOURS[t] for t in texts])),
        embed_image=lambda params, image: unit(image.mean(axis=(1, 2))),
        image_size=8,
        logit_scale=1.0,
    )


def test_psnr_is_of_the_hole_alone(image):
    limit = inpainting.PSNR_LIMIT
    np.testing.assert_array_equal(inpainting.hole_psnr(image, image, HOLE), [limit, limit])
    off = np.where(HOLE[..., None], image + np.float32(0.1), image)
    np.testing.assert_allclose(inpainting.hole_psnr(off, image, HOLE), 20.0, atol=1e-3)
    assert inpainting.known_difference(off, image, HOLE) == 0.0
    outside = np.where(HOLE[..., None], image, image + np.float32(0.25))
    np.testing.assert_array_equal(inpainting.hole_psnr(outside, image, HOLE), [limit, limit])
    assert inpainting.known_difference(outside, image, HOLE) == pytest.approx(0.25, abs=1e-6)


def test_the_other_prompt_is_another_text_from_afar():
    assert inpainting.others(["a", "b", "c", "d"]) == [2, 3, 0, 1]
    found = inpainting.others(["a", "a", "a", "b"])
    assert found[3] == 1
    assert found[:3] == [3, 3, 3]
    with pytest.raises(ValueError, match="'a'"):
        inpainting.others(["a", "a"])


def test_figures_with_known_answers(image):
    """Ours is the truth, the nearest is .1 off, the other prompt's .01."""
    off = {"ours": 0.0, "nearest": 0.1, "other": 0.01}
    fillings = {
        name: np.where(HOLE[..., None], image + np.float32(by), image) for name, by in off.items()
    }
    scores = {"ours": np.asarray([0.5, 0.2]), "other": np.asarray([0.4, 0.2])}
    found = inpainting.figures(image, HOLE, fillings, scores)
    assert found["known_difference"] == 0.0
    assert found["psnr_ours"]["mean"] == inpainting.PSNR_LIMIT
    assert found["psnr_nearest"]["mean"] == pytest.approx(20.0, abs=1e-3)
    assert found["psnr_other"]["mean"] == pytest.approx(40.0, abs=1e-2)
    assert found["gain_db"]["mean"] == pytest.approx(80.0, abs=1e-3)
    assert found["gain_db"]["standard_error"] == pytest.approx(0.0, abs=1e-3)
    assert found["better_than_nearest"] == 1.0
    # Even is not preferred.
    assert found["clip_prefers_own"]["mean"] == 0.5
    assert found["clip_prefers_own"]["standard_error"] == pytest.approx(0.5 / 2**0.5)
    assert [p["clip_prefers_own"] for p in found["pictures"]] == [True, False]
    assert [(p["from"], p["count"]) for p in found["by_hole"]] == [(0.25, 1), (0.4, 1)]
    assert [p["clip_prefers_own"] for p in found["by_hole"]] == [1.0, 0.0]
    fillings["other"] = fillings["other"] + np.float32(0.125) * ~HOLE[..., None]
    found = inpainting.figures(image, HOLE, fillings, scores)
    assert found["known_difference"] == pytest.approx(0.125, abs=1e-6)


def test_holes_are_painted_with_their_own_prompt_and_with_another():
    """With a model of plain colours: CLIP prefers its own, which is nearer to the truth."""
    size = plain_colours.SIZE
    image = np.broadcast_to(RED, (3, size, size, 3)).copy()
    image[1:] = plain_colours.COLOURS["blue"]
    hole = np.zeros((3, size, size), bool)
    hole[:, 4:13, 5:12] = True
    nothing = np.zeros((3, 0))
    batch = room_pictures.Batch(image, nothing, nothing, nothing)
    rooms = unseen.Rooms(batch, ["red", "blue", "blue"])
    settings = {"sampler": "ddim", "steps": 8, "guidance": 1.0, "strength": 1.0, "seam": 0}
    settings |= {"seam_strength": 0.5, "seam_outside": False, "jump": 5, "resample": None}
    prior = plain_colours.trained()
    fillings = inpainting.fill_all(prior, rooms, hole, 0, 2, settings | {"match": 0.0})
    for name in ("ours", "other"):
        assert inpainting.known_difference(fillings[name], image, hole) == 0.0
    assert plain_colours.close(fillings["ours"][0][hole[0]], "red")
    assert plain_colours.close(fillings["ours"][2][hole[2]], "blue")
    assert plain_colours.close(fillings["other"][0][hole[0]], "blue")
    assert plain_colours.close(fillings["other"][2][hole[2]], "red")
    np.testing.assert_array_equal(fillings["nearest"], image)
    clip = colour_clip()
    scores = {n: inpainting.agreement(clip, fillings[n], rooms.texts) for n in ("ours", "other")}
    found = inpainting.figures(image, hole, fillings, scores)
    assert found["clip_prefers_own"]["mean"] == 1.0
    assert found["psnr_ours"]["mean"] > found["psnr_other"]["mean"] + 10.0
    sheet = inpainting.sheet(image, hole, fillings)
    assert sheet.shape[1] == 5 * size + 4 * 4


def test_parts_are_joined_in_order_whatever_is_filled_up():
    images = np.arange(7.0)[:, None, None, None] * np.ones((1, 2, 2, 3))
    found = inpainting.in_parts(lambda part: part.mean(axis=(1, 2)), images, batch=3)
    np.testing.assert_array_equal(found, np.arange(7.0)[:, None] * np.ones(3))


def test_retrieval_goes_both_ways():
    assert clip_pair.retrieval(np.eye(4)) == {"image_to_text": 1.0, "text_to_image": 1.0}
    # Picture 0 likes every caption most that picture 1 should have; caption 1 prefers picture 0.
    skewed = np.asarray([[0.5, 0.9, 0.0], [0.1, 0.8, 0.0], [0.0, 0.0, 0.3]])
    assert clip_pair.retrieval(skewed) == {
        "image_to_text": pytest.approx(2 / 3),
        "text_to_image": pytest.approx(2 / 3),
    }
    one_way = np.asarray([[0.5, 0.4], [0.9, 1.0]])
    assert clip_pair.retrieval(one_way) == {"image_to_text": 1.0, "text_to_image": 0.5}


def test_sets_are_judged_apart_and_what_is_wrong_is_named():
    whole = np.full((4, 4), -1.0)
    whole[0, 0] = whole[1, 0] = 1.0  # picture 1 takes the caption of picture 0
    whole[2, 2] = whole[3, 3] = 0.5
    whole[0, 3] = 2.0  # of another set
    found = clip_pair.judged(whole, list("abcd"), [np.asarray([0, 1]), np.asarray([2, 3])])
    assert (found["captions"], found["pictures"]) == (2, 4)
    assert found["image_to_text"] == 0.75
    assert found["wrong"] == [{"caption": "b", "found": "a"}]


@pytest.mark.parametrize("count", [2, 7, 150])
def test_a_count_without_whole_sets_is_refused(count, tmp_path):
    with pytest.raises(ValueError, match=f"--count={count}"):
        clip_pair.evaluate_clip(str(tmp_path), count, 0, tmp_path)


def test_objects_are_of_all_pairs_and_as_their_captions_say(monkeypatch):
    """With views that are plain: every picture has its caption's colour, before any background."""
    azimuths = np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False)

    def trace(key, kind, count, size):
        layers = np.zeros((count, size, size, 5), np.uint8)
        layers[..., 0] = layers[..., 4] = 255
        index = np.full(count, list(solids.KINDS).index(kind))
        return pictures.Pool(layers, index, azimuths[np.arange(count) // 2 % 8], np.zeros(count))

    monkeypatch.setattr(pictures, "trace_kind", trace)
    found = unseen.distinct_objects(0, 130, 2)
    assert len(set(found.texts)) == 130
    subjects = [captions.parse_subject(text) for text in found.texts]
    assert len(set(subjects[:96])) == 96
    for image, (_, colour) in zip(found.image, subjects, strict=True):
        np.testing.assert_allclose(image[1, 1], solids.COLOURS[colour], atol=1e-6)
    assert {text.split(", ", 1)[1] for text in found.texts} >= {"front view, at eye level"}
    with pytest.raises(ValueError, match="do not make"):
        azimuths[:] = 0.0
        unseen.distinct_objects(0, 200, 2)


@pytest.fixture(scope="module")
def room():
    """Depths of two pictures, and where they are known: not in the sky at the top."""
    z = np.random.default_rng(1).uniform(1.0, 9.0, (2, 10, 10)).astype(np.float32)
    z[:, 0] = depth.SKY_DEPTH
    return z, z < depth.SKY_DEPTH


def errors(disparity, room):
    z, known = room
    found = depth.aligned(disparity.astype(np.float32), z, known)
    return [depth.relative_error(part, z, known) for part in found]


def test_a_perfect_disparity_has_no_error_at_any_scale_and_shift(room):
    z, known = room
    scaled = 3.0 / z
    # What is said of the sky has no say, be it absurd.
    scaled[~known] = 77.0
    np.testing.assert_allclose(errors(scaled, room), 0.0, atol=1e-5)
    by_scale, by_both = errors(0.2 + 3.0 / z, room)
    assert by_scale.min() > 0.05
    np.testing.assert_allclose(by_both, 0.0, atol=1e-4)


def test_a_relative_error_is_that_of_the_pixels_that_are_wrong(room):
    """A third of the known rows a fifth too far: the median is that of the others."""
    z, _ = room
    wrong = z.copy()
    wrong[:, 7:] *= 1.2
    by_scale, by_both = errors(1.0 / wrong, room)
    np.testing.assert_allclose(by_scale, 0.2 / 3.0, rtol=1e-4)
    assert by_both.max() < 0.2


def test_a_disparity_that_is_dead_is_far_and_not_infinite(room):
    z, known = room
    for found in errors(np.zeros_like(z), room):
        assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="picture 1 has no known depth"):
        depth.aligned(1.0 / z, z, known & (np.arange(2) == 0)[:, None, None])


@pytest.mark.end_to_end
def test_depth_of_unseen_rooms(monkeypatch, tmp_path):
    """A model that answers .3 / row: its figures are those of its maps."""

    def predict(params, image):
        rows = params["at"] * jnp.ones(image.shape[:3])
        return 0.3 / jnp.cumsum(rows, axis=1)

    model = DepthModel({"at": jnp.float32(1.0)}, predict, False, IMAGE_SIZE)
    monkeypatch.setattr(depth, "load_depth", lambda folder: model)
    found = depth.evaluate_depth("absent", 4, 0, tmp_path)
    assert strict_json((tmp_path / "depth.json").read_text()) == json.loads(json.dumps(found))
    rooms = unseen.unseen_rooms(0, 4, IMAGE_SIZE).batch
    maps = np.broadcast_to(0.3 / np.arange(1, IMAGE_SIZE + 1)[:, None], rooms.depth.shape)
    expected = errors(maps, (rooms.depth, rooms.depth < depth.SKY_DEPTH))
    for name, values in zip(("scale", "scale_and_shift"), expected, strict=True):
        entry = found["absolute_relative_error"][name]
        assert entry["mean"] == pytest.approx(values.mean(), rel=1e-4)
        assert entry["worst"] == pytest.approx(values.max(), rel=1e-4)
    assert len(found["pictures"]) == 4
    assert (tmp_path / "depth.png").is_file()


@pytest.mark.end_to_end
def test_the_suites_run_on_unseen_rooms(inpainting_folder, clip_folder, tmp_path):
    found = inpainting.evaluate_inpainting(
        str(inpainting_folder),
        str(clip_folder),
        4,
        0,
        tmp_path,
        sampler="ddim",
        steps=2,
        guidance=2.0,
        strength=1.0,
        match=None,
        seam=0,
        batch=4,
    )
    assert strict_json((tmp_path / "inpaint.json").read_text()) == json.loads(json.dumps(found))
    assert found["known_difference"] == 0.0
    assert found["resample"] == 1
    assert sum(part["count"] for part in found["by_hole"]) == found["count"] == 4
    assert all(p["caption"] != p["other"] for p in found["pictures"])
    assert all(0.1 <= p["hole"] <= 0.6 for p in found["pictures"])
    assert (tmp_path / "inpaint.png").is_file()
    assert "PSNR" in inpainting.inpaint_table(found)

    def few(seed, count, size):
        rooms = unseen.distinct_rooms(seed, count, size)
        return unseen.Pictures(1.0 - rooms.image, [f"a photo of {t}" for t in rooms.texts])

    with pytest.MonkeyPatch.context() as patch:  # tracing two kinds of solid takes long to compile
        patch.setattr(clip_pair, "distinct_objects", few)
        found = clip_pair.evaluate_clip(str(clip_folder), 4, 0, tmp_path)
    assert strict_json((tmp_path / "clip.json").read_text()) == json.loads(json.dumps(found))
    assert (found["both"]["captions"], found["rooms"]["captions"]) == (4, 2)
    right = round((1.0 - found["both"]["image_to_text"]) * 4)
    assert len(found["both"]["wrong"]) == right


@pytest.mark.end_to_end
def test_flags_of_another_suite_are_refused(tmp_path):
    done = run("evaluate", "--suite=clip", "--seam=3", "--steps=4", f"--out={tmp_path / 'out'}")
    assert done.returncode != 0
    assert "--suite=clip does not take --steps, --seam" in done.stderr
    assert not (tmp_path / "out").exists()
