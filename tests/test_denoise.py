"""The one loss and the one denoiser against the papers' targets."""

import math

import pytest
import torch
from torch import Tensor, nn

from genkit.diffusion.denoise import EDM, X0, Denoiser, Denoises, Epsilon, Flow, V
from genkit.diffusion.schedule import Cosine, LinearBeta, Rectified
from genkit.distributions import Dirac
from genkit.model import Model, build, describe

SCHEDULES = [LinearBeta(), Cosine(), Rectified(), Rectified(shift=3.0)]
PARAMETRIZATIONS = [Epsilon(), X0(), V(), Flow(), EDM(0.5)]


class Net(Model):
    """A backbone that remembers what it was given."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        self.seen = {"x": x, "time": time, "text": text}
        return self.mix(x) * _four(1 + time.to(x)) + _four(text.mean(dim=(1, 2)).to(x))


def _batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {
        "x0": torch.randn(6, 2, 5, 5, dtype=dtype),
        "t": torch.rand(6, dtype=dtype) * 0.98 + 0.01,
        "noise": torch.randn(6, 2, 5, 5, dtype=dtype),
        "text": torch.randn(6, 3, 4, dtype=dtype),
    }


def _four(c: Tensor) -> Tensor:
    return c[:, None, None, None]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_one_loss_is_every_papers_loss(schedule, kind):
    net = Net().double()
    b = _batch()
    x0, noise = b["x0"], b["noise"]
    alpha, sigma = (_four(c) for c in schedule(b["t"]))
    loss = Denoiser(net, schedule, kind).loss(x0, b["t"], noise, {"text": b["text"]})
    F = net(net.seen["x"], net.seen["time"], b["text"])
    targets = {
        Epsilon: lambda: noise,
        X0: lambda: x0,
        V: lambda: alpha * noise - sigma * x0,
        Flow: lambda: noise - x0,
    }
    if isinstance(kind, EDM):
        # λ(ρ)‖D(y; ρ) − x_0‖² with y = x_0 + ρ ε, λ = (ρ² + s²)/(ρ s)²: Karras et al., equation 2
        rho, s = sigma / alpha, 0.5
        y = x0 + rho * noise
        torch.testing.assert_close(net.seen["x"], y / (rho**2 + s**2).sqrt())
        D = s**2 / (rho**2 + s**2) * y + rho * s / (rho**2 + s**2).sqrt() * F
        weighted = (rho**2 + s**2) / (rho * s) ** 2 * (D - x0).square()
        torch.testing.assert_close(net.seen["time"], rho.flatten().log() / 4)
    else:
        weighted = (F - targets[type(kind)]()).square()
        torch.testing.assert_close(net.seen["x"], alpha * x0 + sigma * noise)
    torch.testing.assert_close(loss, weighted.mean(dim=(1, 2, 3)), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_the_right_output_denoises_exactly(schedule, kind):
    b = _batch()
    alpha, sigma = schedule(b["t"])
    x_t = schedule.diffuse(b["x0"], b["t"], b["noise"])
    c = kind.coefficients(alpha, sigma)
    F = (b["x0"] - _four(c.c_skip) * x_t) / _four(c.c_out)

    class Oracle(Model):
        def __init__(self) -> None:
            super().__init__()

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return F

    q = Denoiser(Oracle(), schedule, kind)(x_t, b["t"])
    assert isinstance(q, Dirac)
    torch.testing.assert_close(q.mean, b["x0"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [X0(), V(), Flow()])
def test_pure_noise_is_allowed_where_it_is_defined(kind):
    one = torch.ones(2, dtype=torch.float64)
    assert all(c.isfinite().all() for c in kind.coefficients(*Rectified()(one)))


@pytest.mark.parametrize("kind", [Epsilon(), EDM()])
def test_alpha_zero_is_refused_by_a_sentence(kind):
    with pytest.raises(ValueError, match="undefined at alpha = 0"):
        kind.coefficients(*Rectified()(torch.ones(2)))


def test_sigma_zero_has_no_loss():
    b = _batch()
    denoiser = Denoiser(Net().double(), Rectified(), Flow())
    with pytest.raises(ValueError, match="draw times from"):
        denoiser.loss(b["x0"], 0 * b["t"], b["noise"], {"text": b["text"]})


def test_edm_needs_a_positive_deviation():
    with pytest.raises(ValueError, match="sigma_data is -1"):
        EDM(-1.0)


@pytest.mark.parametrize("kind", [Epsilon(), X0(), V(), Flow()])
def test_the_network_sees_an_angle_that_does_not_depend_on_the_schedule(kind):
    ratio = torch.logspace(-1.9, 2, 9, dtype=torch.float64)
    angles = []
    for schedule in SCHEDULES:
        c = kind.coefficients(*schedule(schedule.time(ratio)))
        angles.append(c.c_noise)
    for angle in angles:
        torch.testing.assert_close(angle, ratio.atan() * 2 / math.pi, rtol=1e-9, atol=0)


def test_an_unknown_condition_is_a_type_error():
    b = _batch(torch.float32)
    denoiser = Denoiser(Net(), Cosine(), V())
    with pytest.raises(TypeError, match="condition 'txet' is unknown to Net; it takes text"):
        denoiser(b["x0"], b["t"], {"txet": b["text"]})


@pytest.mark.parametrize("inside", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("outside", [torch.float32, torch.float64])
def test_only_the_backbone_changes_dtype(inside, outside):
    b = _batch(outside)
    net = Net().to(inside)
    x0 = Denoiser(net, Cosine(), V())(b["x0"], b["t"], {"text": b["text"]}).mean
    assert x0.dtype == outside
    assert net.seen["x"].dtype == net.seen["text"].dtype == inside
    assert net.seen["time"].dtype == (torch.float64 if inside == torch.float64 else torch.float32)


def test_gradients_reach_the_backbone():
    b = _batch(torch.float32)
    denoiser = Denoiser(Net(), Cosine(), V())
    denoiser.loss(b["x0"], b["t"], b["noise"], {"text": b["text"]}).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in denoiser.parameters())


def test_a_denoiser_denoises_and_its_settings_are_recorded():
    for schedule in SCHEDULES:
        for kind in PARAMETRIZATIONS:
            denoiser = Denoiser(Net(), schedule, kind)
            assert isinstance(denoiser, Denoises)
            assert build(describe(schedule)) == schedule
            assert build(describe(kind)) == kind
