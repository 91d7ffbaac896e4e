"""Models of latent variables against probabilistic PCA, torch.distributions and their own sums."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from genkit.distributions import Gaussian, LogisticMixture
from genkit.models.hvae import HVAE, WIDEST
from genkit.models.vae import VAE, Coded, Level, drawn, iwae, parts

DIM, LATENT = 6, 2


class Linear(nn.Module):
    """A linear-Gaussian VAE: x = W z + b + s·noise; q(z | x) = N(V (x − c), diag u²)."""

    size, levels = DIM, ("z",)

    def __init__(self, rng: torch.Generator) -> None:
        super().__init__()
        draw = lambda *shape: nn.Parameter(0.3 * torch.randn(*shape, generator=rng).double())  # noqa: E731
        self.w, self.b, self.v, self.c = draw(DIM, LATENT), draw(DIM), draw(LATENT, DIM), draw(DIM)
        self.log_s, self.log_u = draw(1), draw(LATENT)

    def posterior(self, x: torch.Tensor) -> Gaussian:
        mean = (x - self.c) @ self.v.T
        return Gaussian(mean, self.log_u.exp().expand_as(mean))

    def picture(self, z: torch.Tensor) -> Gaussian:
        mean = z @ self.w.T + self.b
        return Gaussian(mean, self.log_s.exp().expand_as(mean))

    def forward(self, x, rngs=None) -> Coded:
        posterior = self.posterior(x)
        prior = Gaussian(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
        z = drawn(posterior, rngs)
        return Coded(self.picture(z), (Level("z", prior, posterior, z),))

    def bound(self, x: torch.Tensor) -> torch.Tensor:
        """The bound with the expectation over z in closed form, the mean over x in nats."""
        q = self.posterior(x)
        spread = (q.std.square() * self.w.square().sum(dim=0)).sum(dim=1)
        mean = -self.picture(q.mean).log_prob(x).sum(dim=1)
        return (mean + 0.5 * spread / (2 * self.log_s).exp() + q.kl().sum(dim=1)).mean()


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(DIM, LATENT)) * 1.5
    return torch.from_numpy(
        rng.normal(size=(800, LATENT)) @ mix.T + 0.5 * rng.normal(size=(800, DIM)) + 0.3
    )


@pytest.fixture(scope="module")
def pca(points) -> PCA:
    return PCA(n_components=LATENT).fit(points.numpy())


@pytest.fixture(scope="module")
def exact(pca) -> Linear:
    """Probabilistic PCA as a VAE: W = U (Λ − s² I)^½ and the posterior that belongs to it."""
    model = Linear(torch.Generator().manual_seed(0))
    variance = torch.from_numpy(pca.explained_variance_)
    noise = torch.tensor(pca.noise_variance_)
    axes = torch.from_numpy(pca.components_)
    w = axes.T * (variance - noise).sqrt()
    # WᵀW is diagonal, so the posterior's covariance s² (WᵀW + s² I)⁻¹ is, too.
    inner = variance
    with torch.no_grad():
        model.w.copy_(w)
        model.b.copy_(torch.from_numpy(pca.mean_))
        model.c.copy_(torch.from_numpy(pca.mean_))
        model.log_s.copy_(0.5 * noise.log().reshape(1))
        model.v.copy_(w.T / inner[:, None])
        model.log_u.copy_(0.5 * (noise / inner).log())
    return model


def test_probabilistic_pca_is_a_vae_without_a_gap(exact, points, pca, rng):
    # With the true posterior every weight p(x, z)/q(z | x) is p(x), whatever z is drawn.
    truth = torch.from_numpy(pca.score_samples(points.numpy()))
    for k in (1, 3):
        torch.testing.assert_close(-iwae(exact, points, k, rng).detach(), truth)
    assert exact.bound(points).item() == pytest.approx(-truth.mean().item(), abs=1e-9)


def test_a_trained_linear_vae_reaches_probabilistic_pca(points, pca):
    rng = torch.Generator().manual_seed(1)
    model = Linear(rng)
    steps = 2500
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        parts(model(points, rng), points).nats.mean().backward()
        optimizer.step()
        schedule.step()
    assert model.bound(points).item() == pytest.approx(-pca.score(points.numpy()), abs=1e-3)


def test_importance_weights_tighten_the_bound_and_never_pass_the_truth(exact, points, pca):
    wrong = Linear(torch.Generator().manual_seed(0))
    wrong.load_state_dict(exact.state_dict())
    with torch.no_grad():
        wrong.log_u += 0.7  # a cloud twice too wide
    some, truth = points[:200], -pca.score(points[:200].numpy())
    rng = torch.Generator().manual_seed(2)

    def mean(k: int, times: int) -> float:
        with torch.no_grad():
            each = [iwae(wrong, some, k, rng).mean() for _ in range(times)]
        return torch.stack(each).mean().item()

    one, five, fifty = found = mean(1, 200), mean(5, 100), mean(50, 40)
    assert one == pytest.approx(wrong.bound(some).item(), abs=0.1)  # k = 1 is the bound itself
    assert one > five + 0.05 and five > fifty + 0.005, found
    assert truth - 0.01 < fifty < truth + 0.05, (found, truth)


def test_bad_counts_are_refused(exact, points, rng):
    with pytest.raises(ValueError, match="k = 0 draws"):
        iwae(exact, points, 0, rng)
    with pytest.raises(ValueError, match="give generators"):
        iwae(exact, points, 2, None)


def test_divergences_are_torchs():
    rng = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 3, 4, 5, 5, generator=rng).double().unbind()
    std, width = (torch.rand(2, 3, 4, 5, 5, generator=rng).double() + 0.2).unbind()
    level = Level("z", Gaussian(other, width), Gaussian(mean, std), mean)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(other, width))
    torch.testing.assert_close(level.dimensions, expected)
    torch.testing.assert_close(level.divergence, expected.sum(dim=(1, 2, 3)))


def test_surprise_is_on_average_the_divergence():
    rng = torch.Generator().manual_seed(0)
    shape = (20_000, 1, 2, 2)
    posterior = Gaussian(torch.full(shape, 0.7), torch.full(shape, 0.6))
    prior = Gaussian(torch.full(shape, -0.2), torch.full(shape, 1.3))
    level = Level("z", prior, posterior, drawn(posterior, rng))
    assert level.surprise.mean().item() == pytest.approx(level.divergence[0].item(), abs=0.05)


def test_gradients_flow_through_the_draw():
    # E z² = μ² + σ², so the gradients are 2μ and 2σ.
    mean = torch.full((200_000,), 0.8, requires_grad=True)
    std = torch.full((200_000,), 0.5, requires_grad=True)
    drawn(Gaussian(mean, std), torch.Generator().manual_seed(0)).square().sum().backward()
    assert mean.grad.mean().item() == pytest.approx(1.6, abs=0.02)
    assert std.grad.mean().item() == pytest.approx(1.0, abs=0.02)


def tiny_vae() -> VAE:
    return _stirred(VAE(4, (16, 16, 16), (1, 1, 1), (1, 1, 1), mixture=2, size=16))


def tiny_hvae() -> HVAE:
    return _stirred(HVAE((4, 3, 2), (1, 2, 1), (16, 16, 16), (1, 1, 1), mixture=2, size=16))


def _stirred(model):
    """Zeros at the start hide mistakes: small numbers everywhere."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=rng)
    return model.double()


