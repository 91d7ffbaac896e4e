"""The four models that are compared, and what the sections of that comparison share.

    autoencoder   z = f(x), x = g(z);  to draw, a Gaussian fitted to the codes after training
    vae           one step to a cloud q(z | x) and one step back; z ~ N(0, I) draws
    hvae          the same on a ladder of levels, each drawn given those above it
    diffusion     the codes are noise as large as the picture, and the way takes many steps

Each family has one colour on the page, the same in every figure.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from apps.section import place
from apps.settings import MAX_SEED, Refused, argument, check_choice, shown
from apps.small import SIDE
from apps.text import both
from genkit.data.picturebook import Scene
from genkit.data.picturebook.source import to_uint8, to_unit
from genkit.model import Model
from genkit.models.autoencoder import DeterministicAutoencoder
from genkit.models.diffusion import PixelDiffusion
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE
from genkit.quality import sharpness

__all__ = [
    "CROSS",
    "FAMILIES",
    "REAL",
    "Family",
    "check_families",
    "device",
    "finite",
    "generators",
    "heat",
    "load",
    "row",
    "scenes",
    "sharp",
    "tile",
    "title",
    "told_of",
]


@dataclass(frozen=True)
class Family:
    """A family: its checkpoint, the class of that, and its colour."""

    checkpoint: str
    kind: type[Model]
    colour: str


FAMILIES: Mapping[str, Family] = {
    "autoencoder": Family("book32_autoencoder", DeterministicAutoencoder, "s5"),
    "vae": Family("book32_vae", VAE, "s1"),
    "hvae": Family("book32_hvae", HVAE, "s2"),
    "diffusion": Family("book32_ddpm", PixelDiffusion, "s3"),
}
"""In the order of the rows."""
REAL, CROSS = ("real", "s4"), ("cross", "s6")
"""Rows that no model makes: real pictures, and a cross-fade of pixels."""


def load(name: str, of: Callable[[str], Model]) -> Any:
    """The model of a family.

    Args:
        name: Of the family.
        of: Gives the model of a checkpoint.

    Raises:
        TypeError: The checkpoint holds a model of another family.
        ValueError: Its pictures are of another size.
    """
    family = FAMILIES[name]
    model = of(family.checkpoint)
    if not isinstance(model, family.kind):
        raise TypeError(
            f"{family.checkpoint} is a {type(model).__name__}, and must be a "
            f"{family.kind.__name__}; put the right checkpoint in its place"
        )
    if model.size != SIDE:
        raise ValueError(
            f"{family.checkpoint} draws {model.size}×{model.size} pixels, and this page compares "
            f"{SIDE}×{SIDE}; put a checkpoint of that size in its place"
        )
    return model


def check_families(values: Any) -> tuple[str, ...]:
    """The families of a list, in the order of the page, each once.

    Raises:
        Refused: It is no list, it is empty, or one of them is unknown.
    """
    most = len(FAMILIES)
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= most:
        name = argument("families")
        raise Refused("race.list", name=name, value=shown(values), most=most)
    chosen = {check_choice("families", one, tuple(FAMILIES)) for one in values}
    return tuple(name for name in FAMILIES if name in chosen)


def title(name: str, colour: str) -> str:
    """The name of a row behind a dot of its colour."""
    return f'<b class="gk-{colour}">●</b> {both(f"quartet.{name}")}'


def row(section: str, name: str, colour: str, index: int, columns: int) -> str:
    """A row of the figure of a section: name, a place for what is said of it, and pictures."""
    tiles = "".join(tile(index, column) for column in range(columns))
    said = place(f"{section}.of.{name}", "span", "gk-said")
    return (
        f'<div class="gk-tier"><p class="gk-tier-name"><span>{title(name, colour)}</span>{said}'
        f'</p><div class="gk-tier-tiles" style="--columns: {columns}">{tiles}</div></div>'
    )


def told_of(now: str) -> str:
    """What a section says of its picture; once that is another one, that it is another one."""
    old = f'<span class="gk-warn gk-old">{both("bound.stale")}</span>'
    return f'<p><span class="gk-told">{now}</span>{old}</p>'


def tile(index: int, column: int, look: str = "") -> str:
    """A place for one picture of the section's sheet."""
    return (
        f'<canvas class="{look}" data-row="{index}" data-column="{column}" '
        f'width="{SIDE}" height="{SIDE}"></canvas>'
    )


def device(model: Model) -> torch.device:
    """Where the model is."""
    return next(model.parameters()).device


def generators(seed: int, count: int) -> list[Generator]:
    """One for each picture, of the seeds from `seed` on; after the largest comes 0."""
    return [torch.Generator().manual_seed((seed + i) % (MAX_SEED + 1)) for i in range(count)]


def scenes(seed: int, count: int) -> Float[Tensor, "N 3 32 32"]:
    """The scenes of the seeds from `seed` on, drawn here and now, in one process."""
    drawn = (Scene.random((seed + i) % (MAX_SEED + 1)) for i in range(count))
    stack = np.stack([np.asarray(one.render(SIDE)) for one in drawn])
    return to_unit(torch.from_numpy(stack).permute(0, 3, 1, 2))


def finite(pictures: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The same, on the processor, within [−1, 1].

    Raises:
        FloatingPointError: A number is NaN or infinite.
    """
    if not bool(pictures.isfinite().all()):
        raise FloatingPointError("the model drew numbers that are not finite")
    return pictures.float().cpu().clamp(-1, 1)


def heat(x: Float[Tensor, "H W"]) -> Float[Tensor, "3 H W"]:
    """0 … 1 as black, red, yellow, white, a picture in [−1, 1]."""
    thirds = 3 * x - torch.arange(3).view(3, 1, 1)
    return thirds.clamp(0, 1) * 2 - 1


def sharp(pictures: Float[Tensor, "N 3 H W"], real: Float[Tensor, "M 3 H W"]) -> float:
    """`genkit.quality.sharpness`; NaN where a picture is of one colour and has none."""
    try:
        return sharpness(to_uint8(pictures), to_uint8(real))
    except ValueError:
        return math.nan
