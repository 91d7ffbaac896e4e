"""The sketch page without a browser: what follows a drawing, what is measured, what is refused."""

import base64
import io
import json
import math
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from fake import FakeTextToImage, fake_studio
from gradio_client import Client
from PIL import Image

from apps import build, easel, ink, meter, options, receipt, sketch, traced
from apps.easel import Easel
from apps.ink import Drawing
from apps.settings import CAREFUL, FAST, MAX_SEED, Refused
from apps.traced import DEFAULTS, NAMES, Traced
from genkit.adherence import drawing, painting
from genkit.data.picturebook.scene import Scene

SEED = 210_001
SKETCH = Drawing("sketch", drawing(SEED))
MAP = Drawing("map", painting(SEED))


def sent(one: Drawing | None) -> str:
    """What the page's script sends."""
    if one is None:
        return json.dumps({"kind": "sketch", "image": ""})
    return json.dumps({"kind": one.kind, "image": f"data:image/png;base64,{shown(one)}"})


def shown(one: Drawing) -> str:
    """The file of a drawing as the board shows it."""
    return packed(one.image())


def values(**changes) -> list:
    return list((vars(DEFAULTS) | changes).values())


def desk(delay: float = 0.0) -> Easel:
    return Easel(fake_studio(FakeTextToImage(delay)))


def asked_of(here: Easel, control: str, model: str) -> list[dict]:
    return here.studio.tracer(control, model).asked


def png(url: str, tmp_path: Path) -> Path:
    path = tmp_path / "saved.png"
    path.write_bytes(base64.b64decode(url.partition(",")[2]))
    return path


def test_live_is_one_picture_by_the_quick_model():
    here = desk()
    (answer,) = map(json.loads, here.live("en", sent(SKETCH), *values(n=4, seed=9)))
    assert answer["stage"] == "live" and len(answer["pictures"]) == 1
    (asked,) = asked_of(here, "book128_sketch", FAST)
    assert asked["steps"] == 4 and asked["seeds"] == (9,) and asked["strength"] == 1
    assert np.array_equal(asked["hint"][0, 0].numpy() * 255, SKETCH.values)


@pytest.mark.parametrize(("one", "word"), [(SKETCH, "F1"), (MAP, "mIoU")])
def test_every_picture_has_a_meter_and_a_receipt(one, word, tmp_path):
    here = desk()
    *frames, (status, last) = here.draw("en", sent(one), *values(n=2, num_inference_steps=3))
    assert [json.loads(text)["stage"] for _, text in frames] == ["wait", "step", "step", "step"]
    answer = json.loads(last)
    assert answer["stage"] == "done" and len(answer["pictures"]) == 2 and "3 steps" in status
    for index, picture in enumerate(answer["pictures"]):
        assert word in picture["meter"] and f"Seed {1 + index}" in picture["seed"]
        found = receipt.read(png(picture["url"], tmp_path))
        assert isinstance(found.manifest, receipt.TracedManifest)
        assert found.manifest.index == index and found.manifest.control == f"book128_{one.kind}"
    text = Image.open(tmp_path / "saved.png").info["parameters"]
    assert f"Control: book128_{one.kind}, Control strength: 1," in text


def test_what_follows_exactly_is_told_so_and_what_does_not_is_not():
    here = desk()
    work = easel.Work(Traced(), MAP)
    (last,) = [e for e in here._events(work) if hasattr(e, "image")]
    assert here._measured(work, last) == {"miou": 1.0}
    alone = easel.Work(Traced(strength=0.0), MAP)
    (last,) = [e for e in here._events(alone) if hasattr(e, "image")]
    assert here._measured(alone, last)["miou"] < 0.5
    assert here._measured(easel.Work(Traced(), Drawing("sketch", SKETCH.values * 0)), last) == {}


def test_an_empty_board_draws_from_the_words_and_says_so():
    here = desk()
    *_, (status, last) = here.draw("en", sent(None), *values(prompt="a whale"))
    assert "Nothing was drawn" in status
    assert "nothing to follow" in json.loads(last)["pictures"][0]["meter"]
    *_, (status, _) = here.draw("vi", "", *values())
    assert "Chưa có nét vẽ" in status


def test_alone_is_the_same_seed_at_strength_zero():
    here = desk()
    *_, (_, last) = here.alone("en", sent(SKETCH), *values(seed=5))
    (asked,) = asked_of(here, "book128_sketch", DEFAULTS.model)
    assert asked["strength"] == 0 and asked["seeds"] == (5,)
    assert "F1" in json.loads(last)["pictures"][0]["meter"]


