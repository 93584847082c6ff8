import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.models.convolution import DIMENSIONS, correlate


def plain(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1), padding=padding, dimension_numbers=DIMENSIONS
    )


@pytest.mark.parametrize(
    ("side", "padding"),
    [(3, ((1, 1), (1, 1))), (3, ((0, 0), (0, 0))), (2, ((1, 0), (0, 1))), (4, ((1, 2), (2, 1)))],
)
def test_gradients_are_those_of_differentiation(rng, side, padding):
    """Odd and even kernels, padded on both sides and on one."""
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(side, side, 3, 5)), jnp.float32)
    ours, pull = jax.vjp(lambda x, w: correlate(x, w, padding), x, kernel)
    theirs, pull_plain = jax.vjp(lambda x, w: plain(x, w, padding), x, kernel)
    np.testing.assert_array_equal(ours, theirs)
    dy = jnp.asarray(rng.normal(size=ours.shape), jnp.float32)
    for a, b in zip(pull(dy), pull_plain(dy), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_in_the_body_of_a_loop_the_axes_are_in_xlas_order():
    """What makes it fast: no convolution of the compiled loop has its axes in another order."""
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

    def descend(function):
        def step(w, _):
            def loss(w, x):
                return jnp.sum(function(x, w, ((1, 1), (1, 1))) ** 2)

            dw, dx = jax.grad(loss, (0, 1))(w, x)
            return w - 1e-6 * dw - 1e-6 * jnp.sum(dx), None

        loop = jax.jit(lambda w: jax.lax.scan(step, w, length=3)[0])
        text = loop.lower(kernel).compile().as_text()
        return re.findall(r"dim_labels=(\w+->\w+)", text)

    assert descend(correlate) and set(descend(correlate)) == {"b01f_01io->b01f"}
    assert set(descend(plain)) != {"b01f_01io->b01f"}
