"""Prompt fidelity: is what was asked for in the picture?

Captions of test scenes are drawn, the reader (`genkit.models.reader`) says what it sees in the
picture, and every attribute that the caption asks for is looked up:

    fidelity = (attributes found)/(attributes asked)

Half of the captions are Vietnamese. Everything is a function of (number of the first scene, n).

References:
    GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (Ghosh et al.,
        2023; attribute by attribute, by a detector), https://arxiv.org/abs/2310.11513
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from genkit import hub
from genkit.data.picturebook.ask import Ask, Check
from genkit.data.picturebook.parse import parse
from genkit.data.picturebook.scene import HELD_OUT, SPLITS, Scene
from genkit.data.picturebook.source import LANGUAGES, to_unit
from genkit.distributions import Categorical
from genkit.models.reader import Reader
from genkit.runtime import detect, prepare

__all__ = [
    "READER",
    "Draw",
    "Prompt",
    "by_language",
    "judged",
    "likeliest",
    "load_reader",
    "prompts",
    "read",
    "seen",
    "share_ok",
    "stacked",
]

READER = "book128_reader"
"""The checkpoint that says what is in a drawn picture."""
BATCH = 50

Draw = Callable[[Sequence[str], Sequence[int]], Iterator[Image.Image]]
"""(prompts, seeds) → pictures: how a text-to-image model is asked for pictures."""


@dataclass(frozen=True)
class Prompt:
    """A caption of a test scene, and what it asks for.

    Args:
        text, language: The caption.
        ask: What it asks for.
        pair: The held-out pair that it asks for, where that is the point.
        seed: Of the scene.
    """

    text: str
    language: str
    ask: Ask
    pair: tuple[str, str] | None = None
    seed: int = 0


def prompts(n: int, seed: int = 0, held_out: bool = False) -> Iterator[Prompt]:
    """Captions of test scenes that ask for at least one attribute, by turns in each language.

    Args:
        n: How many.
        seed: Number of the first scene in the test split.
        held_out: Only captions that ask for a pair of `HELD_OUT`.
    """
    return islice(_prompts(seed, held_out), n)


def _prompts(seed: int, held_out: bool) -> Iterator[Prompt]:
    turns = 0
    for number in count(SPLITS["test"].start + seed):
        language = LANGUAGES[turns % len(LANGUAGES)]
        text = Scene.random(number, held_out).caption(random.Random(number), language)
        ask = parse(text).ask
        pair = _pair(ask)
        if ask != Ask() and (pair or not held_out):
            turns += 1
            yield Prompt(text, language, ask, pair if held_out else None, number)


def _pair(ask: Ask) -> tuple[str, str] | None:
    """The first held-out pair that is asked for outright."""
    asked = ((t.kind, t.look.colour[0]) for t in ask.things if len(t.look.colour) == 1)
    return next((pair for pair in asked if pair in HELD_OUT), None)


def judged(asked: Sequence[Prompt], scenes: Sequence[Scene]) -> tuple[float, dict[str, float]]:
    """Share of the asked attributes that are in what the reader saw, and the details."""
    checks = [(p, p.ask.check(scene)) for p, scene in zip(asked, scenes, strict=True)]
    details = by_language(checks)
    details["all found"] = float(np.mean([all(c.ok for c in cs) for _, cs in checks]))
    pairs = [(p.pair, scene) for p, scene in zip(asked, scenes, strict=True) if p.pair]
    if pairs:
        found = [any((t.kind, t.colour) == pair for t in s.things) for pair, s in pairs]
        details["pair"] = float(np.mean(found))
    return share_ok([check for _, cs in checks for check in cs]), details


def by_language(checks: Sequence[tuple[Prompt, Sequence[Check]]]) -> dict[str, float]:
    """Share of the checks that are ok, in each language that was asked in."""
    by = {code: [c for p, cs in checks if p.language == code for c in cs] for code in LANGUAGES}
    return {code: share_ok(found) for code, found in by.items() if found}


def read(reader: Reader, picture: UInt8[Tensor, "B 3 H W"]) -> list[Scene]:
    """The scenes that the reader sees: the likeliest class of every label."""
    weight = next(reader.parameters())
    return likeliest(reader(to_unit(picture).to(weight.device, weight.dtype)))


def seen(pictures: Sequence[Image.Image]) -> list[Scene]:
    """The scenes that the checkpoint `READER` sees in pictures of one size."""
    reader = load_reader(READER)
    parts = (pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH))
    return [scene for some in parts for scene in read(reader, stacked(some))]


def likeliest(answers: Mapping[str, Categorical]) -> list[Scene]:
    """The scenes of the likeliest class of every label."""
    likely = {name: answer.logits.argmax(dim=-1).tolist() for name, answer in answers.items()}
    rows = [dict(zip(likely, row, strict=True)) for row in zip(*likely.values(), strict=True)]
    return [Scene.from_labels(row) for row in rows]


def load_reader(name: str) -> Reader:
    """A reader, where and in which type it runs fastest.

    Raises:
        ValueError: If the checkpoint is none.
    """
    reader = hub.load(name)
    if not isinstance(reader, Reader):
        raise ValueError(f"{name} is no reader: labels measures book128_reader, say.")
    return prepare(reader, detect())


def stacked(pictures: Sequence[Image.Image]) -> UInt8[Tensor, "B 3 H W"]:
    """Pictures of one size as one tensor."""
    array = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def share_ok(checks: Sequence[Check]) -> float:
    """Share of the checks that hold."""
    return float(np.mean([check.ok for check in checks]))