def pictures(count: int, size: int = 16) -> torch.Tensor:
    rng = torch.Generator().manual_seed(4)
    grey = torch.randint(0, 256, (count, 3, size, size), generator=rng)
    return grey.double() / 127.5 - 1


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


BOTH = pytest.mark.parametrize("make", [tiny_vae, tiny_hvae])


@BOTH
def test_the_parts_add_up_to_the_bound(make):
    model, x = make(), pictures(3)
    with torch.no_grad():
        coded = model(x, generators(3))
        bound = parts(coded, x)
    assert tuple(bound.parts) == ("reconstruction", *model.levels)
    by_hand = -coded.picture.log_prob(x).sum(dim=(1, 2))
    by_hand = by_hand + sum(level.divergence for level in coded.levels)
    torch.testing.assert_close(bound.nats, by_hand)
    torch.testing.assert_close(bound.bits, by_hand / (3 * 16 * 16 * math.log(2)))
    assert all((level.divergence > 0).all() for level in coded.levels)


@BOTH
def test_a_picture_does_not_depend_on_its_batch(make):
    model, x = make(), pictures(4)
    with torch.no_grad():
        together = parts(model(x, generators(4)), x).nats
        alone = parts(model(x[2:3], generators(1, 2)), x[2:3]).nats
        many, one = model.sample(generators(4)), model.sample(generators(1, 2))
    torch.testing.assert_close(together[2:3], alone)
    torch.testing.assert_close(many[2:3], one)


