"""Rulers of sets of pictures: written out by hand, in closed form, and against torchmetrics."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from genkit import quality
from genkit.frechet import features, frechet_distance, kernel_distance
from genkit.models.reader import Reader
from genkit.quality import active_units, precision_recall, sharpness, spectrum


def cloud(seed: int, n: int = 40, dim: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=rng, dtype=torch.float64)


def noise(seed: int, n: int = 60) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, 32, 32), generator=rng, dtype=torch.uint8)


def blurred(pictures: Tensor) -> Tensor:
    x = nn.functional.pad(pictures.float(), (1, 1, 1, 1), mode="reflect")
    return nn.functional.avg_pool2d(x, 3, stride=1).round().to(torch.uint8)


# --- precision and recall -----------------------------------------------------------------------


def by_hand(real: np.ndarray, drawn: np.ndarray, k: int) -> tuple[float, float]:
    """Equations 1 and 2 of the paper, point by point."""

    def inside(point: np.ndarray, manifold: np.ndarray) -> bool:
        for i, centre in enumerate(manifold):
            others = np.delete(manifold, i, axis=0)
            radius = np.sort(np.sqrt(np.square(others - centre).sum(axis=1)))[k - 1]
            if np.sqrt(np.square(point - centre).sum()) <= radius:
                return True
        return False

    precision = np.mean([inside(point, real) for point in drawn])
    return float(precision), float(np.mean([inside(point, drawn) for point in real]))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_the_sums_of_the_paper(k, monkeypatch):
    monkeypatch.setattr(quality, "ROWS", 7)  # the last rows are not full
    real, drawn = cloud(0), 0.8 * cloud(1, 33) + 0.7
    found = precision_recall(real, drawn, k)
    assert found == pytest.approx(by_hand(real.numpy(), drawn.numpy(), k), abs=1e-12)
    assert all(0 < share < 1 for share in found)
    assert found[::-1] == precision_recall(drawn, real, k)


def test_equal_sets_cover_each_other_and_distant_ones_do_not():
    x = cloud(2)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x.flip(0)) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)


def test_a_mode_that_is_never_drawn_is_missing_from_the_recall():
    modes = [cloud(mode, 20) + 100 * mode for mode in range(4)]
    assert precision_recall(torch.cat(modes), torch.cat(modes[:3])) == (1.0, 0.75)
    assert precision_recall(torch.cat(modes[:3]), torch.cat(modes)) == (0.75, 1.0)


def test_moving_and_turning_both_sets_changes_nothing():
    real, drawn = cloud(3), cloud(4) + 0.5
    turn = torch.linalg.qr(cloud(5, 3)).Q
    there = precision_recall(5 * real @ turn + 3, 5 * drawn @ turn + 3)
    assert there == precision_recall(real, drawn)


def test_a_point_at_the_very_radius_is_inside():
    real = torch.tensor([[0.0], [1.0]])
    assert precision_recall(real, torch.tensor([[2.0], [2.5], [-1.0]]), k=1)[0] == 2 / 3


# --- sharpness ----------------------------------------------------------------------------------


def fine(side: int = 32) -> int:
    """Frequencies above half of Nyquist's, counted one by one."""
    return sum(u * u + v * v > side**2 / 4 for u in range(side) for v in range(side))


def test_a_point_at_every_place_has_the_flat_spectrum_of_white_noise():
    """Σ_p c_uv(δ_p)² = 1: no expectation is needed."""
    points = (255 * torch.eye(1024, dtype=torch.uint8)).view(1024, 1, 32, 32)
    flat = spectrum(points)
    torch.testing.assert_close(flat, torch.full_like(flat, 255**2 / 1024), rtol=1e-12, atol=0)
    # Vertical stripes of one pixel: u = 0, and all at odd v, most of it next to Nyquist.
    stripes = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    step = torch.arange(32, dtype=torch.float64) + 0.5
    energy = torch.tensor(
        [(np.pi * v / 32 * step).cos() @ stripes[0, 0, 0].double() for v in range(32)]
    )
    energy = energy[1:].square()
    share = (energy[16:].sum() / energy.sum()).item()
    assert sharpness(points, stripes) == pytest.approx(fine() / 1023 / share, rel=1e-10)


def test_white_noise_is_as_sharp_as_its_frequencies_are_many():
    points = (255 * torch.eye(1024, dtype=torch.uint8)).view(1024, 1, 32, 32)
    found = sharpness(noise(0), points.expand(-1, 3, -1, -1))
    # 180 channels of 1023 coefficients each: a standard error of about 0.1 % of the share.
    assert found == pytest.approx(1, abs=0.006)


