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
    NEAREST,
    RIDGES,
    Found,
    agreement,
    content,
    context,
    elsewhen,
    identity,
    linear_probe,
    neighbours,
    recall,
    redrawn,
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


def around(features: torch.Tensor, k: int = NEAREST) -> torch.Tensor:
    """The neighbours of every scene."""
    return neighbours(features, k=k).index


def column(name: str, count: int = 600) -> torch.Tensor:
    return LABELLED[:count, ORDER.index(name)]


def random_features(count: int = 600, dim: int = 24) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(5))


# --- neighbours ---------------------------------------------------------------------------------


def test_neighbours_are_those_of_another_library():
    features, query = random_features() + 3, random_features(9) * 2 + 3
    mean = features.mean(dim=0)
    oracle = NearestNeighbors(n_neighbors=7, metric="cosine").fit((features - mean).numpy())
    expected = oracle.kneighbors((query - mean).numpy(), return_distance=False)
    assert np.array_equal(neighbours(features, query, 7).index.numpy(), expected)


def test_neighbours_do_not_change_when_the_space_is_moved_turned_or_stretched():
    features = random_features().double()
    turn = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64))[0]
    moved = 5 * features @ turn + 100
    a = neighbours(features, features[:50], 6).index
    b = neighbours(moved, moved[:50], 6).index
    assert torch.equal(a, b) and torch.equal(a[:, 0], torch.arange(50))
    assert torch.equal(around(features, 5)[:50], a[:, 1:])


def test_neighbours_follow_the_order_of_the_scenes():
    features = random_features()
    order = torch.randperm(600)
    found = neighbours(features[order], features[:20], 4).index
    assert torch.equal(order[found], neighbours(features, features[:20], 4).index)


def test_distances_are_those_of_directions():
    features = random_features(40) + 2
    near = neighbours(features, features[:6], 3, without=(0, 5))
    assert not {0, 5} & set(near.index.flatten().tolist())
    unit = torch.nn.functional.normalize((features - features.mean(dim=0)).double(), dim=1)
    apart = torch.cdist(unit[:6], unit).gather(1, near.index)
    torch.testing.assert_close(near.distance, apart, atol=1e-6, rtol=0)


# --- agreement and the four statements ----------------------------------------------------------


def test_features_that_say_a_label_agree_on_it_and_only_on_it():
    near = around(one_hot(["ground"]))
    assert agreement(near, column("ground")).value == 1
    found = agreement(near, column("time"))
    assert found.value == pytest.approx(found.chance, abs=0.06)


def test_agreement_by_hand():
    features, k = random_features(30), 3
    near = around(features, k)
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    cosines = unit @ unit.T
    for name in ORDER:
        classes, found = column(name, 30), agreement(near, column(name, 30))
        shares, pairs = [], []
        for i in range(30):
            others = sorted((j for j in range(30) if j != i), key=lambda j: -cosines[i, j].item())
            shares.append(np.mean([(classes[i] == classes[j]).item() for j in others[:k]]))
            pairs.append(np.mean([(classes[i] == classes[j]).item() for j in others]))
        assert found.each.tolist() == pytest.approx(shares)
        assert found.chance == pytest.approx(np.mean(pairs))
        some = agreement(near, classes, torch.tensor([3, 11]))
        assert some.each.tolist() == pytest.approx([shares[3], shares[11]])
        assert some.chance == pytest.approx((pairs[3] + pairs[11]) / 2)


def test_the_error_is_that_of_a_mean():
    found = Found(torch.tensor([0.0, 1.0, 1.0, 0.0]).double(), 0.1)
    assert found.value == 0.5 and found.error == pytest.approx(0.25)


@pytest.mark.parametrize("k", [1, 8])
def test_random_features_give_chance(k):
    near = around(random_features(), k)
    maps = torch.randint(5, (600, 8, 8), dtype=torch.uint8)
    for found in (
        *(agreement(near, column(name)) for name in ORDER),
        content(near, LABELLED),
        context(near, LABELLED),
        structure(near, maps),
    ):
        assert found.value == pytest.approx(found.chance, abs=0.07)


