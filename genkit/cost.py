"""What training costs, in floating-point operations: the same number on every machine.

    whole = steps · (operations of the objective and its gradients on one batch)

Convolutions and matrix products are counted, forward and backward, a multiplication and an
addition as two operations. Everything else (activations, norms, the optimiser's own products, the
making of the data) is left out: it is the smaller part of the work, though not of the time.

    cost(find("book32_ddpm")).whole / PETA                     PFLOP

A few examples tell what many cost: all but the comparisons within a batch (InfoNCE's B · B
products, which are small) is proportional to it.
"""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from genkit.objectives import Batch
from genkit.recipe import Order, Recipe, mix

__all__ = ["PETA", "Cost", "cost"]

PETA = 10**15
COUNTED = 32
"""Examples that are counted, at most: large batches are made for larger machines."""


@dataclass(frozen=True)
class Cost:
    """What a recipe asks for.

    Args:
        parameters: Numbers that the exported network has learned.
        step: Floating-point operations of one step of all players.
        steps: How many there are.
    """

    parameters: int
    step: int
    steps: int

    @property
    def whole(self) -> int:
        """Floating-point operations of the whole training."""
        return self.step * self.steps


def cost(recipe: Recipe, batch: Batch | None = None) -> Cost:
    """Counts one step on the processor; nothing is trained.

    Args:
        recipe: Whose objective and steps are counted.
        batch: As many examples as a step of the recipe has; without it the recipe's first ones.
    """
    share = 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(recipe.seed, "initial values"))
        model = recipe.model().train()
        if batch is None:
            source = recipe.data()
            rng = torch.Generator().manual_seed(mix(recipe.seed, "data", 0, 0))
            indices = Order(len(source), recipe.batch, recipe.seed).indices(0)[:COUNTED]
            batch, share = source.batch(indices, rng), len(indices) / recipe.batch
        # A fused attention would not be counted on the processor.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            for loss in recipe.objective(model)(batch):
                loss.total.backward()
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, round(counter.get_total_flops() / share), recipe.steps)
