"""Spaces without a browser: planes, neighbours, lines, probes, claims against known answers."""

import numpy as np
import pytest
import torch
from fake import tiny_model
from scipy.stats import ortho_group
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestNeighbors

from apps import claims, spaces
from apps.spaces import ATTRIBUTES, ENCODERS, NEAR, Attribute, Book, attribute, line, space
from genkit.data.picturebook import Scene
from genkit.data.picturebook.scene import LABELS, SPLITS
from genkit.models.classifier import NoisyClassifier


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Book:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        *_, whole = spaces.drawn(300)
    return whole


@pytest.fixture()
def cloud() -> np.ndarray:
    """Vectors that vary much in few directions, turned at random."""
    rng = np.random.default_rng(0)
    spread = np.array([9, 4, 1, 0.5, 0.2, 0.1])
    turn = ortho_group.rvs(6, random_state=1)
    return (rng.standard_normal((200, 6)) * spread @ turn + 7).astype(np.float32)


# The book


def test_the_scenes_are_those_of_the_test_split(book) -> None:
    seeds = [scene.seed for scene in book.scenes]
    assert seeds == list(SPLITS["test"][:300])
    for i in (0, 251, 299):
        assert np.array_equal(book.pictures[i], np.asarray(book.scenes[i].render(32)))
        assert np.array_equal(book.maps[i], np.asarray(book.scenes[i].semantic_map(32)))
    assert book.index(seeds[7]) == 7
    assert book.index(seeds[0] - 1) is book.index(seeds[-1] + 1) is book.index(None) is None


def test_a_disk_that_cannot_be_written_changes_nothing(book, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / "file" / "folder"))
    *_, again = spaces.drawn(20)
    assert np.array_equal(again.pictures, book.pictures[:20])


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_say_what_the_scene_is(book, name) -> None:
    one = attribute(name, book.scenes)
    for index in (0, 1, 2, 40, 299):
        scene, value = book.scenes[index], one.classes[one.values[index]]
        if name in LABELS:
            assert LABELS[name][scene.labels()[name]] == value
        elif name == "things":
            assert str(len(scene.things)) == value
        elif name == "thing":
            assert scene.things[0].kind == value
        else:
            houses = [thing.colour for thing in scene.things if thing.kind == "house"]
            assert (houses or ["none"])[0] == value
    if one.partial:
        assert set(one.asked) == {i for i, v in enumerate(one.values) if v}


# Vectors


@pytest.mark.parametrize("name", ENCODERS)
def test_a_vector_does_not_depend_on_its_batch(book, name) -> None:
    encoder = ENCODERS[name]
    model = tiny_model(encoder.checkpoint)
    whole = np.concatenate(list(spaces.embedded(model, encoder, book.pictures[:150])))
    alone = next(spaces.embedded(model, encoder, book.pictures[120:121]))
    assert len(whole) == 150 and np.allclose(whole[120], alone[0], atol=1e-6)


def test_a_model_of_another_family_or_size_is_told() -> None:
    pictures = np.zeros((1, 32, 32, 3), np.uint8)
    other = tiny_model("book32_classifier")
    assert isinstance(other, NoisyClassifier)
    with pytest.raises(ValueError, match="book32_vae is a NoisyClassifier.*recipe"):
        next(spaces.embedded(other, ENCODERS["vae"], pictures))
    wrong = type("Wrong", (), {"size": 64, "embed": None})()
    with pytest.raises(ValueError, match="32×32"):
        next(spaces.embedded(wrong, ENCODERS["vit"], pictures))


def test_a_vector_that_is_not_finite_is_no_vector() -> None:
    class Broken(torch.nn.Module):
        size = 32

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def embed(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) * torch.nan

    with pytest.raises(FloatingPointError, match="not finite"):
        next(spaces.embedded(Broken(), ENCODERS["vit"], np.zeros((1, 32, 32, 3), np.uint8)))


