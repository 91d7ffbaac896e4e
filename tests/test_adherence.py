"""Hints and how well they are followed: known drawings, known answers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_generate import fast  # noqa: F401

from genkit import adherence
from genkit.adherence import (
    agreement,
    drawing_of_one,
    ideal,
    lines,
    overlap,
    painting,
    painting_of_one,
    regions,
    things_alone,
    with_one,
)
from genkit.data.hints import BLANK, edges, ink, layout, picked, planes, rough, scribble
from genkit.data.picturebook.canvas import PART_COLOURS, PARTS, coloured
from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.evaluate import evaluate
from genkit.fidelity import prompts
from genkit.models.controlnet import Control
from genkit.models.reader import Reader
from genkit.models.segmenter import Segmenter
from genkit.nn.unet import UNet

SIDE = 64


def line(row: int, first: int = 8, last: int = 56) -> np.ndarray:
    drawn = np.zeros((SIDE, SIDE), dtype=bool)
    drawn[row, first:last] = True
    return drawn


def test_equal_lines_agree_wholly():
    found = agreement(line(20), line(20))
    assert (found.precision, found.recall, found.f1, found.distance) == (1, 1, 1, 0)


@pytest.mark.parametrize(("by", "f1"), [(1, 1), (2, 1), (3, 0)])
def test_a_line_is_found_within_two_pixels(by, f1):
    found = agreement(line(20 + by), line(20))
    assert (found.f1, found.distance) == (f1, by)


def test_half_a_line_has_precision_one_and_recall_a_half():
    found = agreement(line(20, 8, 32), line(20))
    assert found.precision == 1
    assert found.recall == (24 + 2) / 48  # two pixels beyond its end still count
    assert found.f1 == pytest.approx(2 * found.recall / (1 + found.recall))
    twice = agreement(line(20) | line(40), line(20))
    assert (twice.precision, twice.recall) == (0.5, 1)
    assert twice.distance == (20 / 2 + 0) / 2


def test_no_edges_at_all_agree_with_nothing():
    found = agreement(np.zeros((SIDE, SIDE), dtype=bool), line(20))
    assert (found.f1, found.distance) == (0, math.hypot(SIDE, SIDE))
    with pytest.raises(ValueError, match="no ink"):
        agreement(line(20), np.zeros((SIDE, SIDE), dtype=bool))


@pytest.mark.usefixtures("fast")
def test_drawings_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="give equal ones"):
        agreement(line(20), line(20)[:32])


def test_overlap_is_intersection_over_union_of_all_pictures_together():
    painted = np.zeros((2, 4, 4), dtype=np.uint8)
    painted[:, :, 2:] = 1
    seen = painted.copy()
    seen[0, 0] = 1  # two of eight cells of class 0 are seen as class 1
    found = overlap(list(seen), list(painted), 3)
    assert found == {0: 14 / 16, 1: 16 / 18}
    painted[0, 0] = BLANK
    assert overlap(list(seen), list(painted), 3) == {0: 1, 1: 1}


def test_edges_of_a_square_run_along_its_border():
    picture = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    picture[20:40, 20:40] = (200, 40, 40)
    border = np.zeros((SIDE, SIDE), dtype=bool)
    border[20:40, 20:40] = True
    border[21:39, 21:39] = False
    found = agreement(edges(picture), border, within=1)
    assert found.f1 == 1
    assert not edges(np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)).any()


def test_edges_see_colours_of_equal_grey():
    picture = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    picture[:, :32] = (200, 0, 0)
    picture[:, 32:] = (0, 102, 0)  # as bright, by 0.299 R + 0.587 G
    assert edges(picture)[:, 30:34].any(axis=1).mean() > 0.9


def test_higher_thresholds_find_a_part_of_what_lower_ones_find():
    picture = np.asarray(Scene.random(210_003).render(128))
    low, high = edges(picture, 30, 60), edges(picture, 100, 200)
    assert 0 < high.sum() < low.sum()
    assert (low | high).sum() == low.sum()


@pytest.mark.parametrize(("low", "high"), [(60, 30), (-1, 5), (0, 1001), (math.nan, 60)])
def test_thresholds_out_of_range_are_refused_in_a_sentence(low, high):
    with pytest.raises(ValueError, match="The thresholds of edges are"):
        edges(np.zeros((8, 8, 3), dtype=np.uint8), low, high)


def test_a_scribble_follows_its_outline_and_differs_from_hand_to_hand():
    outline = np.asarray(Scene.random(210_003).outline(128))
    hands = [scribble(outline, np.random.default_rng(seed)) > 0 for seed in range(20)]
    assert np.array_equal(hands[0], scribble(outline, np.random.default_rng(0)) > 0)
    assert len({hand.tobytes() for hand in hands}) == 20
    dark = outline < 128
    found = [agreement(hand, dark, within=5) for hand in hands]
    assert np.mean([one.precision for one in found]) > 0.97
    assert np.mean([one.recall for one in found]) > 0.9
    widths = [hand.sum() / dark.sum() for hand in hands]
    assert min(widths) < 1 < 1.5 < max(widths)


def test_some_things_are_picked_whole_and_the_land_runs_on_behind_them():
    scene = Scene.random(210_003)
    land, things = (
        np.asarray(view(128)) for view in (scene.outline_of_land, scene.outline_of_things)
    )
    count, of = cv2.connectedComponents((things < 128).astype(np.uint8))
    found = [picked(land, things, np.random.default_rng(seed)) < 128 for seed in range(40)]
    with_land = [one[land < 128].all() for one in found]
    assert 10 < sum(with_land) < 30
    bare = [one for one, landed in zip(found, with_land) if not landed]
    shares = np.array([[one[of == k].mean() for k in range(1, count)] for one in bare])
    assert set(np.unique(shares)) == {0.0, 1.0} and shares.any(axis=1).all()
    assert not any(one[of == 0].any() for one in bare)
    blank = np.full_like(things, 255)
    assert np.array_equal(picked(land, blank, np.random.default_rng(0)), land)


def test_the_outline_is_that_of_the_land_and_of_the_things_but_for_hidden_lines():
    for seed in range(210_000, 210_020):
        scene = Scene.random(seed)
        whole, land, things = (
            np.asarray(view(128)) < 128
            for view in (scene.outline, scene.outline_of_land, scene.outline_of_things)
        )
        # At a border of the two, smoothing moves the grey of a pixel a little.
        assert (whole & ~(land | things)).sum() < 0.02 * whole.sum()
        assert (things & ~whole).sum() < 0.02 * things.sum()


def test_a_rough_map_keeps_most_of_the_page_and_leaves_some_parts_out():
    parts = np.asarray(Scene.random(210_003).semantic_map(128))
    hands = [rough(parts, np.random.default_rng(seed)) for seed in range(40)]
    left = np.mean([(hand == BLANK).mean() for hand in hands])
    assert 0.05 < left < 0.3
    kept = [(hand == parts)[hand != BLANK].mean() for hand in hands if (hand != BLANK).any()]
    assert np.mean(kept) > 0.95 and min(kept) > 0.85
    sparse = [rough(parts, np.random.default_rng(seed), 0.7) == BLANK for seed in range(40)]
    assert 0.55 < np.mean(sparse) < 0.85


def test_planes_are_one_where_a_part_was_painted():
    parts = torch.tensor([[0, 3], [BLANK, len(PARTS) - 1]], dtype=torch.uint8)
    found = planes(parts)
    assert found.shape == (len(PARTS), 2, 2)
    assert found.sum(dim=0).tolist() == [[1, 1], [0, 1]]
    assert torch.equal(found.argmax(dim=0)[0], torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=f"the value {len(PARTS)}: use 0 to"):
        planes(torch.full((2, 2), len(PARTS), dtype=torch.uint8))


def test_ink_is_one_where_a_line_is():
    assert ink(torch.tensor([[0, 255], [1, 0]], dtype=torch.uint8)).tolist() == [[[0, 1], [1, 0]]]


def test_a_map_in_colours_can_be_read_back():
    """No two parts look alike, and none looks like what is not painted."""
    assert tuple(PART_COLOURS) == PARTS
    known = np.array([*PART_COLOURS.values(), (255, 255, 255)], dtype=np.uint8)
    lab = cv2.cvtColor(known[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1e9 * np.eye(len(known))
    assert apart.min() > 10  # of CIELAB, where 2.3 can just be told apart
    parts = np.random.default_rng(0).integers(0, len(PARTS) + 1, (8, 8)).astype(np.uint8)
    shown = np.asarray(coloured(Image.fromarray(np.where(parts < len(PARTS), parts, BLANK))))
    assert np.array_equal((shown[..., None, :] == known).all(axis=-1).argmax(axis=-1), parts)


def test_a_layout_holds_the_mean_colours():
    picture = np.asarray(Scene.random(210_003).render(128))
    coarse = layout(picture, 4)
    assert len(np.unique(coarse.reshape(-1, 3), axis=0)) <= 16
    assert coarse[5, 7] == pytest.approx(picture[:32, :32].mean(axis=(0, 1)), abs=1)
    with pytest.raises(ValueError, match="0 cells a side"):
        layout(picture, 0)


# --- of a model, over test scenes ---------------------------------------------------------------


class Sighted(Segmenter):
    """Knows the true map of these scenes' pictures; any other page is all sky."""

    def __init__(self, seeds: tuple[int, ...]) -> None:
        super().__init__((8, 8, 8), (0, 0, 0))
        scenes = [Scene.random(seed) for seed in seeds]
        self.known = {
            scene.render(128).tobytes(): np.asarray(scene.semantic_map(128)) for scene in scenes
        }

    def parts(self, x: torch.Tensor) -> torch.Tensor:
        rows = ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        sky = np.zeros((128, 128), dtype=np.uint8)
        return torch.from_numpy(np.stack([self.known.get(row.tobytes(), sky) for row in rows]))


