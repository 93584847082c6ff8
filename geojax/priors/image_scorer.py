"""Any model that scores an image, as what judges a rendering.

Symbols: x image in [0, 1] [B, S, S, 3]; y condition of a caption [B, L, D]; S score [B], large
where x is likely; k, c kind and colour of a caption; m, v mean and variance of the latent of x, D
its decoder, s deviation of a pixel around what is decoded; f_v, f_t unit embeddings of both.
    (1) classifier      S = log p(k | x) + log p(c | x)
    (2) ELBO            S = -|x - D(m)|^2 / (2 s^2) - KL(N(m, v) || N(0, 1))
    (3) discriminator   S = logit of "x is a true picture and y its caption"
    (4) CLIP            S = exp(logit_scale) <f_v, f_t>

All are logarithms of a likelihood or of a ratio of likelihoods, up to a constant: -S is an energy.
(1) knows labels, not views. (2) is the bound of Kingma and Welling, "Auto-encoding variational
Bayes" (2014), eq. 10, with its expectation taken at the mean; it has no caption, any picture of the
world pleases it. (3) Reed et al., "Generative adversarial text to image synthesis" (2016), section
4.2. (4) is the score of Jain et al., "Zero-shot text-guided object generation with Dream Fields"
(2022), section 3.2, over the temperature of the pair's training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geojax.models.clip_vision import unit
from geojax.models.discriminator import Discriminator, DiscriminatorConfig
from geojax.models.judge import Judge, JudgeConfig
from geojax.models.vae import VAE, VAEConfig
from geojax.priors.clip_score import CLIPScore, load_clip
from geojax.priors.prior import Condition, Embed, Image
from geojax.weights.folder import load_component, load_config
from geojax.worlds import captions

Score = Callable[[Any, Image, Condition], Float[Array, "B"]]


@dataclass(frozen=True)
class ImageScorer:
    """A model that scores images: its parameters and pure functions of them.

    Attributes:
      params: a pytree; pass it through the step that you jit.
      score: (params, image [B, S, S, 3] in [0, 1], condition [B, L, D]) -> S [B]. Differentiable in
        the image; S is `image_size`. Linear mixtures of conditions are conditions.
      embed: captions -> condition [B, L, D], on the host. "" is the caption that says nothing;
        ValueError for one that the model cannot understand.
      image_size: side of the images it was trained on, pixels.
    """

    params: Any
    score: Score
    embed: Embed
    image_size: int


def caption_code(caption: str, phrases: Sequence[str]) -> Float[np.ndarray, " P"]:
    """1 for each of the phrases that a caption holds, 0 for the others.

    A phrase is a word of what is before the first comma, or all that is between two commas: "red"
    and "mug", "front view" and "from above" of "a red mug, front view, from above".
    """
    subject, *views = caption.lower().split(",")
    said = {*subject.replace(".", " ").split(), *(view.strip() for view in views)}
    return np.asarray([phrase in said for phrase in phrases], np.float32)


def code_captions(phrases: Sequence[str]) -> Embed:
    """Captions -> their codes [B, 1, P], all zero for "".

    The embedding refuses (ValueError) a caption that does not name one kind and one colour of the
    world: its code would say nothing.
    """

    def embed(texts: Sequence[str]) -> Condition:
        for text in texts:
            if text and captions.parse_subject(text.split(",")[0]) is None:
                raise ValueError(
                    f"{text!r} does not name one kind and one colour of the world, as 'a red mug' "
                    "does, and this model knows nothing else"
                )
        return jnp.asarray([caption_code(text, phrases) for text in texts])[:, None]

    return embed


def classifier_score(
    kind_logits: Float[Array, "B K"],
    colour_logits: Float[Array, "B C"],
    condition: Float[Array, "B 1 W"],
) -> Float[Array, "B"]:
    """Equation (1); the condition is 1 at the kind and at the colour, W = K + C."""
    log_p = [jax.nn.log_softmax(kind_logits), jax.nn.log_softmax(colour_logits)]
    return jnp.sum(jnp.concatenate(log_p, axis=-1) * condition[:, 0], axis=-1)


def classifier_scorer(judge: Judge, params: Any) -> ImageScorer:
    """Equation (1) of a classifier of kind and colour; views in a caption are not heard."""
    config = judge.config

    def score(params: Any, image: Image, condition: Condition) -> Float[Array, "B"]:
        kind, colour = judge.apply({"params": params}, image)
        return classifier_score(kind, colour, condition)

    embed = code_captions((*config.kinds, *config.colours))
    return ImageScorer(params, score, embed, config.image_size)


def elbo(
    image: Image,
    rebuilt: Image,
    mean: Float[Array, "B h w c"],
    log_variance: Float[Array, "B h w c"],
    deviation: float,
) -> Float[Array, "B"]:
    """Equation (2), in nats, without the constant of the Gaussian.

    Args:
      image: x, in [0, 1].
      rebuilt: D(m), in the same range.
      mean: m.
      log_variance: log v.
      deviation: s.
    """
    axes = (1, 2, 3)
    error = jnp.sum((image - rebuilt) ** 2, axis=axes) / (2.0 * deviation**2)
    kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=axes)
    return -error - kl


def elbo_scorer(vae: VAE, params: Any, deviation: float = 0.1) -> ImageScorer:
    """Equation (2) of an autoencoder; whatever the caption says, the score is the same."""

    def score(params: Any, image: Image, condition: Condition) -> Float[Array, "B"]:
        del condition
        variables = {"params": params}
        mean, log_variance = vae.apply(variables, 2.0 * image - 1.0, method="encode")
        rebuilt = 0.5 * vae.apply(variables, mean, method="decode") + 0.5
        return elbo(image, rebuilt, mean, log_variance, deviation)

    def embed(texts: Sequence[str]) -> Condition:
        return jnp.zeros((len(texts), 1, 1))

    return ImageScorer(params, score, embed, vae.config.sample_size)


def discriminator_scorer(network: Discriminator, params: Any) -> ImageScorer:
    """Equation (3) of a discriminator of pictures and captions."""

    def score(params: Any, image: Image, condition: Condition) -> Float[Array, "B"]:
        return network.apply({"params": params}, image, condition[:, 0])

    config = network.config
    return ImageScorer(params, score, code_captions(config.phrases), config.image_size)


def clip_scorer(clip: CLIPScore) -> ImageScorer:
    """Equation (4); between the views that captions name, the text embeddings are interpolated."""

    def score(params: Any, image: Image, condition: Condition) -> Float[Array, "B"]:
        text = unit(condition[:, 0])
        return clip.logit_scale * jnp.sum(clip.embed_image(params, image) * text, axis=-1)

    def embed(texts: Sequence[str]) -> Condition:
        return clip.embed_text(texts)[:, None]

    return ImageScorer(clip.params, score, embed, clip.image_size)


def load_classifier_scorer(folder: str | Path) -> ImageScorer:
    """Equation (1) of the classifier in a folder; raises as `load_component`."""
    judge = Judge(JudgeConfig.from_dict(load_config(folder, "Judge")))
    return classifier_scorer(judge, load_component(folder, judge))


def load_elbo_scorer(folder: str | Path) -> ImageScorer:
    """Equation (2) of the autoencoder in a folder; raises as `load_component`."""
    vae = VAE(VAEConfig.from_dict(load_config(folder, "AutoencoderKL")))
    return elbo_scorer(vae, load_component(folder, vae))


def load_discriminator_scorer(folder: str | Path) -> ImageScorer:
    """Equation (3) of the discriminator in a folder; raises as `load_component`."""
    config = load_config(folder, "Discriminator")
    network = Discriminator(DiscriminatorConfig.from_dict(config))
    return discriminator_scorer(network, load_component(folder, network))


def load_clip_scorer(folder: str | Path) -> ImageScorer:
    """Equation (4) of the pair of towers in a folder; raises as `load_clip`."""
    return clip_scorer(load_clip(folder))
