"""Every family of picturebook-32 by one ruler: what a model draws, and what a picture costs it.

    unconditional   n pictures that the model draws when it is asked for nothing, against n test
                    pictures: FD, and beside it the kernel distance, precision, recall and
                    sharpness, each with what n validation pictures reach ("of real")
    bound           bits per dimension that a test picture costs at most. Of latent variables: the
                    evidence bound with one draw of z, its parts ("reconstruction", every level),
                    and on some of the pictures the tighter bound of `DRAWS` draws. Of diffusion:
                    `genkit.pixels.bound`. A plain autoencoder has no number: its p(x | z) is one
                    point, which no other picture hits
    units           active units of the code, and what a unit costs

Everything is computed in float32 and is a function of (model, n, seed); picture i of a model is
drawn from the seed i. FD, precision and recall are on the features of `genkit.pixels.READER`.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from genkit import pixels
from genkit.data.picturebook.source import to_uint8, to_unit
from genkit.frechet import features, frechet_distance, kernel_distance
from genkit.model import Samples
from genkit.models.autoencoder import DeterministicAutoencoder
from genkit.models.diffusion import PixelDiffusion
from genkit.models.hvae import HVAE
from genkit.models.reader import Reader
from genkit.models.vae import VAE, Level, iwae, parts
from genkit.quality import active_units, precision_recall, sharpness

__all__ = ["DRAWS", "SIZE", "bound", "compared", "sampled", "unconditional", "units"]

SIZE = 32
"""Side of the pictures, in pixels."""
TELLING = 0.01
"""Nats of a picture from which on a number of z is said to tell something."""
DRAWS = 16
"""Of z for the tighter bound …"""
SOME = 100
"""… of at most so many pictures."""

Measured = tuple[float | None, dict[str, float]]


def unconditional(model: Samples, n: int, seed: int) -> Measured:
    """FD of n drawn pictures from n test pictures, and what else distinguishes them."""
    reader, test = pixels.ruler(), pixels.real("test", n, seed)[0]
    drawn = compared(reader, sampled(model, n), test)
    real = compared(reader, pixels.real("validation", n, seed)[0], test)
    details = {"floor": real.pop("frechet")}
    value = drawn.pop("frechet")
    for name, number in drawn.items():
        details |= {name: number, f"{name} of real": real[name]}
    return value, details


def compared(
    reader: Reader, pictures: UInt8[Tensor, "N 3 S S"], real: UInt8[Tensor, "M 3 S S"]
) -> dict[str, float]:
    """How far pictures are from real ones: frechet, kernel, precision, recall, sharpness."""
    x, y = features(reader, pictures), features(reader, real)
    found = {"frechet": frechet_distance(x, y), "kernel": kernel_distance(x, y)}
    found |= dict(zip(("precision", "recall"), precision_recall(y, x), strict=True))
    return found | {"sharpness": sharpness(pictures, real)}


@torch.no_grad()
def sampled(model: Samples, n: int) -> UInt8[Tensor, "N 3 S S"]:
    """Pictures of the seeds 0 … n − 1.

    Raises:
        ValueError: The pictures are not of 32².
        FloatingPointError: A picture is not finite.
    """
    if model.size != SIZE:
        raise ValueError(
            f"The model draws pictures of {model.size}²; the ruler knows {SIZE}²: choose a "
            f"checkpoint book{SIZE}_…."
        )
    found = []
    for some in torch.arange(n).split(pixels.BATCH):
        drawn = model.sample(_generators(some))
        if not bool(drawn.isfinite().all()):
            raise FloatingPointError("the model drew numbers that are not finite")
        found.append(to_uint8(drawn).cpu())
    return torch.cat(found)


def bound(
    model: PixelDiffusion | VAE | HVAE | DeterministicAutoencoder, n: int, seed: int
) -> Measured:
    """Bits per dimension at most, the mean of n test pictures; None where there is no such number.

    Of diffusion, see `genkit.pixels.bound`.
    """
    if isinstance(model, DeterministicAutoencoder):
        return None, {}
    if isinstance(model, PixelDiffusion):
        return pixels.bound(model, n, seed)
    return _evidence(model, n, seed)


@torch.no_grad()
def _evidence(model: VAE | HVAE, n: int, seed: int) -> Measured:
    costs: dict[str, list[Tensor]] = {}
    tight: list[Tensor] = []
    for numbers, x in _pictures(model, n, seed):
        found = parts(model(x, _generators(numbers)), x)
        unit = found.dims * math.log(2)
        for name, nats in found.parts.items():
            costs.setdefault(name, []).append(nats.cpu().double() / unit)
        if few := len(numbers[numbers < SOME]):
            nats = iwae(model, x[:few], DRAWS, _generators(numbers[:few]))
            tight.append(nats.cpu().double() / unit)
    bits = {name: torch.cat(some) for name, some in costs.items()}
    whole, tighter = torch.stack(list(bits.values())).sum(dim=0), torch.cat(tight)
    details = {name: some.mean().item() for name, some in bits.items()}
    if n > 1:
        details["standard error"] = (whole.std() / n**0.5).item()
    details[f"first {len(tighter)}"] = whole[: len(tighter)].mean().item()
    details[f"first {len(tighter)}, {DRAWS} draws"] = tighter.mean().item()
    return whole.mean().item(), details


@torch.no_grad()
def units(model: VAE | HVAE, n: int, seed: int) -> Measured:
    """How many units of the code are active; details: units, per level, bits that one costs."""
    means: dict[str, list[Tensor]] = {}
    costs: dict[str, list[Tensor]] = {}
    for numbers, x in _pictures(model, n, seed):
        # A level's mean needs the levels above: at their means it is a function of x alone.
        for level in model.encode(x):
            means.setdefault(level.name, []).append(_told(level))
        for level in model.encode(x, _generators(numbers)):
            costs.setdefault(level.name, []).append(level.dimensions.cpu().double().sum(dim=0))
    active = {name: active_units(torch.cat(some)) for name, some in means.items()}
    nats = {name: torch.stack(some).sum(dim=0) / n for name, some in costs.items()}
    every = torch.cat([some.flatten() for some in nats.values()])
    details = {
        "units": float(len(every)),
        "mean nats of a unit": every.mean().item(),
        "median nats": every.median().item(),
        "largest nats": every.max().item(),
        f"above {TELLING:g} nats": (every > TELLING).double().mean().item(),
    }
    for name, some in active.items():
        details |= {f"{name} active": float(some.sum()), f"{name} units": float(some.numel())}
        details[f"{name} nats"] = nats[name].sum().item()
    return float(sum(int(some.sum()) for some in active.values())), details


def _told(level: Level) -> Float[Tensor, "B C h w"]:
    """What the posterior adds to the prior, in standard deviations of the prior."""
    told, expected = level.posterior.mean.cpu().double(), level.prior.mean.cpu().double()
    return (told - expected) / level.prior.std.cpu().double()


def _pictures(model: VAE | HVAE, n: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Test pictures in [−1, 1] where the model is, with their numbers."""
    device = next(model.parameters()).device
    pictures = pixels.real("test", n, seed)[0]
    for numbers in torch.arange(n).split(pixels.BATCH):
        yield numbers, to_unit(pictures[numbers]).to(device)


def _generators(numbers: Tensor) -> list[Generator]:
    return [Generator().manual_seed(number) for number in numbers.tolist()]
