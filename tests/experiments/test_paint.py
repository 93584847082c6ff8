import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.painting import inputs, sampling
from geojax.diffusion.schedule import scaled_linear
from geojax.io.media import read_image, write_png
from geojax.methods.world_story import room_story
from geojax.models.unet import UNet
from geojax.priors.inpainting import ConditionedPrior
from geojax.priors.mixture import mixture_prior
from geojax.priors.prior import Prior
from geojax.weights.folder import save_component
from tests.experiments.binaries import run, strict_json
from tests.weights.tiny_family import UNET, random_params, write_family

SIZE = 4
PROMPTS = ["red", "blue"]
COLOURS = np.asarray([(0.8, 0.1, 0.1), (0.1, 0.2, 0.9)], np.float32)


def plain_prior():
    """Two modes, plain pictures of COLOURS, so narrow that a sample is its mode."""
    means = np.broadcast_to(COLOURS[:, None, None], (2, SIZE, SIZE, 3))
    return mixture_prior(scaled_linear(), jnp.asarray(means), 1e-4, PROMPTS)


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_a_sample_of_an_exact_prior_is_what_was_asked_for(sampler):
    prior = plain_prior()
    painter = sampling.make_painter(prior, sampler=sampler, steps=20, guidance=1.0, size=SIZE)
    images = sampling.paint_prompts(prior, painter, ["red", "blue", "red"], seed=0, batch=2)
    expected = np.broadcast_to(COLOURS[[0, 1, 0]][:, None, None], (3, SIZE, SIZE, 3))
    # DDIM, of either spacing, stops at the noise level of t = 0, s = .03.
    np.testing.assert_allclose(images, expected, atol=0.1 if "ddim" in sampler else 0.05)


def test_a_picture_depends_on_its_place_and_not_on_its_neighbours():
    prior = mixture_prior(scaled_linear(), jnp.full((1, SIZE, SIZE, 3), 0.5), 0.05, ["grey"])
    make = lambda guidance: sampling.make_painter(  # noqa: E731
        prior, sampler="euler_ancestral", steps=4, guidance=guidance, size=SIZE
    )
    painter = make(1.0)
    three = sampling.paint_prompts(prior, painter, ["grey"] * 3, seed=5, batch=3)
    again = sampling.paint_prompts(prior, painter, ["grey"] * 4, seed=5, batch=2)
    np.testing.assert_allclose(three, again[:3], atol=1e-5)
    assert np.abs(three[0] - three[1]).max() > 0.05
    other = sampling.paint_prompts(prior, painter, ["grey"] * 3, seed=6, batch=3)
    assert np.abs(three - other).max() > 0.05


def test_bad_sizes_and_steps_are_refused():
    prior = dataclasses.replace(plain_prior(), image_size=4 * SIZE)  # a factor of 4
    options = {"sampler": "ddim", "guidance": 1.0}
    for size in (0, -4, 6):
        with pytest.raises(ValueError, match=f"--size={size}"):
            sampling.make_painter(prior, steps=4, size=size, **options)
    with pytest.raises(ValueError, match="cannot take 1000 steps"):
        sampling.make_painter(prior, steps=1000, size=8, **options)


def test_pictures_that_are_not_finite_are_an_error():
    prior = plain_prior()
    painter = sampling.make_painter(
        prior, sampler="ddim", steps=2, guidance=float("inf"), size=SIZE
    )
    with pytest.raises(FloatingPointError, match="not finite"):
        sampling.paint_prompts(prior, painter, ["red"], seed=0, batch=1)


def test_a_contact_sheet_fills_its_last_row():
    sheet = sampling.contact_sheet(np.zeros((5, SIZE, SIZE, 3), np.float32), columns=3)
    assert sheet.shape == (2 * SIZE + 2, 3 * SIZE + 4, 3)
    assert sheet[-1, -1].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.end_to_end
