"""Learned variance: how sure a denoiser is, and how wide a step of the reverse chain is.

For an earlier s < t the forward chain has the posterior

    q(x_s | x_t, x_0) = N(keep x_t + give x_0, β̃),      a = α_t/α_s,  v = σ_t² − a² σ_s²,
    keep = a σ_s²/σ_t²,   give = α_s v/σ_t²,   β̃ = σ_s² v/σ_t²

and a denoiser that answers q(x_0 | x_t) = N(x̂_0, ς²) makes a reverse step of it by integration,

    p(x_s | x_t) = ∫ q(x_s | x_t, x_0) q(x_0 | x_t) dx_0 = N(keep x_t + give x̂_0, β̃ + give² ς²)

so the variance of the reverse process needs no interface of its own: it is the deviation of the
answer, and it holds for steps of every length. Its two published limits, on a chain with
α² + σ² = 1 and v = β:

    ς = 0      `Narrow`    β̃ + 0          = β̃,   right where the data are one point
    ς = σ_t    `Wide`      β̃ + give² σ_t² = β,   right where the data are N(0, I)

`LearnedVariance` interpolates between them, in ln Σ, by an output of the network. As the best
variance of a step is β̃ + give² Var(x_0 | x_t), what is learned is the deviation of the data given
x_t, averaged over the directions of one pixel.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), equations 6, 7 and section 3.2
        https://arxiv.org/abs/2006.11239
    Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), section 3.1
        https://arxiv.org/abs/2102.09672
    Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion Probabilistic
        Models (Bao et al., 2022), theorem 1
        https://arxiv.org/abs/2201.06503
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.denoise import (
    NOTHING,
    Condition,
    Denoiser,
    Denoises,
    Parametrization,
    Wrapper,
)
from genkit.diffusion.sample import Estimate, Past, Rngs, Sampler, noise
from genkit.diffusion.schedule import Discrete, spread
from genkit.distributions import Dirac, Distribution, Gaussian
from genkit.model import Model

__all__ = [
    "LearnedDDPM",
    "LearnedVariance",
    "Levels",
    "Narrow",
    "Posterior",
    "Replay",
    "Wide",
    "deviation",
    "earlier",
    "posterior",
]

Levels = tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]
"""(α, σ), as a schedule gives them; clean data are (1, 0)."""


class Posterior(NamedTuple):
    """Of q(x_s | x_t, x_0) = N(keep x_t + give x_0, variance), one of each per picture."""

    keep: Float[Tensor, "*B"]
    give: Float[Tensor, "*B"]
    variance: Float[Tensor, "*B"]


def posterior(at: Levels, to: Levels) -> Posterior:
    """The posterior of the forward chain at the levels `at` (of t) and `to` (of an earlier s).

    Give float64 levels: v is a small difference.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = at, to
    a = alpha_t / alpha_s
    v = (sigma_t.square() - (a * sigma_s).square()).clamp(min=0)
    ratio = (sigma_s / sigma_t).square()
    return Posterior(a * ratio, alpha_s * v / sigma_t.square(), ratio * v)


def earlier(schedule: Discrete, t: Float[Tensor, "B"]) -> Levels:
    """The levels one step of the chain before t: (1, 0), clean data, before the first step."""
    steps = len(schedule.betas()) - 1
    alpha, sigma = schedule((t - 1 / steps).clamp(min=0))
    first = t * steps < 0.5
    return torch.where(first, 1.0, alpha), torch.where(first, 0.0, sigma)


def deviation(answer: Distribution) -> Float[Tensor, "..."]:
    """ς of a denoiser's answer: 0 for a point estimate."""
    return answer.std if isinstance(answer, Gaussian) else torch.zeros_like(answer.mean)


