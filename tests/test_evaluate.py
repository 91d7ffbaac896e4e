"""Measuring: the rulers against known answers, and the shipped checkpoints against their aims."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image

from genkit import evaluate as module
from genkit import hub
from genkit.data.picturebook.ask import Ask
from genkit.data.picturebook.parse import parse
from genkit.data.picturebook.scene import HELD_OUT, LABELS, SPLITS, Scene
from genkit.data.picturebook.source import LANGUAGES, label_tensor, to_unit
from genkit.distributions import Categorical
from genkit.evaluate import METRICS, Report, evaluate, fidelity
from genkit.fidelity import Prompt, likeliest, prompts, read
from genkit.models.autoencoder import Autoencoder
from genkit.models.reader import Reader
from genkit.models.text import TextEncoder, train_vocabulary

TEST = SPLITS["test"].start


@pytest.fixture(autouse=True)
def _runtime(monkeypatch) -> None:
    monkeypatch.setenv("GENKIT_THREADS", "1")
    monkeypatch.setenv("GENKIT_DEVICE", "cpu")
    monkeypatch.setenv("GENKIT_DTYPE", "float32")


@pytest.fixture()
def fast() -> Iterator[None]:
    """Without checks of annotations, which cost more than rendering and parsing."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def scene_of(prompt: Prompt, numbers: Iterator[int], held_out: bool) -> Scene:
    """The next test scene that this prompt is a caption of."""
    for number in numbers:
        scene = Scene.random(number, held_out)
        if scene.caption(random.Random(number), prompt.language) == prompt.text:
            return scene
    raise AssertionError(prompt)


def batch(scenes: Sequence[Scene]) -> torch.Tensor:
    array = np.stack([np.asarray(scene.render(128)) for scene in scenes])
    return torch.from_numpy(array).permute(0, 3, 1, 2)


