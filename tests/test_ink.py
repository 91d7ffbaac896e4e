"""What a visitor has drawn, read from files of every kind."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from apps import ink
from apps.receipt import profiles
from apps.settings import Refused
from genkit.adherence import drawing, painting
from genkit.data.hints import BLANK
from genkit.data.picturebook.canvas import PART_COLOURS, PARTS
from genkit.data.picturebook.scene import Scene

SEEDS = range(210_000, 210_006)


def packed(image: Image.Image, kind: str = "PNG", **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def stroke(mode: str, paper, colour, size=(512, 512)) -> Image.Image:
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).line((40, 60, size[0] - 60, size[1] - 40), fill=colour, width=6)
    return image


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawing_comes_back_from_its_own_file(seed):
    for kind, values in (("sketch", drawing(seed)), ("map", painting(seed))):
        one = ink.Drawing(kind, values)
        assert np.array_equal(ink.stored(kind, one.file()).values, values)
        assert len(one.file()) < 6000 and not one.empty
        shown = packed(one.image())
        for seen in (ink.read(kind, shown), ink.board(kind, f"data:image/png;base64,{shown}")):
            assert np.array_equal(seen.values, values)


@pytest.mark.parametrize("share", [0.02, 0.4, 0.6, 0.97])
def test_a_receipt_keeps_any_drawing_and_the_board_is_never_inverted(share):
    rng = np.random.default_rng(0)
    values = np.where(rng.random((128, 128)) < share, 255, 0).astype(np.uint8)
    one = ink.Drawing("sketch", values)
    assert np.array_equal(ink.stored("sketch", one.file()).values, values)
    assert np.array_equal(ink.board("sketch", packed(one.image())).values, values)
    noisy = ink.Drawing("map", rng.integers(0, len(PARTS), (128, 128)).astype(np.uint8))
    assert np.array_equal(ink.stored("map", noisy.file()).values, noisy.values)
    assert len(noisy.file()) < 20_000  # of the 65,536 characters of a receipt


def test_many_colour_profiles_are_refused_before_they_are_unpacked():
    plain = base64.b64decode(packed(Image.new("L", (8, 8))))
    body = b"iCCPk\0\0" + zlib.compress(bytes(1000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    for count in (0, 1, 2, 3000):
        data = plain[:33] + count * chunk + plain[33:]
        assert profiles(data) == count
        if count > 1:
            with pytest.raises(Refused, match="damaged"):
                ink.read("sketch", base64.b64encode(data).decode())
    assert profiles(b"GIF89a") == profiles(b"") == 0


def test_what_is_no_drawing_of_a_receipt_is_refused():
    for kind, image in (
        ("sketch", Image.new("L", (64, 64))),
        ("sketch", Image.new("L", (128, 128), 7)),
        ("map", Image.new("L", (128, 128), len(PARTS))),
    ):
        with pytest.raises(Refused, match="receipt"):
            ink.stored(kind, packed(image))


def test_both_polarities_and_a_layer_are_the_same_ink():
    dark = ink.read("sketch", packed(stroke("RGB", "white", "black"))).values
    for image in (
        stroke("RGB", "black", "white"),
        stroke("L", 255, 0),
        stroke("RGB", "white", "black").convert("P"),
        stroke("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
        stroke("RGBA", (0, 0, 0, 0), (255, 255, 255, 255)),
        stroke("RGBA", (255, 255, 255, 255), (20, 90, 30, 255)),
        stroke("I;16", 65535, 0),
    ):
        assert np.array_equal(ink.read("sketch", packed(image)).values, dark), image.mode
    jpeg = ink.read("sketch", packed(stroke("RGB", "white", "black"), "JPEG", quality=60)).values
    assert (jpeg != dark).mean() < 0.01


def test_a_thin_line_of_a_large_drawing_stays_and_a_long_one_keeps_its_sides():
    wide = Image.new("L", (1200, 600), 255)
    ImageDraw.Draw(wide).line((0, 300, 1199, 300), fill=0, width=2)
    rows, columns = np.nonzero(ink.read("sketch", packed(wide)).values)
    assert set(columns) == set(range(128)) and 62 <= rows.min() <= rows.max() <= 65


@pytest.mark.parametrize("paper", ["black", "white", "#777777"])
def test_one_colour_all_over_is_no_drawing(paper):
    plain = packed(Image.new("RGB", (300, 200), paper))
    assert ink.read("sketch", plain).empty and not ink.read("sketch", plain).hint().any()
    full = ink.board("sketch", packed(Image.new("RGB", (64, 64), "black")))  # ink all over
    assert full.empty and not full.hint().any()
    assert ink.read("map", packed(Image.new("RGBA", (50, 50)))).empty
    assert ink.read("sketch", "").empty and ink.read("map", "").empty
    assert not ink.read("map", "").hint().any()


def test_paints_are_told_apart_and_other_colours_are_none():
    for index, part in enumerate(PARTS):
        plain = ink.painted(np.full((20, 30, 4), (*PART_COLOURS[part], 255), dtype=np.uint8))
        assert set(plain[40:88].ravel()) == {index}
        assert set(plain[0]) == {BLANK}  # a margin
    white = ink.painted(np.full((16, 16, 4), 255, dtype=np.uint8))
    assert (white == BLANK).all()
    assert set(PART_COLOURS) == set(PARTS) and len(set(PART_COLOURS.values())) == len(PARTS)


def test_a_photo_is_its_edges_and_a_picture_follows_its_own_map():
    scene = Scene.random(SEEDS[0])
    picture = scene.render(128)
    sketch = ink.photographed(picture, 30, 60)
    assert ink.followed(sketch, picture).f1 == 1
    painted = ink.Drawing("map", np.asarray(scene.semantic_map(128)))
    assert ink.covered(painted, painted.values) == 1
    other = np.asarray(Scene.random(SEEDS[1]).semantic_map(128))
    assert ink.covered(painted, other) < 0.6
    with pytest.raises(ValueError, match="thresholds"):
        ink.photographed(picture, 80, 60)


@pytest.mark.parametrize(
    ("file", "word"),
    [
        (7, "base64"),
        ("!!!", "base64"),
        (base64.b64encode(b"GIF89a broken").decode(), "cannot be read|not a picture"),
        (packed(Image.new("1", (5000, 5000))), "pixels"),
        (packed(Image.new("L", (2000, 10))), "longer than wide"),
    ],
)
def test_what_is_no_drawing_is_a_sentence(file, word):
    for kind in ("sketch", "map"):
        with pytest.raises(Refused, match=word):
            ink.read(kind, file)
