"""The pages without a browser: texts, checks, cards and handlers."""

import json
import math
import random
import re
import string
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from fake import SAMPLERS, FakeTextToImage, fake_studio
from PIL import Image

import apps
from apps import cards, common, handlers
from apps.cards import Card, Mark
from apps.handlers import Desk
from apps.settings import (
    CAREFUL,
    DEFAULTS,
    FAST,
    MAX_SEED,
    MODELS,
    NAMES,
    OWN,
    Refused,
    check,
    check_text,
    defaults,
    known,
)
from apps.text import LANGUAGES, Pair, both, locale, say
from genkit import hub
from genkit.data.picturebook import LABELS, Scene
from genkit.data.picturebook.caption import canonical
from genkit.generate import TextToImage

HERE = Path(apps.__file__).parent
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in HERE.glob("*.py"))


def desk() -> Desk:
    return Desk(fake_studio(FakeTextToImage()))


# Texts


def gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_texts() -> None:
    english, vietnamese = (locale(language) for language in LANGUAGES)
    assert list(english) == list(vietnamese)
    assert all(text.strip() for text in (*english.values(), *vietnamese.values()))
    for key in english:
        assert gaps(english[key]) == gaps(vietnamese[key]), key


def test_a_locale_has_no_key_twice() -> None:
    for language in LANGUAGES:
        text = (HERE / "locale" / f"{language}.json").read_text(encoding="utf-8")
        keys = [key for key, _ in json.loads(text, object_pairs_hook=list)]
        assert len(keys) == len(set(keys))


def test_every_text_is_used() -> None:
    stems = r"\.(label|info|placeholder|value|title)$"
    for key in locale("en"):
        stem = re.sub(stems, "", key)
        parts = key.split(".")  # families as in f"page.{name}" and f"latents.name.{name}"
        families = [".".join(parts[:i]) + ".{" for i in range(1, len(parts))]
        assert (
            f'"{key}"' in SOURCES
            or f"'{key}'" in SOURCES
            or f'"{stem}"' in SOURCES
            or any(family in SOURCES for family in families)
        ), key


def test_every_control_has_a_help() -> None:
    """A one-line help under the control, or where a button has no place for it, as its title."""
    texts = locale("en")
    for key in texts:
        if key.endswith((".label", ".value")) and not key.startswith(("advanced", "name.")):
            stem = key.rpartition(".")[0]
            assert f"{stem}.info" in texts or f"{stem}.title" in texts, key


def test_both_escapes_values_and_keeps_pairs_apart() -> None:
    text = both("notice.unknown", words="<script>")
    assert "<script>" not in text and text.count("&lt;script&gt;") == 2
    english, vietnamese = both("notice.refused", sentence=Pair("A", "B")).split("</span>")[:2]
    assert "A" in english and "B" not in english and "B" in vietnamese


# Checks

