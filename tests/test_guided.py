"""Guided diffusion: learned variance, the hybrid loss, classifier guidance, pixels and recipes.

Data of two Gaussians with classes of their own have everything in closed form: the denoiser of
either, of their mixture, and the classifier P(class | x_t).
"""

import importlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import config
from scipy import stats
from torch import Tensor, nn

from genkit import hub
from genkit.data.picturebook.scene import GROUNDS, TIMES, Scene
from genkit.data.picturebook.source import label_tensor
from genkit.diffusion.denoise import Denoiser, Denoises, Epsilon, V
from genkit.diffusion.guide import ClassifierGuided, Classifies, Clipped, Guided
from genkit.diffusion.likelihood import chain, flow, terms, total
from genkit.diffusion.sample import DDIM, DDPM, noise
from genkit.diffusion.schedule import Cosine, LinearBeta, Rectified, Schedule
from genkit.diffusion.variance import LearnedDDPM, LearnedVariance, Wide, earlier, posterior
from genkit.distributions import Categorical, Dirac, Gaussian
from genkit.model import Model
from genkit.models.classifier import CLASSES, NoisyClassifier, class_of
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.objectives import Denoising, Hybrid, Loss, NoisyClassification, Objective, denoising
from genkit.objectives.base import drawn_times

CHAINS = [LinearBeta(), Cosine(), LinearBeta(1e-3, 0.3, 20)]


