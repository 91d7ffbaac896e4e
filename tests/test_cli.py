"""The command line: exit status, one sentence for a mistake, JSON lines for programs."""

import hashlib
import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from genkit import cli
from genkit.asked import Manner
from genkit.cli import COMMANDS, main
from genkit.data.picturebook.words import fold
from genkit.models.autoencoder import Autoencoder
from genkit.sheet import sheet


@dataclass(frozen=True)
class Picture:
    index: int
    image: Image.Image
    prompt: str
    seed: int
    steps: int
    nfe: int
    seconds: float
    sha256: str


class TextToImage:
    """Draws one colour per seed."""

    name, sha256 = "tiny", "ab" * 32

    @classmethod
    def from_pretrained(cls, name: str) -> "TextToImage":
        if name != "tiny":
            raise FileNotFoundError(f"there is no checkpoint {name!r};\n name one of: tiny")
        return cls()

    def asked(self, steps, guidance, sampler) -> Manner:
        return Manner(steps or 4, guidance or 1.0, sampler or "euler")

    def __call__(self, prompts, seeds, negative, steps, guidance, sampler, size) -> Iterator:
        assert len(prompts) == len(seeds) <= 8
        yield SimpleNamespace(step=1, steps=steps, images=())  # a preview is passed over
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            image = Image.new("RGB", (size, size), (seed, 0, 0))
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            yield Picture(index, image, prompt, seed, steps, steps + 1, 0.5, digest)


@pytest.fixture()
def generate(monkeypatch):
    """A stand-in for genkit.generate: the command is tested here, not the model."""
    module = ModuleType("genkit.generate")
    module.Picture, module.TextToImage = Picture, TextToImage
    monkeypatch.setitem(sys.modules, "genkit.generate", module)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "genkit", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


