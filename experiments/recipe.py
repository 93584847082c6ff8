"""What a recipe of configs/distill/ names, as functions: scene, time steps, loss, step."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from experiments.room_recipe import inside_cameras, is_inside
from experiments.scorer_recipe import choose_transmittance
from geojax.geometry.camera_sampling import CameraDistribution, sample_views
from geojax.methods import denoiser_critic, score_distillation, text_to_3d, timesteps
from geojax.methods.score_distillation import Loss
from geojax.methods.scorer_critic import scorer_critic
from geojax.methods.variational import OwnTraining
from geojax.models.backgrounds import TextureBackground, with_background
from geojax.models.fields import Field, HashGridField, VoxelField, as_field, hollow_box, linear_blob
from geojax.priors.image_scorer import ImageScorer
from geojax.priors.prior import Prior

FIELDS = ("hash", "voxels")


def choose_loss(config: Any) -> Loss:
    """The loss that `config.loss` names.

    Raises:
      ValueError: for any other name.
    """
    losses = {
        "sds": score_distillation.SDS,
        "sjc": score_distillation.SJC,
        "sjc_plain": score_distillation.SJC_PLAIN,
        "vsd": score_distillation.VSD,
        "csd": score_distillation.CSD,
        "nfsd": score_distillation.NFSD,
        "ism": score_distillation.ISM._replace(inversion=tuple(config.inversion)),
        "pgc": score_distillation.PGC,
    }
    loss = _known("loss", config.loss, losses)
    if config.loss == "csd" and config.negative_prompt is not None:
        loss = score_distillation.CSD_NEGATIVE
    return loss


def choose_times(config: Any, num_steps: int) -> denoiser_critic.Times:
    """(key, step, count) -> t, by `config.times`; of hifa and dreamtime the same t for all views.

    Raises:
      ValueError: for any other name.
    """
    first, last, steps = config.t_first, config.t_last, config.steps

    def linear(key, step, count):
        between = timesteps.linear_range(step, first, last, steps)
        return timesteps.stratified(key, count, between, num_steps)

    def jump(key, step, count):
        between = timesteps.jump_range(step, first, last, round(config.jump_at * steps))
        return timesteps.stratified(key, count, between, num_steps)

    def hifa(key, step, count):
        del key  # deterministic
        return timesteps.sqrt_annealed(step, steps, count, (last[0], first[1]), num_steps)

    weights = timesteps.dreamtime_weights(num_steps)

    def dreamtime(key, step, count):
        del key
        return timesteps.dreamtime(step, steps, count, weights)

    known = {"linear": linear, "jump": jump, "hifa": hifa, "dreamtime": dreamtime}
    return _known("times", config.times, known)


def choose_optimiser(config: Any, rate: Any) -> optax.GradientTransformation:
    """The optimiser that `config.optimiser` names, at a rate or a schedule of it.

    Raises:
      ValueError: for any other name.
    """
    # Gradients of a distillation are tiny where a cell is seldom seen: the floors must be too.
    match config.optimiser:
        case "adam":
            return optax.adam(rate, b1=0.9, b2=0.99, eps=1e-15)
        case "adan":  # Xie et al. (2022), with the numbers of the public reimplementations
            return optax.adan(
                rate, b1=0.98, b2=0.92, b3=0.99, eps=1e-15, eps_root=0.0, weight_decay=2e-5
            )
    raise ValueError(f"config.optimiser={config.optimiser!r} is not one of adam, adan")


class Scene(NamedTuple):
    """What is optimised.

    Attributes:
      field: density, and colour or latent.
      background: learnt with it, or None.
      optimiser: of both.
    """

    field: Field
    background: text_to_3d.BackgroundOf | None
    optimiser: optax.GradientTransformation


def make_field(config: Any, channels: int = 3) -> Field:
    """The field of a recipe: of colours in [0, 1], or of `channels` of a latent.

    Raises:
      ValueError: for an unknown `config.field.kind`.
    """
    f = config.field

    def blob(points):
        if is_inside(config) and config.inside.hollow:
            return hollow_box(points, tuple(config.inside.hollow), config.inside.slope)
        return linear_blob(points, f.blob_scale, f.blob_radius)

    shared: dict[str, Any] = {
        "channels": channels,
        "radius": f.radius,
        "blob": blob,
        "feature_activation": (lambda x: x) if config.latent else jax.nn.sigmoid,
    }
    if f.kind == "hash":
        return as_field(
            HashGridField(
                levels=f.levels,
                table_size=f.table_size,
                coarsest=f.coarsest,
                finest=f.finest,
                **shared,
            )
        )
    if f.kind == "voxels":
        return as_field(
            VoxelField(ball=f.radius, size=f.voxels, feature_std=f.feature_std, **shared)
        )
    raise ValueError(f"config.field.kind={f.kind!r} is not one of {FIELDS}")


def make_scene(config: Any, model: Prior | ImageScorer) -> Scene:
    """Field, background and optimiser of a recipe."""
    channels = model.latent_channels if config.latent and isinstance(model, Prior) else 3
    field = make_field(config, channels)
    # A falling rate averages the noise of the last steps out of the surface.
    schedule = partial(
        optax.cosine_decay_schedule,
        decay_steps=config.steps,
        alpha=config.field.learning_rate_last_share,
    )
    optimiser = choose_optimiser(config, schedule(config.field.learning_rate))
    if not config.background.learnt:
        return Scene(field, None, optimiser)
    b = config.background
    texture = TextureBackground(channels=channels, std=b.std)
    field, behind = with_background(field, as_field(texture))
    slow = choose_optimiser(config, schedule(b.learning_rate))
    both = optax.multi_transform(
        {"field": optimiser, "background": slow}, {"field": "field", "background": "background"}
    )
    return Scene(field, behind, both)


def own_training(config: Any) -> OwnTraining | None:
    """How VSD's network is learnt; None for the other losses."""
    if config.loss != "vsd":
        return None
    optimiser = optax.adamw(config.own.learning_rate, weight_decay=1e-2)
    return OwnTraining(config.own.rank, optimiser, config.own.velocity)


