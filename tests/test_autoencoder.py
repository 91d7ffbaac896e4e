"""The autoencoder: its distributions are the textbook's, its units are undone, it can learn."""

import pytest
import torch
from torch import distributions, nn

from genkit.distributions import Dirac
from genkit.models.autoencoder import Autoencoder, DeterministicAutoencoder


@pytest.fixture()
def tiny() -> Autoencoder:
    model = Autoencoder(channels=4, encoder=(8, 8), decoder=(8, 8))
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return model


def pictures(batch: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(batch, 3, height, width) * 2 - 1


def test_divergence_and_density_match_torch(tiny):
    q = tiny.encode(pictures())
    reference = distributions.Normal(q.mean, q.std)
    unit = distributions.Normal(torch.zeros_like(q.mean), torch.ones_like(q.std))
    torch.testing.assert_close(q.kl(), distributions.kl_divergence(reference, unit))
    z = q.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z))


def test_forward_is_encode_sample_decode(tiny):
    x = pictures()
    coded = tiny(x, torch.Generator().manual_seed(3))
    z = tiny.encode(x).sample(torch.Generator().manual_seed(3))
    assert torch.equal(coded.latent, z)
    assert torch.equal(coded.picture.mean, tiny.decode(z).mean)
    assert torch.equal(tiny(x).latent, tiny.encode(x).mean)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (8, 8), (64, 40)])
def test_latents_are_an_eighth_and_pictures_come_back_whole(tiny, height, width):
    coded = tiny(pictures(1, height, width))
    assert coded.latent.shape == (1, 4, height // 8, width // 8)
    assert coded.picture.mean.shape == (1, 3, height, width)


def test_other_sizes_are_refused_with_a_remedy(tiny):
    with pytest.raises(ValueError, match="100×64.*multiples of 8.*96×64|100×64.*104×64"):
        tiny.encode(pictures(1, 64, 100))


def test_standardise_and_restore_are_inverse_and_give_unit_moments(tiny):
    z = torch.randn(64, 4, 8, 8) * torch.tensor([1.0, 2, 3, 0.1])[:, None, None] + 5
    tiny.calibrate(z.mean(dim=(0, 2, 3)), z.std(dim=(0, 2, 3)))
    unit = tiny.standardise(z)
    torch.testing.assert_close(unit.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(unit.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(tiny.restore(unit), z)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_calibrate_refuses_impossible_moments(tiny, std):
    with pytest.raises(ValueError, match="std > 0"):
        tiny.calibrate(torch.zeros(4), torch.full((4,), std))
    assert torch.equal(tiny.scale, torch.ones(4))


def test_a_picture_does_not_depend_on_its_batch(tiny):
    x = pictures(8)
    with torch.no_grad():
        together = tiny.eval()(x).picture.mean
        alone = torch.cat([tiny(one[None]).picture.mean for one in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_parameter_learns(tiny):
    coded = tiny(pictures(), torch.Generator().manual_seed(0))
    (coded.picture.mean.square().mean() + coded.posterior.kl().mean()).backward()
    for name, p in tiny.named_parameters():
        assert p.grad is not None and p.grad.any() and p.grad.isfinite().all(), name


def test_flat_colours_are_learned_from_scratch():
    """Sixty steps from a fresh net cut the error to a quarter: the start is well scaled."""
    model = Autoencoder(channels=4, encoder=(16, 16), decoder=(16, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x = (torch.rand(8, 3, 1, 1) * 2 - 1).expand(-1, -1, 16, 16)
    errors = []
    for _ in range(60):
        error = (model(x).picture.mean - x).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0] / 4


def test_saving_keeps_weights_config_and_calibration(tiny, tmp_path):
    tiny.calibrate(torch.arange(4.0), torch.arange(4.0) + 1)
    tiny.save_pretrained(tmp_path / "tiny")
    again = Autoencoder.from_pretrained(tmp_path / "tiny")
    x = pictures()
    assert torch.equal(again(x).picture.mean, tiny.eval()(x).picture.mean)
    assert torch.equal(again.shift, tiny.shift) and torch.equal(again.scale, tiny.scale)


def test_half_precision_weights_take_full_precision_pictures(tiny):
    x = pictures()
    exact = tiny(x).picture.mean
    rough = tiny.bfloat16()(x).picture.mean
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()


def plain() -> DeterministicAutoencoder:
    return DeterministicAutoencoder(2, (8, 8, 8), (1, 1, 1), (1, 1, 1), size=16)


def test_samples_of_the_plain_autoencoder_have_the_moments_of_its_codes():
    model, rng = plain(), torch.Generator().manual_seed(0)
    mix = torch.randn(8, 8, generator=rng)
    z = (torch.randn(5000, 8, generator=rng) @ mix.T + 3).unflatten(1, (2, 2, 2))
    model.fit(z)
    seen = []
    model.decode = lambda z: seen.append(z.flatten(1)) or Dirac(torch.zeros(len(z), 3, 16, 16))
    model.sample([torch.Generator().manual_seed(i) for i in range(5000)])
    flat = z.flatten(1)
    torch.testing.assert_close(seen[0].mean(dim=0), flat.mean(dim=0), atol=0.25, rtol=0)
    error = (seen[0].T.cov() - flat.T.cov()).abs().max() / flat.T.cov().abs().max()
    assert error < 0.08


def test_a_picture_of_the_plain_autoencoder_does_not_depend_on_its_batch():
    model = plain()
    many = model.sample([torch.Generator().manual_seed(i) for i in range(3)])
    one = model.sample([torch.Generator().manual_seed(1)])
    torch.testing.assert_close(many[1:2], one)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m(torch.zeros(1, 3, 24, 16)), "16×24"),
        (lambda m: m.decode(torch.zeros(1, 3, 2, 2)), "another model or level"),
        (lambda m: m.fit(torch.zeros(8, 2, 2, 2)), "8 latents of 8 numbers"),
        (lambda m: m.fit(torch.full((9, 2, 2, 2), float("nan"))), "all of them finite"),
    ],
)
def test_what_does_not_fit_the_plain_autoencoder_is_refused(ask, words):
    with pytest.raises(ValueError, match=words):
        ask(plain())
