"""Likelihood against closed forms: of the schedule, of Gaussian data, of any linear denoiser.

For data N(m, s²) the answer q(x_0 | x_t) is known, Gaussian with the deviation sσ/√(α²s² + σ²),
and a chain of reverse steps that integrates over it is the exact reverse process: its bound is
tight.
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from jaxtyping import config
from scipy import stats
from torch import Tensor

from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.likelihood import (
    Likelihood,
    Term,
    chain,
    dequantise,
    flow,
    grey_log_prob,
    step_nats,
    terms,
    total,
)
from genkit.diffusion.sample import noise
from genkit.diffusion.schedule import Cosine, Exploding, LinearBeta, Rectified, Schedule
from genkit.diffusion.variance import Wide, earlier, posterior
from genkit.distributions import Dirac, Gaussian
from genkit.model import Model

MEAN, STD = 0.2, 0.3
SHORT = LinearBeta(1e-4, 0.1, 200)
GREY = torch.linspace(-1, 1, 256, dtype=torch.float64)


@pytest.fixture()
def fast() -> Iterator[None]:
    """No checks of shapes in hot loops."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


class Linear:
    """x̂_0 = m + gain·c (x_t − α m), deviation std·ς: exact for N(m, s²) at gain = std = 1."""

    passes = 1

    def __init__(self, schedule: Schedule, gain: float = 1.0, std: float = 1.0) -> None:
        self.schedule, self.gain, self.std, self.calls = schedule, gain, std, 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac | Gaussian:
        self.calls += 1
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        power = alpha.square() * STD**2 + sigma.square()
        mean = MEAN + self.gain * alpha * STD**2 / power * (x_t - alpha * MEAN)
        if self.std == 0:
            return Dirac(mean)
        return Gaussian(mean, (self.std * STD * sigma / power.sqrt()).expand_as(mean))


