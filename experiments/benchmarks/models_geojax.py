"""geojax's side of the comparison of models: one task, served to the parent.

python -m experiments.benchmarks.models_geojax TASK FOLDER INPUTS STEPS GUIDANCE PROMPT
"""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.worker import serve
from geojax.diffusion.samplers import sample_ddim
from geojax.methods.image_to_image import prompted
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.priors.stable_diffusion import load_stable_diffusion
from geojax.weights.folder import load_component, load_config

Run = Callable[[], np.ndarray]


def unet(folder: Path, inputs: dict[str, np.ndarray]) -> Run:
    """A forward pass of the UNet."""
    network = UNet(UNetConfig.from_dict(load_config(folder / "unet")))
    params = load_component(folder / "unet", network)
    given = [jnp.asarray(inputs[name]) for name in ("sample", "t", "condition")]
    forward = jax.jit(lambda params, *given: network.apply({"params": params}, *given))
    program = forward.lower(params, *given).compile()
    return lambda: np.asarray(program(params, *given))


def encode(folder: Path, inputs: dict[str, np.ndarray]) -> Run:
    """The gradient of <cotangent, mean of the encoding> in the image."""
    network = VAE(VAEConfig.from_dict(load_config(folder / "vae")))
    params = load_component(folder / "vae", network)
    given = [jnp.asarray(inputs[name]) for name in ("image", "cotangent")]

    def loss(image: jax.Array, cotangent: jax.Array, params: object) -> jax.Array:
        mean, _ = network.apply({"params": params}, image, method="encode")
        return jnp.sum(mean * cotangent)

    program = jax.jit(jax.grad(loss)).lower(*given, params).compile()
    return lambda: np.asarray(program(*given, params))


def generate(
    folder: Path, inputs: dict[str, np.ndarray], steps: int, guidance: float, prompt: str
) -> Run:
    """A picture from a prompt: text encoder, DDIM with guidance, decoder."""
    prior = load_stable_diffusion(folder)
    z = jnp.asarray(inputs["noise"])

    def paint(params: object, z: jax.Array, condition: jax.Array) -> jax.Array:
        denoise = prompted(prior, params, condition[1:], condition[:1], guidance)
        return prior.decode(params, sample_ddim(denoise, prior.schedule, z, steps))

    program = jax.jit(paint).lower(prior.params, z, prior.embed(["", prompt])).compile()
    return lambda: np.asarray(program(prior.params, z, prior.embed(["", prompt])))


def main(task: str, folder: str, file: str, steps: str, guidance: str, prompt: str) -> None:
    """Serve one task."""
    inputs = dict(np.load(file))

    def make() -> Run:
        if task == "unet":
            return unet(Path(folder), inputs)
        if task == "encode":
            return encode(Path(folder), inputs)
        return generate(Path(folder), inputs, int(steps), float(guidance), prompt)

    serve(make)


if __name__ == "__main__":
    main(*sys.argv[1:])
