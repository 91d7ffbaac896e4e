"""The command line: one function a command, its signature is the interface.

    python -m genkit world | train | sample | list | evaluate | publish | doctor | app
    python -m genkit COMMAND --help

What a program reads goes to standard output (pictures of `sample`: one JSON line each; --json: one
JSON value in the last line); progress and remarks go to standard error. Exit status: 0 done, 2 a
mistake in the request, told in one sentence, 1 anything unforeseen, 130 interrupted.
GENKIT_DEBUG=1 shows the trace of an error.
"""

import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from json import dumps
from pathlib import Path

from PIL import Image

__all__ = [
    "COMMANDS",
    "app",
    "doctor",
    "evaluate",
    "list_",
    "main",
    "publish",
    "sample",
    "train",
    "world",
]

MISTAKES = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
FACTS = ("prompt", "seed", "steps", "nfe", "seconds", "sha256")  # of a picture, for programs
BATCH = 8


def world(*, seed: int = 0, n: int = 16, size: int = 128, out: Path = Path("sheet.png")) -> None:
    """Draw a contact sheet of the picture book; captions in English and Vietnamese by turns.

    Args:
        seed: Seed of the first scene; the others follow.
        n: How many scenes, 1 to 400.
        size: Width and height of each in pixels, 16 to 1024.
        out: The PNG file to write.
    """
    import random

    from genkit.data.picturebook import Scene
    from genkit.sheet import has_marks, sheet

    _within("seed", seed, 0, 2**63 - 401)
    _within("n", n, 1, 400)
    _within("size", size, 16, 1024)
    _writable(out)
    scenes = [Scene.random(seed + index) for index in range(n)]
    captions = [
        scene.caption(random.Random(seed + index), ("en", "vi")[index % 2])
        for index, scene in enumerate(scenes)
    ]
    _save(sheet([scene.render(size) for scene in scenes], captions), out)
    if not has_marks():
        _say("no font with Vietnamese letters was found, so they are drawn without marks")
    print(out)


