"""Recipes: each trains from its file, end to end, and what it exports loads and is described."""

import json
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image

import genkit.recipes
from genkit import evaluate, hub, publish
from genkit.data.picturebook import book
from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.data.picturebook.source import Pictures
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
from genkit.objectives import Objective
from genkit.recipe import Recipe, Source
from genkit.recipes import (
    book32_autoencoder,
    book32_classifier,
    book32_contrastive,
    book32_convnet,
    book32_ddpm,
    book32_guided,
    book32_hvae,
    book32_reader,
    book32_vae,
    book32_vit,
    book128_autoencoder,
    book128_fast,
    book128_latent,
    book128_map,
    book128_reader,
    book128_segmenter,
    book128_sketch,
    book_text,
)
from genkit.train import find, train

NAMES = [module.name for module in pkgutil.iter_modules(genkit.recipes.__path__)]
CLASSES = {
    "book128_autoencoder": Autoencoder,
    "book128_fast": Student,
    "book128_latent": LatentDiffusion,
    "book128_map": Control,
    "book128_reader": Reader,
    "book128_segmenter": Segmenter,
    "book128_sketch": Control,
    "book32_autoencoder": DeterministicAutoencoder,
    "book32_classifier": NoisyClassifier,
    "book32_contrastive": Contrastive,
    "book32_convnet": ConvEncoder,
    "book32_ddpm": PixelDiffusion,
    "book32_guided": PixelDiffusion,
    "book32_hvae": HVAE,
    "book32_reader": Reader,
    "book32_vae": VAE,
    "book32_vit": ViTEncoder,
    "book_text": TextEncoder,
}
FEW = range(24)
CODED = range(300)
"""More than the 256 numbers of a code, so that it has a covariance."""
CACHED = (book128_latent.coder, book128_latent.latents, book_text.vocabulary)


class FewPictures(Pictures):
    """Never more than 16 pictures at once."""

    def batch(self, indices, rng) -> dict[str, torch.Tensor]:
        return super().batch(list(indices)[:16], rng)


def here(
    seeds: range, size: int, held_out: bool = False, view: book.View = Scene.render
) -> Iterator[np.ndarray]:
    """In this process: starting others costs more than a few pictures."""
    return (np.asarray(view(Scene.random(seed, held_out), size)) for seed in seeds)


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch) -> Iterator[Path]:
    """Two dozen scenes instead of thousands, and a cache and checkpoints of their own."""
    config.update("jaxtyping_disable", True)
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("GENKIT_DEVICE", "cpu")
    monkeypatch.setenv("GENKIT_THREADS", "1")
    small = dict(SPLITS) | {"train": FEW}
    for module in (book128_reader, book128_segmenter, book32_reader, book_text):
        monkeypatch.setattr(module, "SPLITS", small)
    for module in (
        book128_autoencoder,
        book32_classifier,
        book32_contrastive,
        book32_convnet,
        book32_ddpm,
        book32_guided,
        book32_hvae,
        book32_vae,
        book32_vit,
    ):
        monkeypatch.setattr(module, "PICTURES", FEW)
    monkeypatch.setattr(book32_autoencoder, "PICTURES", CODED)
    monkeypatch.setattr(book32_ddpm, "EVALUATIONS", 2)
    monkeypatch.setattr(book128_sketch, "SHOWN", 1)
    monkeypatch.setattr(book128_autoencoder, "Pictures", FewPictures)
    for module in (book128_fast, book128_latent, book128_map, book128_sketch):
        monkeypatch.setattr(module, "SEEDS", FEW)
    monkeypatch.setattr(
        book128_latent, "EXAMPLES", {"en": ("two pines",), "vi": ("một ngôi nhà đỏ",)}
    )
    monkeypatch.setattr(book, "rendered", here)
    monkeypatch.setattr(book128_latent, "rendered", here)
    for function in CACHED:
        function.cache_clear()
    yield tmp_path
    for function in CACHED:
        function.cache_clear()
    config.update("jaxtyping_disable", False)


@pytest.fixture()
def parents(few) -> None:
    """Fresh weights where a model begins with those of another one."""
    torch.manual_seed(0)
    book128_autoencoder.model().save_pretrained(few / "checkpoints" / "book128_autoencoder")
    book_text.RECIPE.model().save_pretrained(few / "checkpoints" / "book_text")
    book32_ddpm.model().save_pretrained(few / "checkpoints" / "book32_ddpm")
    book128_latent.model().save_pretrained(few / "checkpoints" / "book128_latent")
    book128_sketch.RECIPE.model().save_pretrained(few / "checkpoints" / "book128_sketch")


