"""Recipes: everything that determines a checkpoint, and what follows from it for step n.

    batch n     positions nB … (n+1)B − 1 of the permutations π(seed, 0), π(seed, 1), …
    rate n      lr · min(1, (n+1)/warmup) · ½(1 + cos(π·(n − warmup)/(steps − warmup)))
    mix         a 63-bit seed from numbers and words, so that every draw has a seed of its own

All are pure functions of the recipe and n. Presets are data: genkit/recipes/<name>.py holds one
RECIPE.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genkit.model import Model
from genkit.objectives import Objective
from genkit.optimizer import adamw

__all__ = ["Order", "Recipe", "Source", "learning_rate", "mix", "override"]

SCALARS = (int, float, bool, str)


@runtime_checkable
class Source(Protocol):
    """Training data: whole batches by index.

    `batch` may run in a forked process (`genkit.train`): it uses no GPU and changes nothing. It
    may draw (crops, flips, captions) from `rng` only: a batch depends on nothing else.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: list[int], rng: torch.Generator) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that determines a checkpoint.

    Args:
        name: Of the module genkit/recipes/<name>.py and the folder checkpoints/<name>.
        model: Makes the network that is exported.
        objective: Makes what is minimised, from the network.
        data: Makes the training data.
        steps: Optimiser steps.
        batch: Pictures per step, over all processes.
        lr: Highest learning rate; linear warm-up, then cosine to nearly 0.
        warmup: Steps of warm-up.
        optimizer: Makes one player's optimiser: `adamw` or `muon`.
        betas: Of AdamW; a player of a game wants a lower first one.
        weight_decay: On matrices and kernels; never on biases and norms.
        ema: Decay of the averaged weights, which are what is exported.
        clip: Largest norm of a player's gradient.
        skip: Norm of a player's gradient above which its step is left out.
        bf16: Autocast to bfloat16 where the machine is faster with it.
        seed: Of initial values, order and noise.
        dtype: In which the export is stored.
        sheet: Draws a picture of what the averaged network can do.
        finish: What the averaged network still needs after the last step.
    """

    name: str
    model: Callable[[], Model]
    objective: Callable[[Model], Objective]
    data: Callable[[], Source]
    steps: int
    batch: int
    lr: float
    warmup: int = 500
    optimizer: Callable[[nn.Module, tuple[float, float], float], torch.optim.Optimizer] = adamw
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    skip: float = math.inf
    bf16: bool = True
    seed: int = 0
    dtype: torch.dtype = torch.float16
    sheet: Callable[[Model], Any] | None = None
    finish: Callable[[Model], None] | None = None

    def __post_init__(self) -> None:
        limits = {
            "steps": self.steps >= 1,
            "batch": self.batch >= 1,
            "lr": 0 < self.lr < math.inf,
            "warmup": self.warmup >= 0,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "ema": 0 <= self.ema < 1,
            "clip": self.clip > 0,
            "skip": self.skip > 0,
        }
        for name, fine in limits.items():
            if not fine:
                raise ValueError(
                    f"{name} of recipe {self.name} is {getattr(self, name)}: out of range"
                )


def override(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with other scalars (steps=200, lr=3e-4, …); an architecture is a file of its own.

    Raises:
        ValueError: An unknown or non-scalar field, or a value out of range.
        TypeError: A value of another type than the field.
    """
    kinds = {f.name: type(getattr(recipe, f.name)) for f in fields(recipe)}
    scalar = sorted(name for name, kind in kinds.items() if kind in SCALARS)
    for name, value in changes.items():
        if name not in scalar:
            raise ValueError(f"{name!r} cannot be changed; change one of {', '.join(scalar)}")
        if type(value) is not kinds[name] and not (kinds[name] is float and type(value) is int):
            raise TypeError(f"{name} must be {kinds[name].__name__}, not {value!r}")
    return replace(recipe, **{name: kinds[name](value) for name, value in changes.items()})


@dataclass(frozen=True)
class Order:
    """Which examples step n sees: a pure function of (seed, n).

    Args:
        length: Examples in the data.
        batch: Examples per step.
        seed: Of the permutations.
    """

    length: int
    batch: int
    seed: int

    def indices(self, step: int) -> list[int]:
        first = step * self.batch
        return [self._at(position) for position in range(first, first + self.batch)]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.length)
        if self._cache.get("epoch") != epoch:
            rng = torch.Generator().manual_seed(mix(self.seed, "order", epoch))
            self._cache.update(
                epoch=epoch, order=torch.randperm(self.length, generator=rng).tolist()
            )
        return self._cache["order"][offset]

    @cached_property
    def _cache(self) -> dict[str, object]:
        return {}


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of step n = 0, 1, …: linear warm-up, then half a cosine that never reaches 0."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    done = max(0, step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def mix(*parts: object) -> int:
    """A seed of 63 bits from numbers and words."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
