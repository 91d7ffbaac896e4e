"""Grids: their definitions, the published tables, and diffusers' timesteps and sigmas."""

import importlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genkit.diffusion.grid import (
    AYS_SD15,
    AYS_SDXL,
    AYS_SVD,
    AlignYourSteps,
    Exponential,
    Karras,
    Leading,
    LogSNR,
    Trailing,
    Uniform,
)
from genkit.diffusion.sample import DPMPP2M, Heun
from genkit.diffusion.schedule import (
    Cosine,
    Exploding,
    LinearBeta,
    Rectified,
    ScaledLinear,
    Schedule,
)
from genkit.diffusion.terminal import ZeroTerminal
from genkit.distributions import Dirac
from genkit.model import build, describe

CHAINS = [LinearBeta(), ScaledLinear(), Cosine(), ZeroTerminal(ScaledLinear())]
SCHEDULES = [*CHAINS, Rectified(), Rectified(shift=3.0), Exploding()]
GRIDS = [Uniform(), Trailing(), Karras(), Exponential(), LogSNR(), AYS_SD15, AYS_SDXL, AYS_SVD]


def _ratio(schedule: Schedule, times: Tensor) -> Tensor:
    alpha, sigma = schedule(times)
    return sigma / alpha


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("start", "stop"), [(1.0, 0.0), (0.6, 0.0), (0.9, 0.1)])
def test_grids_fall_from_start_to_stop(grid, schedule, start, stop):
    for steps in (1, 2, 7, 100):
        times = grid(schedule, steps, start, stop)
        assert len(times) == steps + 1 and times.dtype == torch.float64
        assert times[0] == start and times[-1] == stop and (times.diff() < 0).all()


@pytest.mark.parametrize("grid", [*GRIDS, Leading(offset=1)])
def test_grids_are_recorded_in_a_config(grid):
    assert build(describe(grid)) == grid


