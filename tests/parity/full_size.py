"""Every architecture at its full size against PyTorch, with random weights, one at a time.

make parity-full        or   python -m tests.parity.full_size --only=unet_sd1,vae --half

PyTorch builds the network, draws weights, computes and writes a folder; geojax loads the folder and
computes the same. Each network has a process of its own, so that its memory is free for the next.
A row: parameters; largest difference over largest value in float32; for what is tuned at test time
(the autoencoder's decoder, DPT), the error of the gradient; with --half, root mean square errors of
bfloat16, geojax's and PyTorch's; seconds of a forward pass, PyTorch's and geojax's; peak memory of
both together.

DPT's gradient is compared with PyTorch's in float64. It has millions of relus, and where rounding
takes one to the other side of its kink the slope is another: float32 itself is then off by more
than 1e-4, PyTorch's (which is printed beside) as much as geojax's, which may be off twice as far.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from geojax.models.clip_vision import CLIP
from geojax.models.depth_anything import DepthAnything
from geojax.models.dpt import DPT
from geojax.models.unet import UNet
from geojax.models.vae import VAE
from geojax.weights.folder import load_component, named_leaves
from geojax.weights.key_tables import KINDS, current_key, file_key, to_file
from tests.golden import cases
from tests.golden.make_golden import to_numpy, to_torch
from tests.golden.networks import parameter_count
from tests.parity.full_size_cases import FULL, TINY

SINGLE, HALF = 1e-4, 2e-2
DEPTH = (DPT, DepthAnything)
TUNED = (VAE, DPT)
Arrays = dict[str, np.ndarray]


def torch_network(module: Any) -> torch.nn.Module:
    """PyTorch's network of the same config, with weights whose every kind shows in the output."""
    name = KINDS[type(module).__name__].class_name
    fields = {k: v for k, v in module.config.to_dict().items() if k != "_class_name"}
    torch.manual_seed(0)
    if hasattr(diffusers, name):
        model = getattr(diffusers, name).from_config(fields)
    else:
        model = getattr(transformers, name)(getattr(transformers, name).config_class(**fields))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if isinstance(module, DEPTH):
                draw_depth(key, parameter)
                continue
            # Biases start at 0 and norms at 1, where a mix-up would not show.
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def draw_depth(key: str, parameter: torch.Tensor) -> None:
    """A depth model's parameter, of unit gain: the library's own draw gives an almost flat map."""
    if key in ("head.head.4.bias", "head.conv3.bias"):
        parameter.fill_(1.0)  # above the closing relu
    elif parameter.ndim == 1:
        parameter.add_(0.1 * torch.randn_like(parameter))
    elif key.endswith(("_token", "position_embeddings")):
        parameter.normal_()
    else:
        parameter.normal_(std=parameter[0].numel() ** -0.5)


