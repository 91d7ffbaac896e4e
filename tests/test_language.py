"""The language of the picture book: captions are true, and prompts are understood.

The identity behind all of it:  parse(describe(ask)).ask = ask  for every ask made by `plan`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from genkit.data.picturebook.ask import Ask, Look, ThingAsk
from genkit.data.picturebook.caption import EXAMPLES, canonical, caption, describe
from genkit.data.picturebook.lexicon import language
from genkit.data.picturebook.parse import parse
from genkit.data.picturebook.plan import COMPLETE, everything, plan
from genkit.data.picturebook.scene import COLOURS, HELD_OUT, LABELS, SLOTS, Scene, Thing
from genkit.data.picturebook.words import (
    COLOUR_WORDS,
    FILLERS,
    KIND_WORDS,
    LANGUAGES,
    LINKS,
    NUMBERS,
    PART_WORDS,
    SIZE_WORDS,
    SLOT_WORDS,
    Language,
)

MOUNTAINS = ("bare", "snowy")
RED_HOUSE = ThingAsk("house", (), Look(("red",), ("blue",), (), ("left",)))
ISSUE = Ask(time=("night",), mountains=("snowy",), things=(RED_HOUSE,))


@pytest.fixture()
def fast() -> Iterator[None]:
    """Without checks of annotations, which cost more than the language: for thousands of texts."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def thing(kind: str, **look: str) -> ThingAsk:
    return ThingAsk(kind, (), Look(**{name: (value,) for name, value in look.items()}))


def pair(kind: str, name: str, *values: str) -> ThingAsk:
    return ThingAsk(kind, (len(values),), Look(), tuple(Look(**{name: (v,)}) for v in values))


def page(*things: Thing, **sky: object) -> Scene:
    plain = Scene(0, "day", "meadow", "clear", "none", "none", 0, False, None, things)
    return replace(plain, **sky)


def failed(text: str, scene: Scene) -> list[str]:
    return [check.english for check in parse(text).ask.check(scene) if not check.ok]


# --- captions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tongue", LANGUAGES)
@pytest.mark.usefixtures("fast")
def test_what_is_said_is_what_is_read(tongue: Language) -> None:
    for seed in range(2000):
        scene, rng = Scene.random(seed, held_out=seed % 4 == 0), random.Random(seed)
        ask = plan(scene, rng, tongue)
        text = describe(ask, rng, tongue)
        assert parse(text).ask == ask, text
        assert parse(text).unknown == (), text


@pytest.mark.parametrize("tongue", LANGUAGES)
def test_a_complete_plan_leaves_nothing_of_a_thing_open(tongue):
    rng = random.Random(3)
    for seed in range(300):
        scene = Scene.random(seed)
        ask = plan(scene, rng, tongue, COMPLETE)
        kinds = [thing.kind for thing in scene.things]
        assert {thing.kind for thing in ask.things} == set(kinds)
        for thing in scene.things:
            if kinds.count(thing.kind) == 1:
                look = next(asked.look for asked in ask.things if asked.kind == thing.kind)
                for name in ("colour", "second", "size", "slot"):
                    value, choice = getattr(thing, name), getattr(look, name)
                    assert value in choice if value else not choice
        assert ask.time and ask.ground and bool(ask.balloon) >= bool(scene.balloon)


@pytest.mark.parametrize("tongue", LANGUAGES)
@pytest.mark.usefixtures("fast")
def test_captions_are_true_and_of_readable_length(tongue: Language) -> None:
    for seed in range(2000):
        scene = Scene.random(seed)
        text = caption(scene, random.Random(seed), tongue)
        parsed = parse(text)
        assert text
        assert parsed.unknown == (), text
        assert all(check.ok for check in parsed.ask.check(scene)), text
        assert len(re.findall(r"\w+|[^\w\s]", text)) <= 62, text


@pytest.mark.parametrize("tongue", LANGUAGES)
@pytest.mark.usefixtures("fast")
def test_canonical_caption_says_everything(tongue: Language) -> None:
    for seed in range(200):
        scene = Scene.random(seed)
        parsed = parse(canonical(scene, tongue))
        assert canonical(scene, tongue) == canonical(scene, tongue)
        assert parsed.ask == everything(scene)
        assert parsed.unknown == ()
        assert all(check.ok for check in parsed.ask.check(scene))
        assert not all(check.ok for check in parsed.ask.check(_changed(scene, seed)))


def _changed(scene: Scene, seed: int) -> Scene:
    """The scene with one label changed, among those that the scene gives a value."""
    rng, labels = random.Random(seed), scene.labels()
    said = [name for name in LABELS if "." not in name and name not in ("light",)]
    said += [name for name in LABELS if "." in name and labels[name] > 0]
    name = rng.choice(said)
    others = [value for value in range(len(LABELS[name])) if value != labels[name]]
    changed = Scene.from_labels(labels | {name: rng.choice(others)})
    return changed if changed.labels() != labels else _changed(scene, seed + 1)


