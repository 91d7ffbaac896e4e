"""Objectives: what is minimised, and by whom.

An objective is a generator of losses. The training loop steps the player of each loss before it
asks for the next one:

    for loss in objective(batch):
        ∂ loss.total / ∂ players[loss.player];  one optimiser step of that player

so a game of several players (an autoencoder and its critic) needs no loop of its own: the
objective resumes after the player stepped. An objective with one loss is the ordinary case.

Objectives draw from torch's default generator, which the loop seeds anew before every step.
"""

from genkit.objectives.base import Batch, Loss, Objective
from genkit.objectives.coding import Bounded, Reconstruction, SquaredError
from genkit.objectives.denoising import (
    Controlling,
    Denoising,
    Hybrid,
    LatentDenoising,
    Straightening,
)
from genkit.objectives.recognition import (
    Contrasting,
    NoisyClassification,
    Reading,
    Recognition,
    Segmentation,
    label_losses,
)

__all__ = [
    "Batch",
    "Bounded",
    "Contrasting",
    "Controlling",
    "Denoising",
    "Hybrid",
    "LatentDenoising",
    "Loss",
    "NoisyClassification",
    "Objective",
    "Reading",
    "Recognition",
    "Reconstruction",
    "Segmentation",
    "SquaredError",
    "Straightening",
    "label_losses",
]