BAD = [
    ("prompt", "", "empty"),
    ("prompt", "   \n\t ", "empty"),
    ("prompt", "x" * 1001, "1001 characters, and at most 1000"),
    ("prompt", "x" * 100_000, "100000 characters, and at most 1000"),
    ("prompt", "a\0b", r"U\+0000"),
    ("prompt", "a\x1bb", r"U\+001B"),
    ("prompt", "a\ud800b", r"U\+D800"),
    ("prompt", None, "not text"),
    ("prompt", ["a"], "not text"),
    ("prompt", {"path": "/etc/passwd"}, "not text"),
    ("prompt", 7, "not text"),
    ("prompt", "a" + "\u0323\u0301" * 50_000, "100001 characters"),
    ("negative_prompt", "y" * 5000, "5000 characters"),
    ("n", 0, "from 1 to 8"),
    ("n", 9, "from 1 to 8"),
    ("n", 2.5, "whole number"),
    ("n", True, "not a number"),
    ("n", "4", "not a number"),
    ("n", None, "not a number"),
    ("n", [4], "not a number"),
    ("seed", -1, "from 0 to 2147483647"),
    ("seed", MAX_SEED + 1, "from 0 to 2147483647"),
    ("seed", 10**400, "from 0 to 2147483647"),
    ("seed", math.nan, "not a number"),
    ("num_inference_steps", 0, "from 1 to 100"),
    ("num_inference_steps", 101, "from 1 to 100"),
    ("num_inference_steps", 1e308, "from 1 to 100"),
    ("num_inference_steps", 20.7, "whole number"),
    ("guidance_scale", math.nan, "not a number"),
    ("guidance_scale", math.inf, "not a number"),
    ("guidance_scale", -0.5, "from 0 to 20"),
    ("guidance_scale", 21, "from 0 to 20"),
    ("guidance_scale", False, "not a number"),
    ("randomize_seed", 1, "true or false"),
    ("randomize_seed", "yes", "true or false"),
    ("sampler", "euler a", "unknown; choose one of dpm"),
    ("sampler", None, "unknown"),
    ("sampler", ["ddim"], "unknown"),
    ("model", "book128_quick", "unknown; choose one of book128_latent, book128_fast"),
    ("model", "", "unknown"),
    ("model", None, "unknown"),
    ("model", ["book128_fast"], "unknown"),
    ("num_inference_steps", None, "not a number"),
    ("guidance_scale", None, "not a number"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BAD)
def test_bad_values_are_refused_in_both_languages(name, value, sentence) -> None:
    with pytest.raises(Refused, match=sentence) as caught:
        check({"prompt": "two pines", name: value}, SAMPLERS)
    vietnamese = caught.value.say("vi")
    assert vietnamese != str(caught.value) and len(vietnamese) < 300
    assert vietnamese.count(".") >= 1 and "hãy" in vietnamese


def test_a_number_of_five_thousand_digits_is_refused() -> None:
    with pytest.raises(Refused, match="from 0 to"):  # its repr alone would raise
        check({"prompt": "two pines", "seed": 10**5000}, SAMPLERS)


def test_good_values_pass_unchanged() -> None:
    values = {
        "prompt": "hai cây thông 👩‍👩‍👧 بيت",
        "negative_prompt": "",
        "n": 8.0,
        "seed": MAX_SEED,
        "randomize_seed": False,
        "guidance_scale": 0,
        "num_inference_steps": 100,
        "sampler": "ddim",
        "model": FAST,
    }
    assert vars(check(values, SAMPLERS)) == values


def test_text_is_normalised_to_nfc() -> None:
    assert check_text("prompt", "nhà  đo\u0309\n") == "nhà đỏ"
    assert len(check_text("prompt", "e\u0301" * 1000)) == 1000


def test_a_link_keeps_what_is_right_and_tells_what_is_not() -> None:
    settings, refused = known({"prompt": "two pines", "seed": "abc", "n": 3}, SAMPLERS)
    assert (settings.prompt, settings.n, settings.seed) == ("two pines", 3, DEFAULTS.seed)
    assert len(refused) == 1 and "'abc'" in str(refused[0])


# Models


def own(settings) -> tuple:
    return tuple(getattr(settings, name) for name in OWN)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_not_said_is_as_the_model_draws_best(model) -> None:
    manner = MODELS[model]
    whole = (manner.steps, manner.guidance, manner.sampler)
    assert own(defaults(model)) == own(check({"prompt": "x", "model": model}, SAMPLERS)) == whole
    settings, refused = known({"model": model, "sampler": "ddim"}, SAMPLERS)
    assert own(settings) == (*whole[:2], "ddim") and not refused


def test_an_unknown_model_is_refused_and_the_rest_kept() -> None:
    settings, refused = known({"model": "book128_quick", "num_inference_steps": 4}, SAMPLERS)
    assert (settings.model, settings.num_inference_steps) == (CAREFUL, 4)
    assert len(refused) == 1 and "'book128_quick'" in str(refused[0])


@pytest.mark.checkpoint
@pytest.mark.parametrize("name", [CAREFUL, *({FAST} & set(hub.names()))])
def test_the_manners_are_those_of_the_checkpoints(name, checkpoints) -> None:
    if not (checkpoints / name / "config.json").is_file():
        pytest.skip(f"checkpoints/{name} is not here: python -m genkit train {name} makes it")
    assert TextToImage.from_pretrained(name).manner == MODELS[name]


# Cards


def test_a_card_tells_what_was_found() -> None:
    marks = (Mark(Pair("red", "đỏ"), True), Mark(Pair("<b>", "<b>"), False))
    text = cards.grid([Card("data:,", 7, True, marks, Pair("a", "b"))])
    assert "1 of 2 found" in text and "Tìm thấy 1 trên 2" in text
    assert "✓" in text and "✗" in text and "<b></span>" not in text
    assert 'download="genkit-7.png"' in text


def test_the_grid_keeps_its_places() -> None:
    frame = re.compile(r'<figure class="gk-card"><div class="gk-frame">')
    empty, full = ([Card(url, s) for s in range(5)] for url in ("", "data:,"))
    assert len(frame.findall(cards.grid(empty))) == len(frame.findall(cards.grid(full))) == 5


# Handlers


def values(**changed) -> list:
    return list((vars(DEFAULTS) | {"prompt": "two pines"} | changed).values())


def test_drawing_shows_every_step_and_the_seed() -> None:
    frames = list(desk().draw("en", *values(n=2, num_inference_steps=5)))
    seeds = {frame[0] for frame in frames}
    assert len(seeds) == 1 and 0 <= seeds.pop() <= MAX_SEED
    assert sum("image/jpeg" in frame[3] for frame in frames) >= 5
    assert frames[-1][3].count("image/png") == 4  # the picture and its download, twice
    assert "gk-marks" in frames[-1][3]


def test_a_picture_that_comes_at_once_is_the_first_frame() -> None:
    settings = vars(defaults(FAST)) | {"prompt": "two pines", "seed": 7, "randomize_seed": False}
    frames = list(desk().draw("en", *settings.values()))
    assert frames[0][:2] == (gr.skip(), 7) and "gk-wait" not in frames[0][3]
    assert frames[-1][:2] == (7, 7) and "gk-marks" in frames[-1][3]
    both = list(desk().draw("en", *(settings | {"n": 2}).values()))
    assert both[0][:2] == (7, 7) and "gk-wait" in both[0][3]
    guided = list(desk().draw("en", *(settings | {"guidance_scale": 2.0}).values()))
    assert guided[0][:2] == (7, 7) and "gk-wait" in guided[0][3]


def test_the_model_that_is_chosen_draws_in_the_settings_of_the_page() -> None:
    careful, fast = FakeTextToImage(), FakeTextToImage()
    here = Desk(fake_studio(careful, others={FAST: fast}))
    settings = vars(defaults(FAST)) | {"prompt": "two pines", "num_inference_steps": 3}
    list(here.draw("en", *settings.values()))
    assert not careful.requests and fast.requests[-1][3] == replace(MODELS[FAST], steps=3)
    list(here.draw("en", *values()))
    assert len(fast.requests) == 1 and careful.requests[-1][3] == MODELS[CAREFUL]


def missing(name: str) -> FakeTextToImage:
    if name == FAST:
        raise FileNotFoundError(f"there is no checkpoint {name!r}")
    return FakeTextToImage()


def test_a_model_that_is_missing_is_a_sentence_and_the_other_draws(capsys) -> None:
    studio = replace(fake_studio(FakeTextToImage()), load_generator=missing)
    apps._warm(studio)
    told = capsys.readouterr().err
    lines = told.splitlines()  # of the model, and of the two controls that live drawing needs
    assert len(lines) == 3 and all(FAST in line for line in lines) and CAREFUL not in told
    with pytest.raises(gr.Error, match="could not do this: there is no checkpoint"):
        list(Desk(studio).draw("en", *values(model=FAST)))
    assert "image/png" in list(Desk(studio).draw("en", *values()))[-1][3]


def test_both_models_are_warmed_though_one_is_missing() -> None:
    loaded = []
    studio = replace(
        fake_studio(FakeTextToImage()),
        load_generator=lambda name: loaded.append(name) or missing({CAREFUL: FAST}.get(name, "")),
    )
    apps._warm(studio)
    assert loaded == [CAREFUL, FAST]


def test_seeds_follow_and_wrap() -> None:
    model = FakeTextToImage()
    last = values(n=3, seed=MAX_SEED - 1, randomize_seed=False, num_inference_steps=1)
    list(Desk(fake_studio(model)).draw("en", *last))
    assert model.requests[-1][2] == (MAX_SEED - 1, MAX_SEED, 0)


def test_closing_the_handler_closes_the_model() -> None:
    model = FakeTextToImage()
    frames = Desk(fake_studio(model)).draw("en", *values(num_inference_steps=50))
    for _ in range(4):
        next(frames)
    frames.close()
    assert model.closed == 1 and model.steps_done <= 4


def test_the_wall_clock_ends_a_job(monkeypatch) -> None:
    monkeypatch.setattr(common, "WALL_CLOCK", 0.05)
    model = FakeTextToImage(delay=0.02)
    with pytest.raises(gr.Error, match="longer than the limit"):
        list(Desk(fake_studio(model)).draw("en", *values(num_inference_steps=100)))
    assert model.closed == 1 and model.steps_done < 20


@pytest.mark.parametrize(("language", "word"), [("en", "empty"), ("vi", "trống"), ("xx", "empty")])
def test_errors_speak_the_language_of_the_page(language, word) -> None:
    with pytest.raises(gr.Error) as caught:
        list(desk().draw(language, *values(prompt="")))
    assert word in caught.value.message


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "memory"),
        (FloatingPointError("nan"), "not finite"),
        (KeyError("cactus"), "unforeseen"),
        (FileNotFoundError("there is no checkpoint 'book128_latent'"), "no checkpoint"),
    ],
)
def test_a_model_that_fails_is_a_sentence_and_the_next_request_works(error, word) -> None:
    studio, failures = fake_studio(FakeTextToImage()), [error]

    class Failing:
        def __getattr__(self, name):
            return getattr(studio.generator(), name)

        def __call__(self, *arguments, **named):
            if failures:
                raise failures.pop()
            return studio.generator()(*arguments, **named)

    here = Desk(fake_studio(Failing()))
    with pytest.raises(gr.Error, match=word):
        list(here.draw("en", *values()))
    assert "image/png" in list(here.draw("en", *values(num_inference_steps=1)))[-1][3]


