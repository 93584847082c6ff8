"""Training a latent diffusion model: the autoencoder, then the denoiser with its text encoder.

Symbols: x image in [-1, 1], z latent, mu and log var the posterior's moments, y caption.
    (1) autoencoder   L = |x - x^| + |Dx - Dx^| + lambda KL(N(mu, var) || N(0, 1)),
                      x^ = decode(mu + std e); D the differences of neighbouring pixels
    (2) denoiser      L = E_{t, e} || v(z_t, t, y) - (alpha e - s z) ||^2,   z_t = alpha z + s e
    (3) embedding     y = sum_i w_i T(caption_i)  over the view-grid nodes around the camera
    (4) inpainting    (2) with v([z_t, m, z_m], t, y): z_m latent of what is outside the hole m

(1) Rombach et al., "High-resolution image synthesis with latent diffusion models" (2022), with the
difference term in place of its perceptual and adversarial ones. (2) Salimans & Ho, "Progressive
distillation" (2022), section 4. (3) Poole et al., "DreamFusion" (2022), section 3.2. (4)
Rombach et al., section 4.5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from geojax.diffusion.parameterization import add_noise, velocity
from geojax.diffusion.schedule import Schedule
from geojax.methods.train_state import Metrics, Params, Step, TrainState, descend
from geojax.models.clip import CLIPText
from geojax.models.judge import Judge
from geojax.models.unet import UNet
from geojax.models.vae import VAE


class Captions(NamedTuple):
    """Token ids of a batch's captions: the first, between four view-grid nodes each; then plain.

    Attributes:
      between: [K, 4, L] captions of the nodes, K from 0 to B.
      weights: [K, 4] of the nodes, summing to 1.
      loose: [B - K, L] one caption each.
    """

    between: Int[Array, "K 4 L"]
    weights: Float[Array, "K 4"]
    loose: Int[Array, "rest L"]


def _differences(x: Float[Array, "b H W 3"]) -> tuple[Array, Array]:
    return x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]


def autoencoder_step(
    vae: VAE, optimiser: optax.GradientTransformation, *, kl_weight: float, decay: float = 0.99
) -> Step:
    """A jitted step(state, image [B, H, W, 3] in [0, 1]) on equation (1); the state is donated."""

    def step(state: TrainState, image: Float[Array, "B H W 3"]) -> tuple[TrainState, Metrics]:
        x = 2.0 * image - 1.0

        def loss(params: Params, key: jax.Array) -> tuple[Float[Array, ""], Metrics]:
            variables = {"params": params}
            mean, log_variance = vae.apply(variables, x, method="encode")
            noise = jax.random.normal(key, mean.shape)
            z = mean + jnp.exp(0.5 * log_variance) * noise
            rebuilt = vae.apply(variables, z, method="decode")
            reconstruction = jnp.mean(jnp.abs(rebuilt - x))
            edges = sum(
                jnp.mean(jnp.abs(a - b))
                for a, b in zip(_differences(rebuilt), _differences(x), strict=True)
            )
            kl = 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)
            # Pixels in [-1, 1] span 2: the peak of the signal-to-noise ratio is 4.
            psnr = 10.0 * jnp.log10(4.0 / jnp.mean((rebuilt - x) ** 2))
            total = reconstruction + edges + kl_weight * kl
            return total, {"loss": total, "psnr": psnr, "kl": kl}

        return descend(state, loss, optimiser, decay)

    return jax.jit(step, donate_argnums=0)


def embed_captions(
    text_encoder: CLIPText, params: Params, captions: Captions
) -> Float[Array, "B L D"]:
    """Conditions of a batch: interpolated for the first K, (3), plain for the others."""
    count, nodes, length = captions.between.shape
    ids = jnp.concatenate([captions.between.reshape(count * nodes, length), captions.loose])
    embedded = text_encoder.apply({"params": params}, ids)
    at_nodes = embedded[: count * nodes].reshape(count, nodes, length, embedded.shape[-1])
    between = jnp.sum(captions.weights[:, :, None, None] * at_nodes, axis=1)
    return jnp.concatenate([between, embedded[count * nodes :]])


def draw_times(
    key: Key[Array, ""], batch: int, num_steps: int, late: float = 0.0
) -> Int[Array, " batch"]:
    """Time steps of a batch, in 0..num_steps - 1; `key` is consumed.

    u = t / num_steps has the density (1 + late) u^late: uniform at 0, at 1 with three quarters of
    the draws in the noisy half. One draw in each of `batch` intervals of equal probability, in
    random order: a lower variance of the loss.
    """
    draw_key, order_key = jax.random.split(key)
    share = (jnp.arange(batch, dtype=jnp.float32) + jax.random.uniform(draw_key, (batch,))) / batch
    u = jax.random.permutation(order_key, share) ** (1.0 / (1.0 + late))
    # Rounding may reach 1.
    return jnp.minimum(jnp.floor(u * num_steps), num_steps - 1).astype(jnp.int32)


def denoiser_step(
    unet: UNet,
    text_encoder: CLIPText,
    schedule: Schedule,
    optimiser: optax.GradientTransformation,
    *,
    decay: float,
    late: float = 0.0,
) -> Step:
    """A jitted step(state, latent [B, h, w, c], captions, [extra]) on (2)-(4); donates the state.

    The parameters are {"unet": ..., "text_encoder": ...}; latents have unit variance. `extra`
    [B, h, w, e] is what an inpainting network sees beside the noisy latent
    (`priors.inpainting.inpainting_channels`). `late` is that of `draw_times`: what comes into a
    hole is decided where there is much noise; where there is little, the latent says it itself.
    """

    def step(
        state: TrainState,
        latent: Float[Array, "B h w c"],
        captions: Captions,
        extra: Float[Array, "B h w e"] | None = None,
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, key: jax.Array) -> tuple[Float[Array, ""], Metrics]:
            t_key, noise_key = jax.random.split(key)
            t = draw_times(t_key, latent.shape[0], schedule.num_steps, late)
            noise = jax.random.normal(noise_key, latent.shape)
            z = add_noise(schedule, latent, noise, t)
            condition = embed_captions(text_encoder, params["text_encoder"], captions)
            shown = z if extra is None else jnp.concatenate([z, extra], axis=-1)
            v = unet.apply({"params": params["unet"]}, shown, t, condition)
            residual = jnp.mean((v - velocity(schedule, latent, noise, t)) ** 2, axis=(1, 2, 3))
            total = jnp.mean(residual)
            noisy = t >= schedule.num_steps // 2
            of_noisy = jnp.sum(jnp.where(noisy, residual, 0.0)) / jnp.maximum(jnp.sum(noisy), 1)
            return total, {"loss": total, "loss_noisy_half": of_noisy}

        return descend(state, loss, optimiser, decay)

    return jax.jit(step, donate_argnums=0)


def classifier_step(judge: Judge, optimiser: optax.GradientTransformation) -> Step:
    """A jitted step(state, image, kind [B], colour [B]) on the cross-entropy of the two labels."""

    def step(
        state: TrainState,
        image: Float[Array, "B H W 3"],
        kind: Int[Array, " B"],
        colour: Int[Array, " B"],
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, _: jax.Array) -> tuple[Float[Array, ""], Metrics]:
            logits = judge.apply({"params": params}, image)
            losses = [
                optax.softmax_cross_entropy_with_integer_labels(of, label)
                for of, label in zip(logits, (kind, colour), strict=True)
            ]
            right = (jnp.argmax(logits[0], -1) == kind) & (jnp.argmax(logits[1], -1) == colour)
            total = jnp.mean(losses[0]) + jnp.mean(losses[1])
            return total, {"loss": total, "right": jnp.mean(right.astype(jnp.float32))}

        return descend(state, loss, optimiser, 0.99)

    return jax.jit(step, donate_argnums=0)