class Oracle:
    """Stands for a reader: it knows the scene of every picture that it was shown."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.known = {scene.render(128).tobytes(): scene for scene in scenes}

    def read(self, reader: object, picture: torch.Tensor) -> list[Scene]:
        rows = picture.permute(0, 2, 3, 1).contiguous().numpy()
        return [self.known[row.tobytes()] for row in rows]


# --- prompts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.usefixtures("fast")
def test_prompts_are_captions_of_test_scenes_half_of_them_vietnamese(held_out):
    asked = list(prompts(60, seed=5, held_out=held_out))
    assert asked == list(prompts(60, seed=5, held_out=held_out))
    assert [prompt.language for prompt in asked] == list(LANGUAGES) * 30
    numbers = iter(range(TEST + 5, TEST + 2000))
    for prompt in asked:
        scene = scene_of(prompt, numbers, held_out)  # in order, each of its own scene
        assert prompt.ask == parse(prompt.text).ask != Ask()
        checks = prompt.ask.check(scene)
        assert checks and all(check.ok for check in checks), prompt


@pytest.mark.usefixtures("fast")
def test_held_out_prompts_all_name_a_pair():
    asked = list(prompts(60, held_out=True))
    for prompt in asked:
        assert prompt.pair in HELD_OUT
        named = {(t.kind, c) for t in prompt.ask.things for c in t.look.colour}
        assert prompt.pair in named
    assert len({prompt.pair for prompt in asked}) >= 8
    assert all(prompt.pair is None for prompt in prompts(40))


@pytest.mark.usefixtures("fast")
def test_prompts_are_a_stream():
    assert list(prompts(3)) == list(prompts(6))[:3]
    assert list(islice(prompts(10**9), 2)) == list(prompts(2))
    first, second = next(prompts(1, seed=0)), next(prompts(1, seed=77))
    assert first.text != second.text


# --- reports and refusals -----------------------------------------------------------------------


def test_a_report_is_one_flat_object():
    report = Report("a", "psnr", 31.23456789, 3, {"worst": 1 / 3, "right": 2.0})
    assert report.json() == {
        "name": "a",
        "metric": "psnr",
        "value": 31.234568,
        "n": 3,
        "worst": 0.333333,
        "right": 2.0,
    }
    assert json.loads(json.dumps(report.json())) == report.json()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metric": "fid"}, "'fid' is unknown: choose one of psnr, labels, captions, prompt-fid"),
        ({"metric": ""}, "'' is unknown"),
        ({"n": 0}, "n = 0 .* 1 to 10000"),
        ({"n": -3}, "n = -3 "),
        ({"n": 10_001}, "n = 10001 .* 1 to 10000"),
        ({"n": 2, "seed": 9_999}, "n = 2 from test scene 9999 .* 1 to 1"),
        ({"n": 1, "seed": -1}, "no test scene -1: use 0 to 9999"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(arguments, words):
    with pytest.raises(ValueError, match=words):
        evaluate(**({"name": "nothing", "metric": "psnr"} | arguments))


@pytest.fixture()
def shelf(tmp_path, monkeypatch) -> Path:
    """A checkpoint of three families, with fresh weights."""
    torch.manual_seed(3)
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path))
    reader = Reader(widths=(8, 8, 8), blocks=(1, 1, 1), dim=16, layers=1, heads=2, tokens=4)
    vocabulary = train_vocabulary(("a red house",), 300)
    text = TextEncoder(vocabulary, dim=16, layers=1, heads=2, length=500)
    coder = Autoencoder(4, (8, 8), (8, 8), (0, 0), (0, 0))
    coder = coder.principal(to_unit(batch([Scene.random(seed) for seed in range(4)])))
    for name, model in {"reader": reader, "text": text, "coder": coder}.items():
        model.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "metric", "words"),
    [
        ("nowhere", "psnr", "no checkpoint 'nowhere'.*choose one of coder"),
        ("reader", "psnr", "reader is no autoencoder"),
        ("coder", "labels", "coder is no reader"),
        ("reader", "captions", "reader reads no captions"),
        ("text", "prompt-fidelity", "prompt-fidelity needs a text-to-image checkpoint"),
        ("text", "prompt-fidelity-held-out", "held-out needs a text-to-image checkpoint"),
    ],
)
@pytest.mark.usefixtures("fast")
def test_a_metric_that_does_not_fit_the_checkpoint_is_told(shelf, name, metric, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        evaluate(name, metric, n=2)


# --- the rulers ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("fast")
def test_psnr_is_what_one_computes_by_hand(shelf):
    model = Autoencoder.from_pretrained(shelf / "coder")
    expected = []
    for number in range(TEST + 3, TEST + 9):
        picture = np.asarray(Scene.random(number).render(128)).astype(np.float32)
        x = torch.from_numpy(picture / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            again = model(x).picture.mean[0].permute(1, 2, 0).numpy()
        rounded = np.round((np.clip(again, -1, 1) + 1) * 127.5)
        expected.append(10 * math.log10(255**2 / np.square(rounded - picture).mean()))
    report = evaluate("coder", "psnr", n=6, seed=3)
    assert report.value == pytest.approx(np.mean(expected), abs=1e-3)
    assert report.details["worst"] == pytest.approx(min(expected), abs=1e-3)
    assert report.details["median"] == pytest.approx(np.median(expected), abs=1e-3)
    assert (report.name, report.metric, report.n) == ("coder", "psnr", 6)
    assert 5 < report.value < 40


@pytest.mark.usefixtures("fast")
def test_a_perfect_copy_has_a_finite_psnr(shelf, monkeypatch):
    monkeypatch.setattr(module, "to_uint8", lambda x: batch([Scene.random(TEST)]))
    assert evaluate("coder", "psnr", n=1).value == pytest.approx(10 * math.log10(255**2 / 1e-9))


def test_reading_takes_the_likeliest_class_of_every_label(shelf):
    reader = Reader.from_pretrained(shelf / "reader")
    scenes = [Scene.random(seed) for seed in range(4)]
    with torch.no_grad():
        answers = reader(to_unit(batch(scenes)))
        seen = read(reader, batch(scenes))
    for i, scene in enumerate(seen):
        likeliest = {name: int(answers[name].logits[i].argmax()) for name in LABELS}
        assert scene == Scene.from_labels(likeliest)


def test_reading_a_certain_answer_gives_the_scene_back():
    scenes = [Scene.random(seed) for seed in range(30)]
    labels = label_tensor(scenes)
    answers = {
        name: Categorical(torch.nn.functional.one_hot(labels[:, i], len(v)).float())
        for i, (name, v) in enumerate(LABELS.items())
    }
    assert likeliest(answers) == [Scene.from_labels(s.labels()) for s in scenes]


@pytest.mark.usefixtures("fast")
def test_the_share_of_labels_is_counted_label_by_label(shelf, monkeypatch):
    """A reader that errs on one label of every other scene is right on 1 − 1/(2K)."""
    scenes = [Scene.random(number) for number in range(TEST, TEST + 6)]
    wrong = [
        Scene.from_labels(s.labels() | {"rainbow": 1 - s.labels()["rainbow"] if i % 2 else 0})
        for i, s in enumerate([Scene.from_labels(s.labels()) for s in scenes])
    ]
    right = [s.labels()["rainbow"] == t.labels()["rainbow"] for s, t in zip(scenes, wrong)]
    monkeypatch.setattr(module, "read", lambda *_: wrong)
    report = evaluate("reader", "labels", n=6)
    assert report.details["rainbow"] == report.details["whole scenes"] == np.mean(right) < 1
    assert report.value == pytest.approx(1 - (1 - np.mean(right)) / len(LABELS))
    assert all(report.details[name] == 1 for name in LABELS if name != "rainbow")


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.usefixtures("fast")
def test_fidelity_of_perfect_pictures_is_one_and_of_shuffled_ones_much_less(held_out, monkeypatch):
    asked = list(prompts(70, held_out=held_out))  # more than one batch
    numbers = iter(range(TEST, TEST + 2000))
    scenes = [scene_of(prompt, numbers, held_out) for prompt in asked]
    by_text = {prompt.text: scene for prompt, scene in zip(asked, scenes)}
    monkeypatch.setattr(module, "read", Oracle(scenes).read)
    monkeypatch.setattr(module, "load_reader", lambda name: name)
    calls = []

    def draw(texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Image.Image]:
        calls.append((len(texts), tuple(seeds)))
        return (by_text[text].render(128) for text in texts)

    report = fidelity("perfect", "prompt-fidelity", asked, draw)
    assert report.value == 1 and report.n == 70 and report.name == "perfect"
    assert report.details == {"en": 1, "vi": 1, "all found": 1} | ({"pair": 1} if held_out else {})
    assert calls == [(50, tuple(range(50))), (20, tuple(range(50, 70)))]

    turned = dict(zip(by_text, list(by_text.values())[7:] + list(by_text.values())[:7]))
    shuffled = fidelity(
        "shuffled", "x", asked, lambda texts, _: (turned[text].render(128) for text in texts)
    )
    by_hand = [c.ok for p in asked for c in p.ask.check(turned[p.text])]
    assert shuffled.value == pytest.approx(np.mean(by_hand)) and shuffled.value < 0.5
    assert shuffled.details["all found"] < 0.1
    if held_out:
        found = [any((t.kind, t.colour) == p.pair for t in turned[p.text].things) for p in asked]
        assert shuffled.details["pair"] == pytest.approx(np.mean(found)) and np.mean(found) < 0.5


@pytest.mark.usefixtures("fast")
def test_captions_are_scored_by_what_the_encoder_reads(shelf, monkeypatch):
    asked = list(prompts(20))
    numbers = iter(range(TEST, TEST + 2000))
    scenes = [scene_of(prompt, numbers, False) for prompt in asked]
    monkeypatch.setattr(module, "likeliest", lambda answers: scenes)
    assert evaluate("text", "captions", n=20).value == 1
    monkeypatch.setattr(module, "likeliest", lambda answers: scenes[1:] + scenes[:1])
    report = evaluate("text", "captions", n=20)
    by_hand = [c.ok for p, s in zip(asked, scenes[1:] + scenes[:1]) for c in p.ask.check(s)]
    assert report.value == pytest.approx(np.mean(by_hand)) and report.value < 0.7


@pytest.mark.usefixtures("fast")
def test_one_prompt_gives_numbers_that_json_knows(shelf):
    text = json.dumps(evaluate("text", "captions", n=1).json())
    assert "NaN" not in text


def test_every_metric_is_named_in_the_module():
    assert all(metric in module.__doc__ for metric in METRICS)


# --- the shipped checkpoints --------------------------------------------------------------------


def shipped(name: str) -> str:
    folder = Path(hub.__file__).parent.parent / "checkpoints" / name
    if not (folder / "config.json").is_file():
        pytest.skip(f"checkpoints/{name} is not there")
    return name


@pytest.mark.checkpoint
@pytest.mark.usefixtures("fast")
def test_the_reader_reads_what_is_there():
    """Else it measures nothing."""
    report = evaluate(shipped("book128_reader"), "labels", n=200)
    assert report.value >= 0.99


@pytest.mark.checkpoint
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.usefixtures("fast")
def test_what_the_reader_sees_on_renderings_is_what_captions_ask(held_out):
    shipped("book128_reader")
    asked = list(prompts(100, held_out=held_out))
    numbers = iter(range(TEST, TEST + 3000))
    scenes = [scene_of(prompt, numbers, held_out) for prompt in asked]

    def draw(texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Image.Image]:
        return (scenes[seed].render(128) for seed in seeds)

    report = fidelity("renderings", "prompt-fidelity", asked, draw)
    assert report.value >= 0.99


@pytest.mark.checkpoint
@pytest.mark.usefixtures("fast")
def test_the_autoencoder_gives_pictures_back():
    assert evaluate(shipped("book128_autoencoder"), "psnr", n=50).value >= 30


@pytest.mark.checkpoint
@pytest.mark.usefixtures("fast")
def test_the_text_encoder_understands_both_languages():
    """Not to 100 %: "two pines" leaves their places open, and each place is read by itself."""
    report = evaluate(shipped("book_text"), "captions", n=200)
    assert report.details["en"] >= 0.8 and report.details["vi"] >= 0.8


@pytest.mark.checkpoint
@pytest.mark.usefixtures("fast")
def test_text_to_picture_draws_what_is_asked():
    """Far more of its own prompt is in a picture than of another one."""
    from genkit.generate import Picture, TextToImage

    shipped("book128_reader")
    model = TextToImage.from_pretrained(shipped("book128_latent"))
    asked = list(prompts(24))
    events = model([prompt.text for prompt in asked], seeds=range(24))
    pictures = [event.image for event in events if isinstance(event, Picture)]

    def draw(texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Image.Image]:
        return iter(pictures)

    own = fidelity("own", "prompt-fidelity", asked, draw).value
    other = fidelity("other", "prompt-fidelity", asked[1:] + asked[:1], draw).value
    assert own >= 0.85 and own >= other + 0.4
