"""What a control, a segmenter and a few-step student minimise, against their formulas."""

import copy
import math

import pytest
import torch
from test_objectives import TEXTS, latent_diffusion, only

from genkit.data.hints import planes
from genkit.data.picturebook.canvas import PARTS
from genkit.data.picturebook.scene import Scene
from genkit.data.picturebook.source import Mapped
from genkit.diffusion.denoise import V
from genkit.diffusion.guide import Guided
from genkit.diffusion.multistep import DPMPP2M
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
        "hint": torch.rand(len(texts), 1, 8 * SIDE, 8 * SIDE, generator=rng) > 0.7,
    }


def test_a_fresh_control_has_the_loss_of_its_base_and_only_it_learns():
    base = latent_diffusion(randomised=True)
    batch = hinted(base)
    control = Control.of(base.denoiser.backbone, "sketch", 1)
    objective = Controlling(control, base)
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
    ink = torch.nn.functional.avg_pool2d(batch["hint"].float(), 8) - 0.3
    batch["latent"] = 5 * ink.expand(-1, 4, -1, -1)
    objective = Controlling(Control.of(base.denoiser.backbone, "sketch", 1), base)
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
    sure = planes(batch["map"].numpy()).argmax(dim=1)
    assert torch.equal(sure, batch["map"].long())


def pupil(teacher: LatentDiffusion) -> Student:
    """A student of two windows that knows what its teacher knows."""
    return Student(copy.deepcopy(teacher.denoiser), "book128_latent", teacher.sha256 or "", 2)


def test_straight_lines_end_where_the_teacher_arrives():
    teacher = latent_diffusion(randomised=True)
    objective = Straightening(pupil(teacher), teacher, guidance=2.0, steps=3)
    schedule, z0 = teacher.denoiser.schedule, torch.randn(3, 4, SIDE, SIDE)
    with torch.no_grad():
        text = teacher.text_encoder(teacher.text_encoder.encode(list(TEXTS[:3])))
        for window, (a, b) in enumerate(((1.0, 0.5), (0.5, 0.0))):
            torch.manual_seed(7)
            x_t, t, velocity = objective._line(z0, text, window)
            torch.manual_seed(7)
            x_a = schedule.diffuse(z0, torch.full((3,), a).double(), torch.randn_like(z0))
            guided = Guided(teacher.denoiser, 2.0, teacher.condition([""]))
            *_, last = DPMPP2M().trajectory(guided, x_a, 3, {"text": text}, start=a, stop=b)
            assert bool(((t > b) & (t <= a)).all())
            sigma = schedule(t)[1][:, None, None, None].float()
            end, first = schedule.level(b).sigma, schedule.level(a).sigma
            torch.testing.assert_close(
                x_t + (end - sigma) * velocity, last.x, atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(x_t + (first - sigma) * velocity, x_a, atol=1e-4, rtol=1e-4)


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


def test_only_the_students_denoiser_learns_from_the_teacher():
    teacher = latent_diffusion(randomised=True)
    model = pupil(teacher)
    objective = Straightening(model, teacher, steps=1)
    loss = only(objective(hinted(teacher)))
    loss.total.backward()
    assert all(p.grad is not None for p in model.denoiser.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    with pytest.raises(ValueError, match="3 pictures are not shared evenly by 2 windows"):
        only(objective(hinted(teacher, TEXTS[:3])))
    for part, words in (
        ({"parametrization": V()}, "teacher has V instead of Flow"),
        ({"schedule": Cosine()}, "teacher has Cosine instead of Rectified"),
    ):
        with pytest.raises(TypeError, match=words):
            Straightening(model, latent_diffusion(**part))


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
