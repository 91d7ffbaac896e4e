"""Models for tests of the pages: a text-to-image model without weights, and tiny pixel models.

The first draws the scene of each seed out of noise, one blend a step; a prompt of the picture book
that it understands is not needed. `delay` seconds pass at every step, so that a test can stop it.
The others are those behind the pages `noise` and `latents`, as small as they can be and not
trained.
"""

import functools
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from apps.common import Studio
from genkit.asked import Manner
from genkit.data.picturebook import Scene, parse
from genkit.data.picturebook.canvas import PART_COLOURS
from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.schedule import LinearBeta
from genkit.diffusion.variance import LearnedVariance
from genkit.generate import Picture, Preview
from genkit.model import Model
from genkit.models.autoencoder import DeterministicAutoencoder
from genkit.models.classifier import NoisyClassifier
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE
from genkit.runtime import Runtime

__all__ = ["SAMPLERS", "FakeSketchToImage", "FakeTextToImage", "fake_studio", "tiny_model"]

SAMPLERS = ("dpm++2m", "ddim", "euler")


class FakeTextToImage:
    """Scene.random(seed).render, blended with noise until the last step."""

    name = "fake"
    sha256 = "0" * 64
    samplers = SAMPLERS
    runtime = Runtime(torch.device("cpu"), torch.float32, 1, "sdpa", ())

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.steps_done = 0
        self.closed = 0
        self.requests: list[tuple[tuple[str, ...], str, tuple[int, ...], Manner]] = []

    def __call__(
        self,
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int = 20,
        guidance: float = 3.0,
        sampler: str = "dpm++2m",
        size: int = 128,
    ) -> Iterator[Preview | Picture]:
        manner = Manner(steps, guidance, sampler)
        self.requests.append((tuple(prompts), negative, tuple(seeds), manner))
        images = [Scene.random(seed).render(size) for seed in seeds]
        noises = [_noise(seed, size) for seed in seeds]
        try:
            for step in range(1, steps + 1):
                time.sleep(self.delay)
                self.steps_done += 1
                pairs = zip(noises, images)
                yield Preview(
                    step, steps, tuple(Image.blend(a, b, step / steps) for a, b in pairs)
                )
            for index, (image, prompt, seed) in enumerate(zip(images, prompts, seeds)):
                sha256 = hashlib.sha256(image.tobytes()).hexdigest()
                yield Picture(index, image, prompt, seed, steps, 2 * steps, 0.1, sha256)
        finally:
            self.closed += 1


class FakeSketchToImage:
    """The fake under a control: where ink is the picture is dark; of a map it shows the paints."""

    sha256 = "1" * 64

    def __init__(self, drawer: FakeTextToImage, name: str) -> None:
        self.drawer, self.name = drawer, name
        self.asked: list[dict[str, object]] = []

    def __call__(
        self,
        hint: torch.Tensor,
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        **control: object,
    ) -> Iterator[Preview | Picture]:
        self.asked.append({"steps": steps, "seeds": tuple(seeds), "hint": hint} | control)
        traced = _traced(hint[0].numpy()) if control["strength"] else None
        for event in self.drawer(prompts, negative, seeds, steps or 20):
            if isinstance(event, Picture) and traced is not None:
                yield replace(event, image=traced)
            else:
                yield event


def _traced(hint: np.ndarray) -> Image.Image:
    """Dark lines on white, or the paints of a map."""
    colours = np.array(
        list(PART_COLOURS.values()) if len(hint) > 1 else [(40, 40, 40)], dtype=np.uint8
    )
    picture = np.where(hint.any(axis=0)[..., None], colours[hint.argmax(axis=0)], 255)
    return Image.fromarray(picture.astype(np.uint8))


