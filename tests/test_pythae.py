"""The benchmark against pythae compares what it says: one bound, by their code and by ours."""

import importlib

import pytest
import torch

from genkit.data.picturebook.source import to_unit
from genkit.models.vae import VAE, Coded, parts

pytest.importorskip("pythae", reason="pythae is not installed, which only this benchmark needs")
bench = importlib.import_module("benchmarks.pythae_vae")


@pytest.fixture()
def net() -> VAE:
    return VAE(4, (16, 24, 32), (1, 1, 1), (1, 1, 1), mixture=2)


def test_their_loss_of_our_network_is_our_bound_and_has_its_gradient(net, rng):
    pictures = torch.randint(256, (3, 3, 32, 32), generator=rng, dtype=torch.uint8)
    model, x = bench.same(net), to_unit(pictures)
    code = model.encoder(pictures / 255)
    levels = net.encode(x)
    raw = model.decoder(code.embedding).reconstruction
    arguments = (pictures / 255, code.embedding, code.log_covariance, code.embedding)
    loss, nats, divergence = model.loss_function(raw, *arguments)
    ours = parts(Coded(net.decode([levels[0].z]), levels), x)
    assert loss.item() == pytest.approx(ours.nats.mean().item(), rel=1e-5)
    assert nats.item() == pytest.approx(ours.parts["reconstruction"].mean().item(), rel=1e-5)
    assert divergence.item() == pytest.approx(ours.parts["4×4"].mean().item(), rel=1e-4)
    found = torch.autograd.grad(loss, list(net.parameters()))
    expected = torch.autograd.grad(ours.nats.mean(), list(net.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


def test_every_contestant_has_as_many_parameters_and_as_large_a_code():
    ours = VAE()
    for name, build in bench.ROWS.items():
        model = build(ours)
        assert abs(bench.size(model) / bench.size(ours) - 1) < 0.03, name
        assert model.latent_dim == 16 * 4 * 4
    assert bench.size(bench.same(ours)) == bench.size(ours)


def test_the_verdict_is_about_the_best_of_the_others():
    rows = {
        bench.OURS: {"bits/dim": 2.0, "frechet": 3.0, "s/step": 0.1},
        bench.SAME: {"bits/dim": 2.5, "frechet": 4.0, "s/step": 0.2},
        "pythae VAMP": {"bits/dim": 2.4, "frechet": 6.0, "s/step": 0.3},
    }
    found = bench.verdict(rows)
    assert found["best of pythae"] == "pythae VAMP"
    assert found["bits/dim less than the best %"] == pytest.approx(100 * (1 - 2 / 2.4))
    assert found["frechet of the best's"] == pytest.approx(0.5)
    assert found["times as fast as the best"] == pytest.approx(3)
    assert found["times as fast as our network"] == pytest.approx(2)
    assert bench.verdict({bench.OURS: rows[bench.OURS]}) == {}
