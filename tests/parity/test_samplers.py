"""The samplers against diffusers' schedulers, step by step in PyTorch, from the same noise."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral  # noqa: E402

from geojax.diffusion import samplers  # noqa: E402
from geojax.diffusion.schedule import cosine, from_config, scaled_linear  # noqa: E402

pytestmark = pytest.mark.parity

SETTINGS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
SHAPE = (2, 4, 4, 3)


def predict(z, t, xp):
    """A smooth nonlinear stand-in for a network, in either library; `t` is [B]."""
    t = t.reshape(-1, 1, 1, 1) / 1000.0
    return 0.7 * z + 0.3 * xp.sin(2.0 * z + 3.0 * t) - 0.1 * t


def denoise(z, t):
    return predict(z, t.astype(z.dtype), jnp)


def noises(key, start, steps):
    """The noise that a stochastic sampler of geojax draws, for PyTorch."""
    draw = functools.partial(jax.random.normal, shape=SHAPE)
    return [torch.tensor(np.asarray(draw(jax.random.fold_in(key, i)))) for i in range(start, steps)]


def torch_loop(scheduler, z, steps, start, **step_arguments):
    """diffusers' pipeline loop. `z` is in the frame z = alpha x + s eps, as geojax's is."""
    scheduler.set_timesteps(steps)
    sigmas = getattr(scheduler, "sigmas", None)
    scaled = sigmas is not None and isinstance(
        scheduler, diffusers.EulerDiscreteScheduler | diffusers.EulerAncestralDiscreteScheduler
    )
    sample = torch.tensor(np.asarray(z))
    if scaled:
        sample = sample * (sigmas[start] ** 2 + 1) ** 0.5
    scheduler.set_begin_index(start) if hasattr(scheduler, "set_begin_index") else None
    extra = {name: iter(values) for name, values in step_arguments.items() if name != "eta"}
    for t in scheduler.timesteps[start:]:
        given = {name: next(values) for name, values in extra.items()}
        if "eta" in step_arguments:
            given["eta"] = step_arguments["eta"]
        model_input = scheduler.scale_model_input(sample, t)
        eps = predict(model_input, torch.full((SHAPE[0],), float(t)), torch)
        sample = scheduler.step(eps, t, sample, **given).prev_sample
    return sample.numpy()


@pytest.fixture
def z():
    return jax.random.normal(jax.random.key(7), SHAPE)


@pytest.mark.parametrize(("steps", "start"), [(20, 0), (7, 0), (10, 4)])
def test_ddim(z, steps, start):
    scheduler = diffusers.DDIMScheduler(**SETTINGS, clip_sample=False, set_alpha_to_one=False)
    got = samplers.sample_ddim(denoise, scaled_linear(), z, steps, start)
    np.testing.assert_allclose(got, torch_loop(scheduler, z, steps, start), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(samplers.time_steps(scaled_linear(), steps), scheduler.timesteps)


@pytest.mark.parametrize(("steps", "start"), [(1, 0), (7, 0), (10, 4)])
def test_trailing_ddim(z, steps, start):
    settings = {**SETTINGS, "timestep_spacing": "trailing"}
    scheduler = diffusers.DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=False)
    times = samplers.trailing_time_steps
    got = samplers.sample_ddim(denoise, scaled_linear(), z, steps, start, times=times)
    np.testing.assert_allclose(got, torch_loop(scheduler, z, steps, start), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(times(scaled_linear(), steps), scheduler.timesteps)


def test_ddim_with_noise(z):
    scheduler = diffusers.DDIMScheduler(**SETTINGS, clip_sample=False, set_alpha_to_one=False)
    key, steps, start = jax.random.key(1), 10, 2
    got = samplers.sample_ddim_stochastic(key, denoise, scaled_linear(), z, steps, 0.8, start)
    want = torch_loop(scheduler, z, steps, start, eta=0.8, variance_noise=noises(key, start, steps))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("steps", "start"), [(20, 0), (7, 3)])
def test_euler(z, steps, start):
    scheduler = diffusers.EulerDiscreteScheduler(**SETTINGS)
    got = samplers.sample_euler(denoise, scaled_linear(), z, steps, start)
    np.testing.assert_allclose(got, torch_loop(scheduler, z, steps, start), rtol=0, atol=1e-4)


def test_euler_ancestral(z, monkeypatch):
    key, steps, start = jax.random.key(2), 12, 3
    drawn = iter(noises(key, start, steps))
    monkeypatch.setattr(ancestral, "randn_tensor", lambda *a, **k: next(drawn))
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SETTINGS)
    got = samplers.sample_euler_ancestral(key, denoise, scaled_linear(), z, steps, start)
    np.testing.assert_allclose(got, torch_loop(scheduler, z, steps, start), rtol=0, atol=1e-4)
    assert next(drawn, None) is None


@pytest.mark.parametrize(("steps", "start"), [(20, 0), (6, 0), (10, 4), (3, 2)])
def test_dpm_solver(z, steps, start):
    scheduler = diffusers.DPMSolverMultistepScheduler(**SETTINGS)
    got = samplers.sample_dpm_solver(denoise, scaled_linear(), z, steps, start)
    np.testing.assert_allclose(got, torch_loop(scheduler, z, steps, start), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(
        samplers.dpm_time_steps(scaled_linear(), steps), scheduler.timesteps
    )


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedules(kind):
    scheduler = diffusers.DDIMScheduler(beta_schedule=kind, beta_start=1e-4, beta_end=0.02)
    ours = from_config(dict(scheduler.config))
    # diffusers multiplies in float32, geojax in float64
    np.testing.assert_allclose(ours.alphas_cumprod, scheduler.alphas_cumprod, rtol=2e-4)
    if kind == "squaredcos_cap_v2":
        np.testing.assert_array_equal(ours.alphas_cumprod, cosine().alphas_cumprod)
