"""Which sampler draws best in few evaluations: Fréchet distances of a checkpoint of 32².

FD of n drawn pictures from n test pictures of the same classes, by the features of the reader of
32², for every sampler at most 5, 6, 8 and 10 evaluations of the network (Heun's rule takes two a
step, but one in the last: it gets 5, 5, 7 and 9). All share the grid, the noise and the classes;
there is no guidance; x̂_0 is clipped. DDIM is left out: without noise it is Euler's rule. The floor
is FD of as many validation pictures.

best        the sampler with the smallest FD at 10: the checkpoint's default
ratio       its FD over that of Euler's rule at 10

python -m benchmarks.samplers [--name book32_ddpm] [--n 400] [--grid karras]
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import tyro

from benchmarks import save
from genkit.asked import SAMPLERS
from genkit.diffusion.grid import Grid, Karras, LogSNR, Trailing, Uniform
from genkit.diffusion.sample import Heun, Sampler
from genkit.frechet import features, frechet_distance
from genkit.models.diffusion import PixelDiffusion
from genkit.pixels import draw, exact, real, ruler

BUDGETS = (5, 6, 8, 10)
GRIDS: Mapping[str, Grid] = MappingProxyType(
    {"logsnr": LogSNR(), "karras": Karras(), "trailing": Trailing(), "uniform": Uniform()}
)


def steps(sampler: Sampler, budget: int) -> int:
    """The steps of a sampler that this many evaluations allow."""
    return (budget + 1) // 2 if isinstance(sampler, Heun) else budget


def main(
    name: str = "book32_ddpm",
    n: int = 400,
    grid: str = "karras",
    samplers: tuple[str, ...] = tuple(name for name in SAMPLERS if name != "ddim"),
    budgets: tuple[int, ...] = BUDGETS,
) -> None:
    """Measures every sampler on one checkpoint.

    Args:
        name: Of the checkpoint, a class-conditional pixel model.
        n: Pictures for each distance.
        grid: Where the steps fall: logsnr, karras, trailing or uniform.
        samplers: Names of `genkit.asked.SAMPLERS`; Euler's rule must be among them.
        budgets: Evaluations of the network, the last one decides.
    """
    if grid not in GRIDS or "euler" not in samplers or not set(samplers) <= set(SAMPLERS):
        raise SystemExit(
            f"Grids are {', '.join(GRIDS)}; samplers {', '.join(SAMPLERS)}, one euler."
        )
    model = exact(name)
    if not isinstance(model, PixelDiffusion):
        raise SystemExit(f"{name} draws no classes of pictures: take book32_ddpm, say.")
    reader = ruler()
    pictures, labels = real("test", n, 0)
    test = features(reader, pictures)
    floor = frechet_distance(features(reader, real("validation", n, 0)[0]), test)
    figures: dict[str, object] = {"checkpoint": name, "grid": grid, "n": n, "floor": floor}
    found: dict[str, float] = {}
    for key in samplers:  # the last budget decides
        sampler = replace(SAMPLERS[key], grid=GRIDS[grid])
        for budget in budgets:
            begun = time.perf_counter()
            drawn = draw(model, model.denoiser, labels, sampler, steps(sampler, budget))
            found[key] = frechet_distance(features(reader, drawn), test)
            figures[f"{key} at {budget}"] = round(found[key], 5)
            seconds = time.perf_counter() - begun
            print(f"{key:16} {budget:3} {found[key]:10.5f} {seconds:6.1f} s", flush=True)
    best = min(found, key=found.__getitem__)  # at the last budget
    save("samplers", figures | {"best": best, "ratio": found[best] / found["euler"]})


if __name__ == "__main__":
    tyro.cli(main)
