"""The cost of training, counted by hand on networks that are small enough."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from genkit.cost import cost
from genkit.model import Model
from genkit.nn.attention import Attention
from genkit.objectives import Batch, Loss
from genkit.recipe import Recipe


class Sums(Model):
    """A convolution, a matrix and an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.matrix = nn.Linear(8, 5)


class Twice:
    """Two players in turn: all of the network, then the matrix alone."""

    def __init__(self, model: Sums) -> None:
        self.model, self.players = model, {"all": model.conv, "matrix": model.matrix}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        seen = self.model.conv(batch["x"]).mean(dim=(2, 3))
        yield Loss("all", self.model.matrix(seen).sum())
        yield Loss("matrix", self.model.matrix(seen.detach()).sum())


class Looking(Model):
    """One attention of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(8, 2)


class Look:
    def __init__(self, model: Looking) -> None:
        self.model, self.players = model, {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        yield Loss("model", self.model.attention(batch["x"]).sum())


def recipe(model: type[Model], objective: type, x: torch.Tensor) -> Recipe:
    class Data:
        def __len__(self) -> int:
            return 10

        def batch(self, indices, rng) -> Batch:
            return {"x": x.expand(len(indices), *x.shape)}

    return Recipe(
        name="sums", model=model, objective=objective, data=Data, steps=7, batch=4, lr=1e-3
    )


def test_a_step_is_the_products_forward_and_backward():
    found = cost(recipe(Sums, Twice, torch.ones(3, 6, 6)))
    conv = 2 * 4 * 36 * (3 * 9) * 8  # a picture needs no gradient: the weights' alone
    matrix = 2 * 4 * 8 * 5
    assert found.step == 2 * conv + 3 * matrix + 2 * matrix
    assert found.parameters == 8 * 27 + 8 + 40 + 5
    assert found.steps == 7 and found.whole == 7 * found.step


def test_attention_is_counted_as_its_products():
    found = cost(recipe(Looking, Look, torch.ones(5, 8)))
    projections = 4 * (2 * 4 * 5 * 8 * 8)  # q, k, v and out
    products = 2 * (2 * 4 * 2 * 5 * 5 * 4)  # q·kᵀ and weights·v, two heads of 4
    assert found.step == 2 * projections + (projections // 4) + 3 * products


def test_the_cost_follows_batch_and_steps_and_leaves_chance_alone():
    some = recipe(Sums, Twice, torch.ones(3, 6, 6))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = cost(some)
    assert torch.equal(torch.rand(3), expected)
    assert cost(replace(some, batch=8)).step == 2 * one.step
    assert cost(replace(some, batch=256)).step == 64 * one.step  # of which 32 are counted
    assert cost(replace(some, steps=21)).whole == 3 * one.whole
    given = cost(some, {"x": torch.ones(2, 3, 6, 6)})
    assert given.step == pytest.approx(one.step / 2)
