"""Text to picture: latent diffusion on the picture book, in English and Vietnamese.

It starts from two checkpoints, the autoencoder and the text encoder. The latents of the training
pictures are computed once: with the autoencoder fixed they never change. No training picture shows
a held-out pair of kind and colour, so that drawing one is composition, not memory.

The checkpoint is older than `Head`: its last convolution was trained by Muon, too, which now
leaves it to Adam.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import islice

import numpy as np
import torch
from PIL import Image

from genkit import hub
from genkit.data.picturebook.book import cached, rendered
from genkit.data.picturebook.caption import EXAMPLES
from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import LANGUAGES, Captions, Latents, to_unit
from genkit.diffusion.denoise import Denoiser, Flow
from genkit.diffusion.schedule import Rectified
from genkit.generate import Picture, TextToImage
from genkit.models.autoencoder import Autoencoder
from genkit.models.latent import LatentDiffusion
from genkit.models.text import TextEncoder
from genkit.nn.unet import UNet
from genkit.objectives import LatentDenoising
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.runtime import detect, prepare
from genkit.sheet import sheet

__all__ = ["RECIPE", "described", "examples"]

SEEDS = SPLITS["train"][:150_000]


@cache
def coder() -> Autoencoder:
    """The trained autoencoder, calibrated on the latents of 10,000 training pictures.

    The latents are whitened, but their channels do not matter equally: most of what one sees is in
    the first three, and the last add edges. A channel's variance is set to its effect on the
    pixels, the mean over channels to 1, so that the denoiser settles large things first.
    """
    autoencoder = hub.load("book128_autoencoder")
    assert isinstance(autoencoder, Autoencoder)
    some = torch.from_numpy(latents(SEEDS)[:10_000].astype(np.float32))
    mean, std = some.mean(dim=(0, 2, 3)), some.std(dim=(0, 2, 3))
    effect = std * autoencoder.linear_decoder.conv.weight.detach().flatten(1).norm(dim=0)
    autoencoder.calibrate(mean, std / (effect / effect.mean()).sqrt())
    return autoencoder


@cache
def latents(seeds: range) -> np.ndarray:
    """Means of q(z | x) of the pictures of scenes, float16 "N C h w", before calibration."""
    sha256 = hub.card("book128_autoencoder")["sha256"]
    name = f"latents-{sha256[:16]}-{seeds.start}-{seeds.stop}"
    return cached(name, (len(seeds), 12, 16, 16), np.float16, lambda: _encoded(seeds))


def _encoded(seeds: range) -> Iterator[np.ndarray]:
    runtime = detect()
    autoencoder = prepare(hub.load("book128_autoencoder"), runtime)
    pictures = rendered(seeds, 128)
    while some := list(islice(pictures, 100)):
        x = to_unit(torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2))
        x = x.to(runtime.device, runtime.dtype)
        yield from autoencoder.encode(x).mean.cpu().numpy()


def model() -> LatentDiffusion:
    """The parts together: a fresh denoiser of standardised latents."""
    text_encoder = hub.load("book_text")
    assert isinstance(text_encoder, TextEncoder)
    return LatentDiffusion(
        coder(), text_encoder, Denoiser(UNet(latent=12), Rectified(shift=3.0), Flow())
    )


def data() -> Latents:
    """Calibrated latents with a fresh caption each: 10 % are empty, 40 % say all there is."""
    captions = Captions(SEEDS, hub.load("book_text").encode, blank=0.1, complete=0.4)
    return described(captions, coder())


def described(captions: Captions, autoencoder: Autoencoder) -> Latents:
    """Latents of the captions' scenes, standardised as this autoencoder is calibrated."""
    coder = deepcopy(autoencoder)  # the other one moves to the device of the training

    def standardise(z: torch.Tensor) -> torch.Tensor:
        return coder.standardise(z.float())

    return Latents(latents(captions.seeds), captions, standardise)


def drawn(net: LatentDiffusion) -> Image.Image:
    """The page's example prompts, drawn with the page's default settings."""
    return examples(TextToImage(deepcopy(net), "book128_latent"))


def examples(generator: TextToImage) -> Image.Image:
    """The page's example prompts, drawn as this model draws best."""
    prompts = [prompt for language in LANGUAGES for prompt in EXAMPLES[language]]
    events = generator(prompts, seeds=range(len(prompts)))
    pictures = [event.image for event in events if isinstance(event, Picture)]
    return sheet(pictures, prompts, columns=len(EXAMPLES["en"]))


RECIPE = Recipe(
    name="book128_latent",
    model=model,
    objective=LatentDenoising,
    data=data,
    steps=15_200,
    batch=32,
    lr=2e-3,
    optimizer=muon,
    warmup=300,
    ema=0.999,
    sheet=drawn,
)
