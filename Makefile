# Everything lives in .venv and is installed once; `touch pyproject.toml` installs again.
# Choose another Python with `make PYTHON=python3.12 ...`, a prompt with `make demo PROMPT="..."`.

.PHONY: install torch demo walk test parity parity-full lint format bench clean
.DELETE_ON_ERROR:

# The first Python of at least 3.11.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
# Compiling to bytecode what is never imported takes longer than the rest of the install.
PIP := $(RUN) -m pip install --quiet --no-compile --disable-pip-version-check
# Compiling JAX's sources anew costs every process 10 seconds.
unexport PYTHONDONTWRITEBYTECODE
PROMPT ?= a red mug
OUT ?= runs/demo
SCENE ?= a corridor with brick walls and a wooden floor
WALK ?= runs/walk

install: .venv/dev.stamp

torch: .venv/torch.stamp

demo: .venv/core.stamp
	$(RUN) -m experiments.distill --config=configs/distill/worlds.py --prompt="$(PROMPT)" --out=$(OUT)

walk: .venv/core.stamp
	$(RUN) -m experiments.walk --config=configs/walk/worlds.py --prompt="$(SCENE)" --frames=24 --out=$(WALK)

test: .venv/dev.stamp
	$(RUN) -m pytest -m "not parity" -n 2

# XLA as users have it; tests/conftest.py would hurry it.
parity: .venv/torch.stamp
	XLA_FLAGS="$(XLA_FLAGS)" OMP_NUM_THREADS=1 $(RUN) -m pytest -m parity -n 2

# Every architecture at its full size, random weights, one at a time: minutes each on two cores.
parity-full: .venv/torch.stamp
	$(RUN) -m tests.parity.full_size --half --out=runs/parity_full.json

lint: .venv/dev.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/dev.stamp
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/torch.stamp
	$(RUN) -m experiments.benchmark --suite=all

# Leaves runs/ alone.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "geojax needs Python 3.11 or newer, none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# What runs need; the stamps of more imply it.
.venv/core.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch .venv/core.stamp $@

.venv/torch.stamp: pyproject.toml .venv/dev.stamp
	$(PIP) --editable '.[dev,torch]'
	touch $@
