"""What the recipes name: every variant, and what is refused."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.distill import stable_diffusion, worlds
from experiments import distill, recipe, scorer_recipe
from geojax.methods import score_distillation as family
from geojax.methods.scorer_critic import Transmittance
from tests.experiments.binaries import ROOT

RESIDUALS = {
    "sjc": family.sds,
    "sjc_pixels": family.sds,
    "vsd": family.vsd,
    "csd": family.csd,
    "nfsd": family.nfsd,
    "ism": family.sds,
    "pgc": family.pgc,
}


@pytest.mark.parametrize("variant", worlds.VARIANTS)
def test_every_variant_is_a_sound_recipe(variant):
    config = worlds.get_config(variant)
    distill.check_config(config, "a red mug")
    loss = recipe.choose_loss(config)
    assert loss.residual is RESIDUALS.get(variant, family.sds)
    assert (loss.inversion is not None) == (variant == "ism")
    assert (recipe.own_training(config) is not None) == (variant == "vsd")
    times = jax.jit(recipe.choose_times(config, 1000), static_argnums=2)
    first, last = (np.asarray(times(jax.random.key(0), i, 4)) for i in (0, config.steps - 1))
    assert first.shape == (4,) and first.dtype == np.int32
    if variant in ("dreamtime", "hifa"):
        assert len(set(first)) == 1 and first[0] > 950 > 450 > last[0]


def test_without_a_name_it_is_dreamfusions():
    for config in (worlds.get_config(), worlds.get_config("")):
        assert config.to_dict() == worlds.get_config("sds").to_dict()
    assert recipe.choose_loss(stable_diffusion.get_config()) == family.SDS


def test_unknown_names_are_refused_with_those_known():
    with pytest.raises(ValueError, match=r"'sdz'.*sds, sjc, "):
        worlds.get_config("sdz")
    config = worlds.get_config()
    config.loss = "score"
    with pytest.raises(ValueError, match=r"config\.loss='score' is not one of sds, sjc, "):
        distill.check_config(config, "a red mug")
    config = worlds.get_config()
    config.times = "often"
    with pytest.raises(ValueError, match=r"config\.times='often' is not one of linear, jump"):
        distill.check_config(config, "a red mug")
    config = worlds.get_config()
    config.field.kind = "mesh"
    with pytest.raises(ValueError, match=r"config\.field.kind='mesh'"):
        recipe.make_field(config)


def test_what_does_not_go_together_is_refused():
    config = worlds.get_config("sjc")
    config.shaded_share = 0.5
    with pytest.raises(ValueError, match=r"config\.latent=True needs"):
        distill.check_config(config, "a red mug")
    config = worlds.get_config("sjc")
    config.picture_size = 90
    with pytest.raises(ValueError, match=r"picture_size=90 must be a multiple of 8 with .*latent"):
        distill.check_config(config, "a red mug")
    config = worlds.get_config("nfsd")
    config.negative_prompt = None
    with pytest.raises(ValueError, match=r"needs config\.negative_prompt"):
        distill.check_config(config, "a red mug")
    config = worlds.get_config("ism")
    config.negative_prompt = "a grey cube"
    with pytest.raises(ValueError, match=r"negative_prompt='a grey cube' with config\.loss='ism'"):
        distill.check_config(config, "a red mug")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", -1, "at least 0, got -1"),
        ("inversion", (0, 50), "1 or more"),
        ("inversion", (4.5, 50), "whole numbers"),
        ("t_first", (0.3,), r"0 <= low < high <= 1, got \(0.3,\)"),
        ("t_last", (0.5, 0.2), "0 <= low < high <= 1"),
        ("view_elevations", (0.0,), "must have a row of config.view_suffixes"),
        ("own.learning_rate", 0.0, "must be positive"),
        ("weights.air_radius", -0.1, "must be positive"),
        ("jump_at", 1.5, r"a share in \[0, 1\], got 1\.5"),
        ("seed", 2**32, r"under 2\^32"),
        ("stop_after", -1, "at least 0"),
        ("capacity", 0, "at least 1, got 0"),
        ("grid_resolution", 0, "at least 1"),
        ("mesh_resolution", 1, "at least 2, got 1"),
        ("picture_size", 0, "at least 8"),
        ("field.levels", 0, "at least 1"),
        ("field.table_size", 0, "at least 1"),
        ("field.coarsest", 1, "at least 2"),
        ("field.finest", 7, "is under config.field.coarsest=8"),
        ("field.voxels", 1, "at least 2"),
        ("field.radius", 0.0, "must be positive"),
        ("field.learning_rate", 0.0, "must be positive"),
        ("field.kind", "mesh", "is not one of"),
        ("optimiser", "sgd", "is not one of adam, adan"),
        ("dtype", "int8", "is not one of float32, bfloat16, float16"),
    ],
)
def test_a_value_that_could_only_fail_later_is_refused(name, value, said):
    config = worlds.get_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(ValueError, match=f"{name.split('.')[-1]}.*{said}"):
        distill.check_config(config, "a red mug")


def test_an_optimiser_by_its_name(tmp_path):
    """Both go downhill; Adan keeps the gradient before, which Adam has no use for."""
    config, sizes = worlds.get_config(), {}
    params = {"x": jnp.asarray([3.0, -2.0])}
    for name in ("adam", "adan"):
        config.optimiser = name
        optimiser = recipe.make_scene(config, None).optimiser
        state, x = optimiser.init(params), params
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(state))
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(5):
                gradient = jax.tree.map(lambda leaf: 1e-6 * leaf, x)
                updates, state = optimiser.update(gradient, state, x)
                x = optax.apply_updates(x, updates)
        # A step is about the rate, however small the gradient.
        np.testing.assert_allclose(params["x"] - x["x"], [0.05, -0.05], rtol=0.1)
    assert sizes["adan"] >= sizes["adam"] + 4


def test_the_capacity_grows_with_the_rays():
    config = worlds.get_config()
    assert recipe.sample_capacity(config, large=False) == config.capacity
    assert recipe.sample_capacity(config, large=True) == 4 * config.capacity
    config.small_size = 40  # 1.6 times as many pixels a side, which integers make 1
    assert recipe.sample_capacity(config, large=True) == round(2.56 * config.capacity)


def test_a_negative_prompt_changes_csd():
    config = worlds.get_config("csd")
    config.negative_prompt = "a grey cube"
    assert recipe.choose_loss(config).residual is family.csd_negative


@pytest.mark.parametrize("variant", ["vsd", "ism", "nfsd"])
def test_perp_neg_is_refused_where_it_has_no_meaning(variant):
    config = worlds.get_config(variant)
    config.perp_neg = True
    with pytest.raises(ValueError, match=f"perp_neg=True with config.loss='{variant}'"):
        distill.check_config(config, "a red mug")


def test_jump_and_linear_differ_in_the_middle():
    config = worlds.get_config()
    config.t_first, config.t_last = (0.9, 0.98), (0.02, 0.1)
    linear = recipe.choose_times(config, 1000)(jax.random.key(0), 199, 8)
    config.times = "jump"
    times = recipe.choose_times(config, 1000)
    before, after = (times(jax.random.key(0), i, 8) for i in (199, 200))
    assert int(linear.min()) > 400 and int(linear.max()) < 600
    assert int(before.min()) >= 900 and int(after.max()) <= 100


@pytest.mark.parametrize("variant", worlds.SCORERS)
def test_every_scorer_is_a_sound_recipe_or_names_what_is_missing(variant):
    config = worlds.get_config(variant)
    config.model = str(ROOT / config.model)
    folder = Path(config.model) / scorer_recipe.SCORERS[variant].part
    assert scorer_recipe.is_scored(config)
    if folder.is_dir():
        distill.check_config(config, "a red mug")
    else:
        said = f"'{variant}' needs the folder {folder}; .*train_worlds.*--stage={variant} trains it"
        with pytest.raises(FileNotFoundError, match=said):
            distill.check_config(config, "a red mug")


def test_what_an_absent_scorer_needs_is_said(tmp_path):
    config = worlds.get_config("discriminator")
    config.model = str(tmp_path)
    said = "scorers/discriminator; python -m experiments.train_worlds .*--stage=discriminator"
    with pytest.raises(FileNotFoundError, match=said):
        distill.check_config(config, "a red mug")
    config = worlds.get_config("clip")
    config.model = str(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"needs the folder .*/clip$"):
        distill.check_config(config, "a red mug")


@pytest.mark.parametrize(
    ("variant", "field", "value", "said"),
    [
        ("sds", "loss", "clip", "'clip' needs the fields config.scorer"),
        ("clip", "latent", True, "config.latent must be off|config.latent=True needs"),
        ("clip", "scorer.transmittance_range", (0.9, 0.1), r"first <= last <= 1, got \(0.9, 0.1\)"),
        ("clip", "scorer.transmittance_range", (0.4,), r"first <= last <= 1, got \(0.4,\)"),
        ("clip", "scorer.transmittance_over", 0.0, "transmittance_over=0.0 must be a share"),
    ],
)
def test_a_scorers_bad_setting_is_refused(variant, field, value, said):
    config = worlds.get_config(variant)
    config.model = str(ROOT / config.model)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=said):
        distill.check_config(config, "a red mug")


def test_a_recipes_transmittance_is_a_share_of_its_run():
    config = worlds.get_config("clip")
    config.steps, config.scorer.transmittance, config.scorer.transmittance_over = 200, 3.0, 0.25
    config.scorer.transmittance_range = (0.2, 0.6)
    found = scorer_recipe.choose_transmittance(config)
    assert found == Transmittance(3.0, 0.2, 0.6, 50)
    config.scorer.transmittance = 0.0
    assert scorer_recipe.choose_transmittance(config) is None
