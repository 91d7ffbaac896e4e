"""Measures of pixel models, on tiny networks and against what they are made of."""

import pytest
import torch

from genkit import pixels
from genkit.data.picturebook.scene import LABELS, SPLITS, Scene
from genkit.data.picturebook.source import to_unit
from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.guide import Clipped
from genkit.diffusion.likelihood import terms, total
from genkit.diffusion.sample import DDPM, noise
from genkit.diffusion.schedule import LinearBeta
from genkit.diffusion.variance import LearnedVariance, Narrow, Wide
from genkit.distributions import Categorical
from genkit.evaluate import evaluate
from genkit.models.classifier import NoisyClassifier, class_of
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.models.reader import Reader

SHORT = LinearBeta(beta_start=0.01, beta_end=0.5, T=8)
SMALL = {"channels": (16, 16, 16), "blocks": (1, 1, 1), "heads": 1, "dim": 16}


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path) -> None:
    for name, value in {"THREADS": "1", "DEVICE": "cpu", "CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(f"GENKIT_{name}", value)


@pytest.fixture()
def models(monkeypatch) -> dict[str, torch.nn.Module]:
    """The checkpoints by name, tiny and untrained."""
    torch.manual_seed(0)
    small = (16, 16, 16)
    known = {
        "plain": PixelDiffusion(Denoiser(PixelUNet(**SMALL), SHORT, Epsilon())),
        "learned": PixelDiffusion(LearnedVariance(PixelUNet(**SMALL, out=6), SHORT, Epsilon())),
        pixels.CLASSIFIER: NoisyClassifier(SHORT, small, (1, 1, 1), heads=1, dim=16),
        pixels.READER: Reader(small, (1, 1, 1), dim=16, heads=2, patches=(2, 2, 2), size=32),
    }
    for model in known.values():
        model.eval().requires_grad_(False)
    monkeypatch.setattr(pixels, "exact", known.__getitem__)
    monkeypatch.setattr(pixels, "STEPS", 2)
    return known


def test_real_pictures_are_the_scenes_of_their_split():
    pictures, labels = pixels.real("test", 3, 5)
    scenes = [Scene.random(seed) for seed in SPLITS["test"][5:8]]
    for picture, label, scene in zip(pictures, labels, scenes, strict=True):
        assert picture.permute(1, 2, 0).numpy().tobytes() == scene.render(32).tobytes()
        row = torch.tensor([[scene.labels()[name] for name in LABELS]])
        assert label == class_of(row)[0]


def test_a_drawn_picture_is_that_of_its_seed_and_class(models, monkeypatch):
    model, labels = models["plain"], torch.tensor([3, 16, 0, 7, 1])
    monkeypatch.setattr(pixels, "BATCH", 2)  # the last batch is not full
    found = pixels.draw(model, model.denoiser, labels, DDPM(), 4)
    rngs = [torch.Generator().manual_seed(4)]
    x = noise(rngs, (3, 32, 32)) * SHORT.level(1.0).sigma
    alone = DDPM()(Clipped(model.denoiser), x, 4, {"label": labels[4:]}, rngs)
    apart = to_unit(found[4:]) - alone.clamp(-1, 1)
    assert len(found) == 5 and apart.abs().max() < 2 / 255


def test_the_bound_is_the_mean_of_the_pictures_bounds(models):
    for name in ("plain", "learned"):
        model = models[name]
        value, details = pixels.bound(model, 3, 0)
        assert set(details) == {"variance β", "variance β̃", "standard error"}
        x0 = to_unit(pixels.real("test", 3, 0)[0])
        cond = model.condition([None] * 3)
        ways = {"": model.denoiser, "variance β": Wide(model.denoiser)}
        ways["variance β̃"] = Narrow(model.denoiser)
        for key, way in ways.items():
            rngs = [torch.Generator().manual_seed(i) for i in range(3)]
            expected = total(terms(way, x0, rngs, cond)).bits.double().mean().item()
            assert (details[key] if key else value) == pytest.approx(expected, rel=1e-6)


def test_the_share_of_asked_classes_is_what_the_reader_says(models, monkeypatch):
    """A reader that sees one class everywhere finds it in one picture of sixteen."""
    reader = models[pixels.READER]
    kinds = {name: (c, 0) for name, c in {"ground": 4, "time": 4}.items()}
    monkeypatch.setattr(reader, "forward", lambda x: _certain(len(x), kinds))
    value, shares = pixels.classes(models["plain"], 32, 0)
    assert value == 1 / 16 and set(shares.values()) == {1 / 16}
    assert [name for name in shares if "free" not in name] == [
        f"classifier {scale:g}" for scale in pixels.SCALES
    ]


def _certain(count: int, kinds: dict[str, tuple[int, int]]) -> dict[str, Categorical]:
    answers = {}
    for name in LABELS:
        classes, sure = kinds.get(name, (2, 0))
        logits = torch.zeros(count, classes)
        logits[:, sure] = 9
        answers[name] = Categorical(logits)
    return answers


def test_a_distance_has_a_floor_and_euler_beside_it(models):
    model = models["plain"]
    value, details = pixels.frechet(model, 12, 0)
    assert (value, details) == pixels.frechet(model, 12, 0)
    assert 0 < details["floor"] < value  # an untrained network draws noise
    assert details["of Euler's"] == value / details["Euler"]


def test_a_classifier_that_knows_nothing_is_right_by_chance(models):
    value, shares = pixels.noisy_classes(models[pixels.CLASSIFIER], 64, 0)
    assert len(shares) == len(pixels.TIMES) and 0 <= value <= 0.4
    assert value == pytest.approx(sum(shares.values()) / len(shares))


@pytest.mark.parametrize("metric", ["frechet", "bound", "classes", "noisy-classes"])
def test_a_metric_refuses_other_families(models, metric):
    with pytest.raises(ValueError, match=f"{pixels.READER} is no .*, which {metric} measures"):
        evaluate(pixels.READER, metric, n=2)
    if metric != "noisy-classes":
        report = evaluate("plain", metric, n=16)
        assert report.n == 16 and report.metric == metric and report.details
