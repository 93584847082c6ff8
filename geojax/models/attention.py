"""Attention, and the transformer of a UNet level.

Symbols: Q [B, N, h, d], K, V [B, M, h, d]; h heads of width d; y condition [B, L, D].
    (1) attention   softmax(Q K^T / sqrt(d)) V, the softmax in float32
    (2) chunks      rows of (1) are independent: take C queries at a time and recompute the scores
                    in the backward pass, so that memory is B h C M instead of B h N M
    (3) GEGLU       (x W_a) * gelu(x W_b), gelu exact

(1) Vaswani et al., "Attention Is All You Need" (2017), eq. 1. (2) Rabe & Staats, "Self-attention
Does Not Need O(n^2) Memory" (2021), section 2, over queries alone. (3) Shazeer, "GLU Variants
Improve Transformer" (2020), eq. 6. The block is that of Rombach et al., "High-Resolution Image
Synthesis with Latent Diffusion Models" (2022), appendix E.2.1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.layers import SMALL_INIT, Conv, Dtype, GroupNorm, LayerNorm

# Above this many scores a head, the chunked form is used.
MAX_SCORES = 512 * 512
QUERY_CHUNK = 128


def attention(
    query: Float[Array, "B N h d"],
    key: Float[Array, "B M h d"],
    value: Float[Array, "B M h d"],
    *,
    is_causal: bool = False,
    implementation: str | None = None,
    query_chunk: int | None = None,
) -> Float[Array, "B N h d"]:
    """Equation (1), in chunks of queries (2) where the scores are many.

    Args:
      query: queries.
      key: keys.
      value: values.
      is_causal: query i sees keys 0..i only; never chunked.
      implementation: "cudnn" hands the whole to cuDNN's kernel (a GPU and half precision); None
        chooses between the two forms here by size.
      query_chunk: C; None chooses by size, 0 never chunks.

    Raises:
      ValueError: `implementation` is neither.
    """
    if implementation == "cudnn":
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=is_causal, implementation="cudnn"
        )
    if implementation is not None:
        raise ValueError(f"implementation must be 'cudnn' or None, got {implementation!r}")
    n, m = query.shape[1], key.shape[1]
    if query_chunk is None:
        query_chunk = QUERY_CHUNK if n * m > MAX_SCORES else 0
    if is_causal or not 0 < query_chunk < n:
        return _attend(query, key, value, is_causal)
    chunks = -(-n // query_chunk)
    padded = jnp.pad(query, ((0, 0), (0, chunks * query_chunk - n), (0, 0), (0, 0)))
    batch, _, heads, width = query.shape
    stacked = padded.reshape(batch, chunks, query_chunk, heads, width).swapaxes(0, 1)
    # Inside a loop nothing can merge the recomputation with the forward pass: no CSE barrier.
    rows = jax.checkpoint(lambda q: _attend(q, key, value, False), prevent_cse=False)
    out = jax.lax.map(rows, stacked)
    return out.swapaxes(0, 1).reshape(batch, chunks * query_chunk, heads, width)[:, :n]


def _attend(
    query: Float[Array, "B N h d"],
    key: Float[Array, "B M h d"],
    value: Float[Array, "B M h d"],
    is_causal: bool,
) -> Float[Array, "B N h d"]:
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if is_causal:
        seen = jnp.tril(jnp.ones((1, 1, *scores.shape[2:]), bool))
        scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


class Attention(nn.Module):
    """Multi-head attention of x [B, N, C] to a context [B, M, D], or to itself.

    Attributes:
      heads: number of heads h; the width of one is C / h.
      use_bias: whether to_q, to_k and to_v have a bias; to_out always has.
    """

    heads: int
    use_bias: bool = False
    dtype: Dtype = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], context: Float[Array, "B M D"] | None = None
    ) -> Float[Array, "B N C"]:
        """Attended x, projected.

        Raises:
          ValueError: C is not a multiple of the number of heads.
        """
        channels = x.shape[-1]
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not split into {self.heads} heads")
        context = x if context is None else context.astype(self.dtype)

        def project(name: str, source: Float[Array, "B M D"]) -> Float[Array, "B M h d"]:
            dense = nn.Dense(channels, use_bias=self.use_bias, dtype=self.dtype, name=name)
            return dense(source).reshape(*source.shape[:-1], self.heads, -1)

        q, k, v = project("to_q", x), project("to_k", context), project("to_v", context)
        out = attention(q, k, v, implementation=self.implementation).reshape(x.shape)
        return nn.Dense(channels, dtype=self.dtype, name="to_out_0")(out)


class GEGLU(nn.Module):
    """Equation (3): first half of the projection is the value, second half the gate."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N features"]:
        """Gated projection; nn.gelu would default to the tanh form."""
        projected = nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(x)
        value, gate = jnp.split(projected, 2, axis=-1)
        return value * nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """GEGLU to four times the width and back."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        """The block's two layers; net_1 is the file's dropout and holds nothing."""
        hidden = GEGLU(4 * x.shape[-1], dtype=self.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="net_2")(hidden)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the condition, feed-forward; each normed before, added after."""

    heads: int
    dtype: Dtype = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], context: Float[Array, "B L D"]
    ) -> Float[Array, "B N C"]:
        """The block's output."""

        def attend(name: str) -> Attention:
            return Attention(
                self.heads, dtype=self.dtype, implementation=self.implementation, name=name
            )

        x = x + attend("attn1")(LayerNorm(dtype=self.dtype, name="norm1")(x))
        x = x + attend("attn2")(LayerNorm(dtype=self.dtype, name="norm2")(x), context)
        x = x + FeedForward(dtype=self.dtype, name="ff")(
            LayerNorm(dtype=self.dtype, name="norm3")(x)
        )
        return x


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of [B, H, W, C], added to their input.

    Attributes:
      heads: number of heads.
      depth: number of blocks.
      num_groups: groups of the opening norm, whose eps is 1e-6 and not the resnets' 1e-5.
      use_linear_projection: proj_in and proj_out are dense (SD 2.x) or 1x1 convolutions (SD 1.x).
    """

    heads: int
    depth: int
    num_groups: int
    use_linear_projection: bool
    dtype: Dtype = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], context: Float[Array, "B L D"]
    ) -> Float[Array, "B H W C"]:
        """x plus the transformer's output."""
        b, h, w, c = x.shape

        def project(name: str, small: bool) -> nn.Module:
            init = SMALL_INIT if small else nn.initializers.lecun_normal()
            if self.use_linear_projection:
                return nn.Dense(c, dtype=self.dtype, kernel_init=init, name=name)
            return Conv(c, kernel_size=1, dtype=self.dtype, kernel_init=init, name=name)

        y = GroupNorm(self.num_groups, 1e-6, dtype=self.dtype, name="norm")(x)
        y = project("proj_in", False)(y).reshape(b, h * w, c)
        for i in range(self.depth):
            y = TransformerBlock(
                self.heads, self.dtype, self.implementation, name=f"transformer_blocks_{i}"
            )(y, context)
        return x + project("proj_out", True)(y.reshape(b, h, w, c))
