"""Spaces without a browser: planes, neighbours, lines, probes, claims against known answers."""

import numpy as np
import pytest
import torch
from fake import tiny_model
from scipy.stats import ortho_group
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from apps import claims, spaces
from apps.spaces import ATTRIBUTES, ENCODERS, Attribute, Book, attribute, line, space
from genkit import probes
from genkit.data.picturebook.scene import LABELS, SPLITS
from genkit.data.picturebook.source import to_uint8, to_unit
from genkit.models.classifier import NoisyClassifier
from genkit.probes import NEAREST, Found


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
    with pytest.raises(ValueError, match="book32_vae is a HVAE"):
        next(spaces.embedded(tiny_model("book32_hvae"), ENCODERS["vae"], pictures))
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


def test_a_vector_of_the_vae_is_decoded_to_the_mean_picture() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    model, encoder = tiny_model("book32_vae"), ENCODERS["vae"]
    vectors = next(spaces.embedded(model, encoder, pictures))
    with torch.no_grad():
        x = to_unit(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        again = to_uint8(model(x).picture.mean).permute(0, 2, 3, 1).numpy()
    difference = spaces.decoded(model, vectors).astype(int) - again
    assert np.abs(difference).max() <= 1  # vectors may have been rounded on the way


# Planes and neighbours


def test_the_plane_is_that_of_scikit_learn(cloud) -> None:
    ours, theirs = space(cloud), PCA(2).fit(cloud)
    assert np.allclose(ours.shares, theirs.explained_variance_ratio_, rtol=1e-5)
    placed = theirs.transform(cloud)
    signs = np.sign((ours.place(cloud) * placed).sum(axis=0))
    assert np.allclose(ours.place(cloud), placed * signs, atol=1e-3)


def test_neighbours_are_those_of_scikit_learn(cloud) -> None:
    """Directions from the mean, and their Euclidean distances."""
    ours, centred = space(cloud), (cloud - cloud.mean(axis=0)).astype(float)
    ways = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    distance, index = NearestNeighbors(n_neighbors=NEAREST + 1).fit(ways).kneighbors(ways)
    assert np.array_equal(ours.near, index[:, 1:])
    assert ours.apart == pytest.approx(np.median(distance[:, 1]), rel=1e-4)
    found, far = ours.nearest(cloud[:3] + 0.01, 5, without=(0,))
    assert 0 not in found and (np.diff(far, axis=1) >= 0).all()
    to, far = ours.nearest(cloud[4:5], 3)
    assert to[0, 0] == 4
    assert [ours.distance(cloud[4], cloud[i]) for i in to[0]] == pytest.approx(far[0], abs=1e-6)


def test_tsne_keeps_groups_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.standard_normal((40, 5)) + 30 * i for i in range(3)])
    points = spaces.tsne(groups.astype(np.float32))
    assert np.array_equal(points, spaces.tsne(groups.astype(np.float32)))
    near = NearestNeighbors(n_neighbors=4).fit(points).kneighbors(points)[1][:, 1:]
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


def test_an_aspect_is_what_the_probes_say(book) -> None:
    """Of pixels as vectors, and of scenes that are drawn again as they were."""
    where = space(book.pictures.reshape(300, -1).astype(np.float32))
    own = np.array([4, 9, 11])
    found = claims.aspects(book, where, where.vectors[own], own)
    assert list(found) == list(claims.CLAIMS)
    assert found["identity"].each.tolist() == [1, 1, 1]
    for i in (0, 7, 299):
        same = [(book.maps[i] == book.maps[j]).mean() for j in where.near[i]]
        assert found["structure"].each[i].item() == pytest.approx(np.mean(same))
    assert all(found[name].value > found[name].chance for name in claims.CLAIMS)
    other = claims.aspects(book, where, where.vectors[own + 1], own)
    assert other["identity"].value == 0 and other["identity"].chance == 1 / 300


def test_the_scenes_that_are_drawn_again(book) -> None:
    own, pictures = claims.redrawn(book)
    for i in (0, -1):
        changed = probes.elsewhen(book.scenes[own[i]])
        assert np.array_equal(pictures[i], np.asarray(changed.render(32)))


@pytest.mark.parametrize(
    ("own", "other", "kind"),
    [(0.6, 0.4, "true"), (0.4, 0.6, "rival"), (0.5, 0.5, "true"), (0.2, 0.1, "false")],
)
def test_a_verdict_follows_from_the_numbers(own, other, kind) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 2000)
    vit = other + rng.normal(0, 0.1, 2000)
    found = {"convnet": found_of(own + noise), "vit": found_of(vit)}
    verdict = claims.judged("content", found)
    assert verdict.kind == kind
    assert verdict.value == pytest.approx(own, abs=0.01)
    assert claims.judged("structure", found).kind == "unknown"


def found_of(each: np.ndarray) -> Found:
    return Found(torch.from_numpy(each), 0.2)


def test_a_rival_is_found_beside_one_that_is_better_by_chance() -> None:
    own = np.tile([0.5, 0.9], 500)
    luck = own + 0.011 + np.tile([0.35, 0.35, -0.35, -0.35], 250)  # 0.011 ± 0.011
    found = {"convnet": found_of(own), "vae": found_of(own + 0.010), "vit": found_of(luck)}
    verdict = claims.judged("content", found)
    assert (verdict.kind, verdict.rival) == ("rival", "vae")


def test_a_verdict_needs_two_standard_errors() -> None:
    """The mean is 0.5 above chance, by 1.9 and 2.1 of its standard errors."""
    for errors, kind in ((1.9, "false"), (2.1, "true")):
        spread = 0.5 / errors * 10  # 100 scenes, half of them above and half below
        each = 0.7 + spread * np.tile([1.0, -1.0], 50)
        assert found_of(each).error == pytest.approx(0.5 / errors)
        assert claims.judged("content", {"convnet": found_of(each)}).kind == kind


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 6)).astype(np.float32)
    there = Attribute("x", ("no", "yes"), (vectors[:, 2] > 0).astype(int))
    absent = Attribute("y", ("no", "yes"), rng.integers(0, 2, 1000))
    partial = Attribute("z", ("none", "a", "b"), 1 + (vectors[:, 1] > 0).astype(int), partial=True)
    partial.values[:500] = 0
    yes, no, some = claims.readable(vectors, [there, absent, partial])
    assert yes.value > 0.97 and abs(no.value - no.chance) < 0.06 and some.value > 0.95
    assert len(yes.each) == 500 and len(some.each) == 250


def test_agreement_is_one_where_neighbours_are_alike() -> None:
    near = np.array([[1], [0], [3], [2]])
    labels = [
        Attribute("x", ("a", "b"), np.array([0, 0, 1, 1])),
        Attribute("y", ("a", "b"), np.array([0, 1, 0, 1])),
        Attribute("z", ("none", "a"), np.array([1, 1, 1, 0]), partial=True),
    ]
    one, none, some = claims.agreements(near, labels)
    assert (one.value, none.value) == (1, 0) and one.chance == none.chance == pytest.approx(1 / 3)
    assert some.each.tolist() == [1, 1, 0] and some.chance == pytest.approx(2 / 3)
    assert claims.shared(near, near) == 1
    assert claims.shared(near, near[::-1]) == 0