def sample_capacity(config: Any, large: bool) -> int:
    """Most samples a step evaluates: `config.capacity` at the small size, as many a ray at the
    large one."""
    growth = config.large_size / config.small_size if large else 1.0
    return round(growth**2 * config.capacity)


def choose_critic(
    config: Any, model: Prior | ImageScorer, own: OwnTraining | None
) -> text_to_3d.Critic:
    """What judges renderings: score distillation of a prior, or the score of a scorer."""
    if isinstance(model, ImageScorer):
        transmittance = choose_transmittance(config)
        return scorer_critic(model, weight=config.scorer.weight, transmittance=transmittance)
    return denoiser_critic.denoiser_critic(
        model,
        guidance=config.guidance,
        times=choose_times(config, model.schedule.num_steps),
        loss=choose_loss(config),
        latent=config.latent,
        own=own,
        perp_neg=config.perp_neg,
    )


def choose_cameras(config: Any, field: Field) -> text_to_3d.Cameras:
    """Where a recipe looks from: around an object, or within a scene where it has `inside`."""
    if is_inside(config):
        return inside_cameras(config, field)
    distribution = CameraDistribution(**config.cameras)
    return lambda key, count, size, state: sample_views(key, distribution, count, size, size)


def view_mesh(config: Any) -> jax.sharding.Mesh:
    """The devices that a recipe's views are dealt to, along the axis "views"."""
    devices = math.gcd(jax.device_count(), config.views)
    # "Auto": the compiler places what the step does not.
    return jax.make_mesh((devices,), ("views",), axis_types=(jax.sharding.AxisType.Auto,))


def make_step(
    config: Any,
    model: Prior | ImageScorer,
    scene: Scene,
    own: OwnTraining | None,
    *,
    large: bool,
    shaded: bool,
) -> Callable[..., Any]:
    """One jitted step of a recipe, at the small or the large size, lit or not."""
    mesh = view_mesh(config)
    size = config.large_size if large else config.small_size
    if config.latent and isinstance(model, Prior):
        size = size * model.latent_size // model.image_size
    return text_to_3d.distillation_step(
        choose_critic(config, model, own),
        scene.field,
        scene.optimiser,
        mesh,
        views=config.views,
        size=size,
        cameras=choose_cameras(config, scene.field),
        radius=config.field.radius,
        samples=config.samples,
        capacity=sample_capacity(config, large),
        shaded=shaded,
        ambient=config.ambient,
        textureless=config.textureless,
        steps=config.steps,
        weights=text_to_3d.Weights(**config.weights),
        grid_every=config.grid_every,
        background=scene.background,
    )


def _known(name: str, value: str, known: dict[str, Any]) -> Any:
    if value not in known:
        raise ValueError(f"config.{name}={value!r} is not one of {', '.join(known)}")
    return known[value]
