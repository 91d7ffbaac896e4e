"""One ruler for every family: tiny models, against what their numbers are made of."""

import json
import math

import pytest
import torch

from genkit import families, pixels
from genkit.data.picturebook.source import to_uint8, to_unit
from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.schedule import LinearBeta
from genkit.distributions import Gaussian
from genkit.evaluate import evaluate
from genkit.frechet import features, frechet_distance, kernel_distance
from genkit.model import Samples
from genkit.models.autoencoder import DeterministicAutoencoder
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.models.hvae import HVAE
from genkit.models.reader import Reader
from genkit.models.vae import VAE, Level, iwae, parts
from genkit.quality import precision_recall, sharpness

SMALL = {"widths": (16, 16, 16), "encoder": (1, 1, 1), "decoder": (1, 1, 1)}
LADDER = {"channels": (3, 2, 2), "counts": (1, 2, 1), "widths": (16, 16, 16)}
N = 12


@pytest.fixture()
def models(monkeypatch, tmp_path) -> dict[str, torch.nn.Module]:
    """The checkpoints by name, tiny, with weights of chance."""
    for name, value in {"THREADS": "1", "DEVICE": "cpu", "CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(f"GENKIT_{name}", value)
    torch.manual_seed(0)
    net = PixelUNet((16, 16, 16), (1, 1, 1), heads=1, dim=16)
    chain = LinearBeta(beta_start=0.01, beta_end=0.5, T=8)
    known = {
        "plain": DeterministicAutoencoder(channels=2, **SMALL),
        "vae": VAE(channels=2, mixture=2, **SMALL),
        "hvae": HVAE(encoder=(1, 1, 1), mixture=2, **LADDER),
        "diffusion": PixelDiffusion(Denoiser(net, chain, Epsilon())),
        pixels.READER: Reader((16, 16, 16), (1, 1, 1), 16, 2, 2, 4, (2, 2, 2), size=32),
    }
    for model in known.values():
        for values in model.parameters():
            if not values.any():  # a fresh net says nothing
                torch.nn.init.normal_(values, std=0.05)
        model.eval().requires_grad_(False)
    monkeypatch.setattr(pixels, "exact", known.__getitem__)
    monkeypatch.setattr("genkit.evaluate.hub.load", known.__getitem__)
    return known


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "vae", "hvae"])
def test_drawn_pictures_are_measured_by_every_ruler(models, name, monkeypatch):
    monkeypatch.setattr(pixels, "BATCH", 5)  # the last batch is not full
    report = evaluate(name, "unconditional", N, seed=2)
    drawn = to_uint8(models[name].sample(generators(N)))
    assert (families.sampled(models[name], N).int() - drawn.int()).abs().max() <= 1
    drawn, test = families.sampled(models[name], N), pixels.real("test", N, 2)[0]
    real = pixels.real("validation", N, 2)[0]
    x, y, z = (features(models[pixels.READER], some) for some in (drawn, test, real))
    assert report.value == frechet_distance(x, y)
    assert report.details == {
        "floor": frechet_distance(z, y),
        "kernel": kernel_distance(x, y),
        "kernel of real": kernel_distance(z, y),
        "precision": precision_recall(y, x)[0],
        "precision of real": precision_recall(y, z)[0],
        "recall": precision_recall(y, x)[1],
        "recall of real": precision_recall(y, z)[1],
        "sharpness": sharpness(drawn, test),
        "sharpness of real": sharpness(real, test),
    }
    assert 0 < report.details["floor"] < report.value and report.kind is None


def test_every_family_of_the_ruler_draws(models):
    assert all(isinstance(models[name], Samples) for name in ("plain", "vae", "hvae"))
    assert not isinstance(models[pixels.READER], Samples)


# --- what a picture costs -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_the_bound_is_the_mean_of_the_pictures_parts(models, name, monkeypatch):
    monkeypatch.setattr(families, "SOME", 3)
    model, unit = models[name], 3072 * math.log(2)
    report = evaluate(name, "bound", 5, seed=1)
    x = to_unit(pixels.real("test", 5, 1)[0])
    found = parts(model(x, generators(5)), x)
    assert report.value == pytest.approx(found.bits.mean().item(), rel=1e-5)
    for part, nats in found.parts.items():
        assert report.details[part] == pytest.approx(nats.mean().item() / unit, rel=1e-5)
    assert set(model.levels) < set(report.details)
    assert sum(report.details[part] for part in found.parts) == pytest.approx(report.value)
    spread = found.bits.std().item() / 5**0.5
    assert report.details["standard error"] == pytest.approx(spread, rel=1e-3)
    assert report.details["first 3"] == pytest.approx(found.bits[:3].mean().item(), rel=1e-5)
    tight = iwae(model, x[:3], families.DRAWS, generators(3)).mean().item() / unit
    assert report.details["first 3, 16 draws"] == pytest.approx(tight, rel=1e-5)
    assert tight < report.details["first 3"]
    assert report.kind == report.json()["kind"] == "bound"