class _Paints(Model):
    """A segmenter that knows parts by their paints."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.ones(1))

    def parts(self, x: torch.Tensor) -> torch.Tensor:
        paints = torch.tensor(list(PART_COLOURS.values())) / 127.5 - 1
        return torch.cdist(x.flatten(2).mT, paints).argmin(dim=-1).unflatten(1, x.shape[2:]).byte()


def fake_studio(
    model: FakeTextToImage,
    scenes: Sequence[Scene] | None = None,
    others: Mapping[str, FakeTextToImage] = MappingProxyType({}),
) -> Studio:
    """A studio over the fake; its reader sees `scenes`, by default always the same one.

    The fake answers to every name but those of `others`.
    """

    def read(images: Sequence[Image.Image]) -> Sequence[Scene]:
        return [(scenes or [Scene.random(7)])[i % len(scenes or [0])] for i in range(len(images))]

    return Studio(
        lambda name: others.get(name, model),
        lambda: read,
        SAMPLERS,
        load_tracer=functools.cache(FakeSketchToImage),
        load_model=tiny_model,
    )


class _Blocks(Model):
    """Mean colours of squares of a picture: an encoder whose answers can be told beforehand.

    Args:
        side: Of a square in pixels.
    """

    def __init__(self, side: int = 8) -> None:
        super().__init__()
        self.size, self.side = 32, side
        self.bias = torch.nn.Parameter(torch.ones(1))  # tells the device

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, self.side).flatten(1)


class _Matching(_Blocks):
    """Unit vectors; that of a caption is the one of a scene of its time and ground."""

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(F.avg_pool2d(x, self.side).flatten(1), dim=1)

    def embed_text(self, captions: Sequence[str]) -> torch.Tensor:
        if max(len(caption.split()) for caption in captions) > 200:
            raise ValueError("A caption has more than 200 words: shorten it.")
        scenes = [_meant(caption) for caption in captions]
        pictures = np.stack([np.asarray(scene.render(32)) for scene in scenes])
        return self.embed(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)


def _meant(caption: str) -> Scene:
    """A scene with the time and the ground that a caption names."""
    ask = parse(caption).ask
    plain = Scene.random(7)
    return replace(plain, time=(ask.time or ("day",))[0], ground=(ask.ground or ("sea",))[0])


ENCODERS = {
    "book32_convnet": lambda: _Blocks(8),
    "book32_vit": lambda: _Blocks(16),
    "book32_contrastive": lambda: _Matching(16),
}


@functools.cache
def tiny_model(name: str) -> Model:
    """A model of 32² pictures with the interfaces of this checkpoint, and weights of chance."""
    torch.manual_seed(0)
    small = {"channels": (16, 16, 16), "blocks": (1, 1, 1), "heads": 1, "dim": 16}
    if name == "book32_classifier":
        model = NoisyClassifier(LinearBeta(), **small)
    elif name == "book32_guided":
        model = PixelDiffusion(LearnedVariance(PixelUNet(out=6, **small), LinearBeta(), Epsilon()))
    elif name == "book32_ddpm":
        model = PixelDiffusion(Denoiser(PixelUNet(**small), LinearBeta(), Epsilon()))
    elif name == "book32_autoencoder":
        model = DeterministicAutoencoder(4, (16, 16, 16), (1, 1, 1), (1, 1, 1))
        model.fit(torch.randn(200, 4, 4, 4))
    elif name == "book32_vae":
        model = VAE(4, (16, 16, 16), (1, 1, 1), (1, 1, 1), mixture=2)
    elif name == "book32_hvae":
        model = HVAE((4, 2, 2), (1, 1, 1), (16, 16, 16), (1, 1, 1), mixture=2)
    elif name == "book128_segmenter":
        model = _Paints()
    elif name in ENCODERS:
        model = ENCODERS[name]()
    else:
        raise ValueError(f"there is no checkpoint {name!r}")
    for values in model.parameters():
        if not values.any():  # a fresh net says nothing
            torch.nn.init.normal_(values, std=0.1)
    return model.eval()


def _noise(seed: int, size: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values)
