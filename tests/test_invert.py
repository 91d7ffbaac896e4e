"""Inversion and the sampled bound, against Gaussian data, of which everything is known.

Along the flow of N(m, s²) the value (x_t − α_t m)/√(α_t² s² + σ_t²) is constant; the terms of a
linear denoiser have closed forms (see tests/test_likelihood.py, whose denoiser this is).
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import Tensor

from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.estimate import estimate
from genkit.diffusion.grid import LogSNR, Uniform
from genkit.diffusion.invert import FIRST, invert
from genkit.diffusion.likelihood import chain, terms, total
from genkit.diffusion.multistep import DEIS, DPMPP2M, DPMPP2MSDE
from genkit.diffusion.sample import DDIM, DDPM, Euler, Heun, noise
from genkit.diffusion.schedule import Cosine, LinearBeta, Rectified, Schedule
from genkit.distributions import Dirac, Gaussian
from genkit.model import Model

MEAN, STD = 0.2, 0.3
SHORT = LinearBeta(1e-4, 0.1, 200)


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    """No checks of shapes in hot loops."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


class Linear:
    """x̂_0 = m + c (x_t − α m), deviation std·ς: exact for N(m, s²) at std = 1."""

    passes = 1

    def __init__(self, schedule: Schedule, std: float = 1.0) -> None:
        self.schedule, self.std, self.calls = schedule, std, 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac | Gaussian:
        self.calls += 1
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        power = alpha.square() * STD**2 + sigma.square()
        mean = MEAN + alpha * STD**2 / power * (x_t - alpha * MEAN)
        if self.std == 0:
            return Dirac(mean)
        return Gaussian(mean, (self.std * STD * sigma / power.sqrt()).expand_as(mean))


def rngs(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def pictures(count: int, side: int = 8) -> Tensor:
    x = MEAN + STD * noise(rngs(count, 100), (3, side, side), torch.float64)
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def flowed(schedule: Schedule, x0: Tensor, start: float) -> Tensor:
    """Where the exact flow takes x_start = α_start x_0 until t = 1."""
    (alpha, end), (sigma, far) = schedule(torch.tensor([start, 1.0], dtype=torch.float64))
    width = math.hypot(alpha * STD, sigma)
    return end * MEAN + math.hypot(end * STD, far) / width * alpha * (x0 - MEAN)


# Inversion


@pytest.mark.parametrize(
    ("schedule", "start", "sampler", "order"),
    [
        (SHORT, FIRST, Euler, 1),
        (SHORT, FIRST, Heun, 2),
        (SHORT, FIRST, DPMPP2M, 2),
        (SHORT, FIRST, DEIS, 3),
        (Cosine(), FIRST, Euler, 1),  # ends in noise alone, which has no λ for the others
        (Rectified(), 0.02, Euler, 1),
        (Rectified(), 0.02, Heun, 2),
    ],
    ids=str,
)
def test_the_noise_is_that_of_the_exact_flow(schedule, start, sampler, order):
    """The error falls as n^(−order), there and back."""
    x0, model, there, again = pictures(2), Linear(schedule), [], []
    grid = LogSNR(low=1e-9, high=1e9) if schedule == SHORT else Uniform()
    counts = (40, 80, 160)
    for n in counts:
        solver = sampler(grid=grid)
        *_, last = invert(model, x0, n, sampler=solver, start=start)
        assert last.t == 1 and last.step == last.steps == n
        there.append((last.x - flowed(schedule, x0, start)).abs().max().item())
        for state in solver.trajectory(model, last.x, n, stop=start):
            back = state.x / schedule.level(start).alpha
        again.append((back - x0).abs().max().item())
    for errors in (there, again):
        slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
        assert slope > order - 0.25, errors
    if order == 1:
        assert there[-1] < 0.05


def test_a_step_there_is_undone_by_the_same_answer():
    """With a denoiser that always says the same, one Euler step back is its exact inverse."""

    class Constant(Linear):
        def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
            return Dirac(torch.full_like(x_t, MEAN))

    x0, model = pictures(1), Constant(SHORT)
    *_, last = invert(model, x0, 5)
    for state in Euler().trajectory(model, last.x, 5, stop=FIRST):
        back = state.x / SHORT.level(FIRST).alpha
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-12)


def test_states_come_one_by_one_and_count_their_evaluations():
    model, x0 = Linear(SHORT), pictures(1)
    states = invert(model, x0, 6, sampler=Heun())
    assert model.calls == 0
    one = next(states)
    assert (one.step, one.steps, one.nfe, model.calls) == (1, 6, 2, 2) and 0 < one.t < 1
    torch.testing.assert_close(one.x0, model(SHORT.level(FIRST).alpha * x0, torch.zeros(1)).mean)


