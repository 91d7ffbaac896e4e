"""Multistep samplers: orders on a closed-form mixture, steps against diffusers, laws of the noise.

In one dimension the probability-flow ODE keeps every point at its quantile. With F_t the
distribution function of x_t, a mixture of normal ones,

    x_s = F_s⁻¹(F_t(x_t))

is exact, and so is the denoiser: both are closed forms for data from Σ_k w_k N(m_k, s_k²).
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from test_sample import CHAIN, SAMPLE, Replay, generators, scheduler_of
from torch import Tensor

from genkit.diffusion import multistep, trajectory
from genkit.diffusion.grid import Karras, Trailing, Uniform
from genkit.diffusion.sample import (
    DDIM,
    DDPM,
    DEIS,
    DPMPP2M,
    DPMPP2MSDE,
    DPMPP3M,
    IPNDM,
    Estimate,
    EulerAncestral,
    Sampler,
    UniPC,
    noise,
)
from genkit.diffusion.schedule import Cosine, Level, LinearBeta, Rectified, Schedule
from genkit.distributions import Dirac

WEIGHTS, MEANS, STDS = torch.tensor(
    [[0.3, 0.5, 0.2], [-1.0, 0.2, 0.9], [0.4, 0.3, 0.5]], dtype=torch.float64
)


class Mixture:
    """The exact denoiser of the mixture."""

    passes = 1

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        alpha, sigma = (c[:, None, None, None, None] for c in self.schedule(t))
        variance = (alpha * STDS).square() + sigma.square()
        off = x_t[..., None] - alpha * MEANS
        share = (WEIGHTS.log() - (variance.log() + off.square() / variance) / 2).softmax(-1)
        return Dirac((share * (MEANS + alpha * STDS.square() / variance * off)).sum(-1))


def quantile(x: Tensor, level: Level) -> Tensor:
    """F(x) of the mixture with noise."""
    width = ((level.alpha * STDS).square() + level.sigma**2).sqrt()
    return (WEIGHTS * torch.special.ndtr((x[..., None] - level.alpha * MEANS) / width)).sum(-1)


def flowed(x: Tensor, at: Level, to: Level) -> Tensor:
    """The probability-flow map by bisection, to the last bits."""
    target, low, high = quantile(x, at), torch.full_like(x, -9), torch.full_like(x, 9)
    for _ in range(60):
        middle = (low + high) / 2
        below = quantile(middle, to) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def error(sampler: Sampler, schedule: Schedule, steps: int, memory: int) -> float:
    """Of `steps` steps from 0.8 to 0.3, the first of which remembers `memory` exact ones."""
    model, h = Mixture(schedule), 0.5 / steps
    times = [0.8 - i * h for i in range(-memory, steps + 1)]
    points = [schedule.level(t) for t in times]
    start = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    start = start * math.hypot(points[0].alpha * 0.7, points[0].sigma)
    past = ()
    for t, point in zip(times[:memory], points):
        x = flowed(start, points[0], point)
        past = (Estimate(t, model(x, torch.tensor([t], dtype=torch.float64)).mean, x), *past)
    x = flowed(start, points[0], points[memory])
    for t, s in zip(times[memory:], times[memory + 1 :]):
        x, past = sampler.step(model, x, t, s, past)
    return (x - flowed(start, points[0], points[-1])).abs().max().item()


def assert_order(order: int, sampler: Sampler, schedule: Schedule, memory: int) -> None:
    """Halving the steps divides the error by 2^order."""
    steps = 60 if order < 3 else 120
    coarse, fine = (error(sampler, schedule, n, memory) for n in (steps, 2 * steps))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


# Orders


@pytest.mark.parametrize("schedule", [Rectified(shift=3.0), LinearBeta()])
@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (DPMPP2M(), 2),
        (DPMPP3M(), 3),
        (UniPC(order=1), 2),
        (UniPC(order=2), 3),
        (UniPC(order=3), 4),
    ],
)
def test_order_in_log_snr(schedule, sampler, order):
    assert_order(order, sampler, schedule, memory=order - 1)


def test_the_whole_of_its_last_term_is_what_gives_3m_its_order(monkeypatch):
    """With half of it, as others have it, the order is 2."""
    whole = multistep._decay_moments

    def half(h: float, count: int) -> list[float]:
        *most, last = whole(h, count)
        return [*most, last / 2] if count == 2 else [*most, last]

    monkeypatch.setattr(multistep, "_decay_moments", half)
    assert_order(2, DPMPP3M(), Rectified(shift=3.0), memory=2)


@pytest.mark.parametrize("schedule", [Rectified(), Rectified(shift=3.0)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_of_deis(schedule, order):
    assert_order(order, DEIS(order=order), schedule, memory=order - 1)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_of_ipndm(order):
    """p where u falls in equal steps, 2 at most where it does not."""
    sampler = IPNDM(order=order)
    assert_order(order, sampler, Rectified(), memory=order - 1)
    if order < 3:
        assert_order(order, sampler, Rectified(shift=3.0), memory=order - 1)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(DPMPP2M(), 2), (UniPC(order=1), 2), (UniPC(order=2), 3), (DEIS(order=2), 2)],
)
def test_order_without_a_past(sampler, order):
    """A first step one order lower does not spoil it."""
    assert_order(order, sampler, Rectified(), memory=0)


# Noise


class Linear:
    """The denoiser of N(0, 0.8²): every sampler is then a linear map of its noise."""

    passes = 1

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        alpha, sigma = (c[:, None, None, None] for c in self.schedule(t))
        return Dirac(alpha * 0.64 / (alpha.square() * 0.64 + sigma.square()) * x_t)


def response(sampler: Sampler, schedule: Schedule, steps: int, monkeypatch) -> Tensor:
    """d x_0.2 / d (x_0.8, z_1, …, z_n): picture j of a batch gets 1 for the j-th of these."""
    units = iter(torch.eye(steps + 1, dtype=torch.float64).reshape(steps + 1, -1, 1, 1, 1))
    x = next(units)
    monkeypatch.setattr(trajectory, "noise", lambda *_: next(units))
    rngs = generators(*range(steps + 1))
    *_, state = sampler.trajectory(Linear(schedule), x, steps, rngs=rngs, start=0.8, stop=0.2)
    return state.x.flatten()


@pytest.mark.parametrize("schedule", [Rectified(), LinearBeta()])
@pytest.mark.parametrize(
    ("sampler", "eta", "order"),
    [
        (DDPM(), 1, 1),
        (EulerAncestral(), 1, 1),
        (DPMPP2MSDE(), 1, 2),
        (DPMPP2MSDE(eta=0.5), 0.5, 2),
    ],
)
def test_weak_order(sampler, eta, order, schedule, monkeypatch):
    """Mean and variance without one random number: for a Gaussian those of the SDE are known.

    The mean decays by √(V_s/V_t) ((0.8² + ρ_s²)/(0.8² + ρ_t²))^(η/2), V = 0.8² α² + σ². For η = 1
    x̂_0 is a martingale, and what takes it for constant is exact in the mean.
    """
    at, to = schedule.level(0.8), schedule.level(0.2)
    before, after = (0.64 * level.alpha**2 + level.sigma**2 for level in (at, to))
    calm = (after / to.alpha**2) / (before / at.alpha**2)
    decay = math.sqrt(after / before) * calm ** (eta / 2)
    means, variances = [], []
    for steps in (100, 200):
        gains = response(sampler, schedule, steps, monkeypatch)
        means.append(abs(gains[0].item() - decay))
        gains[0] *= math.sqrt(before)
        variances.append(abs(gains.square().sum().item() - after))
    assert math.log2(variances[0] / variances[1]) == pytest.approx(order, abs=0.1)
    if eta == 1:
        assert max(means) < 1e-12
    else:
        assert math.log2(means[0] / means[1]) == pytest.approx(order, abs=0.1)


def test_the_sde_without_noise_is_the_ode():
    for schedule in (Cosine(), Rectified()):
        x = noise(generators(7), (1, 4, 4), torch.float64)
        a, b = (s(Mixture(schedule), x, 10) for s in (DPMPP2MSDE(eta=0.0), DPMPP2M()))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# Step by step against diffusers, the same model outputs given to both

STEPS = 10  # below 15, from where on diffusers does not lower the order of the last step but one


def replayed() -> tuple[list[Tensor], Tensor]:
    """Ten estimates of x_0 and a state, random."""
    rng = torch.Generator().manual_seed(3)
    estimates = torch.randn(STEPS + 1, 1, 1, 4, 4, generator=rng, dtype=torch.float64)
    return list(estimates[1:]), estimates[0]


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


CHAINS = [(LinearBeta(), CHAIN), (Cosine(), {"beta_schedule": "squaredcos_cap_v2"})]


def dpm_solver(monkeypatch, chain: dict, **config: object) -> object:
    return scheduler_of(
        monkeypatch,
        "scheduling_dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        **chain,
        **SAMPLE,
        final_sigmas_type="zero",
        **config,
    )


@pytest.mark.parametrize(("schedule", "chain"), CHAINS)
def test_sde_dpm_solver_pp_2m_is_diffusers(monkeypatch, schedule, chain):
    theirs = dpm_solver(monkeypatch, chain, algorithm_type="sde-dpmsolver++", solver_order=2)
    theirs.set_timesteps(STEPS)
    estimates, x = replayed()
    draws = generators(5)
    sampler = DPMPP2MSDE(grid=Trailing())
    states = sampler.trajectory(Replay(schedule, estimates), x, STEPS, rngs=generators(5))
    for i, (state, x0) in enumerate(zip(states, estimates, strict=True)):
        z = noise(draws, (1, 4, 4), torch.float64)
        x = theirs.step(x0, theirs.timesteps[i], x, variance_noise=z).prev_sample
        assert_near(state.x, x)


@pytest.mark.parametrize(("schedule", "chain"), CHAINS)
def test_dpm_solver_pp_3m_is_diffusers_with_the_whole_of_its_last_term(
    monkeypatch, schedule, chain
):
    """They multiply h² times the half of the second derivative, where the whole belongs."""
    theirs = dpm_solver(monkeypatch, chain, algorithm_type="dpmsolver++", solver_order=3)
    theirs.set_timesteps(STEPS)
    estimates, x = replayed()
    points = [schedule.level(t) for t in Trailing()(schedule, STEPS).tolist()]
    lambdas = [math.log(point.alpha / point.sigma) for point in points]
    states = DPMPP3M(grid=Trailing()).trajectory(Replay(schedule, estimates), x, STEPS)
    for i, state in enumerate(states):
        x = theirs.step(estimates[i], theirs.timesteps[i], x).prev_sample
        if 2 <= i < STEPS - 2:
            (a, b, c), (f, g, k) = lambdas[i - 2 : i + 1], estimates[i - 2 : i + 1]
            half = ((k - g) / (c - b) - (g - f) / (b - a)) / (c - a)  # divided difference
            h = lambdas[i + 1] - c
            x = x - points[i + 1].alpha * ((math.expm1(-h) + h) - h**2 / 2) * half
        assert_near(state.x, x)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("schedule", "chain"), CHAINS)
def test_unipc_is_diffusers(monkeypatch, schedule, chain, order):
    theirs = scheduler_of(
        monkeypatch,
        "scheduling_unipc_multistep",
        "UniPCMultistepScheduler",
        **chain,
        **SAMPLE,
        solver_order=order,
        solver_type="bh2",
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(STEPS)
    estimates, x = replayed()
    sampler = UniPC(grid=Trailing(), order=order)
    states = sampler.trajectory(Replay(schedule, estimates), x, STEPS)
    for i, (state, x0) in enumerate(zip(states, estimates, strict=True)):
        x = theirs.step(x0, theirs.timesteps[i], x).prev_sample
        assert_near(state.x, x)


@dataclass(frozen=True)
class LogLinear(LinearBeta):
    """ln(σ/α) rises linearly in t, from −4 to 4: DEIS in t is then DEIS in ln ρ."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        twice = 16 * t - 8
        return (-twice).sigmoid().sqrt(), twice.sigmoid().sqrt()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_diffusers(monkeypatch, order):
    """Their polynomials are in ln ρ, and their last ratio σ/α is not 0."""
    theirs = scheduler_of(
        monkeypatch,
        "scheduling_deis_multistep",
        "DEISMultistepScheduler",
        **CHAIN,
        **SAMPLE,
        solver_order=order,
    )
    theirs.set_timesteps(STEPS)
    schedule = LogLinear()
    alpha, sigma = schedule(Uniform()(schedule, STEPS))
    theirs.sigmas = sigma / alpha
    estimates, x = replayed()
    states = list(DEIS(order=order).trajectory(Replay(schedule, estimates), x, STEPS))
    for i in range(STEPS - 1):
        x = theirs.step(estimates[i], theirs.timesteps[i], x).prev_sample
        assert_near(states[i].x, x)


