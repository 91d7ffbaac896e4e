"""Hints and how well they are followed: known drawings, known answers."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_generate import fast  # noqa: F401

from genkit.adherence import agreement, overlap
from genkit.data.hints import BLANK, edges, layout, planes, rough, scribble
from genkit.data.picturebook.canvas import PART_COLOURS, PARTS, coloured
from genkit.data.picturebook.scene import Scene

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
    ink = outline < 128
    found = [agreement(hand, ink, within=5) for hand in hands]
    assert np.mean([one.precision for one in found]) > 0.97
    assert np.mean([one.recall for one in found]) > 0.9
    widths = [hand.sum() / ink.sum() for hand in hands]
    assert min(widths) < 1 < 1.5 < max(widths)


def test_a_rough_map_keeps_most_of_the_page_and_leaves_some_parts_out():
    parts = np.asarray(Scene.random(210_003).semantic_map(128))
    hands = [rough(parts, np.random.default_rng(seed)) for seed in range(40)]
    left = np.mean([(hand == BLANK).mean() for hand in hands])
    assert 0.05 < left < 0.3
    kept = [(hand == parts)[hand != BLANK].mean() for hand in hands if (hand != BLANK).any()]
    assert min(kept) > 0.9


def test_planes_are_one_where_a_part_was_painted():
    parts = np.array([[0, 3], [BLANK, len(PARTS) - 1]], dtype=np.uint8)
    found = planes(parts)
    assert found.shape == (len(PARTS), 2, 2)
    assert found.sum(dim=0).tolist() == [[1, 1], [0, 1]]
    assert torch.equal(found.argmax(dim=0)[0], torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=f"the value {len(PARTS)}: use 0 to"):
        planes(np.full((2, 2), len(PARTS), dtype=np.uint8))


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
