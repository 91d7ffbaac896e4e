"""The hierarchical VAE: several clouds, each expected from those above it.

    p(x) = ∫ p(z_1) p(z_2 | z_1) … p(z_L | z_<L) p(x | z)  dz
    q(z | x) = q(z_1 | x) q(z_2 | z_1, x) … q(z_L | z_<L, x)
    −ln p(x) ≤ E_q[−ln p(x | z)] + Σ_l E_q KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l))

One ladder serves both: the encoder goes up once, from 1/2 to 1/8 of the side; then a single way
goes down, on which every level draws its z, from the prior that the way so far expects,
N(μ_p, σ_p²), or from the posterior. The posterior is the prior, corrected by a measurement: the
patch itself (linearly), the encoder's map of this size and the way so far say m, give or take r,
and Bayes' rule for two Gaussians weighs both by their precision,

    g = σ_p²/(σ_p² + r²)        μ_q = μ_p + g (m − μ_p)        σ_q² = (1 − g) σ_p²

A level of which the prior is sure (σ_p ≪ r) therefore costs next to nothing, whatever x is; the
divergence pays for what is new. Residual blocks that start as the identity, free bits
(`objectives.Bounded`) and steps that are left out when a gradient is suddenly large
(`Recipe.skip`) keep many levels stable without normalisation.

Diffusion is the same ladder with an encoder that has no parameters, the noise, and a thousand
levels of the picture's own size.

References:
    Ladder Variational Autoencoders (Sønderby et al., 2016; one way down for both, and precisions
        as weights)  https://arxiv.org/abs/1602.02282
    NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020; a posterior that is
        a correction of the prior)  https://arxiv.org/abs/2007.03898
    Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child,
        2021; the block of the way down, skipped steps)  https://arxiv.org/abs/2011.10650
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from genkit.distributions import Gaussian, LogisticMixture
from genkit.model import Model
from genkit.models.autoencoder import check_latents, check_picture
from genkit.models.vae import (
    Coded,
    Level,
    Randomness,
    check_temperature,
    drawn,
)
from genkit.nn.convnet import Contract, ConvBlock, Patchify, Unpatchify
from genkit.nn.layers import Head, full, zeros

__all__ = ["HVAE"]

WIDEST = 1.2
"""ln σ_p of a prior, at most. A draw shapes the next prior: where the way down has never been, a
level without this bound may expect σ_p = 148 and those below run away with it, which spoiled one
of seven dreamt pictures of book32_hvae; what it reads costs the same to a ten-thousandth bit."""


class Rung(nn.Module):
    """One level: prior and posterior of z from the way down, and what z adds to it.

    Args:
        width: Channels of the way down and of the encoder's map.
        channels: Channels of z.
        patch: Side of a cell of z in pixels.
    """

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        self.prior = zeros(Head(width, 2 * channels, 3, padding=1))
        self.join = nn.Conv2d(2 * width, width, 1)
        self.measure = zeros(Head(width, 2 * channels, 3, padding=1))
        self.code = Patchify(3, channels, patch)
        self.log_error = nn.Parameter(torch.full((channels, 1, 1), -1.0))
        self.add = nn.Conv2d(channels, width, 1)
        self.block = ConvBlock(width)

    def expect(self, h: Float[Tensor, "B D h w"]) -> Gaussian:
        """p(z | the levels above)."""
        mean, log_std = full(self.prior(F.silu(h))).chunk(2, dim=1)
        return Gaussian(mean, _soft(log_std).clamp(max=WIDEST).exp())

    def look(
        self,
        prior: Gaussian,
        h: Float[Tensor, "B D h w"],
        seen: Float[Tensor, "B D h w"],
        x: Float[Tensor, "B 3 H W"],
    ) -> Gaussian:
        """q(z | x, the levels above): the prior and what is measured, weighed by precision."""
        joined = F.silu(self.join(F.silu(torch.cat((h, seen), dim=1))))
        change, log_ratio = full(self.measure(joined)).chunk(2, dim=1)
        measured = full(self.code(x)) + change
        sharper = 2 * (prior.std.log() - self.log_error - _soft(log_ratio))  # ln σ_p²/r²
        mean = torch.lerp(prior.mean, measured, sharper.sigmoid())
        return Gaussian(mean, prior.std * (0.5 * F.logsigmoid(-sharper)).exp())

    def forward(
        self, h: Float[Tensor, "B D h w"], z: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B D h w"]:
        """The way down, one level further."""
        return self.block(h + self.add(z.to(h.dtype)))


class HVAE(Model):
    """A ladder of three sizes with several latents each.

    Args:
        channels: Channels of a latent at 1/8, 1/4 and 1/2 of the side.
        counts: Latents of each size.
        widths: Channels of the maps of 1/2, 1/4 and 1/8 of the side, on either way.
        encoder: Residual blocks of each in the encoder; the way down has one for each latent.
        mixture: Logistic laws K of a pixel.
        size: Side of the pictures it was trained on, in pixels.

    References:
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child,
            2021)  https://arxiv.org/abs/2011.10650
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (16, 8, 3),
        counts: tuple[int, int, int] = (1, 1, 4),
        widths: tuple[int, int, int] = (104, 144, 160),
        encoder: tuple[int, int, int] = (1, 1, 1),
        mixture: int = 5,
        size: int = 32,
    ) -> None:
        super().__init__()
        self.size, self.counts = size, counts
        sides = [size // 8, size // 4, size // 2]
        self.levels = tuple(
            f"{side}×{side} · {i + 1}"
            for side, n in zip(sides, counts, strict=True)
            for i in range(n)
        )
        self.shapes = [
            (channel, side)
            for channel, side, n in zip(channels, sides, counts, strict=True)
            for _ in range(n)
        ]
        down = widths[::-1]
        self.encoder = Contract(widths, encoder)
        self.top = nn.Parameter(torch.zeros(down[0], sides[0], sides[0]))
        self.rungs = nn.ModuleList(
            nn.ModuleList(Rung(width, channel, size // side) for _ in range(n))
            for width, channel, side, n in zip(down, channels, sides, counts, strict=True)
        )
        self.enlarge = nn.ModuleList(
            Unpatchify(before, width, 2) for before, width in zip(down, down[1:], strict=False)
        )
        self.last = nn.Sequential(
            nn.SiLU(), Unpatchify(down[2], 10 * mixture, 2, kernel=3, layer=Head)
        )
        nn.init.zeros_(self.last[1].conv.weight)  # its bias keeps the laws of a mixture apart

    def forward(self, x: Float[Tensor, "B 3 H W"], rngs: Randomness = None) -> Coded:
        """Encodes, draws every z from its posterior, decodes.

        Raises:
            ValueError: If the pictures are not of the model's size.
        """
        check_picture(x, self.size)
        x = x.to(self.top.dtype)
        maps = self.encoder(x)[::-1]
        levels: list[Level] = []

        def seen(rung: Rung, h: Tensor, scale: int) -> Tensor:
            prior = rung.expect(h)
            posterior = rung.look(prior, h, maps[scale], x)
            name = self.levels[len(levels)]
            levels.append(Level(name, prior, posterior, drawn(posterior, rngs)))
            return levels[-1].z

        return Coded(self._descend(len(x), seen), tuple(levels))

    def encode(self, x: Float[Tensor, "B 3 H W"], rngs: Randomness = None) -> tuple[Level, ...]:
        """Returns every level, from the top down.

        Raises:
            ValueError: If the pictures are not of the model's size.
        """
        return self(x, rngs).levels

    def decode(self, latents: Sequence[Float[Tensor, "B ..."]]) -> LogisticMixture:
        """Returns p(x | z_1 … z_L).

        Raises:
            ValueError: If the latents are not as many and as large as the model's.
        """
        check_latents(latents, self.shapes)
        rest = iter(latents)
        return self._descend(len(latents[0]), lambda rung, h, scale: next(rest))

    def generate(
        self,
        rngs: Sequence[Generator],
        given: Sequence[Float[Tensor, "B ..."]] = (),
        temperature: float = 1.0,
    ) -> tuple[tuple[Tensor, ...], LogisticMixture]:
        """Returns all z, those below the given ones drawn from their priors, and p(x | z).

        Args:
            rngs: One for each picture.
            given: The first levels, from the top: what shall stay.
            temperature: Of the priors, a factor of their standard deviations.

        Raises:
            ValueError: If a given latent does not fit, or the temperature is out of range.
        """
        check_temperature(temperature)
        check_latents(given, self.shapes[: len(given)])
        latents: list[Tensor] = []

        def dreamt(rung: Rung, h: Tensor, scale: int) -> Tensor:
            if len(latents) < len(given):
                latents.append(given[len(latents)])
            else:
                prior = rung.expect(h)
                law = Gaussian(prior.mean, temperature * prior.std)
                latents.append(drawn(law, rngs))
            return latents[-1]

        picture = self._descend(len(rngs), dreamt)
        return tuple(latents), picture

    def sample(self, rngs: Sequence[Generator]) -> Float[Tensor, "B 3 H W"]:
        """The mean pictures of latents from the priors."""
        return self.generate(rngs)[1].mean

    def _descend(
        self, count: int, choose: Callable[[Rung, Tensor, int], Tensor]
    ) -> LogisticMixture:
        """The way down: `choose` gives each level its z, from (rung, h, scale)."""
        h = self.top.expand(count, -1, -1, -1)
        for scale, rungs in enumerate(self.rungs):
            if scale > 0:
                h = self.enlarge[scale - 1](h)
            for rung in rungs:
                h = rung(h, choose(rung, h, scale))
        return LogisticMixture.of(full(self.last(h)))


def _soft(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """About x up to 2, and never beyond 5: a logarithm that cannot run away (NVAE)."""
    return 5 * (x / 5).tanh()
