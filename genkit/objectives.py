"""Objectives: what is minimised, and by whom.

An objective is a generator of losses. The training loop steps the player of each loss before it
asks for the next one:

    for loss in objective(batch):
        ∂ loss.total / ∂ players[loss.player];  one optimiser step of that player

so a game of several players (an autoencoder and its critic) needs no loop of its own: the
objective resumes after the player stepped. An objective with one loss is the ordinary case.

Objectives draw from torch's default generator, which the loop seeds anew before every step.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genkit.data.picturebook.scene import LABELS
from genkit.data.picturebook.source import to_unit
from genkit.diffusion.denoise import Condition
from genkit.diffusion.likelihood import step_nats
from genkit.diffusion.schedule import Discrete, spread
from genkit.diffusion.variance import LearnedVariance, earlier, posterior
from genkit.distributions import Categorical, Gaussian
from genkit.models.autoencoder import Autoencoder, DeterministicAutoencoder
from genkit.models.classifier import NoisyClassifier, class_of
from genkit.models.diffusion import PixelDiffusion
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder, kinds_of
from genkit.models.latent import LatentDiffusion
from genkit.models.vae import Level, Variational, parts

__all__ = [
    "Batch",
    "Bounded",
    "Contrasting",
    "Denoising",
    "Hybrid",
    "LatentDenoising",
    "Loss",
    "NoisyClassification",
    "Objective",
    "Reading",
    "Recognition",
    "Reconstruction",
    "SquaredError",
    "label_losses",
]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """What one player minimises now.

    Args:
        player: A key of the objective's `players`.
        total: The scalar that is differentiated.
        parts: Scalars to plot; no gradient flows through them.
    """

    player: str
    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Yields the losses of a batch; each player has an optimiser of its own.

    Players share no parameters. Modules that are not trained are frozen (`requires_grad_(False)`)
    and set to eval mode by the objective itself.
    """

    @property
    def players(self) -> Mapping[str, nn.Module]: ...

    def __call__(self, batch: Batch) -> Iterator[Loss]: ...


class Reconstruction:
    """What a KL autoencoder minimises: pixels, edges, and a weak pull towards N(0, I).

        loss = |x − g(z)| + |∇x − ∇g(z)| + β · KL(q(z | x) ‖ N(0, I)),   z ~ q(z | x)

    every term a mean over its elements. The gradient term keeps edges sharp without a
    discriminator, which a flat picture does not need.

    Args:
        model: The autoencoder.
        beta: Weight β of the divergence.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
            https://arxiv.org/abs/2112.10752
    """

    def __init__(self, model: Autoencoder, beta: float = 1e-5) -> None:
        self.model, self.beta = model, beta
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x = to_unit(batch["picture"])
        coded = self.model(x, torch.default_generator)
        error = coded.picture.mean - x
        parts = {
            "pixels": error.abs().mean(),
            "edges": error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean(),
            "kl": coded.posterior.kl().mean(),
        }
        yield Loss("model", parts["pixels"] + parts["edges"] + self.beta * parts["kl"], parts)


class SquaredError:
    """What a plain autoencoder minimises: E ‖x − g(f(x))‖², the mean over channels and pixels.

    Args:
        model: The autoencoder.
    """

    def __init__(self, model: DeterministicAutoencoder) -> None:
        self.model = model
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x = to_unit(batch["picture"])
        yield Loss("model", (self.model(x).mean - x).square().mean())


class Bounded:
    """The evidence bound of a model of latent variables, in bits per dimension.

        loss = E_q[−ln p(x | z)] + β Σ_levels Σ_channels max(λ, E_x KL(channel))

    The free bits λ take the reward from a channel that switches itself off: below λ nats its
    divergence costs nothing more. The bound that is reported has β = 1 and λ = 0.

    Args:
        model: A VAE or a hierarchical one.
        beta: Weight β of the divergences; 1 is the bound.
        free: λ, in nats of one channel of one picture.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016; free
            bits)  https://arxiv.org/abs/1606.04934
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins
            et al., 2017)  https://openreview.net/forum?id=Sy2fzU9gl
    """

    def __init__(self, model: Variational, beta: float = 1.0, free: float = 0.0) -> None:
        self.model, self.beta, self.free = model, beta, free
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x = to_unit(batch["picture"])
        coded = self.model(x, torch.default_generator)
        bound = parts(coded, x)
        paid = sum(self._paid(level) for level in coded.levels)
        unit = bound.dims * math.log(2)
        total = bound.parts["reconstruction"].mean() + self.beta * paid
        said = {"bits": bound.bits.mean()} | {
            _plain(name): part.mean() / unit for name, part in bound.parts.items()
        }
        yield Loss("model", total / unit, said)

    def _paid(self, level: Level) -> Tensor:
        """What a level costs: its channels' divergences, none of them below λ."""
        return level.dimensions.sum(dim=(2, 3)).mean(dim=0).clamp(min=self.free).sum()


def _plain(name: str) -> str:
    """The name of a part as a log can carry it: "16×16 · 2" → "16x16_2"."""
    return name.replace("×", "x").replace(" · ", "_")