def test_content_of_equal_sets_is_one_wherever_things_stand():
    """Features of kinds alone, without places: all neighbours show the same."""
    twice = [scene for scene in SCENES[:60] for _ in range(2)]
    near = around(random_features(60).repeat_interleave(2, dim=0), 1)
    assert content(near, label_tensor(twice)).value == 1
    moved = [scene.from_labels(_turned(scene.labels())) for scene in SCENES[:60]]
    both = label_tensor([s for pair in zip(SCENES[:60], moved) for s in pair])
    assert content(near, both).value == 1
    assert agreement(near, both[:, ORDER.index("left.kind")]).value < 1


def _turned(labels: dict[str, int]) -> dict[str, int]:
    """The same things, each one slot further to the right."""
    after = {"left": "middle", "middle": "right", "right": "left"}
    own = {name: value for name, value in labels.items() if "." not in name}
    parts = ((name.split("."), value) for name, value in labels.items() if "." in name)
    return own | {f"{after[slot]}.{what}": value for (slot, what), value in parts}


def test_content_by_hand():
    near, labels = around(random_features(25), 24), LABELLED[:25]
    sets = [{thing.kind for thing in scene.things} for scene in SCENES[:25]]
    jaccard = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])
    found = content(near, labels)  # all others are neighbours: the value is chance
    assert found.value == pytest.approx(found.chance)
    assert found.each.tolist() == pytest.approx(((jaccard.sum(axis=1) - 1) / 24).tolist())


def test_structure_by_hand():
    """The share of equal pixels of two maps, and its mean over all pairs."""
    maps = [np.asarray(scene.semantic_map(32)) for scene in SCENES[:25]]
    same = np.array([[(a == b).mean() for b in maps] for a in maps])
    near = around(random_features(25), 3)
    found = structure(near, torch.from_numpy(np.stack(maps)))
    by_hand = [np.mean([same[i, j] for j in row]) for i, row in enumerate(near.tolist())]
    assert found.each.tolist() == pytest.approx(by_hand)
    assert found.chance == pytest.approx((same.sum() - 25) / (25 * 24))


def test_pixels_know_more_of_structure_than_chance():
    maps = np.stack([np.asarray(scene.semantic_map(32)) for scene in SCENES[:80]])
    near = around(to_unit(spaces.rendered(SCENES[:80])).flatten(1))
    found = structure(near, torch.from_numpy(maps))
    assert 0 < found.chance < found.value - 5 * found.error < 1


def test_context_is_the_mean_of_where_and_when():
    near = around(one_hot(list(CONTEXT)))
    found, by_name = context(near, LABELLED), [agreement(near, column(n)) for n in CONTEXT]
    assert found.value == pytest.approx(np.mean([one.value for one in by_name]))
    assert found.chance == pytest.approx(np.mean([one.chance for one in by_name]))
    assert found.value > 0.9 and 0.3 < found.chance < 0.5
    pairs = zip(SCENES[5:6] * NEAREST, near[5].tolist())
    agreed = [[getattr(a, n) == getattr(SCENES[b], n) for n in CONTEXT] for a, b in pairs]
    assert found.each[5].item() == pytest.approx(np.mean(agreed))


def test_identity_is_one_where_the_hour_is_not_seen_and_chance_where_nothing_is_known():
    features, own = random_features(), torch.arange(0, 600, 3)
    found = identity(features, features[own] + 0.01 * random_features(200), own)
    assert found.value == 1 and found.chance == 1 / 600 and len(found.each) == 200
    assert identity(features, features[own + 1], own).value == 0
    assert identity(features, torch.randn(200, 24), own).value < 0.03


def test_the_first_scenes_by_daylight_are_redrawn():
    own, later = redrawn(SCENES)
    by_day = [i for i, scene in enumerate(SCENES) if scene.time != "night"]
    assert own.tolist() == by_day[:300] and len(later) == 300
    assert later[7] == elsewhen(SCENES[by_day[7]])
    with pytest.raises(ValueError, match="all 2 scenes are at night: take more"):
        redrawn([scene for scene in SCENES if scene.time == "night"][:2])


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
    assert recall(query[order], gallery[order], 1).value == recall(query, gallery, 1).value
    assert recall(random_features(), random_features() + 1, 600).value == 1


