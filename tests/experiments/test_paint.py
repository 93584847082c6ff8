import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import paint
from geojax.diffusion.schedule import scaled_linear
from geojax.io.media import read_image
from geojax.priors.mixture import mixture_prior
from tests.experiments.binaries import run, strict_json

SIZE = 4
PROMPTS = ["red", "blue"]
COLOURS = np.asarray([(0.8, 0.1, 0.1), (0.1, 0.2, 0.9)], np.float32)


def plain_prior():
    """Two modes, plain pictures of COLOURS, so narrow that a sample is its mode."""
    means = np.broadcast_to(COLOURS[:, None, None], (2, SIZE, SIZE, 3))
    return mixture_prior(scaled_linear(), jnp.asarray(means), 1e-4, PROMPTS)


@pytest.mark.parametrize("sampler", paint.SAMPLERS)
def test_a_sample_of_an_exact_prior_is_what_was_asked_for(sampler):
    prior = plain_prior()
    painter = paint.make_painter(prior, sampler=sampler, steps=20, guidance=1.0, size=SIZE)
    images = paint.paint_prompts(prior, painter, ["red", "blue", "red"], seed=0, batch=2)
    expected = np.broadcast_to(COLOURS[[0, 1, 0]][:, None, None], (3, SIZE, SIZE, 3))
    # DDIM stops at the noise level of t = 0, s = .03.
    np.testing.assert_allclose(images, expected, atol=0.1 if sampler == "ddim" else 0.05)


def test_a_picture_depends_on_its_place_and_not_on_its_neighbours():
    prior = mixture_prior(scaled_linear(), jnp.full((1, SIZE, SIZE, 3), 0.5), 0.05, ["grey"])
    make = lambda guidance: paint.make_painter(  # noqa: E731
        prior, sampler="euler_ancestral", steps=4, guidance=guidance, size=SIZE
    )
    painter = make(1.0)
    three = paint.paint_prompts(prior, painter, ["grey"] * 3, seed=5, batch=3)
    again = paint.paint_prompts(prior, painter, ["grey"] * 4, seed=5, batch=2)
    np.testing.assert_allclose(three, again[:3], atol=1e-5)
    assert np.abs(three[0] - three[1]).max() > 0.05
    other = paint.paint_prompts(prior, painter, ["grey"] * 3, seed=6, batch=3)
    assert np.abs(three - other).max() > 0.05


def test_bad_sizes_and_steps_are_refused():
    prior = dataclasses.replace(plain_prior(), image_size=4 * SIZE)  # a factor of 4
    options = {"sampler": "ddim", "guidance": 1.0}
    for size in (0, -4, 6):
        with pytest.raises(ValueError, match=f"--size={size}"):
            paint.make_painter(prior, steps=4, size=size, **options)
    with pytest.raises(ValueError, match="cannot take 1000 steps"):
        paint.make_painter(prior, steps=1000, size=8, **options)


def test_pictures_that_are_not_finite_are_an_error():
    prior = plain_prior()
    painter = paint.make_painter(prior, sampler="ddim", steps=2, guidance=float("inf"), size=SIZE)
    with pytest.raises(FloatingPointError, match="not finite"):
        paint.paint_prompts(prior, painter, ["red"], seed=0, batch=1)


def test_a_contact_sheet_fills_its_last_row():
    sheet = paint.contact_sheet(np.zeros((5, SIZE, SIZE, 3), np.float32), columns=3)
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
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt= "], "--prompt is empty"),
        (["--prompt=a mug", "--sampler=magic"], "value should be one of <ddim|euler|"),
        (["--prompt=a mug", "--size=17"], "--size=17 must be a positive multiple"),
    ],
    ids=["empty", "sampler", "size"],
)
def test_the_binary_refuses(family, tmp_path, flags, said):
    out = tmp_path / "paint"
    done = run("paint", f"--model={family}", f"--out={out}", *flags)
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert not out.exists()
