"""A picture of 128² becomes the labels of its scene: the ruler of prompt fidelity."""

import torch

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures, to_unit
from genkit.distributions import Categorical
from genkit.models.reader import Reader
from genkit.objectives import Batch, Reading
from genkit.recipe import Recipe

__all__ = ["RECIPE"]


def objective(model: Reader) -> Reading:
    """Reads pictures with a little grain: generated ones are never as clean as rendered ones."""

    def answer(batch: Batch) -> dict[str, Categorical]:
        x = to_unit(batch["picture"])
        grain = 0.1 * torch.rand(len(x), 1, 1, 1, device=x.device)
        return model(x + grain * torch.randn_like(x))

    return Reading(model, answer)


RECIPE = Recipe(
    name="book128_reader",
    model=Reader,
    objective=objective,
    data=lambda: Pictures(SPLITS["train"][:60_000], 128),
    steps=2200,
    batch=64,
    lr=1e-3,
    warmup=200,
)