@pytest.mark.usefixtures("fast")
def test_captions_vary_and_repeat() -> None:
    scene = Scene.random(0)
    for tongue in LANGUAGES:
        texts = [caption(scene, random.Random(seed), tongue) for seed in range(100)]
        assert len(set(texts)) > 90
        assert texts[7] == caption(scene, random.Random(7), tongue)


@pytest.mark.usefixtures("fast")
def test_stars_shine_only_in_a_clear_night() -> None:
    for seed in range(2000):
        scene = Scene.random(seed)
        text = caption(scene, random.Random(seed), "en")
        if scene.time != "night" or scene.weather != "clear":
            assert "star" not in text


def test_another_language_is_refused() -> None:
    with pytest.raises(ValueError, match="'fr'"):
        caption(Scene.random(0), random.Random(0), "fr")  # type: ignore[arg-type]


@pytest.mark.parametrize("tongue", LANGUAGES)
def test_examples_are_understood(tongue: Language) -> None:
    for text in EXAMPLES[tongue]:
        parsed = parse(text)
        assert language(text) == tongue
        assert parsed.unknown == ()
        assert parsed.ask.things
        for asked in parsed.ask.things:
            assert not HELD_OUT & {(asked.kind, colour) for colour in asked.look.colour}
    assert [parse(text).ask for text in EXAMPLES["en"][:4]] == [
        parse(text).ask for text in EXAMPLES["vi"][:4]
    ]


# --- prompts ------------------------------------------------------------------------------------

PROMPTS = {
    "a red house with a blue roof on the left, snowy mountains, at night": ISSUE,
    "Red House, Blue Roof, left; SNOW-CAPPED MOUNTAINS; night!": ISSUE,
    "at night, on the left a blue-roofed red house, snowy peaks": ISSUE,
    "The house on the left is red and its roof is blue. Night. Snowy mountains.": ISSUE,
    "một ngôi nhà màu đỏ có mái xanh dương ở bên trái, núi tuyết, ban đêm": ISSUE,
    "mot ngoi nha mau do co mai xanh duong o ben trai, nui tuyet, ban dem": ISSUE,
    "Bên trái có một ngôi nhà đỏ mái xanh dương, núi phủ tuyết, trời tối": ISSUE,
    "hai cây thông": Ask(things=(ThingAsk("pine", (2,)),)),
    "2 pine trees": Ask(things=(ThingAsk("pine", (2,)),)),
    "some trees and clouds": Ask(clouds=("1", "2", "3"), things=(ThingAsk("tree", (2, 3)),)),
    "five clouds": Ask(clouds=("5",)),
    "no mountains, no clouds, no houses": Ask(
        mountains=("none",), clouds=("0",), things=(ThingAsk("house", (0,)),)
    ),
    "không có mây": Ask(clouds=("0",)),
    "mountains under the moon": Ask(mountains=MOUNTAINS, light=("full moon", "crescent moon")),
    "a red balloon over the sea": Ask(ground=("sea",), balloon=("red",)),
    "khinh khí cầu màu đỏ": Ask(balloon=("red",)),
    "a hot-air balloon": Ask(balloon=COLOURS),
    "nhà xanh": Ask(things=(ThingAsk("house", (), Look(("green", "blue"))),)),
    "two houses, one red and one blue": Ask(things=(pair("house", "colour", "red", "blue"),)),
    "two houses, one is red and the other is blue": Ask(
        things=(pair("house", "colour", "red", "blue"),)
    ),
    "hai cây thông, một cây ở bên trái và một cây ở bên phải": Ask(
        things=(pair("pine", "slot", "left", "right"),)
    ),
    "two pines on the left and right": Ask(things=(pair("pine", "slot", "left", "right"),)),
    "a red house and a blue one": Ask(
        things=(thing("house", colour="red"), thing("house", colour="blue"))
    ),
    "a house on the left and a boat on the right": Ask(
        things=(thing("house", slot="left"), thing("boat", slot="right"))
    ),
    "on the left, a red house; on the right, a blue boat": Ask(
        things=(
            thing("house", colour="red", slot="left"),
            thing("boat", colour="blue", slot="right"),
        )
    ),
    "a red and white lighthouse": Ask(
        things=(ThingAsk("lighthouse", (), Look(("red", "white"))),)
    ),
    "a blue sky with white clouds and a yellow sun over green grass": Ask(
        time=("day",), clouds=("1", "2", "3"), light=("sun",), ground=("meadow",)
    ),
    "small boat with a white sail in the rain": Ask(
        weather=("rain",), things=(thing("boat", second="white", size="small"),)
    ),
    "một chiếc thuyền nhỏ có cánh buồm trắng dưới mưa": Ask(
        weather=("rain",), things=(thing("boat", second="white", size="small"),)
    ),
    "": Ask(),
    "red": Ask(),
}


@pytest.mark.parametrize("text", PROMPTS)
def test_prompts(text: str) -> None:
    parsed = parse(text)
    assert parsed.ask == PROMPTS[text]
    assert parsed.unknown == ()


