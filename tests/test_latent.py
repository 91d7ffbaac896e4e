"""Latent diffusion: the parts fit, the units are right, and one checkpoint holds them all."""

import copy

import pytest
import torch
from torch import nn

from genkit.diffusion.denoise import Denoiser, Epsilon, V
from genkit.diffusion.schedule import Cosine
from genkit.models.autoencoder import Autoencoder
from genkit.models.latent import LatentDiffusion
from genkit.models.text import TextEncoder, train_vocabulary
from genkit.nn.unet import UNet

TEXTS = ("a red house", "", "một ngôi nhà đỏ")


@pytest.fixture()
def tiny() -> LatentDiffusion:
    autoencoder = Autoencoder(channels=4, encoder=(8, 8), decoder=(8, 8))
    autoencoder.calibrate(torch.arange(4.0) - 1, torch.arange(4.0) + 0.5)
    unet = UNet(latent=4, channels=(16, 16), blocks=(1, 1), heads=(1, 1), text=16, dim=16)
    text = TextEncoder(train_vocabulary(TEXTS, 300), dim=16, layers=1, heads=2, tokens=5)
    model = LatentDiffusion(autoencoder, text, Denoiser(unet, Cosine(), V()))
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return model.eval()


def latents() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.9])


def test_latents_are_in_units_of_the_calibration(tiny):
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    q, inner = tiny.encode(x), tiny.autoencoder.encode(x)
    torch.testing.assert_close(q.mean, tiny.autoencoder.standardise(inner.mean))
    torch.testing.assert_close(tiny.autoencoder.restore(q.mean + q.std) - inner.mean, inner.std)
    direct = tiny.autoencoder.decode(inner.mean).mean
    torch.testing.assert_close(tiny.decode(q.mean).mean, direct)


def test_forward_is_the_denoiser_under_the_condition(tiny):
    z, t = latents()
    cond = tiny.condition(TEXTS)
    assert set(cond) == {"text"} and cond["text"].shape == (3, 5, 16)
    assert torch.equal(tiny(z, t, TEXTS).mean, tiny.denoiser(z, t, cond).mean)
    assert not torch.equal(tiny(z, t, ("",) * 3).mean, tiny(z, t, TEXTS).mean)


def test_a_fresh_net_predicts_nothing_so_x0_is_what_the_noise_level_says():
    unet = UNet(latent=4, channels=(16, 16), blocks=(1, 1), heads=(1, 1), text=16, dim=16)
    (z, t), text = latents(), torch.randn(3, 5, 16)
    alpha = Cosine()(t)[0][:, None, None, None]
    mean = Denoiser(unet, Cosine(), V())(z, t, {"text": text}).mean
    torch.testing.assert_close(mean, alpha * z, atol=1e-5, rtol=1e-5)
    mean = Denoiser(unet, Cosine(), Epsilon())(z, t, {"text": text}).mean
    torch.testing.assert_close(mean, z / alpha, atol=1e-5, rtol=1e-5)


def test_unknown_conditions_are_refused(tiny):
    z, t = latents()
    with pytest.raises(TypeError, match="txet"):
        tiny.denoiser(z, t, {"txet": torch.zeros(3, 5, 16)})


def test_only_text_encoder_and_denoiser_learn(tiny):
    z, t = latents()
    tiny.denoiser.loss(z, t, torch.randn_like(z), tiny.condition(TEXTS)).sum().backward()
    for name, p in tiny.named_parameters():
        used = not name.startswith("autoencoder.") and ".heads." not in name
        assert p.requires_grad != name.startswith("autoencoder."), name
        assert (p.grad is not None and bool(p.grad.any())) == used, name


def test_one_checkpoint_holds_everything(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "latent")
    again = LatentDiffusion.from_pretrained(tmp_path / "latent")
    assert again.config == tiny.config
    z, t = latents()
    with torch.no_grad():
        assert torch.equal(again(z, t, TEXTS).mean, tiny(z, t, TEXTS).mean)
        assert torch.equal(again.decode(z).mean, tiny.decode(z).mean)


def test_a_copy_is_independent_and_equal(tiny):
    """An exponential moving average starts as a copy, tokenizer and all."""
    twin, (z, t) = copy.deepcopy(tiny), latents()
    assert torch.equal(twin(z, t, TEXTS).mean, tiny(z, t, TEXTS).mean)
    with torch.no_grad():
        twin.text_encoder.scene.add_(1)
    assert not torch.equal(twin(z, t, TEXTS).mean, tiny(z, t, TEXTS).mean)


def test_sizes(tiny):
    assert tiny.latent_shape(128, 192) == (4, 16, 24)
    for height, width in ((120, 128), (0, 128), (8, 16)):
        with pytest.raises(ValueError, match="multiples of 16"):
            tiny.latent_shape(height, width)


def test_half_precision_is_near_full_precision(tiny):
    z, t = latents()
    exact = tiny(z, t, TEXTS).mean
    rough = tiny.bfloat16()(z, t, TEXTS).mean
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()
    assert tiny.decode(rough).mean.dtype == torch.float32