def short(name: str, steps: int = 2) -> Recipe:
    return replace(find(name), steps=steps, batch=4, warmup=1)


def run(name: str, folder: Path, steps: int = 2) -> list[dict[str, float]]:
    return [progress.losses for progress in train(short(name, steps), folder, log_steps=1)]


def test_every_file_is_a_recipe_of_its_own_name():
    assert NAMES == sorted(CLASSES)
    for name in NAMES:
        recipe = find(name)
        assert isinstance(recipe, Recipe) and recipe.name == name
        assert recipe.batch * recipe.steps > 15_000 and recipe.warmup < recipe.steps
        assert (recipe.sheet is None) == (name == "book_text")
    with pytest.raises(ValueError, match="'book'; choose one of book128_autoencoder, book128_fas"):
        find("book")


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize("name", NAMES)
def test_two_steps_end_to_end(name, few):
    recipe = short(name)
    sets = 2 if "reader" in name else 1  # readers see the held-out pairs, too
    sets = book128_fast.WINDOWS if name == "book128_fast" else sets
    seen = CODED if name == "book32_autoencoder" else FEW
    assert isinstance(recipe.data(), Source) and len(recipe.data()) == sets * len(seen)
    losses = run(name, few / "run")
    assert len(losses) == 2 and all(np.isfinite(list(step.values())).all() for step in losses)
    model = hub.load(few / "run" / "export")
    assert type(model) is CLASSES[name]
    assert isinstance(recipe.objective(model), Objective)
    if recipe.sheet is not None:
        sheet = Image.open(few / "run" / "sheets" / "00000002.png")
        assert sheet.mode == "RGB" and min(sheet.size) > 128
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 100


@pytest.mark.usefixtures("parents")
def test_two_steps_move_the_words_and_the_denoiser_but_not_the_autoencoder(few):
    list(train(replace(short("book128_latent"), sheet=None), few / "run"))
    model = hub.load(few / "run" / "export")
    coder, words = book128_latent.coder(), hub.load("book_text")
    for a, b in zip(model.autoencoder.state_dict().values(), coder.state_dict().values()):
        assert torch.equal(a, b.half().float())
    assert not torch.equal(model.text_encoder.scene, words.scene.half().float())
    assert model.denoiser.backbone.out[-1].weight.any()  # zeros at first


def test_the_autoencoder_starts_from_principal_components(few):
    """The best linear code of 8×8 patches: far better than a fresh net, before any step."""
    model = book128_autoencoder.model()
    x = Pictures(FEW, 128).batch(range(4), torch.Generator())["picture"].float() / 127.5 - 1
    with torch.no_grad():
        error = (model(x).picture.mean - x).square().mean()
        fresh = Autoencoder(channels=12, encoder=(64, 160), decoder=(96, 192))
        assert error < 0.05 * (fresh(x).picture.mean - x).square().mean()
    z = model.encode(x).mean
    assert 0.3 < z.std() < 3


