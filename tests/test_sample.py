"""Samplers: orders against a closed form, steps against diffusers, moments, purity, seeds.

For Gaussian data N(m, s²) everything is known: the denoiser

    x̂_0(x_t) = m + α_t s²/(α_t² s² + σ_t²) (x_t − α_t m)

and the probability-flow ODE, along which (x_t − α_t m)/√(α_t² s² + σ_t²) is constant.
"""

import importlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genkit.diffusion.denoise import Denoises
from genkit.diffusion.grid import Karras, Trailing, Uniform
from genkit.diffusion.sample import (
    DDIM,
    DDPM,
    DEIS,
    DPMPP2M,
    DPMPP2MSDE,
    DPMPP3M,
    IPNDM,
    Euler,
    EulerAncestral,
    Heun,
    UniPC,
    noise,
)
from genkit.diffusion.schedule import Cosine, LinearBeta, Rectified, Schedule
from genkit.distributions import Dirac

SCHEDULES = [LinearBeta(), Cosine(), Rectified(), Rectified(shift=3.0)]
SAMPLERS = [DDPM(), DDIM(), DDIM(eta=0.5), Euler(), EulerAncestral(), Heun(), DPMPP2M()]
SAMPLERS += [DPMPP2MSDE(), DPMPP3M(), UniPC(), UniPC(order=2), DEIS(), IPNDM()]
MEAN, STD = 0.3, 0.8


class Gaussians:
    """The exact denoiser of N(MEAN, STD²) data."""

    passes = 1

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        gain = alpha * STD**2 / (alpha.square() * STD**2 + sigma.square())
        return Dirac(MEAN + gain * (x_t - alpha * MEAN))


class Replay:
    """A denoiser that says fixed things, one after the other."""

    passes = 1

    def __init__(self, schedule: Schedule, estimates: list[Tensor]) -> None:
        self.schedule, self.estimates = schedule, iter(estimates)

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        return Dirac(next(self.estimates))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def flowed(schedule: Schedule, x: Tensor, start: float, stop: float) -> Tensor:
    alpha, sigma = schedule(torch.tensor([start, stop], dtype=torch.float64))
    width = (alpha.square() * STD**2 + sigma.square()).sqrt()
    return alpha[1] * MEAN + width[1] / width[0] * (x - alpha[0] * MEAN)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("sampler", "order"), [(DDIM(), 1), (Euler(), 1), (Heun(), 2), (DPMPP2M(), 2)]
)
def test_convergence_order(schedule, sampler, order, rng):
    x = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    exact = flowed(schedule, x, 0.9, 0.1)
    errors = []
    for steps in (128, 256):
        *_, state = sampler.trajectory(Gaussians(schedule), x, steps, start=0.9, stop=0.1)
        errors.append((state.x - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
    assert errors[1] < (0.01 if order == 1 else 1e-4)


@pytest.mark.parametrize("schedule", [Rectified(), Rectified(shift=3.0), Cosine()])
@pytest.mark.parametrize("sampler", [DDIM(), Euler(), Heun(), DPMPP2M()])
@pytest.mark.parametrize("grid", [Uniform(), Trailing(), Karras()])
def test_from_pure_noise_to_data(schedule, sampler, grid, rng):
    """Start at α = 0 (or 5e-5), end at σ = 0: everything stays finite and near the flow map."""
    x = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    sampler = type(sampler)(grid=grid)
    x0 = sampler(Gaussians(schedule), x, 200)
    assert (x0 - (MEAN + STD * x)).abs().max() < 0.05


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (DDPM(), 0.06),
        (DDIM(), 0.04),
        (DDIM(eta=0.5), 0.05),
        (Heun(), 0.02),
        (DPMPP2M(), 0.02),
        (DPMPP2MSDE(), 0.03),
    ],
)
def test_samples_have_the_moments_of_the_data(schedule, sampler, tolerance):
    rngs = generators(*range(8))
    x = noise(rngs, (1, 64, 64))
    x = sampler(Gaussians(schedule), x, 100, rngs=rngs)
    # 32,768 draws tell the deviation to 0.4 %; the rest is the bias of 100 steps, ∝ 1/n or 1/n².
    assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x.std().item() == pytest.approx(STD, rel=tolerance)


def test_heun_is_finite_from_the_start_of_a_cosine_schedule():
    """σ/α falls from 20,000 to 15 in the first step: in that coordinate Heun would explode."""
    x = noise(generators(0), (1, 8, 8))
    x0 = Heun()(Gaussians(Cosine()), x, 20)
    assert (x0 - (MEAN + STD * x)).abs().max() < 0.1


