"""Training a discriminator: true pictures with their captions against whatever is not.

Symbols: D(x, e) the logit of "x is a true picture and e its caption"; e' a caption of something
else; x' a picture spoilt.
    (1) L = E softplus(-D(x, e)) + 1/2 E softplus(D(x, e')) + 1/2 E softplus(D(x', e))
            + gamma / 2 E |grad_x D(x, e)|^2
    (2) x' is x with noise, x blurred, x through which another picture shines, x with its quarters
        in other places, or the background alone, each as often

There is no generator here whose pictures were the false ones, so (2) stands for what a field may
render before it is right: a fog, a blur, two objects at once, parts in the wrong place, nothing.
(1) is matching-aware, Reed et al., "Generative adversarial text to image synthesis" (2016), section
4.2: without e' a discriminator need not look at the caption. At the least (1), D is the logarithm
of the true pairs' density over the others'. The last term is R1 of Mescheder et al., "Which
training methods for GANs do actually converge?" (2018): D is used for its gradient, and a true
picture should be left as it is.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from geojax.methods.train_state import Metrics, Params, Step, TrainState, descend
from geojax.models.discriminator import Discriminator

SPOILT = 5
"""Ways of (2)."""


def spoil(key: Key[Array, ""], image: Float[Array, "B S S 3"]) -> Float[Array, "B S S 3"]:
    """Equation (2): each picture spoilt in one way, drawn for each; the key is consumed.

    Args:
      image: in [0, 1]; S is a multiple of 8.
    """
    batch, size = image.shape[:2]
    keys = jax.random.split(key, 6)
    each = (batch, 1, 1, 1)

    level = jax.random.uniform(keys[0], each, minval=0.1, maxval=0.6)
    noisy = image + level * jax.random.normal(keys[1], image.shape)

    def blurred(factor: int) -> Float[Array, "B S S 3"]:
        side = size // factor
        small = jax.image.resize(image, (batch, side, side, 3), "linear")
        return jax.image.resize(small, image.shape, "linear")

    strong = jax.random.bernoulli(keys[2], 0.5, each)
    blurry = jnp.where(strong, blurred(8), blurred(4))

    share = jax.random.uniform(keys[3], each, minval=0.3, maxval=0.7)
    ghost = share * image + (1.0 - share) * jnp.roll(image, 1, axis=0)

    half = size // 2
    by = ((half, 0), (0, half), (half, half))
    moves = jnp.stack([jnp.roll(image, both, (1, 2)) for both in by])
    torn = moves[jax.random.randint(keys[4], (batch,), 0, len(moves)), jnp.arange(batch)]

    empty = jnp.broadcast_to(image[:, :1, :1], image.shape)
    ways = jnp.stack([noisy, blurry, ghost, torn, empty])
    way = jax.random.randint(keys[5], (batch,), 0, SPOILT)
    return ways[way, jnp.arange(batch)]


def discriminator_step(
    network: Discriminator,
    optimiser: optax.GradientTransformation,
    *,
    penalty: float,
    decay: float = 0.99,
) -> Step:
    """A jitted step(state, image, code, wrong_code) on equation (1); the state is donated.

    `image` [B, S, S, 3] in [0, 1], `code` and `wrong_code` [B, P] of its caption and of another's;
    `penalty` is gamma.
    """

    def step(
        state: TrainState,
        image: Float[Array, "B S S 3"],
        code: Float[Array, "B P"],
        wrong_code: Float[Array, "B P"],
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, key: jax.Array) -> tuple[Float[Array, ""], Metrics]:
            def logits(x: Float[Array, "B S S 3"], e: Float[Array, "B P"]) -> Float[Array, "B"]:
                return network.apply({"params": params}, x, e)

            true, pull = jax.vjp(lambda x: logits(x, code), image)
            slope = jnp.mean(jnp.sum(pull(jnp.ones_like(true))[0] ** 2, axis=(1, 2, 3)))
            other, spoilt = logits(image, wrong_code), logits(spoil(key, image), code)
            false = 0.5 * (jnp.mean(jax.nn.softplus(other)) + jnp.mean(jax.nn.softplus(spoilt)))
            total = jnp.mean(jax.nn.softplus(-true)) + false + 0.5 * penalty * slope
            right = [true > 0.0, other < 0.0, spoilt < 0.0]
            names = ("right", "right_mismatched", "right_spoilt")
            shares = {n: jnp.mean(r.astype(jnp.float32)) for n, r in zip(names, right, strict=True)}
            return total, {"loss": total, "slope": slope, **shares}

        return descend(state, loss, optimiser, decay)

    return jax.jit(step, donate_argnums=0)
