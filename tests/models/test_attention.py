"""Attention against slow numpy; its chunked form against the plain one; what it keeps in memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.attention import GEGLU, Attention, SpatialTransformer, attention


def slow_attention(q, k, v, is_causal=False):
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
    if is_causal:
        scores = np.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)


def draw(rng, n=10, m=7, heads=2, width=3):
    shapes = ((2, n, heads, width), (2, m, heads, width), (2, m, heads, width))
    return tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


@pytest.mark.parametrize("chunk", [0, 4, 5])
def test_attention_is_the_softmax_mean(rng, chunk):
    qkv = draw(rng)
    found = attention(*qkv, query_chunk=chunk)
    np.testing.assert_allclose(found, slow_attention(*map(np.asarray, qkv)), atol=1e-5)


def test_causal_attention(rng):
    qkv = draw(rng, m=10)
    found = attention(*qkv, is_causal=True)
    np.testing.assert_allclose(found, slow_attention(*map(np.asarray, qkv), True), atol=1e-5)


def test_chunks_leave_the_gradient_as_it_is(rng):
    qkv = draw(rng)
    cotangent = jnp.asarray(rng.standard_normal(qkv[0].shape), jnp.float32)

    def gradient(chunk):
        _, back = jax.vjp(lambda *a: attention(*a, query_chunk=chunk), *qkv)
        return back(cotangent)

    for a, b in zip(gradient(4), gradient(0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def largest_array(jaxpr) -> int:
    """Most numbers in any array of a program, its inner programs included."""
    sizes = [int(np.prod(v.aval.shape)) for eqn in jaxpr.eqns for v in eqn.outvars]
    inner = []
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            sub = getattr(value, "jaxpr", value)
            if hasattr(sub, "eqns"):
                inner.append(largest_array(sub))
    return max(sizes + inner, default=0)


def test_all_scores_of_a_large_picture_exist_at_no_time():
    n = 1024
    q = jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)

    def gradients(q, k, v):
        return jax.grad(lambda *a: jnp.sum(attention(*a)), argnums=(0, 1, 2))(q, k, v)

    program = jax.make_jaxpr(gradients)(q, q, q).jaxpr
    assert largest_array(program) < n * n // 4
    plain = jax.make_jaxpr(lambda *a: attention(*a, query_chunk=0))(q, q, q).jaxpr
    assert largest_array(plain) >= n * n


def test_half_precision_scores_are_summed_in_single(rng):
    # Equal scores of 4096 keys: in half precision the softmax's sum would stop growing at 256.
    ones = jnp.ones((1, 4096, 1, 2), jnp.bfloat16)
    value = jnp.asarray(rng.uniform(0.5, 1.5, (1, 4096, 1, 2)), jnp.bfloat16)
    found = attention(ones[:, :1], ones, value)
    assert found.dtype == jnp.bfloat16
    expected = np.mean(np.asarray(value, np.float32), axis=1)
    np.testing.assert_allclose(np.asarray(found, np.float32)[:, 0], expected, rtol=1e-2)


def test_geglu_gates_with_the_second_half(rng):
    x = jnp.asarray(rng.standard_normal((1, 2, 3)), jnp.float32)
    module = GEGLU(4)
    params = module.init(jax.random.key(0), x)
    kernel = np.asarray(params["params"]["proj"]["kernel"])
    value, gate = np.split(np.asarray(x) @ kernel, 2, axis=-1)
    erf = np.vectorize(math.erf)
    expected = value * gate * 0.5 * (1.0 + erf(gate / np.sqrt(2.0)))
    np.testing.assert_allclose(module.apply(params, x), expected, atol=1e-6)


@pytest.mark.parametrize("linear", [False, True])
def test_transformer_over_pixels_commutes_with_their_order(rng, linear):
    x = jnp.asarray(rng.standard_normal((1, 2, 3, 8)), jnp.float32)
    y = jnp.asarray(rng.standard_normal((1, 4, 5)), jnp.float32)
    module = SpatialTransformer(2, 1, 4, linear)
    params = module.init(jax.random.key(0), x, y)
    found = module.apply(params, x, y)
    flipped = module.apply(params, x[:, ::-1, ::-1], y)
    np.testing.assert_allclose(found, flipped[:, ::-1, ::-1], atol=1e-5)
    assert params["params"]["proj_in"]["kernel"].ndim == (2 if linear else 4)


def test_errors_name_the_numbers(rng):
    with pytest.raises(ValueError, match="8 channels do not split into 3 heads"):
        Attention(3).init(jax.random.key(0), jnp.ones((1, 2, 8)))
    with pytest.raises(ValueError, match="got 'flash'"):
        attention(*draw(rng), implementation="flash")