@pytest.mark.parametrize("sampler", [DDPM(), EulerAncestral()])
def test_ancestral_samplers_are_ddim_with_all_noise_drawn_anew(sampler):
    for schedule in SCHEDULES:
        x = noise(generators(7, 8), (1, 4, 4), torch.float64)
        a = sampler(Gaussians(schedule), x, 10, rngs=generators(1, 2))
        b = DDIM(eta=1.0)(Gaussians(schedule), x, 10, rngs=generators(1, 2))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_euler_is_deterministic_ddim():
    for schedule in SCHEDULES:
        x = noise(generators(7), (1, 4, 4), torch.float64)
        a, b = (s(Gaussians(schedule), x, 10) for s in (Euler(), DDIM()))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_euler_of_a_straight_line_is_the_plain_one():
    """dx/dt = ε − x_0 on the rectified schedule: x + (s − t) v."""
    x = noise(generators(0), (1, 4, 4), torch.float64)
    model = Gaussians(Rectified())
    x0 = model(x, torch.tensor([0.8])).mean
    stepped, _ = Euler().step(model, x, 0.8, 0.6, ())
    torch.testing.assert_close(stepped, x - 0.2 * (x - x0) / 0.8)


# Step by step against diffusers, the same model outputs given to both


class _Double:
    """A module whose float32 is float64: diffusers rounds to float32 in many places."""

    def __init__(self, module: object) -> None:
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, "float64" if name == "float32" else name)


def scheduler_of(
    monkeypatch: pytest.MonkeyPatch, file: str, name: str, **config: object
) -> object:
    module = importlib.import_module(f"diffusers.schedulers.{file}")
    monkeypatch.setattr(module, "torch", _Double(torch))
    if hasattr(module, "np"):
        monkeypatch.setattr(module, "np", _Double(np))
    return getattr(module, name)(num_train_timesteps=1000, **config)


CHAIN = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SAMPLE = {"prediction_type": "sample", "timestep_spacing": "trailing"}
STEPS = 20


def assert_agrees(scheduler: object, sampler: object, schedule: Schedule, draw: bool) -> None:
    """Run both on fixed estimates of x_0; diffusers' state is x for VP and x/α for Euler."""
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(3)
    estimates = list(torch.randn(STEPS, 1, 1, 4, 4, generator=generator, dtype=torch.float64))
    x = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64)
    states = sampler.trajectory(Replay(schedule, estimates), x, STEPS, rngs=generators(5))
    other = generators(5)
    theirs = x
    for i, (state, x0) in enumerate(zip(states, estimates, strict=True)):
        # float32 noise, as genkit draws it
        extra = {"variance_noise": noise(other, (1, 4, 4), torch.float64)} if draw else {}
        if isinstance(sampler, DDPM):
            theirs = _ddpm_step(scheduler, x0, scheduler.timesteps[i], theirs, extra)
        else:
            theirs = scheduler.step(x0, scheduler.timesteps[i], theirs, **extra).prev_sample
        torch.testing.assert_close(state.x, theirs, rtol=1e-9, atol=1e-9)


def _ddpm_step(scheduler: object, x0: Tensor, t: Tensor, x: Tensor, extra: dict) -> Tensor:
    """diffusers' DDPM draws its own noise: take the mean from it, and its variance for ours."""
    module = importlib.import_module("diffusers.schedulers.scheduling_ddpm")
    original, module.randn_tensor = (
        module.randn_tensor,
        lambda *_, **__: extra["variance_noise"],
    )
    try:
        return scheduler.step(x0, t, x).prev_sample
    finally:
        module.randn_tensor = original


def test_ddpm_is_diffusers(monkeypatch):
    theirs = scheduler_of(
        monkeypatch, "scheduling_ddpm", "DDPMScheduler", **CHAIN, **SAMPLE, clip_sample=False
    )
    assert_agrees(theirs, DDPM(grid=Trailing()), LinearBeta(), draw=True)


def test_ddim_is_diffusers(monkeypatch):
    theirs = scheduler_of(
        monkeypatch, "scheduling_ddim", "DDIMScheduler", **CHAIN, **SAMPLE, clip_sample=False
    )
    assert_agrees(theirs, DDIM(grid=Trailing()), LinearBeta(), draw=False)