UNKNOWN = {
    "a red dragon next to a house": (("dragon",), ThingAsk("house")),
    "con rồng đỏ bên cạnh ngôi nhà": (("rồng",), ThingAsk("house")),
    "a red beautful house": (("beautful",), thing("house", colour="red")),
    "ngôi nhà lung linh màu đỏ": (("lung linh",), thing("house", colour="red")),
    "a house with a green door": (("door",), ThingAsk("house")),
    "🐉 a house, two Unicorns, 🐉": (("🐉", "Unicorns"), ThingAsk("house")),
    "a pink sky, a boat": (("pink sky",), ThingAsk("boat")),
    "two balloons over a house": (("two",), ThingAsk("house")),
    "بيت a house": (("بيت",), ThingAsk("house")),
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_words_are_named_and_keep_their_adjectives(text: str) -> None:
    parsed = parse(text)
    assert (parsed.unknown, parsed.ask.things[0]) == UNKNOWN[text]


def _vocabulary() -> list[str]:
    tables = (COLOUR_WORDS, KIND_WORDS, PART_WORDS, SIZE_WORDS, SLOT_WORDS)
    forms = [names[t] for table in tables for names in table.values() for t in LANGUAGES]
    words = [word for form in (*forms, *FILLERS.values()) for word in re.split(r"[|/]", form)]
    words += [word for t in LANGUAGES for word in (*LINKS[t], *NUMBERS[t])]
    return sorted({*words, ",", ".", "night", "clouds", "mây", "balloon", "dragon", "rồng"})


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.text(), st.lists(st.sampled_from(_vocabulary())).map(" ".join)))
def test_any_text_is_accepted(text: str) -> None:
    parsed = parse(text)
    for check in parsed.ask.check(Scene.random(len(text))):
        assert check.english
        assert check.vietnamese


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("word", ["house ", "one ", "red ", "x ", "🐉", "và", "a two no with "])
def test_long_texts_are_read(word: str) -> None:
    text = word * (100_000 // len(word))
    assert len(parse(text).ask.check(Scene.random(1))) < 200_000


# --- asked and found ----------------------------------------------------------------------------

HOUSE = Thing("house", "left", "small", "red", "blue")
OTHER = Thing("house", "right", "large", "white", "green")


def test_checks_name_what_is_missing() -> None:
    scene = page(HOUSE, time="night", mountains="snowy")
    text = "a red house with a blue roof on the left, snowy mountains, at night"
    assert failed(text, scene) == []
    assert [check.english for check in parse(text).ask.check(scene)] == [
        "night", "snowy mountains", "house", "house: red", "house: blue roof",
        "house: on the left",
    ]  # fmt: skip
    assert [check.vietnamese for check in parse(text).ask.check(scene)][2:] == [
        "ngôi nhà", "ngôi nhà: màu đỏ", "ngôi nhà: mái màu xanh dương", "ngôi nhà: ở bên trái",
    ]  # fmt: skip
    assert failed(text, page(OTHER, time="dawn", mountains="bare")) == [
        "night", "snowy mountains", "house: red", "house: blue roof", "house: on the left",
    ]  # fmt: skip
    empty = page(Thing("pine", "left", "small"), time="night", mountains="snowy")
    assert len(failed(text, empty)) == 4


def test_things_are_matched_so_that_most_agrees() -> None:
    scene = page(HOUSE, OTHER)
    assert failed("a large white house and a small red house", scene) == []
    assert failed("a white house on the right and a house on the left", scene) == []
    assert failed("two houses, one white and one red", scene) == []
    assert failed("two houses, one white and one black", scene) == ["house: black"]
    assert failed("two red houses", scene) == ["house: red"]
    assert failed("a pink house", scene) == ["house: pink"]


def test_numbers_are_exact() -> None:
    pines = [Thing("pine", slot, "small") for slot in SLOTS]
    assert failed("two pines", page(*pines[:2])) == []
    assert failed("two pines", page(*pines)) == ["two pines"]
    assert failed("two pines", page(*pines[:1])) == ["two pines"]
    assert failed("pines", page(*pines)) == []
    assert failed("a pine", page(*pines)) == []
    assert failed("ten pines", page(*pines)) == ["10 pines"]
    assert failed("no pines", page(*pines)) == ["no pine"]
    assert failed("two pines and a pine", page(*pines)) == []
    flowers = [Thing("flower", "left", "small", c) for c in ("red", "red", "blue")]
    assert failed("two red flowers", page(*flowers)) == []


def test_balloon_and_nature() -> None:
    whale = Thing("whale", "left", "small")
    assert failed("a red balloon", page(whale)) == ["hot-air balloon", "hot-air balloon: red"]
    assert failed("a red balloon", page(whale, balloon="blue")) == ["hot-air balloon: red"]
    assert failed("no balloon", page(whale, balloon="blue")) == ["no balloon"]
    assert failed("a blue whale", page(whale)) == []
    assert failed("a red whale", page(whale)) == ["whale: red"]
    assert failed("evening, clouds", page(whale, time="night", clouds=3)) == []
