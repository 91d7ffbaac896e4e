"""One picture, three ways to latents and back: by a VAE, an HVAE and a diffusion model.

All three are models p(x | z) p(z) of a picture x, all three have a q(z | x) that goes the other
way, and of all three there is one bound,

    −log₂ p(x) ≤ E_q[−log₂ p(x | z)] + KL(q(z | x) ‖ p(z))

    VAE        one z: a `Cloud` around one point, one step there and one step back
    HVAE       z_1 … z_L, from coarse to fine: a `Ladder`; its KL is a sum over the levels
    diffusion  z_1 … z_T are the picture in more and more noise: a `Road` of many small steps,
               q has no parameters, and the same sum is called L_0 + Σ L_t + L_T

A `Bill` is the bound of this very picture, part by part. Each is an estimate with a standard
error: of draws from the cloud, of draws down the ladder, of some of the T terms
(`genkit.diffusion.estimate`).

Of the diffusion model there are two roads up. Fresh noise, x_t = α_t x_0 + σ_t ε, is q itself; the
other one is the sampler's own equation run backwards (`genkit.diffusion.invert`), whose end the
sampler takes back to the picture.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from apps.quartet import device, generators
from genkit.diffusion.denoise import Condition
from genkit.diffusion.estimate import Sampled, estimate
from genkit.diffusion.grid import LogSNR
from genkit.diffusion.invert import FIRST, Invertible, invert
from genkit.diffusion.sample import DPMPP2M, Euler, noise
from genkit.diffusion.schedule import spread
from genkit.distributions import Gaussian
from genkit.model import Model
from genkit.models.diffusion import PixelDiffusion
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE, drawn, parts

__all__ = [
    "FEW",
    "SOLVERS",
    "Bill",
    "Cloud",
    "Found",
    "Ladder",
    "Part",
    "Path",
    "Road",
    "examine",
    "fitting",
    "psnr",
]

GRID = LogSNR(low=1e-3, high=1e4)
"""From end to end of the schedule."""
SOLVERS: Mapping[str, Invertible] = {"dpm++2m": DPMPP2M(grid=GRID), "ddim": Euler(grid=GRID)}
"""Ways to follow the flow, by their orders 2 and 1."""
FEW = 4
"""Pictures that are drawn with some levels of the ladder kept."""
STRATA, DRAWS = 24, 2
"""Of the sampled bound: 52 evaluations."""
RANGES = (0.02, 0.1, 1.0)
"""σ/α that part the terms of the diffusion model: 2.5, 13 and 128 grey levels of noise."""

Picture = Float[Tensor, "3 H W"]
Pictures = Float[Tensor, "N 3 H W"]
M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Part:
    """A part of a bill.

    Args:
        name: "reconstruction" or a level; of the diffusion model L_0, L_t or L_T.
        bits: Bits/dim.
        error: Standard error, 0 where it is exact.
        low: Of an L_t, the least σ/α of its range.
        high: The largest.
    """

    name: str
    bits: float
    error: float = 0.0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Bill:
    """The bound of the picture, part by part; what the pixels cost comes first.

    Args:
        parts: In the order of the way back, from the pixels up.
        error: Standard error of the sum.
    """

    parts: tuple[Part, ...]
    error: float

    @property
    def bits(self) -> float:
        """Bits/dim: at most so many are needed, on average over q."""
        return sum(part.bits for part in self.parts)


@dataclass(frozen=True, eq=False)
class Cloud:
    """What a VAE makes of the picture, on the CPU.

    Args:
        name: Of the level, as "4×4".
        mean: μ(x). "C h w"
        std: σ(x).
        nats: KL of each number of z.
        draws: Pictures of z ~ q(z | x).
        back: The picture of μ.
        bill: The bound.
        seconds: What all this took.
    """

    name: str
    mean: Float[Tensor, "C h w"]
    std: Float[Tensor, "C h w"]
    nats: Float[Tensor, "C h w"]
    draws: Pictures
    back: Picture
    bill: Bill
    seconds: float

    @property
    def spread(self) -> Float[Tensor, "H W"]:
        """How far the draws lie apart (see `apart`)."""
        return apart(self.draws)


@dataclass(frozen=True, eq=False)
class Ladder:
    """What an HVAE makes of the picture, on the CPU.

    Args:
        names: Of the levels, from the top.
        numbers: How many numbers each of them has.
        kept: For k = 0 … L, pictures with the first k levels of x, the others from the prior;
            of k = L there is one picture.
        bill: The bound.
        seconds: What all this took.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    kept: tuple[Pictures, ...]
    bill: Bill
    seconds: float

    @property
    def back(self) -> Picture:
        """The picture of all levels."""
        return self.kept[-1][0]


@dataclass(frozen=True, eq=False)
class Path:
    """2 n + 1 states, up and down, and x̂_0 as the model guesses it from each."""

    states: Pictures
    looks: Pictures


