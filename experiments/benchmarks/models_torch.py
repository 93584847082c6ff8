"""PyTorch diffusers' side of the comparison of models, in float32: one task, served to the parent.

python -m experiments.benchmarks.models_torch TASK FOLDER INPUTS STEPS GUIDANCE PROMPT

Arrays come and go with channels last, as in geojax.
"""

import os
import sys
from collections.abc import Callable

import diffusers
import numpy as np
import torch

from experiments.benchmarks.worker import serve

Run = Callable[[], np.ndarray]


def channels_first(array: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] to [B, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    """[B, C, H, W] to [B, H, W, C]."""
    return tensor.permute(0, 2, 3, 1).numpy()


def unet(folder: str, inputs: dict[str, np.ndarray]) -> Run:
    """A forward pass of the UNet."""
    model = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()
    sample = channels_first(inputs["sample"])
    t, condition = (torch.from_numpy(inputs[name]) for name in ("t", "condition"))

    @torch.no_grad()
    def run() -> np.ndarray:
        return channels_last(model(sample, t, condition).sample)

    return run


def encode(folder: str, inputs: dict[str, np.ndarray]) -> Run:
    """The gradient of <cotangent, mean of the encoding> in the image."""
    model = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    model.requires_grad_(False)
    image, cotangent = (channels_first(inputs[name]) for name in ("image", "cotangent"))
    image.requires_grad_()

    def run() -> np.ndarray:
        loss = (model.encode(image).latent_dist.mean * cotangent).sum()
        return channels_last(torch.autograd.grad(loss, image)[0])

    return run


def generate(
    folder: str, inputs: dict[str, np.ndarray], steps: int, guidance: float, prompt: str
) -> Run:
    """A picture from a prompt: text encoder, DDIM with guidance, decoder."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise = channels_first(inputs["noise"])

    def run() -> np.ndarray:
        return pipeline(
            prompt,
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=noise,
            output_type="np",
        ).images

    return run


def main(task: str, folder: str, file: str, steps: str, guidance: str, prompt: str) -> None:
    """Serve one task."""
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
    inputs = dict(np.load(file))

    def make() -> Run:
        if task == "unet":
            return unet(folder, inputs)
        if task == "encode":
            return encode(folder, inputs)
        return generate(folder, inputs, int(steps), float(guidance), prompt)

    serve(make)


if __name__ == "__main__":
    main(*sys.argv[1:])