def test_a_plain_autoencoder_has_no_bits():
    report_value, details = families.bound(DeterministicAutoencoder(channels=2, **SMALL), 3, 0)
    assert report_value is None and details == {}


def test_what_is_undefined_is_no_number_in_json_either(models):
    report = evaluate("plain", "bound", 3)
    text = json.dumps(report.json(), allow_nan=False)
    assert json.loads(text) == {
        "name": "plain",
        "metric": "bound",
        "value": None,
        "n": 3,
        "kind": "undefined",
    }


def test_diffusion_keeps_its_own_bound(models):
    report = evaluate("diffusion", "bound", 2)
    assert report.kind == "bound"
    assert (report.value, report.details) == pixels.bound(models["diffusion"], 2, 0)


# --- units --------------------------------------------------------------------------------------


class Known(VAE):
    """A code of two levels: of 3 units one varies, of 2 units one more than its prior."""

    def encode(self, x, rngs=None) -> tuple[Level, ...]:
        pixel = x[:, :1, :1, :1]
        zero, one = torch.zeros_like(pixel), torch.ones_like(pixel)
        top = Gaussian(torch.cat((pixel, zero, zero), 1), torch.cat((one, one, one / 2), 1))
        flat = Gaussian(torch.zeros_like(top.mean), torch.ones_like(top.mean))
        prior = Gaussian(torch.cat((3 * pixel, zero), 1), torch.cat((2 * one, one), 1))
        same = Gaussian(prior.mean + torch.cat((zero, 5 * pixel), 1), prior.std)
        return (Level("a", flat, top, top.mean), Level("b", prior, same, same.mean))


def test_a_unit_that_only_follows_its_prior_is_not_active(models):
    value, found = families.units(Known(channels=2, mixture=2, **SMALL), 8, 0)
    assert value == 2 and found["units"] == 5
    assert (found["a active"], found["a units"]) == (1, 3)
    assert (found["b active"], found["b units"]) == (1, 2)
    # KL of N(0, ¼) from N(0, 1) is known; so are those of shifted means.
    pixel = to_unit(pixels.real("test", 8, 0)[0])[:, 0, 0, 0].double()
    half = (0.25 - 1) / 2 + math.log(2)
    shifted = pixel.square().mean().item() / 2
    assert found["a nats"] == pytest.approx(shifted + half, rel=1e-5)
    assert found["b nats"] == pytest.approx(25 * shifted, rel=1e-5)
    assert found["mean nats of a unit"] == pytest.approx((26 * shifted + half) / 5, rel=1e-5)
    assert found["above 0.01 nats"] == pytest.approx(3 / 5)


@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_units_cost_what_the_bound_says(models, name):
    unit = 3072 * math.log(2)
    report, costs = evaluate(name, "units", 6), evaluate(name, "bound", 6)
    for level in models[name].levels:
        nats = report.details[f"{level} nats"]
        assert nats == pytest.approx(costs.details[level] * unit, rel=1e-4)
    assert 0 <= report.value <= report.details["units"]


# --- all metrics --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "vae", "hvae"])
def test_psnr_of_small_pictures_is_that_of_the_mean(models, name):
    pictures = pixels.real("test", 3, 4)[0]
    answer = models[name](to_unit(pictures))
    again = to_uint8((answer if name == "plain" else answer.picture).mean)
    errors = (again.double() - pictures.double()).square().mean(dim=(1, 2, 3))
    expected = (10 * (255**2 / errors).log10()).mean().item()
    assert evaluate(name, "psnr", 3, seed=4).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["plain", "vae", "hvae"])
def test_the_same_seed_gives_the_same_numbers_exactly(models, name):
    metrics = ["unconditional", "bound", "psnr"] + ["units"] * (name != "plain")
    for metric in metrics:
        first = evaluate(name, metric, 6, seed=3).json()
        torch.rand(5)  # what else draws in this process does not matter
        assert evaluate(name, metric, 6, seed=3).json() == first
        assert name == "plain" or evaluate(name, metric, 6, seed=4).json() != first


@pytest.mark.parametrize("metric", ["unconditional", "bound", "units"])
def test_other_families_are_refused(models, metric):
    with pytest.raises(ValueError, match=f"{pixels.READER} is no .*, which {metric} measures"):
        evaluate(pixels.READER, metric, n=6)
    if metric == "units":
        with pytest.raises(ValueError, match="plain is no VAE or HVAE, which units measures"):
            evaluate("plain", metric, n=6)


def test_errors_tell_the_remedy(models, monkeypatch):
    with pytest.raises(ValueError, match="3 pictures have no neighbour number 3: give at least 4"):
        evaluate("vae", "unconditional", n=3)
    with pytest.raises(ValueError, match="16²; the ruler knows 32²: choose a checkpoint book32_"):
        families.sampled(VAE(channels=2, mixture=2, size=16, **SMALL), 2)
    monkeypatch.setattr(models["vae"], "sample", lambda rngs: torch.full((2, 3, 32, 32), math.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        families.sampled(models["vae"], 2)