def test_trailing_visits_the_steps_of_the_chain():
    times = Trailing(T=1000)(LinearBeta(), 20)
    expected = torch.arange(999, 0, -50, dtype=torch.float64) / 999
    torch.testing.assert_close(times[:-1], expected, rtol=0, atol=1e-14)
    assert times[-1] == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_karras_is_even_in_the_seventh_root_of_the_ratio(schedule):
    times = Karras(low=0.03)(schedule, 12)
    ratio = _ratio(schedule, times[1:-1])
    roots = ratio ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(10), rtol=1e-6, atol=0)
    assert ratio[-1].item() == pytest.approx(0.03, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exponential_is_even_in_the_log_snr_and_ends_at_the_smallest_ratio(schedule):
    times = Exponential(low=0.03)(schedule, 12)
    log = schedule.log_snr(times[1:-1])
    torch.testing.assert_close(log.diff(), log.diff()[:1].expand(10), rtol=1e-6, atol=0)
    assert log[-1].item() == pytest.approx(-2 * math.log(0.03), rel=1e-6)
    close = Karras(rho=1e5, low=0.03)(schedule, 12)
    torch.testing.assert_close(times, close, rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_log_snr_is_even_and_stops_one_step_before_the_smallest_ratio(schedule):
    times = LogSNR(low=0.03)(schedule, 12)
    log = schedule.log_snr(times[1:-1])
    step = (-2 * math.log(0.03) - log[-1]).expand(10)
    torch.testing.assert_close(log.diff(), step, rtol=1e-6, atol=0)
    top = _ratio(schedule, torch.ones(1, dtype=torch.float64)).clamp(max=80)
    assert (log[0] - step[0]).item() == pytest.approx(-2 * top.log().item(), rel=1e-6)


# Leading


def test_leading_begins_below_the_last_step_and_ends_at_the_first():
    times = Leading()(LinearBeta(), 20) * 999
    expected = torch.arange(950, -1, -50, dtype=torch.float64)
    torch.testing.assert_close(times[:-1], expected, rtol=0, atol=1e-11)
    assert times[-2] > times[-1] == 0
    # What it evaluates there is the chain's first step, what follows is clean data.
    assert LinearBeta().level(times[-2].item() / 999).sigma == pytest.approx(0.01, rel=1e-9)


def test_leading_takes_a_noised_picture_at_its_own_level():
    schedule = LinearBeta()
    times = Leading(offset=1)(schedule, 10, start=599 / 999) * 999
    assert times.tolist() == pytest.approx([599, *range(481, 0, -60), 0])


# diffusers


def _timesteps(name: str, steps: int, **config: object) -> np.ndarray:
    file = {"DDIM": "ddim", "DPMSolverMultistep": "dpmsolver_multistep"}[name]
    module = importlib.import_module(f"diffusers.schedulers.scheduling_{file}")
    scheduler = getattr(module, f"{name}Scheduler")(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **config
    )
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.numpy()


def _sigmas(steps: int, **config: object) -> Tensor:
    module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_multistep")
    scheduler = module.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **config
    )
    scheduler.set_timesteps(steps)
    return scheduler.sigmas[:-1].double()


@pytest.mark.parametrize("steps", [1, 7, 20, 50, 999])
@pytest.mark.parametrize(
    ("grid", "name", "config"),
    [
        (Uniform(), "DPMSolverMultistep", {"timestep_spacing": "linspace"}),
        (Trailing(), "DDIM", {"timestep_spacing": "trailing"}),
        (Leading(), "DDIM", {"timestep_spacing": "leading"}),
        (Leading(offset=1), "DDIM", {"timestep_spacing": "leading", "steps_offset": 1}),
    ],
)
def test_equal_steps_are_diffusers(grid, name, config, steps):
    """They round to whole steps of the chain; Leading has no other."""
    times = (grid(ScaledLinear(), steps)[:-1] * 999).numpy()
    slack = 1e-9 if isinstance(grid, Leading) else 0.5 + 1e-9
    np.testing.assert_allclose(times, _timesteps(name, steps, **config), rtol=0, atol=slack)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_ratios_are_diffusers(steps):
    """Their Karras and exponential sigmas run between the ends of the chain; so do ours if
    `low` and `high` lie beyond, the smallest being evaluated before the step to clean data."""
    schedule = ScaledLinear()
    wide = {"low": 1e-3, "high": 1e3}
    for grid, config, count in (
        (Karras(**wide), {"use_karras_sigmas": True}, steps),
        (Exponential(**wide), {"use_exponential_sigmas": True}, steps),
        (LogSNR(**wide), {"use_lu_lambdas": True}, steps + 1),
    ):
        ratio = _ratio(schedule, grid(schedule, steps)[:-1])
        torch.testing.assert_close(ratio, _sigmas(count, **config)[:steps], rtol=2e-5, atol=0)


@pytest.mark.parametrize(
    ("grid", "name"), [(AYS_SD15, "StableDiffusion"), (AYS_SDXL, "StableDiffusionXL")]
)
def test_align_your_steps_is_the_published_table(grid, name):
    from diffusers.schedulers import AysSchedules

    times = grid(ScaledLinear(), 10)
    torch.testing.assert_close(
        times[:-1] * 999,
        torch.tensor(AysSchedules[f"{name}Timesteps"], dtype=torch.float64),
        rtol=0,
        atol=1e-7,
    )
    sigmas = torch.tensor(AysSchedules[f"{name}Sigmas"][:-1], dtype=torch.float64)
    # Their sigmas agree with their own timesteps to three digits only.
    torch.testing.assert_close(_ratio(ScaledLinear(), times[:-1]), sigmas, rtol=0, atol=3.5e-3)


def test_align_your_steps_of_video_is_the_published_table():
    from diffusers.schedulers import AysSchedules

    ratio = _ratio(Exploding(sigma_max=700.0), AYS_SVD(Exploding(sigma_max=700.0), 10)[:-1])
    sigmas = torch.tensor(AysSchedules["StableDiffusionVideoSigmas"][:-1], dtype=torch.float64)
    torch.testing.assert_close(ratio, sigmas, rtol=1e-9, atol=0)


@pytest.mark.parametrize("steps", [3, 20, 37])
def test_align_your_steps_is_interpolated_in_the_logarithm(steps):
    schedule, table = ScaledLinear(), np.array(AYS_SD15.ratios)
    place = np.linspace(0, 10, steps + 1)
    expected = np.exp(np.interp(place, np.arange(11), np.log(table)))[:-1]
    ratio = _ratio(schedule, AYS_SD15(schedule, steps)[:-1])
    np.testing.assert_allclose(ratio.numpy(), expected, rtol=1e-6)


def test_align_your_steps_takes_its_own_part_of_the_table():
    """From the fourth ratio of the table, seven steps visit the rest of it."""
    schedule = ScaledLinear()
    whole = AYS_SD15(schedule, 10)
    part = AYS_SD15(schedule, 7, start=whole[3].item())
    torch.testing.assert_close(part, whole[3:], rtol=0, atol=1e-9)


# In use


class Gaussians:
    """The exact denoiser of N(0.3, 0.8²) data."""

    passes = 1

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        gain = alpha * 0.64 / (alpha.square() * 0.64 + sigma.square())
        return Dirac(0.3 + gain * (x_t - alpha * 0.3))


@pytest.mark.parametrize("sampler", [Heun, DPMPP2M])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "grid", [Karras(low=1e-3), Exponential(), Exponential(low=1e-3), LogSNR(), AYS_SD15]
)
def test_samplers_reach_the_data_on_every_grid(sampler, schedule, grid, rng):
    """Also where the last evaluation is the first step of the chain, just above t = 0."""
    x = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    x0 = sampler(grid=grid)(Gaussians(schedule), x * schedule.level(1.0).sigma, 60)
    assert (x0 - (0.3 + 0.8 * x)).abs().max() < 0.06


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Trailing(T=0), "T is 0"),
        (lambda: Karras(rho=-1.0), "rho is -1.0"),
        (lambda: Karras(low=0.0), "ratios from 0.0"),
        (lambda: Exponential(low=math.nan), "ratios from nan"),
        (lambda: LogSNR(high=0.01), "ratios from 0.02 to 0.01"),
        (lambda: AlignYourSteps((1.0, 1.0)), "falling and above 0"),
        (lambda: AlignYourSteps((1.0,)), "at least two"),
        (lambda: AlignYourSteps((math.inf, 1.0)), "falling and above 0"),
        (lambda: Leading(offset=-1), "offset is -1"),
        (lambda: Leading()(Rectified(), 5), "counts the steps of a chain"),
        (lambda: Leading()(LinearBeta(), 5, stop=0.1), "not to t = 0.1"),
        (lambda: Leading()(LinearBeta(), 1001), "take fewer steps"),
        (lambda: Leading(offset=1)(LinearBeta(), 1000), "take fewer steps"),
        (lambda: Uniform()(LinearBeta(), 0), "steps is 0"),
        (lambda: Uniform()(LinearBeta(), 5, start=1.2), "times from 1.2"),
        (lambda: Uniform()(LinearBeta(), 5, start=math.nan), "times from nan"),
        (lambda: Trailing()(LinearBeta(), 1000), "take fewer steps"),
    ],
)
def test_errors_name_the_value(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
