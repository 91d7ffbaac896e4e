"""What a denoiser says about one picture, in numbers: what the section `bound` shows.

The chain t_1 < … < t_T of the model needs at most so many bits for the picture x_0,

    L_T + Σ_k L_(k−1) + L_0        (`genkit.diffusion.likelihood`)

where every term rests on one answer N(x̂_0, ς²) about one noisy x_k. A step of the chain has the
variance Σ = β̃ + give² ς², so the same answers serve three models of the same picture:

    narrow     ς = 0          Σ = β̃
    learned    as answered    β̃ ≤ Σ ≤ β
    wide       ς = σ_k        Σ = β

The network is asked once; `Replay` repeats what it said. Where a variance lies between the two
is its share w of ln Σ = w ln β + (1 − w) ln β̃, 0 for β̃ and 1 for β. The error |x̂_0 − x_0|² of
the picture itself has a share too: had the model said it as ς², Σ would have been the best.

The frames are 25 times with one noise ε for all of them, x_t = α_t x_0 + σ_t ε, and from each
the way back to t = 0 by `DPMPP2M`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.grid import LogSNR
from genkit.diffusion.guide import Clipped
from genkit.diffusion.likelihood import Term, chain, terms
from genkit.diffusion.sample import DPMPP2M, noise
from genkit.diffusion.schedule import spread
from genkit.diffusion.variance import LearnedVariance, Narrow, Replay, Wide, deviation, posterior
from genkit.distributions import Distribution, Gaussian
from genkit.models.diffusion import PixelDiffusion

__all__ = ["FRAMES", "SHORT", "Findings", "Frame", "Terms", "Widths", "examine"]

FRAMES = 25
"""Times at which the picture is looked at: the steps of the chain next to 0, 1/24, …, 1."""
SHORT = 50
"""Times of the coarse chain."""
TOGETHER = 50
"""Times that are evaluated as one batch."""

Array = NDArray[np.float64]
Answers = dict[float, Distribution]
"""t -> what the denoiser said about the picture at t."""


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a bound, so far.

    Args:
        t: L_T's time, then that of every later term, falling.
        bits: Bits/dim: L_T, every L_t, and L_0 at last.
    """

    t: Array
    bits: Array

    @property
    def total(self) -> float:
        return float(self.bits.sum())

    @property
    def parts(self) -> tuple[float, float, float]:
        """L_T, the sum of all L_t, L_0."""
        return float(self.bits[0]), float(self.bits[1:-1].sum()), float(self.bits[-1])


@dataclass(frozen=True, eq=False)
class Widths:
    """How wide the steps of the chain are, k = 2 … T, and how wide they had better been.

    Args:
        t: t_2 … t_T.
        narrow: β̃.
        wide: β.
        said: Σ, the mean over the picture; β̃ of a model without a variance of its own.
        std: ς, the root of its mean square.
        error: Root of the mean square of x̂_0 − x_0.
        share: w of Σ.
        asked: w of what the error asks for.
    """

    t: Array
    narrow: Array
    wide: Array
    said: Array
    std: Array
    error: Array
    share: Array
    asked: Array


@dataclass(frozen=True, eq=False)
class Frame:
    """The picture at one time; pictures are height × width × 3 in [−1, 1], x_t beyond.

    Args:
        t: The time.
        alpha: Its signal.
        sigma: Its noise.
        x_t: The noisy picture.
        x0: x̂_0 in one look, clipped.
        off: |x̂_0 − x_0|, root of the mean square over the colours. (height, width)
        std: ς likewise; None of a model without.
        film: x̂_0 at every step of the way back; the last is its end.
    """

    t: float
    alpha: float
    sigma: float
    x_t: Array
    x0: Array
    off: Array
    std: Array | None
    film: Array


