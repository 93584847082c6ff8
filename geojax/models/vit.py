"""A vision transformer's parts, as DPT's backbone and DINOv2 share them.

Symbols: x image [B, H, W, C]; p side of a patch; n = (H / p)(W / p) patches; D width; h heads.
    (1) tokens     x_0 = [c, patches of x, embedded] + P, c and P learned
    (2) attention  softmax(q k' / sqrt(D / h)) v by heads, projected
    (3) block      x' = x + SA(LN x);  x'' = x' + MLP(LN x')
    (4) position   P, learned on a square grid, is resampled to (H / p, W / p)

Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), eq. 1-3 and section 3.2.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.attention import attention
from geojax.models.clip import ACTIVATIONS
from geojax.models.layers import Conv, Dtype, LayerNorm

TOKEN_INIT = nn.initializers.normal(0.02)
# Positions [1, s, s, D], size -> [1, h, w, D].
Resample = Callable[[Float[Array, "1 s t D"], tuple[int, int]], Float[Array, "1 h w D"]]


def residual_init(layers: int) -> nn.initializers.Initializer:
    """Of a branch's last layer: 2n branches are summed, each starts with 1/2n of the variance."""
    return nn.initializers.variance_scaling(1.0 / (2 * layers), "fan_in", "truncated_normal")


class InnerDense(nn.Module):
    """A dense layer called `dense` inside the name it is used by, as the files have it."""

    features: int
    dtype: Dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "B N I"]) -> Float[Array, "B N features"]:
        """The layer."""
        dense = nn.Dense(
            self.features, dtype=self.dtype, kernel_init=self.kernel_init, name="dense"
        )
        return dense(x)


class Heads(nn.Module):
    """Equation (2) without its projection."""

    heads: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """What the heads read, side by side."""
        b, n, width = x.shape
        q, k, v = (
            nn.Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=name)(x).reshape(
                b, n, self.heads, -1
            )
            for name in ("query", "key", "value")
        )
        return attention(q, k, v).reshape(x.shape)


class ViTAttention(nn.Module):
    """Equation (2): `attention.query`, `attention.key`, `attention.value`, `output.dense`."""

    heads: int
    use_bias: bool
    out_init: nn.initializers.Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Attended x, projected."""
        y = Heads(self.heads, self.use_bias, self.dtype, name="attention")(x)
        return InnerDense(x.shape[-1], self.dtype, self.out_init, name="output")(y)


class ViTBlock(nn.Module):
    """Equation (3), with the names of transformers' ViT and DPT.

    Attributes:
      heads: h.
      features: width inside the MLP.
      activation: of the MLP, a key of ACTIVATIONS.
      epsilon: of the norms.
      layers: how many blocks there are, for the start of training.
      use_bias: of query, key and value.
    """

    heads: int
    features: int
    activation: str
    epsilon: float
    layers: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """x''."""
        d, init = self.dtype, residual_init(self.layers)
        y = LayerNorm(self.epsilon, d, name="layernorm_before")(x)
        x = x + ViTAttention(self.heads, self.use_bias, init, d, name="attention")(y)
        y = LayerNorm(self.epsilon, d, name="layernorm_after")(x)
        y = ACTIVATIONS[self.activation](InnerDense(self.features, d, name="intermediate")(y))
        return x + InnerDense(x.shape[-1], d, init, name="output")(y)


class Patches(nn.Module):
    """The patches of equation (1), embedded: a convolution whose stride is its side."""

    features: int
    patch_size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B h w features"]:
        """One row of `features` a patch."""
        p = self.patch_size
        embed = Conv(self.features, p, p, (0, 0), self.dtype, name="projection")
        return embed(image)


def add_positions(
    module: nn.Module,
    patches: Float[Array, "B h w D"],
    grid: tuple[int, int],
    resample: Resample,
    dtype: Dtype,
) -> Float[Array, "B N D"]:
    """Equations (1) and (4), parameters `cls_token` and `position_embeddings` in `module`.

    Args:
      module: whose compact method calls this.
      patches: embedded.
      grid: of the positions as they were learned.
      resample: positions on that grid -> on the patches'.
      dtype: of the result.
    """
    b, h, w, width = patches.shape
    token = module.param("cls_token", TOKEN_INIT, (1, 1, width))
    count = grid[0] * grid[1]
    position = module.param("position_embeddings", TOKEN_INIT, (1, count + 1, width))
    on_grid = position[:, 1:].reshape(1, *grid, width)
    if (h, w) != grid:
        on_grid = resample(on_grid.astype(jnp.float32), (h, w))
    first = jnp.broadcast_to((token + position[:, :1]).astype(dtype), (b, 1, width))
    rest = patches + on_grid.astype(dtype)
    return jnp.concatenate([first, rest.reshape(b, h * w, width)], axis=1)
