"""Multistep samplers: one evaluation a step, high order from what earlier steps have seen.

All continue Adams' idea. Through the values f_0 (now), f_1, f_2, … (before) of something that
varies slowly runs a polynomial in a clock τ, and its integral to s corrects the step of first
order:

    x_s = α_s x̂_0 + σ_s ε̂ + c Σ_{j ≥ 1} w_j (f_j − f_0)
    Σ_j w_j r_j^k = m_k,  k = 1 … p − 1,      r_j = (τ_j − τ_t)/(τ_s − τ_t),  r_0 = 0

The condition makes the rule exact for f = r^k, whose integral is m_k; so p values give order p.

    name           f           clock τ        c                      m_k
    DPM++, UniPC   x̂_0         λ = ln(α/σ)    α_s                    ∫ h e^(−h(1−r)) r^k dr
    DEIS           ε̂           t              α_s                    ∫ r^k dρ,  ρ = σ/α
    iPNDM          ε̂ − x̂_0     the steps      (α_s + σ_s)(u_s − u_t)  ∫ r^k dr,  u = σ/(α + σ)

over 0 ≤ r ≤ 1, with h = λ_s − λ_t. A rule with two values is published with (1 − e^(−h))/2 for
m_1 = 1 − (1 − e^(−h))/h (DPM-Solver++(2M); UniPC's B_2); it is of second order with either.

Conventions
    Orders are those of the step with its full past. The first steps have less, so their order
    rises from 1; from noise this costs little, as x̂_0 hardly moves there.
    The step to σ_s = 0 is of first order and returns x̂_0. Before it the order falls to the number
    of steps that are left, where the method is published so (`Sampler.ending`). A trajectory that
    stops before data keeps its order.
    α = 0 is at λ = −∞: a value from there has no weight in a polynomial in λ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.schedule import Level, Schedule
from genkit.diffusion.trajectory import (
    Estimate,
    Past,
    Rngs,
    Sampler,
    levels,
    predict,
    stir,
    transfer,
)

__all__ = ["DEIS", "DPMPP2M", "DPMPP2MSDE", "DPMPP3M", "IPNDM", "UniPC"]


@dataclass(frozen=True, kw_only=True)
class DPMPP2M(Sampler):
    """DPM-Solver++(2M): one evaluation a step, second order from the previous estimate.

    x_s = (σ_s/σ_t) x_t − α_s (e^(−h) − 1) D,      h = λ_s − λ_t,  λ = ln(α/σ)
    D   = x̂_0(t) + (h/2h') (x̂_0(t) − x̂_0(t')),      h' = λ_t − λ_t',  t' the time before t

    The first step has no previous estimate, and the step to σ_s = 0 has h = ∞: both are of first
    order, D = x̂_0(t).

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
            (Lu et al., 2022), algorithm 2
            https://arxiv.org/abs/2211.01095
    """

    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        x0 = predict(denoiser, x, t, cond)
        at, to = levels(denoiser.schedule, t, s)
        # −α_s (e^(−h) − 1) = α_s − α_t σ_s/σ_t, which needs no λ
        middle = _middle(denoiser.schedule, x0, past, at, to)
        return transfer(x, middle, at, to), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class DPMPP2MSDE(Sampler):
    """SDE-DPM-Solver++(2M): DPM-Solver++(2M) that forgets a part of the noise and draws it anew.

    x_s = (σ_s/σ_t) e^(−ηh) x_t + α_s (1 − e^(−(1+η)h)) D + σ_s √(1 − e^(−2ηh)) z

    with h and D as there. η = 1 solves the reverse SDE, η = 0 is `DPMPP2M`; between them the
    marginals are the same and the noise comes at η times the rate. On Gaussian data mean and
    variance are of second order (of `DDIM` with noise the variance is of first).

    Args:
        eta: η in [0, 1].

    Raises:
        ValueError: η is outside [0, 1].

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
            (Lu et al., 2022), section 5, for η = 1
            https://arxiv.org/abs/2211.01095
        k-diffusion, `sample_dpmpp_2m_sde` (Crowson, 2023), for other η
            https://github.com/crowsonkb/k-diffusion
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; it must lie between 0 (the ODE) and 1 (the SDE)")

    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        x0 = predict(denoiser, x, t, cond)
        at, to = levels(denoiser.schedule, t, s)
        middle = _middle(denoiser.schedule, x0, past, at, to)
        fall = at.alpha * to.sigma / (to.alpha * at.sigma)  # e^(−h), 0 from α_t = 0
        keep = to.sigma / at.sigma * fall**self.eta
        x = keep * x + to.alpha * (1 - fall ** (1 + self.eta)) * middle
        fresh = to.sigma * (1 - fall ** (2 * self.eta)) ** 0.5
        return stir(x, fresh, rngs), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class DPMPP3M(Sampler):
    """DPM-Solver++(3M): one evaluation a step, third order from the two previous estimates.

    x_s = (σ_s/σ_t) x_t + α_s (m_0 x̂_0 + m_1 h x̂_0' + m_2 h² x̂_0''/2)
    m_0 = 1 − e^(−h),   m_1 = 1 − m_0/h,   m_2 = 1 − 2 m_1/h

    with the derivatives in λ of the parabola through three estimates. The implementations in
    circulation, the authors' own included, take x̂_0''/2 for x̂_0'' and so have half of the last
    term, which leaves second order; here it is whole. The last step but one is `DPMPP2M`.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
            (Lu et al., 2022), section 4
            https://arxiv.org/abs/2211.01095
    """

    def ending(self, left: int) -> Sampler:
        return self if left > 2 else DPMPP2M(grid=self.grid)

    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        x0 = predict(denoiser, x, t, cond)
        at, to = levels(denoiser.schedule, t, s)
        x = _predicted(denoiser.schedule, x, x0, past[:2], at, to)
        return x, (Estimate(t, x0), *past)[:2]


