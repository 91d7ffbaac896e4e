"""The families of picturebook-32 side by side: the same pictures, the same rulers, the same cost?

bits/dim       what a test picture costs, with the kind of the number: a bound, or undefined
frechet …      of n drawn pictures from n test pictures, by `genkit.families`: with floor, kernel
               distance, precision, recall, sharpness; "of real" is what other real pictures reach
seconds        of one picture, warm, drawn alone and in a batch of 16, in this machine's number
               type: medians of the rounds
evaluations    of the network for one picture: steps of a sampler, or one pass of a decoder
training       PFLOP (`genkit.cost`) and the minutes that the card tells

The table of the page that compares the families is read from results/families.json.

python -m benchmarks.families [--n 2000] [--names book32_vae …]
"""

import re
import statistics
from pathlib import Path

import torch
import tyro
from torch import Generator

from benchmarks import save
from benchmarks.sampling import seconds
from genkit import hub
from genkit.cost import PETA, cost
from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures
from genkit.evaluate import CHAIN, evaluate
from genkit.model import Model, Samples
from genkit.models.diffusion import PixelDiffusion
from genkit.recipe import Recipe
from genkit.runtime import detect, prepare
from genkit.train import find

NAMES = ("book32_autoencoder", "book32_vae", "book32_hvae", "book32_ddpm", "book32_guided")
BATCH = 16


def measured(name: str, n: int) -> dict[str, object]:
    """Bits per dimension and the distances of a checkpoint."""
    chain = hub.card(name)["family"] == "diffusion"
    bits = evaluate(name, "bound", min(n, CHAIN if chain else 1000))
    drawn = evaluate(name, "unconditional", n)
    return {
        "bits/dim": bits.value,
        "kind": bits.kind,
        "bits n": bits.n,
        "bits standard error": bits.details.get("standard error"),
        "frechet": drawn.value,
        **drawn.details,
        "n": drawn.n,
    }


@torch.inference_mode()
def drawing(name: str, rounds: int) -> dict[str, object]:
    """Seconds and evaluations of a picture, as a page would draw it."""
    runtime = detect()
    model = prepare(hub.load(name), runtime)
    assert isinstance(model, Samples)
    times = {}
    for count in (1, BATCH):

        def draw(count: int = count) -> None:
            model.sample([Generator().manual_seed(i) for i in range(count)])

        kept = [seconds(draw, runtime.device) for _ in range(rounds + 2)][2:]
        times[count] = statistics.median(kept) / count
    return {
        "seconds alone": times[1],
        f"seconds in a batch of {BATCH}": times[BATCH],
        "evaluations": evaluations(model),
    }


def evaluations(model: Model) -> int:
    """Passes of the network for one picture."""
    if not isinstance(model, PixelDiffusion):
        return 1  # of the decoder
    calls = []
    hook = model.denoiser.register_forward_hook(lambda *_: calls.append(1))
    model.sample([Generator().manual_seed(0)])
    hook.remove()
    return len(calls)


def training(name: str) -> dict[str, object]:
    """Size and cost of a checkpoint, by its recipe and its card."""
    recipe = find(name)
    found = cost(recipe, batch(recipe))
    card = (Path(hub.locate(name)) / "README.md").read_text(encoding="utf-8")
    minutes = re.search(r"Training time: (\d+) minutes", card)
    return {
        "parameters": found.parameters,
        "training PFLOP": found.whole / PETA,
        "training minutes": int(minutes[1]) if minutes else None,
        "steps": found.steps,
        "batch": recipe.batch,
    }


def batch(recipe: Recipe) -> dict[str, torch.Tensor]:
    """As many pictures as a step has, without rendering all that the recipe learns from."""
    few = range(recipe.batch)
    return Pictures(SPLITS["train"][: recipe.batch], 32).batch(few, Generator())


def main(n: int = 2000, names: tuple[str, ...] = NAMES, rounds: int = 15) -> None:
    """Measures the checkpoints.

    Args:
        n: Pictures for each distance, at least 4; for each bound as many, but at most 1,000, and
            30 of diffusion.
        names: Of checkpoints that draw pictures of 32² when they are asked for nothing.
        rounds: Of the clock, after two that warm up.
    """
    if n < 4 or rounds < 1:
        raise SystemExit(f"n = {n}, rounds = {rounds}: give at least 4 pictures and 1 round.")
    found = {}
    for name in names:
        found[name] = measured(name, n) | drawing(name, rounds) | training(name)
        print(name, found[name], flush=True)
    save("families", {"n": n, "families": found})


if __name__ == "__main__":
    tyro.cli(main)