def test_whatever_the_reader_answers_can_be_told() -> None:
    """Its labels need not go together: a cactus with a roof."""
    rng = random.Random(0)
    for _ in range(300):
        labels = {name: rng.randrange(len(classes)) for name, classes in LABELS.items()}
        scene = Scene.from_labels(labels)
        assert all(canonical(scene, language) for language in LANGUAGES)


def test_unknown_words_are_named() -> None:
    here = desk()
    assert "dragon" in here.notice("a red house and a dragon", "")
    assert here.notice("a red house at night", "") == here.notice("", "") == ""
    assert "1000" in here.notice("x" * 5000, "")
    assert "not text" in here.notice(None, 3)


def test_what_shall_not_be_drawn_needs_guidance() -> None:
    here = desk()
    assert "no effect" in here.notice("two pines", "clouds", 1)
    assert here.notice("two pines", "clouds", 3.0) == here.notice("two pines", "", 1) == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_surprise_is_understood(language) -> None:
    here = desk()
    for _ in range(5):
        prompt = here.surprise(language)
        assert prompt and not here.notice(prompt, "")


def saved(folder: Path, **changed) -> Path:
    here = desk()
    work = here._work(dict(zip(NAMES, values(**changed))))
    pictures = [event for event in here._events(work) if isinstance(event, handlers.Picture)]
    data = handlers.receipt.encode(pictures[-1].image, here._manifest(work, pictures[-1]))
    (folder / "picture.png").write_bytes(data)
    return folder / "picture.png"


