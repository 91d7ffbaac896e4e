"""Distances of sets of pictures: closed forms, an independent library, sums written out."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from genkit.data.picturebook.source import to_uint8, to_unit
from genkit.frechet import features, frechet_distance, kernel_distance
from genkit.models.reader import Reader


def cloud(seed: int, n: int = 60, dim: int = 5) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=rng, dtype=torch.float64)
    return x @ torch.randn(dim, dim, generator=rng, dtype=torch.float64) + seed


def whitened(n: int = 64, dim: int = 4) -> Tensor:
    """A cloud with mean 0 and covariance 1, to the last bit or so."""
    x = cloud(1, n, dim)
    x = x - x.mean(dim=0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov()).T)


def test_the_distance_of_aligned_gaussians_is_the_closed_form():
    x = whitened()
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    std = torch.tensor([0.1, 1.0, 2.0, 3.0], dtype=torch.float64)
    # ‖μ − ν‖² + Σ (σ_i − τ_i)²
    expected = shift.square().sum() + (std - 1).square().sum()
    assert frechet_distance(x, x * std + shift) == pytest.approx(expected.item(), rel=1e-10)


def test_the_distance_is_the_one_with_a_matrix_square_root():
    x, y = cloud(2), cloud(3, 80)
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = sqrtm(a @ b).real
    means = np.square(x.numpy().mean(0) - y.numpy().mean(0)).sum()
    assert frechet_distance(x, y) == pytest.approx(means + np.trace(a + b - 2 * root), rel=1e-9)


def test_the_distance_is_a_distance():
    x, y = cloud(4), cloud(5)
    turn = torch.linalg.qr(cloud(6, 5)).Q
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    # More features than pictures: a singular covariance.
    assert frechet_distance(cloud(7, 4, 9), cloud(8, 4, 9)) > 0


def test_the_kernel_distance_is_its_sums():
    x, y = cloud(9, 6, 3), cloud(9, 5, 3) + 0.5

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-10)


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average():
    rng = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 40, 3, generator=rng, dtype=torch.float64) for _ in range(400)]
    found = torch.tensor([kernel_distance(x, y) for x, y in draws], dtype=torch.float64)
    assert abs(found.mean()) < 4 * found.std() / 400**0.5 and found.min() < 0


def test_worse_pictures_are_farther():
    """Whatever the reader has learned: here, nothing."""
    reader = Reader((8, 16, 16), (1, 1, 1), dim=16, heads=2, patches=(2, 2, 2), size=32).eval()
    rng = torch.Generator().manual_seed(0)
    smooth = torch.randn(2, 120, 3, 4, 4, generator=rng).clamp(-1, 1)
    real, other = torch.nn.functional.interpolate(smooth.flatten(0, 1), size=32).chunk(2)

    def distance(noise: float) -> float:
        x = to_uint8(other + noise * torch.randn(other.shape, generator=rng))
        return frechet_distance(features(reader, x), features(reader, to_uint8(real)))

    assert distance(0.0) < distance(0.2) < distance(0.5)
    found = features(reader, to_uint8(real))
    assert found.shape == (120, 32) and found.dtype == torch.float64
    one = reader.features(to_unit(to_uint8(real[:1])))
    torch.testing.assert_close(found[:1], one.double(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_errors_tell_the_remedy(distance):
    with pytest.raises(ValueError, match="1 pictures have no covariance: give at least 2"):
        distance(cloud(1), cloud(2, 1))
    broken = cloud(1)
    broken[3, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        distance(broken, cloud(2))
