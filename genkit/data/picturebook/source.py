"""What a training run reads: batches of pictures, labels and captions of the picture book.

A source has a length and gives batches by index:  batch(indices, rng) → dict of tensors, so that
the order of training is decided in one place (`genkit.train`) and can be resumed exactly.

    Pictures   "picture"  "B 3 H W" uint8 (see `to_unit`)        autoencoders
               "labels"   "B K"     class indices, K = len(LABELS)  the reader
    Captions   "tokens"   "B L"     a fresh caption at every visit, half English, half Vietnamese
               "labels"                                          the text encoder
    Captioned  "picture", "tokens", "labels"                     picture against caption
    Latents    "latent"   "B C h w" standardised means of q(z | x)
               "tokens", "labels"                                latent diffusion
    Hinted     the same and "hint"  "B H W" ink, or parts        ControlNet
    Ways       "begin", "end"  "B C h w", their times "a", "b"  "B",
               "text"  "B S E"                                   a student of few steps
    Mapped     "picture", "map"  "B H W" indices of parts        the segmenter
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from .book import pictures
from .caption import caption
from .plan import COMPLETE
from .scene import Scene
from .words import LANGUAGES

__all__ = [
    "LANGUAGES",
    "Captioned",
    "Captions",
    "Hinted",
    "Latents",
    "Mapped",
    "Pictures",
    "Ways",
    "label_tensor",
    "to_uint8",
    "to_unit",
]

Encode = Callable[[Sequence[str]], Int[Tensor, "B L"]]


def to_unit(picture: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Pixels 0 … 255 as numbers in [-1, 1]."""
    return picture.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """Numbers in [-1, 1] as pixels 0 … 255; what lies outside is clamped."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def label_tensor(scenes: Sequence[Scene]) -> Int[Tensor, "B K"]:
    """Class indices of these scenes, in the order of `LABELS`."""
    return torch.tensor([list(scene.labels().values()) for scene in scenes])


class Pictures:
    """Pictures of the scenes of these seeds, with their labels.

    Args:
        seeds: For example `SPLITS["train"][:60_000]`.
        size: Side of the pictures in pixels.
        held_out: Seeds of scenes with pairs of `HELD_OUT`, which come after the others. Only what
            measures may see them, never what generates.
    """

    def __init__(self, seeds: range, size: int, held_out: range = range(0)) -> None:
        self.scenes = [(seed, False) for seed in seeds] + [(seed, True) for seed in held_out]
        self.usual = pictures(seeds, size)
        self.rare = pictures(held_out, size, held_out=True) if held_out else self.usual[:0]

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        picture = torch.from_numpy(np.stack([self._picture(i) for i in indices]))
        scenes = [Scene.random(*self.scenes[i]) for i in indices]
        return {"picture": picture.permute(0, 3, 1, 2), "labels": label_tensor(scenes)}

    def _picture(self, i: int) -> np.ndarray:
        usual = len(self.usual)
        return self.usual[i] if i < usual else self.rare[i - usual]


class Captions:
    """A fresh caption of each scene at every visit, with the scene's labels.

    Args:
        seeds: Seeds of the scenes.
        encode: Turns captions into tokens.
        blank: Share of captions that are replaced by the empty text, for guidance.
        complete: Share of captions that say all that is there. A model learns more from them than
            from what people write, and still needs the others to understand people.

    References:
        Improving Image Generation with Better Captions (Betker et al., 2023; detailed captions),
            https://cdn.openai.com/papers/dall-e-3.pdf
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022),
            https://arxiv.org/abs/2207.12598
    """

    def __init__(
        self, seeds: range, encode: Encode, blank: float = 0.0, complete: float = 0.0
    ) -> None:
        self.seeds, self.encode, self.blank, self.complete = seeds, encode, blank, complete

    def __len__(self) -> int:
        return len(self.seeds)

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        scenes = [Scene.random(self.seeds[i]) for i in indices]
        seed = int(torch.randint(2**62, (), generator=rng))
        words = random.Random(seed)
        captions = [self._caption(scene, words) for scene in scenes]
        return {"tokens": self.encode(captions), "labels": label_tensor(scenes)}

    def _caption(self, scene: Scene, rng: random.Random) -> str:
        chance = rng.random()
        if chance < self.blank:
            return ""
        detail = COMPLETE if chance < self.blank + self.complete else None
        return caption(scene, rng, rng.choice(LANGUAGES), detail)


class Captioned:
    """Pictures, each with a fresh caption.

    Args:
        pictures: Pictures of scenes.
        captions: The captions of the same scenes.

    Raises:
        ValueError: If the scenes of the two differ.
    """

    def __init__(self, pictures: Pictures, captions: Captions) -> None:
        if [seed for seed, _ in pictures.scenes] != list(captions.seeds):
            raise ValueError(
                f"{len(pictures)} pictures and {len(captions)} captions are not of the same "
                "scenes: make both from the same seeds."
            )
        self.pictures, self.captions = pictures, captions

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        return self.pictures.batch(indices, rng) | self.captions.batch(indices, rng)


class Latents:
    """Latents of pictures, each with a fresh caption.

    Args:
        latents: One latent a scene, in the order of the captions' seeds.
        captions: The captions of the same scenes.
        standardise: Brings a batch of latents to mean 0 and variance 1 in every channel.

    Raises:
        ValueError: If the two lengths differ.
    """

    def __init__(
        self, latents: np.ndarray, captions: Captions, standardise: Callable[[Tensor], Tensor]
    ) -> None:
        if len(latents) != len(captions):
            raise ValueError(
                f"{len(latents)} latents do not fit {len(captions)} captions: encode the pictures "
                "of the same seeds."
            )
        self.latents, self.captions, self.standardise = latents, captions, standardise

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        latent = torch.from_numpy(np.stack([self.latents[i] for i in indices]))
        return {"latent": self.standardise(latent)} | self.captions.batch(indices, rng)


class Hinted:
    """Latents with captions, each with a hint of its picture.

    Args:
        latents: Latents of scenes.
        hint: The hint of a scene by its number in `latents`, uint8 "H W", with a hand of its own.
    """

    def __init__(
        self, latents: Latents, hint: Callable[[int, np.random.Generator], np.ndarray]
    ) -> None:
        self.latents, self.hint = latents, hint

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        batch = self.latents.batch(indices, rng)
        hands = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
        hints = np.stack([self.hint(i, hands) for i in indices])
        return batch | {"hint": torch.from_numpy(hints)}


class Ways:
    """The windows of a teacher's ways from noise to data, each with the text that led it.

    Args:
        ways: "N K+1 C h w", where each way begins, and where it is after every window.
        texts: "N S E", what the teacher was told.
    """

    def __init__(self, ways: np.ndarray, texts: np.ndarray) -> None:
        self.ways, self.texts = ways, texts
        self.windows = ways.shape[1] - 1

    def __len__(self) -> int:
        return len(self.ways) * self.windows

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        places = [divmod(i, self.windows) for i in indices]
        return {
            "begin": torch.from_numpy(np.stack([self.ways[i, k] for i, k in places])),
            "end": torch.from_numpy(np.stack([self.ways[i, k + 1] for i, k in places])),
            "a": torch.tensor([1 - k / self.windows for _, k in places]),
            "b": torch.tensor([1 - (k + 1) / self.windows for _, k in places]),
            "text": torch.from_numpy(np.stack([self.texts[i] for i, _ in places])),
        }


class Mapped:
    """Pictures of the scenes of these seeds, with their semantic maps.

    Args:
        seeds: For example `SPLITS["train"][:20_000]`.
        size: Side of the pictures in pixels.
    """

    def __init__(self, seeds: range, size: int) -> None:
        self.pictures = pictures(seeds, size)
        self.maps = pictures(seeds, size, view=Scene.semantic_map)

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Sequence[int], rng: Generator) -> dict[str, Tensor]:
        picture = torch.from_numpy(np.stack([self.pictures[i] for i in indices]))
        parts = torch.from_numpy(np.stack([self.maps[i] for i in indices]))
        return {"picture": picture.permute(0, 3, 1, 2), "map": parts}
