"""The reader: a distribution for every label, and what a place looks like reaches its token."""

import pytest
import torch
from torch import nn

from genkit.data.picturebook.scene import LABELS
from genkit.models.reader import Reader


@pytest.fixture()
def tiny() -> Reader:
    model = Reader(widths=(8, 8, 8), blocks=(1, 1, 1), dim=16, layers=2, heads=2, tokens=4)
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    return model.eval()


def test_every_label_gets_a_distribution(tiny):
    answers = tiny(torch.rand(2, 3, 128, 128) * 2 - 1)
    assert list(answers) == list(LABELS)
    for name, answer in answers.items():
        torch.testing.assert_close(answer.mean.sum(-1), torch.ones(2))
        assert answer.mean.shape == (2, len(LABELS[name]))


def test_a_picture_does_not_depend_on_its_batch(tiny):
    x = torch.rand(8, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        together = tiny(x)["ground"].logits
        alone = torch.cat([tiny(one[None])["ground"].logits for one in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_pixel_and_every_parameter_matters(tiny):
    x = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    sum(a.logits.square().sum() for a in tiny(x).values()).backward()
    assert (x.grad != 0).all()
    for name, p in tiny.named_parameters():
        assert p.grad is not None and p.grad.any() and p.grad.isfinite().all(), name


def test_a_side_that_is_no_multiple_of_16_is_refused(tiny):
    with pytest.raises(ValueError, match="120×128.*multiples of 16"):
        tiny(torch.zeros(1, 3, 128, 120))


def test_it_learns_where_a_colour_is():
    """A patch on the left or on the right: the places of the features reach the tokens."""
    model = Reader(widths=(16, 16, 16), blocks=(1, 1, 1), dim=32, layers=2, heads=2, tokens=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(100):
        x, side = -torch.ones(16, 3, 32, 32), torch.randint(2, (16,), generator=rng)
        for picture, right in zip(x, side):
            picture[:, 12:20, 4 + 16 * right : 12 + 16 * right] = 1
        answers = model(x)
        loss = -(
            answers["left.size"].log_prob(1 - side) + answers["right.size"].log_prob(side)
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_saving_keeps_the_answers(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "reader")
    x = torch.rand(2, 3, 64, 64)
    for a, b in zip(tiny(x).values(), Reader.from_pretrained(tmp_path / "reader")(x).values()):
        assert torch.equal(a.logits, b.logits)


def test_half_precision_weights_take_full_precision_pictures(tiny):
    x = torch.rand(2, 3, 64, 64)
    exact = tiny(x)["left.kind"].mean
    rough = tiny.bfloat16()(x)["left.kind"].mean
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)
