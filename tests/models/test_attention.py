"""Attention against slow numpy; its chunked form against the plain one; what it keeps in memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models import attention as attention_module
from geojax.models.attention import (
    GEGLU,
    Attention,
    SpatialTransformer,
    attend,
    attend_by_head,
    attend_in_chunks,
    attention,
)

CHUNKED = {"by_head": attend_by_head, "in_chunks": attend_in_chunks}


def slow_attention(q, k, v, is_causal=False):
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
    if is_causal:
        scores = np.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)


def draw(rng, n=10, m=7, heads=2, width=3):
    shapes = ((2, n, heads, width), (2, m, heads, width), (2, m, heads, width))
    return tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


def test_attention_is_the_softmax_mean(rng):
    qkv = draw(rng)
    expected = slow_attention(*map(np.asarray, qkv))
    np.testing.assert_allclose(attention(*qkv), expected, atol=1e-5)


@pytest.mark.parametrize("chunk", [4, 5, 16])
@pytest.mark.parametrize("form", CHUNKED)
def test_chunked_attention_is_the_softmax_mean(rng, form, chunk):
    qkv = draw(rng)
    expected = slow_attention(*map(np.asarray, qkv))
    np.testing.assert_allclose(CHUNKED[form](*qkv, chunk), expected, atol=1e-5)


def test_causal_attention(rng):
    qkv = draw(rng, m=10)
    found = attention(*qkv, is_causal=True)
    np.testing.assert_allclose(found, slow_attention(*map(np.asarray, qkv), True), atol=1e-5)


@pytest.mark.parametrize("form", CHUNKED)
def test_chunks_leave_the_gradient_as_it_is(rng, form):
    qkv = draw(rng)
    cotangent = jnp.asarray(rng.standard_normal(qkv[0].shape), jnp.float32)

    def gradient(f):
        return jax.vjp(f, *qkv)[1](cotangent)

    plain = gradient(lambda *qkv: attend(*qkv, False))
    for a, b in zip(gradient(lambda *qkv: CHUNKED[form](*qkv, 4)), plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("form", CHUNKED)
def test_scores_far_beyond_the_exponentials_range_stay_finite(rng, form):
    q, k, v = draw(rng)
    found, back = jax.vjp(lambda *a: CHUNKED[form](*a, 4), 1e3 * q, 1e3 * k, v)
    expected = slow_attention(*(np.asarray(x, np.float64) for x in (1e3 * q, 1e3 * k, v)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert all(np.isfinite(g).all() for g in back(jnp.ones_like(found)))


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


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_all_scores_of_a_large_picture_exist_at_no_time(monkeypatch, backend):
    n = 2048
    q = jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)
    monkeypatch.setattr(attention_module.jax, "default_backend", lambda: backend)

    def gradients(q, k, v):
        return jax.grad(lambda *a: jnp.sum(attention(*a)), argnums=(0, 1, 2))(q, k, v)

    program = jax.make_jaxpr(gradients)(q, q, q).jaxpr
    assert largest_array(program) < n * n // 4
    plain = jax.make_jaxpr(lambda *a: attend(*a, False))(q, q, q).jaxpr
    assert largest_array(plain) >= n * n


@pytest.mark.parametrize("form", ["plain", *CHUNKED])
def test_half_precision_scores_are_summed_in_single(rng, form):
    # Equal scores of 4096 keys: in half precision the softmax's sum would stop growing at 256.
    ones = jnp.ones((1, 4096, 1, 2), jnp.bfloat16)
    value = jnp.asarray(rng.uniform(0.5, 1.5, (1, 4096, 1, 2)), jnp.bfloat16)
    qkv = ones[:, :1], ones, value
    found = attend(*qkv, False) if form == "plain" else CHUNKED[form](*qkv, 1)
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
