"""Depth Anything: DPT's neck on DINOv2, from transformers' DepthAnythingConfig json.

Symbols: x image, normalised [B, H, W, C]; p side of a patch; t_k taps of the backbone.
    (1) f      = neck(t) of `geojax.models.dpt_neck`, class tokens dropped, each map resized to the
                 next one's size instead of doubled
    (2) y      = relu(conv3(resize(conv3 f_1))), resized to (H, W), corners kept
    (3) result = relu(conv1 y), the disparity up to scale and shift ("relative"), or
                 d_max sigmoid(conv1 y), depth in metres ("metric")

Yang et al., "Depth Anything V2" (2024), section 5 and appendix; the neck is Ranftl et al., "Vision
Transformers for Dense Prediction" (2021), section 3.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.dinov2 import Dinov2Backbone, Dinov2Config
from geojax.models.dpt_neck import ALIVE_INIT, Neck
from geojax.models.layers import Conv, Dtype
from geojax.models.resize import resize

ESTIMATES = ("relative", "metric")


@dataclasses.dataclass(frozen=True)
class DepthAnythingConfig:
    """The fields of transformers' DepthAnythingConfig."""

    backbone_config: Dinov2Config = dataclasses.field(default_factory=Dinov2Config)
    patch_size: int = 14
    reassemble_hidden_size: int = 384
    reassemble_factors: tuple[float, ...] = (4, 2, 1, 0.5)
    neck_hidden_sizes: tuple[int, ...] = (48, 96, 192, 384)
    fusion_hidden_size: int = 64
    head_in_index: int = -1
    head_hidden_size: int = 32
    depth_estimation_type: str = "relative"
    max_depth: float = 1

    def __post_init__(self) -> None:
        if self.depth_estimation_type not in ESTIMATES:
            raise ValueError(
                f"depth_estimation_type={self.depth_estimation_type!r} must be one of {ESTIMATES}"
            )
        for name, value in (
            ("patch_size", self.backbone_config.patch_size),
            ("reassemble_hidden_size", self.backbone_config.hidden_size),
        ):
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)} differs from the backbone's {value}"
                )
        names = ("reassemble_factors", "neck_hidden_sizes")
        lengths = {name: len(getattr(self, name)) for name in names}
        lengths["out_indices"] = len(self.backbone_config.out_indices)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry a map is needed in each of {lengths}")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "DepthAnythingConfig":
        """From a config.json's fields; those of training and bookkeeping are ignored.

        Raises:
          ValueError: a value that is not implemented, or parts that do not fit.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in config.items()
            if k in names and v is not None
        }
        if "backbone_config" not in fields:
            raise ValueError("the config has no backbone_config")
        fields["backbone_config"] = Dinov2Config.from_dict(fields["backbone_config"])
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, readable by transformers."""
        names = ["DepthAnythingForDepthEstimation"]
        head = {"architectures": names, "model_type": "depth_anything"}
        fields = {**head, **dataclasses.asdict(self)}
        return {**fields, "backbone_config": self.backbone_config.to_dict()}


class DepthAnythingHead(nn.Module):
    """Equations (2) and (3)."""

    config: DepthAnythingConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w F"], size: tuple[int, int]) -> Float[Array, "B H W"]:
        """Disparity, or depth in metres, at `size`."""
        cfg, d = self.config, self.dtype
        x = Conv(x.shape[-1] // 2, 3, dtype=d, name="conv1")(x)
        x = resize(x, size, align_corners=True)
        x = nn.relu(Conv(cfg.head_hidden_size, 3, dtype=d, name="conv2")(x))
        x = nn.Conv(1, (1, 1), dtype=d, bias_init=ALIVE_INIT, name="conv3")(x)[..., 0]
        relative = cfg.depth_estimation_type == "relative"
        return (nn.relu(x) if relative else nn.sigmoid(x)) * cfg.max_depth


class DepthAnything(nn.Module):
    """Image -> disparity, named as transformers' DepthAnythingForDepthEstimation.

    Attributes:
      config: the file's fields.
      dtype: of the computation; the result is float32.
    """

    config: DepthAnythingConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "B H W C"]) -> Float[Array, "B H W"]:
        """Equations (1) to (3) of a normalised image.

        Raises:
          ValueError: sides that are not multiples of the patch, or another number of channels.
        """
        cfg, d, p = self.config, self.dtype, self.config.patch_size
        _, height, width, channels = pixel_values.shape
        if height % p or width % p or channels != cfg.backbone_config.num_channels:
            raise ValueError(
                f"images are {(height, width, channels)}, this model takes multiples of {p} and "
                f"{cfg.backbone_config.num_channels} channels"
            )
        taps = Dinov2Backbone(cfg.backbone_config, d, name="backbone")(pixel_values)
        neck = Neck(
            "ignore",
            cfg.backbone_config.hidden_act,
            cfg.reassemble_factors,
            cfg.neck_hidden_sizes,
            cfg.fusion_hidden_size,
            match_sizes=True,
            dtype=d,
            name="neck",
        )
        fused = neck(taps, (height // p, width // p))
        head = DepthAnythingHead(cfg, d, name="head")
        return head(fused[cfg.head_in_index], (height, width)).astype(jnp.float32)