@dataclass(frozen=True, eq=False)
class Road:
    """What a diffusion model makes of the picture, on the CPU.

    Args:
        times: t of the n + 1 states on the way up.
        alpha: Their signal.
        sigma: Their noise.
        noisy: Up by fresh noise, down by the solver.
        flow: Up and down by the solver.
        evaluations: Of the network for `flow`, up and down.
        seconds: What all this took.
    """

    times: tuple[float, ...]
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    noisy: Path
    flow: Path
    evaluations: int
    seconds: float

    @property
    def back(self) -> Picture:
        """Where the inverted picture comes back to."""
        return self.flow.looks[-1]


@dataclass(frozen=True, eq=False)
class Found:
    """What is known so far: the cloud and the ladder first, then the bill of the road, the road.

    Args:
        cloud: Of the VAE.
        ladder: Of the HVAE.
        toll: The bill of the diffusion model.
        toll_seconds: What it took.
        road: Of the diffusion model.
        done: Its evaluations.
        of: Its evaluations in all.
    """

    cloud: Cloud
    ladder: Ladder
    toll: Bill | None = None
    toll_seconds: float = 0.0
    road: Road | None = None
    done: int = 0
    of: int = 1


def fitting(model: Model, kind: type[M], name: str, size: int) -> M:
    """The model, if it is of the family and size that are needed.

    Raises:
        TypeError: It is of another family.
        ValueError: It draws pictures of another size.
    """
    if not isinstance(model, kind):
        raise TypeError(
            f"{name} is a {type(model).__name__}, and a {kind.__name__} is needed here; "
            "put the right checkpoint in its folder"
        )
    if model.size != size:
        raise ValueError(
            f"{name} draws pictures of {model.size} × {model.size}, and this page compares "
            f"{size} × {size}; put the right checkpoint in its folder"
        )
    return model


