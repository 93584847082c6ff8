"""Convolutions, norms and the time embedding against slow numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from geojax.models.layers import (
    Conv,
    GroupNorm,
    LayerNorm,
    UpsampleConv,
    conv,
    gelu,
    timestep_embedding,
    upsample_conv,
    upsample_nearest,
)


def slow_conv(x, kernel, strides, padding):
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    k = kernel.shape[0]
    rows = range(0, x.shape[1] - k + 1, strides)
    columns = range(0, x.shape[2] - k + 1, strides)
    return np.stack(
        [
            np.stack(
                [np.einsum("bhwi,hwio->bo", x[:, i : i + k, j : j + k], kernel) for j in columns],
                axis=1,
            )
            for i in rows
        ],
        axis=1,
    )


@pytest.mark.parametrize(
    ("size", "strides", "padding"),
    [(3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (1, 1, (0, 0))],
)
def test_conv_is_the_sum_over_the_window(rng, size, strides, padding):
    x = rng.standard_normal((2, 6, 8, 3)).astype(np.float32)
    kernel = rng.standard_normal((size, size, 3, 5)).astype(np.float32)
    found = conv(jnp.asarray(x), jnp.asarray(kernel), strides, padding)
    np.testing.assert_allclose(found, slow_conv(x, kernel, strides, padding), atol=1e-5)


def test_conv_module_pads_as_torch_does_and_adds_its_bias(rng):
    x = rng.standard_normal((1, 6, 6, 2)).astype(np.float32)
    module = Conv(4, strides=2)
    kernel = rng.standard_normal((3, 3, 2, 4)).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    params = {"params": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    found = module.apply(params, jnp.asarray(x))
    np.testing.assert_allclose(found, slow_conv(x, kernel, 2, (1, 1)) + bias, atol=1e-5)


def test_upsample_conv_is_doubling_then_convolution_with_its_gradients(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 5, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 4, 2)), jnp.float32)
    cotangent = jnp.asarray(rng.standard_normal((2, 6, 10, 2)), jnp.float32)

    def plain(x, kernel):
        return conv(upsample_nearest(x, (6, 10)), kernel, 1, (1, 1))

    (expected, back), (found, folded_back) = (jax.vjp(f, x, kernel) for f in (plain, upsample_conv))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for a, b in zip(folded_back(cotangent), back(cotangent), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_upsampling_to_an_odd_size_crops_before_it_convolves(rng):
    x = jnp.asarray(rng.standard_normal((1, 3, 3, 2)), jnp.float32)
    module = UpsampleConv(2)
    params = module.init(jax.random.key(0), x, (5, 6))
    doubled = np.repeat(np.repeat(np.asarray(x), 2, 1), 2, 2)[:, :5]
    expected = slow_conv(doubled, np.asarray(params["params"]["kernel"]), 1, (1, 1))
    np.testing.assert_allclose(module.apply(params, x, (5, 6)), expected, atol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_group_norm_has_each_groups_moments(rng, mean):
    x = (mean + rng.standard_normal((2, 4, 3, 12))).astype(np.float32)
    scale = rng.standard_normal(12).astype(np.float32)
    params = {"params": {"scale": jnp.asarray(scale), "bias": jnp.ones(12)}}
    found = GroupNorm(3, 1e-2).apply(params, jnp.asarray(x))
    groups = x.astype(np.float64).reshape(2, 12, 3, 4)
    centred = groups - groups.mean((1, 3), keepdims=True)
    normed = centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + 1e-2)
    # A variance as E[x^2] - E[x]^2 would be off by 1e-2 at this mean.
    expected = normed.reshape(x.shape) * scale + 1.0
    np.testing.assert_allclose(found, expected, atol=3e-4)
    activated = GroupNorm(3, 1e-2, silu=True).apply(params, jnp.asarray(x))
    np.testing.assert_allclose(activated, expected / (1.0 + np.exp(-expected)), atol=3e-4)


def test_norms_of_half_precision_take_moments_in_single(rng):
    x = jnp.asarray(64.0 + rng.standard_normal((1, 8, 8, 8)), jnp.bfloat16)
    for module in (GroupNorm(2, 1e-5, jnp.bfloat16), LayerNorm(1e-5, jnp.bfloat16)):
        params = module.init(jax.random.key(0), x)
        found = module.apply(params, x)
        exact = type(module)(**{**_fields(module), "dtype": jnp.float32}).apply(
            params, x.astype(jnp.float32)
        )
        assert found.dtype == jnp.bfloat16
        # One rounding of the result, none of the moments.
        np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def _fields(module):
    names = ("num_groups", "epsilon") if isinstance(module, GroupNorm) else ("epsilon",)
    return {name: getattr(module, name) for name in names}


def test_layer_norm_uses_torchs_epsilon(rng):
    x = 1e-3 * rng.standard_normal((3, 7)).astype(np.float32)
    found, _ = LayerNorm().init_with_output(jax.random.key(0), jnp.asarray(x))
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("flip", "shift"), [(True, 0.0), (False, 1.0)])
def test_timestep_embedding(flip, shift):
    t = np.array([0, 1, 999])
    w = np.exp(-np.log(10000.0) * np.arange(4) / (4 - shift))
    sine, cosine = np.sin(t[:, None] * w), np.cos(t[:, None] * w)
    expected = np.concatenate([cosine, sine] if flip else [sine, cosine], axis=1)
    found = timestep_embedding(jnp.asarray(t, jnp.int32), 8, flip, shift)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_errors_name_the_numbers():
    with pytest.raises(ValueError, match="6 channels do not split into 4"):
        GroupNorm(4, 1e-5).init(jax.random.key(0), jnp.ones((1, 2, 6)))
    with pytest.raises(ValueError, match="even width, got 7"):
        timestep_embedding(jnp.ones(1), 7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1.5e-6), (jnp.bfloat16, 1e-3)])
def test_gelu_is_exact_in_either_tail(dtype, tolerance):
    """x Phi(x) by the error function of SciPy in float64; within a rounding of its own type."""
    x = jnp.linspace(-8.0, 8.0, 1001).astype(dtype)
    wide = np.asarray(x, np.float64)
    expected = wide * special.ndtr(wide)
    found = np.asarray(gelu(x), np.float64)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=2.0**-8)
    assert gelu(x).dtype == dtype
