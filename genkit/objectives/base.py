"""What an objective is: a generator of losses, each of one player; and the steps of a chain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genkit.diffusion.schedule import Discrete

__all__ = ["Batch", "Loss", "Objective", "drawn_times", "steps_of"]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """What one player minimises now.

    Args:
        player: A key of the objective's `players`.
        total: The scalar that is differentiated.
        parts: Scalars to plot; no gradient flows through them.
    """

    player: str
    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Yields the losses of a batch; each player has an optimiser of its own.

    Players share no parameters. Modules that are not trained are frozen (`requires_grad_(False)`)
    and set to eval mode by the objective itself.
    """

    @property
    def players(self) -> Mapping[str, nn.Module]: ...

    def __call__(self, batch: Batch) -> Iterator[Loss]: ...


def steps_of(schedule: object) -> int:
    """How many steps a chain has.

    Raises:
        TypeError: If the schedule is none.
    """
    if not isinstance(schedule, Discrete):
        raise TypeError(
            f"{type(schedule).__name__} has no steps to draw; take a chain such as LinearBeta"
        )
    return len(schedule.betas())


def drawn_times(count: int, steps: int) -> Float[Tensor, "B"]:
    """Stratified steps of a chain as times, float64 on the processor, in a random order."""
    u = (torch.randperm(count, device="cpu") + torch.rand(count, device="cpu").double()) / count
    return (u * steps).floor().clamp(max=steps - 1) / (steps - 1)