def test_a_drawing_is_stressed_where_the_model_can_unless_it_is_told_otherwise():
    assert traced.check({}).guess and traced.check({"guess": None}).guess
    assert not traced.check({"guess": False}).guess
    assert not traced.check({"model": FAST}).guess
    assert [sketch._manner(model) for model in (CAREFUL, FAST)] == [(20, True), (4, False)]
    here = desk()
    list(here.draw("en", sent(SKETCH), *values()))
    list(here.draw("en", sent(SKETCH), *values(model=FAST, guess=False)))
    list(here.draw("en", sent(SKETCH), *values(guess=False)))
    asked = asked_of(here, "book128_sketch", CAREFUL)
    assert [one["guess"] for one in asked] == [True, False, False]


def test_the_sheet_has_a_row_a_strength_and_a_column_a_seed():
    here = desk()
    *_, (_, last) = here.sheet("en", sent(SKETCH), *values(seed=MAX_SEED))
    html = json.loads(last)["html"]
    assert html.count("<img") == len(meter.ROWS) * easel.SEEDS == 16
    asked = asked_of(here, "book128_sketch", FAST)
    assert [one["strength"] for one in asked] == list(meter.ROWS)
    assert asked[0]["seeds"] == (MAX_SEED, 0, 1, 2)
    empty = meter.sheet([], range(3))
    assert empty.count("<i>") == 12 and "<img" not in empty


def test_a_saved_picture_opens_with_its_drawing_and_verifies(tmp_path):
    here, chosen = desk(), {"prompt": "a <red> house", "strength": 0.75, "stop": 0.5, "n": 2}
    *_, (_, last) = here.draw("en", sent(MAP), *values(**chosen, seed=3))
    path = str(png(json.loads(last)["pictures"][1]["url"], tmp_path))
    *settings, back, note = here.open("en", path)
    assert dict(zip(NAMES, settings)) == vars(DEFAULTS) | chosen | {"seed": 3}
    back = json.loads(back)
    assert back["kind"] == "map" and "back" in note
    assert np.array_equal(ink.board("map", back["paper"]).values, MAP.values)
    assert "Bit-identical" in list(here.verify("en", path))[-1]
    changed = Image.open(path)
    changed.putpixel((0, 0), (1, 2, 3))
    found = receipt.read(Path(path))
    Path(path).write_bytes(receipt.encode(changed.convert("RGB"), found.manifest))
    told = list(here.verify("en", path))[-1]
    assert "Not identical" in told and "changed afterwards" in told


def test_pictures_of_the_other_page_are_sent_there(tmp_path):
    from apps.handlers import Desk
    from apps.settings import DEFAULTS as PLAIN

    studio = fake_studio(FakeTextToImage())
    *_, frame = Desk(studio).draw("en", *(vars(PLAIN) | {"prompt": "a whale"}).values())
    plain = png(frame[3].partition('src="')[2].partition('"')[0], tmp_path)
    with pytest.raises(gr.Error, match="not made from a drawing"):
        Easel(studio).open("en", str(plain))
    *_, (_, last) = Easel(studio).draw("en", sent(SKETCH), *values())
    traced_ = png(json.loads(last)["pictures"][0]["url"], tmp_path)
    with pytest.raises(gr.Error, match="open it on the page Sketch"):
        Desk(studio).open_receipt("en", str(traced_))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"drawing": "!!!"}, "receipt"),
        ({"drawing": 7}, "receipt"),
        ({"guidance_scale": "x"}, "receipt"),
        ({"guidance_scale": 10**400}, "receipt"),
        ({"guidance_scale": math.inf}, "receipt"),
        ({"sampler": [1]}, "receipt"),
        ({"kind": "photo"}, "kind"),
        ({"drawing": MAP.file()}, "receipt"),
        ({"strength": 9}, "strength"),
        ({"start": 0.9, "stop": 0.1}, "begin before it ends"),
        ({"control": 7}, "receipt"),
    ],
)
def test_a_forged_receipt_is_refused(change, word, tmp_path):
    here = desk()
    *_, (_, last) = here.draw("en", sent(SKETCH), *values())
    path = png(json.loads(last)["pictures"][0]["url"], tmp_path)
    found = receipt.read(path)
    forged = json.loads(found.manifest.json()) | change
    text = receipt.PngImagePlugin.PngInfo()
    text.add_text("genkit", json.dumps(forged))
    found.image.save(path, pnginfo=text)
    for act in (lambda: here.open("en", str(path)), lambda: list(here.verify("en", str(path)))):
        with pytest.raises(gr.Error, match=word):
            act()