@pytest.mark.parametrize("schedule", [Cosine(), Rectified(), Rectified(shift=3.0)])
def test_ipndm_is_diffusers(monkeypatch, schedule):
    """Theirs integrates any dy/dr = e: y is x/a and r is b/a of its tables a and b, here z and u.

    They keep the order in the last step, where z is data and ours is x̂_0.
    """
    theirs = scheduler_of(monkeypatch, "scheduling_ipndm", "IPNDMScheduler")
    theirs.set_timesteps(STEPS)
    points = [schedule.level(t) for t in Uniform()(schedule, STEPS).tolist()]
    size = [point.alpha + point.sigma for point in points]
    u = torch.tensor([point.sigma for point in points], dtype=torch.float64)
    u = u / torch.tensor(size, dtype=torch.float64)
    theirs.alphas = 1 / (1 + u.square()).sqrt()
    theirs.betas = u * theirs.alphas
    estimates, x = replayed()
    states = IPNDM().trajectory(Replay(schedule, estimates), x, STEPS)
    y = theirs.alphas[0] * x / size[0]
    for i, (state, x0) in enumerate(zip(states, estimates)):
        if i == STEPS - 1:
            break
        slope = (y / theirs.alphas[i] - x0) / u[i]
        output = (slope - y * theirs.betas[i]) / theirs.alphas[i]  # from which they make e
        y = theirs.step(output, theirs.timesteps[i], y).prev_sample
        assert_near(state.x, size[i + 1] * y / theirs.alphas[i + 1])


