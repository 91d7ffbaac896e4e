"""Objectives: each loss against its formula, and who learns from it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genkit.data.picturebook.scene import LABELS, Scene
from genkit.data.picturebook.source import label_tensor, to_unit
from genkit.diffusion.denoise import Denoiser, Flow, V
from genkit.diffusion.schedule import Cosine, Rectified
from genkit.distributions import Categorical
from genkit.models.autoencoder import Autoencoder, DeterministicAutoencoder
from genkit.models.hvae import HVAE
from genkit.models.latent import LatentDiffusion
from genkit.models.reader import Reader
from genkit.models.text import TextEncoder, train_vocabulary
from genkit.models.vae import parts
from genkit.nn.unet import UNet
from genkit.objectives import (
    Bounded,
    LatentDenoising,
    Loss,
    Objective,
    Reading,
    Reconstruction,
    SquaredError,
    label_losses,
)

TEXTS = ("a red house", "", "một ngôi nhà đỏ", "two pines", "", "night")


def only(losses) -> Loss:
    (loss,) = losses
    return loss


def labels(batch: int) -> torch.Tensor:
    return label_tensor([Scene.random(seed) for seed in range(batch)])


def answers(batch: int) -> dict[str, Categorical]:
    return {name: Categorical(torch.randn(batch, len(v))) for name, v in LABELS.items()}


def latent_diffusion(parametrization=None, schedule=None, randomised: bool = False):
    text = TextEncoder(train_vocabulary(TEXTS, 300), dim=16, layers=1, heads=2, tokens=5)
    unet = UNet(latent=4, channels=(16, 16), blocks=(1, 1), heads=(1, 1), text=16, dim=16)
    denoiser = Denoiser(unet, schedule or Rectified(3.0), parametrization or Flow())
    model = LatentDiffusion(Autoencoder(4, (8, 8), (8, 8), (0, 0), (0, 0)), text, denoiser)
    for p in model.parameters() if randomised else ():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return model.train()


def batch_of(model: LatentDiffusion, texts=TEXTS) -> dict[str, torch.Tensor]:
    return {
        "latent": torch.randn(len(texts), 4, 8, 8).half(),
        "tokens": model.text_encoder.encode(texts),
        "labels": labels(len(texts)),
    }


# --- reconstruction -----------------------------------------------------------------------------


def test_reconstruction_is_what_one_computes_by_hand():
    """A constant decoder and a constant encoder: pixels, edges and divergence in closed form."""
    model = Autoencoder(2, (8, 8), (8, 8), (0, 0), (0, 0))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.linear_encoder.bias.copy_(torch.tensor([0.5, -2.0]))
        model.linear_decoder.conv.bias.fill_(0.25)
        model.encoder[-1].bias.copy_(torch.tensor([0.0, 1.0, 3.0, 4.0 + math.log(0.7)]))
    picture = torch.randint(256, (3, 3, 16, 24), dtype=torch.uint8)
    loss = only(Reconstruction(model, beta=0.1)({"picture": picture}))

    x = picture.numpy().astype(np.float64) / 127.5 - 1
    pixels = np.abs(x - 0.25).mean()
    edges = np.abs(np.diff(x, axis=-1)).mean() + np.abs(np.diff(x, axis=-2)).mean()
    means, stds = np.array([0.5, -2.0 + 1.0]), np.array([math.exp(-1), 0.7])
    kl = np.mean((means**2 + stds**2 - 1) / 2 - np.log(stds))
    assert loss.player == "model" and set(loss.parts) == {"pixels", "edges", "kl"}
    assert loss.parts["pixels"].item() == pytest.approx(pixels, rel=1e-5)
    assert loss.parts["edges"].item() == pytest.approx(edges, rel=1e-5)
    assert loss.parts["kl"].item() == pytest.approx(kl, rel=1e-5)
    assert loss.total.item() == pytest.approx(pixels + edges + 0.1 * kl, rel=1e-5)


def test_reconstruction_draws_the_latent_from_the_default_generator():
    model = Autoencoder(2, (8, 8), (8, 8), (0, 0), (0, 0))
    batch = {"picture": torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)}
    totals = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        totals.append(only(Reconstruction(model)(batch)).total.item())
    assert totals[0] == totals[1] != totals[2]


# --- labels -------------------------------------------------------------------------------------


def test_label_losses_are_cross_entropies():
    found, true = answers(5), labels(5)
    losses = label_losses(found, true)
    assert list(losses) == list(LABELS)
    for column, (name, loss) in enumerate(losses.items()):
        expected = F.cross_entropy(found[name].logits, true[:, column])
        torch.testing.assert_close(loss, expected)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    flat = {name: Categorical(torch.full((4, len(v)), 3.0)) for name, v in LABELS.items()}
    for name, loss in label_losses(flat, labels(4)).items():
        assert loss.item() == pytest.approx(math.log(len(LABELS[name])), rel=1e-5)


def test_reading_is_the_mean_over_the_labels():
    found, batch = answers(5), {"labels": labels(5)}
    loss = only(Reading(nn.Linear(1, 1), lambda _: found)(batch))
    expected = [
        F.cross_entropy(found[name].logits, batch["labels"][:, i]) for i, name in enumerate(LABELS)
    ]
    torch.testing.assert_close(loss.total, torch.stack(expected).mean())
    assert list(loss.parts) == list(LABELS) and loss.player == "model"


def test_reading_pictures_reaches_every_parameter():
    model = Reader(widths=(8, 8, 8), blocks=(1, 1, 1), dim=16, layers=2, heads=2, tokens=4)
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    reading = Reading(model, lambda batch: model(batch["picture"]))
    assert isinstance(reading, Objective) and dict(reading.players) == {"model": model}
    batch = {"picture": torch.rand(2, 3, 32, 32), "labels": labels(2)}
    only(reading(batch)).total.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.any(), name


# --- latent denoising ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flow", "v"])
def test_a_fresh_net_costs_the_mean_square_of_the_target(kind):
    """F = 0, so the loss is E‖ε − x_0‖² (flow), E‖α ε − σ x_0‖² (v), drawn again by hand."""
    parametrization, schedule = (Flow(), Rectified(3.0)) if kind == "flow" else (V(), Cosine())
    model = latent_diffusion(parametrization, schedule)
    batch = batch_of(model)
    torch.manual_seed(5)
    loss = only(LatentDenoising(model, weight=0.3)(batch))

    torch.manual_seed(5)
    count, z0 = len(TEXTS), batch["latent"].float()
    t = (torch.randperm(count) + 1 - torch.rand(count)) / count
    eps = torch.randn_like(z0)
    alpha, sigma = (c[:, None, None, None] for c in schedule(t))
    target = eps - z0 if kind == "flow" else alpha * eps - sigma * z0
    torch.testing.assert_close(
        loss.parts["denoising"], target.square().mean(), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        loss.total, loss.parts["denoising"] + 0.3 * loss.parts["labels"], atol=1e-6, rtol=1e-6
    )


def test_empty_captions_have_no_part_in_the_labels():
    model = latent_diffusion(randomised=True)
    batch = batch_of(model)
    told = torch.tensor([text != "" for text in TEXTS])
    read = model.text_encoder.read(batch["tokens"][told])
    expected = torch.stack(list(label_losses(read, batch["labels"][told]).values())).mean()
    loss = only(LatentDenoising(model)(batch))
    torch.testing.assert_close(loss.parts["labels"], expected, atol=1e-5, rtol=1e-5)
    # Their labels may be anything.
    other = batch | {"labels": torch.where(told[:, None], batch["labels"], 0)}
    again = only(LatentDenoising(model)(other))
    assert torch.equal(again.parts["labels"], loss.parts["labels"])


def test_a_batch_of_empty_captions_teaches_the_unconditional_case_only():
    model = latent_diffusion(randomised=True)
    loss = only(LatentDenoising(model)(batch_of(model, ("", ""))))
    assert loss.total.item() == pytest.approx(loss.parts["denoising"].item())


def test_text_encoder_and_denoiser_learn_and_the_autoencoder_does_not():
    model = latent_diffusion(randomised=True)
    objective = LatentDenoising(model)
    assert isinstance(objective, Objective) and dict(objective.players) == {"model": model}
    only(objective(batch_of(model))).total.backward()
    for name, p in model.named_parameters():
        if name.startswith("autoencoder."):
            assert p.grad is None and not p.requires_grad, name
        else:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_parts_of_the_loss_reach_the_text_encoder_on_both_ways():
    """Without the labels' weight the words are still learned from the pictures."""
    model = latent_diffusion(randomised=True)
    only(LatentDenoising(model, weight=0.0)(batch_of(model))).total.backward()
    heads = [p for n, p in model.text_encoder.named_parameters() if n.startswith("heads.")]
    words = model.text_encoder.words.weight
    assert all(p.grad is None or not p.grad.any() for p in heads)
    assert words.grad is not None and words.grad.any()