def test_decoding_inverts_coding(book) -> None:
    """The fake VAE loses nothing of a picture of one colour."""
    flat = np.full((2, 32, 32, 3), (10, 200, 90), np.uint8)
    model, encoder = tiny_model("book32_vae"), ENCODERS["vae"]
    vectors = next(spaces.embedded(model, encoder, flat))
    assert np.array_equal(spaces.decoded(model, vectors), flat)


# Planes and neighbours


def test_the_plane_is_that_of_scikit_learn(cloud) -> None:
    ours, theirs = space(cloud), PCA(2).fit(cloud)
    assert np.allclose(ours.shares, theirs.explained_variance_ratio_, rtol=1e-5)
    placed = theirs.transform(cloud)
    signs = np.sign((ours.place(cloud) * placed).sum(axis=0))
    assert np.allclose(ours.place(cloud), placed * signs, atol=1e-3)


def test_neighbours_are_those_of_scikit_learn(cloud) -> None:
    ours = space(cloud)
    distance, index = NearestNeighbors(n_neighbors=NEAR + 1).fit(cloud).kneighbors(cloud)
    assert np.array_equal(ours.near, index[:, 1:])
    assert ours.apart == pytest.approx(np.median(distance[:, 1]), rel=1e-5)
    found, far = ours.nearest(cloud[:3] + 0.01, 5, without=(0,))
    assert 0 not in found and (np.diff(far, axis=1) >= 0).all()


def test_among_unit_vectors_near_means_a_large_cosine() -> None:
    vectors = np.random.default_rng(3).standard_normal((50, 4))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    assert np.array_equal(space(vectors).near[:, 0], cosines.argmax(axis=1))


def test_tsne_keeps_groups_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.standard_normal((40, 5)) + 30 * i for i in range(3)])
    points = spaces.tsne(groups.astype(np.float32))
    assert np.array_equal(points, spaces.tsne(groups.astype(np.float32)))
    near = space(points.astype(np.float32)).near[:, :3]
    assert (near // 40 == np.arange(120)[:, None] // 40).mean() > 0.99


def test_a_new_vector_settles_among_its_neighbours() -> None:
    points = np.array([[0.0, 0.0], [4.0, 0.0], [9.0, 9.0]])
    near, distance = np.array([[0, 1], [2, 0]]), np.array([[1.0, 1.0], [0.0, 3.0]])
    placed = spaces.settled(points, near, distance)
    assert np.allclose(placed, [[2, 0], [9, 9]], atol=1e-6)


# Lines


def test_a_line_ends_at_its_pictures_and_leaves_them_out(cloud) -> None:
    where = space(cloud)
    one = line(where, cloud[3], cloud[9], 5, without=(3, 9))
    assert np.allclose(one.points[[0, -1]], cloud[[3, 9]], atol=1e-5)
    assert np.allclose(one.points[2], (cloud[3] + cloud[9]) / 2, atol=1e-5)
    assert not {3, 9} & set(one.near.tolist())
    plane = where.place(one.points)
    steps = np.diff(plane, axis=0)
    assert np.allclose(steps, steps[0], atol=1e-3)  # a line stays a line
    inside = line(where, cloud[3], cloud[9], 5)
    assert (inside.near[0], inside.near[-1]) == (3, 9)


# Claims


def test_alike_by_hand(book) -> None:
    first, second = np.array([0, 0, 5]), np.array([0, 7, 8])
    found = claims.alike(book, first, second)
    assert [found[name][0] for name in claims.ASPECTS] == [1, 1, 1]
    for pair in (1, 2):
        a, b = book.scenes[first[pair]], book.scenes[second[pair]]
        kinds = [{thing.kind for thing in one.things} for one in (a, b)]
        assert found["content"][pair] == len(kinds[0] & kinds[1]) / len(kinds[0] | kinds[1])
        names = ("time", "ground", "weather", "mountains")
        same = sum(getattr(a, name) == getattr(b, name) for name in names) / 4
        assert found["context"][pair] == same
        maps = [np.asarray(one.semantic_map(32)) for one in (a, b)]
        assert found["structure"][pair] == (maps[0] == maps[1]).mean()


def test_a_scene_is_itself_at_another_hour(book) -> None:
    """Nothing but the time changes, so the parts stand where they stood."""
    own, pictures = claims.redrawn(book)
    assert all(book.scenes[i].time != "night" for i in own)
    scene = book.scenes[own[0]]
    other = claims.later(scene)
    assert other is not None and other.time != scene.time
    assert other.semantic_map(32).tobytes() == scene.semantic_map(32).tobytes()
    assert np.array_equal(pictures[0], np.asarray(other.render(32)))
    nights = [one for one in book.scenes if one.time == "night"]
    assert claims.later(nights[0]) is None


def test_identity_is_one_for_vectors_that_do_not_change(cloud) -> None:
    own = np.array([4, 9, 11])
    assert claims.identity(space(cloud), cloud[own], own).tolist() == [1, 1, 1]
    assert claims.identity(space(cloud), cloud[own], own + 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("own", "other", "kind"),
    [(0.6, 0.4, "true"), (0.4, 0.6, "rival"), (0.5, 0.5, "true"), (0.2, 0.1, "false")],
)
def test_a_verdict_follows_from_the_numbers(own, other, kind) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 2000)
    found = {"convnet": own + noise, "vit": other + rng.normal(0, 0.1, 2000)}
    verdict = claims.judged("content", found, 0.2)
    assert verdict.kind == kind
    assert verdict.value == pytest.approx(own, abs=0.01)
    assert claims.judged("structure", found, 0.2).kind == "unknown"


