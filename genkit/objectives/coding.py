"""Of models that code pictures: squared errors, and the evidence bound."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from genkit.data.picturebook.source import to_unit
from genkit.models.autoencoder import Autoencoder, DeterministicAutoencoder
from genkit.models.vae import Level, Variational, parts
from genkit.objectives.base import Batch, Loss

__all__ = ["Bounded", "Reconstruction", "SquaredError"]


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
