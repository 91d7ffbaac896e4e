"""What a class-conditional pixel model is worth, measured on picturebook-32.

    frechet   FD of n pictures that it draws in ten evaluations from n test pictures of the same
              classes; beside it the same by Euler's rule on the same grid, the kernel distances,
              and the floor: FD of n validation pictures from the test pictures
    bound     bits per dimension that it needs at most for a test picture, at all steps of its
              chain; beside it those at the two fixed variances
    classes   share of drawn pictures that bear the class that was asked for (ground and time of
              day), as another network reads them, at each scale of classifier guidance (of the
              model without class) and of classifier-free guidance
    noisy_classes    share of noisy test pictures whose class a noisy classifier tells, the mean
              over several times

Everything is computed in float32 and is a function of (model, n, seed). The reader (`READER`)
takes no part in drawing; it learned from pictures of the train split, as the models did, and
nothing here is measured on pictures of that split.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genkit import hub
from genkit.data.picturebook.scene import LABELS, SPLITS
from genkit.data.picturebook.source import Pictures, to_uint8, to_unit
from genkit.diffusion.denoise import Denoises
from genkit.diffusion.guide import ClassifierGuided, Clipped, Guided
from genkit.diffusion.likelihood import terms, total
from genkit.diffusion.sample import Euler, Sampler, noise
from genkit.diffusion.variance import Narrow, Replay, Wide
from genkit.frechet import features, frechet_distance, kernel_distance
from genkit.model import Model
from genkit.models.classifier import NoisyClassifier, class_of
from genkit.models.diffusion import PixelDiffusion
from genkit.models.reader import Reader
from genkit.runtime import detect, prepare

__all__ = [
    "CLASSIFIER",
    "EVALUATIONS",
    "READER",
    "bound",
    "classes",
    "draw",
    "exact",
    "frechet",
    "noisy_classes",
    "real",
    "ruler",
]

READER = "book32_reader"
"""The checkpoint whose features and labels are the ruler."""
CLASSIFIER = "book32_classifier"
"""The checkpoint that guides."""
EVALUATIONS = 10
"""Of the network for each picture whose distance is measured."""
STEPS = 20
"""Of the sampler for each picture whose class is read."""
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Of classifier guidance; 0 is the model without a class."""
FREE_SCALES = (1.0, 2.0, 4.0)
"""Of classifier-free guidance; 1 is the model with the class."""
TIMES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
"""At which a noisy classifier is asked."""
BATCH = 50

Details = dict[str, float]


def exact(name: str) -> Model:
    """A checkpoint in float32, whatever number type is fastest here."""
    return prepare(hub.load(name), replace(detect(), dtype=torch.float32))


def ruler() -> Reader:
    """The reader by which pictures are measured."""
    reader = exact(READER)
    assert isinstance(reader, Reader)
    return reader


def real(split: str, n: int, seed: int) -> tuple[UInt8[Tensor, "N 3 H W"], Int[Tensor, "N"]]:
    """Pictures of 32² of a split, from its scene number `seed` on, and their classes."""
    batch = Pictures(SPLITS[split][seed : seed + n], 32).batch(range(n), torch.Generator())
    return batch["picture"], class_of(batch["labels"])


@torch.no_grad()
def draw(
    model: PixelDiffusion,
    denoiser: Denoises,
    labels: Int[Tensor, "N"],
    sampler: Sampler,
    steps: int,
) -> UInt8[Tensor, "N 3 H W"]:
    """One picture for each label; picture i is drawn from the noise of seed i.

    Args:
        model: Its size and device.
        denoiser: The model's, perhaps wrapped; x̂_0 is clipped to [−1, 1].
        labels: Classes; the number of classes itself means none.
        sampler: With its grid.
        steps: Of the sampler.

    Raises:
        FloatingPointError: A picture is not finite.
    """
    found = []
    for some in torch.arange(len(labels)).split(BATCH):
        rngs = [torch.Generator().manual_seed(i) for i in some.tolist()]
        cond = {"label": labels[some].to(next(model.parameters()).device)}
        x = noise(rngs, (3, model.size, model.size), device=cond["label"].device)
        # The level of the first time: 1 on a chain, σ_max on an exploding schedule.
        x = x * denoiser.schedule.level(1.0).sigma
        drawn = sampler(Clipped(denoiser), x, steps, cond, rngs)
        if not bool(drawn.isfinite().all()):
            raise FloatingPointError("the model drew numbers that are not finite")
        found.append(to_uint8(drawn).cpu())
    return torch.cat(found)