def test_a_probe_is_a_ridge_classifier() -> None:
    """Fold by fold, by another library."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 8))
    values = (vectors[:, :3] + rng.standard_normal((500, 3))).argmax(axis=1)
    [(share, chance)] = claims.probe(vectors, [Attribute("x", ("a", "b", "c"), values)])
    right = 0
    for held in range(claims.FOLDS):
        known = np.arange(500) % claims.FOLDS != held
        x = (vectors - vectors[known].mean(axis=0)) / vectors[known].std(axis=0)
        theirs = RidgeClassifier(alpha=claims.PENALTY * known.sum()).fit(x[known], values[known])
        right += (theirs.predict(x[~known]) == values[~known]).sum()
    assert share == pytest.approx(right / 500, abs=0.003)
    assert chance == np.bincount(values).max() / 500


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 6))
    there = Attribute("x", ("no", "yes"), (vectors[:, 2] > 0).astype(int))
    absent = Attribute("y", ("no", "yes"), rng.integers(0, 2, 1000))
    partial = Attribute("z", ("none", "a", "b"), 1 + (vectors[:, 1] > 0).astype(int), partial=True)
    partial.values[:500] = 0
    (yes, _), (no, chance), (some, _) = claims.probe(vectors, [there, absent, partial])
    assert yes > 0.97 and abs(no - chance) < 0.06 and some > 0.95


def test_agreement_is_one_where_neighbours_are_alike() -> None:
    near = np.array([[1], [0], [3], [2]])
    assert claims.agreement(near, Attribute("x", ("a", "b"), np.array([0, 0, 1, 1]))) == (1, 0.5)
    assert claims.agreement(near, Attribute("x", ("a", "b"), np.array([0, 1, 0, 1]))) == (0, 0.5)
    assert claims.shared(near, near) == 1
    assert claims.shared(near, near[::-1]) == 0


def test_chance_is_what_random_pairs_have(book) -> None:
    chance = claims.chance_of(book)
    assert chance["identity"] == 1 / 300
    assert 0 < chance["content"] < 0.3 and 0.25 < chance["context"] < 0.55
    assert Scene.random(book.scenes[0].seed) == book.scenes[0]