def psnr(one: Float[Tensor, "*B 3 H W"], other: Float[Tensor, "*B 3 H W"]) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [−1, 1]; infinite where they are equal."""
    error = (one.clamp(-1, 1) - other.clamp(-1, 1)).cpu().double().square().mean().item()
    return 10 * math.log10(4 / error) if error > 0 else math.inf


def apart(pictures: Pictures) -> Float[Tensor, "H W"]:
    """Deviation of the pictures from each other: root of the mean square over the colours."""
    if len(pictures) < 2:
        return torch.zeros_like(pictures[0, 0])
    return pictures.var(dim=0).mean(dim=0).sqrt()


def examine(
    models: tuple[VAE, HVAE, PixelDiffusion],
    x: Float[Tensor, "1 3 H W"],
    steps: int,
    solver: str,
    draws: int,
    seed: int,
) -> Iterator[Found]:
    """Everything about one picture; the first answer has the cloud and the ladder.

    Args:
        models: Of the three ways.
        x: At the grey levels.
        steps: Of the solver, each way.
        solver: Of `SOLVERS`.
        draws: Of z, at least 2.
        seed: Of all noise.

    Raises:
        FloatingPointError: A model said what is not finite.
    """
    vae, hvae, diffusion = models
    found = Found(
        cloud(vae, x.to(device(vae)), draws, seed), ladder(hvae, x.to(device(hvae)), draws, seed)
    )
    sampled = (STRATA + 2) * DRAWS
    found = replace(found, of=sampled + 3 * steps)
    yield found
    x = x.to(device(diffusion))
    start = time.perf_counter()
    bill = toll(diffusion, x, seed)
    found = replace(found, toll=bill, toll_seconds=time.perf_counter() - start, done=sampled)
    yield found
    for event in road(diffusion, x, steps, SOLVERS[solver], seed):
        if isinstance(event, Road):
            yield replace(found, road=event, done=found.of)
        else:
            yield replace(found, done=sampled + event)


@torch.no_grad()
def cloud(model: VAE, x: Float[Tensor, "1 3 H W"], draws: int, seed: int) -> Cloud:
    """One step to a cloud, some points of it, and one step back from each."""
    start = time.perf_counter()
    (level,) = model.encode(x)
    law = level.posterior
    mean, std = (c.expand(draws, *law.mean.shape[1:]) for c in (law.mean, law.std))
    z = drawn(Gaussian(mean, std), generators(seed, draws))
    said = model.decode([torch.cat((level.z, z))])
    nats = -said.log_prob(x.expand(draws + 1, *x.shape[1:])).flatten(1).sum(dim=1)[1:]
    read = _mean("reconstruction", nats, x.numel())
    told = Part(level.name, _bits(level.divergence, x.numel()).item())
    return Cloud(
        level.name,
        *(_finite(c[0]) for c in (law.mean, law.std, level.dimensions)),
        _finite(said.mean[1:]),
        _finite(said.mean[0]),
        Bill((read, told), read.error),
        time.perf_counter() - start,
    )


@torch.no_grad()
def ladder(model: HVAE, x: Float[Tensor, "1 3 H W"], draws: int, seed: int) -> Ladder:
    """The levels that x has, and what pictures are like that share the first k of them."""
    start = time.perf_counter()
    many = x.expand(draws, *x.shape[1:])
    costs = parts(model(many, generators(seed, draws)), many)
    # From the pixels up: the reconstruction, then the finest level.
    names = ["reconstruction", *reversed(model.levels)]
    bill = tuple(_mean(name, costs.parts[name], costs.dims) for name in names)
    levels = model.encode(x)
    kept = []
    for k in range(len(levels) + 1):
        few = FEW if k < len(levels) else 1
        given = [level.z.expand(few, *level.z.shape[1:]) for level in levels[:k]]
        kept.append(_finite(model.generate(generators(seed, few), given)[1].mean))
    numbers = tuple(level.z[0].numel() for level in levels)
    error = _bits(costs.nats, costs.dims).std().item() / math.sqrt(draws)
    seconds = time.perf_counter() - start
    return Ladder(model.levels, numbers, tuple(kept), Bill(bill, error), seconds)


def toll(model: PixelDiffusion, x: Float[Tensor, "1 3 H W"], seed: int) -> Bill:
    """The bound of the diffusion model, its L_t grouped by `RANGES` of noise."""
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # which mps does not have
    cond = model.condition([None])
    sampled = estimate(
        model.denoiser, x.to(exact), generators(seed, 1), cond, strata=STRATA, draws=DRAWS
    )
    grouped = tuple(_grouped(sampled))
    first = sampled.decoder
    decoder = Part("L_0", first.bits.item(), first.variance.sqrt().item(), first.low, first.high)
    end = Part("L_T", sampled.end.item())
    bill = Bill((decoder, *grouped, end), sampled.error.item())
    if not math.isfinite(bill.bits):
        raise FloatingPointError(f"the bound is {bill.bits} bits/dim")
    return bill


def _grouped(sampled: Sampled) -> Iterator[Part]:
    """Strata in the ranges of noise in which their middles lie, from little noise to much."""
    edges = (0.0, *RANGES, math.inf)
    for low, high in zip(edges, edges[1:]):
        some = [one for one in sampled.steps if low <= math.sqrt(one.low * one.high) < high]
        if some:
            bits = sum(one.bits.item() for one in some)
            error = math.sqrt(sum(one.variance.item() for one in some))
            ends = min(one.low for one in some), max(one.high for one in some)
            yield Part("L_t", bits, error, *ends)


def road(
    model: PixelDiffusion, x: Float[Tensor, "1 3 H W"], steps: int, solver: Invertible, seed: int
) -> Iterator[int | Road]:
    """Evaluations done, then both roads: up by noise and by the solver, down by the solver.

    The two states at the top go down as one batch.
    """
    start, denoiser = time.perf_counter(), model.denoiser
    one, two = model.condition([None]), model.condition([None, None])
    times = solver.grid(denoiser.schedule, steps, 1.0, FIRST).flip(0)
    alpha, sigma = denoiser.schedule(times)
    states, looks = [alpha[0].to(x) * x], []
    for state in invert(denoiser, x, steps, one, solver):
        states.append(state.x)
        looks.append(state.x0)
        yield state.step
    eps = noise(generators(seed, 1), x.shape[1:], x.dtype, x.device)
    copies = x.expand(steps + 1, *x.shape[1:])
    noisy = spread(alpha, copies) * copies + spread(sigma, copies) * eps
    seen = [x, *_looks(model, noisy[1:], times[1:]).split(1)]
    yield 2 * steps
    down, under = [], []
    top = torch.cat((states[-1], noisy[-1:]))
    for state in solver.trajectory(denoiser, top, steps, two, stop=FIRST):
        down.append(state.x)
        under.append(state.x0)
        yield 2 * steps + state.step
    under.append(down[-1] / alpha[0].to(x))  # where the noise is least, the picture as it is
    flow = Path(
        _finite(torch.cat([*states, *(s[:1] for s in down)])),
        _finite(torch.cat([*looks, *(s[:1] for s in under)])),
    )
    by_noise = Path(
        _finite(torch.cat([noisy, *(s[1:] for s in down)])),
        _finite(torch.cat([*seen[:-1], *(s[1:] for s in under)])),
    )
    levels = (tuple(c.tolist()) for c in (times, alpha, sigma))
    yield Road(*levels, by_noise, flow, 2 * steps, time.perf_counter() - start)


@torch.no_grad()
def _looks(model: PixelDiffusion, x: Pictures, times: Float[Tensor, "N"]) -> Pictures:
    """x̂_0 of all pictures, each at its time, as one batch."""
    cond: Condition = model.condition([None] * len(x))
    return model.denoiser(x, times, cond).mean


def _mean(name: str, nats: Float[Tensor, "N"], dims: int) -> Part:
    """The mean of draws, and its standard error."""
    bits = _bits(nats, dims)
    return Part(name, bits.mean().item(), bits.std().item() / math.sqrt(len(bits)))


def _bits(nats: Tensor, dims: int) -> Tensor:
    return nats.cpu().double() / (dims * math.log(2))


def _finite(x: Tensor) -> Tensor:
    """On the CPU, in float32.

    Raises:
        FloatingPointError: There is a number that is not finite.
    """
    if not bool(x.isfinite().all()):
        raise FloatingPointError("a model said what is not finite")
    return x.float().cpu()