def frechet(model: PixelDiffusion, n: int, seed: int) -> tuple[float, Details]:
    """FD of the model's own sampler at `EVALUATIONS`, and what it has to be compared with."""
    reader = ruler()
    pictures, labels = real("test", n, seed)
    test = features(reader, pictures)
    floor = features(reader, real("validation", n, seed)[0])
    details = {
        "floor": frechet_distance(floor, test),
        "kernel floor": kernel_distance(floor, test),
    }
    ways = {"": model.sampler, "Euler": Euler(grid=model.sampler.grid)}
    for name, sampler in ways.items():
        drawn = features(reader, draw(model, model.denoiser, labels, sampler, EVALUATIONS))
        details[name] = frechet_distance(drawn, test)
        details[f"kernel {name}".strip()] = kernel_distance(drawn, test)
    value = details.pop("")
    return value, details | {"of Euler's": value / details["Euler"]}


def bound(model: PixelDiffusion, n: int, seed: int) -> tuple[float, Details]:
    """Bits per dimension at most, the mean of n test pictures without a class."""
    found: dict[str, list[Tensor]] = {}
    pictures, _ = real("test", n, seed)
    # Few at a time: what is said about them at every time is kept.
    for some, numbers in zip(pictures.split(10), torch.arange(n).split(10), strict=True):
        x0, cond = to_unit(some), model.condition([None] * len(some))
        x0 = x0.to(cond["label"].device)

        def rngs(numbers: Tensor = numbers) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(i) for i in numbers.tolist()]

        own = list(terms(model.denoiser, x0, rngs(), cond))
        found.setdefault("", []).append(total(own).bits)
        said = Replay(model.denoiser, {one.t: one.answer for one in own if one.answer})
        for name, way in {"variance β": Wide(said), "variance β̃": Narrow(said)}.items():
            found.setdefault(name, []).append(total(terms(way, x0, rngs(), cond)).bits)
    bits = {name: torch.cat(parts).double() for name, parts in found.items()}
    error = (bits[""].std() / n**0.5).item()
    details = {name: one.mean().item() for name, one in bits.items()}
    return details.pop(""), details | {"standard error": error}


def classes(model: PixelDiffusion, n: int, seed: int) -> tuple[float, Details]:
    """Share of n pictures with the asked class at the best scale of classifier guidance."""
    labels = (torch.arange(n) + seed) % len(model.classes)
    reader, shares = ruler(), {}
    for name, denoiser in _guided(model):
        pictures = draw(model, denoiser, labels, model.sampler, STEPS)
        shares[name] = (_read(reader, pictures) == labels).double().mean().item()
    return max(shares[name] for name in shares if "free" not in name), shares


def _guided(model: PixelDiffusion) -> Iterator[tuple[str, Denoises]]:
    """The ways to follow a class, by name."""
    classifier, blank = exact(CLASSIFIER), model.condition([None])
    for scale in SCALES:
        unconditional = Guided(model.denoiser, 0.0, blank)
        yield f"classifier {scale:g}", ClassifierGuided(unconditional, classifier, scale)
    for scale in FREE_SCALES:
        yield f"classifier-free {scale:g}", Guided(model.denoiser, scale, blank)


@torch.no_grad()
def noisy_classes(model: NoisyClassifier, n: int, seed: int) -> tuple[float, Details]:
    """Share of n noisy test pictures whose class is told, the mean over `TIMES`."""
    pictures, labels = real("test", n, seed)
    rng = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    shares = {}
    for time in TIMES:
        right = []
        for some, truth in zip(pictures.split(BATCH), labels.split(BATCH), strict=True):
            x0, t = to_unit(some), torch.full((len(some),), time, dtype=torch.float64)
            x_t = model.schedule.diffuse(x0, t, torch.randn(x0.shape, generator=rng))
            right.append(model(x_t.to(device), t).mode.cpu() == truth)
        shares[f"t = {time:g}"] = torch.cat(right).double().mean().item()
    return sum(shares.values()) / len(shares), shares


@torch.no_grad()
def _read(reader: Reader, pictures: UInt8[Tensor, "N 3 H W"]) -> Int[Tensor, "N"]:
    """The classes that the reader sees."""
    found = []
    for some in pictures.split(BATCH):
        answers = reader(to_unit(some).to(next(reader.parameters()).device))
        found.append(class_of(torch.stack([answers[name].mode for name in LABELS], dim=1)).cpu())
    return torch.cat(found)
