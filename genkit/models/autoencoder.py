"""A light Kullback-Leibler autoencoder: pictures in [−1, 1] to small latents and back.

    q(z | x) = N(z; μ(x), diag σ²(x))        `encode`: "B 3 H W"     → Gaussian over "B C H/8 W/8"
    p(x | z) = δ(x − g(z))                   `decode`: "B C H/8 W/8" → Dirac over "B 3 H W"

Both nets change resolution in two steps, 1 ↔ 1/4 ↔ 1/8, and do all their work at 1/4 and 1/8 of
the side, where a convolution costs a sixteenth of what it costs on pixels: on a CPU the decoder,
not the sampler, would otherwise dominate text-to-image. The last convolution is linear (no tanh,
which would make pure colours unreachable): clamp to [−1, 1] when the picture is used.

A diffusion model wants latents of unit variance. `calibrate` stores the mean and the standard
deviation of each channel over a training set, and

    standardise(z) = (z − shift)/scale,      restore(z) = z·scale + shift.

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        https://arxiv.org/abs/1312.6114
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
        https://arxiv.org/abs/2112.10752
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genkit.distributions import Dirac, Gaussian
from genkit.model import Model
from genkit.nn.convnet import ConvBlock, Patchify, Unpatchify
from genkit.nn.layers import full

__all__ = ["Autoencoder", "Coded"]


@dataclass(frozen=True)
class Coded:
    """What `Autoencoder.forward` knows about a picture: q(z | x), a latent z, and p(x | z)."""

    posterior: Gaussian
    latent: Float[Tensor, "B C h w"]
    picture: Dirac


class Autoencoder(Model):
    """KL autoencoder with latents of C × H/8 × W/8.

    Args:
        channels: Number of latent channels C.
        encoder: Width at 1/4 and at 1/8 of the side in the encoder.
        decoder: The same in the decoder.
        encoder_blocks: Number of residual blocks at 1/4 and at 1/8 in the encoder.
        decoder_blocks: The same in the decoder.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
            https://arxiv.org/abs/2112.10752
    """

    factor: int = 8
    """Ratio of the sides of a picture and of its latents."""

    def __init__(
        self,
        channels: int = 8,
        encoder: tuple[int, int] = (64, 160),
        decoder: tuple[int, int] = (80, 160),
        encoder_blocks: tuple[int, int] = (1, 2),
        decoder_blocks: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__()
        fine, coarse = encoder
        self.encoder = nn.Sequential(
            Patchify(3, fine, 4),
            *(ConvBlock(fine) for _ in range(encoder_blocks[0])),
            Patchify(fine, coarse, 2),
            *(ConvBlock(coarse) for _ in range(encoder_blocks[1])),
            nn.SiLU(),
            nn.Conv2d(coarse, 2 * channels, 3, padding=1),
        )
        fine, coarse = decoder
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, coarse, 3, padding=1),
            *(ConvBlock(coarse) for _ in range(decoder_blocks[1])),
            Unpatchify(coarse, fine, 2),
            *(ConvBlock(fine) for _ in range(decoder_blocks[0])),
            nn.SiLU(),
            Unpatchify(fine, 3, 4, kernel=3),
        )
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def encode(self, x: Float[Tensor, "B 3 H W"]) -> Gaussian:
        """Returns q(z | x) for pictures x in [−1, 1] whose sides are multiples of 8.

        Raises:
            ValueError: If a side is not a multiple of 8.
        """
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"The picture is {width}×{height}; its sides must be multiples of {self.factor}: "
                f"pad or resize it, for example to {_round(width)}×{_round(height)}."
            )
        mean, log_std = full(self.encoder(x.to(self._dtype))).chunk(2, dim=1)
        # The limits keep exp and log finite in float32; training never gets near them.
        return Gaussian(mean, log_std.clamp(-12.0, 6.0).exp())

    def decode(self, z: Float[Tensor, "B C h w"]) -> Dirac:
        """Returns p(x | z), a point mass on the picture g(z), about [−1, 1], not clamped."""
        return Dirac(full(self.decoder(z.to(self._dtype))))

    def forward(self, x: Float[Tensor, "B 3 H W"], rng: torch.Generator | None = None) -> Coded:
        """Encodes, draws z with `rng` (without one, z is the mean), and decodes."""
        posterior = self.encode(x)
        z = posterior.mean if rng is None else posterior.sample(rng)
        return Coded(posterior, z, self.decode(z))

    @torch.no_grad()
    def calibrate(self, mean: Float[Tensor, " C"], std: Float[Tensor, " C"]) -> None:
        """Stores the moments of each latent channel over a training set.

        Raises:
            ValueError: If a value is not finite or a standard deviation is not positive.
        """
        if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise ValueError(
                f"Latent moments must be finite with std > 0, got mean {mean.tolist()} and std "
                f"{std.tolist()}: compute them over latents of a trained encoder."
            )
        self.shift.copy_(mean)
        self.scale.copy_(std)

    def standardise(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Returns (z − shift)/scale, of mean 0 and variance 1 in every channel."""
        return (z - self.shift[:, None, None]) / self.scale[:, None, None]

    def restore(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Returns z·scale + shift: the inverse of `standardise`."""
        return z * self.scale[:, None, None] + self.shift[:, None, None]

    @property
    def _dtype(self) -> torch.dtype:
        return self.encoder[0].weight.dtype


def _round(side: int) -> int:
    return max(1, round(side / Autoencoder.factor)) * Autoencoder.factor