class LearnedVariance(Model):
    """q(x_0 | x_t) = N(x̂_0, ς²): a denoiser whose backbone says F and, per element, a share w.

    The step of the chain from t gets the variance Σ of

        ln Σ = w ln β_t + (1 − w) ln β̃_t,      w = sigmoid(second half of the output),

    which is ς² = σ_t² (r^(1−w) − r)/(1 − r) with r = β̃_t/β_t. As published, β̃_1 = 0 is replaced by
    β̃_2 on that scale. The paper leaves w unbounded and finds it in [0, 1]; here the sigmoid
    keeps it there, because below 0 no q(x_0 | x_t) has such a step.

    Args:
        backbone: As of a `Denoiser`, but "B C H W" → "B 2C H W".
        schedule: A chain; its steps are what β and β̃ mean.
        parametrization: What the first half of the output means.

    Raises:
        TypeError: The schedule is no chain, or a condition is unknown to the backbone.
        ValueError: The backbone's output has not twice the channels of its input.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), equation 15
            https://arxiv.org/abs/2102.09672
    """

    passes: int = 1

    def __init__(
        self, backbone: Model, schedule: Discrete, parametrization: Parametrization
    ) -> None:
        super().__init__()
        if not isinstance(schedule, Discrete):
            raise TypeError(
                f"{type(schedule).__name__} has no steps whose variance could be learned; "
                "take a chain such as LinearBeta or Cosine"
            )
        self.denoiser = Denoiser(backbone, schedule, parametrization)
        self.schedule = schedule
        self.parametrization = parametrization

    def forward(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Gaussian:
        c = self.parametrization.coefficients(*self.schedule(t))
        output = self.denoiser.output(x_t, c, cond)
        if output.shape[1] != 2 * x_t.shape[1]:
            raise ValueError(
                f"the backbone says {output.shape[1]} channels of {x_t.shape[1]}; "
                "a learned variance needs twice as many"
            )
        F, share = output.chunk(2, dim=1)
        mean = spread(c.c_skip, x_t) * x_t + spread(c.c_out, x_t) * F
        return Gaussian(mean, self._std(share.sigmoid(), t))

    def _std(self, w: Float[Tensor, "B C H W"], t: Float[Tensor, "B"]) -> Float[Tensor, "B C H W"]:
        """ς of the shares w; expm1, because r is 0.999 at the end of a chain of 1,000."""
        sigma, to = self.schedule(t)[1], earlier(self.schedule, t)[1]
        r = (to / sigma).square()  # β̃/β
        clipped = torch.where(r == 0, _first_ratio(self.schedule).to(r), r)
        less = spread(clipped, w) * torch.expm1(-w * spread(clipped.log(), w))
        scale = sigma.square() / (1 - r)
        return ((less + spread(clipped - r, w)) * spread(scale, w)).sqrt()


@dataclass(frozen=True, eq=False)
class Narrow(Wrapper):
    """The answer of a denoiser as a point: a step's variance is β̃, the smaller one of DDPM.

    Args:
        denoiser: Its mean is kept.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), section 3.2
            https://arxiv.org/abs/2006.11239
    """

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Dirac:
        return Dirac(self.denoiser(x_t, t, cond).mean)


@dataclass(frozen=True, eq=False)
class Wide(Wrapper):
    """The answer of a denoiser with the deviation that unit data would leave: the variance β.

    ς² = σ²/(α² + σ²), the variance of x_0 ~ N(0, I) given x_t; on a chain a step's Σ is then β_t,
    the larger of the two variances of DDPM.

    Args:
        denoiser: Its mean is kept.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), section 3.2
            https://arxiv.org/abs/2006.11239
    """

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Gaussian:
        mean = self.denoiser(x_t, t, cond).mean
        alpha, sigma = self.schedule(t)
        std = spread(sigma / torch.hypot(alpha, sigma), x_t)
        return Gaussian(mean, std.expand_as(mean))


@dataclass(frozen=True, eq=False)
class Replay(Wrapper):
    """A denoiser that repeats what was said in the terms of a bound, without the network.

    Another variance needs the same means: `terms(Wide(Replay(denoiser, answers)), …)` with the
    same pictures and generators costs no evaluation.

    Args:
        denoiser: Whose times they are.
        answers: What it said at each time, about all the pictures.

    Raises:
        KeyError: It was not asked at a time.
    """

    answers: Mapping[float, Distribution]

    @property
    def passes(self) -> int:
        return 0

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        said = [self.answers[time] for time in dict.fromkeys(t.tolist())]
        mean = torch.cat([one.mean for one in said])
        if all(isinstance(one, Gaussian) for one in said):
            return Gaussian(mean, torch.cat([deviation(one) for one in said]))
        return Dirac(mean)


@dataclass(frozen=True, kw_only=True)
class LearnedDDPM(Sampler):
    """Ancestral sampling with the denoiser's own variance: x_s ~ p(x_s | x_t).

    x_s = keep x_t + give x̂_0 + √(β̃ + give² ς²) z;  `DDPM` where the answer has no deviation. The
    step to clean data draws nothing and returns x̂_0.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), section 3.1
            https://arxiv.org/abs/2102.09672
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
        answer = denoiser(x, torch.full((len(x),), t, dtype=torch.float64, device="cpu"), cond)
        x0 = answer.mean
        if s == 0:
            return x0, (Estimate(t, x0),)
        if rngs is None:
            raise ValueError(
                "this sampler draws noise: pass rngs, one torch.Generator per picture"
            )
        times = torch.tensor([t, s], dtype=torch.float64, device="cpu")
        alpha, sigma = denoiser.schedule(times)
        keep, give, variance = posterior((alpha[0], sigma[0]), (alpha[1], sigma[1]))
        std = (variance.item() + (give.item() * deviation(answer)).square()).sqrt()
        mean = keep.item() * x + give.item() * x0
        return mean + std * noise(rngs, x.shape[1:], x.dtype, x.device), (Estimate(t, x0),)


def _first_ratio(schedule: Discrete) -> Float[Tensor, ""]:
    """β̃_2/β_1, what stands for β̃_1/β_1 = 0 on a logarithmic scale."""
    first, second = schedule.betas()[:2]
    return second / (first + second - first * second)  # 1 − ᾱ_2 = β_1 + β_2 − β_1 β_2
