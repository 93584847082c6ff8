"""Stable Diffusion 1.x and 2.x, or any model in the same folder layout, as a prior.

Symbols: x image in [0, 1]; z latent; f the autoencoder's scaling factor (0.18215).
    (1) encode    z = f mean(E(2 x - 1))
    (2) decode    x = D(z / f) / 2 + 1/2
    (3) denoise   eps from the network's eps, v or x0 (`prediction_type` of the scheduler's file)

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022). (1) takes
the mean of the posterior, not a sample: its variance is small, and a gradient is then exact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from absl import logging
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from geojax.diffusion.parameterization import Prediction, to_eps
from geojax.diffusion.schedule import Schedule, from_config
from geojax.models.clip import CLIPText, CLIPTextConfig
from geojax.models.unet import UNet, UNetConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.priors.model_files import Lora, open_model, read_scheduler
from geojax.priors.prior import (
    Codec,
    Condition,
    Denoise,
    Image,
    Latent,
    Prior,
    pixel_decode,
    pixel_encode,
)
from geojax.priors.text_condition import TextCondition, check_vocabulary

PREDICTIONS = ("epsilon", "v_prediction", "sample")
# What a UNet is shown beside the noisy latent, as its number of channels tells.
TEXT_TO_IMAGE = "a text-to-image model"
INPAINTING = "an inpainting model"
DEPTH = "a depth model"


class Parts(NamedTuple):
    """A folder of Stable Diffusion's layout, loaded and found to fit together.

    Attributes:
      params: {"unet": ..., "vae": ...}; without "vae" for a model on pixels.
      encode, decode, embed: as of a `Prior`.
      unet: the network, `apply` to be called with params["unet"].
      schedule, prediction: what its time steps mean, and its output.
      image_size, latent_size, latent_channels: as of a `Prior`.
    """

    params: Any
    encode: Codec
    decode: Codec
    embed: TextCondition
    unet: UNet
    schedule: Schedule
    prediction: Prediction
    image_size: int
    latent_size: int
    latent_channels: int


def load_stable_diffusion(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    lora: Lora = (),
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
    implementation: str | None = None,
) -> Prior:
    """The prior in a folder of Stable Diffusion's layout, or in one original file.

    A folder whose model_index.json has no `vae` is a model on pixels: `encode` and `decode` are
    then only the change of range.

    Args:
      path: a folder, a hub id such as "owner/name", or a `.safetensors` file with the names of the
        original code.
      dtype: of parameters and computation; bfloat16 halves the memory. Latents and images stay in
        the type they are given in. In float16 the autoencoder stays in float32 (it overflows).
      tokenizer: folder to take the tokenizer from, in place of the model's own; a single file has
        none, and looks for one beside it.
      prediction_type: of a single file, "epsilon" (also where it is None) or "v_prediction", which
        the models of 2.x with 768 pixels need: nothing in the file tells them from the others.
      lora: (file, scale) of adaptations to merge into the weights, in kohya's or diffusers' names.
      revision: of the hub's repository.
      variant: "fp16" to read `*.fp16.safetensors`.
      local_files_only: do not ask the network for a hub id.
      implementation: of the UNet's attention, "cudnn" on a GPU in half precision.

    Returns:
      The prior; its `params` have the keys "unet" and, for latents, "vae".

    Raises:
      FileNotFoundError: the folder or a part of it is absent; says what was looked for.
      ValueError: another kind of folder, an inpainting or depth model (`inpainting.py` loads them),
        an unsupported config, parts that do not fit together, or damaged weights.
    """
    parts = load_parts(
        path,
        dtype=dtype,
        tokenizer=tokenizer,
        prediction_type=prediction_type,
        lora=lora,
        revision=revision,
        variant=variant,
        local_files_only=local_files_only,
        implementation=implementation,
    )
    return Prior(
        params=parts.params,
        encode=parts.encode,
        decode=parts.decode,
        embed=parts.embed,
        denoise=network_denoise(parts.unet, parts.schedule, parts.prediction),
        schedule=parts.schedule,
        image_size=parts.image_size,
        latent_size=parts.latent_size,
        latent_channels=parts.latent_channels,
    )


def load_parts(
    path: str | Path,
    *,
    wanted: str = TEXT_TO_IMAGE,
    dtype: DTypeLike = jnp.float32,
    implementation: str | None = None,
    **files: Any,
) -> Parts:
    """What every prior of Stable Diffusion's layout is made of.

    Args:
      path: as in `load_stable_diffusion`, like the other arguments.
      wanted: the kind of UNet: `TEXT_TO_IMAGE`, `INPAINTING` or `DEPTH`.
      dtype, implementation: as there.
      files: arguments of `open_model`, as there.

    Raises:
      FileNotFoundError: the folder or a part of it is absent; says what was looked for.
      ValueError: another kind of folder, a UNet of another kind, an unsupported config, parts that
        do not fit together, or damaged weights.
    """
    model = open_model(path, **files)
    schedule, prediction = parse_schedule(model.scheduler, model.path)
    # Configs are read and compared before the first gigabyte of weights.
    unet_config = UNetConfig.from_dict(model.configs["unet"])
    text_config = CLIPTextConfig.from_dict(model.configs["text_encoder"])
    vae_config = None
    if "vae" in model.configs:
        vae_config = VAEConfig.from_dict(model.configs["vae"])
    channels = vae_config.latent_channels if vae_config else 3
    size = check_fit(model.path, unet_config, text_config, channels, wanted)

    text = CLIPText(text_config, dtype=dtype)
    unet = UNet(unet_config, dtype=dtype, implementation=implementation)
    networks: dict[str, tuple[Any, DTypeLike]] = {"text_encoder": (text, dtype)}
    networks["unet"] = unet, dtype
    codec: tuple[Codec, Codec] = (pixel_encode, pixel_decode)
    factor = 1
    if vae_config is not None:
        vae_dtype = jnp.float32 if jnp.dtype(dtype) == jnp.float16 else dtype
        vae = VAE(vae_config, dtype=vae_dtype)
        networks["vae"] = vae, vae_dtype
        codec = vae_codec(vae)
        factor = 2 ** (len(vae_config.block_out_channels) - 1)
    check_vocabulary(model.tokenizer, text_config.vocab_size)
    params = model.load(networks)
    embed = TextCondition(model.tokenizer, text, params.pop("text_encoder"))
    return Parts(
        params,
        *codec,
        embed,
        unet,
        schedule,
        prediction,
        image_size=size * factor,
        latent_size=size,
        latent_channels=channels,
    )


def load_schedule(folder: Path) -> tuple[Schedule, Prediction]:
    """Noise schedule and `prediction_type` of scheduler_config.json.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a schedule or a prediction type that is not supported.
    """
    return parse_schedule(read_scheduler(folder), folder)


def parse_schedule(config: Mapping[str, Any], path: Path) -> tuple[Schedule, Prediction]:
    """The same of the fields; `path` is named in messages.

    Raises:
      ValueError: as `load_schedule`.
    """
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"{path}: prediction_type={prediction!r} is not one of {PREDICTIONS}")
    ours = {"timestep_spacing": "leading", "clip_sample": False, "thresholding": False}
    other = {name: config[name] for name in ours if config.get(name, ours[name]) != ours[name]}
    if other:
        logging.warning(
            "%s asks for %s when a picture is sampled; the samplers here do as with %s "
            "(distillation does not depend on it)",
            path,
            ", ".join(f"{name}={value!r}" for name, value in other.items()),
            ", ".join(f"{name}={ours[name]!r}" for name in other),
        )
    return from_config(dict(config)), prediction


def check_fit(
    folder: Path,
    unet: UNetConfig,
    text: CLIPTextConfig,
    channels: int,
    wanted: str = TEXT_TO_IMAGE,
) -> int:
    """The UNet's `sample_size`, when its config fits the other parts of the folder.

    Args:
      folder: named in messages.
      unet, text: configs.
      channels: of the latents.
      wanted: `TEXT_TO_IMAGE` takes them alone, `INPAINTING` a mask and as many again, `DEPTH` one.

    Raises:
      ValueError: naming the two numbers that differ.
    """
    takes = {TEXT_TO_IMAGE: channels, DEPTH: channels + 1, INPAINTING: 2 * channels + 1}
    if unet.in_channels != takes[wanted]:
        found = "".join(f": {kind}" for kind, n in takes.items() if n == unet.in_channels)
        raise ValueError(
            f"{folder / 'unet'} takes {unet.in_channels} channels{found}; expected {wanted}, which "
            f"takes {takes[wanted]} ({channels} are its "
            f"{'autoencoder' if channels != 3 else 'image'}'s)"
        )
    if unet.out_channels != channels:
        raise ValueError(f"{folder / 'unet'} gives {unet.out_channels} channels, not {channels}")
    if unet.cross_attention_dim != text.hidden_size:
        raise ValueError(
            f"{folder}: the UNet attends to a condition {unet.cross_attention_dim} wide, the text "
            f"encoder's is {text.hidden_size}"
        )
    if not isinstance(unet.sample_size, int):
        raise ValueError(f"{folder / 'unet'}: sample_size={unet.sample_size} must be one integer")
    return unet.sample_size


def network_denoise(network: Any, schedule: Schedule, prediction: Prediction) -> Denoise:
    """Equation (3), of parameters {"unet": ...}; `network.apply` as that of a UNet."""

    def denoise(params: Any, z: Latent, t: Int[Array, "B"], condition: Condition) -> Latent:
        output = network.apply({"params": params["unet"]}, z, t, condition)
        return to_eps(schedule, z, output, t, prediction)

    return denoise


def vae_codec(vae: VAE) -> tuple[Codec, Codec]:
    """Equations (1) and (2), of parameters {"vae": ...}."""
    factor = vae.config.scaling_factor

    def encode(params: Any, image: Image) -> Latent:
        mean, _ = vae.apply({"params": params["vae"]}, 2.0 * image - 1.0, method="encode")
        return factor * mean

    def decode(params: Any, latent: Latent) -> Image:
        image = vae.apply({"params": params["vae"]}, latent / factor, method="decode")
        return jnp.clip(0.5 * image + 0.5, 0.0, 1.0)

    return encode, decode


def decoder_of(params: Any) -> Any:
    """The autoencoder's decoder out of a prior's parameters, to be tuned apart.

    Raises:
      ValueError: a model on pixels, which has none.
    """
    if "vae" not in params:
        raise ValueError("a model on pixels has no autoencoder, and so no decoder to tune")
    return params["vae"]["decoder"]


def with_decoder(params: Any, decoder: Any) -> Any:
    """A prior's parameters with another decoder."""
    return {**params, "vae": {**params["vae"], "decoder": decoder}}
