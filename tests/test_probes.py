"""Probes: known answers, chance where nothing is known, and another library's ridge."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import config
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from genkit import evaluate as evaluation
from genkit import spaces
from genkit.data.picturebook.scene import LABELS, SPLITS, Scene
from genkit.data.picturebook.source import label_tensor, to_unit
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder
from genkit.models.reader import Reader
from genkit.models.text import train_vocabulary
from genkit.models.vae import VAE
from genkit.probes import (
    CONTEXT,
    RIDGES,
    agreement,
    content,
    context,
    elsewhen,
    identity,
    linear_probe,
    neighbours,
    recall,
    structure,
    vectors,
)

SCENES = [Scene.random(seed) for seed in range(600)]
LABELLED = label_tensor(SCENES)
ORDER = list(LABELS)


def one_hot(names: list[str], count: int = 600) -> torch.Tensor:
    """Features that say these labels and nothing else."""
    columns = [LABELLED[:count, ORDER.index(name)] for name in names]
    parts = [
        torch.nn.functional.one_hot(c, len(LABELS[n])).double() for n, c in zip(names, columns)
    ]
    return torch.cat(parts, dim=1).float()


def random_features(count: int = 600, dim: int = 24) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(5))


# --- neighbours ---------------------------------------------------------------------------------


def test_neighbours_are_those_of_another_library():
    features, query = random_features() + 3, random_features(9) * 2 + 3
    mean = features.mean(dim=0)
    oracle = NearestNeighbors(n_neighbors=7, metric="cosine").fit((features - mean).numpy())
    expected = oracle.kneighbors((query - mean).numpy(), return_distance=False)
    assert np.array_equal(neighbours(features, query, 7).numpy(), expected)


def test_neighbours_do_not_change_when_the_space_is_moved_turned_or_stretched():
    features = random_features().double()
    turn = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64))[0]
    moved = 5 * features @ turn + 100
    a, b = neighbours(features, features[:50], 6), neighbours(moved, moved[:50], 6)
    assert torch.equal(a, b) and torch.equal(a[:, 0], torch.arange(50))


def test_neighbours_follow_the_order_of_the_scenes():
    features = random_features()
    order = torch.randperm(600)
    found = neighbours(features[order], features[:20], 4)
    assert torch.equal(order[found], neighbours(features, features[:20], 4))


# --- agreement and the four statements ----------------------------------------------------------


def test_features_that_say_a_label_agree_on_it_and_only_on_it():
    found = agreement(one_hot(["ground"]), LABELLED)
    assert found["ground"].value == 1
    assert found["time"].value == pytest.approx(found["time"].chance, abs=0.06)
    assert list(found) == ORDER


def test_agreement_by_hand():
    features, k = random_features(30), 3
    found = agreement(features, LABELLED[:30], k)
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    near = unit @ unit.T
    for name, column in zip(ORDER, LABELLED[:30].unbind(dim=1)):
        shares, pairs = [], []
        for i in range(30):
            others = sorted((j for j in range(30) if j != i), key=lambda j: -near[i, j].item())
            shares += [(column[i] == column[j]).item() for j in others[:k]]
            pairs += [(column[i] == column[j]).item() for j in others]
        assert found[name].value == pytest.approx(np.mean(shares))
        assert found[name].chance == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("k", [1, 5])
def test_random_features_give_chance(k):
    features = random_features()
    pictures = torch.randint(256, (600, 3, 32, 32), dtype=torch.uint8)
    for found in (
        *agreement(features, LABELLED, k).values(),
        content(features, LABELLED, k),
        context(features, LABELLED, k),
        structure(features, pictures, k),
    ):
        assert found.value == pytest.approx(found.chance, abs=0.07)


def test_content_of_equal_sets_is_one_wherever_things_stand():
    """Features of kinds alone, without places: all neighbours show the same."""
    twice = [scene for scene in SCENES[:60] for _ in range(2)]
    features = random_features(60).repeat_interleave(2, dim=0)
    assert content(features, label_tensor(twice), 1).value == 1
    moved = [scene.from_labels(_turned(scene.labels())) for scene in SCENES[:60]]
    both = label_tensor([s for pair in zip(SCENES[:60], moved) for s in pair])
    assert content(features, both, 1).value == 1
    assert agreement(features, both, 1)["left.kind"].value < 1


def _turned(labels: dict[str, int]) -> dict[str, int]:
    """The same things, each one slot further to the right."""
    after = {"left": "middle", "middle": "right", "right": "left"}
    own = {name: value for name, value in labels.items() if "." not in name}
    parts = ((name.split("."), value) for name, value in labels.items() if "." in name)
    return own | {f"{after[slot]}.{what}": value for (slot, what), value in parts}


def test_content_by_hand():
    features, labels = random_features(25), LABELLED[:25]
    sets = [{thing.kind for thing in scene.things} for scene in SCENES[:25]]
    jaccard = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])
    found = content(features, labels, 24)  # all others are neighbours: the value is chance
    assert found.value == pytest.approx(found.chance)
    assert found.chance == pytest.approx((jaccard.sum() - 25) / (25 * 24))


def test_structure_of_pixels_is_the_smallest():
    pictures = spaces.rendered(SCENES[:200])
    near = structure(to_unit(pictures).flatten(1), pictures)
    far = structure(random_features(200), pictures)
    assert near.chance == far.chance == 1
    assert near.value < 0.65 < 0.9 < far.value < 1.1
    some = to_unit(pictures[:5]).flatten(1)
    distances = [(a - b).norm().item() for a in some for b in some]
    apart = np.mean([d for d in distances if d > 0])
    nearest = np.mean([sorted(distances[5 * i : 5 * i + 5])[1] for i in range(5)])
    line = torch.tensor(np.linalg.svd((some - some.mean(0)).numpy())[0][:, :4])
    assert structure(line.float(), pictures[:5], 4).value == pytest.approx(1)
    assert nearest / apart < 1


def test_context_is_the_mean_of_where_and_when():
    found = context(one_hot(list(CONTEXT)), LABELLED)
    by_name = agreement(one_hot(list(CONTEXT)), LABELLED)
    assert found.value == pytest.approx(np.mean([by_name[name].value for name in CONTEXT]))
    assert found.value > 0.97 and 0.3 < found.chance < 0.5


def test_identity_is_one_where_the_hour_is_not_seen_and_chance_where_nothing_is_known():
    features = random_features()
    found = identity(features, features + 0.01 * random_features())
    assert found.value == 1 and found.chance == 1 / 600
    assert identity(features, features.roll(1, dims=0)).value == 0
    assert identity(features, torch.randn(600, 24)).value < 0.02


def test_elsewhen_changes_the_light_and_nothing_else():
    by_day = [scene for scene in SCENES[:80] if scene.time != "night"]
    for scene in by_day:
        labels, later = scene.labels(), elsewhen(scene).labels()
        assert {name for name in LABELS if labels[name] != later[name]} == {"time"}
        assert elsewhen(elsewhen(elsewhen(scene))) == scene
        parts = [np.asarray(s.semantic_map(64)) for s in (scene, elsewhen(scene))]
        below = [part[40:] for part in parts]  # the sun stands lower at dawn
        assert np.array_equal(*below)
    night = next(scene for scene in SCENES if scene.time == "night")
    with pytest.raises(ValueError, match="is at night: take one by daylight"):
        elsewhen(night)


def test_recall_counts_those_before_the_own_one():
    gallery = torch.eye(6)
    query = torch.eye(6)[[0, 1, 2, 3, 5, 4]] + 0.5 * torch.eye(6)
    assert recall(query, gallery, 1).value == pytest.approx(4 / 6)
    assert recall(query, gallery, 2).value == 1
    assert recall(query, gallery, 2).chance == pytest.approx(2 / 6)
    order = torch.randperm(6)
    assert recall(query[order], gallery[order], 1) == recall(query, gallery, 1)
    assert recall(random_features(), random_features() + 1, 600).value == 1


# --- the linear probe ---------------------------------------------------------------------------


def test_features_that_say_a_label_are_read_perfectly():
    found = linear_probe(one_hot(["ground", "time", "left.kind"]), LABELLED)
    for name in ("ground", "time", "left.kind"):
        assert found[name].value == 1 > found[name].chance
    assert list(found) == ORDER


def test_random_features_say_nothing():
    for name, found in linear_probe(random_features(), LABELLED).items():
        assert found.value <= found.chance + 0.08, name
        column = LABELLED[:, ORDER.index(name)]
        commonest = column[:300].bincount().argmax()
        assert found.chance == pytest.approx((column[300:] == commonest).double().mean().item())


def test_the_ridge_is_that_of_another_library():
    features = one_hot(["time", "weather"]) @ torch.randn(7, 24) + random_features()
    found = linear_probe(features, LABELLED)
    scaler = StandardScaler().fit(features[:300].double().numpy())
    scale = math.sqrt(299 / 300)  # this library divides by N, ours by N − 1
    fit, test = (scaler.transform(part.double().numpy()) * scale for part in features.split(300))
    for name in ("time", "ground", "clouds", "middle.kind"):
        column = LABELLED[:, ORDER.index(name)].numpy()
        ridge = RidgeClassifierCV(alphas=RIDGES, scoring="accuracy").fit(fit, column[:300])
        accuracy = (ridge.predict(test) == column[300:]).mean()
        assert found[name].value == pytest.approx(accuracy, abs=0.04), name
    assert found["time"].value > 0.6


def test_leaving_one_out_is_fitting_without_it():
    from genkit.probes import _Ridge

    features, classes = random_features(40, 6), LABELLED[:40, 0]
    ridge = _Ridge(features, features)
    targets = 2 * torch.nn.functional.one_hot(classes, 4).double() - 1
    inner = ridge.u.T @ (targets - targets.mean(dim=0))
    said = ridge._left_out(targets, inner, 3.0)
    x = ridge.u * ridge.s  # the standardised features, turned
    for i in range(40):
        rest = [j for j in range(40) if j != i]
        a, b = x[rest], targets[rest]
        middle, mean = b.mean(dim=0), a.mean(dim=0)
        gram = (a - mean).T @ (a - mean) + 3.0 * torch.eye(6)
        weight = torch.linalg.solve(gram, (a - mean).T @ (b - middle))
        assert ((x[i] - mean) @ weight + middle).argmax() == said[i]


def test_a_probe_does_not_change_when_features_are_moved_or_stretched():
    features = one_hot(["time"]) @ torch.randn(4, 24) + random_features()
    moved = features.double() * torch.linspace(0.1, 30, 24) - 7
    assert linear_probe(features.double(), LABELLED) == linear_probe(moved, LABELLED)


def test_features_that_never_change_say_the_commonest_class():
    for features in (torch.zeros(600, 3), torch.full((600, 3), 7.7)):
        for found in linear_probe(features, LABELLED).values():
            assert found.value == found.chance


# --- vectors of models, and the metrics ---------------------------------------------------------


@pytest.fixture()
def shelf(tmp_path, monkeypatch):
    """Small encoders with fresh weights, as checkpoints."""
    config.update("jaxtyping_disable", True)
    for name, value in {"THREADS": "1", "DEVICE": "cpu", "DTYPE": "float32"}.items():
        monkeypatch.setenv(f"GENKIT_{name}", value)
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / "cache"))
    small = {"widths": (8, 8, 8), "blocks": (1, 1, 1)}
    words = train_vocabulary(("a red house",), 400)
    models = {
        "conv": ConvEncoder(**small),
        "vit": ViTEncoder(dim=8, layers=1, heads=2),
        "towers": Contrastive(words, **small, dim=8, words=8, layers=1, heads=2, length=600),
        "vae": VAE(4, (8, 8, 8), (1, 1, 1), (1, 1, 1), 2),
        "reader": Reader((8, 8, 8), (1, 1, 1), 16, 1, 2, 4, (2, 2, 2), 32),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    yield {name: model.eval() for name, model in models.items()}
    config.update("jaxtyping_disable", False)


def test_vectors_are_what_the_models_say_in_any_batch(shelf):
    pictures = spaces.rendered(SCENES[:3]).repeat(90, 1, 1, 1)  # more than one batch
    x = to_unit(pictures)
    for name in ("conv", "vit", "towers"):
        torch.testing.assert_close(vectors(shelf[name], pictures), shelf[name].embed(x).detach())
    mean = shelf["vae"].encode(x)[0].posterior.mean.flatten(1).detach()
    torch.testing.assert_close(vectors(shelf["vae"], pictures), mean)
    with pytest.raises(ValueError, match="a Reader has no vector of a picture; take an encoder"):
        vectors(shelf["reader"], pictures)


@pytest.mark.parametrize("name", ["conv", "vit", "towers", "vae"])
def test_probe_and_nearness_of_every_encoder(shelf, name):
    report = evaluation.evaluate(name, "probe", n=12, seed=2)
    pictures, labels = (
        torch.cat(p) for p in zip(spaces.scenes("validation", 12, 2), spaces.scenes("test", 12, 2))
    )
    found = linear_probe(vectors(shelf[name], pictures).float(), labels)
    assert report.value == pytest.approx(np.mean([one.value for one in found.values()]), abs=0.03)
    assert set(report.details) == {"chance", *LABELS}
    assert report.details["chance"] == pytest.approx(np.mean([f.chance for f in found.values()]))
    report = evaluation.evaluate(name, "nearness", n=12, seed=2)
    again = evaluation.evaluate(name, "nearness", n=12, seed=2)
    assert report == again and report.details["structure by chance"] == 1
    scenes = [Scene.random(SPLITS["test"].start + 2 + i) for i in range(12)]
    by_day = sum(scene.time != "night" for scene in scenes)
    assert report.details["identity by chance"] == pytest.approx(1 / by_day)
    assert 0 <= report.value <= 1 and 0 <= report.details["context"] <= 1


def test_retrieval_of_towers_that_know_is_one(shelf, monkeypatch):
    know = torch.nn.functional.normalize(random_features(8), dim=1)
    monkeypatch.setattr(spaces, "vectors", lambda model, pictures: know)
    asked: list[list[str]] = []

    def embed_text(self: Contrastive, texts: list[str]) -> torch.Tensor:
        asked.append(texts)
        return know if len(asked) % 2 else know.roll(1, dims=0)  # the short ones are mistaken

    monkeypatch.setattr(Contrastive, "embed_text", embed_text)
    report = evaluation.evaluate("towers", "retrieval", n=8)
    assert report.value == 1 and report.details["chance"] == 1 / 8
    assert report.details["vi: picture by caption in 1"] == 1
    assert report.details["en: short caption in 1"] == 0
    words = [np.mean([len(text.split()) for text in texts]) for texts in asked]
    assert len(asked) == 4 and words[0] > words[1] and words[2] > words[3]
    assert any("ngôi" in text or "cây" in text for text in asked[2])


def test_kinds_counts_whole_pictures(shelf, monkeypatch):
    pictures, labels = spaces.scenes("test", 20, 0)
    there = spaces.kinds_of(labels) > 0
    said = there.clone()
    said[:5, 0] = ~said[:5, 0]

    class Knows:
        head = torch.nn.Linear(1, 1)

        def __call__(self, x: torch.Tensor) -> object:
            return torch.distributions.Bernoulli(logits=2.0 * said.float() - 1)

    value, details = spaces.kinds(Knows(), 20, 0)
    assert value == pytest.approx(15 / 20)
    right = (said & there).sum().item()
    assert details["precision"] == pytest.approx(right / said.sum().item())
    assert details["recall"] == pytest.approx(right / there.sum().item())
    assert evaluation.evaluate("conv", "kinds", n=4).n == 4


@pytest.mark.parametrize(
    ("name", "metric", "words"),
    [
        ("towers", "kinds", "towers is no ConvEncoder or ViTEncoder, which kinds measures"),
        ("reader", "probe", "reader is no Encoder or VAE, which probe measures"),
        ("reader", "nearness", "reader is no Encoder or VAE, which nearness measures"),
        ("vae", "retrieval", "vae is no Contrastive, which retrieval measures"),
    ],
)
def test_a_metric_of_another_family_is_told(shelf, name, metric, words):
    with pytest.raises(ValueError, match=words):
        evaluation.evaluate(name, metric, n=8)


# --- mistakes -----------------------------------------------------------------------------------

NAN = torch.full((600, 2), math.nan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: neighbours(random_features(), random_features(3), 0), "0 neighbours among 600"),
        (lambda: neighbours(random_features(), random_features(3), 601), "choose 1 to 600"),
        (lambda: neighbours(NAN, NAN, 1), "not finite"),
        (lambda: agreement(random_features(), LABELLED, 600), "choose 1 to 599"),
        (lambda: agreement(random_features(7), LABELLED), "7 vectors do not fit 600 rows"),
        (lambda: content(NAN, LABELLED), "not finite"),
        (lambda: context(random_features(), LABELLED[:5]), "600 vectors do not fit 5 rows"),
        (lambda: identity(random_features(), random_features(9)), "do not fit 9 rows"),
        (lambda: identity(random_features(600, 2), NAN), "not finite"),
        (lambda: recall(random_features(5), random_features(5), 6), "6 of 5: choose 1 to 5"),
        (lambda: linear_probe(random_features(3), LABELLED[:3]), "3 scenes cannot be halved"),
        (lambda: linear_probe(NAN, LABELLED), "not finite"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, words, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=words):
        call()
