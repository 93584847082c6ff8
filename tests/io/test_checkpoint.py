"""Checkpoints: round trips, and what happens to a folder that was killed, cut or bit-flipped."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging as absl_logging

from geojax.io.checkpoint import Checkpointer, DamagedStepError


class State(NamedTuple):
    params: dict
    opt_state: tuple
    grid: np.ndarray
    key: jax.Array
    step: int


def make_state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "a.b": {"kernel": jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)},
        "empty": jnp.zeros((0, 4), jnp.float32),
        "half": [jnp.asarray(rng.normal(size=5), jnp.bfloat16), jnp.int32(seed)],
    }
    opt_state = optax.adam(1e-3).init(params["a.b"])
    # Large: orbax checksums what is small enough to lie in its index, and nothing else.
    grid = rng.random((200, 200))
    return State(params, opt_state, grid, jax.random.key(seed), seed)


def assert_same(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            assert x.dtype == y.dtype
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with steps 1, 2 and 3, to be copied and never written."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpointer = Checkpointer(folder)
    for step in (1, 2, 3):
        checkpointer.save(step, make_state(step), {"seconds": 0.5 * step})
    checkpointer.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


@pytest.fixture
def warnings(caplog):
    """What absl logged: it does not propagate to pytest's handler by itself."""
    logger = absl_logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_round_trip_of_every_kind_of_leaf(folder):
    checkpointer = Checkpointer(folder)
    assert checkpointer.latest_step() == 3
    found = checkpointer.load(make_state(0))
    assert (found.step, found.metadata) == (3, {"seconds": 1.5})
    assert_same(found.tree, make_state(3))
    assert_same(checkpointer.load(make_state(0), step=2).tree, make_state(2))
    # Random numbers go on where they were.
    again, fresh = found.tree.key, jax.random.key(3)
    assert jax.random.normal(again) == jax.random.normal(fresh)


def test_abstract_example_and_other_key_implementations(tmp_path):
    tree = {"keys": jax.random.split(jax.random.key(1, impl="rbg"), 3), "x": jnp.ones(2)}
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(0, tree)
    assert_same(checkpointer.restore(jax.eval_shape(lambda: tree)), tree)
    with pytest.raises(ValueError, match=r"key<fry>\[3\], found key<rbg>\[3\]"):
        checkpointer.restore({**tree, "keys": jax.random.split(jax.random.key(0), 3)})


