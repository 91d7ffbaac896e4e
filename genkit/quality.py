"""How good a set of drawn pictures is, part by part: what one distance mixes up.

Precision and recall. Points of feature space; r_k(x) is the distance of x from its k-th nearest
other point of its own set, and the balls around all points are the manifold of the set:

    M(X) = { y : ‖y − x‖ ≤ r_k(x) for some x ∈ X }
    precision = share of the drawn in M(real)          are they possible?      (quality)
    recall    = share of the real in M(drawn)          are they all there?     (variety)

Sharpness. With the orthonormal cosine transform c_uv of a picture's channels, u, v = 0 … N − 1
(its mirrored continuation has no edge where it wraps round, and Nyquist's frequency is N),

    share(X)  = Σ_{ρ > N/2} E c_uv² / Σ_{ρ > 0} E c_uv²,      ρ = √(u² + v²),   E over X, channels
    sharpness = share(drawn)/share(real)               1: as sharp as real; below: blurred

The mean of a picture has no part in it, nor has its contrast. White noise has every c_uv alike:
its share is the number of frequencies with ρ > N/2 over N² − 1, about 0.8.

Units of a latent code. Unit j, with posterior N(μ_j(x), σ_j²(x)) and prior N(m_j, s_j²), is active
where Var_x[(μ_j(x) − m_j)/s_j] > 0.01. Of a prior N(0, 1) that is the criterion of Burda et al.;
the units of a hierarchy are measured against the prior that the levels above them give, which
moves with the picture, too.

Conventions
    Everything is float64 on the processor, has no randomness, and takes memory O(N), not O(N²).

References:
    Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al.,
        2019), equations 1 and 2
        https://arxiv.org/abs/1904.06991
    Importance Weighted Autoencoders (Burda et al., 2016), section 5.2 (active units)
        https://arxiv.org/abs/1509.00519
"""

import math

import torch
from jaxtyping import Bool, Float, Real, UInt8
from torch import Tensor

__all__ = ["active_units", "precision_recall", "sharpness", "spectrum"]

ROWS = 250
"""Points or pictures at a time."""
ACTIVE = 0.01
"""Variance above which a unit is active (Burda et al.)."""


def precision_recall(
    real: Float[Tensor, "N D"], drawn: Float[Tensor, "M D"], k: int = 3
) -> tuple[float, float]:
    """Share of the drawn points within the manifold of the real ones, and the reverse.

    Args:
        real: Features of real pictures.
        drawn: Features of drawn pictures.
        k: Which neighbour reaches as far as a ball; the paper's 3.

    Raises:
        ValueError: k is not positive, a set has no k-th neighbour, or a point is not finite.
    """
    if k < 1:
        raise ValueError(f"k = {k}: the nearest neighbour is number 1; choose 1 or more, say 3")
    for points in (real, drawn):
        if len(points) <= k:
            raise ValueError(
                f"{len(points)} pictures have no neighbour number {k}: give at least {k + 1}"
            )
        if not bool(points.isfinite().all()):
            raise ValueError("a feature is not finite: the pictures or the reader are broken")
    real, drawn = real.cpu().double(), drawn.cpu().double()
    return _covered(drawn, real, k), _covered(real, drawn, k)


def _covered(points: Float[Tensor, "M D"], others: Float[Tensor, "N D"], k: int) -> float:
    """Share of the points within the manifold of the others."""
    # The nearest to a point is itself, at 0.
    radius = torch.cat([_distance(x, others).kthvalue(k + 1).values for x in others.split(ROWS)])
    inside = [(_distance(x, others) <= radius).any(dim=1) for x in points.split(ROWS)]
    return torch.cat(inside).double().mean().item()


def _distance(x: Float[Tensor, "A D"], y: Float[Tensor, "B D"]) -> Float[Tensor, "A B"]:
    # Not by ‖x‖² + ‖y‖² − 2xᵀy, in which equal points are not at the distance 0.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def sharpness(pictures: UInt8[Tensor, "N C S S"], real: UInt8[Tensor, "M C S S"]) -> float:
    """The share of high frequencies in pictures over that in real ones.

    Raises:
        ValueError: A set is empty or has no contrast at all, or the real pictures no detail.
    """
    shares = [_fine_share(spectrum(some)) for some in (pictures, real)]
    if shares[1] == 0:
        raise ValueError("the real pictures have no energy at high frequencies: give others")
    return shares[0] / shares[1]


def spectrum(pictures: Real[Tensor, "N C S S"]) -> Float[Tensor, "S S"]:
    """E c_uv²: the mean energy of each frequency of the cosine transform; row u is vertical.

    Raises:
        ValueError: There is no picture.
    """
    if not len(pictures):
        raise ValueError("there is no picture: give at least 1")
    side = pictures.shape[-1]
    place = torch.arange(side, dtype=torch.float64, device="cpu")
    basis = (math.pi / side * place[:, None] * (place + 0.5)).cos() * (2 / side) ** 0.5
    basis[0] /= 2**0.5
    found = torch.zeros(side, side, dtype=torch.float64, device="cpu")
    for some in pictures.split(ROWS):
        found += (basis @ some.cpu().double() @ basis.T).square().mean(dim=1).sum(dim=0)
    return found / len(pictures)


def _fine_share(energy: Float[Tensor, "S S"]) -> float:
    """Energy above half of Nyquist's frequency over all of it but the mean's."""
    place = torch.arange(len(energy), dtype=torch.float64, device="cpu")
    radius = torch.hypot(place[:, None], place)
    whole = energy[radius > 0].sum()
    if whole <= 1e-9 * energy[0, 0]:
        raise ValueError("the pictures have no contrast, so no share of it is fine: give others")
    return (energy[radius > len(energy) / 2].sum() / whole).item()


def active_units(means: Float[Tensor, "N *S"], threshold: float = ACTIVE) -> Bool[Tensor, "*S"]:
    """Which units of a code say something about the picture.

    Args:
        means: (μ − m)/s of every picture: what the posterior adds to the prior. With a prior
            N(0, 1), the posterior's means.
        threshold: Of their variance over the pictures.

    Raises:
        ValueError: There are fewer than two pictures, or a mean is not finite.
    """
    if len(means) < 2:
        raise ValueError(f"{len(means)} pictures have no variance: give at least 2")
    if not bool(means.isfinite().all()):
        raise ValueError("a posterior mean is not finite: the pictures or the model are broken")
    return means.double().var(dim=0) > threshold
