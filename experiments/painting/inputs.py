"""What paint.py reads: pictures, masks, depth maps and models; what is of no use is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from geojax.io.media import read_image
from geojax.methods.inpainting import check_mask
from geojax.priors.depth import ESTIMATOR, load_depth
from geojax.priors.inpainting import ConditionedPrior, load_depth_conditioned, load_inpainting
from geojax.priors.model_files import open_model
from geojax.priors.prior import Prior
from geojax.priors.stable_diffusion import load_stable_diffusion

ASSETS = Path("geojax/assets")
EMBEDDED = ASSETS / "worlds-64"
EMBEDDED_INPAINTING = ASSETS / "worlds-64-inpainting"
PAINTING_TASKS = ("inpaint", "outpaint", "zoom")


def default_model(task: str) -> str:
    """The embedded model of a task.

    Raises:
      FileNotFoundError: there is none; says what may be named in its place.
    """
    if task == "depth_to_image":
        raise FileNotFoundError(
            "no embedded model is conditioned on depth: name one with 5 channels, such as "
            "--model=stabilityai/stable-diffusion-2-depth or a folder"
        )
    if task not in PAINTING_TASKS:
        return str(EMBEDDED)
    if not EMBEDDED_INPAINTING.is_dir():
        raise FileNotFoundError(
            f"the embedded inpainting model is not there ({EMBEDDED_INPAINTING}): name one with "
            f"--model, or paint by replacement with --model={EMBEDDED}"
        )
    return str(EMBEDDED_INPAINTING)


def load_model(task: str, model: str, **options: Any) -> Prior | ConditionedPrior:
    """The prior of a task: for painting into holes, whichever of its two kinds the model is.

    `options` are those of `load_stable_diffusion`, which all loaders take.

    Raises:
      FileNotFoundError, ValueError: as its loader, also for a model of another task's kind.
    """
    if task == "depth_to_image":
        return load_depth_conditioned(model, **options)
    if task not in PAINTING_TASKS:
        return load_stable_diffusion(model, **options)
    # The configs alone tell the kinds apart; what is neither, the loader names.
    files = {name: value for name, value in options.items() if name != "dtype"}
    configs = open_model(model, **files).configs
    latent = configs.get("vae", {"latent_channels": 3}).get("latent_channels", 4)
    plain = configs["unet"].get("in_channels", 4) == latent
    load = load_stable_diffusion if plain else load_inpainting
    return load(model, **options)


def read_picture(path: str, flag: str) -> tuple[Float[np.ndarray, "1 H W 3"], np.ndarray | None]:
    """Colours over white, upright, in [0, 1]; and alpha [1, H, W] where the file has it.

    Raises:
      FileNotFoundError, ValueError: the file is absent or no picture; names the flag.
    """
    try:
        rgb, alpha = read_image(path)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{flag}: {error}") from error
    if alpha is None:
        return rgb[None], None
    shown = alpha[..., None] * rgb + (1.0 - alpha[..., None])
    # Where nothing is transparent the file's own values, bit for bit.
    opaque = alpha[..., None] == 1.0
    return np.where(opaque, rgb, shown)[None], alpha[None]


def read_mask(
    path: str | None, image: Float[np.ndarray, "1 H W 3"], alpha: np.ndarray | None
) -> Bool[np.ndarray, "1 H W"]:
    """True where to paint: the mask's bright pixels (1/2 and over), or the picture's transparent.

    Args:
      path: of the mask; where it is transparent it counts as black. None takes `alpha`.
      image: of the same size.
      alpha: of the image, or None.

    Raises:
      FileNotFoundError, ValueError: no mask at all, another size, nothing to paint or to keep.
    """
    if path is None:
        if alpha is None:
            raise ValueError("--mask is missing, and --image has no transparent pixels to paint")
        mask = alpha < 0.5
    else:
        try:
            rgb, opacity = read_image(path)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"--mask: {error}") from error
        light = rgb.mean(axis=-1)
        mask = (light if opacity is None else light * opacity)[None] >= 0.5
    check_mask(image, mask)
    return mask


def read_disparity(
    path: str, image: Float[np.ndarray, "1 H W 3"]
) -> Float[np.ndarray, "1 rows columns"]:
    """A depth map that is brighter where nearer; of any size in the picture's proportions.

    Raises:
      FileNotFoundError, ValueError: absent, no picture, or of other proportions.
    """
    disparity = read_picture(path, "--depth")[0].mean(axis=-1)
    (rows, columns), (height, width) = disparity.shape[1:], image.shape[1:3]
    if abs(rows * width - columns * height) > max(rows, columns, height, width):
        raise ValueError(
            f"--depth is {columns}x{rows} pixels, --image {width}x{height}: of other proportions"
        )
    return disparity


def own_estimator(model: str) -> str:
    """The model itself where it is a pipeline with a `depth_estimator`, else the embedded one."""
    index = Path(model) / "model_index.json"
    named = not Path(model).exists()  # a hub id; such a pipeline of a depth model has its own
    own = named or (index.is_file() and ESTIMATOR in json.loads(index.read_text()))
    return model if own else str(EMBEDDED / "depth")


def predict_disparity(
    model: str, image: Float[np.ndarray, "1 H W 3"]
) -> Float[np.ndarray, "1 H W"]:
    """What a depth model says of a picture, larger where nearer.

    Raises:
      FileNotFoundError, ValueError: naming the flag, as the loader says.
    """
    try:
        depth = load_depth(model)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"--depth_model={model}: {error}") from error
    return np.asarray(jax.jit(depth.predict)(depth.params, jnp.asarray(image)))


def digest(path: str | None) -> str | None:
    """The start of a file's SHA-256: a run with another picture is another run."""
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
