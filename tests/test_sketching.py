"""Drawing to picture: what a hint changes, what it leaves, and what is refused."""

import math

import pytest
import torch
from test_generate import FLOAT32, fast, pictures, tiny, values  # noqa: F401

from genkit.generate import Picture, SketchToImage, TextToImage
from genkit.models.controlnet import Control
from genkit.nn.unet import UNet

PROMPT = "a red house at night"


@pytest.fixture(scope="module")
def model() -> SketchToImage:
    drawer = TextToImage(tiny(), "tiny", FLOAT32)
    control = Control.of(drawer.model.denoiser.backbone, "sketch", 1)
    for layer in (control.hint[-1], control.across, control.bottom):
        for p in layer.parameters():
            torch.nn.init.normal_(p, std=0.3)
    return SketchToImage(drawer, control, "tiny_sketch")


def drawing(side: int = 64) -> torch.Tensor:
    hint = torch.zeros(1, 1, side, side)
    hint[0, 0, side // 4 : side // 2, 8:24] = 1
    return hint


def one(model: SketchToImage, hint: torch.Tensor, prompt: str = PROMPT, **options) -> Picture:
    (picture,) = pictures(model(hint, [prompt], seeds=[7], **({"steps": 3} | options)))
    return picture


def test_an_empty_canvas_is_the_prompt_alone(model):
    (plain,) = pictures(model.drawer([PROMPT], seeds=[7], steps=3, size=64))
    assert one(model, torch.zeros(1, 1, 64, 64)).sha256 == plain.sha256
    assert one(model, drawing(), strength=0.0).sha256 == plain.sha256
    assert one(model, drawing()).sha256 != plain.sha256


def test_where_the_ink_is_makes_a_difference(model):
    moved = drawing().roll(24, dims=2)
    assert one(model, drawing()).sha256 != one(model, moved).sha256
    assert one(model, drawing()).sha256 == one(model, drawing()).sha256


def test_pictures_share_a_hint_and_differ_by_seed_as_if_alone(model):
    both = pictures(model(drawing(), [PROMPT, PROMPT], seeds=[7, 8], steps=3))
    assert both[0].sha256 == one(model, drawing()).sha256 != both[1].sha256


def test_each_picture_may_have_a_hint_of_its_own(model):
    hints = torch.cat([drawing(), torch.zeros_like(drawing())])
    drawn = pictures(model(hints, [PROMPT, PROMPT], seeds=[7, 7], steps=3))
    alone = [one(model, hint[None]).sha256 for hint in hints]
    assert [picture.sha256 for picture in drawn] == alone


def test_guess_mode_follows_the_hint_further(model):
    plain = values(one(model, torch.zeros(1, 1, 64, 64), ""))
    usual, guess = (values(one(model, drawing(), "", guess=g)) for g in (False, True))
    assert abs(guess - plain).mean() > abs(usual - plain).mean() > 0


def test_the_size_is_that_of_the_hint(model):
    assert one(model, drawing(96)).image.size == (96, 96)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("hint", "options", "words"),
    [
        (drawing(), {"strength": 1.6}, "strength is 1.6"),
        (drawing(), {"strength": math.nan}, "strength is nan, not a number"),
        (drawing(), {"start": 0.7, "stop": 0.2}, "the start before the stop"),
        (drawing(), {"stop": "end"}, "stop is 'end', not a number"),
        (drawing().expand(-1, 3, -1, -1), {}, "needs 1 planes and a square"),
        (drawing()[:, :, :48], {}, "needs 1 planes and a square"),
        (2 * drawing(), {}, "not from 0 to 1"),
        (drawing() * math.nan, {}, "not from 0 to 1"),
        (torch.zeros(1, 1, 72, 72), {}, "The size 72 is none"),
        (drawing().expand(3, -1, -1, -1), {}, "3 hints for 1 prompts"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(model, hint, options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        list(model(hint, [PROMPT], seeds=[7], **options))


def test_a_control_of_another_base_is_refused(model):
    other = Control.of(UNet(4, (32, 32), (1, 1), (1, 1), 16, 16), "sketch", 1)
    with pytest.raises(ValueError, match="was made for other latents"):
        SketchToImage(model.drawer, other, "other")


def test_a_checkpoint_that_is_no_control_is_refused():
    with pytest.raises(ValueError, match="follows no hint"):
        SketchToImage.from_pretrained("book128_reader")
