"""Latent diffusion: text-to-image as three models that are trained one after the other.

    picture x ──encode──→ z ──standardise──→ z₀            (autoencoder, trained first, then fixed)
    caption ──text encoder──→ S tokens                     (pre-trained on caption → labels)
    q(z₀ | z_t, tokens) = denoiser(z_t, t, {"text": tokens})

The denoiser lives in the space of standardised latents (mean 0, variance 1 on average over the
channels), so the schedules of unit-variance data apply. `decode` takes such latents back to
pictures. The empty text "" is the unconditional case; dropping captions in training makes guidance
possible.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
        https://arxiv.org/abs/2112.10752
    Classifier-Free Diffusion Guidance (Ho and Salimans, 2022)
        https://arxiv.org/abs/2207.12598
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.denoise import Condition, Denoiser
from genkit.distributions import Dirac, Gaussian
from genkit.model import Model
from genkit.models.autoencoder import Autoencoder
from genkit.models.text import TextEncoder

__all__ = ["LatentDiffusion", "Student"]


class LatentDiffusion(Model):
    """An autoencoder, a text encoder and a denoiser of standardised latents, in one checkpoint.

    Args:
        autoencoder: Trained and calibrated; its parameters are fixed here.
        text_encoder: Caption → tokens, the condition "text" of the denoiser.
        denoiser: q(z₀ | z_t, text) over standardised latents.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
            https://arxiv.org/abs/2112.10752
    """

    def __init__(
        self, autoencoder: Autoencoder, text_encoder: TextEncoder, denoiser: Denoiser
    ) -> None:
        super().__init__()
        # A moving code cannot be learned: the latents of the training set are computed once.
        self.autoencoder = autoencoder.requires_grad_(False)
        self.text_encoder = text_encoder
        self.denoiser = denoiser

    def forward(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], texts: Sequence[str]
    ) -> Dirac:
        """Returns q(z₀ | z_t, texts)."""
        return self.denoiser(z_t, t, self.condition(texts))

    def condition(self, texts: Sequence[str]) -> Condition:
        """Returns {"text": tokens "B S D"}: what the denoiser, guided or not, is given."""
        tokens = self.text_encoder.encode(texts).to(self.autoencoder.shift.device)
        return {"text": self.text_encoder(tokens)}

    def encode(self, x: Float[Tensor, "B 3 H W"]) -> Gaussian:
        """Returns q(z₀ | x) over standardised latents of pictures in [−1, 1]."""
        q = self.autoencoder.encode(x)
        return Gaussian(
            self.autoencoder.standardise(q.mean),
            q.std / self.autoencoder.scale[:, None, None],
        )

    def decode(self, z: Float[Tensor, "B C h w"]) -> Dirac:
        """Returns p(x | z₀), a point mass on the picture, not clamped."""
        return self.autoencoder.decode(self.autoencoder.restore(z))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Returns "C h w" of the latents of a picture of height × width pixels.

        Raises:
            ValueError: If a side is not a positive multiple of 16, as the denoiser needs.
        """
        side = 2 * self.autoencoder.factor
        if height < side or width < side or height % side or width % side:
            raise ValueError(
                f"A picture of {width}×{height} pixels cannot be made: choose multiples of {side}."
            )
        channels = len(self.autoencoder.shift)
        return channels, height // self.autoencoder.factor, width // self.autoencoder.factor


class Student(Model):
    """A denoiser that was taught to go its teacher's guided way in a few steps.

    It takes the place of the denoiser of its teacher, whose autoencoder and text encoder it needs;
    a checkpoint holds the denoiser alone.

    Args:
        denoiser: Of the teacher's latents.
        teacher: Name of the teacher's checkpoint.
        sha256: The teacher's fingerprint.
        steps: Of Euler's rule, without guidance, that suffice.
    """

    def __init__(self, denoiser: Denoiser, teacher: str, sha256: str, steps: int) -> None:
        super().__init__()
        self.denoiser, self.teacher, self.steps = denoiser, teacher, steps
        self.teacher_sha256 = sha256

    def among(self, teacher: Model) -> LatentDiffusion:
        """The teacher with this denoiser; it has the student's fingerprint.

        Raises:
            ValueError: If it is not the model that taught.
        """
        if not isinstance(teacher, LatentDiffusion) or teacher.sha256 != self.teacher_sha256:
            raise ValueError(
                f"This student was taught by {self.teacher} {self.teacher_sha256[:12]}…, and the "
                f"checkpoint of that name has the hash {(teacher.sha256 or 'none')[:12]}…: fetch "
                "the teacher's again, or train the student anew."
            )
        model = LatentDiffusion(teacher.autoencoder, teacher.text_encoder, self.denoiser)
        model.sha256 = self.sha256
        return model.eval()
