"""What the space of an encoder is worth, measured on picturebook-32 (`genkit.probes`).

    kinds       a classifier: share of test pictures of which it tells all kinds of things right
    probe       any encoder or VAE: share of labels that a linear map of the vector tells, fitted
                to one half of n test scenes, which it has not seen, and tested on the other
    nearness    any encoder or VAE: content, structure, context and identity of the nearest
                among n test scenes; the value is content
    retrieval   the two towers: share of n test pictures that find their caption first, and of
                captions that find their picture, the mean of both and of both languages; one
                caption a scene, which says all that is there (short: what people say)

Everything is computed in float32 and is a function of (model, n, seed).
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genkit.data.picturebook.caption import caption
from genkit.data.picturebook.plan import COMPLETE, Detail
from genkit.data.picturebook.scene import LABELS, SPLITS, Scene
from genkit.data.picturebook.source import LANGUAGES, Pictures, to_unit
from genkit.model import Model
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder, kinds_of
from genkit.probes import (
    content,
    context,
    identity,
    linear_probe,
    neighbours,
    recall,
    redrawn,
    structure,
    vectors,
)

__all__ = ["captions", "kinds", "nearness", "probe", "rendered", "retrieval", "scenes"]

SIZE = 32
BATCH = 250

Details = dict[str, float]


def scenes(split: str, n: int, seed: int) -> tuple[UInt8[Tensor, "N 3 H W"], Int[Tensor, "N K"]]:
    """Pictures of 32² of a split, from its scene number `seed` on, and all their labels."""
    batch = Pictures(SPLITS[split][seed : seed + n], SIZE).batch(range(n), torch.Generator())
    return batch["picture"], batch["labels"]


def rendered(some: Sequence[Scene], size: int = SIZE) -> UInt8[Tensor, "N 3 H W"]:
    """Pictures of these scenes."""
    array = np.stack([np.asarray(scene.render(size)) for scene in some])
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def captions(n: int, seed: int, language: str, detail: Detail | None = COMPLETE) -> list[str]:
    """A caption of each of n test scenes from number `seed` on.

    Args:
        n: How many.
        seed: Number of the first scene in the test split.
        language: "en" or "vi".
        detail: How much is said; None is as much as people say.
    """
    numbers = SPLITS["test"][seed : seed + n]
    return [caption(Scene.random(i), random.Random(i), language, detail) for i in numbers]


@torch.no_grad()
def kinds(model: ConvEncoder | ViTEncoder, n: int, seed: int) -> tuple[float, Details]:
    """Share of n test pictures of which all kinds are told, and of single answers."""
    pictures, labels = scenes("test", n, seed)
    device = model.head.weight.device
    said = torch.cat(
        [model(to_unit(some).to(device)).logits.cpu() > 0 for some in pictures.split(BATCH)]
    )
    there = kinds_of(labels) > 0
    found = (said & there).sum().item()
    details = {
        "precision": found / max(1, said.sum().item()),
        "recall": found / there.sum().item(),
    }
    return (said == there).all(dim=1).double().mean().item(), details


def probe(model: Model, n: int, seed: int) -> tuple[float, Details]:
    """Mean accuracy of the linear probes of all labels on the second half of n test scenes."""
    pictures, labels = scenes("test", n, seed)
    found = dict(zip(LABELS, linear_probe(vectors(model, pictures), labels), strict=True))
    chance = sum(one.chance for one in found.values()) / len(LABELS)
    value = sum(one.value for one in found.values()) / len(LABELS)
    return value, {"chance": chance} | {name: one.value for name, one in found.items()}


def nearness(model: Model, n: int, seed: int) -> tuple[float, Details]:
    """Content, structure, context and identity among n test scenes."""
    pictures, labels = scenes("test", n, seed)
    drawn = [Scene.random(i) for i in SPLITS["test"][seed : seed + n]]
    maps = np.stack([np.asarray(scene.semantic_map(SIZE)) for scene in drawn])
    own, later = redrawn(drawn)
    features = vectors(model, pictures)
    near = neighbours(features).index
    found = {
        "content": content(near, labels),
        "structure": structure(near, torch.from_numpy(maps)),
        "context": context(near, labels),
        "identity": identity(features, vectors(model, rendered(later)), own),
    }
    details = {name: one.value for name, one in found.items()}
    details |= {f"{name} by chance": one.chance for name, one in found.items()}
    return details.pop("content"), details


@torch.no_grad()
def retrieval(model: Contrastive, n: int, seed: int) -> tuple[float, Details]:
    """Recall of captions by pictures and of pictures by captions among n test scenes."""
    pictures = vectors(model, scenes("test", n, seed)[0])
    first: list[float] = []
    details: Details = {"chance": 1 / n}
    for language in LANGUAGES:
        for kind, detail in {"": COMPLETE, "short ": None}.items():
            texts = model.embed_text(captions(n, seed, language, detail)).float().cpu()
            for k in (1, min(10, n)):
                both = recall(pictures, texts, k).value, recall(texts, pictures, k).value
                details[f"{language}: {kind}caption in {k}"] = both[0]
                details[f"{language}: picture by {kind}caption in {k}"] = both[1]
                if k == 1 and not kind:
                    first += both
    return sum(first) / len(first), details