def inputs(module: Any, side: int) -> Arrays:
    """Inputs by name; `side` is that of the latents."""
    config = module.config
    if isinstance(module, UNet):
        return {
            "sample": cases.noise("sample", 1, side, side, config.in_channels),
            "t": np.array([500], np.int32),
            "y": cases.noise("y", 1, 77, config.cross_attention_dim),
        }
    if isinstance(module, VAE):
        factor = 2 ** (len(config.block_out_channels) - 1)
        image = cases.noise("image", 1, side * factor // 2, side * factor // 2, 3)
        return {
            "image": image,
            "latent": cases.noise("latent", 1, side // 2, side // 2, config.latent_channels),
        }
    if isinstance(module, DEPTH):
        size = config.image_size if isinstance(module, DPT) else config.backbone_config.image_size
        return {"pixels": cases.noise("pixels", 1, size, size, 3)}
    text = config.text_config if isinstance(module, CLIP) else config
    ids = np.full((1, text.max_position_embeddings), text.eos_token_id, np.int32)
    words = np.random.default_rng(0).integers(0, text.eos_token_id - 1, 9)
    ids[0, :10] = [text.bos_token_id, *words]
    if not isinstance(module, CLIP):
        return {"ids": ids}
    size = config.vision_config.image_size
    return {"ids": ids, "pixels": cases.noise("pixels", 1, size, size, 3)}


def torch_outputs(module: Any, model: torch.nn.Module, given: Arrays) -> Callable[[], Arrays]:
    """A function that computes the outputs by name in PyTorch."""
    tensors = {
        k: to_torch(v)
        if v.ndim == 4
        else torch.from_numpy(v).to(torch.float32 if v.dtype == np.float32 else torch.long)
        for k, v in given.items()
    }

    def run() -> Arrays:
        if isinstance(module, UNet):
            return {
                "sample": to_numpy(
                    model(*(tensors[k] for k in ("sample", "t", "y"))).sample.float()
                )
            }
        if isinstance(module, VAE):
            mean = model.encode(tensors["image"]).latent_dist.mean
            return {
                "mean": to_numpy(mean.float()),
                "image": to_numpy(model.decode(tensors["latent"]).sample.float()),
            }
        if isinstance(module, DEPTH):
            return {"disparity": model(tensors["pixels"]).predicted_depth.float().numpy()}
        if isinstance(module, CLIP):
            found = model(input_ids=tensors["ids"], pixel_values=tensors["pixels"])
            embedded = {"text": found.text_embeds, "image": found.image_embeds}
            return {k: v.float().numpy() for k, v in embedded.items()}
        return {"state": model(tensors["ids"]).last_hidden_state.float().numpy()}

    return run


def our_outputs(module: Any, params: Any, given: Arrays) -> Callable[[], Arrays]:
    """A function that computes the same here, compiled."""
    arrays = {k: jnp.asarray(v) for k, v in given.items()}

    @jax.jit
    def run(params: Any, arrays: Any) -> dict[str, jax.Array]:
        variables = {"params": params}
        if isinstance(module, UNet):
            return {"sample": module.apply(variables, *(arrays[k] for k in ("sample", "t", "y")))}
        if isinstance(module, VAE):
            mean, _ = module.apply(variables, arrays["image"], method="encode")
            return {
                "mean": mean,
                "image": module.apply(variables, arrays["latent"], method="decode"),
            }
        if isinstance(module, DEPTH):
            return {"disparity": module.apply(variables, arrays["pixels"])}
        if isinstance(module, CLIP):
            match = module.apply(variables, arrays["ids"], arrays["pixels"])
            return {"text": match.text, "image": match.image}
        return {"state": module.apply(variables, arrays["ids"])}

    return lambda: {k: np.asarray(v, np.float32) for k, v in run(params, arrays).items()}


def torch_gradients(module: Any, model: Any, given: Arrays) -> Arrays:
    """PyTorch's gradient of <output, cotangent> by key, in its input ("latent") and its weights.

    The autoencoder's is that of the decoder. In the precision of the model.
    """
    dtype = next(model.parameters()).dtype
    x = to_torch(given["latent" if isinstance(module, VAE) else "pixels"]).to(dtype)
    x.requires_grad_()
    if isinstance(module, VAE):
        output = model.decode(x).sample
        cotangent = to_torch(cases.noise("cotangent", *given["image"].shape))
    else:
        output = model(x).predicted_depth
        cotangent = torch.from_numpy(cases.noise("cotangent", *output.shape))
    output.backward(cotangent.to(dtype))
    found = {"latent": to_numpy(x.grad).astype(np.float32)}
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            name = current_key(type(model).__name__, key) or key
            found[name] = parameter.grad.float().numpy().copy()
            parameter.grad = None
    return found


def our_gradients(module: Any, params: Any, given: Arrays) -> Arrays:
    """The same here, for every key there is."""
    method = "decode" if isinstance(module, VAE) else None
    name = "latent" if isinstance(module, VAE) else "pixels"

    @jax.jit
    def slopes(params: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> jax.Array:
            output = module.apply({"params": params}, x, method=method)
            return jnp.sum(output * jnp.asarray(cases.noise("cotangent", *output.shape)))

        return jax.grad(loss, argnums=(0, 1))(params, x)

    by_parameter, by_input = slopes(params, jnp.asarray(given[name]))
    found = {
        file_key(path): to_file(path, np.asarray(leaf))
        for path, leaf in named_leaves(by_parameter).items()
    }
    return {**found, "latent": np.asarray(by_input)}


def largest_error(found: Arrays, expected: Arrays) -> float:
    """The largest of max |found - expected| / max |expected| over the arrays."""
    return max(cases.relative_error(found[k], expected[k]) for k in expected)


def gradient_error(found: Arrays, expected: Arrays) -> float:
    """The same in norms, and no norm taken for less than a thousandth of the largest.

    (A key's bias moves no softmax: its gradient is rounding alone.)
    """
    norms = {k: float(np.linalg.norm(v)) for k, v in expected.items()}
    floor = 1e-3 * max(v for k, v in norms.items() if k != "latent")
    return max(
        float(np.linalg.norm(found[k] - expected[k])) / max(norms[k], floor) for k in expected
    )


def mean_error(found: Arrays, expected: Arrays) -> float:
    """The largest of the root mean square differences, relative."""
    return max(float(np.linalg.norm(found[k] - v) / np.linalg.norm(v)) for k, v in expected.items())


def timed(run: Callable[[], Arrays], times: int = 1) -> tuple[Arrays, float]:
    """Result, and the seconds of the fastest of `times` calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - start)
    return found, min(seconds)


def measure(name: str, *, tiny: bool = False, half: bool = False, side: int = 64) -> dict[str, Any]:
    """One row of the table."""
    module, count = (TINY if tiny else FULL)[name]
    row: dict[str, Any] = {"name": name}
    with tempfile.TemporaryDirectory() as folder:
        model = torch_network(module)
        given = inputs(module, side)
        run = torch_outputs(module, model, given)
        with torch.no_grad():
            expected, row["torch_seconds"] = timed(run, 2)
            if half:
                with torch.autocast("cpu", torch.bfloat16):
                    row["torch_half_error"] = mean_error(run(), expected)
        model.save_pretrained(folder)
        gradients = torch_gradients(module, model, given) if isinstance(module, TUNED) else None
        if isinstance(module, DPT):
            single, gradients = gradients, torch_gradients(module, model.double(), given)
            row["torch_gradient_error"] = gradient_error(single, gradients)
            del single
        del model, run
        gc.collect()
        start = time.perf_counter()
        params = load_component(folder, module)
        jax.block_until_ready(params)
        row["load_seconds"] = time.perf_counter() - start
        row["parameters"] = parameter_count(params)
        ours = our_outputs(module, params, given)
        _, row["first_call_seconds"] = timed(ours)
        found, row["seconds"] = timed(ours, 2)
        row["error"] = largest_error(found, expected)
        if gradients is not None:
            row["gradient_error"] = gradient_error(our_gradients(module, params, given), gradients)
        del params, ours
        gc.collect()
        if half:
            lower = type(module)(module.config, dtype=jnp.bfloat16)
            rounded = load_component(folder, module, dtype=jnp.bfloat16)
            row["half_error"] = mean_error(our_outputs(lower, rounded, given)(), expected)
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row["expected_parameters"] = count
    row["passed"] = (
        (count is None or row["parameters"] == count)
        and row["error"] <= SINGLE
        and row.get("gradient_error", 0.0) <= max(SINGLE, 2 * row.get("torch_gradient_error", 0.0))
        and row.get("half_error", 0.0) <= HALF
    )
    return row


def line(row: dict[str, Any]) -> str:
    """A row as text."""

    def number(key: str, form: str) -> str:
        return form.format(row[key]) if key in row else ""

    return (
        f"{row['name']:16s} {row['parameters']:>13,d} {row['error']:9.1e} "
        f"{number('gradient_error', '{:.1e}'):>9s} {number('torch_gradient_error', '{:.1e}'):>9s} "
        f"{number('half_error', '{:.1e}'):>9s} "
        f"{number('torch_half_error', '{:.1e}'):>9s} {row['torch_seconds']:8.2f} "
        f"{row['seconds']:8.2f} {row['peak_gb']:6.1f}  {'ok' if row['passed'] else 'FAILED'}"
    )


def main() -> int:
    """Print the table, write it as JSON; the number of rows that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(FULL), help="names, separated by commas")
    parser.add_argument("--half", action="store_true", help="bfloat16 too")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the harness")
    parser.add_argument("--side", type=int, default=64, help="of the latents (the VAE's are half)")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = [name for name in names if name not in FULL]
    if unknown:
        parser.error(f"unknown {unknown}, choose from {', '.join(FULL)}")
    print(
        f"{'network':16s} {'parameters':>13s} {'f32':>9s} {'gradient':>9s} {'torch gr.':>9s} "
        f"{'bf16':>9s} "
        f"{'torch bf16':>9s} {'torch s':>8s} {'s':>8s} {'GB':>6s}",
        flush=True,
    )
    rows = []
    context = multiprocessing.get_context("spawn")
    for name in names:
        with context.Pool(1) as pool:
            settings = {"tiny": options.tiny, "half": options.half, "side": options.side}
            rows.append(pool.apply(measure, (name,), settings))
        print(line(rows[-1]), flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(rows, indent=2) + "\n")
    return sum(not row["passed"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
