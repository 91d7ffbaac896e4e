"""Text to picture in four evaluations: book128_latent, its way from noise made straight.

The teacher's guided way is cut into four windows; in each, the student learns to go straight to
where the teacher arrives by three steps of two evaluations. Guidance of strength 3 is thereby
built in, and a step costs one evaluation.
"""

from copy import deepcopy

from PIL import Image

from genkit import hub
from genkit.data.picturebook.source import Captions, Latents
from genkit.generate import TextToImage
from genkit.models.latent import Student
from genkit.objectives import Straightening
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book128_latent import described, examples
from genkit.recipes.book128_sketch import SEEDS, base

__all__ = ["RECIPE"]


def model() -> Student:
    """The student begins as the teacher."""
    teacher = base()
    assert teacher.sha256 is not None
    return Student(teacher.denoiser, "book128_latent", teacher.sha256, steps=4)


def data() -> Latents:
    """Latents with captions as the teacher saw them."""
    captions = Captions(SEEDS, hub.load("book_text").encode, blank=0.1, complete=0.4)
    return described(captions, base().autoencoder)


def drawn(student: Student) -> Image.Image:
    """The page's example prompts, drawn in the student's few steps."""
    return examples(TextToImage.taught(deepcopy(student), "book128_fast"))


RECIPE = Recipe(
    name="book128_fast",
    model=model,
    objective=lambda student: Straightening(student, base()),
    data=data,
    steps=600,
    batch=32,
    lr=5e-4,
    optimizer=muon,
    warmup=50,
    sheet=drawn,
)