@BOTH
def test_what_was_encoded_decodes_to_the_same(make):
    model, x = make(), pictures(2)
    with torch.no_grad():
        coded = model(x, generators(2))
        latents = [level.z for level in coded.levels]
        again = model.decode(latents)
        kept, picture = model.generate(generators(2, 9), given=latents)
    torch.testing.assert_close(again.log_prob(x), coded.picture.log_prob(x))
    torch.testing.assert_close(picture.log_prob(x), coded.picture.log_prob(x))
    assert all(torch.equal(a, b) for a, b in zip(kept, latents, strict=True))


@BOTH
def test_encode_gives_the_means_without_randomness(make):
    model, x = make(), pictures(2)
    with torch.no_grad():
        for level in model.encode(x):
            assert torch.equal(level.z, level.posterior.mean)


def test_levels_that_are_given_stay_and_the_others_are_drawn():
    model, x = tiny_hvae(), pictures(2)
    with torch.no_grad():
        given = [level.z for level in model.encode(x, generators(2))][:2]
        first, _ = model.generate(generators(2, 5), given=given)
        other, _ = model.generate(generators(2, 6), given=given)
    assert all(torch.equal(a, b) for a, b in zip(first[:2], given, strict=True))
    assert not torch.equal(first[2], other[2]) and not torch.equal(first[3], other[3])