# The protocol

MULTISTEP = [DPMPP2M(), DPMPP2MSDE(eta=0.0), DPMPP3M(), UniPC(), DEIS(), IPNDM()]


@pytest.mark.parametrize("schedule", [Rectified(), Rectified(shift=3.0), Cosine()])
@pytest.mark.parametrize("sampler", MULTISTEP)
@pytest.mark.parametrize("grid", [Uniform(), Karras()])
def test_from_pure_noise_to_data(schedule, sampler, grid, rng):
    """Start at α = 0 (or 5e-5), end at σ = 0: everything is finite and near the flow map."""
    x = torch.rand(1, 1, 4, 4, generator=rng, dtype=torch.float64) * 3 - 1.5
    exact = flowed(x, schedule.level(1.0), Level(1.0, 0.0))
    x0 = replace(sampler, grid=grid)(Mixture(schedule), x, 60)
    assert (x0 - exact).abs().max() < 0.02


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_ten_steps_beat_euler(sampler, rng):
    """At equal cost, on the grid of each family's choice: what a memory is for."""
    x = torch.rand(1, 1, 8, 8, generator=rng, dtype=torch.float64) * 3 - 1.5
    schedule = Rectified()
    exact = flowed(x, schedule.level(1.0), Level(1.0, 0.0))
    far, near = ((s(Mixture(schedule), x, 10) - exact).square().mean() for s in (DDIM(), sampler))
    assert near < far / 9