def _rngs(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def _pictures(count: int, side: int = 16, channels: int = 3) -> Tensor:
    x = MEAN + STD * noise(_rngs(count, 100), (channels, side, side), torch.float64)
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- the chain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), SHORT])
def test_the_posterior_is_the_papers(schedule):
    """Ho et al., equation 7, at every step of the chain but the first, where it is a point."""
    betas = schedule.betas()
    bars = torch.cat([_f64(1), (1 - betas).cumprod(0)])
    times = chain(schedule, len(betas))
    keep, give, variance = posterior(schedule(times), earlier(schedule, times))
    now, before = bars[1:], bars[:-1]
    exact = dict(rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(keep, (1 - betas).sqrt() * (1 - before) / (1 - now), **exact)
    torch.testing.assert_close(give, before.sqrt() * betas / (1 - now), **exact)
    torch.testing.assert_close(variance, (1 - before) / (1 - now) * betas, **exact)
    assert variance[0] == keep[0] == 0 and give[0].item() == pytest.approx(1)


def test_chains_are_the_schedules_own_steps():
    assert chain(LinearBeta()).tolist() == (torch.arange(1000).double() / 999).tolist()
    some = chain(LinearBeta(), 10) * 999
    assert some[0] == 0 and some[-1] == 999
    torch.testing.assert_close(some, some.round(), rtol=0, atol=1e-9)
    assert chain(Rectified(), 4).tolist() == [0.25, 0.5, 0.75, 1]
    for steps in (1, 1001):
        with pytest.raises(ValueError, match=f"{steps} steps of a chain of 1000: give 2 to 1000"):
            chain(LinearBeta(), steps)


# --- the decoder --------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 20.0])
@pytest.mark.parametrize("mean", [-1.5, -1.0, 0.001, 0.7, 3.0])
def test_256_grey_levels_have_probability_one(mean, std):
    q = Gaussian(torch.full_like(GREY, mean), torch.full_like(GREY, std))
    log = grey_log_prob(q, GREY)
    assert log.isfinite().all() and log.max() <= 0
    assert log.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_grey_level_is_a_difference_of_the_normal_distribution():
    q = Gaussian(torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64))
    edges = np.concatenate([[-np.inf], (np.arange(255) * 2 + 1) / 255 - 1, [np.inf]])
    expected = np.diff(stats.norm(0.1, 0.2).cdf(edges))
    q = Gaussian(q.mean.expand(256), q.std)
    np.testing.assert_allclose(grey_log_prob(q, GREY).exp().numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_decoders_gradient_is_finite_everywhere(dtype):
    mean = torch.full((256,), 0.3, dtype=dtype, requires_grad=True)
    std = torch.full((256,), 0.01, dtype=dtype, requires_grad=True)
    grey_log_prob(Gaussian(mean, std), GREY.to(dtype)).sum().backward()
    assert mean.grad.isfinite().all() and std.grad.isfinite().all()
    assert (mean.grad[:100] < 0).all() and (std.grad[:100] > 0).all()


# --- the bound ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "std"), [(1.0, 0.0), (1.0, 1.0), (0.6, 0.5)])
def test_every_term_of_a_linear_denoiser_has_its_closed_form(gain, std, fast):
    """Its error is A (x_0 − m) − B ε, so each expectation over x_t is a sum of two squares."""
    schedule, x0 = SHORT, _pictures(1, 64)
    times = chain(schedule, 200)
    found = list(terms(Linear(schedule, gain, std), x0, _rngs(1)))
    assert [term.name for term in found] == ["L_T"] + 199 * ["L_t"] + ["L_0"]
    assert [term.t for term in found[1:]] == times.flip(0).tolist()
    alpha, sigma = (c.numpy() for c in schedule(times))
    u = x0.numpy()
    prior = ((alpha[-1] * u) ** 2 + sigma[-1] ** 2 - 1) / 2 - np.log(sigma[-1])
    assert found[0].bits.item() == pytest.approx(prior.mean() / math.log(2), rel=1e-9)
    betas = schedule.betas().numpy()
    for k in (1, 2, 20, 100, 199):
        a, s2, s2_before = alpha[k], sigma[k] ** 2, sigma[k - 1] ** 2
        least = betas[k] * s2_before / s2  # β̃
        give = alpha[k - 1] * betas[k] / s2
        c = gain * a * STD**2 / (a**2 * STD**2 + s2)
        error = ((1 - c * a) * (u - MEAN)) ** 2 + c**2 * s2  # E_ε (x_0 − x̂_0)²
        wide = least + (give * std) ** 2 * STD**2 * s2 / (a**2 * STD**2 + s2)
        nats = (least + give**2 * error) / (2 * wide) - 0.5 + np.log(wide / least) / 2
        # 12,288 draws tell a mean square to 1.3 % (one deviation).
        bits = found[-1 - k].bits.item()
        assert bits == pytest.approx(nats.mean() / math.log(2), rel=0.06), k


def test_a_step_is_the_divergence_of_its_two_gaussians():
    """KL(N(a, A²) ‖ N(b, B²)) by torch, with x_t in both means."""
    schedule, x0 = LinearBeta(), _pictures(3, 4)
    t = _f64(5, 400, 999) / 999
    at, to = schedule(t), earlier(schedule, t)
    x_t = schedule.diffuse(x0, t, torch.randn_like(x0))
    answer = Linear(schedule, 0.7, 0.8)(x_t, t)
    keep, give, variance = (c[:, None, None, None] for c in posterior(at, to))
    q = torch.distributions.Normal(keep * x_t + give * x0, variance.sqrt())
    width = (variance + (give * answer.std) ** 2).sqrt()
    p = torch.distributions.Normal(keep * x_t + give * answer.mean, width)
    expected = torch.distributions.kl_divergence(q, p)
    found = step_nats(answer, x0, at, to, 1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_the_bound_is_tight_for_the_exact_answer_and_only_for_it(fast):
    """Σ L = −log₂ P(picture) of N(m, s²) cut into grey levels; point estimates need more bits."""
    x0 = _pictures(2, 32)
    q = Gaussian(torch.full_like(x0, MEAN), torch.full_like(x0, STD))
    exact = (-grey_log_prob(q, x0).mean(dim=(1, 2, 3)) / math.log(2)).mean().item()
    bits = {}
    for name, denoiser in {
        "exact": Linear(SHORT),
        "small": Linear(SHORT, std=0.0),
        "wide": Wide(Linear(SHORT, std=0.0)),
        "wrong": Linear(SHORT, gain=0.8),
    }.items():
        found = total(terms(denoiser, x0, _rngs(2)))
        assert found.kind == "bound"
        bits[name] = found.bits.mean().item()
    tight = bits.pop("exact")
    assert tight == pytest.approx(exact, abs=0.015)
    assert min(bits.values()) > tight + 0.01, bits  # the same noise for all


def test_a_coarser_chain_is_exact_too_when_the_answer_is(fast):
    """The deviation of the answer fits steps of every length; the variance β̃ fits none."""
    x0 = _pictures(4, 32)
    q = Gaussian(torch.full_like(x0, MEAN), torch.full_like(x0, STD))
    exact = (-grey_log_prob(q, x0).mean() / math.log(2)).item()
    for schedule, steps in ((SHORT, 10), (Rectified(), 50)):
        times = chain(schedule, steps)
        if steps == 50:  # the first level of noise must be near a grey level's width
            times = torch.cat([_f64(0.005), times])
        found = total(terms(Linear(schedule), x0, _rngs(4), times=times)).bits.mean().item()
        assert found == pytest.approx(exact, abs=0.04)  # few steps are few draws: 0.013
        point = total(terms(Linear(schedule, std=0.0), x0, _rngs(4), times=times)).bits.mean()
        assert point > exact + 0.5


def test_a_pictures_terms_do_not_depend_on_its_batch(fast):
    x0, times = _pictures(3, 8), chain(SHORT, 5)
    together = list(terms(Linear(SHORT), x0, _rngs(3), times=times))
    alone = list(terms(Linear(SHORT), x0[1:2], _rngs(1, 1), times=times))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.bits[1], b.bits[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("std", [0.0, 1.0])
def test_times_that_are_evaluated_together_give_the_same_terms(std: float) -> None:
    model, x0 = Linear(SHORT, std=std), _pictures(2)
    alone = list(terms(model, x0, _rngs(2)))
    calls, model.calls = model.calls, 0
    batched = list(terms(model, x0, _rngs(2), together=7))
    assert model.calls == math.ceil(calls / 7)
    for one, other in zip(alone, batched, strict=True):
        assert (one.name, one.t) == (other.name, other.t)
        torch.testing.assert_close(one.bits, other.bits, rtol=1e-12, atol=1e-14)
        if one.answer is not None:
            torch.testing.assert_close(one.answer.mean, other.answer.mean, rtol=1e-12, atol=1e-14)


def test_terms_come_one_by_one_and_cost_one_evaluation_each():
    denoiser = Linear(LinearBeta())
    found = terms(denoiser, _pictures(1, 4), _rngs(1))
    assert [next(found).name, denoiser.calls] == ["L_T", 0]
    assert [next(found).name, denoiser.calls] == ["L_t", 1]
    found.close()
    some = total([Term("L_T", 1.0, _f64(1, 2)), Term("L_0", 0.0, _f64(3, 5))])
    assert some.kind == "bound" and some.bits.tolist() == [4, 7]


# --- the probability flow -----------------------------------------------------------------------


def _last(states: Iterator) -> object:
    *_, state = states
    return state


@pytest.mark.parametrize(
    ("schedule", "start"),
    [
        (LinearBeta(), 0.0),
        (Cosine(), 0.0),
        (Rectified(), 0.001),
        (Rectified(3.0), 0.001),
        (Exploding(), 0.0),
    ],
)
def test_the_flow_finds_the_density_of_a_gaussian(schedule, start, fast):
    """N(m, s² + ρ²) with the ratio ρ = σ/α of `start`; one sign vector is exact here."""
    x = 0.5 * noise(_rngs(3), (1, 4, 4), torch.float64)
    denoiser = Linear(schedule)
    state = _last(flow(denoiser, x, _rngs(3), tolerance=1e-7, start=start))
    level = schedule.level(start)
    spread = math.hypot(STD, level.sigma / level.alpha)
    exact = stats.norm(MEAN, spread).logpdf(x.numpy()).sum(axis=(1, 2, 3))
    # The end is taken for N(0, 1): the chains still hold 0.006 of the data there, or less.
    alpha, sigma = schedule.level(1.0)
    alpha, sigma = alpha / math.hypot(alpha, sigma), sigma / math.hypot(alpha, sigma)
    rest = math.hypot(sigma, alpha * STD)
    z = (x.numpy() - MEAN) / spread * rest + alpha * MEAN
    end = stats.norm(0, 1).logpdf(z) - stats.norm(alpha * MEAN, rest).logpdf(z)
    exact += end.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(state.log_density.numpy(), exact, atol=2e-4)
    np.testing.assert_allclose(state.z.numpy(), z, atol=1e-4)
    raw = stats.norm(MEAN, STD).logpdf(x.numpy()).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(state.log_density.numpy(), raw, atol=0.1)
    assert state.nfe == denoiser.calls
    found = state.likelihood
    assert isinstance(found, Likelihood) and found.kind == "estimate"
    bits = -state.log_density / 16 / math.log(2) + math.log2(127.5)
    torch.testing.assert_close(found.bits, bits)


class Correlated:
    """The exact denoiser of N(0, C) over the pixels of a picture, a linear map with mixing."""

    passes = 1

    def __init__(self, schedule: Schedule, covariance: Tensor) -> None:
        self.schedule, self.covariance = schedule, covariance

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        alpha, sigma = (c[0].item() for c in self.schedule(t))
        c = self.covariance
        noisy = alpha**2 * c + sigma**2 * torch.eye(len(c), dtype=c.dtype)
        gain = alpha * torch.linalg.solve(noisy, c)
        return Dirac((x_t.flatten(1) @ gain).view_as(x_t))


def test_the_trace_is_right_on_average_and_better_with_more_probes(fast):
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    covariance = root @ root.T / 4 + 0.05 * torch.eye(4, dtype=torch.float64)
    schedule, count = Rectified(), 400
    x = torch.tensor([[0.3, -0.2], [0.5, 0.1]], dtype=torch.float64).expand(count, 1, 2, 2)
    denoiser = Correlated(schedule, covariance)
    exact = stats.multivariate_normal(np.zeros(4), covariance.numpy()).logpdf(x[0].flatten())
    errors = []
    for probes in (1, 16):
        state = _last(flow(denoiser, x, _rngs(count), tolerance=1e-6, probes=probes, start=1e-4))
        error = state.log_density - exact
        assert abs(error.mean()) < 4 * error.std() / count**0.5 + 1e-3
        errors.append(error.std().item())
    assert errors[0] > 0.05 and errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_bound_and_estimate_agree_on_gaussian_pictures(fast):
    """Two roads to the same bits: the chain's bound and the density of the dequantised picture."""
    x0 = _pictures(2, 16)
    x = dequantise(x0, _rngs(2))
    assert ((x - x0).abs() <= 1 / 255).all() and (x - x0).std() > 0.5 / 255
    bound = total(terms(Linear(SHORT), x0, _rngs(2))).bits
    estimate = _last(flow(Linear(SHORT), x, _rngs(2))).likelihood.bits
    torch.testing.assert_close(bound, estimate, rtol=0, atol=0.05)


def test_what_says_nothing_of_its_input_has_no_trace():
    """x̂_0 = 0 is the exact denoiser of data at 0, whose density with noise is N(0, ρ²)."""

    class Zero(Model):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return x * 0 + self.weight

    class Nothing:
        passes, schedule = 1, Rectified()

        def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
            return Dirac(torch.zeros_like(x_t))

    x = torch.full((1, 3, 1, 1), 0.01, dtype=torch.float64)
    state = _last(flow(Nothing(), x, _rngs(1), start=0.1))
    rho = 0.1 / 0.9
    exact = stats.norm(0, rho).logpdf(0.01) * 3
    assert state.log_density.item() == pytest.approx(exact, abs=1e-3)
    # A network that sees no noise, x̂_0 = x_t/α, moves nothing: x becomes α_T x.
    state = _last(flow(Denoiser(Zero(), LinearBeta(), Epsilon()), x, _rngs(1), tolerance=1e-8))
    alpha = LinearBeta().level(1.0).alpha
    exact = 3 * (stats.norm(0, 1).logpdf(alpha * 0.01) + math.log(alpha))
    assert state.log_density.item() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x, m: next(flow(m, x, _rngs(1), start=1.0)), "start is 1.0, where sigma"),
        (lambda x, m: next(flow(Linear(Rectified()), x, _rngs(1))), "start is 0.0, where sigma"),
        (lambda x, m: next(flow(m, x, _rngs(1), probes=0)), "0 probes"),
        (lambda x, m: next(flow(m, x, _rngs(1), tolerance=math.nan)), "tolerance nan"),
        (lambda x, m: next(flow(m, x, _rngs(2))), "2 generators for 1 pictures"),
        (lambda x, m: next(terms(m, x, [])), "0 generators for 1 pictures"),
        (lambda x, m: next(terms(m, x + 0.003, _rngs(1))), "none of the 256 grey levels"),
        (lambda x, m: next(terms(m, x + math.nan, _rngs(1))), "nan is none of the 256"),
        (lambda x, m: next(terms(m, x + 2, _rngs(1))), "none of the 256 grey levels"),
        (lambda x, m: next(terms(m, x, _rngs(1), times=_f64(1, 0.5))), "rising"),
        (lambda x, m: next(terms(m, x, _rngs(1), times=_f64(0.5))), "at least 2"),
        (
            lambda x, m: next(terms(Linear(Rectified()), x, _rngs(1), times=_f64(0, 0.5))),
            "sigma is 0 at the first time",
        ),
        (lambda x, m: dequantise(x + 0.003, _rngs(1)), "none of the 256 grey levels"),
    ],
)
def test_errors_tell_the_remedy(call, sentence):
    x = torch.full((1, 1, 2, 2), 2 * 200 / 255 - 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=sentence):
        call(x, Linear(LinearBeta()))