@pytest.fixture()
def fast() -> Iterator[None]:
    """No checks of shapes in hot loops."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


class Says(Model):
    """A backbone that says one number for F and another for the share of the variance."""

    def __init__(self, first: float = 0.0, second: float = 0.0) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.tensor([first, second], dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.both[:, None, None] * torch.ones_like(x).repeat(1, 2, 1, 1)


def _rngs(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def _shaken(module: nn.Module) -> nn.Module:
    """The module with every zero of its start replaced, so that nothing hides behind a zero."""
    for p in module.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return module


def _step_variance(denoiser: Denoises, schedule: Schedule, t: Tensor) -> Tensor:
    """Σ of p(x_s | x_t), s one step of the chain before t."""
    answer = denoiser(torch.zeros(len(t), 1, 1, 1, dtype=torch.float64), t)
    _, give, variance = posterior(schedule(t), earlier(schedule, t))
    return variance + give.square() * answer.std.flatten().square()


# --- learned variance ---------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", CHAINS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.98])
def test_the_variance_of_a_step_is_interpolated_in_logarithms(schedule, share):
    """Nichol and Dhariwal, equation 15, at every step; β̃_2 stands for β̃_1."""
    betas = schedule.betas()
    bars = torch.cat([torch.ones(1).double(), (1 - betas).cumprod(0)])
    least = (1 - bars[:-1]) / (1 - bars[1:]) * betas
    least[0] = least[1]
    expected = (share * betas.log() + (1 - share) * least.log()).exp()
    net = Says(second=math.log(share / (1 - share)))
    t = chain(schedule, len(betas))
    learned = _step_variance(LearnedVariance(net, schedule, Epsilon()), schedule, t)
    torch.testing.assert_close(learned, expected, rtol=1e-9, atol=0)


def test_the_variance_of_a_step_is_diffusers():
    """Their `learned_range` reads (output + 1)/2 for the share, after the first step."""
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type="learned_range")
    schedule, share = LinearBeta(), torch.rand(999, dtype=torch.float64) * 0.9 + 0.05
    t = chain(schedule)[1:]
    for k in (0, 1, 50, 500, 998):
        log = theirs._get_variance(k + 1, 2 * share[k] - 1, "learned_range")
        net = Says(second=torch.logit(share[k]).item())
        found = _step_variance(LearnedVariance(net, schedule, Epsilon()), schedule, t[k : k + 1])
        assert found.item() == pytest.approx(math.exp(log), rel=1e-4)  # they are in float32


@pytest.mark.parametrize("schedule", CHAINS)
def test_the_limits_of_a_learned_variance_are_ddpms_two(schedule):
    t = chain(schedule, len(schedule.betas()))
    low, high = (
        _step_variance(LearnedVariance(Says(second=s), schedule, Epsilon()), schedule, t)
        for s in (-40.0, 40.0)
    )
    wide = _step_variance(Wide(LearnedVariance(Says(), schedule, Epsilon())), schedule, t)
    torch.testing.assert_close(wide, schedule.betas(), rtol=1e-9, atol=0)
    torch.testing.assert_close(high, schedule.betas(), rtol=1e-9, atol=0)
    least = posterior(schedule(t), earlier(schedule, t)).variance
    torch.testing.assert_close(low[1:], least[1:], rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learned_deviation_is_accurate_in_float32_and_has_gradients(dtype):
    """At the end of a chain β̃/β is 0.999: a difference of powers would lose every digit."""
    schedule = LinearBeta()
    t = chain(schedule)
    backbone = Says(0.1, 0.4)
    learned = LearnedVariance(backbone, schedule, Epsilon())
    x = torch.randn(1000, 1, 2, 2, dtype=torch.float64)
    exact = learned(x, t)
    answer = learned.to(dtype)(x.to(dtype), t)
    torch.testing.assert_close(answer.std.double(), exact.std, rtol=1e-5, atol=0)
    torch.testing.assert_close(answer.mean.double(), exact.mean, rtol=1e-4, atol=1e-3)
    answer.std.log().mean().backward()
    assert backbone.both.grad[1] > 0 and backbone.both.grad[0] == 0


def test_a_learned_variance_is_a_denoiser_with_the_same_mean():
    schedule = Cosine()
    net = _shaken(PixelUNet((16, 16, 16), (1, 1, 1), heads=1, out=6, dim=16)).double()
    learned = LearnedVariance(net, schedule, V())
    assert isinstance(learned, Denoises)
    x, t = torch.randn(2, 3, 8, 8).double(), torch.tensor([0.2, 0.7]).double()
    cond = {"label": torch.tensor([3, 16])}
    answer = learned(x, t, cond)
    alpha, sigma = (c[:, None, None, None] for c in schedule(t))
    output = net(x, torch.atan2(sigma, alpha).flatten() * 2 / math.pi, **cond)
    torch.testing.assert_close(answer.mean, alpha * x - sigma * output[:, :3])
    assert (answer.std > 0).all() and (answer.std < sigma).all()


def test_what_a_learned_variance_needs(fast):
    net = PixelUNet((16, 16, 16), (1, 1, 1), heads=1, out=3, dim=16)
    with pytest.raises(TypeError, match="Rectified has no steps whose variance"):
        LearnedVariance(net, Rectified(), Epsilon())
    with pytest.raises(ValueError, match="3 channels of 3; a learned variance needs twice"):
        cond = {"label": torch.tensor([0])}
        LearnedVariance(net, LinearBeta(), V())(torch.zeros(1, 3, 8, 8), torch.tensor([0.5]), cond)


class Normal:
    """The exact answer for N(mean, std²), whose reverse steps are exact at every length."""

    passes = 1

    def __init__(self, schedule: Schedule, mean: float, std: float) -> None:
        self.schedule, self.centre, self.width = schedule, mean, std

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Gaussian:
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        power = alpha.square() * self.width**2 + sigma.square()
        gain = alpha * self.width**2 / power
        mean = self.centre + gain * (x_t - alpha * self.centre)
        return Gaussian(mean, (self.width * sigma / power.sqrt()).expand_as(mean))


@pytest.mark.parametrize("schedule", [Rectified(), Cosine()])
def test_four_steps_with_the_exact_variance_have_the_exact_deviation(schedule, fast):
    """All but the last step, which draws nothing: its own variance is what is missing."""
    rngs, denoiser = _rngs(8), Normal(schedule, 0.3, 0.5)
    x = noise(rngs, (1, 64, 64), torch.float64)
    *_, state = LearnedDDPM().trajectory(denoiser, x, 4, rngs=rngs, stop=0.1)
    level = schedule.level(0.1)
    exact = math.hypot(level.alpha * 0.5, level.sigma)
    assert state.x.mean().item() == pytest.approx(level.alpha * 0.3, abs=0.015)
    assert state.x.std().item() == pytest.approx(exact, rel=0.015)
    *_, state = DDPM().trajectory(denoiser, x, 4, rngs=_rngs(8), stop=0.1)
    assert state.x.std().item() < 0.9 * exact


def test_without_a_deviation_it_is_ddpm():
    for schedule in (LinearBeta(), Rectified()):
        x = noise(_rngs(2), (1, 4, 4), torch.float64)
        point = Clipped(Guided(Points(Normal(schedule, 0.1, 0.4)), 1.0, {}))
        a, b = (s(point, x, 6, rngs=_rngs(2, 5)) for s in (DDPM(), LearnedDDPM()))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="pass rngs"):
        LearnedDDPM()(point, x, 6)


class Points:
    """The mean of an answer alone."""

    passes = 1

    def __init__(self, denoiser: Denoises) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        return Dirac(self.denoiser(x_t, t).mean)


# --- classifier guidance ------------------------------------------------------------------------

MEANS, STDS, PRIOR = (-0.8, 0.5), (0.3, 0.6), (0.3, 0.7)


class Class:
    """The exact denoiser of one component of a picture-wide mixture."""

    passes = 1

    def __init__(self, schedule: Schedule, label: int) -> None:
        self.schedule, self.inner = schedule, Normal(schedule, MEANS[label], STDS[label])

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        return Dirac(self.inner(x_t, t).mean)


class Which:
    """The exact P(class | x_t) of the mixture."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Categorical:
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        logits = []
        for mean, std, share in zip(MEANS, STDS, PRIOR, strict=True):
            q = Gaussian(alpha * mean, (alpha.square() * std**2 + sigma.square()).sqrt())
            z = Gaussian(q.mean.expand_as(x_t), q.std.expand_as(x_t)).log_prob(x_t)
            logits.append(z.sum(dim=(1, 2, 3)) + math.log(share))
        return Categorical(torch.stack(logits, dim=-1))


