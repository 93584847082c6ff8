"""What every test runs under: strict JAX, checked shapes, fixed seeds, few examples.

Mixed dtypes and ranks raise instead of being promoted. jaxtyping and beartype check the shape and
dtype of every annotated argument and result in geojax: the hook must come before the first import.
"""

import os
from pathlib import Path

# Before JAX is imported. Compiled programs are kept between runs of the tests, small ones too: each
# binary that the tests run needs hundreds.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tests compile much and compute little: so XLA takes a third of the time. `make parity` sets none
# of these, and checks what users run.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_use_xnnpack=false",
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The tests look at no hub: what they need is in the repository.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# "Tower": an int is a float, as everywhere in Python's typing.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook("geojax", CHECKER)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A first example compiles, so no deadline; derandomized, so that a failure repeats.
hypothesis.settings.register_profile(
    "geojax", deadline=None, max_examples=20, derandomize=True, database=None
)
hypothesis.settings.load_profile("geojax")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
