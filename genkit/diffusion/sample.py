"""Samplers: from noise to data, one pure step at a time.

With x̂_0 the mean of the denoiser at (x_t, t) and ε̂ = (x_t − α_t x̂_0)/σ_t, a step goes from t to
an earlier s < t. Here are those that need nothing of earlier steps; `multistep` has the others,
`trajectory` the loop and the protocol, and this module names them all.

    DDPM             x_s ~ q(x_s | x_t, x_0 = x̂_0), ancestral, small variance   order 1, random
    DDIM(η)          α_s x̂_0 + √(σ_s² − τ²) ε̂ + τ z,  τ = η·std of the above    order 1
    Euler            of the probability-flow ODE                                 order 1
    EulerAncestral   Euler to less noise than at s, then fresh noise             order 1, random
    Heun             the trapezoidal rule, two evaluations a step                order 2

    DPMPP2M          the exponential integrator in λ through two x̂_0            order 2
    DPMPP2MSDE(η)    the same for the reverse SDE                                order 2, random
    DPMPP3M          through three                                               order 3
    UniPC(p)         through p, and each step corrected by the next              order p + 1
    DEIS(p)          the exponential integrator in ρ through p values of ε̂      order p
    IPNDM(p)         Adams-Bashforth with the coefficients of equal steps        order 2 … p

Conventions
    `step` is pure: what it needs of earlier steps comes in as `past` and goes out as the new one;
    a sampler holds nothing but its settings, so any number of trajectories may share it. For the
    rest see `trajectory`.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.multistep import DEIS, DPMPP2M, DPMPP2MSDE, DPMPP3M, IPNDM, UniPC
from genkit.diffusion.schedule import Level
from genkit.diffusion.trajectory import (
    Estimate,
    Past,
    Rngs,
    Sampler,
    State,
    levels,
    noise,
    predict,
    stir,
    transfer,
)

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPMPP2M",
    "DPMPP2MSDE",
    "DPMPP3M",
    "Estimate",
    "Euler",
    "EulerAncestral",
    "Heun",
    "IPNDM",
    "Past",
    "Rngs",
    "Sampler",
    "State",
    "UniPC",
    "noise",
]


@dataclass(frozen=True, kw_only=True)
class DDPM(Sampler):
    """Ancestral sampling with the posterior of the forward chain and its fixed small variance.

    x_s = (a σ_s²/σ_t²) x_t + (α_s v/σ_t²) x̂_0 + (σ_s √v/σ_t) z

    with a = α_t/α_s and v = σ_t² − a² σ_s², the variance of x_t given x_s.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), equations 6 and 7
            https://arxiv.org/abs/2006.11239
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
        v = at.variance(to)
        keep = at.alpha / to.alpha * (to.sigma / at.sigma) ** 2
        x = keep * x + to.alpha * v / at.sigma**2 * x0
        return stir(x, to.sigma / at.sigma * v**0.5, rngs), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class DDIM(Sampler):
    """The implicit sampler: η = 0 is deterministic, η = 1 is DDPM.

    x_s = α_s x̂_0 + √(σ_s² − τ²) ε̂ + τ z,      τ = η (σ_s/σ_t) √(σ_t² − (α_t/α_s)² σ_s²)

    Args:
        eta: η in [0, 1], how much of the noise is drawn anew.

    Raises:
        ValueError: η is outside [0, 1].

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), equations 12 and 16
            https://arxiv.org/abs/2010.02502
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; it must lie between 0 (no noise) and 1 (DDPM)")

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
        tau = self.eta * to.sigma / at.sigma * at.variance(to) ** 0.5
        keep = max(to.sigma**2 - tau**2, 0.0) ** 0.5 / at.sigma  # of x_t, inside ε̂
        x = keep * x + (to.alpha - keep * at.alpha) * x0
        return stir(x, tau, rngs), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class Euler(Sampler):
    """Euler's rule for the probability-flow ODE.

    With y = x/α and ρ = σ/α the ODE is dy/dρ = ε̂ (Karras et al.), with z = x/(α + σ) and
    u = σ/(α + σ) it is dz/du = ε̂ − x̂_0 (rectified flow). A step of either is the same map,

    x_s = α_s x̂_0 + σ_s ε̂,

    which is DDIM with η = 0 on every schedule, and is finite at α = 0.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
            https://arxiv.org/abs/2206.00364
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
        return transfer(x, x0, at, to), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class EulerAncestral(Sampler):
    """Euler's rule to less noise than there is at s, and fresh noise up to s.

    With y = x/α and ρ = σ/α,

    y_s = y_t + (ρ↓ − ρ_t) ε̂ + ρ↑ z,      ρ↑² = ρ_s² (1 − ρ_s²/ρ_t²),  ρ↓² = ρ_s² − ρ↑²

    so ρ↓ = ρ_s²/ρ_t. The noise that is added makes it an ancestor of x_t under the forward chain:
    this is DDIM with η = 1, and DDPM, on every schedule, and is finite at α = 0.

    References:
        k-diffusion, `sample_euler_ancestral` (Crowson, 2022)
            https://github.com/crowsonkb/k-diffusion
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
        fall = at.alpha * to.sigma / (to.alpha * at.sigma)  # ρ_s/ρ_t, 0 from α_t = 0
        x = transfer(x, x0, at, Level(to.alpha, to.sigma * fall))
        return stir(x, to.sigma * (1 - fall**2) ** 0.5, rngs), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class Heun(Sampler):
    """The trapezoidal rule for the probability-flow ODE in the coordinates of rectified flow.

    z = x/(α + σ),  u = σ/(α + σ),  dz/du = d(z, u) = ε̂ − x̂_0

    z' = z_t + (u_s − u_t) d(z_t, u_t),      z_s = z_t + (u_s − u_t) (d(z_t, u_t) + d(z', u_s))/2

    Karras et al. take σ/α for u: both are of second order, but u is bounded and stays finite where
    α = 0, where σ/α makes the first steps of a cosine schedule explode. The correction is skipped
    at σ_s = 0, where d is not defined; so n steps to t = 0 cost 2n − 1 evaluations.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models
            (Karras et al., 2022), algorithm 1
            https://arxiv.org/abs/2206.00364
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
        ahead = transfer(x, x0, at, to)
        if to.sigma == 0:
            return ahead, (Estimate(t, x0),)
        size_t, size_s = at.alpha + at.sigma, to.alpha + to.sigma
        # ε̂ − x̂_0 = (z − x̂_0)/u
        slope = (x / size_t - x0) * (size_t / at.sigma)
        slope_ahead = (ahead / size_s - predict(denoiser, ahead, s, cond)) * (size_s / to.sigma)
        du = to.sigma / size_s - at.sigma / size_t
        z = x / size_t + du / 2 * (slope + slope_ahead)
        return size_s * z, (Estimate(t, x0),)