class Mixture:
    """The exact denoiser of the mixture: the components' answers, weighted by the classifier."""

    passes = 1

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.which = schedule, Which(schedule)
        self.parts = [Class(schedule, label) for label in range(2)]

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        weights = self.which(x_t, t).mean
        parts = torch.stack([part(x_t, t).mean for part in self.parts], dim=-1)
        return Dirac((parts * weights[:, None, None, None]).sum(dim=-1))


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), Rectified(), Rectified(3.0)])
def test_scale_one_with_the_exact_classifier_is_the_exact_conditional(schedule):
    x = torch.randn(6, 1, 2, 2, dtype=torch.float64)
    t = torch.tensor([0.01, 0.2, 0.4, 0.6, 0.8, 0.97], dtype=torch.float64)
    for label in (0, 1):
        guided = ClassifierGuided(Mixture(schedule), Which(schedule), 1.0)
        assert isinstance(guided, Denoises) and isinstance(guided.classifier, Classifies)
        exact = Class(schedule, label)(x, t).mean
        found = guided(x, t, {"label": torch.full((6,), label)}).mean
        torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)


def test_guidance_is_linear_in_the_scale_and_nothing_at_zero():
    schedule, x = Cosine(), torch.randn(2, 1, 2, 2, dtype=torch.float64)
    t, label = torch.tensor([0.3, 0.6], dtype=torch.float64), torch.tensor([0, 1])
    none, one, three = (
        ClassifierGuided(Mixture(schedule), Which(schedule), s)(x, t, {"label": label}).mean
        for s in (0.0, 1.0, 3.0)
    )
    assert none.equal(Mixture(schedule)(x, t).mean)
    torch.testing.assert_close(three - none, 3 * (one - none))


def test_sampling_with_a_classifier_gives_the_class(fast):
    """Samplers turn gradients off; guidance turns its own on, and leaves none behind."""
    schedule = Rectified()
    guided = ClassifierGuided(Mixture(schedule), Which(schedule), 1.0)
    x = noise(_rngs(500), (1, 1, 1), torch.float64)
    label = {"label": torch.zeros(500, dtype=torch.int64)}
    *_, state = DDIM().trajectory(guided, x, 100, label, start=0.999)
    assert state.nfe == 100 and not state.x.requires_grad
    assert state.x.mean().item() == pytest.approx(MEANS[0], abs=5 * STDS[0] / 500**0.5)
    assert state.x.std().item() == pytest.approx(STDS[0], rel=0.12)


def test_a_classifier_guided_denoiser_has_the_density_of_the_class(fast):
    """The trace of the flow runs through the gradient of the classifier, a second derivative."""
    schedule = Rectified()
    guided = ClassifierGuided(Mixture(schedule), Which(schedule), 1.0)
    x = torch.tensor([-0.7, 0.2, 1.0], dtype=torch.float64)[:, None, None, None]
    # At α = 0 nothing is to be guided, so the schedule ends just before it.
    label = {"label": torch.ones(3, dtype=torch.int64)}
    *_, state = flow(_Early(guided), x, _rngs(3), label, tolerance=1e-7, start=0.001)
    exact = stats.norm(MEANS[1], math.hypot(STDS[1], 0.001)).logpdf(x.flatten().numpy())
    np.testing.assert_allclose(state.log_density.numpy(), exact, atol=2e-3)