def test_ddim_with_noise_is_diffusers(monkeypatch):
    theirs = scheduler_of(
        monkeypatch, "scheduling_ddim", "DDIMScheduler", **CHAIN, **SAMPLE, clip_sample=False
    )
    step = theirs.step
    monkeypatch.setattr(theirs, "step", lambda *a, **k: step(*a, eta=0.7, **k))
    assert_agrees(theirs, DDIM(grid=Trailing(), eta=0.7), LinearBeta(), draw=True)


@pytest.mark.parametrize(
    ("schedule", "chain"),
    [(LinearBeta(), CHAIN), (Cosine(), {"beta_schedule": "squaredcos_cap_v2"})],
)
def test_dpm_solver_pp_2m_is_diffusers(monkeypatch, schedule, chain):
    theirs = scheduler_of(
        monkeypatch,
        "scheduling_dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        **chain,
        **SAMPLE,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    assert_agrees(theirs, DPMPP2M(grid=Trailing()), schedule, draw=False)


def test_euler_is_diffusers(monkeypatch):
    """Their state is x/α_t, their model output ε̂ (they refuse estimates of x_0)."""
    theirs = scheduler_of(
        monkeypatch,
        "scheduling_euler_discrete",
        "EulerDiscreteScheduler",
        **CHAIN,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(STEPS)
    schedule, rng = LinearBeta(), torch.Generator().manual_seed(3)
    estimates = list(torch.randn(STEPS, 1, 1, 4, 4, generator=rng, dtype=torch.float64))
    x = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    times = Trailing()(schedule, STEPS)
    y = x / schedule(times[0])[0]
    states = Euler(grid=Trailing()).trajectory(Replay(schedule, estimates), x, STEPS)
    for i, (state, x0) in enumerate(zip(states, estimates, strict=True)):
        alpha, sigma = schedule(times[i])
        epsilon = (y - x0) / (sigma / alpha)
        y = theirs.step(epsilon, theirs.timesteps[i], y).prev_sample
        alpha = schedule(times[i + 1])[0] if i + 1 < STEPS else 1
        torch.testing.assert_close(state.x, alpha * y, rtol=1e-9, atol=1e-9)


def test_euler_ancestral_is_diffusers(monkeypatch):
    """As for Euler; they draw their own noise, which is replaced by ours."""
    file = "scheduling_euler_ancestral_discrete"
    theirs = scheduler_of(
        monkeypatch, file, "EulerAncestralDiscreteScheduler", **CHAIN, timestep_spacing="trailing"
    )
    module, draws = importlib.import_module(f"diffusers.schedulers.{file}"), generators(5)
    monkeypatch.setattr(
        module, "randn_tensor", lambda *_, **__: noise(draws, (1, 4, 4), torch.float64)
    )
    theirs.set_timesteps(STEPS)
    theirs.is_scale_input_called = True  # the scaling is the network's, here there is none
    schedule, rng = LinearBeta(), torch.Generator().manual_seed(3)
    estimates = list(torch.randn(STEPS, 1, 1, 4, 4, generator=rng, dtype=torch.float64))
    x = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    times = Trailing()(schedule, STEPS)
    y = x / schedule(times[0])[0]
    sampler = EulerAncestral(grid=Trailing())
    states = sampler.trajectory(Replay(schedule, estimates), x, STEPS, rngs=generators(5))
    for i, (state, x0) in enumerate(zip(states, estimates, strict=True)):
        alpha, sigma = schedule(times[i])
        epsilon = (y - x0) / (sigma / alpha)
        y = theirs.step(epsilon, theirs.timesteps[i], y).prev_sample
        alpha = schedule(times[i + 1])[0] if i + 1 < STEPS else 1
        torch.testing.assert_close(state.x, alpha * y, rtol=1e-9, atol=1e-9)


def test_rectified_euler_is_diffusers(monkeypatch):
    theirs = scheduler_of(
        monkeypatch,
        "scheduling_flow_match_euler_discrete",
        "FlowMatchEulerDiscreteScheduler",
        shift=3.0,
    )
    schedule = Rectified(shift=3.0)
    times = Uniform()(schedule, STEPS)
    # They apply the shift to the unshifted times themselves.
    theirs.set_timesteps(sigmas=times[:-1].tolist())
    rng = torch.Generator().manual_seed(3)
    estimates = list(torch.randn(STEPS, 1, 1, 4, 4, generator=rng, dtype=torch.float64))
    y = x = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    states = Euler().trajectory(Replay(schedule, estimates), x, STEPS)
    for i, (state, x0) in enumerate(zip(states, estimates, strict=True)):
        velocity = (y - x0) / schedule(times[i])[1]
        y = theirs.step(velocity, theirs.timesteps[i], y).prev_sample
        torch.testing.assert_close(state.x, y, rtol=1e-9, atol=1e-9)


# The loop


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_interleaved_trajectories_of_one_sampler(sampler):
    model = Gaussians(Cosine())

    def walk(seed: int):
        rngs = generators(seed)
        x = noise(rngs, (1, 4, 4))
        return sampler.trajectory(model, x, 6, rngs=rngs)

    alone = [[state.x for state in walk(seed)] for seed in (1, 2)]
    together = list(zip(walk(1), walk(2), strict=True))
    for which in (0, 1):
        for expected, pair in zip(alone[which], together, strict=True):
            assert expected.equal(pair[which].x)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_does_not_depend_on_its_batch(sampler):
    def run(*seeds: int) -> Tensor:
        rngs = generators(*seeds)
        return sampler(Gaussians(Cosine()), noise(rngs, (2, 4, 4)), 6, rngs=rngs)

    together = run(11, 12, 13)
    for row, seed in enumerate((11, 12, 13)):
        assert run(seed)[0].equal(together[row])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_tell_the_truth(sampler, dtype):
    model, calls = Gaussians(Cosine()), []

    class Spy:
        passes, schedule = 2, model.schedule

        def __call__(self, x_t: Tensor, t: Tensor, cond: dict) -> Dirac:
            calls.append(t[0].item())
            assert not torch.is_grad_enabled()
            return model(x_t, t)

    assert isinstance(Spy(), Denoises)
    x = noise(generators(0), (1, 4, 4), dtype)
    states = list(sampler.trajectory(Spy(), x, 5, rngs=generators(1)))
    assert [state.step for state in states] == [1, 2, 3, 4, 5]
    assert {state.steps for state in states} == {5}
    assert [state.t for state in states] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0], abs=1e-15)
    assert {state.x.dtype for state in states} == {dtype}
    assert len(calls) == (9 if isinstance(sampler, Heun) else 5)
    assert states[-1].nfe == 2 * len(calls)
    assert states[-1].x.equal(states[-1].x0)
    assert 0 not in calls