@pytest.mark.usefixtures("parents")
def test_latents_are_those_of_the_autoencoder_in_units_of_their_effect(few):
    """Before training the code is linear, so a channel's effect on the pixels is known exactly."""
    coder = book128_latent.coder()
    z = torch.from_numpy(book128_latent.latents(FEW).astype(np.float32))
    picture = torch.from_numpy(book.pictures(FEW, 128)[:3].copy()).permute(0, 3, 1, 2)
    again = hub.load("book128_autoencoder").encode(picture.float() / 127.5 - 1).mean
    assert (z[:3] - again).abs().max() < 0.05 * again.std()
    unit = coder.standardise(z)
    assert unit.mean(dim=(0, 2, 3)).abs().max() < 0.01
    variance = unit.var(dim=(0, 2, 3))
    effect = z.std(dim=(0, 2, 3)) * coder.linear_decoder.conv.weight.flatten(1).norm(dim=0)
    torch.testing.assert_close(variance, (effect / effect.mean()).detach(), atol=0.01, rtol=0.01)
    assert variance.mean().item() == pytest.approx(1, abs=0.01)
    batch = book128_latent.data().batch([5, 1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch["latent"], unit[[5, 1]])
    torch.testing.assert_close(coder.restore(batch["latent"]), z[[5, 1]], atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("parents")
def test_batches_do_not_depend_on_where_the_model_was_moved():
    """A model that trains on a GPU takes its autoencoder along; the data stay on the processor."""
    data = book128_latent.data()
    before = data.batch([0], torch.Generator().manual_seed(0))["latent"]
    book128_latent.model().to("meta")
    after = data.batch([0], torch.Generator().manual_seed(0))["latent"]
    assert after.device == before.device and torch.equal(after, before)


@pytest.mark.usefixtures("parents")
def test_losses_differ_from_step_to_step_but_not_from_run_to_run(few):
    first, second = run("book_text", few / "a"), run("book_text", few / "b")
    assert first == second and first[0]["model"] != first[1]["model"]


# --- publish ------------------------------------------------------------------------------------


@pytest.fixture()
def measured(monkeypatch) -> list[str]:
    """Six pictures instead of a thousand."""
    names = []

    def few_pictures(name, metric, draw=None):
        names.append(name)
        return evaluate.evaluate(name, metric, 6, 0, draw)

    monkeypatch.setattr(publish, "evaluate", few_pictures)
    return names


def published(monkeypatch, name: str, few: Path) -> tuple[Path, str]:
    monkeypatch.setattr(publish, "find", short)
    run(name, few / "run")
    reports = publish.publish(name, few / "run", few / "checkpoints" / name)
    assert [report.n for report in reports] == [6]
    folder = few / "checkpoints" / name
    return folder, (folder / "README.md").read_text(encoding="utf-8")


def test_a_card_says_what_the_checkpoint_is(few, measured, monkeypatch):
    folder, card = published(monkeypatch, "book128_autoencoder", few)
    record = json.loads((folder / "config.json").read_bytes())
    model = hub.load("book128_autoencoder")
    assert measured == [str(folder)] and record["dtype"] == "float16"
    value = evaluate.evaluate("book128_autoencoder", "psnr", 6).value
    parameters = sum(p.numel() for p in model.parameters())
    for fact in (
        "# book128_autoencoder",
        "license: apache-2.0",
        book128_autoencoder.__doc__,
        "](sheet.png)",
        f"| psnr | {value:.2f} dB | 6 | `python -m genkit evaluate book128_autoencoder --metric",
        "python -m genkit train book128_autoencoder",
        "steps 2, batch 4",
        f"Parameters: {parameters:,}",
        "Stored as: float16",
        record["sha256"],
        *record["weights"].values(),
    ):
        assert fact in card, fact
    assert "None" not in card and "nan" not in card
    assert Image.open(folder / "sheet.png").size[0] > 8 * 128
    exported = hub.load(few / "run" / "export")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), exported.parameters()))


def test_a_card_without_a_sheet(few, measured, monkeypatch):
    folder, card = published(monkeypatch, "book_text", few)
    assert "sheet.png" not in card and not (folder / "sheet.png").exists()
    assert "| captions | " in card and " % | 6 |" in card


def test_an_unfinished_run_is_not_published(few, monkeypatch):
    run("book_text", few / "run", steps=1)
    monkeypatch.setattr(publish, "find", short)
    with pytest.raises(ValueError, match="run stands at step 1 of 2; resume it"):
        publish.publish("book_text", few / "run", few / "checkpoints" / "book_text")
    assert not (few / "checkpoints" / "book_text").exists()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        publish.publish("book_text", few / "nowhere", few / "checkpoints" / "book_text")


def test_a_run_is_published_under_its_own_name_only(few, monkeypatch):
    run("book_text", few / "run")
    monkeypatch.setattr(publish, "find", short)
    with pytest.raises(ValueError, match="not named book128_reader"):
        publish.publish("book128_reader", few / "run", few / "checkpoints" / "book_text")
    with pytest.raises(ValueError, match="recipe 'book_text', the recipe has 'book128_reader'"):
        publish.publish("book128_reader", few / "run", few / "checkpoints" / "book128_reader")
    monkeypatch.setattr(publish, "find", lambda name: short(name, 1))
    with pytest.raises(ValueError, match="went on to step 2, the recipe ends at 1"):
        publish.publish("book_text", few / "run", few / "checkpoints" / "book_text")
    assert not (few / "checkpoints" / "book_text").exists()


def test_every_family_has_its_numbers():
    assert set(CLASSES.values()) == set(publish.MEASURED)
    metrics = {metric for some in publish.MEASURED.values() for metric in some}
    assert metrics == set(evaluate.METRICS)
