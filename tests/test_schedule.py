"""Schedules against the papers' products, their inverses and the moments of q(x_t | x_0)."""

import math

import numpy as np
import pytest
import torch

from genkit.diffusion.grid import Karras, Trailing, Uniform
from genkit.diffusion.schedule import Cosine, LinearBeta, Rectified

SCHEDULES = [LinearBeta(), Cosine(), Rectified(), Rectified(shift=3.0)]


def _linear_betas(T: int) -> list[float]:
    return [1e-4 + (0.02 - 1e-4) * k / (T - 1) for k in range(T)]


def _cosine_betas(T: int) -> list[float]:
    f = [math.cos((k / T + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(T + 1)]
    return [min(1 - f[k + 1] / f[k], 0.999) for k in range(T)]


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [
        (LinearBeta(), _linear_betas(1000)),
        (Cosine(), _cosine_betas(1000)),
        (Cosine(T=4000), _cosine_betas(4000)),
    ],
)
def test_discrete_schedules_give_the_papers_products(schedule, betas):
    product = np.cumprod(1 - np.array(betas, dtype=np.longdouble)).astype(np.float64)
    T = len(betas)
    t = torch.arange(T, dtype=torch.float64) / (T - 1)
    alpha, sigma = schedule(t)
    np.testing.assert_allclose(alpha.square().numpy(), product, rtol=1e-12)
    np.testing.assert_allclose(sigma.square().numpy(), 1 - product, rtol=1e-11)


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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_rises_and_time_is_the_inverse(schedule):
    t = torch.linspace(0, 1, 1501, dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    torch.testing.assert_close(schedule.time(sigma / alpha), t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ratios_outside_give_the_ends(schedule):
    ends = schedule.time(torch.tensor([0.0, math.inf], dtype=torch.float64))
    assert ends.tolist() == [0, 1]


def test_float32_times_are_accurate():
    t = torch.rand(1000)
    for schedule in SCHEDULES:
        for low, high in zip(schedule(t), schedule(t.double()), strict=True):
            assert low.dtype == torch.float32
            torch.testing.assert_close(low.double(), high, rtol=2e-3, atol=1e-6)


def test_shift_is_sd3s_formula():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(Rectified(shift=3.0)(t)[1], 3 * t / (1 + 2 * t))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_diffuse_has_the_moments_of_q(schedule, rng):
    x0 = torch.full((40000, 1, 1, 1), 0.7)
    noise = torch.randn(x0.shape, generator=rng)
    t = torch.full((40000,), 0.4)
    alpha, sigma = (c[0].item() for c in schedule(t))
    x = schedule.diffuse(x0, t, noise)
    assert x.mean().item() == pytest.approx(alpha * 0.7, abs=5 * sigma / 200)
    assert x.std().item() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: LinearBeta(beta_end=1.5), "beta is 1.5"),
        (lambda: Cosine(T=1), "T is 1"),
        (lambda: Cosine(s=math.nan), "s is nan"),
        (lambda: Rectified(shift=0.0), "shift is 0.0"),
        (lambda: Trailing(T=0), "T is 0"),
        (lambda: Karras(rho=-1.0), "rho is -1.0"),
        (lambda: Karras(low=0.0), "ratios from 0.0"),
        (lambda: Uniform()(LinearBeta(), 0), "steps is 0"),
        (lambda: Uniform()(LinearBeta(), 5, start=1.2), "times from 1.2"),
        (lambda: Uniform()(LinearBeta(), 5, start=math.nan), "times from nan"),
        (lambda: Trailing()(LinearBeta(), 1000), "take fewer steps"),
    ],
)
def test_errors_name_the_value(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_trailing_visits_the_steps_of_the_chain():
    times = Trailing(T=1000)(LinearBeta(), 20)
    expected = torch.arange(999, 0, -50, dtype=torch.float64) / 999
    torch.testing.assert_close(times[:-1], expected, rtol=0, atol=1e-14)
    assert times[-1] == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_karras_is_even_in_the_seventh_root_of_the_ratio(schedule):
    times = Karras()(schedule, 12)
    alpha, sigma = schedule(times[1:-1])
    roots = (sigma / alpha) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(10), rtol=1e-6, atol=0)
    assert (sigma / alpha)[-1].item() == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize("grid", [Uniform(), Trailing(), Karras()])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("start", "stop"), [(1.0, 0.0), (0.6, 0.0), (0.9, 0.1)])
def test_grids_fall_from_start_to_stop(grid, schedule, start, stop):
    for steps in (1, 2, 7, 100):
        times = grid(schedule, steps, start, stop)
        assert len(times) == steps + 1 and times.dtype == torch.float64
        assert times[0] == start and times[-1] == stop and (times.diff() < 0).all()