def test_alone_it_prints_the_help():
    done = run()
    assert done.returncode == 0 and not done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for name in inspect.signature(COMMANDS[command]).parameters:
        assert f"{name}:" in (COMMANDS[command].__doc__ or "")
    assert "Args:" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["world", "--n", "0"], ["--n 0", "1 to 400"]),
        (["world", "--size", "100000"], ["--size 100000", "1024"]),
        (["world", "--out", "sheet.jpg"], ["sheet.jpg", ".png"]),
        (["world", "--out", "/nowhere/sheet.png"], ["/nowhere/sheet.png", "folder"]),
        (["app", "--auth", "name"], ["--auth", "user:password"]),
        (["app", "--auth", ":"], ["--auth", "user:password"]),
        (["app", "--port", "0"], ["--port 0", "65535"]),
        (["sample", "tiny", "--prompt", "x", "--n", "257"], ["--n 257", "256"]),
        (["sample", "huge", "--prompt", "x"], ["huge", "tiny"]),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, capsys, generate, monkeypatch):
    monkeypatch.delenv("GENKIT_DEBUG", raising=False)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("genkit: ") and "Traceback" not in output.err
    assert all(word in output.err for word in words)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["sample"], ["train"], ["world", "--seed", "seven"]]
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unforeseen_error_says_so(monkeypatch, capsys):
    def broken() -> None:
        """Break."""
        raise KeyError("lost")

    monkeypatch.delenv("GENKIT_DEBUG", raising=False)
    monkeypatch.setitem(cli.COMMANDS, "broken", broken)
    assert main(["broken"]) == 1
    assert "KeyError" in capsys.readouterr().err
    monkeypatch.setenv("GENKIT_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["broken"])


def test_errors_of_the_system_lose_their_number():
    error = FileNotFoundError(2, "No such file or directory", "a.png")
    assert cli._sentence(error) == "No such file or directory: a.png"
    assert cli._sentence(OSError("no room:\n 5 bytes")) == "no room: 5 bytes"


def test_sample_prints_a_line_a_picture(generate, tmp_path, capsys):
    out = tmp_path / "out.png"
    request = ["--prompt", "một ngôi nhà đỏ", "--n", "10", "--seed", "5", "--steps", "7"]
    assert main(["sample", "tiny", *request, "--size", "16", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == list(range(5, 15))
    for line in lines:
        assert line["prompt"] == "một ngôi nhà đỏ" and (line["steps"], line["nfe"]) == (7, 8)
        pixels = Image.open(line["file"]).convert("RGB").tobytes()
        assert hashlib.sha256(pixels).hexdigest() == line["sha256"]
    assert Image.open(out).size == (4 * 26 + 10, 3 * 26 + 10)
    assert {path.name for path in tmp_path.iterdir()} == {"out.png"} | {
        f"out-{number}.png" for number in range(1, 11)
    }


def test_one_picture_is_the_file_itself(generate, tmp_path, capsys):
    out = tmp_path / "one.png"
    assert main(["sample", "tiny", "--prompt", "", "--size", "16", "--out", str(out)]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["file"] == str(out)
    assert (line["steps"], line["guidance"], line["sampler"]) == (4, 1.0, "euler")  # its own
    assert hashlib.sha256(Image.open(out).tobytes()).hexdigest() == line["sha256"]
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


def test_world_draws_the_same_sheet_again(tmp_path, capsys):
    sheets = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in sheets:
        assert main(["world", "--seed", "7", "--n", "4", "--size", "64", "--out", str(path)]) == 0
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    assert capsys.readouterr().out.split() == [str(path) for path in sheets]


def test_train_overrides_the_recipe_and_shows_the_losses(monkeypatch, tmp_path, capsys):
    from genkit import train as training

    seen = {}

    def train(plan, folder, resume, workers):
        seen.update(plan=plan, folder=folder, resume=resume, workers=workers)
        for step in range(1, plan.steps + 1):
            losses = {"model": 1 / step, "model.norm": 2.0}
            yield training.Progress(step, plan.steps, losses, float(step))

    monkeypatch.setattr(training, "train", train)
    options = ["--steps", "3", "--lr", "0.5", "--folder", str(tmp_path), "--resume"]
    options += ["--workers", "4"]
    assert main(["train", "book128_autoencoder", *options]) == 0
    output = capsys.readouterr()
    plan = seen["plan"]
    assert (plan.name, plan.steps, plan.lr) == ("book128_autoencoder", 3, 0.5)
    assert seen["resume"] is True and seen["folder"] == tmp_path and seen["workers"] == 4
    assert output.out.strip() == str(tmp_path)
    assert "3/3" in output.err and "model=0.333" in output.err and "norm" not in output.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train", "nothing"], "nothing"),
        (["train", "book128_autoencoder", "--steps", "0"], "steps"),
        (["train", "book128_autoencoder", "--lr", "nan"], "lr"),
        (["train", "book128_autoencoder", "--workers", "-1"], "workers"),
        (["evaluate", "book128_latent", "--metric", "beauty"], "beauty"),
        (["evaluate", "nothing", "--metric", "psnr"], "nothing"),
        (["publish", "nothing"], "nothing"),
    ],
)
def test_mistakes_of_training_and_measuring(arguments, word, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert word in output.err and output.err.count("\n") == 1 and output.out == ""


def test_evaluate_prints_one_json_object(monkeypatch, capsys):
    from genkit import drawing
    from genkit import evaluate as evaluation

    def measured(name, metric, n, seed, draw):
        assert draw == "what draws tiny"
        return evaluation.Report(name, metric, 0.5, n, {"en": 0.25})

    monkeypatch.setattr(drawing, "drawing", lambda name: f"what draws {name}")
    monkeypatch.setattr(evaluation, "evaluate", measured)
    request = ["evaluate", "tiny", "--metric", "prompt-fidelity", "--n", "10"]
    assert main([*request, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts == {
        "name": "tiny",
        "metric": "prompt-fidelity",
        "value": 0.5,
        "n": 10,
        "en": 0.25,
    }
    assert main(request) == 0
    assert "value: 0.5" in capsys.readouterr().out


def test_the_pages_get_what_was_asked(monkeypatch):
    asked = {}
    pages = ModuleType("apps")
    pages.launch = lambda **options: asked.update(options)
    monkeypatch.setitem(sys.modules, "apps", pages)
    assert main(["app", "--page", "prompt", "--port", "7861", "--auth", "ann:a:b", "--open"]) == 0
    assert asked == {
        "page": "prompt",
        "share": False,
        "listen": False,
        "port": 7861,
        "auth": "ann:a:b",
        "open": True,
    }


def test_doctor_tells_a_port_in_use(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["doctor", "--json", "--port", str(port)]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["port"] == {"number": port, "free": False}
    assert facts["runtime"]["dtype"] in ("float32", "bfloat16")
    assert len(facts["runtime"]["reasons"]) == 4
    assert facts["packages"]["torch"]


def test_doctor_for_people_has_a_line_each(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = ["processor:", "memory:", "GPU:", "chosen: device", "chosen: dtype", "port 7860:"]
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_list_is_json_for_programs(capsys):
    assert main(["list", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out.splitlines()[-1])
    for card in cards:
        assert {"name", "family", "size", "parameters"} <= card.keys()
        assert card["parameters"] > 0


def test_list_goes_on_behind_a_damaged_checkpoint(tmp_path, monkeypatch, capsys):
    Autoencoder(2, (8, 8), (8, 8), (0, 0), (0, 0)).save_pretrained(tmp_path / "whole")
    for name, text in (("bad", "{"), ("empty", "{}"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path))
    assert main(["list", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [card["name"] for card in json.loads(out.splitlines()[-1])] == ["whole"]
    assert [line.partition(":")[0] for line in err.splitlines()] == ["bad", "empty", "list"]


def test_sheet_places_pictures_in_rows():
    pictures = [Image.new("RGB", (8, 6), (10 * index, 0, 0)) for index in range(5)]
    page = sheet(pictures, columns=2)
    assert page.size == (2 * 18 + 10, 3 * 16 + 10)
    for index in range(5):
        corner = (10 + (index % 2) * 18, 10 + (index // 2) * 16)
        assert page.getpixel(corner) == (10 * index, 0, 0)
    assert sheet(pictures, ["a house"] * 5).size[1] > sheet(pictures).size[1]


@pytest.mark.parametrize(("sizes", "captions"), [([], []), ([8, 9], []), ([8, 8], ["one"])])
def test_sheet_refuses_what_does_not_fit(sizes, captions):
    with pytest.raises(ValueError, match="pictures"):
        sheet([Image.new("RGB", (size, size)) for size in sizes], captions)


def test_plain_letters():
    assert fold("Nhà đỏ ở giữa, Đêm") == "Nha do o giua, Dem"