@dataclass(frozen=True, kw_only=True)
class UniPC(Sampler):
    """UniPC: a predictor of order p whose next evaluation also corrects it, giving order p + 1.

    Predictor   x̃_s from x_t, with x̂_0(t) and the p − 1 estimates before it: for p = 2 and 3 the
                steps of `DPMPP2M` and `DPMPP3M`
    Corrector   x_s from x_t, with x̂_0(x̃_s, s) and the p estimates before it

    x̂_0(x̃_s, s) is the evaluation that the next step needs anyway: the corrector costs none. A
    trajectory shows the predicted states; the corrected one is known only to the step after.
    There is no correction of the last step. This is the variant B_2(h) = e^h − 1, which differs
    from others where a rule has two values only.

    Args:
        order: p in 1 … 3.

    Raises:
        ValueError: p is something else.

    References:
        UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models
            (Zhao et al., 2023), section 3
            https://arxiv.org/abs/2302.04867
    """

    order: int = 3

    def __post_init__(self) -> None:
        _check_order(self.order, 3)

    def ending(self, left: int) -> Sampler:
        return replace(self, order=min(self.order, left))

    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        x0 = predict(denoiser, x, t, cond)
        at, to = levels(denoiser.schedule, t, s)
        if past:
            x = _corrected(denoiser.schedule, x0, past, at)
        here = Estimate(t, x0, x)
        x = _predicted(denoiser.schedule, x, x0, past[: self.order - 1], at, to)
        # A step of order p leaves p estimates: its corrector takes all of them.
        return x, (here, *past)[: self.order]


@dataclass(frozen=True, kw_only=True)
class DEIS(Sampler):
    """tAB-DEIS: the exponential integrator whose noise ε̂ is a polynomial in t.

    x_s/α_s = x_t/α_t + ∫ ε̂ dρ,      ρ = σ/α,  the integral from ρ_t to ρ_s

    of the polynomial through ε̂ at t and at the p − 1 times before. The paper's t is that of the
    β-linear schedule; here it is the t of the schedule in use. (Where ln ρ is linear in t this is
    the log-ρ variant of diffusers.) The coefficients are found by Gauss' quadrature.

    Args:
        order: p in 1 … 3; 1 is DDIM.

    Raises:
        ValueError: p is something else.

    References:
        Fast Sampling of Diffusion Models with Exponential Integrator
            (Zhang and Chen, 2022), section 3
            https://arxiv.org/abs/2204.13902
    """

    order: int = 3

    def __post_init__(self) -> None:
        _check_order(self.order, 3)

    def ending(self, left: int) -> Sampler:
        return replace(self, order=min(self.order, left))

    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        schedule, here = denoiser.schedule, Estimate(t, predict(denoiser, x, t, cond), x)
        at, to = levels(schedule, t, s)
        x, used = transfer(x, here.x0, at, to), past[: self.order - 1]
        if used and to.sigma > 0:
            moments = _ratio_moments(schedule, t, s, len(used))
            weights = _weights([(before.t - t) / (s - t) for before in used], moments)
            now = _noise(here, at)
            for w, before in zip(weights, used):
                x = x + to.alpha * w * (_noise(before, schedule.level(before.t)) - now)
        return x, (here, *past)[: self.order]