def test_a_receipt_restores_and_verifies(tmp_path) -> None:
    changed = {"n": 3, "seed": 5, "guidance_scale": 4.5, "sampler": "euler", "model": FAST}
    path = saved(tmp_path, randomize_seed=False, num_inference_steps=2, **changed)
    *settings, note = desk().open_receipt("en", str(path))
    assert dict(zip(NAMES, settings)) == dict(zip(NAMES, values(
        randomize_seed=False, num_inference_steps=2, **changed)))  # fmt: skip
    assert "Verify" in note
    assert "Bit-identical" in list(desk().verify("en", str(path)))[-1]


def with_manifest(path: Path, **changed) -> Path:
    """The file with these values in its manifest."""
    with Image.open(path) as image:
        manifest = json.loads(image.info["genkit"]) | changed
        info = handlers.receipt.PngImagePlugin.PngInfo()
        info.add_text("genkit", json.dumps(manifest))
        image.save(path, pnginfo=info)
    return path


def test_the_receipt_of_a_model_is_verified_by_that_model(tmp_path) -> None:
    careful, fast = FakeTextToImage(), FakeTextToImage()
    fast.sha256 = "1" * 64
    path = saved(tmp_path, randomize_seed=False, model=FAST)
    here = Desk(fake_studio(careful, others={FAST: fast}))
    verdict = list(here.verify("en", str(path)))[-1]
    assert "Bit-identical" in verdict and f"{FAST} 1111111111" in verdict
    assert fast.requests and not careful.requests


def test_a_receipt_of_an_unknown_model_opens_but_is_not_verified(tmp_path) -> None:
    path = with_manifest(saved(tmp_path, randomize_seed=False, seed=9), model="book128_quick")
    *settings, note = desk().open_receipt("en", str(path))
    assert dict(zip(NAMES, settings)) == dict(zip(NAMES, values(randomize_seed=False, seed=9)))
    assert "book128_quick" in note and "choose one of book128_latent, book128_fast" in note
    with pytest.raises(gr.Error, match="'book128_quick', which is unknown"):
        list(desk().verify("en", str(path)))