# --- the linear probe ---------------------------------------------------------------------------


def probed(features: torch.Tensor) -> dict[str, Found]:
    return dict(zip(LABELS, linear_probe(features, LABELLED), strict=True))


def test_features_that_say_a_label_are_read_perfectly():
    found = probed(one_hot(["ground", "time", "left.kind"]))
    for name in ("ground", "time", "left.kind"):
        assert found[name].value == 1 > found[name].chance


def test_random_features_say_nothing():
    for name, found in probed(random_features()).items():
        assert found.value <= found.chance + 0.08, name
        taught, asked = column(name).split(300)
        commonest = taught.bincount().argmax()
        assert found.chance == pytest.approx((asked == commonest).double().mean().item())


def test_the_ridge_is_that_of_another_library():
    features = one_hot(["time", "weather"]) @ torch.randn(7, 24) + random_features()
    found = probed(features)
    scaler = StandardScaler().fit(features[:300].double().numpy())
    scale = math.sqrt(299 / 300)  # this library divides by N, ours by N − 1
    fit, test = (scaler.transform(part.double().numpy()) * scale for part in features.split(300))
    for name in ("time", "ground", "clouds", "middle.kind"):
        classes = column(name).numpy()
        ridge = RidgeClassifierCV(alphas=RIDGES, scoring="accuracy").fit(fit, classes[:300])
        accuracy = (ridge.predict(test) == classes[300:]).mean()
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
    for a, b in zip(probed(features.double()).values(), probed(moved).values()):
        assert torch.equal(a.each, b.each)


def test_features_that_never_change_say_the_commonest_class():
    for features in (torch.zeros(600, 3), torch.full((600, 3), 7.7)):
        for found in linear_probe(features, LABELLED):
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
    report = evaluation.evaluate(name, "probe", n=24, seed=2)
    pictures, labels = spaces.scenes("test", 24, 2)
    features = vectors(shelf[name], pictures)
    found = linear_probe(features, labels)
    assert report.value == pytest.approx(np.mean([one.value for one in found]), abs=0.03)
    assert set(report.details) == {"chance", *LABELS}
    assert report.details["chance"] == pytest.approx(np.mean([one.chance for one in found]))
    report = evaluation.evaluate(name, "nearness", n=24, seed=2)
    assert report == evaluation.evaluate(name, "nearness", n=24, seed=2)
    near = around(features)
    scenes = [Scene.random(SPLITS["test"].start + 2 + i) for i in range(24)]
    maps = torch.from_numpy(np.stack([np.asarray(one.semantic_map(32)) for one in scenes]))
    assert report.details["identity by chance"] == pytest.approx(1 / 24)
    assert report.value == pytest.approx(content(near, labels).value, abs=0.03)
    assert report.details["structure by chance"] == pytest.approx(structure(near, maps).chance)
    assert report.details["context"] == pytest.approx(context(near, labels).value, abs=0.03)


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
OWN = torch.arange(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: neighbours(random_features(), random_features(3), 0), "0 neighbours among 600"),
        (lambda: neighbours(random_features(), random_features(3), 601), "choose 1 to 600"),
        (lambda: neighbours(NAN, NAN, 1), "not finite"),
        (lambda: neighbours(random_features(), k=600), "choose 1 to 599"),
        (lambda: agreement(around(random_features(9)), LABELLED), "9 rows do not fit 600"),
        (lambda: neighbours(random_features(), NAN[:, :1].expand(600, 24)), "not finite"),
        (lambda: content(around(random_features()), LABELLED[:5]), "600 rows do not fit 5"),
        (lambda: context(around(random_features()), LABELLED[:5]), "600 rows do not fit 5"),
        (lambda: identity(random_features(), random_features(9), OWN), "9 rows do not fit 3"),
        (lambda: identity(random_features(600, 2), NAN[:3], OWN), "not finite"),
        (lambda: recall(random_features(5), random_features(5), 6), "6 of 5: choose 1 to 5"),
        (lambda: linear_probe(random_features(3), LABELLED[:3]), "3 scenes cannot be halved"),
        (lambda: linear_probe(NAN, LABELLED), "not finite"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, words, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=words):
        call()