def test_times_are_stratified(monkeypatch):
    """One in each of B equal parts of (0, 1], in a random order, none at t = 0."""
    model = latent_diffusion()
    seen = []

    def spy(x0, t, noise, cond):
        seen.append(t)
        return model.denoiser.schedule(t)[0] * 0

    monkeypatch.setattr(model.denoiser, "loss", spy)
    objective, batch = LatentDenoising(model), batch_of(model)
    for _ in range(200):
        only(objective(batch))
    count = len(TEXTS)
    times = torch.stack(seen)
    assert times.min() >= 1e-3 and times.max() <= 1
    cells = torch.arange(count).float() / count
    ordered = times.sort(dim=1).values
    assert ((ordered >= cells) & (ordered <= cells + 1 / count)).all()
    inside = (ordered - cells) * count  # uniform: mean 1/2, variance 1/12
    assert abs(inside.mean() - 0.5) < 4 * (1 / 12 / inside.numel()) ** 0.5
    ranks = times.argsort(dim=1).argsort(dim=1)
    assert len({tuple(row.tolist()) for row in ranks}) > 100


def tiny_ladder() -> HVAE:
    return HVAE((2, 2, 2), (1, 1, 1), (16, 16, 16), (1, 1, 1), mixture=2, size=16)


def some_pictures() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (3, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return {"picture": grey}


def test_the_bound_is_minimised_in_bits_per_dimension():
    model, batch = tiny_ladder(), some_pictures()
    torch.manual_seed(1)
    loss = only(Bounded(model)(batch))
    torch.manual_seed(1)
    x = to_unit(batch["picture"])
    bound = parts(model(x, torch.default_generator), x)
    assert loss.total.item() == pytest.approx(bound.bits.mean().item(), rel=1e-6)
    names = {"bits", "reconstruction", "2x2_1", "4x4_1", "8x8_1"}
    assert set(loss.parts) == names
    said = sum(value.item() for name, value in loss.parts.items() if name != "bits")
    assert loss.parts["bits"].item() == pytest.approx(said, rel=1e-5)


def test_free_bits_and_beta_change_what_divergences_cost():
    model, batch = tiny_ladder(), some_pictures()
    costs = {}
    for beta, free in ((1.0, 0.0), (0.0, 0.0), (1.0, 1e4), (2.0, 1e4)):
        torch.manual_seed(1)
        costs[beta, free] = only(Bounded(model, beta, free)(batch)).total.item()
    unit = 3 * 16 * 16 * math.log(2)
    # Six channels in all, none of which costs as much as what is free.
    assert costs[1.0, 1e4] == pytest.approx(costs[0.0, 0.0] + 6 * 1e4 / unit, rel=1e-5)
    assert costs[2.0, 1e4] == pytest.approx(costs[0.0, 0.0] + 12 * 1e4 / unit, rel=1e-5)
    assert costs[0.0, 0.0] <= costs[1.0, 0.0]


def test_the_squared_error_is_the_mean_over_all_numbers():
    model, batch = DeterministicAutoencoder(2, (8, 8, 8), size=16), some_pictures()
    x = to_unit(batch["picture"])
    loss = only(SquaredError(model)(batch))
    assert loss.total.item() == pytest.approx((model(x).mean - x).square().mean().item())
