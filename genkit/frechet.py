"""How far one set of pictures is from another, by the features of a network that reads them.

Both sets become points in feature space. With means μ, ν and covariances A, B of the two clouds,

    FD  = ‖μ − ν‖² + tr(A + B − 2 (A^½ B A^½)^½)         the Fréchet distance of two Gaussians
    KD  = E k(x, x') + E k(y, y') − 2 E k(x, y)          the kernel distance, x ≠ x', y ≠ y',
          k(x, y) = (xᵀy/D + 1)³                         unbiased: it may be a little below 0

FD with the features of Inception is the FID of papers. Ours are those of a checkpoint of this
repository (`Reader.features`), so its unit is its own and only distances by the same reader and of
the same number of pictures may be compared. FD of finite sets is biased upwards: a distance means
something beside the floor, the distance of real pictures from other real pictures.

References:
    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel
        et al., 2017; the Fréchet distance of features)
        https://arxiv.org/abs/1706.08500
    Demystifying MMD GANs (Bińkowski et al., 2018; the kernel distance and the bias of FD)
        https://arxiv.org/abs/1801.01401
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genkit.data.picturebook.source import to_unit
from genkit.models.reader import Reader

__all__ = ["features", "frechet_distance", "kernel_distance"]

BATCH = 250


@torch.no_grad()
def features(reader: Reader, pictures: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
    """The features of pictures, float64 on the processor."""
    weight = next(reader.parameters())
    found = [
        reader.features(to_unit(some).to(weight.device, weight.dtype))
        for some in pictures.split(BATCH)
    ]
    return torch.cat(found).to("cpu", torch.float64)


def frechet_distance(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> float:
    """FD of the Gaussians with the means and covariances of two clouds.

    Raises:
        ValueError: A cloud has fewer than two points, or a point is not finite.
    """
    _check(x, y)
    root = _root(x.T.cov())
    # Eigenvalues of A^½ B A^½, a symmetric matrix: no square root of AB, which is none.
    shared = torch.linalg.eigvalsh(root @ y.T.cov() @ root).clamp(min=0).sqrt().sum()
    apart = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    spread = x.var(dim=0).sum() + y.var(dim=0).sum()
    return (apart + spread - 2 * shared).item()


def kernel_distance(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> float:
    """KD of two clouds, over all pairs of points.

    Raises:
        ValueError: A cloud has fewer than two points, or a point is not finite.
    """
    _check(x, y)
    within = sum(_others(_kernel(cloud, cloud)) for cloud in (x, y))
    return (within - 2 * _kernel(x, y).mean()).item()


def _kernel(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _others(k: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    """The mean of a matrix without its diagonal."""
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


def _root(covariance: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """The symmetric square root; rounding may have made small eigenvalues negative."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _check(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> None:
    for cloud in (x, y):
        if len(cloud) < 2:
            raise ValueError(f"{len(cloud)} pictures have no covariance: give at least 2")
        if not bool(cloud.isfinite().all()):
            raise ValueError("a feature is not finite: the pictures or the reader are broken")