@dataclass(frozen=True)
class Findings:
    """What is known so far; the last one has everything.

    Args:
        own: The variance of the model itself: learned or narrow.
        done: Evaluations of the network.
        of: Evaluations in all.
        fine: Name of the variance -> terms of the whole chain; those of `own` grow first.
        coarse: The same of `SHORT` times.
        widths: Variances over time.
        frames: The pictures.
    """

    own: str
    done: int
    of: int
    fine: Mapping[str, Terms] = field(default_factory=dict)
    coarse: Mapping[str, Terms] = field(default_factory=dict)
    widths: Widths | None = None
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture and the model that is asked about it.

    Args:
        denoiser: The model.
        cond: What it is told.
        x0: The picture, a batch of one.
        seed: Of all noise.
    """

    denoiser: Denoises
    cond: Condition
    x0: Float[Tensor, "1 C H W"]
    seed: int

    @property
    def rngs(self) -> list[Generator]:
        """Fresh generators: the same noise whenever one asks."""
        return [torch.Generator().manual_seed(self.seed)]


def examine(model: PixelDiffusion, x0: Array, label: str | None, seed: int) -> Iterator[Findings]:
    """Everything about one picture, in parts: the bound, the coarse chain, the frames.

    Args:
        model: A denoiser over a chain, with or without a learned variance.
        x0: The picture at the grey levels, height × width × 3.
        label: Its class; None says none.
        seed: Of the noise.

    Raises:
        FloatingPointError: The model said what is not finite.
    """
    device = next(model.parameters()).device
    exact = torch.float32 if device.type == "mps" else torch.float64  # which mps does not have
    x = torch.from_numpy(x0).permute(2, 0, 1)[None].to(device, exact)
    subject = Subject(model.denoiser, model.condition([label]), x, seed)
    schedule = model.denoiser.schedule
    times = chain(schedule, len(schedule.betas()))
    short = chain(schedule, min(SHORT, len(times)))
    own = "learned" if isinstance(model.denoiser, LearnedVariance) else "narrow"
    back = sum(map(_steps, range(FRAMES)))
    found = Findings(own, 0, len(times) + len(short) + FRAMES + back)
    yield found
    answers: Answers = {}
    for some in _measured(subject, times, answers):
        found = replace(found, done=len(some.bits) - 1, fine={own: some})
        yield found
    fine = found.fine | _others(subject, times, answers, own)
    found = replace(found, fine=fine, widths=_widths(subject, times, answers))
    answers = {}
    *_, some = _measured(subject, short, answers)
    coarse = {own: some} | _others(subject, short, answers, own)
    found = replace(found, coarse=coarse, done=found.done + len(short))
    yield found
    start = found.done + FRAMES
    for frames in _frames(subject):
        done = start + sum(map(_steps, range(len(frames))))
        found = replace(found, frames=frames, done=done)
        yield found


def _measured(subject: Subject, times: Float[Tensor, "T"], answers: Answers) -> Iterator[Terms]:
    """The terms so far after every batch, and what was said into `answers`."""
    t, bits = [], []
    stream = terms(subject.denoiser, subject.x0, subject.rngs, subject.cond, times, TOGETHER)
    for term in stream:
        if term.answer is not None:
            answers[term.t] = term.answer
        t.append(term.t)
        bits.append(_finite(term))
        if (len(bits) - 1) % TOGETHER == 0 or len(bits) == len(times) + 1:
            yield Terms(np.array(t), np.array(bits))


def _finite(term: Term) -> float:
    bits = term.bits.item()
    if not math.isfinite(bits):
        raise FloatingPointError(f"{term.name} at t = {term.t:.4f} is {bits} bits")
    return bits


def _others(
    subject: Subject, times: Float[Tensor, "T"], answers: Answers, own: str
) -> dict[str, Terms]:
    """The bounds with the two limits of the variance, where they are not the model's own."""
    said, found = Replay(subject.denoiser, answers), {}
    for name, limit in (("narrow", Narrow(said)), ("wide", Wide(said))):
        if name != own:
            asked = Subject(limit, NOTHING, subject.x0, subject.seed)
            *_, found[name] = _measured(asked, times, {})
    return found


def _widths(subject: Subject, times: Float[Tensor, "T"], answers: Answers) -> Widths:
    alpha, sigma = subject.denoiser.schedule(times)
    _, give, narrow = posterior((alpha[1:], sigma[1:]), (alpha[:-1], sigma[:-1]))
    said = [answers[t] for t in times[1:].tolist()]
    power = torch.tensor([deviation(one).square().mean().item() for one in said])
    missed = torch.tensor([(one.mean - subject.x0).square().mean().item() for one in said])
    limit = sigma[1:].square() / (alpha[1:].square() + sigma[1:].square())
    ratio = give.square() / narrow  # ln Σ/β̃ = ln(1 + ratio ς²), exact where β̃ is close to β
    whole = torch.log1p(ratio * limit)
    columns = (
        times[1:],
        narrow,
        narrow + give.square() * limit,
        narrow + give.square() * power,
        power.sqrt(),
        missed.sqrt(),
        torch.log1p(ratio * power) / whole,
        torch.log1p(ratio * missed) / whole,
    )
    return Widths(*(column.double().numpy() for column in columns))


@torch.no_grad()
def _frames(subject: Subject) -> Iterator[tuple[Frame, ...]]:
    """The frames so far, from t = 0 on: all of them are looked at at once, then go back."""
    denoiser, x0 = Clipped(subject.denoiser), subject.x0
    last = len(denoiser.schedule.betas()) - 1
    times = (torch.linspace(0, 1, FRAMES, dtype=torch.float64) * last).round() / last
    alpha, sigma = denoiser.schedule(times)
    eps = noise(subject.rngs, x0.shape[1:], x0.dtype, x0.device)
    copies = x0.expand(FRAMES, *x0.shape[1:])
    x_t = spread(alpha, copies) * copies + spread(sigma, copies) * eps
    said = denoiser(
        x_t, times, {k: v.expand(FRAMES, *v.shape[1:]) for k, v in subject.cond.items()}
    )
    off = _over_colours(said.mean - x0)
    std = _over_colours(said.std) if isinstance(said, Gaussian) else None
    frames: tuple[Frame, ...] = ()
    for i in range(FRAMES):
        film = said.mean[:1]
        if i > 0:
            steps = DPMPP2M(grid=LogSNR()).trajectory(
                denoiser, x_t[i : i + 1], _steps(i), subject.cond, start=times[i].item()
            )
            film = torch.cat([state.x0 for state in steps])
        levels = (times[i].item(), alpha[i].item(), sigma[i].item())
        pictures = (*_arrays(x_t[i], said.mean[i]), off[i], None if std is None else std[i])
        frames += (Frame(*levels, *pictures, np.stack(_arrays(*film))),)
        yield frames


def _steps(frame: int) -> int:
    """Evaluations of the way back from a frame: 12 from noise, none from the picture itself."""
    return (frame + 1) // 2


def _over_colours(x: Float[Tensor, "B C H W"]) -> Array:
    return x.square().mean(dim=1).sqrt().double().cpu().numpy()


def _arrays(*pictures: Float[Tensor, "C H W"]) -> list[Array]:
    return [one.permute(1, 2, 0).double().cpu().numpy() for one in pictures]
