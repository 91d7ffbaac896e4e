"""ControlNet: the base as it was, to the last bit; and what a control adds, where and how much."""

import math
from dataclasses import replace

import pytest
import torch

from genkit.diffusion.denoise import Denoiser, Flow
from genkit.diffusion.guide import Guided
from genkit.diffusion.sample import Euler, noise
from genkit.diffusion.schedule import Rectified
from genkit.models.controlnet import Control, Controlled
from genkit.nn.unet import UNet

SIDE = 4


def tiny_unet() -> UNet:
    torch.manual_seed(0)
    unet = UNet(latent=4, channels=(16, 32), blocks=(1, 1), heads=(1, 2), text=8, dim=16)
    for parameter in unet.parameters():  # a fresh net answers 0, whatever is added inside
        torch.nn.init.normal_(parameter, std=0.1)
    return unet


def base() -> Denoiser:
    return Denoiser(tiny_unet(), Rectified(), Flow()).requires_grad_(False).eval()


def trained(control: Control, seed: int = 1) -> Control:
    """As if it had learned something: its last layers are not zero any more."""
    rng = torch.Generator().manual_seed(seed)
    for layer in (control.hint[-1], control.across, control.bottom):
        for parameter in layer.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=rng)
    return control.eval()


def asked(count: int = 3, names: tuple[str, ...] = ("sketch",)) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    cond = {"text": torch.randn(count, 5, 8, generator=rng)}
    for name in names:
        ink = torch.rand(count, 1, 8 * SIDE, 8 * SIDE, generator=rng) > 0.8
        cond[name] = ink.float()
    return cond