def test_the_binary_paints(family, tmp_path):
    out = tmp_path / "paint"
    flags = [f"--model={family}", f"--out={out}", "--count=3", "--batch=2", "--steps=3"]
    done = run("paint", "--prompt=a red mug, front view", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = strict_json((out / "summary.json").read_text())
    assert (summary["prompt"], summary["count"]) == ("a red mug, front view", 3)
    assert (summary["size"], summary["sampler"], summary["seed"]) == (16, "ddim", 0)
    pictures = [read_image(out / f"{i:03d}.png").rgb for i in range(3)]
    assert pictures[0].shape == (16, 16, 3)
    assert np.abs(pictures[0] - pictures[1]).max() > 0.0
    assert (out / "sheet.png").is_file()

    # The folder is now of these settings: another prompt does not overwrite them.
    other = run("paint", "--prompt=a blue chair", *flags)
    assert other.returncode != 0
    assert "prompt: the run has 'a red mug, front view'" in other.stderr


@pytest.mark.end_to_end
def test_the_binary_inpaints_by_replacement(family, tmp_path):
    """The embedded family's kind of model, through RePaint, on a size that is padded and cut."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (15, 18, 3), dtype=np.uint8)
    mask = np.zeros((15, 18), bool)
    mask[4:9, 6:13] = True
    write_png(tmp_path / "image.png", image)
    write_png(tmp_path / "mask.png", mask.astype(np.float32))
    out = tmp_path / "out"
    flags = [f"--{name}={tmp_path / name}.png" for name in ("image", "mask")]
    flags += [f"--model={family}", f"--out={out}", "--count=1", "--steps=4", "--jump=2"]
    done = run("paint", "--task=inpaint", "--prompt=a red mug", "--seam=2", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = strict_json((out / "summary.json").read_text())
    assert (summary["known_pixels_changed"], summary["resample"]) == (0, 4)
    painted = np.round(read_image(out / "000.png").rgb * 255).astype(np.uint8)
    np.testing.assert_array_equal(painted[~mask], image[~mask])
    assert (painted[mask] != image[mask]).any()
    assert (out / "sheet.png").is_file()

    # The same command with another picture of the same name is another run.
    write_png(tmp_path / "image.png", 255 - image)
    other = run("paint", "--task=inpaint", "--prompt=a red mug", "--seam=2", *flags)
    assert other.returncode != 0
    assert "image_digest: the run has" in other.stderr


@pytest.mark.end_to_end
def test_the_binary_zooms_out_with_a_model_trained_to_inpaint(family, tmp_path):
    folder = shutil.copytree(family, tmp_path / "inpainting")
    unet = UNet(dataclasses.replace(UNET, in_channels=9))
    component = random_params(unet), unet.config.to_dict()
    save_component(folder / "unet", *component, overwrite=True)
    out = tmp_path / "zoom"
    flags = [f"--model={folder}", f"--out={out}", "--frames=2", "--steps=2", "--views=2"]
    done = run("paint", "--task=zoom", "--story=rooms", "--story_every=1", "--blend", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = strict_json((out / "summary.json").read_text())
    assert summary["schedule"] == room_story(0, 3, 1).to_dict()
    assert (summary["border"], summary["views"]) == (2, 5)
    assert len(list((out / "frames").glob("*.png"))) == 3
    assert (out / "zoom.mp4").is_file() and (out / "sheet.png").is_file()


def test_each_task_loads_its_kind_of_model_and_refuses_another(tmp_path):
    for channels in (4, 5, 9):
        write_family(tmp_path / str(channels), dataclasses.replace(UNET, in_channels=channels))
    kinds = {
        ("generate", 4): Prior,
        ("inpaint", 4): Prior,
        ("zoom", 9): ConditionedPrior,
        ("depth_to_image", 5): ConditionedPrior,
    }
    for (task, channels), kind in kinds.items():
        assert isinstance(inputs.load_model(task, str(tmp_path / str(channels))), kind)
    # Options of the files arrive, also where the configs are read first.
    for task, channels in kinds:
        with pytest.raises(FileNotFoundError, match="fp16"):
            model = str(tmp_path / str(channels))
            inputs.load_model(task, model, variant="fp16", dtype=jnp.dtype("bfloat16"))
    for task, channels, message in (
        ("depth_to_image", 4, "takes 4 channels: a text-to-image model; expected a depth model"),
        ("image_to_image", 9, "takes 9 channels: an inpainting model; expected a text-to-image"),
        ("outpaint", 5, "takes 5 channels: a depth model; expected an inpainting model"),
    ):
        with pytest.raises(ValueError, match=message):
            inputs.load_model(task, str(tmp_path / str(channels)))


def test_tasks_without_an_embedded_model_say_so(monkeypatch, tmp_path):
    assert inputs.default_model("image_to_image") == "geojax/assets/worlds-64"
    with pytest.raises(FileNotFoundError, match="no embedded model is conditioned on depth"):
        inputs.default_model("depth_to_image")
    monkeypatch.setattr(inputs, "EMBEDDED_INPAINTING", tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="by replacement with --model=geojax/assets/worlds"):
        inputs.default_model("inpaint")
    monkeypatch.setattr(inputs, "EMBEDDED_INPAINTING", tmp_path)
    assert inputs.default_model("zoom") == str(tmp_path)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt= "], "--prompt is empty"),
        (
            ["--prompt=a mug", "--sampler=magic"],
            "should be one of <ddim|ddim_trailing|euler|",
        ),
        (
            ["--prompt=a mug", "--size=17"],
            "--size=17 must be a positive multiple of the model's 2; the nearest are 16 and 18",
        ),
    ],
    ids=["empty", "sampler", "size"],
)
def test_the_binary_refuses(family, tmp_path, flags, said):
    out = tmp_path / "paint"
    done = run("paint", f"--model={family}", f"--out={out}", *flags)
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert not out.exists()
