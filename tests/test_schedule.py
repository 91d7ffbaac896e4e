"""Schedules against the papers' products and diffusers, their inverses, rates and moments."""

import importlib
import math

import numpy as np
import pytest
import torch

from genkit.diffusion.curve import Discrete
from genkit.diffusion.denoise import Epsilon, V
from genkit.diffusion.schedule import (
    MAX_STEPS,
    Cosine,
    Exploding,
    LinearBeta,
    Rectified,
    ScaledLinear,
    Sigmoid,
    SigmoidBeta,
    Trained,
)
from genkit.diffusion.terminal import ZeroTerminal
from genkit.model import build, describe

CHAINS = [
    LinearBeta(),
    ScaledLinear(),
    SigmoidBeta(),
    Cosine(),
    Sigmoid(),
    Trained((0.1, 0.3, 0.2, 0.9)),
    ZeroTerminal(ScaledLinear()),
    ZeroTerminal(Cosine()),
]
SCHEDULES = [*CHAINS, Rectified(), Rectified(shift=3.0), Exploding()]


# ᾱ against the formulas, in 80-bit arithmetic


def _ramp(first: float, last: float, count: int) -> np.ndarray:
    return np.linspace(np.longdouble(first), np.longdouble(last), count, dtype=np.longdouble)


def _linear(T: int) -> np.ndarray:
    return _ramp(1e-4, 0.02, T)


def _scaled(T: int) -> np.ndarray:
    return _ramp(np.sqrt(np.longdouble(0.00085)), np.sqrt(np.longdouble(0.012)), T) ** 2


def _geodiff(T: int) -> np.ndarray:
    span = np.longdouble(0.02) - np.longdouble(1e-4)
    return np.longdouble(1e-4) + span / (1 + np.exp(-_ramp(-6, 6, T)))


def _cosine(T: int) -> np.ndarray:
    s = np.longdouble(0.008)
    f = np.cos((_ramp(0, 1, T + 1) + s) / (1 + s) * (np.arccos(np.longdouble(-1)) / 2)) ** 2
    return np.minimum(1 - f[1:] / f[:-1], np.longdouble(0.999))


def _sigmoid(T: int) -> np.ndarray:
    def S(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    start, end, tau = np.longdouble(-3), np.longdouble(3), np.longdouble(0.9)
    u = _ramp(0, 1, T + 1)
    f = (S(end / tau) - S((u * (end - start) + start) / tau)) / (S(end / tau) - S(start / tau))
    return np.minimum(1 - f[1:] / f[:-1], np.longdouble(0.999))


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [
        (LinearBeta(), _linear(1000)),
        (LinearBeta(T=2), _linear(2)),
        (ScaledLinear(), _scaled(1000)),
        (SigmoidBeta(), _geodiff(1000)),
        (Cosine(), _cosine(1000)),
        (Cosine(T=4000), _cosine(4000)),
        (Sigmoid(tau=0.9), _sigmoid(1000)),
    ],
)
def test_chains_give_the_papers_products(schedule, betas):
    product = np.cumprod(1 - betas)
    T = len(betas)
    alpha, sigma = schedule(torch.arange(T, dtype=torch.float64) / (T - 1))
    np.testing.assert_allclose(alpha.square().numpy(), product.astype(float), rtol=1e-12)
    np.testing.assert_allclose(sigma.square().numpy(), (1 - product).astype(float), rtol=1e-10)
    np.testing.assert_allclose(schedule.betas().numpy(), betas.astype(float), rtol=1e-10)

    # Lin et al., algorithm 1, on the same chain
    root = np.sqrt(product)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    rescaled = ZeroTerminal(schedule).chain()
    np.testing.assert_allclose(
        rescaled.alpha.square().numpy(), root.astype(float) ** 2, rtol=1e-12
    )
    np.testing.assert_allclose(
        rescaled.sigma.square().numpy(), (1 - root**2).astype(float), rtol=1e-10
    )
    assert (rescaled.alpha[-1], rescaled.sigma[-1], rescaled.beta[-1]) == (0, 1, 1)


