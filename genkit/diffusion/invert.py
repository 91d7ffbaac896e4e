"""Inversion: from a picture to the noise that would become it, by a sampler's own equation.

Without fresh noise a sampler follows the probability-flow ODE, which runs both ways: it is a
picture's path to its noise as well as back. A step towards noise is the step of the sampler with
its two times exchanged; that of `Euler`, which is DDIM with η = 0,

    x_t = α_t x̂_0 + σ_t ε̂,      x̂_0 = x̂_0(x_s, s),  ε̂ = (x_s − α_s x̂_0)/σ_s,  s < t

so the noise of a picture costs one evaluation a step and draws nothing. Back down the same grid
each step asks the denoiser at the other end of its interval: the way there and the way back differ
by O(n^(−p)) with a method of order p, and for n → ∞ both are the exact flow. Order 1 forgets much
of a picture in 25 steps, order 2 hardly anything.

Conventions
    ε̂ does not exist in clean data, σ = 0. The way begins at a time `start` with a little noise,
    where the picture is taken for x̂_0 itself, x_start = α_start x_0, as in `likelihood.flow`; on
    a chain at its first step, which this module calls t = `FIRST`.
    `Sampler.trajectory(…, stop=start)` is the way back, and x/α_start the picture at its end.

References:
    Denoising Diffusion Implicit Models (Song et al., 2021), section 4.3 and appendix F
        https://arxiv.org/abs/2010.02502
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), appendix F
        https://arxiv.org/abs/2105.05233
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.multistep import DEIS, DPMPP2M
from genkit.diffusion.sample import Euler, Heun
from genkit.diffusion.trajectory import Counted, State

__all__ = ["FIRST", "Invertible", "invert"]

FIRST = 1e-15
"""The first step of a chain: t = 0 itself stands for clean data (see `grid`)."""

EULER = Euler()
Invertible = Euler | Heun | DPMPP2M | DEIS
"""Samplers that follow the flow and draw nothing, whose step holds in both directions; the last
two need α > 0 at t = 1."""


def invert(
    denoiser: Denoises,
    x0: Float[Tensor, "B C H W"],
    steps: int,
    cond: Condition = NOTHING,
    sampler: Invertible = EULER,
    start: float = FIRST,
) -> Iterator[State]:
    """Steps pictures from `start` to t = 1, yielding the state after every step.

    Of a state, `x0` is the estimate that the step used, at the time before it.

    Args:
        denoiser: What is asked. One that clips is not the same on the way there and back.
        x0: Pictures.
        steps: Of the sampler, ≥ 1.
        cond: What the denoiser is told.
        sampler: Its grid, reversed, gives the times.
        start: Where the way begins, above 0.

    Raises:
        TypeError: The sampler is none of `Invertible`.
        ValueError: σ is 0 at `start`, or the grid refuses it or the number of steps.
    """
    if not isinstance(sampler, Invertible):
        raise TypeError(
            f"{type(sampler).__name__} does not run towards noise; take Euler, Heun, DPMPP2M or "
            "DEIS"
        )
    schedule = denoiser.schedule
    if not 0 < start < 1 or schedule.level(start).sigma < FIRST:
        raise ValueError(
            f"start is {start}, where there is no noise to follow; begin between 0 and 1, where "
            "sigma is above 0 (0.001, say)"
        )
    times = sampler.grid(schedule, steps, 1.0, start).flip(0).tolist()
    counted, past = Counted(denoiser), ()
    x: Tensor = schedule.level(times[0]).alpha * x0
    for i, (s, t) in enumerate(zip(times, times[1:])):
        with torch.no_grad():
            x, past = sampler.step(counted, x, s, t, past, cond)
        yield State(i + 1, steps, t, x, past[0].x0, counted.nfe)
