"""The suite without a browser: texts, checks, handlers, the endpoint and what is shut."""

import json
import math
import re
import socket
import string
import threading
import time
from pathlib import Path

import gradio as gr
import httpx
import pytest
from fake import SAMPLERS, FakeTextToImage, fake_studio
from gradio_client import Client
from PIL import Image

import apps
from apps import PAGES, build, cards, handlers, options
from apps.cards import Card, Mark
from apps.handlers import Desk
from apps.settings import DEFAULTS, MAX_SEED, NAMES, Refused, check, check_text, known
from apps.text import LANGUAGES, Pair, both, locale, say
from genkit.data.picturebook import Scene

HERE = Path(apps.__file__).parent
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in HERE.glob("*.py"))


@pytest.fixture(scope="module")
def fake() -> FakeTextToImage:
    return FakeTextToImage()


@pytest.fixture(scope="module")
def suite(fake):
    blocks = build(fake_studio(fake))
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    yield url
    blocks.close()


@pytest.fixture(scope="module")
def client(suite, tmp_path_factory) -> Client:
    return Client(suite, verbose=False, download_files=tmp_path_factory.mktemp("files"))


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
        family = f"{key.split('.')[0]}.{{"  # as in f"page.{name}"
        assert (
            f'"{key}"' in SOURCES
            or f"'{key}'" in SOURCES
            or f'"{stem}"' in SOURCES
            or (family in SOURCES)
        ), key


def test_every_control_has_a_help() -> None:
    """A one-line help under the control, or where a button has no place for it, as its title."""
    texts = locale("en")
    for key in texts:
        if key.endswith((".label", ".value")) and not key.startswith("advanced"):
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
    }
    assert vars(check(values, SAMPLERS)) == values


def test_text_is_normalised_to_nfc() -> None:
    assert check_text("prompt", "nhà  đo\u0309\n") == "nhà đỏ"
    assert len(check_text("prompt", "e\u0301" * 1000)) == 1000


def test_a_link_keeps_what_is_right_and_tells_what_is_not() -> None:
    settings, refused = known({"prompt": "two pines", "seed": "abc", "n": 3}, SAMPLERS)
    assert (settings.prompt, settings.n, settings.seed) == ("two pines", 3, DEFAULTS.seed)
    assert len(refused) == 1 and "'abc'" in str(refused[0])


# Cards


def test_a_card_tells_what_was_found() -> None:
    marks = (Mark(Pair("red", "đỏ"), True), Mark(Pair("<b>", "<b>"), False))
    text = cards.grid([Card("data:,", 7, True, marks, Pair("a", "b"))])
    assert "1 of 2 found" in text and "Có 1 trên 2" in text
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
    monkeypatch.setattr(handlers, "WALL_CLOCK", 0.05)
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
        (FileNotFoundError("there is no checkpoint 'book128_latent'"), "no checkpoint"),
    ],
)
def test_a_model_that_fails_is_a_sentence_and_the_next_request_works(error, word) -> None:
    studio, failures = fake_studio(FakeTextToImage()), [error]

    class Failing:
        def __getattr__(self, name):
            return getattr(studio.generator, name)

        def __call__(self, *arguments, **named):
            if failures:
                raise failures.pop()
            return studio.generator(*arguments, **named)

    here = Desk(fake_studio(Failing()))
    with pytest.raises(gr.Error, match=word):
        list(here.draw("en", *values()))
    assert "image/png" in list(here.draw("en", *values(num_inference_steps=1)))[-1][3]


def test_unknown_words_are_named() -> None:
    here = desk()
    assert "dragon" in here.notice("a red house and a dragon", "")
    assert here.notice("a red house at night", "") == here.notice("", "") == ""
    assert "1000" in here.notice("x" * 5000, "")
    assert "not text" in here.notice(None, 3)


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
    changed = {"n": 3, "seed": 5, "guidance_scale": 4.5, "sampler": "euler"}
    path = saved(tmp_path, randomize_seed=False, num_inference_steps=2, **changed)
    *settings, note = desk().open_receipt("en", str(path))
    assert dict(zip(NAMES, settings)) == dict(zip(NAMES, values(
        randomize_seed=False, num_inference_steps=2, **changed)))  # fmt: skip
    assert "Verify" in note
    assert "Bit-identical" in list(desk().verify("en", str(path)))[-1]


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


def test_verify_needs_a_file() -> None:
    with pytest.raises(gr.Error, match="No picture is opened"):
        list(desk().verify("en", None))


# The endpoint


