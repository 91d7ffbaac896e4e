"""Students beside their teachers: the ruler against known answers, and both of them asked."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_generate import fast, tiny  # noqa: F401

from genkit import fidelity, students
from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.drawing import drawing, drawn
from genkit.evaluate import evaluate
from genkit.fidelity import Prompt, prompts, stacked
from genkit.frechet import features, frechet_distance
from genkit.generate import Picture, Preview
from genkit.models.latent import Student
from genkit.models.reader import Reader
from genkit.quality import precision_recall
from genkit.students import few_steps

N = 24


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch) -> Path:
    """Checkpoints of a reader, a teacher and a student that knows what its teacher knows."""
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("GENKIT_THREADS", "1")
    monkeypatch.setenv("GENKIT_DEVICE", "cpu")
    monkeypatch.setenv("GENKIT_DTYPE", "float32")
    torch.manual_seed(3)
    reader = Reader(widths=(8, 8, 8), blocks=(1, 1, 1), dim=16, layers=1, heads=2, tokens=4)
    reader.save_pretrained(tmp_path / "book128_reader")
    teacher = tiny()
    teacher.save_pretrained(tmp_path / "teacher")
    sha256 = type(teacher).from_pretrained(tmp_path / "teacher").sha256
    student = Student(copy.deepcopy(teacher.denoiser), "teacher", sha256, steps=2)
    student.save_pretrained(tmp_path / "student")
    return tmp_path


@pytest.fixture(scope="module")
def asked() -> list[Prompt]:
    return list(prompts(N))


def told(pictures: Sequence[Image.Image], evaluations: int) -> Iterator[Image.Image]:
    for picture in pictures:
        picture.info["evaluations"] = evaluations
        yield picture


def rendered(seeds: Sequence[int]) -> list[Image.Image]:
    return [Scene.random(seed).render(128) for seed in seeds]


class Book:
    """Draws the captions' own scenes as the teacher, validation scenes as the student."""

    def __init__(self, asked: Sequence[Prompt]) -> None:
        self.seed = {prompt.text: prompt.seed for prompt in asked}

    def __call__(
        self, texts: Sequence[str], seeds: Sequence[int], by: str = "student"
    ) -> Iterator[Image.Image]:
        assert list(seeds) == list(range(len(texts)))
        if by == "teacher":
            return told(rendered([self.seed[text] + 500 for text in texts]), 40)
        return told(rendered(SPLITS["validation"][: len(texts)]), 4)


def test_the_numbers_are_those_of_the_parts(shelf, asked):
    value, found = few_steps(Book(asked), "teacher", asked, seed=0)
    reader = Reader.from_pretrained(shelf / "book128_reader")
    own = [prompt.seed for prompt in asked]
    real, student, teacher = (
        features(reader, stacked(rendered(seeds)))
        for seeds in (own, SPLITS["validation"][:N], [seed + 500 for seed in own])
    )
    distances = frechet_distance(student, real), frechet_distance(teacher, real)
    assert value == pytest.approx(distances[0] / distances[1])
    assert (found["frechet"], found["frechet of the teacher"]) == pytest.approx(distances)
    assert found["floor"] == found["frechet"]  # the student drew just what the floor is made of
    for name in ("precision", "recall"):
        assert found[name] == found[f"{name} of real pictures"]
    theirs = found["precision of the teacher"], found["recall of the teacher"]
    assert theirs == precision_recall(real, teacher)
    assert (found["evaluations"], found["evaluations of the teacher"]) == (4, 40)


def test_pictures_of_what_was_asked_for_are_faithful(asked, monkeypatch):
    own = {p.text: Scene.random(p.seed) for p in asked}
    by_bytes = {scene.render(128).tobytes(): scene for scene in own.values()}

    def read(_: Reader, pictures: torch.Tensor) -> list[Scene]:
        rows = pictures.permute(0, 2, 3, 1).contiguous().numpy()
        return [by_bytes[row.tobytes()] for row in rows]

    monkeypatch.setattr(fidelity, "read", read)
    pictures = list(told(rendered([prompt.seed for prompt in asked]), 1))
    truth = students.real(asked)
    right = students.quality(pictures, asked, truth)
    assert (right["fidelity"], right["precision"], right["recall"]) == (1, 1, 1)
    assert right["frechet"] == pytest.approx(0, abs=1e-6 * truth.var(dim=0).sum().item())
    turned = students.quality(pictures[5:] + pictures[:5], asked, truth)
    assert turned["fidelity"] < 0.6 and turned["precision"] == 1


def test_both_are_asked_as_they_draw_best():
    """The student in two evaluations, the teacher in twenty guided steps, from the same noise."""
    report = evaluate("student", "few-steps", n=5, draw=drawing("student"))
    assert report.details["evaluations"] == 2
    assert report.details["evaluations of the teacher"] == 40
    ratio = report.details["frechet"] / report.details["frechet of the teacher"]
    assert report.value == ratio
    draw = drawing("student")
    (ours,), (theirs,) = draw(["snow"], [3]), draw(["snow"], [3], "teacher")
    assert ours.tobytes() != theirs.tobytes()
    assert theirs.tobytes() == next(drawing("teacher")(["snow"], [3])).tobytes()


@pytest.mark.usefixtures("fast")
def test_many_pictures_come_in_order_some_at_a_time():
    asked = []

    def model(texts: list[str], seeds: list[int], steps: int | None) -> Iterator[object]:
        asked.append((len(texts), steps))
        yield Preview(1, 2, ())
        for i, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
            image = Image.new("RGB", (8, 8), (seed, 0, 0))
            yield Picture(i, image, text, seed, 2, 3, 0.5, "ab" * 32)

    found = list(drawn(model, [f"{i} pines" for i in range(10)], range(5, 15), 2))
    assert [image.getpixel((0, 0))[0] for image in found] == list(range(5, 15))
    assert asked == [(8, 2), (2, 2)]
    assert {image.info["evaluations"] for image in found} == {3}


def test_what_cannot_be_measured_is_refused_in_a_sentence(asked):
    for name, draw in (("teacher", drawing("teacher")), ("student", None)):
        with pytest.raises(ValueError, match="few-steps needs the checkpoint of a student"):
            evaluate(name, "few-steps", n=5, draw=draw)
    with pytest.raises(ValueError, match="3 pictures have no neighbour number 3"):
        few_steps(Book(asked), "teacher", asked[:3], seed=0)
