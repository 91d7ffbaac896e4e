"""What a control, a segmenter and a few-step student minimise, against their formulas."""

import copy
import math

import numpy as np
import pytest
import torch
from test_objectives import TEXTS, latent_diffusion, only

from genkit.data.hints import ink, planes
from genkit.data.picturebook.canvas import PARTS
from genkit.data.picturebook.scene import Scene
from genkit.data.picturebook.source import Mapped, Ways
from genkit.diffusion.denoise import V
from genkit.diffusion.sample import Euler
from genkit.diffusion.schedule import Cosine
from genkit.models.controlnet import Control, Controlled
from genkit.models.latent import LatentDiffusion, Student
from genkit.models.segmenter import Segmenter
from genkit.objectives import Controlling, Segmentation, Straightening

SIDE = 4


def hinted(model, texts=TEXTS[:4]) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {
        "latent": torch.randn(len(texts), 4, SIDE, SIDE, generator=rng),
        "tokens": model.text_encoder.encode(list(texts)),
        "hint": 255 * (torch.rand(len(texts), 8 * SIDE, 8 * SIDE, generator=rng) > 0.7).byte(),
    }


def test_a_fresh_control_has_the_loss_of_its_base_and_only_it_learns():
    base = latent_diffusion(randomised=True)
    batch = hinted(base)
    control = Control.of(base.denoiser.backbone, "sketch", 1)
    objective = Controlling(control, base, ink)
    torch.manual_seed(5)
    loss = only(objective(batch))
    loss.total.backward()
    assert control.across.weight.grad.any() and control.bottom.weight.grad.any()
    assert all(p.grad is None for p in base.parameters())
    torch.manual_seed(5)
    order = torch.randperm(4)
    t = ((order + 1 - torch.rand(4)) / 4).clamp(min=1e-3)
    with torch.no_grad():
        cond = {"text": base.text_encoder(batch["tokens"])}
        noise = torch.randn_like(batch["latent"])
        plain = base.denoiser.loss(batch["latent"], t, noise, cond).mean()
    torch.testing.assert_close(loss.total.detach(), plain)