def state(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return x, torch.full((count,), 0.5, dtype=torch.float64)


def without(cond: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"text": cond["text"]}


@torch.no_grad()
def test_before_training_the_base_answers_bit_for_bit():
    denoiser, cond, (x, t) = base(), asked(), state()
    controlled = Controlled(denoiser, Control.of(denoiser.backbone, "sketch", 1))
    assert torch.equal(controlled(x, t, cond).mean, denoiser(x, t, without(cond)).mean)


def test_the_copy_begins_with_the_weights_of_the_way_down():
    unet = tiny_unet()
    control = Control.of(unet, "sketch", 1)
    theirs, ours = unet.state_dict(), control.state_dict()
    shared = theirs.keys() & ours.keys()
    assert {key.split(".")[0] for key in theirs.keys() - shared} == {
        "enlarge", "up", "ask_again", "out"
    }  # fmt: skip
    assert {key.split(".")[0] for key in ours.keys() - shared} == {"hint", "across", "bottom"}
    assert all(torch.equal(theirs[key], ours[key]) for key in shared)
    x, text = torch.randn(2, 4, SIDE, SIDE), torch.randn(2, 5, 8)
    c = unet.vector(torch.rand(2), text)
    for one, other in zip(unet.contract(x, c, text), control.contract(x, c, text), strict=True):
        assert torch.equal(one, other)


def test_a_step_of_training_moves_the_control_and_leaves_the_base():
    denoiser, cond, (x, t) = base(), asked(), state()
    control = Control.of(denoiser.backbone, "sketch", 1)
    before = {key: value.clone() for key, value in denoiser.state_dict().items()}
    optimiser = torch.optim.SGD(control.parameters(), lr=1e-3)
    for _ in range(5):  # zero convolutions open one after the other
        optimiser.zero_grad()
        Controlled(denoiser, control)(x, t, cond).mean.square().sum().backward()
        optimiser.step()
    assert all(torch.equal(before[key], value) for key, value in denoiser.state_dict().items())
    assert all(p.grad is not None and p.grad.any() for p in control.hint.parameters())
    assert not torch.equal(control.stem[0].weight, denoiser.backbone.stem[0].weight)


@torch.no_grad()
def test_an_empty_hint_controls_nothing_and_each_picture_has_its_own():
    denoiser, cond, (x, t) = base(), asked(), state()
    controlled = Controlled(denoiser, trained(Control.of(denoiser.backbone, "sketch", 1)))
    plain, moved = denoiser(x, t, without(cond)).mean, controlled(x, t, cond).mean
    assert (moved - plain).flatten(1).norm(dim=1).min() > 0.05
    cond["sketch"][1] = 0
    mixed = controlled(x, t, cond).mean
    assert torch.equal(mixed[1], plain[1])
    torch.testing.assert_close(mixed[[0, 2]], moved[[0, 2]])


@torch.no_grad()
def test_strength_is_a_factor_of_what_is_added():
    denoiser, cond, (x, t) = base(), asked(), state()
    full = Controlled(denoiser, trained(Control.of(denoiser.backbone, "sketch", 1)))
    inner = denoiser.inputs(x, denoiser.coefficients(t), cond)
    skip, bottom = full.control(*inner[:2], cond["text"], cond["sketch"])
    half = replace(full, strength=0.5)(x, t, cond).mean
    by_hand = denoiser(x, t, without(cond) | {"skip": 0.5 * skip, "bottom": 0.5 * bottom}).mean
    torch.testing.assert_close(half, by_hand)
    none = replace(full, strength=0.0)(x, t, cond).mean
    assert torch.equal(none, denoiser(x, t, without(cond)).mean)


@torch.no_grad()
def test_control_acts_between_start_and_stop_of_the_way():
    denoiser, cond, (x, _) = base(), asked(), state()
    control = trained(Control.of(denoiser.backbone, "sketch", 1))
    part = Controlled(denoiser, control, start=0.25, stop=0.75)
    for way, acts in ((0.0, False), (0.25, True), (0.5, True), (0.75, False), (0.9, False)):
        t = torch.full((3,), 1 - way, dtype=torch.float64)
        plain = denoiser(x, t, without(cond)).mean
        assert torch.equal(part(x, t, cond).mean, plain) is not acts


@torch.no_grad()
def test_controls_add_up_in_any_order():
    denoiser, cond, (x, t) = base(), asked(names=("sketch", "map")), state()
    one = trained(Control.of(denoiser.backbone, "sketch", 1), 1)
    two = trained(Control.of(denoiser.backbone, "map", 1), 2)
    there = Controlled(Controlled(denoiser, one), two)(x, t, cond).mean
    back = Controlled(Controlled(denoiser, two), one)(x, t, cond).mean
    torch.testing.assert_close(there, back)
    only = {name: value for name, value in cond.items() if name != "map"}
    assert not torch.allclose(there, Controlled(denoiser, one)(x, t, only).mean)


@torch.no_grad()
def test_guess_mode_exaggerates_the_hint_and_needs_no_words():
    denoiser, cond, (x, t) = base(), asked(), state()
    cond["text"] = cond["text"][:1].expand(3, -1, -1)  # the empty text: nothing to exaggerate
    controlled = Controlled(denoiser, trained(Control.of(denoiser.backbone, "sketch", 1)))
    blank = cond | {"sketch": torch.zeros_like(cond["sketch"])}
    guess = Guided(controlled, 3.0, blank)(x, t, cond).mean
    plain, moved = denoiser(x, t, without(cond)).mean, controlled(x, t, cond).mean
    torch.testing.assert_close(guess, plain + 3 * (moved - plain), atol=1e-4, rtol=1e-4)
    # What the negative does not name is the same on both sides: only the words are exaggerated.
    words = Guided(controlled, 3.0, without(cond))(x, t, cond).mean
    torch.testing.assert_close(words, moved, atol=1e-5, rtol=1e-5)


def test_a_trajectory_with_an_untrained_control_is_that_of_the_base():
    denoiser, cond = base(), asked()
    controlled = Controlled(denoiser, Control.of(denoiser.backbone, "sketch", 1))
    rngs = [torch.Generator().manual_seed(seed) for seed in range(3)]
    start = noise(rngs, (4, SIDE, SIDE))
    there = Euler()(controlled, start, 4, cond)
    assert torch.equal(there, Euler()(denoiser, start, 4, without(cond)))


def test_a_saved_control_is_loaded_as_it_was(tmp_path):
    control = trained(Control.of(tiny_unet(), "map", 3))
    control.save_pretrained(tmp_path / "control")
    again = Control.from_pretrained(tmp_path / "control")
    assert (again.name, again.planes) == ("map", 3)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in control.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strength": -0.1}, "strength is -0.1: use 0 to 2"),
        ({"strength": math.nan}, "strength is nan"),
        ({"start": 0.6, "stop": 0.4}, "the start before the stop"),
        ({"stop": 1.2}, "from 0 to 1"),
        ({"start": math.nan}, "from nan"),
    ],
)
def test_numbers_out_of_range_are_refused_in_a_sentence(change, words):
    denoiser = base()
    controlled = Controlled(denoiser, Control.of(denoiser.backbone, "sketch", 1))
    with pytest.raises(ValueError, match=words):
        replace(controlled, **change)


def test_hints_that_are_missing_or_do_not_fit_are_refused_in_a_sentence():
    denoiser, cond, (x, t) = base(), asked(), state()
    controlled = Controlled(denoiser, Control.of(denoiser.backbone, "sketch", 1))
    with pytest.raises(ValueError, match="asks for the condition 'sketch'"):
        controlled(x, t, without(cond))
    with pytest.raises(ValueError, match=r"has shape \(1, 16, 16\).*need \(1, 32, 32\)"):
        controlled(x, t, cond | {"sketch": cond["sketch"][..., :16, :16]})