class _Early:
    """A denoiser on the rectified schedule, asked at t ≤ 0.9999 only."""

    passes = 1

    def __init__(self, denoiser: Denoises) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, cond: dict | None = None) -> Dirac:
        return self.denoiser(x_t, t.clamp(max=0.9999), cond)


def test_a_deviation_passes_through_every_wrapper():
    schedule = Cosine()
    learned = Normal(schedule, 2.0, 0.1)
    x, t = torch.randn(2, 1, 2, 2).double(), torch.tensor([0.3, 0.6]).double()
    std = learned(x, t).std
    label = {"label": torch.tensor([0, 1])}
    for wrapped in (
        Guided(learned, 3.0, label),
        ClassifierGuided(learned, Which(schedule), 2.0),
        Clipped(learned),
    ):
        assert wrapped(x, t, label).std.equal(std)
    assert learned(x, t).mean.min() > 1 and Clipped(learned)(x, t).mean.eq(1).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m, w, x: ClassifierGuided(m, w, math.inf), "scale is inf"),
        (lambda m, w, x: ClassifierGuided(m, w, 1.0)(x, torch.ones(2) / 2), "which is missing"),
        (
            lambda m, w, x: ClassifierGuided(m, w, 1.0)(
                x, torch.ones(2), {"label": torch.tensor([0, 1])}
            ),
            "undefined at alpha = 0",
        ),
        (
            lambda m, w, x: ClassifierGuided(m, w, 1.0)(
                x, torch.ones(2) / 2, {"label": torch.tensor([0, 2])}
            ),
            "give each picture one of the classifier's 2 classes",
        ),
        (
            lambda m, w, x: ClassifierGuided(m, w, 1.0)(
                x, torch.ones(2) / 2, {"label": torch.tensor([1])}
            ),
            "labels .1. for 2 pictures",
        ),
    ],
)
def test_errors_tell_the_remedy(call, sentence):
    schedule = Rectified()
    with pytest.raises(ValueError, match=sentence):
        call(Mixture(schedule), Which(schedule), torch.zeros(2, 1, 2, 2))


# --- networks -----------------------------------------------------------------------------------


def small(out: int = 3, schedule: Schedule | None = None, shaken: bool = False) -> PixelDiffusion:
    net = PixelUNet((16, 16, 32), (1, 1, 1), heads=2, out=out, dim=16)
    kind = Denoiser if out == 3 else LearnedVariance
    model = PixelDiffusion(kind(net, schedule or LinearBeta(), Epsilon()))
    return _shaken(model) if shaken else model


def test_classes_are_ground_times_time_of_day():
    assert len(CLASSES) == 16 == len(set(CLASSES))
    scenes = [Scene.random(seed) for seed in range(40)]
    names = [CLASSES[y] for y in class_of(label_tensor(scenes)).tolist()]
    assert names == [f"{scene.ground}, {scene.time}" for scene in scenes]
    assert CLASSES[0] == f"{GROUNDS[0]}, {TIMES[0]}" and len(set(names)) > 10