def test_a_control_learns_what_its_hint_says_and_the_base_cannot_know():
    # The latent is the hint: ink where it is 1. A few steps, and the loss is below the base's.
    torch.manual_seed(0)
    base = latent_diffusion(randomised=True)
    batch = hinted(base, TEXTS * 4)
    grey = torch.nn.functional.avg_pool2d(ink(batch["hint"]), 8) - 0.3
    batch["latent"] = 5 * grey.expand(-1, 4, -1, -1)
    objective = Controlling(Control.of(base.denoiser.backbone, "sketch", 1), base, ink)
    control = objective.players["model"]
    optimiser = torch.optim.Adam(control.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        torch.manual_seed(step % 4)
        loss = only(objective(batch)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


def test_a_segmenter_minimises_the_entropy_of_every_pixel(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path))
    batch = Mapped(range(3), 32).batch([0, 2], torch.Generator())
    assert batch["picture"].shape == (2, 3, 32, 32) and batch["map"].shape == (2, 32, 32)
    truth = Scene.random(2).semantic_map(32)
    assert batch["map"][1].flatten().tolist() == list(truth.getdata())
    model = Segmenter((16, 16, 16), (0, 0, 0), size=32)
    torch.nn.init.zeros_(model.last.conv.weight)
    torch.nn.init.zeros_(model.last.conv.bias)
    loss = only(Segmentation(model)(batch))
    assert loss.total.item() == pytest.approx(math.log(len(PARTS)), rel=1e-6)
    sure = planes(batch["map"]).argmax(dim=1)
    assert torch.equal(sure, batch["map"].long())


def pupil(teacher: LatentDiffusion) -> Student:
    """A student of two windows that knows what its teacher knows."""
    return Student(copy.deepcopy(teacher.denoiser), "book128_latent", teacher.sha256 or "", 2)


def windows(count: int) -> dict[str, torch.Tensor]:
    """Two windows of ways of nothing in particular."""
    rng = torch.Generator().manual_seed(4)
    begin, end = torch.randn(2, count, 4, SIDE, SIDE, generator=rng).half()
    text = torch.randn(count, 5, 16, generator=rng).half()
    a = 1 - torch.arange(count) % 2 / 2
    return {"begin": begin, "end": end, "a": a, "b": a - 0.5, "text": text}


@pytest.mark.parametrize("first", [0.0, 0.5, 1.0])
def test_a_student_is_asked_on_straight_lines_for_their_slope(first):
    """A network that knows the slope has no loss, wherever it is asked."""
    model, batch, asked = pupil(latent_diffusion(randomised=True)), windows(64), []
    schedule = model.denoiser.schedule
    a, b = batch["a"], batch["b"]
    above, below = (
        torch.tensor([schedule.level(t).sigma for t in times])[:, None, None, None]
        for times in (a.tolist(), b.tolist())
    )
    height = above - below
    slope = (batch["begin"].float() - batch["end"].float()) / height

    def forward(x, time, text):
        asked.append((x, time, text))
        return slope

    model.denoiser.backbone.forward = forward
    loss = only(Straightening(model, first)(batch))
    assert loss.total.item() < 1e-12
    ((x, time, text),) = asked
    assert torch.equal(text, batch["text"].float())
    t = schedule.time(torch.tan(math.pi / 2 * time.double()))  # what is told is an angle
    sigma = schedule(t)[1].float()[:, None, None, None]
    line = batch["end"].float() + (sigma - below) * slope
    torch.testing.assert_close(x, line, atol=1e-4, rtol=1e-4)
    assert bool(((t > b) & (t < a + 1e-6)).all())
    at_a = (t - a).abs() < 1e-6
    assert at_a.float().mean().item() == pytest.approx(first, abs=0.15)


def test_a_student_that_says_the_velocity_crosses_a_window_in_one_step():
    # What the objective asks of F is what Euler's rule needs, on this schedule.
    teacher = latent_diffusion(randomised=True)
    x, velocity = torch.randn(2, 4, SIDE, SIDE), torch.randn(2, 4, SIDE, SIDE)
    student = copy.deepcopy(teacher.denoiser)
    student.backbone.forward = lambda x, time, text: velocity
    cond = {"text": torch.zeros(2, 5, 16)}
    (state,) = Euler().trajectory(student, x, 1, cond, start=0.75, stop=0.5)
    schedule = teacher.denoiser.schedule
    moved = schedule.level(0.5).sigma - schedule.level(0.75).sigma
    torch.testing.assert_close(state.x, x + moved * velocity)


def test_a_student_learns_from_windows_and_needs_velocities():
    model = pupil(latent_diffusion(randomised=True))
    only(Straightening(model)(windows(3))).total.backward()
    assert all(p.grad is not None for p in model.denoiser.parameters())
    for part, words in (
        ({"parametrization": V()}, "student has V instead of Flow"),
        ({"schedule": Cosine()}, "student has Cosine instead of Rectified"),
    ):
        with pytest.raises(TypeError, match=words):
            Straightening(pupil(latent_diffusion(**part)))


def test_windows_are_those_of_the_ways():
    rng = np.random.default_rng(0)
    ways = rng.standard_normal((3, 5, 2, 4, 4)).astype(np.float16)
    texts = rng.standard_normal((3, 7, 6)).astype(np.float16)
    source = Ways(ways, texts)
    assert len(source) == 12
    batch = source.batch([0, 7, 11], torch.Generator())
    assert batch["a"].tolist() == [1, 0.25, 0.25] and batch["b"].tolist() == [0.75, 0, 0]
    for place, (i, k) in enumerate(((0, 0), (1, 3), (2, 3))):
        assert np.array_equal(batch["begin"][place].numpy(), ways[i, k])
        assert np.array_equal(batch["end"][place].numpy(), ways[i, k + 1])
        assert np.array_equal(batch["text"][place].numpy(), texts[i])


def test_a_student_takes_its_teachers_place_but_no_other_ones():
    teacher = latent_diffusion(randomised=True)
    teacher.sha256 = "ab" * 32
    student = pupil(teacher)
    student.sha256 = "cd" * 32
    model = student.among(teacher)
    assert model.denoiser is student.denoiser and model.sha256 == student.sha256
    assert model.autoencoder is teacher.autoencoder and not model.training
    teacher.sha256 = "ef" * 32
    with pytest.raises(ValueError, match="taught by book128_latent abab.*has the hash efef"):
        student.among(teacher)
    with pytest.raises(ValueError, match="has the hash none"):
        student.among(Segmenter((16, 16, 16), (0, 0, 0), size=32))


def test_the_copy_may_be_shallower_than_the_base():
    unet = latent_diffusion().denoiser.backbone
    deep = type(unet)(4, (16, 16), (1, 3), (1, 1), 16, 16)
    control = Control.of(deep, "sketch", 1, depth=1)
    assert len(control.middle) == 1
    assert torch.equal(control.middle[0].first.weight, deep.middle[0].first.weight)
    denoiser = latent_diffusion().denoiser
    assert Controlled(denoiser, control).passes == denoiser.passes
