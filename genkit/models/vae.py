"""Variational autoencoders: pictures as draws from a decoder whose input is noise.

    p(x) = ∫ p(x | z) p(z) dz,      p(z) = N(0, I)
    q(z | x) = N(μ(x), diag σ²(x)),     z = μ(x) + σ(x)·ε,     ε ~ N(0, I)

The integral is out of reach; what Jensen's inequality leaves of it is the bound

    −ln p(x)  ≤  E_q[−ln p(x | z)]  +  KL(q(z | x) ‖ p(z))        nats: what reading x costs with
                 reconstruction        divergence                 z known, and what z costs

and k draws of z give a tighter one (IWAE), equal to it at k = 1 and exact as k → ∞:

    −ln p̂_k(x) = −ln 1/k Σ_i p(x, z_i)/q(z_i | x)

A hierarchical VAE (`genkit.models.hvae`) has several z, each with a divergence of its own; here is
what both are made of, which minds no shapes, and the family with one.

p(x | z) is a mixture of discretised logistic laws for every pixel: a probability of the 8-bit
picture itself, so the bound over the number of channels is in bits per dimension and can be
compared with any other lossless code.

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        https://arxiv.org/abs/1312.6114
    Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende et al.,
        2014)  https://arxiv.org/abs/1401.4082
    Importance Weighted Autoencoders (Burda et al., 2016)
        https://arxiv.org/abs/1509.00519
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from genkit.diffusion.sample import noise
from genkit.distributions import Distribution, Gaussian, LogisticMixture
from genkit.model import Model
from genkit.models.autoencoder import check_latents, check_picture
from genkit.nn.convnet import Contract, Unpatchify, blocks
from genkit.nn.layers import Head, full

__all__ = [
    "VAE",
    "Coded",
    "Level",
    "Parts",
    "Randomness",
    "Variational",
    "check_temperature",
    "drawn",
    "iwae",
    "parts",
]

Randomness = Sequence[Generator] | Generator | None
"""One generator for every picture, or one for the batch; None is no randomness: the mean."""


@dataclass(frozen=True)
class Level:
    """One latent variable of pictures: what was expected of it, what x says of it, and a value.

    Args:
        name: Its size, as "4×4".
        prior: p(z | the levels above).
        posterior: q(z | x, the levels above).
        z: A value of it, drawn or the mean.
    """

    name: str
    prior: Gaussian
    posterior: Gaussian
    z: Float[Tensor, "B ..."]

    @property
    def dimensions(self) -> Float[Tensor, "B ..."]:
        """KL(posterior ‖ prior) of each number of z, in nats."""
        return self.posterior.kl(self.prior)

    @property
    def divergence(self) -> Float[Tensor, "B"]:
        """KL(posterior ‖ prior) of each picture, in nats."""
        return self.dimensions.flatten(1).sum(dim=1)

    @property
    def surprise(self) -> Float[Tensor, "B"]:
        """ln q(z)/p(z), whose mean over draws of z is the divergence."""
        ratio = self.posterior.log_prob(self.z) - self.prior.log_prob(self.z)
        return ratio.flatten(1).sum(dim=1)


@dataclass(frozen=True)
class Coded:
    """What the model says of pictures: p(x | z), and how z came about, from the top down."""

    picture: Distribution
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Parts:
    """The bound of pictures, part by part.

    Args:
        parts: By name, each a cost of each picture in nats.
        dims: Numbers of a picture: channels times pixels.
    """

    parts: Mapping[str, Float[Tensor, "B"]]
    dims: int

    @property
    def nats(self) -> Float[Tensor, "B"]:
        """Of each picture, the sum of the parts: at least −ln p(x)."""
        return torch.stack(list(self.parts.values())).sum(dim=0)

    @property
    def bits(self) -> Float[Tensor, "B"]:
        """The same in bits per dimension."""
        return self.nats / (self.dims * math.log(2))


@runtime_checkable
class Variational(Protocol):
    """A model of latent variables: of one level a VAE, of several a hierarchical one."""

    size: int
    levels: tuple[str, ...]

    def __call__(self, x: Tensor, rngs: Randomness = None) -> Coded: ...


def drawn(law: Gaussian, rngs: Randomness) -> Float[Tensor, "B ..."]:
    """μ + σ·ε: a draw through which gradients flow; without randomness μ."""
    if rngs is None:
        return law.mean
    if isinstance(rngs, Generator):
        return law.sample(rngs)
    eps = noise(rngs, law.mean.shape[1:], dtype=law.mean.dtype, device=law.mean.device)
    return law.mean + law.std * eps


def parts(coded: Coded, x: Float[Tensor, "B ..."]) -> Parts:
    """The negative evidence bound with the latents that were drawn, part by part."""
    costs = {"reconstruction": -coded.picture.log_prob(x).flatten(1).sum(dim=1)}
    return Parts(costs | {level.name: level.divergence for level in coded.levels}, x[0].numel())


def iwae(
    model: Variational, x: Float[Tensor, "B ..."], k: int, rngs: Randomness
) -> Float[Tensor, "B"]:
    """−ln p̂_k(x) in nats; its mean falls as k grows and never below −ln p(x).

    Args:
        model: Of latent variables.
        x: Pictures in [−1, 1].
        k: Draws of z for each.
        rngs: Their randomness.

    Raises:
        ValueError: If k is less than 1, or there is no randomness.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), equation 8
            https://arxiv.org/abs/1509.00519
    """
    if k < 1:
        raise ValueError(f"k = {k} draws give no estimate: take at least 1.")
    if rngs is None:
        raise ValueError("The importance weights need draws of z: give generators.")
    weights = []
    for _ in range(k):
        coded = model(x, rngs)
        given = coded.picture.log_prob(x).flatten(1).sum(dim=1)
        weights.append(given - torch.stack([level.surprise for level in coded.levels]).sum(dim=0))
    return math.log(k) - torch.stack(weights).logsumexp(dim=0)


class VAE(Model):
    """One cloud of latents of C × H/8 × W/8 and back.

    Args:
        channels: Latent channels C.
        widths: Channels of the maps of 1/2, 1/4 and 1/8 of the side, on either way.
        encoder: Residual blocks of each in the encoder.
        decoder: The same in the decoder.
        mixture: Logistic laws K of a pixel.
        size: Side of the pictures it was trained on, in pixels.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
            https://arxiv.org/abs/1312.6114
    """

    def __init__(
        self,
        channels: int = 16,
        widths: tuple[int, int, int] = (104, 144, 160),
        encoder: tuple[int, int, int] = (2, 1, 1),
        decoder: tuple[int, int, int] = (3, 2, 1),
        mixture: int = 5,
        size: int = 32,
    ) -> None:
        super().__init__()
        self.size, self.channels = size, channels
        self.levels = (f"{size // 8}×{size // 8}",)
        half, quarter, eighth = widths
        self.encoder = Contract(widths, encoder)
        self.posterior = nn.Sequential(nn.SiLU(), Head(eighth, 2 * channels, 3, padding=1))
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, eighth, 3, padding=1),
            *blocks(eighth, decoder[2]),
            Unpatchify(eighth, quarter, 2),
            *blocks(quarter, decoder[1]),
            Unpatchify(quarter, half, 2),
            *blocks(half, decoder[0]),
            nn.SiLU(),
            Unpatchify(half, 10 * mixture, 2, kernel=3, layer=Head),
        )

    def forward(self, x: Float[Tensor, "B 3 H W"], rngs: Randomness = None) -> Coded:
        """Encodes, draws z, decodes.

        Raises:
            ValueError: If the pictures are not of the model's size.
        """
        levels = self.encode(x, rngs)
        return Coded(self.decode([levels[0].z]), levels)

    def encode(self, x: Float[Tensor, "B 3 H W"], rngs: Randomness = None) -> tuple[Level, ...]:
        """Returns the one level: N(0, I), q(z | x), and z.

        Raises:
            ValueError: If the pictures are not of the model's size.
        """
        check_picture(x, self.size)
        mean, log_std = full(self.posterior(self.encoder(x.to(self._dtype))[-1])).chunk(2, dim=1)
        # Far beyond what training reaches; exp and log stay finite.
        posterior = Gaussian(mean, log_std.clamp(-10, 10).exp())
        prior = Gaussian(torch.zeros_like(mean), torch.ones_like(mean))
        return (Level(self.levels[0], prior, posterior, drawn(posterior, rngs)),)

    def decode(self, latents: Sequence[Float[Tensor, "B ..."]]) -> LogisticMixture:
        """Returns p(x | z).

        Raises:
            ValueError: If there is not one latent of the right shape.
        """
        check_latents(latents, [(self.channels, self.size // 8)])
        return LogisticMixture.of(full(self.decoder(latents[0].to(self._dtype))))

    def generate(
        self,
        rngs: Sequence[Generator],
        given: Sequence[Float[Tensor, "B ..."]] = (),
        temperature: float = 1.0,
    ) -> tuple[tuple[Tensor, ...], LogisticMixture]:
        """Returns z, drawn from the prior where it is not given, and p(x | z).

        Args:
            rngs: One for each picture.
            given: Nothing, or z.
            temperature: Of the prior, whose standard deviation it is.

        Raises:
            ValueError: If a given latent does not fit, or the temperature is out of range.
        """
        check_temperature(temperature)
        if not given:
            side = self.size // 8
            z = noise(rngs, (self.channels, side, side), device=self._device)
            given = (temperature * z,)
        return tuple(given), self.decode(given)

    def sample(self, rngs: Sequence[Generator]) -> Float[Tensor, "B 3 H W"]:
        """The mean pictures of latents from the prior."""
        return self.generate(rngs)[1].mean

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


def check_temperature(temperature: float) -> None:
    """0 is the most probable picture, 1 the model; what is above 2 lies where nothing was."""
    if not 0 <= temperature <= 2:
        raise ValueError(f"The temperature is {temperature}: use 0 to 2, 1 is the model's own.")
