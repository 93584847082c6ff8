"""Pictures: every kind of file reads as [0, 1] RGB, and what is written reads back."""

import struct
import warnings
from zlib import compress, crc32

import imageio.v2 as imageio
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geojax.io import atomic, media


def ramp(height: int = 6, width: int = 8) -> np.ndarray:
    """uint8 [H, W, 3] with every pixel different."""
    return (
        (np.arange(height * width * 3) * 255 // (height * width * 3))
        .astype(np.uint8)
        .reshape(height, width, 3)
    )


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "1", "CMYK"])
def test_reads_opaque_modes(tmp_path, mode):
    image = Image.fromarray(ramp()).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    rgb, alpha = media.read_image(path)
    assert alpha is None and rgb.dtype == np.float32 and rgb.shape == (6, 8, 3)
    np.testing.assert_array_equal(rgb, np.float32(image.convert("RGB")) / np.float32(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_reads_alpha_and_keeps_the_colours_under_it(tmp_path, mode):
    alpha = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    image = Image.fromarray(np.concatenate([ramp(), alpha[..., None]], -1)).convert(mode)
    image.save(tmp_path / "a.png")
    found = media.read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found.alpha, np.float32(alpha) / np.float32(255))
    np.testing.assert_array_equal(np.round(found.rgb * 255), np.asarray(image.convert("RGB")))


def test_reads_sixteen_bits_of_grey(tmp_path):
    values = np.array([[0, 1, 256], [32768, 65534, 65535]], np.uint16)
    media.write_png(tmp_path / "a.png", values)
    rgb = media.read_image(tmp_path / "a.png").rgb
    np.testing.assert_array_equal(np.round(rgb[..., 1] * 65535), values)


def test_reads_sixteen_bit_rgb_close(tmp_path):
    """Written chunk by chunk: Pillow cannot write it."""
    values = (np.linspace(0, 1, 6 * 8 * 3).reshape(6, 8, 3) * 65535).astype(np.uint16)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", compress(rows))
        + chunk(b"IEND", b"")
    )
    assert np.abs(media.read_image(tmp_path / "a.png").rgb - values / 65535).max() < 1 / 250


def test_turns_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    Image.fromarray(ramp()).save(tmp_path / "a.png", exif=exif)
    rgb = media.read_image(tmp_path / "a.png").rgb
    np.testing.assert_array_equal(np.round(rgb * 255), np.rot90(ramp(), -1))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        media.read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text\.png is not a readable image"):
        media.read_image(tmp_path / "text.png")
    media.write_png(tmp_path / "cut.png", np.random.default_rng(0).random((50, 50, 3)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut\.png is not a readable image"):
        media.read_image(tmp_path / "cut.png")


@given(st.floats(-0.5, 1.5, width=32))
def test_to_uint8_rounds_and_clips(value):
    found = int(media.to_uint8(np.full((1, 1, 3), value, np.float32))[0, 0, 0])
    assert abs(found / 255 - min(max(value, 0), 1)) <= 0.5 / 255 + 1e-6


def test_write_png_refuses_what_is_no_image(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"got shape \(4, 4, 2\)"):
        media.write_png(path, np.zeros((4, 4, 2), np.float32))
    with pytest.raises(ValueError, match="1 values of the image are not finite"):
        media.write_png(path, np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="int64"):
        media.write_png(path, np.zeros((4, 4, 3), np.int64))
    with pytest.raises(ValueError, match=r"grey \[H, W\] only"):
        media.write_png(path, np.zeros((4, 4, 3), np.uint16))
    assert list(tmp_path.iterdir()) == []
    media.write_png(tmp_path / "new" / "a.png", jnp.zeros((4, 4, 4), jnp.float32))
    assert media.read_image(tmp_path / "new" / "a.png").alpha is not None


@pytest.mark.filterwarnings("ignore:os.fork")  # imageio's reader, used here alone
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_video_of_odd_size_reads_back(tmp_path, suffix):
    # Smooth frames that brighten: what compression must keep.
    across = np.linspace(0.2, 0.6, 35)[None, :, None] * np.ones((33, 1, 3))
    frames = [np.float32(across + 0.05 * i) for i in range(6)]
    path = tmp_path / f"a{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fork with JAX's threads alive
        media.write_video(path, iter(frames), fps=10)
    before = path.read_bytes()
    media.write_video(path, frames, fps=10)
    assert path.read_bytes() == before
    found = np.stack([frame[:33, :35, :3] for frame in imageio.mimread(path)]) / 255
    assert found.shape == (6, 33, 35, 3)
    assert np.abs(found - np.stack(frames)).mean() < 0.02
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_video_refuses_bad_frames(tmp_path):
    frame = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="no frames"):
        media.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="one shape"):
        media.write_video(tmp_path / "a.mp4", [frame, frame[:2]])
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        media.write_video(tmp_path / "a.avi", [frame])
    assert list(tmp_path.iterdir()) == []


