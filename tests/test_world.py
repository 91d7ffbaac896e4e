"""The picture book: one seed, one page, for ever; and what a page names is what it shows."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image, ImageFilter

from genkit.data.picturebook import book
from genkit.data.picturebook.book import cached, pictures
from genkit.data.picturebook.canvas import PARTS, Page
from genkit.data.picturebook.paint import compose
from genkit.data.picturebook.scene import (
    COLOURED,
    COLOURS,
    GROUNDS,
    HABITAT,
    HELD_OUT,
    KINDS,
    LABELS,
    SECOND,
    SIZES,
    SLOTS,
    SPLITS,
    TIMES,
    VERSION,
    Scene,
    Thing,
)
from genkit.data.picturebook.source import Captions, Latents, Pictures, to_uint8, to_unit
from genkit.data.picturebook.things import DRAW, PALETTE

ROOT = Path(__file__).resolve().parent.parent
SIZE = 128
PLACE = dict(zip(SLOTS, (0.2, 0.5, 0.8)))

WORLDS = {1: ("3c1df5fb9322f1e0", "8cc00daf652dd439")}
"""By version: hashes of the labels of 1,000 scenes, and of the shapes of 40."""


@pytest.fixture()
def fast() -> Iterator[None]:
    """Without checks of annotations, which cost more than the drawing."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def training() -> list[Scene]:
    """Every tenth scene of the training split: 20,000."""
    config.update("jaxtyping_disable", True)
    scenes = [Scene.random(seed) for seed in SPLITS["train"][::10]]
    config.update("jaxtyping_disable", False)
    return scenes


def pairs(scene: Scene) -> set[tuple[str, str | None]]:
    return {(thing.kind, thing.colour) for thing in scene.things}


def page(*things: Thing, **sky: object) -> Scene:
    plain = Scene(3, "day", "meadow", "clear", "none", "none", 0, False, None, things)
    return replace(plain, **sky)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def parts(scene: Scene) -> np.ndarray:
    return np.asarray(scene.semantic_map(SIZE))


def edges(x: np.ndarray, above: float) -> np.ndarray:
    """Pixels that differ from a neighbour by more than `above` in some channel."""
    x = x.reshape(*x.shape[:2], -1).astype(float)
    found = np.zeros(x.shape[:2], bool)
    down = np.abs(np.diff(x, axis=0)).max(-1) > above
    across = np.abs(np.diff(x, axis=1)).max(-1) > above
    found[:-1] |= down
    found[1:] |= down
    found[:, :-1] |= across
    found[:, 1:] |= across
    return found


