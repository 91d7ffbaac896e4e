"""Likelihood: how many bits a diffusion model needs for a picture, by two roads.

The bound. A chain of noisy levels t_1 < … < t_T and the reverse steps p(x_s | x_t) of a denoiser
(`variance`) are a model of 256-level pictures, with

    −log₂ P(x_0) ≤ L_T + Σ_k L_(k−1) + L_0,

    L_T       KL(q(x_T | x_0) ‖ N(0, α_T² + σ_T²))               1 on a variance-preserving chain
    L_(k−1)   KL(q(x_(k−1) | x_k, x_0) ‖ p(x_(k−1) | x_k)),  x_k ~ q(x_k | x_0)     k = 2 … T
    L_0       −log p(x_0 | x_1), of a Gaussian discretised to the grey levels

so `terms` yields T + 1 numbers a picture, and their sum is a bound up to the noise of the one x_k
that is drawn for each. Fewer times are a coarser chain, another model with a bound of its own.

The probability flow. The denoiser's ODE carries data to noise with a density that is known along
the way. In the angle φ = atan2(σ, α) and z = x/√(α² + σ²), z = cos φ x_0 + sin φ ε, on every
schedule

    dz/dφ = (cos φ z − x̂_0)/sin φ,      d ln p(z)/dφ = −tr ∂(dz/dφ)/∂z,      z_end ~ N(0, I)

and the trace is tr A = E[eᵀAe] with signs e = ±1 (Hutchinson). `flow` gives an estimate, not a
bound: of the density at the level `start`, to the tolerance of the solver, with one random trace.

Conventions
    Pictures are in [−1, 1], at the grey levels −1 + 2k/255 where 256-level pictures are meant.
    Everything is a number per picture. Bits are bits/dim: divided by C H W. To those of a density,
    −log₂ of the width 2/255 of a grey level is added, which makes them comparable when the picture
    is `dequantise`d first.
    Give float64 pictures: the state of the ODE and the coefficients are float64.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), equations 5, 8 and 13
        https://arxiv.org/abs/2006.11239
    Score-Based Generative Modeling through Stochastic Differential Equations
        (Song et al., 2021), section 4.3 and appendix D.2
        https://arxiv.org/abs/2011.13456
    FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
        (Grathwohl et al., 2019), section 3.1
        https://arxiv.org/abs/1810.01367
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.sample import noise
from genkit.diffusion.schedule import Discrete, Schedule, spread
from genkit.diffusion.variance import Levels, deviation, posterior
from genkit.distributions import Dirac, Distribution, Gaussian

__all__ = [
    "Flowing",
    "Likelihood",
    "Term",
    "chain",
    "dequantise",
    "flow",
    "grey_log_prob",
    "step_nats",
    "terms",
    "total",
]

WIDTH = 2 / 255
"""Of a grey level in [−1, 1]."""


class Term(NamedTuple):
    """One term of the bound.

    Args:
        name: "L_T", "L_t" for every L_(k−1), or "L_0".
        t: The noisier time of the step, t_k of L_(k−1); t_1 of L_0.
        bits: Bits/dim, one per picture.
        answer: q(x_0 | x_t) of the denoiser on which the term rests; None of L_T, which has none.
    """

    name: Literal["L_T", "L_t", "L_0"]
    t: float
    bits: Float[Tensor, "B"]
    answer: Distribution | None = None


class Likelihood(NamedTuple):
    """−log₂ of a picture's probability in bits/dim, and what kind of number it is.

    Args:
        kind: "bound" (the model needs at most so many bits) or "estimate".
        bits: One per picture.
    """

    kind: Literal["bound", "estimate"]
    bits: Float[Tensor, "B"]


class Flowing(NamedTuple):
    """The probability flow after a step of the solver; the last one is the answer.

    Args:
        angle: φ reached, rising to the end of the schedule.
        z: The state, noise at the end.
        log_density: ln N(z; 0, I) plus the change of volume so far, in nats, one per picture.
        nfe: Forward passes of the network per picture so far; each has a backward pass per probe.
    """

    angle: float
    z: Float[Tensor, "B C H W"]
    log_density: Float[Tensor, "B"]
    nfe: int

    @property
    def likelihood(self) -> Likelihood:
        bits = -self.log_density / (self.z[0].numel() * math.log(2)) - math.log2(WIDTH)
        return Likelihood("estimate", bits)


def chain(schedule: Schedule, steps: int = 1000) -> Float[Tensor, "T"]:
    """The rising times t_1 … t_T of a chain with this many steps, all with σ > 0, float64.

    Of a `Discrete` schedule: its own steps, or so many of them, the first and the last included.

    Raises:
        ValueError: Fewer than 2 steps, or more than the schedule has.
    """
    whole = len(schedule.betas()) if isinstance(schedule, Discrete) else math.inf
    if not 2 <= steps <= whole:
        raise ValueError(f"{steps} steps of a chain of {whole}: give 2 to {whole}")
    if schedule.level(0.0).sigma == 0:
        return torch.arange(1, steps + 1, dtype=torch.float64, device="cpu") / steps
    times = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    if isinstance(schedule, Discrete):
        times = (times * (whole - 1)).round() / (whole - 1)
    return times


def terms(
    denoiser: Denoises,
    x0: Float[Tensor, "B C H W"],
    rngs: Sequence[Generator],
    cond: Condition = NOTHING,
    times: Float[Tensor, "T"] | None = None,
    together: int = 1,
) -> Iterator[Term]:
    """The terms of the bound, from L_T down to L_0; one evaluation for every one but the first.

    A point estimate (`Dirac`) steps with the variance β̃, and its L_0, where β̃_1 = 0, takes β̃_2 as
    the published code does; wrap it in `Wide` for β.

    Args:
        x0: Pictures at the grey levels.
        rngs: One CPU generator per picture.
        times: Of the chain, see `chain`; all of a schedule's steps (or 1000) if None.
        together: How many times are evaluated as one batch: the same terms, up to rounding.

    Raises:
        ValueError: Times do not rise within (0, 1], a picture is not at the grey levels, there
            is not one generator per picture, or `together` is not positive.
    """
    schedule = denoiser.schedule
    if times is None:
        whole = len(schedule.betas()) if isinstance(schedule, Discrete) else 1000
        times = chain(schedule, whole)
    _check_times(times, schedule)
    _check_grey(x0)
    _check_rngs(rngs, x0)
    if together < 1:
        raise ValueError(f"{together} times together; give at least 1")
    times = times.to("cpu", torch.float64)
    alpha, sigma = schedule(times)
    power = math.hypot(alpha[-1], sigma[-1])
    last = Gaussian(alpha[-1] / power * x0, (sigma[-1] / power).to(x0))
    yield Term("L_T", times[-1].item(), _bits(last.kl()))
    # The levels one step earlier; before the first, clean data.
    clean = torch.tensor([1.0, 0.0], dtype=torch.float64, device="cpu")
    before = torch.cat((clean[:1], alpha[:-1])), torch.cat((clean[1:], sigma[:-1]))
    # β̃_2, the least variance of the decoder
    floor = posterior((alpha[1], sigma[1]), (alpha[0], sigma[0])).variance.item()
    for some in torch.arange(len(times), device="cpu").flip(0).split(together):
        eps = torch.cat([noise(rngs, x0.shape[1:], x0.dtype, x0.device) for _ in some])
        # One row for each time and picture, the times outside.
        rows, copies = some.repeat_interleave(len(x0)), x0.repeat(len(some), 1, 1, 1)
        named = {k: v.repeat(len(some), *[1] * (v.ndim - 1)) for k, v in cond.items()}
        at, to = (alpha[rows], sigma[rows]), (before[0][rows], before[1][rows])
        with torch.no_grad():
            x_t = spread(at[0], copies) * copies + spread(at[1], eps) * eps
            answer = denoiser(x_t, times[rows], named)
            bits = _bits(step_nats(answer, copies, at, to, floor)).split(len(x0))
        for k, one, said in zip(some.tolist(), bits, _parts(answer, len(x0)), strict=True):
            yield Term("L_t" if k > 0 else "L_0", times[k].item(), one, said)


def total(terms: Iterable[Term]) -> Likelihood:
    """The sum of all terms of a chain: the bound itself."""
    return Likelihood("bound", torch.stack([term.bits for term in terms]).sum(dim=0))


def step_nats(
    answer: Distribution, x0: Float[Tensor, "B C H W"], at: Levels, to: Levels, floor: float
) -> Float[Tensor, "B C H W"]:
    """One term of the bound, elementwise in nats: L_0 where `to` is clean, else KL(q ‖ p).

    The two Gaussians of the divergence differ by give·(x_0 − x̂_0) in mean, whatever x_t is.

    Args:
        answer: q(x_0 | x_t) of the denoiser.
        x0: The pictures.
        at: Levels of t, one per picture, float64.
        to: Levels of the earlier s, one per picture; σ_s = 0 means clean.
        floor: Least variance of the decoder.
    """
    _, give, variance = (spread(c, x0) for c in posterior(at, to))
    clean = spread(to[1], x0) == 0
    std = deviation(answer)
    kept = torch.where(clean, 1.0, variance)  # any, but not 0: it is not used there
    width = (kept + (give * std).square()).sqrt()
    kl = Gaussian(give * (x0 - answer.mean) / width, kept.sqrt() / width).kl()
    decoder = Gaussian(answer.mean, std.square().clamp(min=floor).sqrt())
    return torch.where(clean, -grey_log_prob(decoder, x0), kl)


def grey_log_prob(q: Gaussian, x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """ln P(x) of the grey levels when `q` is cut into 256 bins, the outer ones open.

    P(x) = Φ((x + 1/255 − mean)/std) − Φ((x − 1/255 − mean)/std), with ∞ above 1 and −∞ below −1;
    the 256 probabilities sum to one. Computed from ln Φ on the side where it is small, so that no
    outlier has probability 0.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), equation 13
            https://arxiv.org/abs/2006.11239
    """
    z = (x - q.mean) / q.std
    half = WIDTH / 2 / q.std
    above = torch.where(x > 1 - WIDTH / 2, math.inf, z + half)
    below = torch.where(x < -1 + WIDTH / 2, -math.inf, z - half)
    right = above + below > 0
    high = torch.special.log_ndtr(torch.where(right, -below, above))
    low = torch.special.log_ndtr(torch.where(right, -above, below))
    return high + (-torch.expm1(low - high)).log()


def dequantise(
    x0: Float[Tensor, "B C H W"], rngs: Sequence[Generator]
) -> Float[Tensor, "B C H W"]:
    """Pictures at grey levels, each pixel moved uniformly within its level.

    A density's −log₂ p(x) − log₂(2/255) is then an upper bound, on average, of the bits of the
    discrete picture (Jensen).

    Raises:
        ValueError: A picture is not at the grey levels, or there is not one generator a picture.
    """
    _check_grey(x0)
    _check_rngs(rngs, x0)
    u = torch.stack([torch.rand(x0.shape[1:], generator=rng, dtype=torch.float64) for rng in rngs])
    return x0 + WIDTH * (u.to(x0) - 0.5)


def flow(
    denoiser: Denoises,
    x: Float[Tensor, "B C H W"],
    rngs: Sequence[Generator],
    cond: Condition = NOTHING,
    tolerance: float = 1e-5,
    probes: int = 1,
    start: float = 0.0,
) -> Iterator[Flowing]:
    """The density of pictures by the probability flow, a state after every step of the solver.

    An embedded Runge-Kutta pair of order 5(4) chooses its steps so that its error per step stays
    below tolerance·(1 + |z|) in the mean square over all pictures of the batch.

    Args:
        x: Points; they are taken for x_0 with the noise of `start`, as in the paper.
        rngs: One CPU generator per picture, for the signs of the trace.
        tolerance: Of the solver, 1e-12 to 0.1.
        probes: Sign vectors that are averaged, ≥ 1.
        start: Where the flow begins; σ > 0 there.

    Raises:
        ValueError: An argument is out of its range.
        ArithmeticError: The solver's step became too small: the denoiser is not smooth.
    """
    from scipy.integrate import RK45

    _check_rngs(rngs, x)
    begin, end = (math.atan2(*reversed(denoiser.schedule.level(t))) for t in (start, 1.0))
    if not 0 < begin < end:
        raise ValueError(f"start is {start}, where sigma is 0 or largest; begin at 0.001, say")
    if not 1e-12 <= tolerance <= 0.1 or probes < 1:
        raise ValueError(
            f"tolerance {tolerance}, {probes} probes: give 1e-12 to 0.1, and at least 1 probe"
        )
    field = _Field(denoiser, cond, _signs(rngs, probes, x))
    z = math.cos(begin) * x.detach().to(torch.float64)
    packed = np.concatenate([z.cpu().numpy().ravel(), np.zeros(len(x))])
    solver = RK45(field, begin, packed, end, rtol=tolerance, atol=tolerance)
    while solver.status == "running":
        message = solver.step()
        if solver.status == "failed":
            raise ArithmeticError(
                f"the flow stopped at angle {solver.t:.4f} ({message}); use a network in float32 "
                "or a larger tolerance"
            )
        z, volume = field.unpacked(solver.y)
        normal = Gaussian(torch.zeros_like(z), torch.ones_like(z[0, 0, 0, 0]))
        density = normal.log_prob(z).sum(dim=(1, 2, 3)) + volume
        density = density + z[0].numel() * math.log(math.cos(begin))  # of x, not of z
        yield Flowing(float(solver.t), z, density, field.calls * denoiser.passes)


class _Field:
    """(dz/dφ, tr ∂(dz/dφ)/∂z) of a batch as one float64 array, for the solver."""

    def __init__(
        self, denoiser: Denoises, cond: Condition, signs: Float[Tensor, "P B C H W"]
    ) -> None:
        self.denoiser, self.cond, self.signs, self.calls = denoiser, cond, signs, 0

    def unpacked(self, y: np.ndarray) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B"]]:
        shape = self.signs.shape[1:]
        z, volume = np.split(y, [shape.numel()])
        device = self.signs.device
        return torch.tensor(z, device=device).view(shape), torch.tensor(volume, device=device)

    def __call__(self, angle: float, y: np.ndarray) -> np.ndarray:
        self.calls += 1
        z = self.unpacked(y)[0].requires_grad_()
        cos, sin = math.cos(angle), math.sin(angle)
        schedule = self.denoiser.schedule
        t = schedule.time(torch.tensor([sin / cos], dtype=torch.float64, device="cpu"))
        scale = torch.hypot(*schedule(t)).item()
        with torch.enable_grad():
            x0 = self.denoiser(scale * z, t.expand(len(z)), self.cond).mean
            traces = [(e * _gradient(x0, z, e)).sum(dim=(1, 2, 3)) for e in self.signs]
        trace = torch.stack(traces).mean(dim=0)
        dz = (cos * z - x0).detach() / sin
        dv = (cos * z[0].numel() - trace) / sin
        return torch.cat([dz.flatten(), dv]).cpu().numpy()


def _gradient(x0: Tensor, z: Tensor, e: Tensor) -> Tensor:
    """eᵀ ∂x̂_0/∂z; 0 where x̂_0 does not depend on z."""
    if not x0.requires_grad:
        return torch.zeros_like(z)
    (found,) = torch.autograd.grad(x0, z, e, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if found is None else found


def _signs(
    rngs: Sequence[Generator], probes: int, x: Float[Tensor, "B C H W"]
) -> Float[Tensor, "P B C H W"]:
    shape = (probes, *x.shape[1:])
    draws = [torch.randint(2, shape, generator=rng, dtype=torch.float64) for rng in rngs]
    return (2 * torch.stack(draws, dim=1) - 1).to(x.device)


def _parts(answer: Distribution, size: int) -> list[Distribution]:
    """An answer in parts of `size` pictures."""
    means = answer.mean.split(size)
    if isinstance(answer, Gaussian):
        return [Gaussian(m, s) for m, s in zip(means, answer.std.split(size), strict=True)]
    return [Dirac(mean) for mean in means]


def _bits(nats: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _check_times(times: Float[Tensor, "T"], schedule: Schedule) -> None:
    if len(times) < 2 or bool((times.diff() <= 0).any()) or not 0 <= times[0] or times[-1] > 1:
        raise ValueError(
            f"{len(times)} times from {times[0]:g} to {times[-1]:g}: give at least 2 in [0, 1], "
            "rising (see `chain`)"
        )
    if schedule.level(times[0].item()).sigma == 0:
        raise ValueError(f"sigma is 0 at the first time {times[0]:g}; begin later (see `chain`)")


def _check_grey(x0: Float[Tensor, "B C H W"]) -> None:
    level = (x0 + 1) / WIDTH
    off = (level - level.round()).abs() > 0.01
    off = off | (level.round() < 0) | (level.round() > 255) | ~x0.isfinite()
    if bool(off.any()):
        raise ValueError(
            f"{x0[off][0]:g} is none of the 256 grey levels −1 + 2k/255; "
            "make pictures with to_unit, or round them"
        )


def _check_rngs(rngs: Sequence[Generator], x: Float[Tensor, "B C H W"]) -> None:
    if len(rngs) != len(x) or not rngs:
        raise ValueError(f"{len(rngs)} generators for {len(x)} pictures; give one each")
