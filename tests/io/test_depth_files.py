import numpy as np
import pytest
from PIL import Image

from geojax.io.depth_files import read_depth, write_depth


@pytest.mark.parametrize("farthest", [8.0, 900.0])
def test_a_round_trip_is_within_half_a_unit(rng, tmp_path, farthest):
    depth = rng.uniform(0.01, farthest, (9, 13)).astype(np.float32)
    depth[0, :4] = 0.0, np.nan, np.inf, 1e-6
    unit = write_depth(tmp_path / "d.png", depth)
    assert unit == (0.001 if farthest < 65 else pytest.approx(float(np.nanmax(depth[1:])) / 65535))
    found = read_depth(tmp_path / "d.png")
    assert not found[0, :3].any() and 0 < found[0, 3] <= unit * 1.001
    np.testing.assert_allclose(found[1:], depth[1:], atol=0.501 * unit)
    write_depth(tmp_path / "d.npz", depth)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npz")[1:], depth[1:])


def test_a_plain_png_holds_millimetres(tmp_path):
    Image.fromarray(np.array([[0, 1500]], np.uint16)).save(tmp_path / "d.png")
    np.testing.assert_allclose(read_depth(tmp_path / "d.png"), [[0.0, 1.5]])


def test_what_is_no_depth_map_is_refused(tmp_path):
    ones = np.ones((3, 4), np.float32)
    for depth, message in ((-ones, "12 depths"), (0 * ones, "no pixel"), (ones[0], "shape")):
        with pytest.raises(ValueError, match=message):
            write_depth(tmp_path / "d.png", depth)
    with pytest.raises(ValueError, match="ending in"):
        write_depth(tmp_path / "d.tif", ones)
    with pytest.raises(FileNotFoundError):
        read_depth(tmp_path / "d.png")
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "c.png")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    np.savez(tmp_path / "other.npz", x=ones)
    for name in ("c.png", "broken.npz", "other.npz"):
        with pytest.raises(ValueError, match="is not a depth map"):
            read_depth(tmp_path / name)
