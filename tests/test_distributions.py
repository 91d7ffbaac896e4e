"""Distributions against scipy, torch.distributions and their own moments."""

import math

import pytest
import torch
from scipy import stats

from genkit.distributions import Bernoulli, Categorical, Dirac, Gaussian


def test_gaussian_log_prob_is_scipys():
    mean = torch.randn(3, 4, dtype=torch.float64)
    std = torch.rand(3, 4, dtype=torch.float64) + 0.1
    x = torch.randn(3, 4, dtype=torch.float64)
    expected = stats.norm(mean.numpy(), std.numpy()).logpdf(x.numpy())
    torch.testing.assert_close(Gaussian(mean, std).log_prob(x).numpy(), expected)


def test_gaussian_kl_is_torchs_and_zero_at_the_standard():
    mean = torch.randn(5, dtype=torch.float64)
    std = torch.rand(5, dtype=torch.float64) + 0.1
    standard = torch.distributions.Normal(torch.zeros(5).double(), torch.ones(5).double())
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), standard)
    torch.testing.assert_close(Gaussian(mean, std).kl(), expected)
    assert Gaussian(torch.zeros(2), torch.ones(2)).kl().eq(0).all()


def test_gaussian_samples_have_its_moments(rng):
    x = Gaussian(torch.full((40000,), 2.0), torch.tensor(0.5)).sample(rng)
    assert x.mean().item() == pytest.approx(2, abs=5 * 0.5 / 200)
    assert x.std().item() == pytest.approx(0.5, abs=0.01)


def test_dirac_is_its_value():
    value = torch.tensor([1.0, -2.0])
    dirac = Dirac(value)
    assert dirac.sample() is dirac.mean is value
    assert dirac.log_prob(torch.tensor([1.0, 2.0])).tolist() == [0, -math.inf]


def test_bernoulli_is_normalised_and_sampled_from(rng):
    logits = torch.linspace(-3, 3, 7, dtype=torch.float64)
    bits = Bernoulli(logits)
    total = bits.log_prob(torch.ones_like(logits)).exp() + bits.log_prob(0 * logits).exp()
    torch.testing.assert_close(total, torch.ones_like(logits))
    many = Bernoulli(logits.expand(20000, 7)).sample(rng)
    assert set(many.unique().tolist()) == {0, 1}
    assert (many.mean(0) - bits.mean).abs().max() < 0.02


def test_bernoulli_log_prob_is_finite_for_huge_logits():
    bits = Bernoulli(torch.tensor([1000.0, -1000.0]))
    assert bits.log_prob(torch.tensor([1.0, 0.0])).tolist() == [0, 0]
    assert bits.log_prob(torch.tensor([0.0, 1.0])).tolist() == [-1000, -1000]


def test_categorical_is_normalised_and_sampled_from(rng):
    logits = torch.randn(5, dtype=torch.float64)
    die = Categorical(logits.expand(40000, 5))
    every = Categorical(logits.expand(5, 5)).log_prob(torch.arange(5)).exp()
    assert every.sum().item() == pytest.approx(1)
    torch.testing.assert_close(every, die.mean[0])
    share = die.sample(rng).bincount(minlength=5) / 40000
    assert (share - every).abs().max() < 0.015
    assert die.mode[0] == logits.argmax()


def test_categorical_never_draws_the_impossible(rng):
    logits = torch.tensor([0.0, -math.inf, 0.0]).expand(10000, 3)
    assert 1 not in Categorical(logits).sample(rng)


@pytest.mark.parametrize("kind", [Bernoulli, Categorical, lambda x: Gaussian(x, x.exp())])
def test_a_seed_is_a_sample(kind):
    q = kind(torch.randn(4, 6))
    draws = [q.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])