def test_the_endpoint_draws_files_with_receipts(client) -> None:
    files, seed = client.predict("two pines", seed=11, randomize_seed=False, n=2,
                                 num_inference_steps=2, api_name="/generate")  # fmt: skip
    assert seed == 11 and len(files) == 2
    for index, file in enumerate(files):
        found = handlers.receipt.read(Path(file))
        assert found.manifest.image_seed == 11 + index
        assert found.image.tobytes() == Scene.random(11 + index).render(128).tobytes()


def test_the_endpoint_has_the_names_of_the_template(client) -> None:
    info = client.view_api(return_format="dict", print_info=False)
    assert list(info["named_endpoints"]) == ["/generate"] and not info["unnamed_endpoints"]
    endpoint = info["named_endpoints"]["/generate"]
    names = [parameter["parameter_name"] for parameter in endpoint["parameters"]]
    assert names[:8] == ["prompt", "negative_prompt", "seed", "randomize_seed", "width", "height",
                         "guidance_scale", "num_inference_steps"]  # fmt: skip
    assert len(endpoint["returns"]) == 2


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": "x" * 100_000}, "at most 1000"),
        ({"seed": -1}, "from 0"),
        ({"seed": True}, "not a number"),
        ({"n": 100}, "from 1 to 8"),
        ({"guidance_scale": "7"}, "not a number"),
        ({"num_inference_steps": 10**9}, "from 1 to 100"),
        ({"width": 1024}, "128 × 128"),
        ({"height": "128"}, "128 × 128"),
        ({"sampler": "nothing"}, "unknown"),
        ({"language": "xx"}, "unknown"),
        ({"language": "vi", "n": 0}, "hãy chọn lại"),
    ],
)
def test_the_endpoint_refuses_in_a_sentence_and_works_again(client, changed, sentence) -> None:
    with pytest.raises(Exception, match=sentence):
        client.predict(**({"prompt": "two pines"} | changed), api_name="/generate")
    files, _ = client.predict("two pines", num_inference_steps=1, api_name="/generate")
    assert len(files) == 1


def test_cancel_stops_within_a_step(client, fake) -> None:
    fake.delay, closed = 0.2, fake.closed
    job = client.submit("two pines", num_inference_steps=100, api_name="/generate")
    while not job.outputs():
        time.sleep(0.05)
    job.cancel()
    deadline = time.monotonic() + 10
    while fake.closed == closed and time.monotonic() < deadline:
        time.sleep(0.05)
    fake.delay = 0.0
    assert fake.closed == closed + 1


# What is shut


def test_side_doors_are_shut(suite) -> None:
    with httpx.Client(base_url=suite) as web:
        assert web.get("/monitoring").status_code != 200
        assert web.get("/monitoring/summary").status_code != 200
        direct = web.post("gradio_api/run/generate", json={"data": ["two pines"]})
        assert direct.status_code == 404
        for path in ("/etc/passwd", "app.py", "../app.py"):
            assert web.get(f"gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.parametrize("path", ["", *(page.path for page in PAGES)])
def test_pages_load_nothing_from_elsewhere(suite, path) -> None:
    text = httpx.get(suite + path).text
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]+)', text)
    assert not [url for url in loaded if not url.startswith(suite)]
    assert "fonts.g" not in text


# Launching


def test_an_unknown_page_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="home, prompt"):
        build(fake_studio(FakeTextToImage()), "nothing")


def test_a_port_in_use_is_told_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use.*--port {port + 1}"):
            apps.launch(port=port, studio=fake_studio(FakeTextToImage()))


@pytest.mark.parametrize("auth", ["user", "user:", ":password", ""])
def test_a_login_without_both_parts_is_refused(auth) -> None:
    with pytest.raises(ValueError, match="user:password"):
        apps.launch(auth=auth, studio=fake_studio(FakeTextToImage()))


def test_listening_without_a_login_warns(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        gr.Blocks, "launch", lambda self, **named: (None, named["server_name"], None)
    )
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda self: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    apps.launch(listen=True, port=port, studio=fake_studio(FakeTextToImage()))
    assert "--auth" in capsys.readouterr().err
    apps.launch(listen=True, port=port, auth="a:b", studio=fake_studio(FakeTextToImage()))
    told = capsys.readouterr().err
    assert "--auth" not in told and "0.0.0.0" in told


def test_both_models_are_loaded_once_whoever_asks_first() -> None:
    loads: list[int] = []
    studio = apps.common.Studio(
        lambda: loads.append(1) or time.sleep(0.05) or FakeTextToImage(), lambda: None, SAMPLERS
    )
    threads = [threading.Thread(target=lambda: studio.generator) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]


def test_say_fills_the_gaps() -> None:
    assert say("en", "cards.seed", seed=7) == "Seed 7"
