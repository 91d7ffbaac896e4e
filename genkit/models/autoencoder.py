"""A light Kullback-Leibler autoencoder: pictures in [−1, 1] to small latents and back.

    q(z | x) = N(z; μ(x), diag σ²(x))        `encode`: "B 3 H W"     → Gaussian over "B C H/8 W/8"
    p(x | z) = δ(x − g(z))                   `decode`: "B C H/8 W/8" → Dirac over "B 3 H W"

Both nets change resolution in two steps, 1 ↔ 1/4 ↔ 1/8, and do all their work at 1/4 and 1/8 of
the side, where a convolution costs a sixteenth of what it costs on pixels: on a CPU the decoder,
not the sampler, would otherwise dominate text-to-image. The last convolution is linear (no tanh,
which would make pure colours unreachable): clamp to [−1, 1] when the picture is used.

Each net is a linear map plus a convolutional residual that starts at zero. `principal` sets the
linear maps to the principal components of 8×8 patches, the best linear code there is, so that
training starts where a linear autoencoder ends.

A diffusion model wants latents of unit variance. `calibrate` stores the mean and the standard
deviation of each channel over a training set, and

    standardise(z) = (z − shift)/scale,      restore(z) = z·scale + shift.

The other autoencoder here is the plain one, for pictures of 32²: no cloud, no divergence. Nobody
told its latents where to lie; that N(m, S) with their own mean and covariance, fitted afterwards,
is a bad guess of it, its pictures show.

References:
    Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006)
        https://www.cs.toronto.edu/~hinton/absps/science.pdf
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        https://arxiv.org/abs/1312.6114
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
        https://arxiv.org/abs/2112.10752
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genkit.diffusion.sample import noise
from genkit.distributions import Dirac, Gaussian
from genkit.model import Model
from genkit.nn.convnet import Contract, ConvBlock, Patchify, Unpatchify, blocks
from genkit.nn.layers import full, zeros

__all__ = ["Autoencoder", "Coded", "DeterministicAutoencoder", "check_latents", "check_picture"]


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
            zeros(nn.Conv2d(coarse, 2 * channels, 3, padding=1)),
        )
        self.linear_encoder = Patchify(3, channels, self.factor)
        fine, coarse = decoder
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, coarse, 3, padding=1),
            *(ConvBlock(coarse) for _ in range(decoder_blocks[1])),
            Unpatchify(coarse, fine, 2),
            *(ConvBlock(fine) for _ in range(decoder_blocks[0])),
            nn.SiLU(),
            zeros(Unpatchify(fine, 3, 4, kernel=3)),
        )
        self.linear_decoder = Unpatchify(channels, 3, self.factor)
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
        x = x.to(self._dtype)
        mean, log_std = full(self.encoder(x)).chunk(2, dim=1)
        # std starts at e⁻⁴: noise as large as the latents would drown the principal components.
        # The limits keep exp and log finite in float32; training never gets near them.
        std = (log_std - 4).clamp(-12.0, 6.0).exp()
        return Gaussian(mean + full(self.linear_encoder(x)), std)

    def decode(self, z: Float[Tensor, "B C h w"]) -> Dirac:
        """Returns p(x | z), a point mass on the picture g(z), about [−1, 1], not clamped."""
        z = z.to(self._dtype)
        return Dirac(full(self.decoder(z)) + full(self.linear_decoder(z)))

    def forward(self, x: Float[Tensor, "B 3 H W"], rng: torch.Generator | None = None) -> Coded:
        """Encodes, draws z with `rng` (without one, z is the mean), and decodes."""
        posterior = self.encode(x)
        z = posterior.mean if rng is None else posterior.sample(rng)
        return Coded(posterior, z, self.decode(z))

    @torch.no_grad()
    def principal(self, x: Float[Tensor, "B 3 H W"]) -> "Autoencoder":
        """Sets the linear maps to the whitened principal components of the pictures' patches.

        References:
            Neural Networks and Principal Component Analysis: Learning from Examples Without Local
                Minima (Baldi and Hornik, 1989; what a linear autoencoder learns)
        """
        patches = F.pixel_unshuffle(x, self.factor).flatten(2).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(dim=0)
        covariance = torch.cov((patches - mean).T.double())
        variance, directions = torch.linalg.eigh(covariance)  # in ascending order
        channels = len(self.shift)
        std = variance[-channels:].flip(0).sqrt().float()
        directions = directions[:, -channels:].flip(1).T.float()  # "C D", D = 3·8·8
        code = directions / std[:, None]
        self.linear_encoder.weight.copy_(code.view_as(self.linear_encoder.weight))
        self.linear_encoder.bias.copy_(-code @ mean)
        self.linear_decoder.conv.weight.copy_((directions * std[:, None]).T[:, :, None, None])
        self.linear_decoder.conv.bias.copy_(mean)
        return self

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


class DeterministicAutoencoder(Model):
    """A point of C × H/8 × W/8 numbers for every picture, and back.

    Args:
        channels: Latent channels C.
        widths: Channels of the maps of 1/2, 1/4 and 1/8 of the side, on either way.
        encoder: Residual blocks of each in the encoder.
        decoder: The same in the decoder.
        size: Side of the pictures it was trained on, in pixels.

    References:
        Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006)
            https://www.cs.toronto.edu/~hinton/absps/science.pdf
    """

    def __init__(
        self,
        channels: int = 16,
        widths: tuple[int, int, int] = (112, 144, 160),
        encoder: tuple[int, int, int] = (2, 1, 1),
        decoder: tuple[int, int, int] = (3, 2, 1),
        size: int = 32,
    ) -> None:
        super().__init__()
        self.size, self.channels = size, channels
        half, quarter, eighth = widths
        self.encoder = Contract(widths, encoder)
        self.code = nn.Sequential(nn.SiLU(), nn.Conv2d(eighth, channels, 3, padding=1))
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, eighth, 3, padding=1),
            *blocks(eighth, decoder[2]),
            Unpatchify(eighth, quarter, 2),
            *blocks(quarter, decoder[1]),
            Unpatchify(quarter, half, 2),
            *blocks(half, decoder[0]),
            nn.SiLU(),
            Unpatchify(half, 3, 2, kernel=3),
        )
        dims = channels * (size // 8) ** 2
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("root", torch.eye(dims))

    def encode(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the points of pictures in [−1, 1].

        Raises:
            ValueError: If the pictures are not of the model's size.
        """
        check_picture(x, self.size)
        return full(self.code(self.encoder(x.to(self._dtype))[-1]))

    def decode(self, z: Float[Tensor, "B C h w"]) -> Dirac:
        """Returns the pictures of points, about [−1, 1], not clamped.

        Raises:
            ValueError: If the latents are not of the model's shape.
        """
        check_latents([z], [(self.channels, self.size // 8)])
        return Dirac(full(self.decoder(z.to(self._dtype))))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Dirac:
        """Encodes and decodes."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def fit(self, z: Float[Tensor, "N C h w"]) -> None:
        """Stores the Gaussian of latents: their mean, and a root of their covariance.

        Raises:
            ValueError: If there are no more latents than numbers in one, or one is not finite.
        """
        flat = z.flatten(1).double()
        if len(flat) <= flat.shape[1] or not bool(flat.isfinite().all()):
            raise ValueError(
                f"{len(flat)} latents of {flat.shape[1]} numbers have no covariance that could be "
                f"inverted: give more than {flat.shape[1]}, all of them finite."
            )
        self.mean.copy_(flat.mean(dim=0))
        ridge = 1e-6 * torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
        self.root.copy_(torch.linalg.cholesky(flat.T.cov() + ridge))

    def sample(self, rngs: Sequence[torch.Generator]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of points from the fitted Gaussian."""
        side = self.size // 8
        eps = noise(rngs, (self.channels, side, side), device=self.mean.device).flatten(1)
        z = self.mean + eps.to(self.root.dtype) @ self.root.T
        return self.decode(z.unflatten(1, (self.channels, side, side))).mean

    @property
    def _dtype(self) -> torch.dtype:
        return self.code[1].weight.dtype


def check_picture(x: Tensor, size: int) -> None:
    """Pictures of another size than a model's are refused."""
    if x.shape[-2:] != (size, size):
        raise ValueError(
            f"The pictures are {x.shape[-1]}×{x.shape[-2]}; the model knows pictures of "
            f"{size}×{size}: resize them."
        )


def check_latents(
    latents: Sequence[Float[Tensor, "B ..."]], shapes: Sequence[tuple[int, int]]
) -> None:
    """Latents must be as many and as large as the model's, which are (channels, side)."""
    if len(latents) != len(shapes):
        raise ValueError(f"{len(latents)} latents were given, the model has {len(shapes)}.")
    for z, (channels, side) in zip(latents, shapes, strict=True):
        if z.shape[1:] != (channels, side, side):
            raise ValueError(
                f"A latent has the shape {tuple(z.shape[1:])}, the model's has "
                f"{(channels, side, side)}: it belongs to another model or level."
            )


def _round(side: int) -> int:
    return max(1, round(side / Autoencoder.factor)) * Autoencoder.factor