def test_a_fresh_network_says_nothing_and_a_trained_one_uses_everything():
    model = small(6)
    x, t = torch.randn(2, 3, 8, 12), torch.tensor([0.3, 0.9])
    fresh = model(x, t, [CLASSES[2], None])
    torch.testing.assert_close(fresh.mean, x / LinearBeta()(t)[0][:, None, None, None])
    model = small(6, shaken=True)
    assert not model(x, t, [CLASSES[3], None]).mean.equal(model(x, t, [CLASSES[2], None]).mean)
    answer = model(x, t, [CLASSES[2], None])
    (answer.mean.square().mean() + answer.std.mean()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_no_class_is_the_class_after_the_last():
    model = small()
    assert model.condition([CLASSES[5], None])["label"].tolist() == [5, 16]
    with pytest.raises(ValueError, match="no class 'moon'; choose one of meadow, day; meadow"):
        model.condition(["moon"])


def test_pictures_of_odd_sizes_are_refused_by_a_sentence():
    x, t = torch.zeros(1, 3, 8, 6), torch.tensor([0.5])
    with pytest.raises(ValueError, match="6×8; the sides must be multiples of 4"):
        small()(x, t, [None])
    with pytest.raises(ValueError, match="6×8; the sides must be multiples of 4"):
        NoisyClassifier(LinearBeta(), (16, 16, 16), (1, 1, 1), 1, dim=16)(x, t)


def test_the_classifier_sees_noise_not_the_schedule():
    net = _shaken(NoisyClassifier(LinearBeta(), (16, 16, 16), (1, 1, 1), 1, dim=16)).double()
    straight = NoisyClassifier(Rectified(), (16, 16, 16), (1, 1, 1), 1, dim=16).double()
    straight.load_state_dict(net.state_dict())
    assert isinstance(net, Classifies)
    t, other = torch.tensor([0.1, 0.5]).double(), Rectified()
    alpha, sigma = LinearBeta()(t)
    x = torch.randn(2, 3, 8, 8).double()
    u = other.time(sigma / alpha)
    scale = (other(u)[0] / alpha)[:, None, None, None]
    torch.testing.assert_close(straight(scale * x, u).logits, net(x, t).logits)
    net(x, t).log_prob(torch.tensor([3, 4])).sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.any(), name


def test_a_checkpoint_of_either_kind_comes_back(tmp_path):
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([0.4])
    for model in (small(3, shaken=True), small(6, Cosine(), shaken=True)):
        model.save_pretrained(tmp_path / "model")
        again = PixelDiffusion.from_pretrained(tmp_path / "model")
        assert again.denoiser.schedule == model.denoiser.schedule
        assert again(x, t, [CLASSES[1]]).mean.equal(model.eval()(x, t, [CLASSES[1]]).mean)


def test_the_bound_of_a_network_is_finite(fast):
    """Learned variance, label, float64 pictures and a float32 network together."""
    x0 = torch.randint(256, (2, 3, 8, 8)).double() * 2 / 255 - 1
    model = small(6, shaken=True)
    cond = model.condition([CLASSES[1], None])
    some = chain(LinearBeta(), 6)
    found = total(terms(Clipped(model.denoiser), x0, _rngs(2), cond, some))
    assert found.bits.shape == (2,) and found.bits.isfinite().all() and found.bits.min() > 0


# --- objectives ---------------------------------------------------------------------------------


def batch_of(count: int) -> dict[str, Tensor]:
    pictures = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8)
    return {"picture": pictures, "labels": label_tensor([Scene.random(i) for i in range(count)])}


def only(losses: Iterator[Loss]) -> Loss:
    (loss,) = losses
    return loss


def test_a_fresh_network_costs_the_mean_square_of_the_noise():
    objective = Denoising(small())
    assert isinstance(objective, Objective)
    torch.manual_seed(3)
    loss = only(objective(batch_of(400)))
    assert loss.total.item() == pytest.approx(1, abs=4 * (2 / (400 * 192)) ** 0.5)