def train(
    recipe: str,
    /,
    *,
    steps: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    folder: Path | None = None,
    resume: bool = False,
    workers: int = 0,
) -> None:
    """Train a recipe; the result is a checkpoint folder.

    Args:
        recipe: Name of the recipe, such as book128_autoencoder.
        steps: Optimiser steps; the recipe's own number where it is not told.
        batch: Examples per step; the recipe's own number where it is not told.
        lr: Peak learning rate; the recipe's own where it is not told.
        seed: Seed of the initial weights and the order of the data; the recipe's own by default.
        folder: Where checkpoint and training state go; runs/RECIPE by default.
        resume: Continue from the training state in the folder.
        workers: Processes that make batches ahead, for a GPU that would wait for them.
    """
    from tqdm import tqdm

    from genkit import train as training

    changes = {"steps": steps, "batch": batch, "lr": lr, "seed": seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    plan = training.override(training.find(recipe), **changes)
    folder = folder or Path("runs") / recipe
    _within("workers", workers, 0, 256)
    run = training.train(plan, folder, resume=resume, workers=workers)
    first = os.environ.get("RANK", "0") == "0"  # accelerate: one bar, not one per process
    if first:
        _say(_processes(plan.batch))
    bar, stopped = tqdm(total=plan.steps, desc=recipe, unit="step", disable=not first), False
    with bar, _told_to_stop() as told, closing(run):  # closing it saves
        for progress in run:
            bar.update(progress.step - bar.n)
            totals = {k: f"{v:.4g}" for k, v in progress.losses.items() if "." not in k}
            bar.set_postfix(totals, refresh=False)
            if stopped := _any(told):
                break
    if stopped:
        raise KeyboardInterrupt(f"after step {progress.step}, saved; continue with --resume")
    if first:
        print(folder)


def sample(
    name: str,
    /,
    *,
    prompt: str,
    negative: str = "",
    seed: int = 0,
    n: int = 1,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    size: int = 128,
    out: Path = Path("out.png"),
) -> None:
    """Draw pictures from a prompt; one JSON line each (seed, steps, nfe, seconds, sha256, file).

    With one picture, it is the file. With more, the file shows all of them side by side, and each
    is also written alone beside it: out.png, out-1.png, out-2.png and so on.

    Args:
        name: Name or folder of a text-to-image checkpoint, such as book128_latent.
        prompt: What to draw, in English or Vietnamese.
        negative: What to avoid.
        seed: Seed of the first picture; the others follow.
        n: How many pictures, 1 to 256.
        steps: Steps of the sampler; untold, as this model draws best, like the next two.
        guidance: How strongly the prompt is followed; 1 is no guidance.
        sampler: Name of the sampler.
        size: Width and height in pixels.
        out: The PNG file to write.
    """
    from genkit.asked import MAX_SEED
    from genkit.generate import Picture, TextToImage
    from genkit.sheet import sheet

    _within("n", n, 1, 256)
    _within("seed", seed, 0, MAX_SEED + 1 - n)  # told before the work, not after half of it
    _writable(out)
    model = TextToImage.from_pretrained(name)
    request = {"negative": negative} | asdict(model.asked(steps, guidance, sampler))
    pictures = []
    for first in range(0, n, BATCH):
        seeds = [seed + index for index in range(first, min(n, first + BATCH))]
        for event in model([prompt] * len(seeds), seeds=seeds, size=size, **request):
            if isinstance(event, Picture):
                pictures.append(event.image)
                file = out.with_stem(f"{out.stem}-{len(pictures)}") if n > 1 else out
                _save(event.image, file)
                facts = {fact: getattr(event, fact) for fact in FACTS}
                about = {"model": model.name, "model_sha256": model.sha256, "file": str(file)}
                print(dumps(facts | request | about), flush=True)
    if n > 1:
        _save(sheet(pictures), out)


def list_(*, json: bool = False) -> None:
    """List the checkpoints that are here: name, family, picture size, parameters.

    Args:
        json: Print one JSON list, for programs.
    """
    from genkit import hub

    cards = []
    for name in hub.names():
        try:
            card = hub.card(name)
        except (OSError, ValueError) as error:  # one bad folder does not hide the others
            print(f"{name}: {error}", file=sys.stderr)
            continue
        # Checkpoints are named <data><pixels>_<what>; text models have no pixels.
        pixels = re.match(r"[a-z]+(\d+)_", name)
        cards.append(card | {"size": int(pixels[1]) if pixels else None})
    if json:
        print(dumps(cards))
        return
    for card in cards:
        print(
            f"{card['name']:24} {card['family']:14} {card['parameters'] / 1e6:7.2f} M parameters"
        )
    if not cards:
        print("No checkpoint is here; train one with: python -m genkit train book128_autoencoder")


def evaluate(
    name: str, /, *, metric: str, n: int | None = None, seed: int = 0, json: bool = False
) -> None:
    """Measure a checkpoint on unseen pictures or prompts.

    Args:
        name: Name or folder of a checkpoint.
        metric: What to measure: psnr, labels, prompt-fidelity, probe, retrieval and more; a wrong
            name is answered with the list of all.
        n: Pictures or prompts; the metric's own number where it is not told.
        seed: Seed of the first one in the test split.
        json: Print one JSON object in the last line, for programs.
    """
    from genkit import evaluate as evaluation
    from genkit.drawing import drawing

    report = evaluation.evaluate(name, metric, n, seed, drawing(name))
    facts = report.json()
    print(dumps(facts) if json else "\n".join(f"{key}: {value}" for key, value in facts.items()))


def publish(
    recipe: str, /, *, run: Path | None = None, out: Path | None = None, json: bool = False
) -> None:
    """Turn a finished run into a checkpoint with a card: measured numbers, sheet, hash.

    Args:
        recipe: Name of the recipe.
        run: Folder of the run; runs/RECIPE by default.
        out: Folder of the checkpoint; checkpoints/RECIPE by default.
        json: Print one JSON object per measured number, for programs.
    """
    from genkit import publish as publication
    from genkit.drawing import drawing

    out = out or Path("checkpoints") / recipe
    run = run or Path("runs") / recipe
    for report in publication.publish(recipe, run, out, drawing(str(out))):
        value = "none" if report.value is None else f"{report.value:.4g}"
        print(dumps(report.json()) if json else f"{report.metric}: {value}")
    print(out, file=sys.stderr)


def doctor(*, port: int = 7860, json: bool = False) -> None:
    """Tell what this machine has, and which number type and threads were chosen, and why.

    Args:
        port: The port that the pages would use.
        json: Print one JSON object, for programs.
    """
    from genkit import doctor as examination

    _within("port", port, 1, 65535)
    facts = examination.examine(port)
    print(dumps(facts) if json else "\n".join(examination.sentences(facts)))


def app(
    *,
    page: str = "",
    share: bool = False,
    listen: bool = False,
    port: int | None = None,
    auth: str = "",
    open: bool = False,
) -> None:
    """Start the pages on http://127.0.0.1:7860 (Ctrl-C ends them).

    Args:
        page: Name of one page, such as prompt; all pages where it is not told.
        share: Make a public link through Gradio's tunnel; give --auth too.
        listen: Answer other machines of the network, not this one alone.
        port: Port, 1 to 65535; 7860 where it is not told.
        auth: user:password that visitors must give.
        open: Open the page in this machine's browser.
    """
    if port is not None:
        _within("port", port, 1, 65535)
    user, colon, password = auth.partition(":")
    if auth and not (user and colon and password):
        raise ValueError("--auth needs a name and a password as user:password, both not empty")
    # By name: the pages call genkit, and genkit knows them only here.
    importlib.import_module("apps").launch(
        page=page or None, share=share, listen=listen, port=port, auth=auth or None, open=open
    )


COMMANDS: dict[str, Callable[..., None]] = {
    "world": world,
    "train": train,
    "sample": sample,
    "list": list_,
    "evaluate": evaluate,
    "publish": publish,
    "doctor": doctor,
    "app": app,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; without any, print the help. Returns the exit status."""
    import tyro

    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="python -m genkit",
            description="Every family of generative image model, small enough to read.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except BrokenPipeError:  # `… | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as error:
        _say(" ".join(["interrupted", *map(str, error.args)]))
        return 130
    except Exception as error:
        if os.environ.get("GENKIT_DEBUG"):
            raise
        mistake = isinstance(error, MISTAKES)
        kind = (
            "" if mistake else f"unforeseen {type(error).__name__} (GENKIT_DEBUG=1 shows where): "
        )
        _say(kind + _sentence(error))
        return 2 if mistake else 1
    return 0


def _processes(batch: int) -> str:
    """How many processes train, in one sentence."""
    from torch import distributed

    if distributed.is_initialized():
        n = distributed.get_world_size()
        return f"{n} processes train, each on {batch // n} examples of every batch of {batch}"
    if "MASTER_ADDR" in os.environ:  # accelerate was asked for several and found no two GPUs
        return (
            "1 process trains: accelerate starts several on several GPUs, and on processors "
            "when told so with accelerate launch --multi_gpu --num_processes N"
        )
    return f"1 process trains, on batches of {batch}"


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that a step ends and is saved; the third one interrupts."""
    told: list[int] = []  # launchers repeat a signal once, so the second one means nothing yet

    def tell(number: int, _: object) -> None:
        told.append(number)
        if len(told) > 2:
            raise KeyboardInterrupt

    old = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _any(told: list[int]) -> bool:
    """Whether one of the processes was told: all must leave after the same step."""
    from torch import distributed

    if not distributed.is_initialized():
        return bool(told)
    from accelerate.utils import gather_object

    return any(gather_object([bool(told)]))


def _say(text: str) -> None:
    print(f"genkit: {text}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    """The message in one line; an error of the operating system without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())[:2000] or type(error).__name__


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"--{name} {value} is outside {low} to {high}; choose a number inside")


def _writable(path: Path) -> None:
    """Told before the work, not after it."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out {path} does not end in .png; pictures are written as PNG only")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"--out {path} cannot be written: name a file in a folder that exists")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--out {path} cannot be written: the folder is read-only; name another")


def _save(image: Image.Image, path: Path) -> None:
    """Written beside the file, then renamed: a full disk leaves no half picture under its name."""
    part = path.with_name(f".{path.name}.partial")
    try:
        image.save(part, format="PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