@pytest.fixture()
def shelf(tmp_path, monkeypatch) -> Path:
    """Checkpoints of a reader and two controls, with fresh weights."""
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path))
    for name, value in {"THREADS": "1", "DEVICE": "cpu", "DTYPE": "float32"}.items():
        monkeypatch.setenv(f"GENKIT_{name}", value)
    reader = Reader(widths=(8, 8, 8), blocks=(1, 1, 1), dim=16, layers=1, heads=2, tokens=4)
    reader.save_pretrained(tmp_path / "book128_reader")
    unet = UNet(4, (16, 16), (1, 1), (1, 1), 16, 16)
    for kind, planes_ in (("sketch", 1), ("map", len(PARTS))):
        Control.of(unet, kind, planes_).save_pretrained(tmp_path / kind)
    return tmp_path


class Copyist:
    """Draws the very scenes under a control, and an empty page without one."""

    def __init__(self, count: int) -> None:
        self.seed = {prompt.text: prompt.seed for prompt in prompts(count)}
        self.scenes = list(self.seed.values())
        self.hints: list[torch.Tensor] = []

    def __call__(
        self, hints: torch.Tensor, texts: Sequence[str], seeds: Sequence[int], strength: float
    ) -> Iterator[Image.Image]:
        assert len(hints) == len(texts) == len(seeds)
        if not any(texts):  # things alone
            assert strength == 1
            return (Scene.random(self.scenes[seed]).render(128) for seed in seeds)
        self.hints.append(hints)
        scenes = [Scene.random(self.seed[text]) for text in texts]
        empty = Image.new("RGB", (128, 128), (200, 200, 200))
        return (scene.render(128) if strength else empty for scene in scenes)


