"""Guidance: its ends are the two conditions, it is linear between, and costs what it says."""

import math

import pytest
import torch
from torch import Tensor, nn

from genkit.diffusion.denoise import EDM, Denoiser, Denoises, Epsilon, Flow, V
from genkit.diffusion.guide import Apart, Guided
from genkit.diffusion.sample import DDIM, DPMPP2M, noise
from genkit.diffusion.schedule import Cosine
from genkit.model import Model


class Net(Model):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 2, 3, padding=1)
        self.calls: list[int] = []

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        self.calls.append(len(x))
        return self.mix(x).tanh() + text.mean(dim=(1, 2))[:, None, None, None]


@pytest.fixture()
def setting():
    cond = {"text": torch.randn(3, 2, 4, dtype=torch.float64)}
    negative = {"text": torch.randn(1, 2, 4, dtype=torch.float64)}
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    t = torch.rand(3, dtype=torch.float64)
    return Denoiser(Net().double(), Cosine(), V()), x, t, cond, negative


def _every(negative: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.expand(3, -1, -1) for name, value in negative.items()}


def test_scale_one_is_the_condition_and_zero_the_negative(setting):
    denoiser, x, t, cond, negative = setting
    one, zero = Guided(denoiser, 1.0, negative), Guided(denoiser, 0.0, negative)
    assert one(x, t, cond).mean.equal(denoiser(x, t, cond).mean)
    assert zero(x, t, cond).mean.equal(denoiser(x, t, _every(negative)).mean)
    assert one.passes == zero.passes == 1


def test_both_conditions_are_one_batch_and_two_passes(setting):
    denoiser, x, t, cond, negative = setting
    guided = Guided(denoiser, 3.0, negative)
    x0 = guided(x, t, cond).mean
    assert denoiser.backbone.calls == [6]
    assert guided.passes == 2
    asked, avoided = denoiser(x, t, cond).mean, denoiser(x, t, _every(negative)).mean
    torch.testing.assert_close(x0, avoided + 3 * (asked - avoided))


def test_the_same_condition_twice_changes_nothing(setting):
    denoiser, x, t, cond, _ = setting
    x0 = Guided(denoiser, 7.5, cond)(x, t, cond).mean
    torch.testing.assert_close(x0, denoiser(x, t, cond).mean)


@pytest.mark.parametrize("kind", [Epsilon(), V(), Flow(), EDM()])
def test_guiding_the_data_is_guiding_the_networks_output(setting, kind):
    """x̂_0 is affine in F, with weights that sum to one: F_neg + scale (F_cond − F_neg)."""
    denoiser, x, t, cond, negative = setting
    denoiser = Denoiser(denoiser.backbone, Cosine(), kind)
    c = kind.coefficients(*Cosine()(t))
    c_in, c_skip, c_out = (k[:, None, None, None] for k in c[:3])
    asked, avoided = (
        denoiser.backbone(c_in * x, c.c_noise, **each) for each in (cond, _every(negative))
    )
    expected = c_skip * x + c_out * (avoided + 3 * (asked - avoided))
    torch.testing.assert_close(Guided(denoiser, 3.0, negative)(x, t, cond).mean, expected)


def test_guidance_nests(setting):
    denoiser, x, t, cond, negative = setting
    inner = Guided(denoiser, 2.0, negative)
    assert Guided(inner, 2.0, negative).passes == 4


@pytest.mark.parametrize("sampler", [DDIM(), DPMPP2M()])
def test_samplers_take_it_for_a_denoiser(setting, sampler):
    denoiser, _, _, cond, negative = setting
    guided = Guided(denoiser, 3.0, negative)
    assert isinstance(guided, Denoises)
    x = noise([torch.Generator().manual_seed(i) for i in range(3)], (2, 5, 5), torch.float64)
    *_, state = sampler.trajectory(guided, x, 4, cond)
    assert state.nfe == 8
    assert state.x.isfinite().all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "name at least one"),
        ({"word": torch.zeros(1, 2, 4)}, "and no other"),
        ({"text": torch.zeros(1, 3, 4)}, "make them equal"),
        ({"text": torch.zeros(2, 2, 4)}, "make them equal"),
    ],
)
def test_conditions_must_match(setting, change, sentence):
    denoiser, x, t, cond, _ = setting
    with pytest.raises(ValueError, match=sentence):
        Guided(denoiser, 2.0, change)(x, t, cond)


def test_the_scale_must_be_finite(setting):
    with pytest.raises(ValueError, match="scale is nan"):
        Guided(setting[0], math.nan, {})


def test_apart_every_picture_is_answered_alone(setting):
    denoiser, x, t, cond, negative = setting
    guided = Guided(denoiser, 3.0, negative)
    apart = Apart(guided)
    assert isinstance(apart, Denoises) and apart.passes == 2 and apart.schedule == Cosine()
    denoiser.backbone.calls.clear()
    answer = apart(x, t, cond).mean
    assert denoiser.backbone.calls == [2, 2, 2]
    torch.testing.assert_close(answer, guided(x, t, cond).mean)
    for i in range(3):
        row = {"text": cond["text"][i : i + 1]}
        assert answer[i : i + 1].equal(guided(x[i : i + 1], t[i : i + 1], row).mean)
