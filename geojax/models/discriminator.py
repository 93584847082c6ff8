"""The discriminator: is this a true picture, and is this its caption?

Symbols: h(x) features of a picture; e code of a caption, [P] in [0, 1], one entry a phrase.
    (1)  D(x, e) = w . h(x) + (V e) . h(x) + b

A small residual network on pixels, smooth everywhere: what it is for is its gradient in the
picture. Miyato and Koyama, "cGANs with projection discriminator" (2018), section 3.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a discriminator.

    Attributes:
      channels: width of each stage of stride 2, multiples of 8.
      phrases: what a caption may say, in the order of its code.
      image_size: side of the pictures it was trained on, pixels.
    """

    channels: tuple[int, ...]
    phrases: tuple[str, ...]
    image_size: int

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "DiscriminatorConfig":
        """From the fields of a config.json; those that begin with `_` are ignored.

        Raises:
          ValueError: a field is missing.
        """
        missing = [f.name for f in dataclasses.fields(cls) if f.name not in config]
        if missing:
            raise ValueError(
                f"the discriminator's config.json lacks {missing}; it has {sorted(config)}"
            )
        return cls(
            channels=tuple(config["channels"]),
            phrases=tuple(config["phrases"]),
            image_size=int(config["image_size"]),
        )


class Discriminator(nn.Module):
    """Pictures [B, S, S, 3] in [0, 1] and codes [B, P] -> logits [B], equation (1)."""

    config: DiscriminatorConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "B S S 3"], code: Float[Array, "B P"]
    ) -> Float[Array, "B"]:
        """Logits of "a true picture with its own caption"."""
        h = 2.0 * image - 1.0
        for i, width in enumerate(self.config.channels):
            h = nn.Conv(width, (3, 3), strides=2, name=f"down_{i}")(h)
            h = nn.silu(nn.GroupNorm(num_groups=8, name=f"norm_{i}")(h))
            r = nn.Conv(width, (3, 3), name=f"conv_{i}")(h)
            h = h + nn.silu(nn.GroupNorm(num_groups=8, name=f"norm_out_{i}")(r))
        h = jnp.mean(h, axis=(1, 2))
        caption = nn.Dense(h.shape[-1], use_bias=False, name="caption")(code)
        return nn.Dense(1, name="truth")(h)[:, 0] + jnp.sum(caption * h, axis=-1)
