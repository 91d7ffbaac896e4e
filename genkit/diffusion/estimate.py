"""The bound in few evaluations: T + 1 terms of which a fair sample is drawn.

`likelihood.terms` asks the network once for each of the T terms of the bound

    L_T + Σ_k L_(k−1) + L_0,        k = 2 … T.

Here some k are drawn, more of them where the log-SNR falls fast, because a term is about half
that fall where the denoiser leaves a fixed share of the noise:

    p_k ∝ λ_(k−1) − λ_k,   λ = ln(α/σ),      Σ_k L_(k−1) = E_k[L_(k−1)/p_k]

The unit interval of the distribution function is cut into equal strata, and in each of them the
same number of (k, ε) is drawn: the mean over all of them is an unbiased estimate of the sum, and
the variance within the strata gives its standard error. A stratum is an interval of the log-SNR;
what falls into it is a part of the sum, so the bound comes apart by ranges of noise.

L_T is known in closed form, and L_0, one large term, has twice as many draws as a stratum.

References:
    Variational Diffusion Models (Kingma et al., 2021), section 4.1 and appendix I.1
        (low-discrepancy times)   https://arxiv.org/abs/2107.00630
    Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), section 3.3
        (importance-sampled terms)   https://arxiv.org/abs/2102.09672
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.likelihood import chain, step_nats, terms
from genkit.diffusion.sample import noise
from genkit.diffusion.schedule import Discrete, spread
from genkit.diffusion.variance import posterior

__all__ = ["Part", "Sampled", "estimate"]


class Part(NamedTuple):
    """A part of the bound.

    Args:
        low: Least ratio σ/α of the range, 0 of L_0.
        high: Largest ratio σ/α of it.
        bits: Bits/dim, one per picture.
        variance: Of the estimate, in (bits/dim)².
    """

    low: float
    high: float
    bits: Float[Tensor, "B"]
    variance: Float[Tensor, "B"]


class Sampled(NamedTuple):
    """The estimate of a bound.

    Args:
        end: L_T, known.
        steps: Σ_k L_(k−1) by strata, from much noise to little.
        decoder: L_0.
        evaluations: Forward passes of the network per picture.
    """

    end: Float[Tensor, "B"]
    steps: tuple[Part, ...]
    decoder: Part
    evaluations: int

    @property
    def bits(self) -> Float[Tensor, "B"]:
        """The bound, bits/dim."""
        return self.end + self.decoder.bits + sum(part.bits for part in self.steps)

    @property
    def error(self) -> Float[Tensor, "B"]:
        """Its standard error."""
        return (self.decoder.variance + sum(part.variance for part in self.steps)).sqrt()


def estimate(
    denoiser: Denoises,
    x0: Float[Tensor, "B C H W"],
    rngs: Sequence[Generator],
    cond: Condition = NOTHING,
    times: Float[Tensor, "T"] | None = None,
    strata: int = 24,
    draws: int = 2,
) -> Sampled:
    """An unbiased estimate of `likelihood.total(terms(…))`'s mean over its noise.

    All (strata + 2) × draws evaluations of all pictures are one batch.

    Args:
        denoiser: What is asked; a point estimate steps with the variance β̃ (see `terms`).
        x0: Pictures at the grey levels, best in float64.
        rngs: One CPU generator per picture.
        cond: What the denoiser is told.
        times: Of the chain, see `chain`; all of a schedule's steps (or 1000) if None.
        strata: Ranges of the log-SNR, ≥ 1.
        draws: Of (k, ε) in each range; at least 2, or there is no standard error.

    Raises:
        ValueError: As `terms`, or `strata` or `draws` is too small.
    """
    if strata < 1 or draws < 2:
        raise ValueError(f"{strata} strata, {draws} draws: give at least 1 and 2")
    schedule = denoiser.schedule
    if times is None:
        times = chain(schedule, len(schedule.betas()) if isinstance(schedule, Discrete) else 1000)
    end = next(terms(denoiser, x0, rngs, cond, times))  # which also checks the arguments
    times = times.to("cpu", torch.float64)
    alpha, sigma = schedule(times)
    rise = (sigma / alpha).log().diff()  # λ_(k−1) − λ_k
    rise[~rise.isfinite()] = rise[rise.isfinite()].max()  # α = 0 at the end: any, if above 0
    chance = rise / rise.sum()
    edges = torch.cat((chance.new_zeros(1), chance.cumsum(0)))
    k, weight = _drawn(edges, rngs, strata, draws)
    bits = weight * _evaluated(denoiser, x0, rngs, cond, (times, alpha, sigma), k)
    first, rest = bits.split([2 * draws * len(x0), strata * draws * len(x0)])
    first, rest = first.view(2 * draws, len(x0)), rest.view(strata, draws, len(x0))
    mean, variance = rest.mean(dim=1), rest.var(dim=1) / draws
    ratio = (sigma / alpha)[:-1].log()
    at = [_between(edges, ratio, rise, g / strata) for g in range(strata + 1)]
    ranges = [(math.exp(a), math.exp(b)) for a, b in zip(at, at[1:])]
    shares = [Part(*ranges[g], mean[g], variance[g]) for g in reversed(range(strata))]
    decoder = Part(0.0, ranges[0][0], first.mean(dim=0), first.var(dim=0) / len(first))
    return Sampled(end.bits, tuple(shares), decoder, len(k) // len(x0) * denoiser.passes)


def _drawn(
    edges: Float[Tensor, "T"], rngs: Sequence[Generator], strata: int, draws: int
) -> tuple[Tensor, Float[Tensor, "R"]]:
    """(k, weight) of every row: index of the step's noisier time, and 1/(strata p_k).

    Rows are L_0 first (k = 0, weight 1), then stratum by stratum, in each of them draw by draw,
    and in that one for each picture.
    """
    shape = (strata, draws)
    u = torch.stack([torch.rand(shape, generator=rng, dtype=torch.float64) for rng in rngs], -1)
    place = (torch.arange(strata, dtype=torch.float64)[:, None, None] + u) / strata
    k = torch.searchsorted(edges, place.flatten(), right=True).clamp(1, len(edges) - 1)
    first = k.new_zeros(2 * draws * len(rngs))
    weight = 1 / (strata * edges.diff()[k - 1])
    return torch.cat((first, k)), torch.cat((weight.new_ones(len(first)), weight))


def _evaluated(
    denoiser: Denoises,
    x0: Float[Tensor, "B C H W"],
    rngs: Sequence[Generator],
    cond: Condition,
    levels: tuple[Tensor, Tensor, Tensor],
    k: Tensor,
) -> Float[Tensor, "R"]:
    """The term of every row in bits/dim."""
    times, alpha, sigma = levels
    rounds = len(k) // len(x0)
    eps = torch.cat([noise(rngs, x0.shape[1:], x0.dtype, x0.device) for _ in range(rounds)])
    copies = x0.repeat(rounds, 1, 1, 1)
    named = {name: v.repeat(rounds, *[1] * (v.ndim - 1)) for name, v in cond.items()}
    before = (k - 1).clamp(min=0)
    to = torch.where(k > 0, alpha[before], 1.0), torch.where(k > 0, sigma[before], 0.0)
    floor = posterior((alpha[1], sigma[1]), (alpha[0], sigma[0])).variance.item()
    with torch.no_grad():
        x_t = spread(alpha[k], copies) * copies + spread(sigma[k], eps) * eps
        answer = denoiser(x_t, times[k], named)
        nats = step_nats(answer, copies, (alpha[k], sigma[k]), to, floor)
    return nats.mean(dim=(1, 2, 3)).double().cpu() / math.log(2)


def _between(
    edges: Float[Tensor, "T"], ratio: Float[Tensor, "S"], rise: Float[Tensor, "S"], u: float
) -> float:
    """ln σ/α where the distribution function is u."""
    i = int(torch.searchsorted(edges, u, right=True).clamp(1, len(edges) - 1)) - 1
    share = (u - edges[i]) / (edges[i + 1] - edges[i])
    return float(ratio[i] + share.clamp(0, 1) * rise[i])