def test_grid_keeps_each_image_exactly(rng):
    images = rng.random((2, 3, 5, 7, 3)).astype(np.float32)
    sheet = media.grid(images)
    assert sheet.shape == (2 * 5 + 2, 3 * 7 + 2 * 2, 3)
    np.testing.assert_array_equal(sheet[7:12, 18:25], images[1, 2])
    assert (sheet[5:7] == 1).all()
    captioned = media.grid(
        np.repeat(np.repeat(images, 9, 2), 9, 3), ["colour", "depth"], ["front", "left", "x" * 99]
    )
    left, top = captioned.shape[1] - 3 * 63 - 4, captioned.shape[0] - 2 * 45 - 2
    np.testing.assert_array_equal(captioned[top + 47 :, left : left + 63][::9, ::9], images[1, 0])
    assert captioned[:top].min() < 0.5 and captioned[:, :left].min() < 0.5  # there is ink
    assert captioned[:top, left + 63 : left + 65].min() == 1  # none between the columns
    with pytest.raises(ValueError, match="1 column captions for 3 columns"):
        media.grid(images, column_captions=["one"])


def test_color_map_is_monotonic_in_brightness():
    colors = media.color_map(np.linspace(-0.2, 1.2, 200))
    luma = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luma) >= 0).all() and luma[-1] - luma[0] > 0.6
    np.testing.assert_allclose(colors[0] * 255, [0x44, 0x01, 0x54], atol=1e-3)


def test_depth_shares_one_scale_and_leaves_the_rest_white():
    depth = np.array([[[1.0, 2.0]], [[3.0, np.inf]], [[-50.0, 2.0]]], np.float32)
    mask = np.array([[[1, 1]], [[1, 1]], [[0, 1]]], bool)
    colors = media.color_depth(depth, mask)
    np.testing.assert_array_equal(colors[0, 0, 0], media.color_map(np.ones(())))  # nearest
    np.testing.assert_array_equal(colors[1, 0, 0], media.color_map(np.zeros(())))  # farthest
    np.testing.assert_array_equal(colors[0, 0, 1], colors[2, 0, 1])
    assert (colors[1, 0, 1] == 1).all() and (colors[2, 0, 0] == 1).all()
    assert (media.color_depth(depth, np.zeros_like(mask)) == 1).all()
    assert np.isfinite(media.color_depth(np.full((1, 2, 2), 3.0, np.float32))).all()


def test_normals_are_coloured_over_white():
    normal = np.array([[[2.0, 0, 0], [0, 0, -1.0], [0, 0, 0]]], np.float32)
    np.testing.assert_allclose(
        media.color_normals(normal)[0], [[1, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 0.5]]
    )
    half = media.color_normals(normal, np.full((1, 3), 0.5, np.float32))
    np.testing.assert_allclose(half[0, 1], [0.75, 0.75, 0.5])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    atomic.write_json(path, {"a": 1})
    assert path.read_text() == '{\n  "a": 1\n}\n'