def test_the_simple_loss_is_the_same_in_both_objectives(fast):
    plain, learned = small(3), small(6)
    state = plain.denoiser.backbone.state_dict()
    for key in ("out.2.weight", "out.2.bias"):
        state[key] = torch.cat([state[key], torch.zeros_like(state[key])])
    learned.denoiser.denoiser.backbone.load_state_dict(state)
    batch = batch_of(5)
    torch.manual_seed(1)
    a = only(Denoising(plain)(batch))
    torch.manual_seed(1)
    b = only(Hybrid(learned)(batch))
    torch.testing.assert_close(b.parts["simple"], a.total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(b.total, b.parts["simple"] + 0.001 * b.parts["bits"])


def test_the_bound_does_not_touch_the_mean(fast):
    """The three channels of the mean have the same gradient with the bound as without it."""
    grads, batch = {}, batch_of(40)
    model = small(6, shaken=True)
    for weight in (0.0, 10.0):
        model.zero_grad()
        torch.manual_seed(2)
        only(Hybrid(model, weight)(batch)).total.backward()
        grads[weight] = model.denoiser.denoiser.backbone.out[-1].weight.grad.clone()
    assert grads[0.0][:3].equal(grads[10.0][:3]) and grads[0.0][:3].any()
    assert not grads[0.0][3:].any() and grads[10.0][3:].any()


def test_the_hybrids_bits_are_the_bound_without_its_constant(fast):
    """A batch of T copies visits every step of a chain of T exactly once."""
    schedule = LinearBeta(1e-3, 0.3, 20)
    model = small(6, schedule)
    picture = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    labels = label_tensor([Scene.random(0)])
    batch = {"picture": picture.expand(20, -1, -1, -1), "labels": labels.expand(20, -1)}
    found = only(Hybrid(model, drop=0.0)(batch)).parts["bits"].item()
    x0 = picture.double() / 127.5 - 1
    name = CLASSES[int(class_of(labels))]
    each = list(terms(model.denoiser, x0, _rngs(1), model.condition([name])))
    expected = total(each).bits.item() - each[0].bits.item()
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("schedule", [LinearBeta(T=30), Cosine(T=30)])
def test_gradients_of_the_hybrid_loss_are_finite_at_every_step(schedule, fast):
    """L_0 and the divergences lie in one batch; neither may poison the other."""
    model = small(6, schedule, shaken=True)
    loss = only(Hybrid(model)(batch_of(30)))
    loss.total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_objectives_refuse_what_they_cannot_train(fast):
    with pytest.raises(TypeError, match="a Denoiser learns no variance"):
        Hybrid(small(3))
    with pytest.raises(TypeError, match="Rectified has no steps to draw"):
        Denoising(small(3, Rectified()))


def test_labels_are_dropped_at_the_rate_that_is_asked_for():
    model, batch = small(), batch_of(1)
    batch = {name: value.expand(2000, *value.shape[1:]) for name, value in batch.items()}
    label = class_of(batch["labels"][:1]).item()
    for drop in (0.0, 0.1, 1.0):
        given = denoising._condition(model, batch, drop)["label"]
        assert set(given.tolist()) <= {label, 16}
        assert (given == 16).float().mean().item() == pytest.approx(drop, abs=0.03)


def test_steps_are_stratified_over_the_chain():
    """B steps, one in each of B equal parts of the chain, every step a time of the schedule."""
    for _ in range(20):
        t = drawn_times(8, 1000)
        k = t * 999
        assert t.dtype == torch.float64 and t.device.type == "cpu"
        torch.testing.assert_close(k, k.round(), rtol=0, atol=1e-9)
        assert (k.sort().values / 125).floor().tolist() == list(range(8))
    assert drawn_times(20, 20).sort().values.tolist() == chain(LinearBeta(T=20), 20).tolist()


def test_noisy_classification_is_the_cross_entropy():
    model = NoisyClassifier(LinearBeta(), (16, 16, 16), (1, 1, 1), 1, dim=16)
    batch = batch_of(6)
    torch.manual_seed(4)
    loss = only(NoisyClassification(model)(batch))
    torch.manual_seed(4)
    t = drawn_times(6, 1000)
    x0 = batch["picture"].float() / 127.5 - 1
    alpha, sigma = (c.float()[:, None, None, None] for c in LinearBeta()(t))
    logits = model(alpha * x0 + sigma * torch.randn_like(x0), t).logits
    expected = F.cross_entropy(logits, class_of(batch["labels"]))
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-6)


# --- recipes ------------------------------------------------------------------------------------

NAMES = ("book32_ddpm", "book32_guided", "book32_classifier")


def test_the_networks_share_one_noise():
    """A classifier guides only what was trained with the same noise."""
    modules = [importlib.import_module(f"genkit.recipes.{name}") for name in NAMES]
    schedules = {
        getattr(model, "denoiser", model).schedule
        for model in (module.RECIPE.model() for module in modules)
    }
    assert schedules == {LinearBeta()}


def test_guided_diffusion_begins_as_ddpm():
    """Its mean is that of the checkpoint it starts from; its variance is half-way, in ln Σ."""
    first = hub.load("book32_ddpm")
    learned = importlib.import_module("genkit.recipes.book32_guided").RECIPE.model()
    x, t = torch.randn(3, 3, 32, 32), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    cond = first.condition(["sea, night", None, "snow, dawn"])
    answer = learned.denoiser(x, t, cond)
    assert answer.mean.equal(first.denoiser(x, t, cond).mean)
    _, give, narrow = posterior(LinearBeta()(t), earlier(LinearBeta(), t))
    wide = give.square() * LinearBeta()(t)[1].square() + narrow
    step = narrow + (give * answer.std.mean(dim=(1, 2, 3))).square()
    torch.testing.assert_close(step[1:], (narrow * wide).sqrt()[1:], rtol=1e-4, atol=0)
    assert learned.sampler == first.sampler