@pytest.mark.parametrize("sampler", [UniPC(order=1), DEIS(order=1), IPNDM(order=1)])
def test_first_order_predicts_as_ddim(sampler):
    model = Mixture(Cosine())
    x = noise(generators(0), (1, 4, 4), torch.float64)
    assert_near(sampler.step(model, x, 0.7, 0.6, ())[0], DDIM().step(model, x, 0.7, 0.6, ())[0])


@pytest.mark.parametrize(
    ("sampler", "most"),
    [(DPMPP2M(), 1), (DPMPP2MSDE(), 1), (DPMPP3M(), 2), (UniPC(), 3), (DEIS(), 3), (IPNDM(), 4)],
)
def test_the_past_is_bounded_and_not_changed(sampler, most):
    """A step taken again from the same past is the same step."""
    model, past, rngs = Mixture(Rectified()), (), generators(1)
    x = noise(generators(0), (1, 4, 4), torch.float64)
    for i in range(7):
        t, s = 1 - i / 10, 0.9 - i / 10
        copy = [(e.t, e.x0.clone()) for e in past]
        state = rngs[0].get_state()
        first, after = sampler.step(model, x, t, s, past, {}, rngs)
        rngs[0].set_state(state)
        again, _ = sampler.step(model, x, t, s, past, {}, rngs)
        assert again.equal(first)
        assert all(e.t == t and e.x0.equal(x0) for e, (t, x0) in zip(past, copy, strict=True))
        x, past = first, after
        assert len(past) == min(i + 1, most)
        assert past[0].t == t