class Reading:
    """Maximum likelihood of a scene's labels: −log p(labels | picture or caption), label by label.

    A caption often says nothing of a label; its likelihood is then best at the label's frequency
    among the scenes that fit the caption, so no mask is needed.

    Args:
        model: What is trained.
        answer: Its distributions for a batch, one for every label of the picture book.
    """

    def __init__(
        self, model: nn.Module, answer: Callable[[Batch], Mapping[str, Categorical]]
    ) -> None:
        self.answer = answer
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        parts = label_losses(self.answer(batch), batch["labels"])
        yield Loss("model", torch.stack(list(parts.values())).mean(), parts)


def label_losses(
    answers: Mapping[str, Categorical], labels: Int[Tensor, "B K"]
) -> dict[str, Float[Tensor, ""]]:
    """−log p of each label in nats, the mean over the batch."""
    columns = zip(LABELS, labels.unbind(dim=1), strict=True)
    return {name: -answers[name].log_prob(label).mean() for name, label in columns}


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
        # Stratified times: one in each of B equal parts of (0, 1], so that batches are alike.
        order = torch.randperm(len(z0), device=z0.device)
        t = (order + 1 - torch.rand(len(z0), device=z0.device)) / len(z0)
        t = t.clamp(min=1e-3)
        denoising = self.model.denoiser.loss(z0, t, torch.randn_like(z0), {"text": text}).mean()
        told = tokens.ne(0).any(dim=1)
        labels = text.new_zeros(())
        if told.any():
            answers = self.model.text_encoder.heads(text[told])
            by_name = label_losses(answers, batch["labels"][told])
            labels = torch.stack(list(by_name.values())).mean()
        parts = {"denoising": denoising, "labels": labels}
        yield Loss("model", denoising + self.weight * labels, parts)


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
        self.steps = _steps(model.denoiser.schedule)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x0 = to_unit(batch["picture"])
        t = _times(len(x0), self.steps)
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
        self.steps = _steps(model.denoiser.schedule)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x0 = to_unit(batch["picture"])
        t = _times(len(x0), self.steps)
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


class NoisyClassification:
    """Maximum likelihood of the class of a noisy picture: −ln P(y | x_t), at every step alike.

    Args:
        model: The classifier, on a chain.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), section 4
            https://arxiv.org/abs/2105.05233
    """

    def __init__(self, model: NoisyClassifier) -> None:
        self.model = model
        self.steps = _steps(model.schedule)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x0, y = to_unit(batch["picture"]), class_of(batch["labels"])
        t = _times(len(x0), self.steps)
        answer = self.model(self.model.schedule.diffuse(x0, t, torch.randn_like(x0)), t)
        right = (answer.mode == y).float().mean()
        yield Loss("model", -answer.log_prob(y).mean(), {"right": right})


class Recognition:
    """Maximum likelihood of the kinds of things in a picture: −Σ_k ln P(k is there or is not).

    Args:
        model: The classifier.
    """

    def __init__(self, model: ConvEncoder | ViTEncoder) -> None:
        self.model = model
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        there = kinds_of(batch["labels"])
        answer = self.model(to_unit(batch["picture"]))
        right = ((answer.logits > 0) == (there > 0)).all(dim=1).float().mean()
        yield Loss("model", -answer.log_prob(there).sum(dim=1).mean(), {"right": right})


class Contrasting:
    """InfoNCE: a picture finds its caption among those of its batch, a caption its picture.

        loss = −½ mean_i [ ln P(caption i | picture i) + ln P(picture i | caption i) ]

    Both are a softmax over the batch of v_i·w_j/τ. Two scenes of which a short caption is true
    alike count as different, which costs a little and is rare.

    Args:
        model: The two towers.

    References:
        Representation Learning with Contrastive Predictive Coding (van den Oord et al., 2018)
            https://arxiv.org/abs/1807.03748
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al.,
            2021; both ways), https://arxiv.org/abs/2103.00020
    """

    def __init__(self, model: Contrastive) -> None:
        self.model = model
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        caption = self.model(to_unit(batch["picture"]), batch["tokens"])
        picture = Categorical(caption.logits.T)
        own = torch.arange(len(caption.logits), device=caption.logits.device)
        right = (caption.mode == own).float().mean()
        total = -(caption.log_prob(own) + picture.log_prob(own)).mean() / 2
        yield Loss("model", total, {"right": right, "heat": self.model.heat})


def _steps(schedule: object) -> int:
    if not isinstance(schedule, Discrete):
        raise TypeError(
            f"{type(schedule).__name__} has no steps to draw; take a chain such as LinearBeta"
        )
    return len(schedule.betas())


def _times(count: int, steps: int) -> Float[Tensor, "B"]:
    """Stratified steps of a chain as times, float64 on the processor, in a random order."""
    u = (torch.randperm(count, device="cpu") + torch.rand(count, device="cpu").double()) / count
    return (u * steps).floor().clamp(max=steps - 1) / (steps - 1)


def _condition(model: PixelDiffusion, batch: Batch, drop: float) -> Condition:
    """The classes of the scenes, some of them replaced by no class."""
    label: Int[Tensor, "B"] = class_of(batch["labels"])
    dropped = torch.rand(len(label), device=label.device) < drop
    return {"label": label.masked_fill(dropped, len(model.classes))}