def test_the_loop_is_lazy():
    model = Replay(Cosine(), [torch.zeros(1, 1, 2, 2)])
    states = DDIM().trajectory(model, torch.zeros(1, 1, 2, 2), 50)
    assert next(states).step == 1
    states.close()


def test_starting_from_a_noisy_picture_follows_the_flow_from_there():
    x0 = torch.full((1, 1, 4, 4), MEAN, dtype=torch.float64)
    for schedule in SCHEDULES:
        x = schedule.diffuse(
            x0, torch.tensor([0.4]), noise(generators(0), (1, 4, 4), torch.float64)
        )
        alpha, sigma = (c.item() for c in schedule(torch.tensor(0.4, dtype=torch.float64)))
        exact = MEAN + STD * (x - alpha * MEAN) / math.hypot(alpha * STD, sigma)
        *_, state = DPMPP2M().trajectory(Gaussians(schedule), x, 50, start=0.4)
        torch.testing.assert_close(state.x, exact, rtol=0, atol=0.01)


def test_noise_is_a_seed_whatever_the_dtype_and_advances():
    rngs = generators(1, 2)
    first, second = noise(rngs, (3, 4)), noise(rngs, (3, 4))
    assert not first.equal(second)
    assert noise(generators(2), (3, 4))[0].equal(first[1])
    assert noise(generators(1), (3, 4), torch.float64)[0].equal(first[0].double())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x, m: DDPM()(m, x, 5), "pass rngs"),
        (lambda x, m: DDIM(eta=0.1)(m, x, 5), "pass rngs"),
        (lambda x, m: DDIM()(m, x, 5, rngs=generators(1, 2)), "2 generators for 1 pictures"),
        (lambda x, m: DDIM()(m, x, 0), "steps is 0"),
        (lambda x, m: DDIM(eta=1.5), "eta is 1.5"),
        (lambda x, m: EulerAncestral()(m, x, 5), "pass rngs"),
        (lambda x, m: next(DDIM().trajectory(m, x, 5, start=0.2, stop=0.4)), "from 0.2 to 0.4"),
        (lambda x, m: noise([], (1,)), "at least one generator"),
    ],
)
def test_errors_tell_the_remedy(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(torch.zeros(1, 1, 2, 2), Gaussians(Cosine()))
