"""The judge: a classifier of kind and colour that shares no weights and no training with a prior.

A small residual network on pixels: four stages of stride 2, a mean over the picture, two heads.
R-Precision asks it for the rank of the prompt among all kinds x colours; another one of the same
layers scores renderings (`priors/image_scorer`).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """Sizes of a judge.

    Attributes:
      channels: width of each stage.
      kinds: names of the kinds, in the order of the logits.
      colours: names of the colours, in the order of the logits.
      image_size: side of the pictures it was trained on, pixels.
    """

    channels: tuple[int, ...]
    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    image_size: int

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "JudgeConfig":
        """From the fields of a config.json; those that begin with `_` are ignored.

        Raises:
          ValueError: a field is missing.
        """
        fields = [f.name for f in dataclasses.fields(cls)]
        missing = [name for name in fields if name not in config]
        if missing:
            raise ValueError(f"the judge's config.json lacks {missing}; it has {sorted(config)}")
        return cls(
            channels=tuple(config["channels"]),
            kinds=tuple(config["kinds"]),
            colours=tuple(config["colours"]),
            image_size=int(config["image_size"]),
        )


class Judge(nn.Module):
    """Pictures [B, S, S, 3] in [0, 1] -> logits of kind [B, K] and of colour [B, C]."""

    config: JudgeConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "B S S 3"]
    ) -> tuple[Float[Array, "B K"], Float[Array, "B C"]]:
        """Logits of kind and of colour."""
        h = 2.0 * image - 1.0
        for i, width in enumerate(self.config.channels):
            h = nn.Conv(width, (3, 3), strides=2, name=f"down_{i}")(h)
            h = nn.relu(nn.GroupNorm(num_groups=8, name=f"norm_{i}")(h))
            r = nn.Conv(width, (3, 3), name=f"conv_{i}")(h)
            h = h + nn.relu(nn.GroupNorm(num_groups=8, name=f"norm_out_{i}")(r))
        h = jnp.mean(h, axis=(1, 2))
        kind = nn.Dense(len(self.config.kinds), name="kind")(h)
        colour = nn.Dense(len(self.config.colours), name="colour")(h)
        return kind, colour


def joint_log_probability(
    kind_logits: Float[Array, "*b K"], colour_logits: Float[Array, "*b C"]
) -> Float[Array, "*b K C"]:
    """log p(kind, colour | picture), the two taken as independent."""
    kind = jax.nn.log_softmax(kind_logits)
    colour = jax.nn.log_softmax(colour_logits)
    return kind[..., :, None] + colour[..., None, :]