class Says(Model):
    """A backbone that says its conditions."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        return x * 0 + label[:, None, None, None]


def test_the_condition_reaches_the_backbone():
    denoiser = Denoiser(Says(), SHORT, Epsilon())
    x0 = pictures(2).float()
    ends = [
        list(invert(denoiser, x0, 3, {"label": torch.tensor([1.0, c])}))[-1].x for c in (1.0, 2.0)
    ]
    assert ends[0][0].equal(ends[1][0]) and not ends[0][1].equal(ends[1][1])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: invert(Linear(SHORT), x, 0), "steps is 0; a sampler needs at least 1"),
        (lambda x: invert(Linear(SHORT), x, 3, start=0.0), "start is 0.0, where there is no"),
        (lambda x: invert(Linear(Rectified()), x, 3, start=1e-17), "begin between 0 and 1"),
        (lambda x: invert(Linear(SHORT), x, 3, sampler=DDPM()), "DDPM does not run towards noise"),
        (lambda x: invert(Linear(SHORT), x, 3, sampler=DDIM()), "take Euler, Heun, DPMPP2M"),
        (lambda x: invert(Linear(SHORT), x, 3, sampler=DPMPP2MSDE()), "DPMPP2MSDE does not run"),
    ],
)
def test_errors_of_the_inversion_tell_the_remedy(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        next(call(pictures(1)))


# The bound in few evaluations


def closed_form(x0: Tensor, std: float) -> tuple[float, np.ndarray]:
    """(L_T, Σ over the picture of every E[L_(k−1)], k = 2 … T) in bits/dim."""
    alpha, sigma = (c.numpy() for c in SHORT(chain(SHORT, 200)))
    u, betas = x0.numpy(), SHORT.betas().numpy()
    prior = ((alpha[-1] * u) ** 2 + sigma[-1] ** 2 - 1) / 2 - np.log(sigma[-1])
    found = []
    for k in range(1, 200):
        a, s2, before = alpha[k], sigma[k] ** 2, sigma[k - 1] ** 2
        least, give = betas[k] * before / s2, alpha[k - 1] * betas[k] / s2
        c = a * STD**2 / (a**2 * STD**2 + s2)
        error = ((1 - c * a) * (u - MEAN)) ** 2 + c**2 * s2
        wide = least + (give * std * STD) ** 2 * s2 / (a**2 * STD**2 + s2)
        nats = (least + give**2 * error) / (2 * wide) - 0.5 + np.log(wide / least) / 2
        found.append(nats.mean() / math.log(2))
    return prior.mean() / math.log(2), np.array(found)


@pytest.mark.parametrize("std", [0.0, 1.0])
def test_the_estimate_is_unbiased_and_knows_its_error(std):
    """600 estimates of few evaluations: their mean is the closed form, their spread as told."""
    one, model, count = pictures(1, 4), Linear(SHORT, std), 600
    end, expected = closed_form(one, std)
    found = estimate(model, one.expand(count, -1, -1, -1), rngs(count), strata=6, draws=2)
    assert model.calls == 1
    sums = sum(part.bits for part in found.steps)
    error = sums.std().item() / math.sqrt(count)
    assert sums.mean().item() == pytest.approx(expected.sum(), abs=4 * error)
    assert error < 0.01 * expected.sum()
    torch.testing.assert_close(found.end, torch.full((count,), end, dtype=torch.float64))
    told = found.error.square().mean().sqrt().item()
    assert told == pytest.approx(found.bits.std().item(), rel=0.12)


def test_its_ranges_are_those_of_the_sum():
    """Strata share the log-SNR evenly, and a part of the estimate is that part of the sum."""
    one, count = pictures(1, 4), 1500
    _, expected = closed_form(one, 1.0)
    many = one.expand(count, -1, -1, -1)
    found = estimate(Linear(SHORT), many, rngs(count), strata=4)
    ratio = torch.stack(SHORT(chain(SHORT, 200)))
    logs = (ratio[1] / ratio[0]).log().numpy()
    edges = np.linspace(logs[0], logs[-1], 5)
    for part, (low, high) in zip(found.steps, list(zip(edges, edges[1:]))[::-1], strict=True):
        assert (part.low, part.high) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-6)
        overlap = (np.minimum(logs[1:], high) - np.maximum(logs[:-1], low)).clip(min=0)
        share = (expected * overlap / np.diff(logs)).sum()
        error = part.bits.std().item() / math.sqrt(count)
        assert part.bits.mean().item() == pytest.approx(share, abs=4.5 * error)
    assert found.decoder.low == 0 and found.decoder.high == found.steps[-1].low


def test_the_estimate_is_near_the_whole_sum():
    model, x0 = Linear(SHORT), pictures(3, 16)
    whole = total(terms(model, x0, rngs(3), together=200)).bits
    found = estimate(model, x0, rngs(3, 50))
    assert found.evaluations == 2 * 24 + 4
    assert ((found.bits - whole).abs() < 5 * found.error + 0.05).all()
    alone = estimate(model, x0[1:2], rngs(1, 51))
    torch.testing.assert_close(alone.bits[0], found.bits[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: estimate(Linear(SHORT), x, rngs(1), strata=0), "0 strata, 2 draws"),
        (lambda x: estimate(Linear(SHORT), x, rngs(1), draws=1), "give at least 1 and 2"),
        (lambda x: estimate(Linear(SHORT), x * math.nan, rngs(1)), "none of the 256 grey levels"),
        (lambda x: estimate(Linear(SHORT), x, rngs(2)), "2 generators for 1 pictures"),
    ],
)
def test_errors_of_the_estimate_tell_the_remedy(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(pictures(1))
