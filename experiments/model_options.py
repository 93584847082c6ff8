"""Which files of a model are read, and in which type: flags and fields as arguments of its loader.

revision         of a hub id: a branch, tag or commit
variant          "fp16" reads `*.fp16.safetensors`
dtype            float32, bfloat16 or float16: of parameters and computation
lora             adaptations to merge, "FILE[:SCALE][,FILE[:SCALE]...]", the scale 1 where it is not
                 said
tokenizer        folder of the tokenizer; a single original file has none of its own
prediction_type  of a single original file: "epsilon" or "v_prediction"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

NAMES = ("revision", "variant", "dtype", "lora", "tokenizer", "prediction_type")
DTYPES = ("float32", "bfloat16", "float16")


def model_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of NAMES that are set in `fields`, as arguments of `load_stable_diffusion`.

    Raises:
      ValueError: an unknown type, or a scale of an adaptation that is no number.
      FileNotFoundError: the file of an adaptation is not there.
    """
    options = {name: fields[name] for name in NAMES if fields.get(name) is not None}
    if "dtype" in options:
        if options["dtype"] not in DTYPES:
            raise ValueError(f"dtype={options['dtype']!r} is not one of {', '.join(DTYPES)}")
        options["dtype"] = jnp.dtype(options["dtype"])
    if "lora" in options:
        options["lora"] = parse_lora(options["lora"])
    return options


def parse_lora(text: str) -> tuple[tuple[Path, float], ...]:
    """ "a.safetensors:0.8,b.safetensors" -> ((a, 0.8), (b, 1)).

    Raises:
      ValueError: an empty name, or a scale that is not a number.
      FileNotFoundError: no such file.
    """
    found = []
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        try:
            scale = float(number) if colon else 1.0
        except ValueError:
            raise ValueError(f"lora: the scale {number!r} of {name} is not a number") from None
        if not name:
            raise ValueError(f"lora={text!r}: expected FILE[:SCALE][,FILE[:SCALE]...]")
        if not Path(name).is_file():
            raise FileNotFoundError(f"lora: there is no file {name}")
        found.append((Path(name), scale))
    return tuple(found)
