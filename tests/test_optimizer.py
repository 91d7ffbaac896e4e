"""Optimisers: Muon's direction against a decomposition, its rule for the rest against torch."""

import math

import pytest
import torch
from torch import nn

from genkit.nn.layers import Head
from genkit.optimizer import Muon, adamw, muon, orthogonal


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Embedding(7, 6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Conv2d(3, 5, 3)
    return nn.ModuleList([*layers, Head(3, 5, 3)])


def gradients(module: nn.Module, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_singular_values_become_one_and_singular_vectors_stay(shape):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(3, *shape, generator=rng) * torch.logspace(-3, 3, 3)[:, None, None]
    found = orthogonal(x)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    inside = u.mT @ found @ vt.mT  # diagonal, were the arithmetic exact
    values = inside.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.6 and values.max() < 1.3
    assert (inside - torch.diag_embed(values)).abs().max() < 0.05
    torch.testing.assert_close(orthogonal(x[1:2])[0], found[1], atol=0.02, rtol=0)


def test_a_zero_gradient_stays_zero():
    assert not orthogonal(torch.zeros(2, 4, 6)).any()


def test_a_matrix_steps_by_the_rate_in_the_size_of_adam():
    weight = nn.Parameter(torch.randn(64, 32, 3, 3))
    before = weight.detach().clone()
    weight.grad = torch.randn(64, 32, 3, 3)
    Muon([weight], [], weight_decay=0.0, lr=0.01).step()
    step = (weight - before).flatten(1)
    rms = step.square().mean().sqrt().item()
    assert rms == pytest.approx(0.2 * 0.01, rel=0.2)
    values = torch.linalg.svdvals(step) / (0.01 * 0.2 * math.sqrt(32 * 9))
    assert 0.6 < values.min() and values.max() < 1.3


def test_decay_shrinks_matrices_alone():
    module = net()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = muon(module, (0.9, 0.99), 0.5)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    matrices = {id(module[1].weight), id(module[3].weight)}
    for old, parameter in zip(before, module.parameters()):
        factor = 0.95 if id(parameter) in matrices else 1.0
        torch.testing.assert_close(parameter.detach(), factor * old)


def test_everything_else_follows_adam_exactly():
    ours, theirs = net(), net()
    optimizer = Muon([], ours.parameters(), betas=(0.8, 0.95), lr=0.01)
    oracle = torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.8, 0.95))
    for seed in range(5):
        for module, steps in ((ours, optimizer), (theirs, oracle)):
            gradients(module, seed)
            steps.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("make", [adamw, muon])
def test_every_trained_parameter_is_stepped_and_no_frozen_one(make):
    module = net()
    module[1].requires_grad_(False)
    optimizer = make(module, (0.9, 0.99), 0.01)
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in module.parameters() if p.requires_grad)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    gradients(module, 0)
    module[1].weight.grad = module[1].bias.grad = None
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer.step()
    for old, parameter in zip(before, module.parameters()):
        assert torch.equal(old, parameter) is not parameter.requires_grad


def test_parameters_without_a_gradient_stay():
    module = net()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    muon(module, (0.9, 0.99), 0.01).step()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))


def test_muon_descends_where_the_directions_differ_a_thousandfold():
    """A linear regression with badly scaled inputs: the mean gradient alone barely moves it."""
    rng = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -3, 16)
    x = torch.randn(256, 16, generator=rng) * scale
    y = x @ torch.randn(16, 16, generator=rng) / scale.mean()
    left = {}
    for name, make in (("muon", muon), ("sgd", None)):
        torch.manual_seed(0)
        layer = nn.Linear(16, 16, bias=False)
        optimizer = make(layer, (0.9, 0.99), 0.0) if make else torch.optim.SGD([layer.weight], 0.1)
        for step in range(300):
            for group in optimizer.param_groups:
                group["lr"] = (0.5 if make else 0.1) * (1 - step / 300)
            loss = (layer(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[name] = loss.item()
    assert left["muon"] < 0.2 * left["sgd"]