def test_the_spectrum_keeps_the_energy_and_is_the_one_of_scipy():
    from scipy.fft import dctn

    pictures = noise(1, 5)
    expected = np.square(dctn(pictures.numpy().astype(float), axes=(2, 3), norm="ortho"))
    np.testing.assert_allclose(spectrum(pictures), expected.mean(axis=(0, 1)), rtol=1e-9)
    assert spectrum(pictures).sum() == pytest.approx(
        pictures.double().square().sum().item() / 15, rel=1e-12
    )


def test_blur_takes_sharpness_and_contrast_does_not():
    sharp = noise(2)
    once, twice = blurred(sharp), blurred(blurred(sharp))
    assert sharpness(sharp, sharp) == 1
    assert sharpness(twice, sharp) < sharpness(once, sharp) < 1 < sharpness(sharp, once)
    assert sharpness(sharp // 2, sharp) == pytest.approx(1, abs=1e-3)  # half of the contrast
    assert sharpness(sharp // 2 + 100, sharp // 2) == pytest.approx(1, rel=1e-12)  # brighter
    wave = 127 + 120 * (np.pi / 32 * 3 * (torch.arange(32) + 0.5)).cos()
    waves = wave.expand(1, 3, 32, 32).to(torch.uint8)
    assert sharpness(waves, sharp) < 1e-3


def test_rows_of_the_batch_do_not_matter(monkeypatch):
    expected = spectrum(noise(3))
    monkeypatch.setattr(quality, "ROWS", 7)
    torch.testing.assert_close(spectrum(noise(3)), expected, rtol=1e-12, atol=0)


# --- units --------------------------------------------------------------------------------------


def test_units_are_active_above_their_variance():
    x = cloud(6, 500)
    x = (x - x.mean(dim=0)) / x.std(dim=0)  # variance 1 exactly
    means = x * torch.tensor([0.0, 0.0999, 0.1001], dtype=torch.float64) + 5
    assert active_units(means.view(500, 3, 1)).tolist() == [[False], [False], [True]]
    assert active_units(means, threshold=1e-3).tolist() == [False, True, True]
    assert not active_units(torch.full((9, 2), 1e4)).any()  # far from zero, but always there


# --- the distances, against an independent library ----------------------------------------------


class Extractor(nn.Module):
    """Our reader as torchmetrics asks for it: bytes in, features out."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader((8, 8, 8), (1, 1, 1), 16, 1, 2, 4, (2, 2, 2), size=32).eval()
        self.num_features = 16

    def forward(self, pictures: Tensor) -> Tensor:
        return features(self.reader, pictures)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_distances_are_those_of_torchmetrics():
    torch.manual_seed(0)
    extractor, real, drawn = Extractor(), noise(4, 80), blurred(noise(5, 80))
    fid = FrechetInceptionDistance(feature=extractor).set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=extractor, subsets=1, subset_size=80)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(drawn, real=False)
    x, y = features(extractor.reader, drawn), features(extractor.reader, real)
    assert frechet_distance(x, y) == pytest.approx(fid.compute().item(), rel=1e-6)
    assert kernel_distance(x, y) == pytest.approx(kid.compute()[0].item(), rel=1e-9)
    assert frechet_distance(x, y) > 0


# --- bad input ----------------------------------------------------------------------------------


def test_errors_tell_the_remedy():
    x = cloud(0)
    for k in (0, -3):
        with pytest.raises(ValueError, match=f"k = {k}.*choose 1 or more"):
            precision_recall(x, x, k)
    for sets in ((x[:3], x), (x, x[:3])):
        with pytest.raises(ValueError, match="3 pictures have no neighbour number 3: give .* 4"):
            precision_recall(*sets)
    broken = x.clone()
    broken[1, 1] = torch.inf
    with pytest.raises(ValueError, match="a feature is not finite"):
        precision_recall(x, broken)
    with pytest.raises(ValueError, match="a posterior mean is not finite"):
        active_units(broken)
    with pytest.raises(ValueError, match="1 pictures have no variance: give at least 2"):
        active_units(x[:1])
    grey = torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)
    for sets in ((grey, noise(0)), (noise(0), grey), (0 * grey, noise(0))):
        with pytest.raises(ValueError, match="no contrast"):
            sharpness(*sets)
    with pytest.raises(ValueError, match="there is no picture"):
        spectrum(grey[:0])