BAD = [
    ({"strength": math.nan}, "strength"),
    ({"strength": 1.6}, "1.5"),
    ({"strength": -0.1}, "0"),
    ({"strength": True}, "strength"),
    ({"strength": "1"}, "strength"),
    ({"n": 5}, "4"),
    ({"n": 1.5}, "whole"),
    ({"seed": -1}, "seed"),
    ({"num_inference_steps": 51}, "50"),
    ({"start": 0.5, "stop": 0.5}, "before"),
    ({"start": 0.8, "stop": 0.2}, "before"),
    ({"stop": math.inf}, "number"),
    ({"guess": 1}, "true or false"),
    ({"guess": True, "model": FAST}, "no effect with book128_fast"),
    ({"model": "book"}, "book128_latent, book128_fast"),
    ({"prompt": "x" * 1001}, "1000"),
    ({"prompt": None}, "text"),
]


@pytest.mark.parametrize(("change", "word"), BAD, ids=str)
def test_values_out_of_range_are_a_sentence(change, word):
    with pytest.raises(Refused, match=word):
        traced.check(change)
    here = desk()
    with pytest.raises(gr.Error):
        list(here.draw("en", sent(SKETCH), *values(**change)))
    assert list(here.draw("en", sent(SKETCH), *values()))


@pytest.mark.parametrize(
    "text",
    [
        7,
        True,
        [1],
        "{",
        "[]",
        "7",
        '{"kind": "ear"}',
        '{"image": 3}',
        '{"image": "???"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_drawing_is_a_sentence(text):
    with pytest.raises(Refused):
        traced.drawn(text)


def test_a_photo_becomes_a_drawing_and_its_thresholds_are_checked(tmp_path):
    path = tmp_path / "photo.jpg"
    Scene.random(SEED).render(600).save(path)
    here = desk()
    paper = json.loads(here.edges("en", str(path), 30, 60))["paper"]
    few = json.loads(here.edges("en", str(path), 200, 300))["paper"]
    ink = [np.asarray(Image.open(png(url, tmp_path)).convert("L")) == 0 for url in (paper, few)]
    assert ink[0].sum() > ink[1].sum() and ink[0].shape == (128, 128)
    assert here.edges("en", None, 30, 60) == ""
    for low, high in ((90, 60), (math.nan, 60), (-1, 60), (0, 301)):
        with pytest.raises(gr.Error):
            here.edges("en", str(path), low, high)


@pytest.fixture(scope="module")
def client():
    blocks = build(fake_studio(FakeTextToImage()), "sketch")
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    yield Client(url, verbose=False)
    blocks.close()


def packed(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_the_endpoint_draws_and_measures(client):
    files, told = client.predict(shown(SKETCH), "sketch", n=2, seed=4, api_name="/sketch")
    assert len(files) == len(told) == 2 and [one["seed"] for one in told] == [4, 5]
    assert 0 < told[0]["f1"] <= 1 and Path(files[0]).read_bytes().startswith(b"\x89PNG")
    _, told = client.predict(shown(MAP), "map", model=FAST, api_name="/sketch")
    assert told == [{"seed": 1, "miou": 1.0}]
    photo = packed(Scene.random(SEED).render(300))
    _, told = client.predict(photo, "photo", api_name="/sketch")
    assert told[0]["recall"] > 0.9
    _, told = client.predict(api_name="/sketch")
    assert told == [{"seed": 1}]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "ear"},
        {"image": "???"},
        {"image": packed(Image.new("1", (6000, 6000)))},
        {"strength": "NaN"},
        {"start": 1, "stop": 0},
        {"n": 1e9},
        {"model": "../../etc"},
    ],
    ids=lambda change: str(change)[:40],
)
def test_the_endpoint_refuses_with_a_sentence(client, change):
    with pytest.raises(Exception, match=r"[.:;]") as refusal:
        client.predict(**change, language="vi", api_name="/sketch")
    assert len(str(refusal.value)) < 400
    assert client.predict(packed(Image.new("RGB", (200, 100))), api_name="/sketch")
