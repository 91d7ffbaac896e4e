"""Of diffusion models: the one loss of a denoiser, of latents, pixels, hints and variances."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genkit.data.picturebook.source import to_unit
from genkit.diffusion.denoise import Condition, Flow
from genkit.diffusion.likelihood import step_nats
from genkit.diffusion.schedule import Rectified, spread
from genkit.diffusion.variance import LearnedVariance, earlier, posterior
from genkit.distributions import Gaussian
from genkit.models.classifier import class_of
from genkit.models.controlnet import Control, Controlled
from genkit.models.diffusion import PixelDiffusion
from genkit.models.latent import LatentDiffusion, Student
from genkit.objectives.base import Batch, Loss, drawn_times, steps_of
from genkit.objectives.recognition import label_losses

__all__ = ["Controlling", "Denoising", "Hybrid", "LatentDenoising", "Straightening"]


class LatentDenoising:
    """What text-to-image minimises: the denoiser's one loss, and that the words stay understood.

        loss = E_t ‖F − target‖²  +  weight · (−log p(labels | caption)),     t uniform in (0, 1]

    Denoiser and text encoder are trained together, the autoencoder is not; the second term keeps
    the scene tokens in the order in which the text encoder learned them. Empty captions, which
    teach the unconditional case, have no part in it.

    Args:
        model: The latent diffusion model.
        weight: Weight of the labels' likelihood.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
            https://arxiv.org/abs/2112.10752
    """

    def __init__(self, model: LatentDiffusion, weight: float = 0.3) -> None:
        self.model, self.weight = model, weight
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        z0, tokens = batch["latent"].float(), batch["tokens"]
        text = self.model.text_encoder(tokens)
        t = _stratified(len(z0), z0.device)
        denoising = self.model.denoiser.loss(z0, t, torch.randn_like(z0), {"text": text}).mean()
        told = tokens.ne(0).any(dim=1)
        labels = text.new_zeros(())
        if told.any():
            answers = self.model.text_encoder.heads(text[told])
            by_name = label_losses(answers, batch["labels"][told])
            labels = torch.stack(list(by_name.values())).mean()
        parts = {"denoising": denoising, "labels": labels}
        yield Loss("model", denoising + self.weight * labels, parts)


class Controlling:
    """What a control minimises: the loss of the denoiser that it controls, which is fixed.

        loss = E_t ‖F(x_t, t, text, hint) − target‖²,     t stratified in (0, 1]

    Args:
        model: The control.
        base: What it controls; frozen here, and moved to where the control is.
        planes: What the control reads of the batch's hints (`genkit.data.hints`).

    References:
        Adding Conditional Control to Text-to-Image Diffusion Models (Zhang et al., 2023),
            equation 5  https://arxiv.org/abs/2302.05543
    """

    def __init__(
        self, model: Control, base: LatentDiffusion, planes: Callable[[Tensor], Tensor]
    ) -> None:
        self.planes = planes
        self.base = base.requires_grad_(False).eval().to(next(model.parameters()).device)
        self.controlled = Controlled(self.base.denoiser, model)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        z0 = batch["latent"].float()
        name = self.controlled.control.name
        cond = {"text": self.base.text_encoder(batch["tokens"]), name: self.planes(batch["hint"])}
        t = _stratified(len(z0), z0.device)
        x_t = self.controlled.schedule.diffuse(z0, t, torch.randn_like(z0))
        c_out = self.base.denoiser.coefficients(t).c_out
        # F − target = (x̂_0 − x_0)/c_out
        error = (self.controlled(x_t, t, cond).mean - z0) / spread(c_out, z0)
        yield Loss("model", error.square().mean())


class Straightening:
    """Piecewise rectified flow: the way of a teacher, made straight in each of K windows.

        x_a, x_b    where the teacher's guided way is at the ends of a window [b, a] of t
        x_t         on the line from x_a to x_b
        loss = ‖F(x_t, t, text) − (x_a − x_b)/(σ_a − σ_b)‖²

    A student that fits it crosses each window in one step of Euler's rule, without guidance: K
    evaluations instead of 2 · 20. Windows are of equal length in t, as the steps of
    `grid.Uniform`.

    Two deviations from the paper. The ways begin in noise, as in the first rectified flow, not in
    data to which noise was added: a student is asked where its teacher has been, and guidance
    leads elsewhere than data. And t is not uniform in the window: a share of the pictures is
    asked at a, where K steps ask, and where the answer is sure; the others keep the way between
    straight.

    Args:
        model: The student, which begins as the teacher; its F is a velocity on a rectified
            schedule, its steps are K.
        first: Share of the pictures that are asked at a.

    Raises:
        TypeError: The student has another schedule or parametrization.

    References:
        PeRFlow: Piecewise Rectified Flow as Universal Plug-and-Play Accelerator (Yan et al., 2024)
            https://arxiv.org/abs/2405.07510
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et
            al., 2022)  https://arxiv.org/abs/2209.03003
    """

    def __init__(self, model: Student, first: float = 0.75) -> None:
        denoiser = model.denoiser
        for part, kind in ((denoiser.schedule, Rectified), (denoiser.parametrization, Flow)):
            if not isinstance(part, kind):
                raise TypeError(
                    f"a way is made straight on a rectified schedule with velocities, and the "
                    f"student has {type(part).__name__} instead of {kind.__name__}"
                )
        self.model, self.first = model, first
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x_a, x_b = batch["begin"].float(), batch["end"].float()
        denoiser, a, b = self.model.denoiser, batch["a"].cpu().double(), batch["b"].cpu().double()
        share = 1 - torch.rand(len(x_a), device="cpu").double()  # never 0: t is never b itself
        share = share.masked_fill(torch.rand(len(x_a), device="cpu") < self.first, 1)
        t = b + (a - b) * share
        sigma_a, sigma_b, sigma = (denoiser.schedule(time)[1] for time in (a, b, t))
        velocity = (x_a - x_b) / spread(sigma_a - sigma_b, x_a)
        x_t = x_b + spread(sigma - sigma_b, x_b) * velocity
        cond = {"text": batch["text"].float()}
        F = denoiser.output(x_t, denoiser.coefficients(t), cond)
        yield Loss("model", (F - velocity).square().mean())


class Denoising:
    """DDPM's simple loss: E_k ‖F − target‖², which is ‖F − ε‖² for an ε-prediction.

    Args:
        model: The pixel diffusion model, on a chain.
        drop: Share of labels that are dropped.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), equation 14
            https://arxiv.org/abs/2006.11239
    """

    def __init__(self, model: PixelDiffusion, drop: float = 0.1) -> None:
        self.model, self.drop = model, drop
        self.steps = steps_of(model.denoiser.schedule)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x0 = to_unit(batch["picture"])
        t = drawn_times(len(x0), self.steps)
        cond = _condition(self.model, batch, self.drop)
        loss = self.model.denoiser.loss(x0, t, torch.randn_like(x0), cond)
        yield Loss("model", loss.mean())


class Hybrid:
    """Improved DDPM's loss: L_simple teaches the mean, λ·L_vlb the variance alone.

        L_hybrid = ‖F − target‖² + λ T L_(k−1)(stop-gradient(x̂_0), ς)

    T L_(k−1) with a uniform k is an unbiased estimate of the whole bound but its constant L_T, in
    bits/dim as in the paper's own code, which the weight λ supposes.

    Args:
        model: A pixel diffusion model with a learned variance.
        weight: λ.
        drop: Share of labels that are dropped.

    Raises:
        TypeError: The model's variance is not learned.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), equation 16
            https://arxiv.org/abs/2102.09672
    """

    def __init__(self, model: PixelDiffusion, weight: float = 0.001, drop: float = 0.1) -> None:
        if not isinstance(model.denoiser, LearnedVariance):
            raise TypeError(
                f"a {type(model.denoiser).__name__} learns no variance; make the model with "
                "LearnedVariance, or take the objective Denoising"
            )
        self.model, self.weight, self.drop = model, weight, drop
        self.steps = steps_of(model.denoiser.schedule)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x0 = to_unit(batch["picture"])
        t = drawn_times(len(x0), self.steps)
        cond = _condition(self.model, batch, self.drop)
        denoiser = self.model.denoiser
        at = denoiser.schedule(t)
        answer = denoiser(denoiser.schedule.diffuse(x0, t, torch.randn_like(x0)), t, cond)
        # F − target = (x̂_0 − x_0)/c_out: one pass serves both terms.
        c_out = denoiser.parametrization.coefficients(*at).c_out
        simple = ((answer.mean - x0) / spread(c_out, x0)).square().mean()
        still = Gaussian(answer.mean.detach(), answer.std)
        nats = step_nats(still, x0, at, earlier(denoiser.schedule, t), self._floor())
        bits = self.steps * nats.mean() / math.log(2)
        yield Loss("model", simple + self.weight * bits, {"simple": simple, "bits": bits})

    def _floor(self) -> float:
        """β̃_2, which the decoder's variance is never below."""
        schedule = self.model.denoiser.schedule
        second = torch.tensor([1 / (self.steps - 1)], dtype=torch.float64, device="cpu")
        return posterior(schedule(second), earlier(schedule, second)).variance.item()


def _stratified(count: int, device: torch.device) -> Float[Tensor, "B"]:
    """Times, one in each of B equal parts of (0, 1], so that batches are alike."""
    order = torch.randperm(count, device=device)
    return ((order + 1 - torch.rand(count, device=device)) / count).clamp(min=1e-3)


def _condition(model: PixelDiffusion, batch: Batch, drop: float) -> Condition:
    """The classes of the scenes, some of them replaced by no class."""
    label: Int[Tensor, "B"] = class_of(batch["labels"])
    dropped = torch.rand(len(label), device=label.device) < drop
    return {"label": label.masked_fill(dropped, len(model.classes))}