def test_what_changes_after_save_does_not_change_the_checkpoint(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    step = jax.jit(lambda x: x + jnp.float32(1), donate_argnums=0)
    tree = {"device": jnp.zeros(2_000_000, jnp.float32), "host": np.zeros(2_000_000, np.float32)}
    checkpointer.save(0, tree)
    tree["host"] += 1
    tree["device"] = step(tree["device"])
    found = checkpointer.restore(tree)
    assert not found["device"].any() and not found["host"].any()


def test_only_the_last_steps_are_kept(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2)
    for step in range(4):
        checkpointer.save(step, {"x": np.full(3, step)})
    checkpointer.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
    with pytest.raises(ValueError, match="got 1"):
        Checkpointer(tmp_path, keep=1)


def test_no_step_is_not_found_and_a_sound_step_is_not_overwritten(folder, tmp_path):
    empty = Checkpointer(tmp_path / "empty")
    assert empty.latest_step() is None
    with pytest.raises(FileNotFoundError, match="empty"):
        empty.restore(make_state())
    checkpointer = Checkpointer(folder)
    with pytest.raises(FileNotFoundError, match="step 7"):
        checkpointer.load(make_state(), step=7)
    with pytest.raises(ValueError, match="step 3 is in"):
        checkpointer.save(3, make_state())
    with pytest.raises(ValueError, match="no non-empty array"):
        checkpointer.save(4, {})


def test_another_structure_lists_every_difference(folder):
    other = make_state()
    other.params["half"][0] = jnp.zeros(6, jnp.bfloat16)
    other.params["half"][1] = jnp.float32(0)
    other.params["new"] = jnp.zeros(2)
    del other.params["empty"]
    with pytest.raises(ValueError) as error:
        Checkpointer(folder).restore(other)
    text = str(error.value)
    assert "expected bfloat16[6], found bfloat16[5]" in text
    assert "expected float32[], found int32[]" in text
    assert "['new']: expected, not in the checkpoint" in text
    assert "['empty']: in the checkpoint, not expected" in text


def files_of(step: Path) -> list[Path]:
    return sorted(p for p in step.rglob("*") if p.is_file() and p.stat().st_size)


# After the first unreadable array the reads of the others are dropped with their event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_flipped_bit_is_harmless_or_falls_back(saved, folder):
    """Every file of the newest step, a few bits each: never a wrong value, never another error."""
    rng = np.random.default_rng(0)
    expected = {2: make_state(2), 3: make_state(3)}
    fell_back = 0
    checkpointer = Checkpointer(folder)
    for file in files_of(folder / "3"):
        whole = file.read_bytes()
        for position in rng.integers(0, len(whole), 8 if len(whole) > 100_000 else 2):
            broken = bytearray(whole)
            broken[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(broken)
            found = checkpointer.load(expected[2])
            assert_same(found.tree, expected[found.step])
            fell_back += found.step == 2
        file.write_bytes(whole)
    assert fell_back >= 8  # at least the arrays and the manifest must have noticed


@pytest.mark.parametrize("damage", ["truncated", "empty folder", "no arrays"])
def test_damage_falls_back_with_a_named_cause(folder, warnings, damage):
    if damage == "truncated":
        file = max(files_of(folder / "3" / "state"), key=lambda p: p.stat().st_size)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "empty folder":
        shutil.rmtree(folder / "3")
        (folder / "3").mkdir()
    else:
        shutil.rmtree(folder / "3" / "state")
    checkpointer = Checkpointer(folder)
    assert checkpointer.latest_step() == (3 if damage == "truncated" else 2)
    assert checkpointer.load(make_state()).step == 2
    assert any("step 3" in message for message in warnings.messages)
    # Going on from step 2 the run writes step 3 anew; the damaged one is kept aside.
    checkpointer.save(3, make_state(30))
    checkpointer.close()
    assert Checkpointer(folder).restore(make_state()).step == 30
    assert (folder / "damaged" / "3").is_dir()


def test_nothing_sound_is_an_error_that_names_each_step(folder):
    for step in (1, 2, 3):
        (folder / str(step) / "manifest" / "metadata").write_text("{")
    checkpointer = Checkpointer(folder)
    assert checkpointer.latest_step() is None
    with pytest.raises(DamagedStepError, match=r"step 3.*step 2.*step 1"):
        checkpointer.restore(make_state())


ENDLESS_SAVES = """
import sys
import numpy as np
from geojax.io.checkpoint import Checkpointer
checkpointer = Checkpointer(sys.argv[1])
for step in range(100_000):
    checkpointer.save(step, {f"x{i}": np.full(200_000, step, np.float32) for i in range(8)})
    print(step, flush=True)
"""


def test_kill_in_the_middle_of_a_save_leaves_a_usable_folder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_SAVES, tmp_path], stdout=subprocess.PIPE, text=True
    )
    for _ in range(4):
        last = int(process.stdout.readline())
    time.sleep(0.02)  # the save of step 3 or 4 is under way: the one before is whole
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    checkpointer = Checkpointer(tmp_path)
    found = checkpointer.load({f"x{i}": np.zeros(200_000, np.float32) for i in range(8)})
    assert found.step >= last - 1
    assert all((array == found.step).all() for array in found.tree.values())
    checkpointer.save(found.step + 1, found.tree)
    checkpointer.close()
    assert not list(tmp_path.glob("*tmp*"))