# ᾱ against diffusers


class _Double:
    """A module whose float32 is float64: diffusers rounds to float32 in many places."""

    def __init__(self, module: object) -> None:
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, "float64" if name == "float32" else name)


def _scheduler(monkeypatch: pytest.MonkeyPatch, file: str, name: str, **config: object) -> object:
    module = importlib.import_module(f"diffusers.schedulers.{file}")
    monkeypatch.setattr(module, "torch", _Double(torch))
    if hasattr(module, "np"):
        monkeypatch.setattr(module, "np", _Double(np))
    torch.set_default_dtype(torch.float64)
    try:
        return getattr(module, name)(**config)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize(
    ("schedule", "config"),
    [
        (LinearBeta(), {"beta_schedule": "linear"}),
        (
            ScaledLinear(),
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        ),
        (SigmoidBeta(), {"beta_schedule": "sigmoid"}),
        (Cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (Cosine(T=50), {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50}),
        (
            Trained(tuple(Sigmoid().betas().tolist())),
            {"trained_betas": Sigmoid().betas().tolist()},
        ),
    ],
)
def test_chains_are_diffusers(monkeypatch, schedule, config, rescaled):
    theirs = _scheduler(
        monkeypatch, "scheduling_ddpm", "DDPMScheduler", **config, rescale_betas_zero_snr=rescaled
    )
    chain = (ZeroTerminal(schedule) if rescaled else schedule).chain()
    torch.testing.assert_close(chain.alpha.square(), theirs.alphas_cumprod, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_rectified_steps_are_diffusers(monkeypatch, shift):
    theirs = _scheduler(
        monkeypatch,
        "scheduling_flow_match_euler_discrete",
        "FlowMatchEulerDiscreteScheduler",
        shift=shift,
    )
    chain = Rectified(shift=shift).chain()
    torch.testing.assert_close(chain.sigma, theirs.sigmas.flip(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(chain.alpha, 1 - theirs.sigmas.flip(0), rtol=0, atol=1e-15)


def test_exploding_is_diffusers(monkeypatch):
    theirs = _scheduler(monkeypatch, "scheduling_edm_euler", "EDMEulerScheduler", sigma_max=700.0)
    theirs.set_timesteps(18)
    t = torch.linspace(1, 0, 18, dtype=torch.float64)
    alpha, sigma = Exploding(sigma_max=700.0)(t)
    torch.testing.assert_close(sigma, theirs.sigmas[:-1], rtol=1e-12, atol=0)
    assert (alpha == 1).all()


# What holds for every schedule


def test_log_alpha_bar_is_linear_between_steps():
    schedule = LinearBeta()
    t = (torch.tensor([10.0, 10.25, 11.0], dtype=torch.float64)) / 999
    logs = schedule(t)[0].log()
    assert logs[1].item() == pytest.approx(0.75 * logs[0].item() + 0.25 * logs[2].item())


def test_time_zero_is_the_first_step_of_a_chain_and_data_of_a_line():
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    alpha, sigma = LinearBeta()(zero)
    assert (alpha.item(), sigma.item()) == pytest.approx((math.sqrt(1 - 1e-4), 0.01), rel=1e-12)
    assert [c.item() for c in Rectified(shift=3.0)(zero)] == [1, 0]
    assert [c.item() for c in Rectified(shift=3.0)(one)] == [0, 1]
    assert [c.item() for c in Exploding()(one)] == [1, pytest.approx(80, rel=1e-12)]


@pytest.mark.parametrize("schedule", CHAINS)
def test_chains_preserve_variance(schedule):
    t = torch.rand(2000, dtype=torch.float64)
    alpha, sigma = schedule(t)
    one = torch.ones_like(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), one, rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_rises_and_time_is_the_inverse(schedule):
    t = torch.linspace(0, 1, 1501, dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert (alpha.diff() <= 0).all() and (sigma.diff() >= 0).all()
    assert ((sigma / alpha).diff() > 0).all()
    torch.testing.assert_close(schedule.time(sigma / alpha), t, rtol=0, atol=1e-9)
    log_snr = schedule.log_snr(t)
    torch.testing.assert_close(log_snr, (alpha / sigma).square().log(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(schedule.time_of_log_snr(log_snr), t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ratios_outside_give_the_ends(schedule):
    ends = schedule.time(torch.tensor([0.0, math.inf], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, 1], abs=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_beta_is_the_fresh_noise(schedule):
    """β_k between the steps of the chain, and β(t) as the limit over a short time."""
    chain = schedule.chain()
    levels = [schedule.level(t) for t in chain.t.tolist()]
    steps = [b.variance(a) for a, b in zip(levels, levels[1:])]
    torch.testing.assert_close(
        chain.beta[1:], torch.tensor(steps, dtype=torch.float64), rtol=1e-8, atol=1e-13
    )
    assert chain.beta[0].item() == pytest.approx(levels[0].sigma ** 2, rel=1e-10)
    assert len(chain.t) == schedule.T

    h = 1e-6
    t = torch.linspace(0.0171, 0.9871, 98, dtype=torch.float64)  # not on a step of 1000
    (a, s), (b, r) = schedule(t - h / 2), schedule(t + h / 2)
    rate = (r.square() - (b / a * s).square()) / h
    torch.testing.assert_close(schedule.beta(t), rate, rtol=2e-4, atol=1e-7)
    slope = (schedule.log_snr(t + h / 2) - schedule.log_snr(t - h / 2)) / h
    torch.testing.assert_close(
        schedule.beta(t), -schedule(t)[1].square() * slope, rtol=1e-5, atol=1e-9
    )


def test_beta_is_the_papers_at_the_steps():
    """β(t)/(T − 1) = −ln(1 − β_k) on the interval that ends at step k."""
    schedule = ScaledLinear()
    chain = schedule.chain()
    torch.testing.assert_close(
        schedule.beta(chain.t)[1:] / 999, -torch.log1p(-chain.beta)[1:], rtol=1e-9, atol=0
    )
    assert schedule.beta(chain.t)[0] == schedule.beta(chain.t)[1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_float32_times_are_accurate(schedule):
    t = torch.rand(1000)
    for low, high in zip(schedule(t), schedule(t.double()), strict=True):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, rtol=2e-3, atol=1e-6)
    assert schedule.beta(t).dtype == schedule.log_snr(t).dtype == torch.float32


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_diffuse_has_the_moments_of_q(schedule, rng):
    x0 = torch.full((40000, 1, 1, 1), 0.7)
    noise = torch.randn(x0.shape, generator=rng)
    t = torch.full((40000,), 0.4)
    alpha, sigma = (c[0].item() for c in schedule(t))
    x = schedule.diffuse(x0, t, noise)
    assert x.mean().item() == pytest.approx(alpha * 0.7, abs=5 * sigma / 200)
    assert x.std().item() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_recorded_in_a_config(schedule):
    assert build(describe(schedule)) == schedule


# Zero terminal SNR and the shift


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("base", [chain for chain in CHAINS if isinstance(chain, Discrete)])
def test_zero_terminal_snr_ends_in_noise_and_begins_as_before(base, dtype):
    schedule = ZeroTerminal(base)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=dtype)
    alpha, sigma = schedule(t)
    assert (alpha[-1], sigma[-1], schedule.beta(t)[-1]) == (0, 1, math.inf)
    assert schedule.log_snr(t)[-1] == -math.inf
    torch.testing.assert_close(
        sigma[0], base(t)[1][0], rtol=1e-12 if dtype.itemsize == 8 else 1e-5, atol=0
    )
    with pytest.raises(ValueError, match="use V or Flow"):
        Epsilon().coefficients(alpha, sigma)
    assert V().coefficients(alpha, sigma).c_out[-1] == -1


def test_zero_terminal_snr_twice_is_once():
    once = ZeroTerminal(LinearBeta())
    torch.testing.assert_close(ZeroTerminal(once).chain(), once.chain(), rtol=1e-12, atol=1e-15)


def test_shift_is_sd3s_formula():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(Rectified(shift=3.0)(t)[1], 3 * t / (1 + 2 * t))


def test_shift_makes_pixels_equally_uncertain():
    """The mean of n pixels of one value is known to (σ/α)/√n: equal for n at t and m at t_m."""
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    few, many = (Rectified.of_pixels(side**2)(t) for side in (256, 1024))
    torch.testing.assert_close(few[1] / few[0] / 256, many[1] / many[0] / 1024)
    assert Rectified.of_pixels(512, base=512).shift == 1


def test_shift_of_tokens_is_diffusers(monkeypatch):
    theirs = _scheduler(
        monkeypatch,
        "scheduling_flow_match_euler_discrete",
        "FlowMatchEulerDiscreteScheduler",
        use_dynamic_shifting=True,
    )
    for tokens, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        theirs.set_timesteps(10, mu=mu)
        schedule = Rectified.of_tokens(tokens)
        sigma = schedule(torch.linspace(1, 1e-3, 10, dtype=torch.float64))[1]
        torch.testing.assert_close(sigma, theirs.sigmas[:-1], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LinearBeta(beta_end=1.5), "beta is 1.5"),
        (lambda: LinearBeta(beta_start=0.0), "beta is 0.0"),
        (lambda: LinearBeta(beta_start=0.1, beta_end=0.02), "falls from 0.1 to 0.02"),
        (lambda: ScaledLinear(beta_start=math.nan), "beta is nan"),
        (lambda: SigmoidBeta(beta_end=-1.0), "beta is -1.0"),
        (lambda: Trained((0.1, 1.0)), "beta is 1.0"),
        (lambda: Trained((0.1, 1e-20)), "adds no noise"),
        (lambda: Trained((0.1,)), "T is 1"),
        (lambda: LinearBeta(T=0), "T is 0; a chain needs at least 2"),
        (lambda: LinearBeta(T=10**9), f"T is 1000000000; a chain has at most {MAX_STEPS}"),
        (lambda: Cosine(T=1), "T is 1"),
        (lambda: Cosine(T=10**9), "T is 1000000000"),
        (lambda: Cosine(s=math.nan), "s is nan"),
        (lambda: Cosine(s=1e300), "adds no noise"),
        (lambda: Cosine(clip=1.0), "clip is 1.0"),
        (lambda: Sigmoid(start=3.0), "from 3.0 to 3.0"),
        (lambda: Sigmoid(tau=0.0), "tau is 0.0"),
        (lambda: Sigmoid(tau=1e-3), "adds no noise"),
        (lambda: Sigmoid(T=10**9), "T is 1000000000"),
        (lambda: Rectified(shift=0.0), "shift is 0.0"),
        (lambda: Rectified.of_pixels(-1), "-1 pixels"),
        (lambda: Rectified.of_tokens(10**9), "1000000000 tokens"),
        (lambda: Exploding(sigma_min=0.0), "noise from 0.0 to 80.0"),
        (lambda: Exploding(sigma_max=math.inf), "noise from 0.002 to inf"),
        (lambda: Exploding(rho=math.nan), "rho is nan"),
    ],
)
def test_errors_name_the_value(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_longest_chain_works():
    schedule = LinearBeta(beta_start=1e-6, beta_end=2e-4, T=MAX_STEPS)
    assert schedule.level(1.0).alpha == pytest.approx(LinearBeta().level(1.0).alpha, rel=0.06)