@dataclass(frozen=True, kw_only=True)
class IPNDM(Sampler):
    """iPNDM: Adams-Bashforth with the coefficients of equal steps, in the plane of rectified flow.

    z_s = z_t + (u_s − u_t) Σ_j b_j d_j,      z = x/(α + σ),  u = σ/(α + σ),  d = ε̂ − x̂_0

    b = (1)   (3, −1)/2   (23, −16, 5)/12   (55, −59, 37, −9)/24      for p = 1 … 4

    whatever the steps are. So the order is p where u falls in equal steps, as it does on a
    rectified schedule and the uniform grid, and 2 on every other smooth grid: what is lost in
    order is won in calm, as the coefficients never grow. In the paper the plane is (x/α, σ/α),
    which has no point for α = 0; at few steps both do the same.

    Args:
        order: p in 1 … 4.

    Raises:
        ValueError: p is something else.

    References:
        Fast Sampling of Diffusion Models with Exponential Integrator
            (Zhang and Chen, 2022), which improves on
            https://arxiv.org/abs/2204.13902
        Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al., 2022), section 3
            https://arxiv.org/abs/2202.09778
    """

    order: int = 4

    def __post_init__(self) -> None:
        _check_order(self.order, 4)

    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        schedule, here = denoiser.schedule, Estimate(t, predict(denoiser, x, t, cond), x)
        at, to = levels(schedule, t, s)
        x, used = transfer(x, here.x0, at, to), past[: self.order - 1]
        if used and to.sigma > 0:
            back = range(1, len(used) + 1)
            weights = _weights([-j for j in back], [1 / (k + 1) for k in back])
            size = to.alpha + to.sigma
            scale = to.sigma - at.sigma * size / (at.alpha + at.sigma)  # size·(u_s − u_t)
            now = _noise(here, at) - here.x0
            for w, before in zip(weights, used):
                slope = _noise(before, schedule.level(before.t)) - before.x0
                x = x + scale * w * (slope - now)
        return x, (here, *past)[: self.order]


def _check_order(order: int, most: int) -> None:
    if order not in range(1, most + 1):
        raise ValueError(f"order is {order}; this method has orders 1 to {most}")


def _middle(schedule: Schedule, x0: Tensor, past: Past, at: Level, to: Level) -> Tensor:
    """D of DPM-Solver++(2M), x̂_0 extrapolated to the middle of the step in λ."""
    if not past or to.sigma == 0:
        return x0
    before = schedule.level(past[0].t)
    r = before.rise(at) / at.rise(to)  # h'/h, ∞ after a start at α = 0
    return x0 + (x0 - past[0].x0) / (2 * r)


def _predicted(
    schedule: Schedule, x: Tensor, x0: Tensor, past: Past, at: Level, to: Level
) -> Tensor:
    """x_s from x_t with all the estimates given, the polynomial running through the past."""
    if not past or to.sigma == 0:
        return transfer(x, x0, at, to)
    h = at.rise(to)
    nodes = [(-schedule.level(before.t).rise(at) / h, before.x0) for before in past]
    return _exponential(x, x0, at, to, nodes)


def _corrected(schedule: Schedule, x0: Tensor, past: Past, at: Level) -> Tensor:
    """x_t by the step that led to it, the polynomial now running through x̂_0(t) as well."""
    last, *older = past
    before = schedule.level(last.t)
    h = before.rise(at)
    nodes = [(-schedule.level(e.t).rise(before) / h, e.x0) for e in older]
    return _exponential(last.x, last.x0, before, at, [*nodes, (1.0, x0)])


def _exponential(
    x: Tensor, x0: Tensor, at: Level, to: Level, nodes: Sequence[tuple[float, Tensor]]
) -> Tensor:
    """x_s by the polynomial in λ through x̂_0 at r = 0 and the values at the nodes r."""
    nodes = [(r, value) for r, value in nodes if math.isfinite(r)]
    weights = _weights([r for r, _ in nodes], _decay_moments(at.rise(to), len(nodes)))
    x = transfer(x, x0, at, to)
    for w, (_, value) in zip(weights, nodes):
        x = x + to.alpha * w * (value - x0)
    return x


def _weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """w with Σ_j w_j r_j^k = m_k for k = 1 … n, n the number of nodes and of moments."""
    powers = np.arange(1, len(nodes) + 1)[:, None]
    return np.linalg.solve(np.array(nodes, dtype=float) ** powers, np.array(moments)).tolist()


def _decay_moments(h: float, count: int) -> list[float]:
    """∫_0^1 h e^(−h(1−r)) r^k dr for k = 1 … count; a lone one is its approximation by B_2."""
    moment = -math.expm1(-h)  # k = 0
    if count == 1:
        return [moment / 2]
    moments = []
    for k in range(1, count + 1):
        moment = 1 - k / h * moment  # by parts
        moments.append(moment)
    return moments


_GAUSS = np.array(np.polynomial.legendre.leggauss(16)) / 2
_POINTS, _MASSES = _GAUSS[0] + 0.5, _GAUSS[1]  # of Gauss' quadrature on [0, 1]


def _ratio_moments(schedule: Schedule, t: float, s: float, count: int) -> list[float]:
    """∫ r^k dρ for k = 1 … count over the step from t, r = 0, to s, r = 1."""
    alpha, sigma = schedule(torch.from_numpy(t + _POINTS * (s - t)))
    end = schedule.level(s)
    # By parts, so that no derivative of ρ is needed:  k ∫ r^(k−1) (ρ_s − ρ) dr.
    rest = end.sigma / end.alpha - (sigma / alpha).numpy()
    return [k * float(_MASSES @ (_POINTS ** (k - 1) * rest)) for k in range(1, count + 1)]


def _noise(estimate: Estimate, level: Level) -> Tensor:
    """ε̂ = (x_t − α_t x̂_0)/σ_t."""
    return (estimate.x - level.alpha * estimate.x0) / level.sigma