def test_verify_sees_a_change(tmp_path) -> None:
    path = saved(tmp_path, randomize_seed=False, num_inference_steps=1)
    image = Image.open(path)
    image.load()
    info = handlers.receipt.PngImagePlugin.PngInfo()
    for name in ("parameters", "genkit"):
        info.add_text(name, image.info[name])
    red, green, blue = image.getpixel((9, 9))
    image.putpixel((9, 9), (red ^ 8, green, blue))
    image.save(path, pnginfo=info)
    verdict = list(desk().verify("en", str(path)))[-1]
    assert "largest difference is <" not in verdict and "8 of 255" in verdict
    assert "changed afterwards" in verdict


@pytest.mark.parametrize("path", [None, 7, [], {"path": "/etc/passwd"}])
def test_verify_and_open_need_a_file(path) -> None:
    with pytest.raises(gr.Error, match="No picture is opened"):
        list(desk().verify("en", path))
    with pytest.raises(gr.Error, match="No picture is opened"):
        desk().open_receipt("en", path)


def test_a_file_that_was_swept_is_told_without_its_path(tmp_path) -> None:
    with pytest.raises(gr.Error, match="no longer kept") as caught:
        list(desk().verify("en", str(tmp_path / "picture.png")))
    assert str(tmp_path) not in caught.value.message


def test_verify_refuses_another_size_before_it_draws(tmp_path) -> None:
    path = saved(tmp_path, randomize_seed=False, num_inference_steps=1)
    with Image.open(path) as image:
        info = handlers.receipt.PngImagePlugin.PngInfo()
        info.add_text("genkit", image.info["genkit"])
        image.resize((64, 128)).save(path, pnginfo=info)
    model = FakeTextToImage()
    with pytest.raises(gr.Error, match="64×128"):
        list(Desk(fake_studio(model)).verify("en", str(path)))
    assert not model.requests


@pytest.mark.parametrize(
    ("language", "name", "word"), [("en", "prompt", "at most 5"), ("vi", "negative_prompt", "rút")]
)
def test_more_word_pieces_than_the_model_reads_are_refused(language, name, word) -> None:
    model = FakeTextToImage()
    studio = replace(fake_studio(model), count=lambda model, text: (len(text.split()), 5))
    with pytest.raises(gr.Error, match=word) as caught:
        list(Desk(studio).draw(language, *values(**{name: "pines " * 6})))
    assert "6" in caught.value.message and not model.requests
    assert len(list(Desk(studio).draw(language, *values(num_inference_steps=1)))) > 1


@pytest.mark.parametrize(
    "query",
    [
        {"seed": "9" * 5000, "prompt": "two pines"},
        {"seed": "NaN", "steps": "1e999", "guidance": "-inf", "n": "0x8", "prompt": "two pines"},
        {"prompt": "two pines", "sampler": "<script>alert(1)</script>" * 500},
        {"prompt": "two pines", "negative": "a\x00b", "steps": "٣", "unknown": "1"},
        {"prompt": "two pines", "n": "", "seed": "-0.0.0", "guidance": "{}"},
        {"prompt": "two pines", "model": "../../etc/passwd", "lang": "vi"},
    ],
)
def test_a_hostile_link_keeps_what_is_good_and_says_the_rest(query) -> None:
    request = SimpleNamespace(query_params=query)
    *settings, note = desk().restore(None, request)
    assert settings[NAMES.index("prompt")] == "two pines"
    assert check(dict(zip(NAMES, settings)), SAMPLERS)
    assert "gk-warn" in note and "<script>" not in note and len(note) < 5000


@pytest.mark.parametrize(
    "saved",
    [
        None,
        7,
        [],
        "x",
        {"n": {}},
        {"seed": [1] * 1000},
        {"prompt": 3, "sampler": None},
        {"model": {}},
    ],
)
def test_whatever_the_browser_saved_the_page_opens(saved) -> None:
    settings = desk().restore(saved, SimpleNamespace(query_params={}))
    assert settings == [*vars(DEFAULTS).values(), ""]


def test_a_link_with_the_model_alone_is_as_that_model_draws_best() -> None:
    request = SimpleNamespace(query_params={"model": FAST, "guidance": "2"})
    *settings, note = desk().restore({"num_inference_steps": 50}, request)
    assert settings == [*vars(replace(defaults(FAST), guidance_scale=2.0)).values()] and not note


def test_what_the_page_saved_before_there_were_two_models_opens() -> None:
    old = {name: value for name, value in vars(DEFAULTS).items() if name != "model"}
    old |= {"prompt": "two pines", "num_inference_steps": 7}
    settings = desk().restore(old, SimpleNamespace(query_params={}))
    assert settings == [*values(num_inference_steps=7), ""]


def test_say_fills_the_gaps() -> None:
    assert say("en", "cards.seed", seed=7) == "Seed 7"
