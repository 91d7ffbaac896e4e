"""From a finished run to a checkpoint with its card: what everybody should know about the weights.

    publish("book128_reader", Path("runs/book128_reader"), Path("checkpoints/book128_reader"))

copies the export of a run, measures it, and writes README.md (what it is, data, recipe, steps,
time and machine, numbers with the commands that print them, hash) and sheet.png beside the
weights. No number on a card is typed by hand. A run of another recipe, or with other steps, batch
or seed than the recipe says, is refused, so that the recipe reproduces the checkpoint.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from genkit.cost import PETA, cost
from genkit.data.picturebook.scene import VERSION
from genkit.evaluate import Report, evaluate
from genkit.fidelity import Draw
from genkit.model import Model
from genkit.models.autoencoder import Autoencoder, DeterministicAutoencoder
from genkit.models.classifier import NoisyClassifier
from genkit.models.controlnet import Control
from genkit.models.diffusion import PixelDiffusion
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder
from genkit.models.hvae import HVAE
from genkit.models.latent import LatentDiffusion, Student
from genkit.models.reader import Reader
from genkit.models.segmenter import Segmenter
from genkit.models.text import TextEncoder
from genkit.models.vae import VAE
from genkit.recipe import Recipe
from genkit.store import existing
from genkit.train import find

__all__ = ["MEASURED", "publish"]

MEASURED: Mapping[type[Model], tuple[str, ...]] = {
    Autoencoder: ("psnr",),
    DeterministicAutoencoder: ("psnr", "unconditional", "bound"),
    VAE: ("bound", "unconditional", "psnr", "units"),
    HVAE: ("bound", "unconditional", "psnr", "units"),
    ConvEncoder: ("kinds", "probe", "nearness"),
    ViTEncoder: ("kinds", "probe", "nearness"),
    Contrastive: ("retrieval", "probe", "nearness"),
    Reader: ("labels",),
    TextEncoder: ("captions",),
    LatentDiffusion: ("prompt-fidelity", "prompt-fidelity-held-out"),
    Student: ("prompt-fidelity", "prompt-fidelity-held-out", "few-steps"),
    Control: ("adherence",),
    Segmenter: ("parts",),
    NoisyClassifier: ("noisy-classes",),
    PixelDiffusion: ("frechet", "bound", "classes", "unconditional"),
}
"""The metrics on the card of each family."""

UNITS = {"psnr": "{:.2f} dB", "bound": "{:.3f} bits/dim"}
UNITS |= dict.fromkeys(("frechet", "unconditional", "units", "few-steps", "adherence"), "{:.4g}")
"""How a metric's numbers are written; one that is not here is a share."""

PAUSE = 900.0
"""Seconds between two logged losses above which a run is taken to have been stopped."""


def publish(name: str, run: Path, checkpoint: Path, draw: Draw | None = None) -> list[Report]:
    """Writes the checkpoint of a run and its card.

    Args:
        name: Of the recipe.
        run: Folder of the finished run (`genkit.train`).
        checkpoint: Where the checkpoint goes; weights that are there are replaced. The folder has
            the name of the recipe, which is the name that the card gives.
        draw: How to ask for pictures, for text to image (see `genkit.evaluate`).

    Returns:
        What was measured.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If the run is not finished, or is of another recipe or with other settings.
    """
    recipe = find(name)
    _check(recipe, run, checkpoint)
    model = Model.from_pretrained(run / "export")
    (checkpoint / "README.md").unlink(missing_ok=True)  # no card beside weights it does not mean
    model.save_pretrained(checkpoint, recipe.dtype)
    if recipe.sheet is not None:
        recipe.sheet(Model.from_pretrained(checkpoint)).save(checkpoint / "sheet.png")
    metrics = MEASURED[type(model)]
    reports = [evaluate(str(checkpoint), metric, draw=draw) for metric in metrics]
    card = _card(recipe, model, run, checkpoint, reports)
    (checkpoint / "README.md").write_text(card, encoding="utf-8")
    return reports


def _check(recipe: Recipe, run: Path, checkpoint: Path) -> None:
    """Refuses what would put a wrong name or wrong settings on the card."""
    if checkpoint.absolute().name != recipe.name:
        raise ValueError(
            f"{checkpoint} is not named {recipe.name}, as the card would say; choose a folder of "
            "this name."
        )
    state = _state(run)
    wanted = {"recipe": recipe.name, "batch": recipe.batch, "seed": recipe.seed}
    for key, value in wanted.items():
        if state[key] != value:
            raise ValueError(
                f"{run} is a run with {key} {state[key]!r}, the recipe has {value!r}; name the "
                "run of this recipe, or train it again."
            )
    if state["step"] < recipe.steps:
        raise ValueError(
            f"{run} stands at step {state['step']} of {recipe.steps}; resume it to the end, or "
            "shorten the recipe."
        )
    if state["step"] > recipe.steps:
        raise ValueError(
            f"{run} went on to step {state['step']}, the recipe ends at {recipe.steps}; write the "
            "steps that were made into the recipe."
        )