def test_who_draws_the_scenes_themselves_reaches_what_real_pictures_reach(shelf, monkeypatch):
    trace = Copyist(6)
    scenes = [Scene.random(seed) for seed in trace.scenes]
    monkeypatch.setattr(adherence, "seen", lambda pictures: scenes)
    report = evaluate("sketch", "adherence", n=6, draw=trace)
    best = ideal("sketch", list(prompts(6)))
    assert report.value == report.details["of real pictures"] == best["f1"]
    assert report.details["uncontrolled"] == 0  # an empty page has no edges
    assert report.details["uncontrolled distance"] > 10 * report.details["distance"]
    assert report.details["things alone"] == 1
    assert {key: report.details[key] for key in ("precision", "recall", "distance")} == {
        key: best[key] for key in ("precision", "recall", "distance")
    }
    assert 0.5 < report.value < 1 and report.details["distance"] > 0
    drawn = adherence.drawing(next(prompts(1)).seed) > 0
    assert all(torch.equal(hints[0, 0], torch.from_numpy(drawn).float()) for hints in trace.hints)


def test_one_thing_alone_is_all_that_is_drawn_and_painted_of_a_scene():
    for seed in SPLITS["test"][:12]:
        scene = Scene.random(seed)
        thing = scene.things[0]
        parts = np.asarray(with_one(scene).semantic_map(128))
        there = parts == PARTS.index(thing.kind)
        near = cv2.dilate(there.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
        drawn, painted = drawing_of_one(scene), painting_of_one(scene)
        assert drawn.any() and not drawn[~near].any()
        assert set(np.unique(painted)) == {PARTS.index(thing.kind), BLANK}
        assert ((painted != BLANK) == there).mean() > 0.95
        assert np.array_equal(drawn, drawing_of_one(scene))


def test_things_alone_are_found_by_kind_and_place(monkeypatch):
    asked = list(prompts(8))
    scenes = [Scene.random(prompt.seed) for prompt in asked]

    def trace(hints, texts, seeds, strength):
        assert texts == [""] * 8 and strength == 1 and hints.shape == (8, 1, 128, 128)
        assert torch.equal(hints[3, 0] > 0, torch.from_numpy(drawing_of_one(scenes[3]) > 0))
        return (Image.new("RGB", (1, 1), (seed, 0, 0)) for seed in seeds)

    def reader(pictures):
        """Sees the right things, but for one of another kind and one elsewhere."""
        found = [scenes[picture.getpixel((0, 0))[0]] for picture in pictures]
        first = found[0].things[0]
        kind = "boat" if first.kind != "boat" else "whale"
        found[0] = replace(found[0], things=(replace(first, kind=kind),))
        first = found[1].things[0]
        slot = "left" if first.slot != "left" else "right"
        found[1] = replace(found[1], things=(replace(first, slot=slot),))
        return found

    monkeypatch.setattr(adherence, "seen", reader)
    assert things_alone(trace, "sketch", asked) == 6 / 8


def test_means_of_lines_are_those_of_the_pictures():
    seeds = SPLITS["test"][:3]
    pictures = [Scene.random(seed).render(128) for seed in seeds]
    each = [lines([picture], [seed]) for picture, seed in zip(pictures, seeds)]
    together = lines(pictures, seeds)
    for key, value in together.items():
        assert value == pytest.approx(np.mean([one[key] for one in each]))


def test_a_painter_of_the_scenes_is_wrong_only_where_the_hand_wandered(shelf, monkeypatch):
    seeds = [prompt.seed for prompt in prompts(6)]
    monkeypatch.setattr(adherence.hub, "load", lambda name, load=adherence.hub.load: (
        Sighted(tuple(seeds)) if name == adherence.SEGMENTER else load(name)
    ))  # fmt: skip
    pictures = [Scene.random(seed).render(128) for seed in seeds]
    maps = [np.array(Scene.random(seed).semantic_map(128)) for seed in seeds]
    by_hand = overlap(maps, [painting(seed) for seed in seeds], len(PARTS))
    found = regions(pictures, seeds)
    assert found["miou"] == pytest.approx(np.mean(list(by_hand.values()))) and found["miou"] < 1
    assert {PARTS[k]: v for k, v in by_hand.items()} == {
        k: v for k, v in found.items() if k != "miou"
    }
    monkeypatch.setattr(adherence, "painting", lambda seed: maps[seeds.index(seed)])
    assert set(regions(pictures, seeds).values()) == {1}
    report = evaluate("map", "adherence", n=6, draw=Copyist(6))
    assert report.value == report.details["of real pictures"] == 1
    share = np.mean([one == 0 for one in maps])
    assert report.details["uncontrolled"] == pytest.approx(share / len(np.unique(maps)))


def test_a_segmenter_that_knows_is_right_everywhere(monkeypatch):
    seeds = SPLITS["test"][2:7]
    monkeypatch.setattr("genkit.pixels.exact", lambda name: Sighted(tuple(seeds)))
    report = evaluate("sighted", "parts", n=5, seed=2)
    assert report.value == 1 and set(report.details.values()) == {1}
    drawn = {PARTS[k] for s in seeds for k in np.unique(Scene.random(s).semantic_map(128))}
    assert set(report.details) == drawn | {"pixels"}


def test_a_segmenter_that_sees_only_sky_is_as_right_as_there_is_sky(monkeypatch):
    sky = Segmenter((8, 8, 8), (0, 0, 0))
    torch.nn.init.zeros_(sky.last.conv.weight)
    torch.nn.init.zeros_(sky.last.conv.bias)  # of equal answers the first, the sky, is taken
    monkeypatch.setattr("genkit.pixels.exact", lambda name: sky)
    report = evaluate("sky", "parts", n=5)
    maps = [np.asarray(Scene.random(seed).semantic_map(128)) for seed in SPLITS["test"][:5]]
    share = np.mean([one == 0 for one in maps])
    assert report.details["pixels"] == report.details["sky"] == pytest.approx(share)
    assert report.value == pytest.approx(share / len(np.unique(maps)))


def test_what_is_no_control_is_refused_in_a_sentence(shelf):
    with pytest.raises(ValueError, match="follows no hint: adherence measures book128_sketch"):
        evaluate("book128_reader", "adherence", n=2, draw=Copyist(2))