def wider(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask and all that is at most `by` pixels away from it."""
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * by + 1))
    return np.asarray(grown) > 0


# --- one seed, one page -------------------------------------------------------------------------


def digest() -> str:
    """SHA-256 over pictures, line drawings and maps of twenty scenes, four of them held out."""
    total = hashlib.sha256()
    for seed in range(20):
        scene = Scene.random(seed, held_out=seed % 5 == 0)
        for image in (scene.render(64), scene.outline(64), scene.semantic_map(64)):
            total.update(image.tobytes())
        total.update(repr(scene).encode())
        total.update(scene.caption(random.Random(seed), "vi").encode())
    return total.hexdigest()


@pytest.mark.usefixtures("fast")
def test_another_process_makes_the_same_bytes():
    imports = "import hashlib, random\nfrom genkit.data.picturebook.scene import Scene\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}{inspect.getsource(digest)}\nprint(digest())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"},
    )
    assert done.stdout.split() == [digest()]


@pytest.mark.usefixtures("fast")
def test_the_world_is_the_one_that_the_checkpoints_know():
    """A change of what is drawn or labelled needs another VERSION, and new checkpoints."""
    labels = [list(Scene.random(seed, seed % 2 == 1).labels().values()) for seed in range(1000)]
    shapes = [
        [(s.colour, s.part, s.line, [(round(x, 5) + 0.0, round(y, 5) + 0.0) for x, y in s.points])
         for s in compose(Scene.random(seed)).shapes]
        for seed in range(40)
    ]  # fmt: skip
    found = [hashlib.sha256(json.dumps(x).encode()).hexdigest()[:16] for x in (labels, shapes)]
    assert VERSION in WORLDS and tuple(found) == WORLDS[VERSION]


def test_splits_are_disjoint():
    seeds = [seed for split in SPLITS.values() for seed in split]
    assert len(seeds) == len(set(seeds)) and set(SPLITS) == {"train", "validation", "test"}
    assert len(SPLITS["train"]) == 200_000 and min(map(len, SPLITS.values())) >= 10_000


# --- what there can be --------------------------------------------------------------------------


def test_it_is_rich_enough():
    assert len(KINDS) >= 12 and len(COLOURS) >= 10 and len(TIMES) >= 4 and len(GROUNDS) >= 4
    assert set(DRAW) == set(KINDS) == set(HABITAT) and set(PALETTE) == set(COLOURS)
    assert set(KINDS) | set(GROUNDS) < set(PARTS) and len(set(PARTS)) == len(PARTS)
    assert {kind for kind, _ in HELD_OUT} <= COLOURED <= set(KINDS)


def test_every_class_of_every_label_occurs(training):
    seen = {name: set() for name in LABELS}
    for scene in training:
        for name, value in scene.labels().items():
            seen[name].add(value)
    assert list(seen) == list(LABELS)
    for name, classes in LABELS.items():
        assert seen[name] == set(range(len(classes))), name


def test_held_out_pairs_never_occur_in_training(training):
    seen = set().union(*(pairs(scene) for scene in training))
    assert not seen & HELD_OUT
    # … and all other pairs do, so that only the combination is new.
    every = {(kind, colour) for kind in COLOURED for colour in COLOURS}
    every |= {(kind, None) for kind in set(KINDS) - COLOURED}
    assert seen == every - HELD_OUT


@pytest.mark.usefixtures("fast")
def test_held_out_scenes_have_at_least_one_pair_each_and_all_pairs_occur():
    found = [pairs(Scene.random(seed, held_out=True)) & HELD_OUT for seed in range(3000)]
    assert all(found)
    assert set().union(*found) == HELD_OUT


def test_things_stand_where_they_can(training):
    for scene in training:
        slots = [SLOTS.index(thing.slot) for thing in scene.things]
        assert 1 <= len(slots) <= 3 and slots == sorted(set(slots))
        for thing in scene.things:
            assert scene.ground in HABITAT[thing.kind] and thing.size in SIZES
            assert (thing.colour is not None) == (thing.kind in COLOURED)
            assert (thing.second is not None) == (thing.kind in SECOND)


def test_sky_and_weather_make_sense(training):
    for scene in training:
        night, clear = scene.time == "night", scene.weather == "clear"
        assert scene.light in (
            ("none", "full moon", "crescent moon") if night else ("none", "sun")
        )
        assert not (night and scene.rainbow)
        assert clear or scene.clouds >= 1
        assert clear or scene.balloon is None
        assert scene.weather != "snowfall" or scene.ground in ("meadow", "snow")
        assert scene.weather != "rain" or scene.ground != "snow"
        columns = scene.clouds + (scene.light != "none") + (scene.balloon is not None)
        assert columns <= 5


def test_time_and_ground_and_colour_are_independent(training):
    """Shares of combinations are products: four standard deviations of 20,000 draws."""
    times = Counter((scene.time, scene.ground) for scene in training)
    assert len(times) == 16
    assert all(abs(count / len(training) - 1 / 16) < 0.007 for count in times.values())
    boats = [t.colour for scene in training for t in scene.things if t.kind == "boat"]
    shares = Counter(boats)
    expected = 1 / (len(COLOURS) - sum(kind == "boat" for kind, _ in HELD_OUT))
    margin = 4 * (expected / len(boats)) ** 0.5
    assert all(abs(count / len(boats) - expected) < margin for count in shares.values())


def test_labels_and_scenes_are_one_to_one(training):
    for scene in training[::20]:
        labels = scene.labels()
        assert list(labels) == list(LABELS)
        assert Scene.from_labels(labels, scene.seed) == scene


def test_an_empty_slot_is_empty_whatever_its_other_labels_say():
    labels = page(Thing("pine", "left", "small")).labels()
    labels["right.colour"] = LABELS["right.colour"].index("red")
    labels["right.size"] = 2
    labels["left.size"] = 0
    assert Scene.from_labels(labels, 3) == page(Thing("pine", "left", "small"))


# --- what is named is shown ---------------------------------------------------------------------


@pytest.mark.usefixtures("fast")
def test_resolution_changes_nothing_but_sharpness():
    for seed in range(12):
        scene = Scene.random(seed)
        error = array(scene.render(256).reduce(2)) - array(scene.render(SIZE))
        assert 10 * np.log10(255**2 / np.square(error).mean()) > 32
        fine, coarse = np.asarray(scene.semantic_map(256))[::2, ::2], parts(scene)
        assert (fine == coarse).mean() > 0.95
        assert scene.render(40).size == (40, 40) and scene.render(40).mode == "RGB"


@pytest.mark.usefixtures("fast")
def test_the_map_holds_exactly_the_parts_that_the_scene_names():
    for seed in range(400):
        scene = Scene.random(seed, held_out=seed % 4 == 0)
        expected = {"sky", scene.ground} | {thing.kind for thing in scene.things}
        expected |= {
            part
            for part, there in {
                "mountain": scene.mountains != "none",
                "light": scene.light != "none",
                "cloud": scene.clouds > 0,
                "rainbow": scene.rainbow,
                "balloon": scene.balloon is not None,
            }.items()
            if there
        }
        counts = np.bincount(parts(scene).ravel(), minlength=len(PARTS))
        assert {PARTS[i] for i in np.nonzero(counts)[0]} == expected, seed
        assert all(counts[PARTS.index(part)] >= 50 for part in expected), seed


@pytest.mark.usefixtures("fast")
def test_each_thing_is_visible_at_its_place():
    """Things may overlap, but none hides behind another: at least 40 pixels around its place."""
    centres = (np.arange(SIZE) + 0.5) / SIZE
    for seed in range(400):
        scene = Scene.random(seed)
        found = parts(scene)
        for thing in scene.things:
            near = found[:, np.abs(centres - PLACE[thing.slot]) < 0.15]
            assert (near == PARTS.index(thing.kind)).sum() >= 40, (seed, thing)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("fast")
def test_the_named_colour_is_on_the_picture(kind):
    """By day colours are those of the palette; what is named takes most of a thing's area."""
    for i, colour in enumerate(COLOURS):
        ground = HABITAT[kind][i % len(HABITAT[kind])]
        own = colour if kind in COLOURED else None
        second = COLOURS[(i + 3) % len(COLOURS)] if kind in SECOND else None
        scene = page(Thing(kind, SLOTS[i % 3], SIZES[i % 2], own, second), ground=ground)
        pixels = np.asarray(scene.render(SIZE))[parts(scene) == PARTS.index(kind)]
        share = {
            name: (pixels == np.array(rgb)).all(axis=1).mean() for name, rgb in PALETTE.items()
        }
        named = {name for name in (own, second) if name}
        others = max(share[name] for name in COLOURS if name not in named)
        assert own is None or share[own] > max(0.09, 1.5 * others)
        assert second is None or share[second] > max(0.03, 1.5 * others)
        assert others < 0.1


@pytest.mark.usefixtures("fast")
def test_the_balloon_and_the_ground_have_their_colours():
    for colour in COLOURS:
        scene = page(Thing("pine", "left", "small"), balloon=colour)
        pixels = np.asarray(scene.render(SIZE))[parts(scene) == PARTS.index("balloon")]
        assert (pixels == np.array(PALETTE[colour])).all(axis=1).mean() > 0.1


@pytest.mark.usefixtures("fast")
def test_night_is_darker_than_day_and_windows_shine():
    house = Thing("house", "middle", "large", "red", "blue")
    day, night = (page(house, time=time).render(SIZE) for time in ("day", "night"))
    assert array(night).mean() < 0.6 * array(day).mean()
    lamp = np.array((255, 224, 120))
    assert (np.asarray(night) == lamp).all(-1).sum() > 20
    assert not (np.asarray(day) == lamp).all(-1).any()


@pytest.mark.usefixtures("fast")
def test_the_outline_is_ink_on_the_edges_of_the_picture():
    for seed in range(40):
        scene = Scene.random(seed)
        drawing = scene.outline(SIZE)
        assert drawing.mode == "L" and drawing.getextrema() == (0, 255)
        grey = np.asarray(drawing)
        ink = grey < 128
        assert (grey == 255).mean() > 0.7 and 0.02 < ink.mean() < 0.2
        map_edges = edges(parts(scene), 0)
        near = wider(map_edges | edges(np.asarray(scene.render(SIZE)), 4), 2)
        assert (ink & near).sum() / ink.sum() > 0.98, seed
        assert (map_edges & wider(ink, 2)).sum() / map_edges.sum() > 0.75, seed


@pytest.mark.usefixtures("fast")
def test_without_one_thing_the_rest_stays_as_it_was():
    """Shape by shape, and pixel by pixel outside the shapes that are gone."""
    tried = 0
    for seed in range(40):
        scene = Scene.random(seed)
        for gone in scene.things if len(scene.things) > 1 else ():
            less = replace(scene, things=tuple(t for t in scene.things if t is not gone))
            with_it, without = compose(scene), compose(less)
            rest = Counter(without.shapes)
            assert not rest - Counter(with_it.shapes)
            removed = Counter(with_it.shapes) - rest
            assert [s for s in with_it.shapes if not removed[s]] == without.shapes
            white = [replace(shape, colour=(255, 255, 255)) for shape in removed]
            region = array(Page((0, 0, 0), (0, 0, 0), 1.0, white).render(SIZE)).any(-1)
            changed = (array(with_it.render(SIZE)) != array(without.render(SIZE))).any(-1)
            assert changed.any() and not (changed & ~region).any(), (seed, gone)
            tried += 1
    assert tried > 40


# --- the cache ----------------------------------------------------------------------------------


@pytest.fixture()
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_pictures_are_rendered_once_in_the_order_of_their_seeds(cache, monkeypatch):
    seeds = range(5, 14, 4)
    found = pictures(seeds, 32)
    assert found.shape == (3, 32, 32, 3) and found.dtype == np.uint8
    for seed, picture in zip(seeds, found):
        assert np.array_equal(picture, np.asarray(Scene.random(seed).render(32)))
    assert [path.name for path in cache.iterdir()] == [f"book-v{VERSION}-32-5-14-4.npy"]

    def never(seeds, size, held_out, view):
        raise AssertionError("rendered again")

    monkeypatch.setattr(book, "rendered", never)
    again = pictures(seeds, 32)
    assert np.array_equal(again, found) and isinstance(again, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 0
    with pytest.raises(AssertionError, match="rendered again"):
        pictures(range(5, 14, 5), 32)


@pytest.mark.parametrize("view", [Scene.outline, Scene.semantic_map])
def test_other_views_are_kept_beside_the_pictures(cache, view):
    shown, found = pictures(range(2), 32), pictures(range(2), 32, view=view)
    assert found.shape == (2, 32, 32) and shown.shape == (2, 32, 32, 3)
    for seed, one in enumerate(found):
        assert np.array_equal(one, np.asarray(view(Scene.random(seed), 32)))


def test_a_cache_is_there_whole_or_not_at_all(cache):
    rows = np.arange(12, dtype=np.int64).reshape(3, 4)

    def broken() -> Iterator[np.ndarray]:
        yield rows[0]
        raise RuntimeError("power cut")

    def watched() -> Iterator[np.ndarray]:
        for row in rows:
            assert not (cache / "numbers.npy").exists()
            yield row

    with pytest.raises(RuntimeError, match="power cut"):
        cached("numbers", (3, 4), np.int64, broken)
    assert not (cache / "numbers.npy").exists()
    assert np.array_equal(cached("numbers", (3, 4), np.int64, watched), rows)
    assert np.array_equal(cached("numbers", (3, 4), np.int64, broken), rows)


def test_a_cache_that_cannot_be_is_named_with_its_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=f"{tmp_path / 'file'}.*GENKIT_CACHE"):
        pictures(range(2), 16)


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_cache_in_an_impossible_place_is_an_error_before_anything_is_drawn(
    folder, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("no folder")

    def never() -> Iterator[np.ndarray]:
        raise AssertionError("drawn")
        yield

    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / folder))
    with pytest.raises(OSError, match="file"):
        cached("numbers", (3, 4), np.int64, never)
    assert (tmp_path / "file").read_text() == "no folder"


