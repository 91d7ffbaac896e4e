"""How few steps suffice: a student at 1, 2, 4 and 8 steps beside its teacher at its own.

frechet …      of n pictures of captions of test scenes from the scenes' own pictures, by
               `genkit.students`: with precision, recall, prompt fidelity and evaluations; "floor"
               and "of real pictures" are what as many validation pictures reach
ratio          frechet over the teacher's
seconds        of one picture, warm, from the call to the picture, previews included, as a page
               draws it: median of the rounds, in which teacher and student draw by turns
times as fast  the teacher's seconds over these

python -m benchmarks.fewsteps [--name book128_fast] [--n 500] [--rounds 15]
"""

import statistics
from collections.abc import Mapping

import tyro

from benchmarks import save
from benchmarks.sampling import seconds
from genkit import hub
from genkit.drawing import drawn
from genkit.fidelity import prompts
from genkit.generate import TextToImage
from genkit.models.latent import Student
from genkit.students import floor, quality, real

STEPS = (1, 2, 4, 8)
Way = tuple[TextToImage, int | None]
"""A model and its steps; None: as it draws best."""


def timed(ways: Mapping[str, Way], text: str, rounds: int) -> dict[str, float]:
    """Median seconds of one picture of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 2):  # two warm up
        for name, (model, steps) in ways.items():

            def draw(model: TextToImage = model, steps: int | None = steps) -> None:
                list(model([text], seeds=[0], steps=steps))

            times[name].append(seconds(draw, model.runtime.device))
    return {name: statistics.median(some[2:]) for name, some in times.items()}


def main(
    name: str = "book128_fast", n: int = 500, steps: tuple[int, ...] = STEPS, rounds: int = 15
) -> None:
    """Measures a student and its teacher.

    Args:
        name: Of the student.
        n: Captions, at least 4.
        steps: Of the student.
        rounds: Of the clock, after two that warm up.
    """
    student = hub.load(name)
    if not isinstance(student, Student):
        raise SystemExit(f"{name} is no student: take book128_fast.")
    if n < 4 or rounds < 1:
        raise SystemExit(f"n = {n}, rounds = {rounds}: give at least 4 captions and 1 round.")
    quick = TextToImage.from_pretrained(name)
    ways: dict[str, Way] = {"teacher": (TextToImage.from_pretrained(student.teacher), None)}
    ways |= {f"student at {count}": (quick, count) for count in steps}
    asked = list(prompts(n))
    truth, texts = real(asked), [prompt.text for prompt in asked]
    times = timed(ways, texts[0], rounds)
    found: dict[str, dict[str, float]] = {}
    for key, (model, count) in ways.items():
        own = quality(list(drawn(model, texts, range(n), count)), asked, truth)
        own |= {"seconds": times[key], "times as fast": times["teacher"] / times[key]}
        found[key] = own | {"ratio": own["frechet"] / found.get("teacher", own)["frechet"]}
        if key == "teacher":
            print(f"{'':14}" + "".join(f"{figure:>14}" for figure in found[key]))
        print(f"{key:14}" + "".join(f"{v:14.4g}" for v in found[key].values()), flush=True)
    save("fewsteps", {"checkpoint": name, "n": n, "rounds": rounds, **floor(truth), **found})


if __name__ == "__main__":
    tyro.cli(main)