def _state(run: Path) -> dict[str, Any]:
    return json.loads((existing(run / "state") / "state.json").read_bytes())


def _card(recipe: Recipe, model: Model, run: Path, checkpoint: Path, reports: list[Report]) -> str:
    record = json.loads((checkpoint / "config.json").read_bytes())
    about = sys.modules[f"genkit.recipes.{recipe.name}"].__doc__ or ""
    lines = [
        "---\nlicense: apache-2.0\nlibrary_name: genkit\ntags: [genkit, picturebook]\n---",
        f"# {recipe.name}",
        about.strip(),
        "![sheet](sheet.png)" if recipe.sheet else "",
        f"```python\nimport genkit\n\nmodel = genkit.load({recipe.name!r})\n```",
        "## Numbers",
        _numbers(recipe.name, reports),
        "## How it was made",
        _facts(recipe, model, run),
        "## Files",
        "\n".join(f"- `{name}`: SHA-256 `{sha}`" for name, sha in record["weights"].items()),
        f"The whole checkpoint has the hash `{record['sha256']}`; loading verifies it.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _numbers(name: str, reports: list[Report]) -> str:
    rows = ["| metric | value | n | command |", "|---|---|---|---|"]
    for report in reports:
        asked = f"{name} --metric {report.metric} --n {report.n}"
        command = f"`python -m genkit evaluate {asked} --json`"
        value = _shown(report.metric, report.value) + (f" ({report.kind})" if report.kind else "")
        rows.append(f"| {report.metric} | {value} | {report.n} | {command} |")
        for detail, number in report.details.items():
            rows.append(f"| … {detail} | {_shown(report.metric, number)} | | |")
    return "\n".join(rows)


def _shown(metric: str, number: float | None) -> str:
    if number is None:
        return "none"
    return UNITS[metric].format(number) if metric in UNITS else f"{100 * number:.1f} %"


def _facts(recipe: Recipe, model: Model, run: Path) -> str:
    parameters = sum(p.numel() for p in model.parameters())
    scalars = [f"optimizer {recipe.optimizer.__name__}"] + [
        f"{f.name} {getattr(recipe, f.name)}"
        for f in fields(recipe)
        if f.name in ("steps", "batch", "lr", "warmup", "weight_decay", "ema", "clip", "seed")
    ]
    minutes = 60 * _time(run / "log")
    facts = {
        "Data": f"the picture book, version {VERSION}, drawn from seeds of its train split",
        "Recipe": f"`genkit/recipes/{recipe.name}.py`: `python -m genkit train {recipe.name}`",
        "Settings": ", ".join(scalars),
        "Parameters": f"{parameters:,}",
        **_sampler(model),
        "Training cost": f"{cost(recipe).whole / PETA:.3g} PFLOP (convolutions, products)",
        "Training time": f"{minutes:.{1 if minutes < 5 else 0}f} minutes of wall-clock time",
        "Machine": "; then ".join(_state(run).get("machines", ["unknown"])),
        "Stored as": str(recipe.dtype).removeprefix("torch."),
    }
    return "\n".join(f"- {key}: {value}." for key, value in facts.items())


def _sampler(model: Model) -> dict[str, str]:
    if not isinstance(model, PixelDiffusion):
        return {}
    found = "python -m benchmarks.samplers, benchmarks/results/samplers.json"
    return {"Sampler": f"`{model.sampler}`, the best at ten evaluations for book32_ddpm ({found})"}


def _time(log: Path) -> float:
    """Hours between the first and the last logged loss, pauses left out."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise ImportError(
            "tensorboard is not installed, so the time of training cannot be read; install the "
            "packages of requirements-dev.txt."
        ) from error
    events = EventAccumulator(str(log), size_guidance={"scalars": 0})
    events.Reload()
    logged = events.Scalars("model") if "model" in events.Tags()["scalars"] else []
    times = sorted(event.wall_time for event in logged)
    gaps = (b - a for a, b in zip(times, times[1:], strict=False))
    return sum(gap for gap in gaps if gap < PAUSE) / 3600