# --- batches ------------------------------------------------------------------------------------


def encode(texts) -> torch.Tensor:
    """Each text as its first 40 letters."""
    return torch.tensor([[ord(c) for c in text[:40].ljust(40, "\0")] for text in texts])


def test_pixels_and_numbers_are_inverse():
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    unit = to_unit(levels)
    assert unit.min() == -1 and unit.max() == 1
    assert torch.equal(to_uint8(unit), levels)
    beyond = torch.tensor([-3.0, 3.0]).expand(1, 3, 1, 2)
    assert to_uint8(beyond).unique().tolist() == [0, 255]


@pytest.mark.usefixtures("fast")
def test_a_batch_of_pictures_is_what_its_seeds_are(cache):
    source = Pictures(range(100, 103), 32)
    batch = source.batch([2, 0], torch.Generator())
    for picture, labels, seed in zip(batch["picture"], batch["labels"], (102, 100)):
        scene = Scene.random(seed)
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), np.asarray(scene.render(32)))
        assert labels.tolist() == list(scene.labels().values())


@pytest.mark.usefixtures("fast")
def test_captions_are_fresh_but_a_function_of_the_generator():
    source = Captions(range(50), encode)
    draw = [source.batch(range(50), torch.Generator().manual_seed(s))["tokens"] for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    blank = Captions(range(50), encode, blank=0.3)
    empty = sum(
        int((~blank.batch(range(50), torch.Generator().manual_seed(s))["tokens"].any(1)).sum())
        for s in range(20)
    )
    assert 240 < empty < 360  # 300 ± 4 standard deviations of 1,000 draws


@pytest.mark.usefixtures("fast")
def test_complete_captions_come_beside_the_usual_and_the_empty_ones():
    def texts(complete: float) -> list[str]:
        seen: list[str] = []
        source = Captions(
            range(300), lambda some: seen.extend(some) or encode(some), 0.2, complete
        )
        source.batch(range(300), torch.Generator().manual_seed(0))
        return seen

    usual, half, full = texts(0.0), texts(0.4), texts(0.8)
    empty = [[not text for text in some] for some in (usual, half, full)]
    assert 30 < sum(empty[0]) < 90 and 30 < sum(empty[2]) < 90
    words = [np.mean([len(text.split()) for text in some if text]) for some in (usual, half, full)]
    assert words[0] * 1.15 < words[1] and words[1] * 1.1 < words[2]


@pytest.mark.usefixtures("fast")
def test_latents_go_with_their_captions():
    z = np.arange(4 * 2, dtype=np.float32).reshape(4, 2, 1, 1)
    source = Latents(z, Captions(range(10, 14), encode), lambda z: 2 * z)
    batch = source.batch([3, 1], torch.Generator().manual_seed(0))
    assert batch["latent"].flatten().tolist() == [12, 14, 4, 6]
    assert batch["labels"].tolist() == [list(Scene.random(s).labels().values()) for s in (13, 11)]
    with pytest.raises(ValueError, match="4 latents do not fit 3 captions"):
        Latents(z, Captions(range(3), encode), lambda z: z)
