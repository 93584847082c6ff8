"""The editing tasks of paint.py, from flags to files, with a model that paints plain colours."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from PIL import Image

from experiments import paint
from experiments.painting import inputs
from geojax.io.media import read_image, to_uint8, write_png
from geojax.methods.outpainting import shrink_canvas
from tests.experiments import plain_colours
from tests.experiments.plain_colours import close

SIZE = (13, 18)  # neither side is a multiple of the model's factor


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Name "plain", "trained" or "depth" in place of a folder."""
    priors = {
        "plain": plain_colours.plain(),
        "trained": plain_colours.trained(),
        "depth": plain_colours.depth_conditioned(),
    }
    monkeypatch.setattr(inputs, "load_model", lambda task, name: priors[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """image.png, and mask.png with a hole at rows 3..8, columns 5..12."""
    folder = tmp_path_factory.mktemp("pictures")
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    mask[3:9, 5:13] = 255
    write_png(folder / "image.png", image)
    write_png(folder / "mask.png", mask)
    return folder


HOLE = np.zeros(SIZE, bool)
HOLE[3:9, 5:13] = True


def settings_of(*given):
    values = flags.FlagValues()
    paint.define_flags(values)
    values(["paint", *given])
    return paint.read_settings(values)


def run(out, *given):
    """The command's result, in `out`."""
    settings = settings_of(*given)
    if "match" in settings:
        settings["match"] = 0.0  # these models do not draw what is known: nothing would match
    work = paint.prepare(settings)
    json.dumps(settings)  # what config.json has to hold
    out.mkdir(parents=True, exist_ok=True)
    return work(out)


def short(folder, *given, model="trained"):
    return (
        f"--image={folder / 'image.png'}",
        f"--model={model}",
        "--steps=6",
        "--guidance=1",
        *given,
    )


@pytest.mark.parametrize("model", ["plain", "trained"])
@pytest.mark.parametrize("fill", ["nearest", "noise", "image"])
def test_inpaint_paints_the_hole_and_nothing_else(folder, tmp_path, model, fill):
    flags = [f"--mask={folder / 'mask.png'}", f"--fill={fill}", "--strength=0.9", "--count=2"]
    if fill == "image":
        write_png(tmp_path / "other.png", np.full((30, 7, 3), 0.3, np.float32))
        flags.append(f"--fill_image={tmp_path / 'other.png'}")
    result = run(tmp_path, "--task=inpaint", "--prompt=red", *flags, *short(folder, model=model))
    before = np.asarray(Image.open(folder / "image.png"))
    for i in range(2):
        after = np.asarray(Image.open(tmp_path / f"{i:03d}.png"))
        np.testing.assert_array_equal(after[~HOLE], before[~HOLE])
    assert result.figures == {"hole": round(48 / 234, 4), "known_pixels_changed": 0}
    assert close(result.pictures[:, HOLE], "red", 0.1)


def test_a_seam_outside_changes_known_pixels_and_says_so(folder, tmp_path):
    flags = ["--task=inpaint", "--prompt=red", f"--mask={folder / 'mask.png'}", "--count=1"]
    inside = run(tmp_path / "a", *flags, "--seam=2", *short(folder))
    assert inside.figures["known_pixels_changed"] == 0
    outside = run(tmp_path / "b", *flags, "--seam=2", "--seam_outside", *short(folder))
    band = 10 * 12 - 6 * 8
    assert 0.9 * band <= outside.figures["known_pixels_changed"] <= band


def test_transparent_pixels_are_a_mask(folder, tmp_path):
    rgb = np.asarray(Image.open(folder / "image.png"))
    rgba = np.dstack([rgb, np.where(HOLE, 0, 255).astype(np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    flags = ["--task=inpaint", "--prompt=blue", "--count=1", *short(folder)]
    result = run(tmp_path, *flags, f"--image={tmp_path / 'cut.png'}")
    assert close(result.pictures[:, HOLE], "blue")
    np.testing.assert_array_equal(to_uint8(result.pictures[0])[~HOLE], rgb[~HOLE])


def test_grey_16_bit_and_turned_files_are_read_upright(folder, tmp_path):
    """A photograph whose EXIF says that it lies on its side, and a 16-bit grey mask."""
    rgb = np.asarray(Image.open(folder / "image.png"))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(np.rot90(rgb).copy()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray((HOLE * np.uint16(65535)).astype(np.uint16)).save(tmp_path / "deep.png")
    flags = ["--task=inpaint", "--prompt=blue", "--count=1", *short(folder)]
    result = run(
        tmp_path, *flags, f"--image={tmp_path / 'turned.png'}", f"--mask={tmp_path / 'deep.png'}"
    )
    np.testing.assert_array_equal(to_uint8(result.pictures[0])[~HOLE], rgb[~HOLE])
    assert close(result.pictures[:, HOLE], "blue")
    grey = rgb[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    result = run(
        tmp_path, *flags, f"--image={tmp_path / 'grey.png'}", f"--mask={folder / 'mask.png'}"
    )
    np.testing.assert_array_equal(to_uint8(result.pictures[0])[~HOLE], rgb[..., [0, 0, 0]][~HOLE])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 6), np.uint8), "mask is 6x5 pixels, the image 18x13"),
        (np.zeros(SIZE, np.uint8), "mask is empty"),
        (np.full(SIZE, 255, np.uint8), "mask is full"),
        (None, "--mask is missing, and --image has no transparent pixels"),
    ],
)
def test_masks_that_mean_nothing_are_refused(folder, tmp_path, mask, message):
    flags = []
    if mask is not None:
        write_png(tmp_path / "bad.png", mask)
        flags = [f"--mask={tmp_path / 'bad.png'}"]
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", "--task=inpaint", "--prompt=red", *flags, *short(folder))
    assert not (tmp_path / "out").exists()


def test_image_to_image_goes_from_the_picture_to_the_prompt(folder, tmp_path):
    flags = ["--task=image_to_image", "--prompt=red", "--count=1", *short(folder, model="plain")]
    still = run(tmp_path, *flags, "--strength=0")
    picture = read_image(folder / "image.png").rgb
    np.testing.assert_array_equal(still.pictures[0], picture)
    assert still.figures == {"mean_change": 0.0}
    whole = run(tmp_path, *flags, "--strength=1", "--sampler=euler")
    assert whole.pictures.shape == (1, *SIZE, 3)
    assert close(whole.pictures, "red", 0.01)


def test_depth_to_image_follows_the_map(folder, tmp_path):
    """A map at half the size, nearer to the right."""
    ramp = np.linspace(0.2, 0.7, SIZE[1] // 2, dtype=np.float32)
    write_png(tmp_path / "depth.png", np.broadcast_to(ramp, (SIZE[0] // 2, SIZE[1] // 2)))
    flags = ["--task=depth_to_image", "--prompt=red", "--count=1", *short(folder, model="depth")]
    result = run(tmp_path, *flags, "--strength=1", f"--depth={tmp_path / 'depth.png'}")
    brightness = result.pictures[0].mean(axis=(0, 2))
    assert brightness[0] < 0.1 < 0.9 < brightness[-1]
    assert (np.diff(brightness) > -0.02).all()
    write_png(tmp_path / "depth.png", np.zeros((5, 20), np.float32))
    with pytest.raises(ValueError, match="--depth is 20x5 pixels, --image 18x13"):
        run(tmp_path, *flags, f"--depth={tmp_path / 'depth.png'}")


def test_depth_to_image_predicts_the_map(folder, tmp_path, monkeypatch):
    """By the model's own estimator, by the embedded one, or by the one that is named."""
    flags = ["--task=depth_to_image", "--prompt=red", "--count=1", *short(folder, model="depth")]
    assert settings_of(*flags)["depth_model"] == "depth"  # no folder of that name: a hub id
    (tmp_path / "depth").mkdir()
    monkeypatch.chdir(tmp_path)
    assert settings_of(*flags)["depth_model"] == str(inputs.EMBEDDED / "depth")
    (tmp_path / "depth" / "model_index.json").write_text('{"depth_estimator": ["a", "b"]}')
    assert settings_of(*flags)["depth_model"] == "depth"

    ramp = np.linspace(1.0, 3.0, SIZE[1], dtype=np.float32)
    model = SimpleNamespace(
        params=2.0,
        predict=lambda params, image: image[..., 0] * 0.0 + params * ramp[None, None, ::-1],
    )
    monkeypatch.setattr(inputs, "load_depth", lambda path: {"named": model}[path])
    result = run(tmp_path, *flags, "--strength=1", "--depth_model=named")
    brightness = result.pictures[0].mean(axis=(0, 2))
    assert brightness[-1] < 0.1 < 0.9 < brightness[0]


def test_a_depth_model_that_is_none_is_named(folder, tmp_path):
    flags = ["--task=depth_to_image", "--prompt=red", *short(folder, model="depth")]
    with pytest.raises(FileNotFoundError, match=r"--depth_model=.*absent"):
        run(tmp_path, *flags, f"--depth_model={tmp_path / 'absent'}")


@pytest.mark.parametrize("direction", ["left", "down"])
def test_outpaint_goes_on_from_the_edge(folder, tmp_path, direction):
    flags = ["--task=outpaint", f"--direction={direction}", "--shift=5", "--frames=2"]
    result = run(tmp_path, *flags, "--prompt=blue", *short(folder))
    picture = np.asarray(Image.open(folder / "image.png"))
    whole = np.asarray(Image.open(tmp_path / "panorama.png"))
    if direction == "left":
        known, new = whole[:, 10:], whole[:, :10]
    else:
        known, new = whole[:13], whole[13:]
    np.testing.assert_array_equal(known, picture)
    assert close(new / 255, "blue")
    assert result.figures["panorama"] == list(whole.shape[:2])
    assert len(list((tmp_path / "frames").glob("*.png"))) == 3


@pytest.mark.parametrize("model", ["plain", "trained"])
def test_zoom_keeps_the_middle_and_goes_on_where_it_stopped(folder, tmp_path, model):
    flags = ["--task=zoom", "--border=3", "--frames=2", "--views=3", "--resample=1"]
    flags += ["--prompt=red", *short(folder, model=model)]
    result = run(tmp_path, *flags)
    # The border of the last frame is new; its middle is the frame before.
    assert close(result.pictures[1, 0], "red")
    middle, hole = shrink_canvas(jnp.asarray(result.pictures[1:2]), 3)
    error = np.abs(np.asarray(middle) - result.pictures[2:])[~np.asarray(hole)]
    assert error.max() <= 0.5 / 255 + 1e-5
    assert result.figures == {"views": 7, "zoom": round((13 / 9) ** 2, 2)}
    assert (tmp_path / "zoom.mp4").stat().st_size > 0
    (tmp_path / "frames" / "0002.png").unlink()
    again = run(tmp_path, *flags)
    np.testing.assert_array_equal(again.pictures, result.pictures)


@pytest.mark.parametrize("model", ["plain", "trained"])
def test_a_zoom_without_a_picture_paints_its_first_frame_too(tmp_path, model):
    schedule = tmp_path / "story.json"
    schedule.write_text('{"frames": [0, 2], "prompts": ["red", "blue"]}')
    flags = ["--task=zoom", f"--story={schedule}", "--frames=2", "--steps=6", "--guidance=1"]
    settings = settings_of(*flags, f"--model={model}", "--resample=1", "--match=0")
    result = paint.prepare(settings)(tmp_path)
    assert settings["schedule"] == {"frames": [0, 2], "prompts": ["red", "blue"]}
    assert settings["border"] == 2
    assert result.pictures.shape == (3, 16, 16, 3)
    assert close(result.pictures[:2], "red")
    assert close(result.pictures[2, 0], "blue")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--task=inpaint"], "--task=inpaint needs --image"),
        (["--task=depth_to_image"], "needs --image"),
        (
            ["--task=depth_to_image", "--image=x", "--depth=y", "--depth_model=z", "--prompt=a"],
            "give one of them",
        ),
        (["--task=zoom", "--mask=x"], "--task=zoom does not take --mask"),
        (["--task=generate", "--strength=1"], "--task=generate does not take --strength"),
        (["--task=zoom", "--fps=nan"], "--fps=nan must be finite"),
        (["--task=zoom", "--seam=-1"], "--seam=-1 must not be negative"),
        (["--task=zoom"], "--prompt is missing"),
        (["--task=zoom", "--prompt="], "--prompt is empty"),
        (["--task=zoom", "--prompt=a", "--story=rooms"], "give one"),
        (["--task=zoom", "--story=rooms", "--story_lm=x"], "one story at a time.*story.*story_lm"),
        (["--task=zoom", "--prompt=a", "--story_model=x"], "go together"),
        (["--task=zoom", "--prompt=a", "--story_key=x"], "is for --story_endpoint"),
    ],
)
def test_commands_that_contradict_themselves_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        settings_of(*given)


def test_flags_of_the_model_are_options_of_its_loader(tmp_path, monkeypatch):
    asked = {}

    def load(task, name, **options):
        asked.update(options)
        return plain_colours.plain()

    monkeypatch.setattr(inputs, "load_model", load)
    (tmp_path / "a.safetensors").touch()
    lora = f"--lora={tmp_path / 'a.safetensors'}:0.5"
    given = ["--prompt=red", "--model=plain", "--revision=v2", "--dtype=bfloat16", lora]
    settings = settings_of("--task=generate", *given)
    paint.prepare(settings)
    assert asked == {
        "revision": "v2",
        "dtype": jnp.bfloat16,
        "lora": ((tmp_path / "a.safetensors", 0.5),),
    }
    # What was asked for is part of the command, so another is another run.
    assert settings["dtype"] == "bfloat16" and settings["variant"] is None
    with pytest.raises(FileNotFoundError, match="lora: there is no file"):
        paint.prepare({**settings, "lora": "absent"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--strength=1.5"], "--strength=1.5: strength must be in"),
        (["--strength=0.01"], "--strength=0.01: .* leaves none of 6"),
        (["--seam=2", "--seam_strength=0.01"], "--seam_strength=0.01"),
        (["--steps=1000"], "cannot take 1000 steps"),
        (["--resample=2"], "--resample=2 is for a model that was not trained"),
        (["--fill=image"], "--fill=image with --fill_image=None"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_a_folder_is_made(
    folder, tmp_path, given, message
):
    flags = ["--task=inpaint", "--prompt=red", f"--mask={folder / 'mask.png'}", *short(folder)]
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", *flags, *given)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_pictures_are_refused_by_their_flag(folder, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    flags = ["--task=inpaint", "--prompt=red", *short(folder)]
    with pytest.raises(ValueError, match=r"--mask: .*text\.png is not a readable image"):
        run(tmp_path, *flags, f"--mask={tmp_path / 'text.png'}")
    with pytest.raises(FileNotFoundError, match="--image: no image file"):
        run(tmp_path, *flags, f"--image={tmp_path / 'absent.png'}")