def test_the_order_falls_before_data_only():
    """To data the last step but one is 2M; to an earlier stop 3M goes on."""
    estimates, x = replayed()
    runs = {}
    for sampler in (DPMPP3M(), DPMPP2M(), UniPC()):
        for stop in (0.0, 0.1):
            model = Replay(Rectified(), [e.clone() for e in estimates[:4]])
            walk = sampler.trajectory(model, x, 4, start=0.9, stop=stop)
            runs[type(sampler), stop] = [state.x for state in walk]
    for stop in (0.0, 0.1):
        for i in (0, 1):  # while the past is short, all of them are lower
            assert_near(runs[DPMPP3M, stop][i], runs[DPMPP2M, stop][i])
        assert_near(runs[DPMPP3M, stop][0], runs[UniPC, stop][0])
    assert DPMPP3M().ending(2) == DPMPP2M()
    assert DPMPP3M(grid=Karras()).ending(3) == DPMPP3M(grid=Karras())
    assert [UniPC().ending(left).order for left in (9, 3, 2, 1)] == [3, 3, 2, 1]
    assert_near(runs[DPMPP3M, 0.0][2], runs[DPMPP2M, 0.0][2])
    assert not torch.allclose(runs[DPMPP3M, 0.1][2], runs[DPMPP2M, 0.1][2], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: UniPC(order=0), "order is 0; this method has orders 1 to 3"),
        (lambda: UniPC(order=4), "order is 4"),
        (lambda: DEIS(order=4), "order is 4"),
        (lambda: IPNDM(order=5), "order is 5; this method has orders 1 to 4"),
        (lambda: DPMPP2MSDE(eta=-0.1), "eta is -0.1"),
        (lambda: DPMPP2MSDE(eta=math.nan), "eta is nan"),
        (lambda: DPMPP2MSDE()(Mixture(Cosine()), torch.zeros(1, 1, 2, 2), 3), "pass rngs"),
    ],
)
def test_errors_tell_the_remedy(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
