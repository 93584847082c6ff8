"""Attention, and the transformer of a UNet level.

Symbols: Q [B, N, h, d], K, V [B, M, h, d]; h heads of width d; y condition [B, L, D].
    (1) attention   softmax(Q K^T / sqrt(d)) V, the softmax in float32
    (2) chunks      rows of (1) are independent: take C queries at a time and recompute the scores
                    in the backward pass, so that memory is B h C M instead of B h N M
    (3) columns     (1) of one head, transposed: E = exp((K Q^T - max) / sqrt(d)) [M, C], the
                    maximum over keys; O^T = V^T E / sum E
    (4) GEGLU       (x W_a) * gelu(x W_b), gelu exact

(1) Vaswani et al., "Attention Is All You Need" (2017), eq. 1. (2) Rabe & Staats, "Self-attention
Does Not Need O(n^2) Memory" (2021), section 2, over queries alone. (4) Shazeer, "GLU Variants
Improve Transformer" (2020), eq. 6. The block is that of Rombach et al., "High-Resolution Image
Synthesis with Latent Diffusion Models" (2022), appendix E.2.1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geojax.models.layers import SMALL_INIT, Conv, Dtype, GroupNorm, LayerNorm, gelu

# Above this many scores a head, a chunked form is used; on the CPU, the one of a head at a time.
MAX_SCORES = 512 * 512
MAX_CPU_SCORES = 128 * 128
QUERY_CHUNK = 128
# Of one head: 4096 keys make 4 MB of scores, which stay in the last cache.
HEAD_QUERY_CHUNK = 256


def attention(
    query: Float[Array, "B N h d"],
    key: Float[Array, "B M h d"],
    value: Float[Array, "B M h d"],
    *,
    is_causal: bool = False,
    implementation: str | None = None,
) -> Float[Array, "B N h d"]:
    """Equation (1), in chunks of queries (2) where the scores are many.

    Args:
      query: queries.
      key: keys.
      value: values.
      is_causal: query i sees keys 0..i only; never chunked.
      implementation: "cudnn" hands the whole to cuDNN's kernel (a GPU and half precision); None
        chooses between the forms here by size and device.

    Raises:
      ValueError: `implementation` is neither.
    """
    if implementation == "cudnn":
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=is_causal, implementation="cudnn"
        )
    if implementation is not None:
        raise ValueError(f"implementation must be 'cudnn' or None, got {implementation!r}")
    scores, on_cpu = query.shape[1] * key.shape[1], jax.default_backend() == "cpu"
    if is_causal or scores <= (MAX_CPU_SCORES if on_cpu else MAX_SCORES):
        return attend(query, key, value, is_causal)
    if on_cpu:
        return attend_by_head(query, key, value, HEAD_QUERY_CHUNK)
    return attend_in_chunks(query, key, value, QUERY_CHUNK)


def attend_in_chunks(
    query: Float[Array, "B N h d"],
    key: Float[Array, "B M h d"],
    value: Float[Array, "B M h d"],
    chunk: int,
) -> Float[Array, "B N h d"]:
    """Equation (2), all heads at once: few large steps, for an accelerator."""
    batch, n, heads, width = query.shape
    chunks = -(-n // chunk)
    padded = jnp.pad(query, ((0, 0), (0, chunks * chunk - n), (0, 0), (0, 0)))
    stacked = padded.reshape(batch, chunks, chunk, heads, width).swapaxes(0, 1)
    # Inside a loop nothing can merge the recomputation with the forward pass: no CSE barrier.
    rows = jax.checkpoint(lambda q: attend(q, key, value, False), prevent_cse=False)
    out = jax.lax.map(rows, stacked)
    return out.swapaxes(0, 1).reshape(batch, chunks * chunk, heads, width)[:, :n]


def attend_by_head(
    query: Float[Array, "B N h d"],
    key: Float[Array, "B M h d"],
    value: Float[Array, "B M h d"],
    chunk: int,
) -> Float[Array, "B N h d"]:
    """Equations (2) and (3), a head at a time: plain matrix products that stay in a CPU's cache.

    In (3) the maximum and the sum run down columns, so that they and the exponential are vectors
    of queries, and neither product has a transposed operand. 4096 tokens, 8 heads of 40, batch 2,
    two cores: 0.39 s; the same rows of all heads at once 1.04 s; PyTorch 0.36 s. 256 tokens, 4
    heads of 16, batch 16, one core: forward and backward 37 ms, `attend` 135.
    """
    batch, n, heads, width = query.shape
    m = key.shape[1]
    chunk = min(chunk, n)
    chunks = -(-n // chunk)
    padded = jnp.pad(query, ((0, 0), (0, chunks * chunk - n), (0, 0), (0, 0)))
    # [B h, chunks, d, C], [B h, M, d], [B h, d, M]
    q = padded.reshape(batch, chunks, chunk, heads, width).transpose(0, 3, 1, 4, 2)
    q = q.reshape(batch * heads, chunks, width, chunk)
    k = key.transpose(0, 2, 1, 3).reshape(batch * heads, m, width)
    v = value.transpose(0, 2, 3, 1).reshape(batch * heads, width, m)

    def head(
        qkv: tuple[Float[Array, "c d C"], Float[Array, "M d"], Float[Array, "d M"]],
    ) -> Float[Array, "c d C"]:
        q, k, v = qkv
        return jax.lax.map(jax.checkpoint(lambda q: _columns(q, k, v), prevent_cse=False), q)

    out = jax.lax.map(head, (q, k, v)).reshape(batch, heads, chunks, width, chunk)
    return out.transpose(0, 2, 4, 1, 3).reshape(batch, chunks * chunk, heads, width)[:, :n]


def _columns(
    query: Float[Array, "d C"], key: Float[Array, "M d"], value: Float[Array, "d M"]
) -> Float[Array, "d C"]:
    """Equation (3)."""
    scores = jnp.matmul(key, query, preferred_element_type=jnp.float32)
    # The softmax does not depend on what is subtracted: no gradient through the maximum.
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=0, keepdims=True))
    weights = jnp.exp((scores - largest) * query.shape[0] ** -0.5)
    out = jnp.matmul(value, weights.astype(value.dtype), preferred_element_type=jnp.float32)
    return (out / jnp.sum(weights, axis=0, keepdims=True)).astype(value.dtype)


def attend(
    query: Float[Array, "B N h d"],
    key: Float[Array, "B M h d"],
    value: Float[Array, "B M h d"],
    is_causal: bool,
) -> Float[Array, "B N h d"]:
    """Equation (1), all at once."""
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
    """Equation (4): first half of the projection is the value, second half the gate."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N features"]:
        """Gated projection."""
        projected = nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(x)
        value, gate = jnp.split(projected, 2, axis=-1)
        return value * gelu(gate)


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