def test_without_temperature_every_draw_is_the_prior_mean():
    model = tiny_hvae()
    with torch.no_grad():
        a, _ = model.generate(generators(1, 1), temperature=0.0)
        b, _ = model.generate(generators(1, 2), temperature=0.0)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_parameter_of_a_ladder_learns():
    model, x = tiny_hvae(), pictures(2)
    parts(model(x, generators(2)), x).bits.mean().backward()
    still = [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert not still


@BOTH
@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m(pictures(1, 24)), "24×24"),
        (lambda m: m.generate(generators(1), temperature=math.nan), "temperature is nan"),
        (lambda m: m.generate(generators(1), temperature=2.1), "use 0 to 2"),
        (lambda m: m.decode([]), "0 latents were given"),
        (lambda m: m.decode([torch.zeros(1, 9, 2, 2)] * len(m.levels)), "another model or level"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(make, ask, words):
    with pytest.raises(ValueError, match=words):
        ask(make())


def mixture(levels: int, size: int = 1) -> LogisticMixture:
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(1, *shape, size, size, generator=rng).double()  # noqa: E731
    return LogisticMixture(draw(3), 0.5 * draw(3, 3), draw(3, 3) - 2, draw(3, 3).tanh(), levels)


def colours(levels: int) -> torch.Tensor:
    """Every colour of a pixel, "N 3 1 1"."""
    grid = torch.arange(levels).double() * 2 / (levels - 1) - 1
    return torch.cartesian_prod(grid, grid, grid)[:, :, None, None]


def spread_over(law: LogisticMixture, count: int) -> LogisticMixture:
    fields = (law.logits, law.centre, law.log_scale, law.couple)
    return LogisticMixture(*(f.expand(count, *f.shape[1:]) for f in fields), law.levels)


def test_all_colours_have_probability_one_and_bits_are_their_entropy():
    law, all_colours = mixture(9), colours(9)
    log_p = spread_over(law, len(all_colours)).log_prob(all_colours).flatten()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    entropy = -(log_p.exp() * log_p).sum().item()
    many = LogisticMixture(*(
        f.expand(*f.shape[:-2], 200, 200)
        for f in (law.logits, law.centre, law.log_scale, law.couple)
    ), 9)  # fmt: skip
    x = many.sample(torch.Generator().manual_seed(1))
    coded = Coded(many, ())
    found = parts(coded, x).nats.item() / 40_000
    assert found == pytest.approx(entropy, abs=0.02)


def test_samples_have_the_probabilities():
    law = mixture(4)
    fields = (law.logits, law.centre, law.log_scale, law.couple)
    many = LogisticMixture(*(f.expand(*f.shape[:-2], 300, 300) for f in fields), 4)
    x = ((many.sample(torch.Generator().manual_seed(1)) + 1) * 1.5).round().long()
    found = torch.bincount((x[0, 0] * 16 + x[0, 1] * 4 + x[0, 2]).flatten(), minlength=64) / 90_000
    truth = spread_over(law, 64).log_prob(colours(4)).exp().flatten()
    assert (found - truth).abs().max() < 0.006


def test_mean_and_deviation_are_those_of_samples_in_the_middle():
    # Narrow laws near grey on a fine grid, so that neither the grid nor its ends matter.
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(1, *shape, 1, 1, generator=rng).double()  # noqa: E731
    fields = (draw(2), 0.1 * draw(2, 3), 0.2 * draw(2, 3) - 3.5, draw(2, 3).tanh())
    law = LogisticMixture(*fields)
    many = LogisticMixture(*(f.expand(*f.shape[:-2], 400, 400) for f in fields))
    x = many.sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(x.mean(dim=(2, 3)), law.mean.flatten(1), atol=2e-3, rtol=0)
    torch.testing.assert_close(x.std(dim=(2, 3)), law.std.flatten(1), atol=2e-3, rtol=0)


def test_log_prob_is_exact_far_from_every_component():
    # The difference of two sigmoids would be 0 there, and its logarithm −∞.
    zero = torch.zeros(1, 1, 1, 1).double()
    law = LogisticMixture(
        zero, zero[:, :, None].expand(1, 1, 3, 1, 1),
        torch.full((1, 1, 3, 1, 1), -7.0).double(), zero[:, :, None].expand(1, 1, 3, 1, 1),
    )  # fmt: skip
    x = torch.full((1, 3, 1, 1), 128 / 127.5 - 1 + 100 / 127.5).double()
    inverse = math.exp(7)
    far = x.flatten()[0].item() - 1 / 255
    expected = 3 * (-inverse * far + math.log(-math.expm1(-2 / 255 * inverse)))
    assert law.log_prob(x).item() == pytest.approx(expected, rel=1e-9)


def test_channels_of_a_network_fill_a_mixture():
    raw = torch.randn(2, 30, 4, 4)
    law = LogisticMixture.of(raw)
    assert torch.equal(law.logits, raw[:, :3])
    assert torch.equal(law.centre.flatten(1, 2), raw[:, 3:12])
    assert law.log_scale.min() >= -7 and law.couple.abs().max() <= 1


def test_no_level_expects_more_than_its_widest_prior():
    # A way down that is far from all that was ever learned must not run away.
    rung = tiny_hvae().rungs[0][0]
    torch.nn.init.constant_(rung.prior.bias, 100.0)
    with torch.no_grad():
        wide = rung.expect(torch.randn(1, 16, 2, 2).double())
    assert wide.std.max() == pytest.approx(math.exp(WIDEST))


def test_a_rung_weighs_prior_and_measurement_as_bayes_does():
    # Prior N(a, s²) times likelihood N(m; z, r²): the product, normalised on a fine grid.
    rung = tiny_hvae().rungs[0][0]
    h, seen, x = torch.randn(1, 16, 2, 2), torch.randn(1, 16, 2, 2), torch.randn(1, 3, 16, 16)
    h, seen, x = h.double(), seen.double(), x.double()
    with torch.no_grad():
        prior = rung.expect(h)
        q = rung.look(prior, h, seen, x)
        wide = Gaussian(prior.mean, torch.full_like(prior.std, 1e4))
        measured = rung.look(wide, h, seen, x)  # a prior that knows nothing leaves m and r
    z = torch.linspace(-30, 30, 60_001).double()
    pick = (0, 1, 1, 0)
    density = torch.zeros_like(z)
    for law in (prior, measured):
        density += Gaussian(law.mean[pick].expand_as(z), law.std[pick].expand_as(z)).log_prob(z)
    weight = density.softmax(dim=0)
    mean = (weight * z).sum()
    assert q.mean[pick].item() == pytest.approx(mean.item(), abs=1e-6)
    deviation = (weight * (z - mean).square()).sum().sqrt()
    assert q.std[pick].item() == pytest.approx(deviation.item(), abs=1e-6)


def test_a_level_of_which_the_prior_is_sure_costs_nothing():
    rung = tiny_hvae().rungs[0][0]
    prior = Gaussian(torch.zeros(1, 4, 2, 2).double(), torch.full((1, 4, 2, 2), 1e-4).double())
    shapes = torch.randn(1, 16, 2, 2).double(), torch.randn(1, 16, 2, 2).double()
    q = rung.look(prior, *shapes, torch.randn(1, 3, 16, 16).double())
    assert q.kl(prior).max().item() < 1e-5
