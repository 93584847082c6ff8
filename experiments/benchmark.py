"""How long things take, and how much memory: tables on the screen, and JSON.

python -m experiments.benchmark --suite=all --json=runs/benchmark.json [--config.FIELD=...]
python -m experiments.benchmark --suite=models [--models_steps=2 --models_folder=...]

distill    seconds of a distillation step: render, encode, denoise, backward, whole
field      the hash-grid field forward and backward, against a plain PyTorch version of it
rays       a picture forward and backward at 64 to 512 px: seconds and memory
rasterizer half a million faces at 512 px, against Embree casting the same rays
models     SD 1.5's UNet, encoder and a generation against PyTorch diffusers: seconds and memory;
           by name alone, not with "all": it takes 12 GB of memory and, on a CPU, half an hour
"""

import os
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags

from experiments.benchmarks import distill_step, field, models, rasterizer, rays
from experiments.errors import reported
from geojax.io.atomic import write_json

FLAGS = flags.FLAGS
SUITES = {"distill": distill_step, "field": field, "rays": rays, "rasterizer": rasterizer}


def define_flags() -> None:
    """The flags of this binary."""
    flags.DEFINE_enum("suite", "all", ["all", *SUITES, "models"], "What to measure.")
    config_flags.DEFINE_config_file(
        "config", "configs/distill/worlds.py", "Recipe whose sizes are measured.", lock_config=True
    )
    flags.DEFINE_integer("repeats", 5, "Of which the median is taken.", lower_bound=1)
    flags.DEFINE_string("json", None, "File to write the figures to.")
    flags.DEFINE_list("models_tasks", list(models.TASKS), "What to measure of the models.")
    flags.DEFINE_integer("models_steps", 20, "Steps of the generation.", lower_bound=1)
    flags.DEFINE_string(
        "models_folder", None, "Model to measure; SD 1.5 with random weights if not given."
    )


def run_suites(
    suite: str, config: Any, repeats: int, model_options: models.Options | None = None
) -> dict[str, Any]:
    """Measure one suite or "all", print the tables, return the figures by suite."""
    figures: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "config": config.to_dict(),
    }
    for name, module in SUITES.items():
        if suite in ("all", name):
            figures[name] = module.measure(config, repeats)
            print(f"\n{module.title(figures[name])}\n\n{module.table(figures[name])}\n", flush=True)
    if suite == "models":
        found = figures["models"] = models.measure(model_options or models.Options(), repeats)
        print(f"\n{models.title(found)}\n\n{models.table(found)}\n", flush=True)
    return figures


def main(argv: list[str]) -> None:
    """Check the flags, measure."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is a flag")
    options = models.Options(
        folder=FLAGS.models_folder,
        tasks=tuple(FLAGS.models_tasks),
        steps=FLAGS.models_steps,
    )
    figures = run_suites(FLAGS.suite, FLAGS.config, FLAGS.repeats, options)
    if FLAGS.json:
        write_json(FLAGS.json, figures)


if __name__ == "__main__":
    with reported("benchmark"):
        define_flags()
        app.run(main)
