"""Our VAE and its training against those of the package pythae: equal data, steps, parameters.

Every row sees the same pictures of the train split, as many steps of as large a batch, a code of
the same size, the same likelihood (a mixture of discretised logistic laws, 256 grey levels) and
the same test. What differs is in the row's name:

    genkit                   book32_vae and its recipe, shortened: Muon, rate that falls, average
                             of weights, bfloat16 where this machine is faster with it
    pythae VAE, our network  the very network of the first row within pythae's VAE, trained by its
                             BaseTrainer: Adam at a constant rate, float32. Only the training
                             differs: the strict comparison
    …, bfloat16              the same under autocast, which its option `amp` does on CUDA only
    pythae VAE               a network of pythae's own for CIFAR (convolutions 4 × 4 of stride 2,
                             batch norm, ReLU, linear maps to the code and from it), its widths
                             shrunk until it has as many parameters
    pythae VAMP, VAE_IAF     the same with a prior learned as a mixture of posteriors, and with a
                             posterior bent by an inverse autoregressive flow

pythae's reconstruction loss is replaced by subclassing; all else is called as it is. Its own
default rate is 1e-4, which is slow for so few steps: each of its rows gets the highest of
`--rates` at which its loss stays a number (it has neither warm-up nor clipping).

bits/dim     the evidence bound of 1,000 test pictures, one draw of the code each
frechet …    of 2,000 pictures, means p(x | z) of codes from the prior, see `genkit.families`
s/step       mean over the steps after the first 20, making of batches included, saving not

python -m benchmarks.pythae_vae [--steps 1500] [--batch 64] [--rows "genkit" "pythae VAE" …]
"""

import contextlib
import io
import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

from benchmarks import save
from genkit import families, pixels
from genkit.data.picturebook.source import Pictures, to_uint8
from genkit.distributions import LogisticMixture
from genkit.models.vae import VAE
from genkit.nn.layers import full
from genkit.recipe import Order, Recipe
from genkit.runtime import apply, detect
from genkit.train import find, override, train

try:
    from pythae import models as theirs
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback
except ImportError as missing:
    raise SystemExit(
        f"pythae cannot be imported ({missing}): pip install 'pythae>=0.1.2,<0.2'."
    ) from missing

RECIPE = "book32_vae"
OURS, SAME = "genkit", "pythae VAE, our network"
WARM = 20
BATCH = 50


# --- pythae's models with our likelihood --------------------------------------------------------


class Likelihood:
    """Replaces the reconstruction loss of a model of pythae; pictures are in [0, 1]."""

    def loss_function(self, raw: Tensor, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        picture = LogisticMixture.of(raw.float())
        nats = -picture.log_prob(2 * x - 1).flatten(1).sum(dim=1, keepdim=True)
        # Its own loss is ½ Σ (a − b)²: of √(2 nats) and 0 that is nats, and so is the gradient.
        return super().loss_function((2 * nats).sqrt(), torch.zeros_like(nats), *rest)


class Plain(Likelihood, theirs.VAE):
    """pythae's VAE."""


class Vamp(Likelihood, theirs.VAMP):
    """pythae's VAE with a mixture of posteriors as prior."""


class Flowing(Likelihood, theirs.VAE_IAF):
    """pythae's VAE with an inverse autoregressive flow as posterior."""


class OurEncoder(BaseEncoder):
    """q(z | x) of our network, flat, as pythae wants it."""

    def __init__(self, net: VAE) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> ModelOutput:
        law = self.net.encode(2 * x - 1)[0].posterior
        mean, variance = law.mean.flatten(1), 2 * law.std.log().flatten(1)
        return ModelOutput(embedding=mean, log_covariance=variance)


class OurDecoder(BaseDecoder):
    """The parameters of p(x | z) of our network."""

    def __init__(self, net: VAE) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> ModelOutput:
        z = z.unflatten(1, (self.net.channels, self.net.size // 8, -1))
        return ModelOutput(reconstruction=full(self.net.decoder(z)))


class TheirEncoder(BaseEncoder):
    """pythae's encoder for CIFAR (`Encoder_Conv_VAE_CIFAR`), whose width is 1024, of any width."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        widths = (3, width // 8, width // 4, width // 2, width)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 4, 2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in zip(widths, widths[1:], strict=False)
            )
        )
        self.embedding = nn.Linear(width * 4, latent)
        self.log_var = nn.Linear(width * 4, latent)

    def forward(self, x: Tensor) -> ModelOutput:
        seen = self.layers(x).flatten(1)
        return ModelOutput(embedding=self.embedding(seen), log_covariance=self.log_var(seen))


class TheirDecoder(BaseDecoder):
    """pythae's decoder for CIFAR of any width; it ends in a mixture, not in a colour."""

    def __init__(self, width: int, latent: int, out: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.layers = nn.Sequential(
            nn.Linear(latent, width * 64),
            nn.Unflatten(1, (width, 8, 8)),
            nn.ConvTranspose2d(width, half, 4, 2, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.ConvTranspose2d(half, quarter, 4, 2, padding=1, output_padding=1),
            nn.BatchNorm2d(quarter),
            nn.ReLU(),
            nn.ConvTranspose2d(quarter, out, 4, 1, padding=2),
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


def same(net: VAE) -> theirs.VAE:
    """pythae's VAE around our network."""
    config = theirs.VAEConfig(input_dim=(3, 32, 32), latent_dim=_latent(net))
    return Plain(config, OurEncoder(net), OurDecoder(net))


def own(kind: type[theirs.VAE], config: type, net: VAE) -> theirs.VAE:
    """A model of pythae with its own kind of network and about as many parameters as ours."""
    latent, out = _latent(net), net.decoder[-1].conv.out_channels // 4

    def build(width: int) -> theirs.VAE:
        made = config(input_dim=(3, 32, 32), latent_dim=latent)
        return kind(made, TheirEncoder(width, latent), TheirDecoder(width, latent, out))

    low, high = 8, 1024
    while high - low > 1:  # the number of parameters rises with the width
        middle = (low + high) // 2
        low, high = (middle, high) if size(build(middle)) <= size(net) else (low, middle)
    return min((build(low), build(high)), key=lambda made: abs(size(made) - size(net)))


ROWS: Mapping[str, Callable[[VAE], theirs.VAE]] = {
    SAME: same,
    f"{SAME}, bfloat16": same,
    "pythae VAE": lambda net: own(Plain, theirs.VAEConfig, net),
    "pythae VAMP": lambda net: own(Vamp, theirs.VAMPConfig, net),
    "pythae VAE_IAF": lambda net: own(Flowing, theirs.VAE_IAF_Config, net),
}


def size(net: nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _latent(net: VAE) -> int:
    return net.channels * (net.size // 8) ** 2


# --- training -----------------------------------------------------------------------------------


def train_ours(recipe: Recipe, folder: Path) -> tuple[VAE, float]:
    """The averaged network of our training, and seconds a step."""
    times = [progress.seconds for progress in train(recipe, folder)]
    return VAE.from_pretrained(folder / "export"), _pace(times)


class Clock(TrainingCallback):
    """When every step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_step_end(self, training_config: BaseTrainerConfig, **_: object) -> None:
        self.times.append(time.perf_counter())


def train_theirs(
    model: theirs.VAE, data: BaseDataset, batch: int, rate: float, bf16: bool, folder: Path
) -> float:
    """Trains by pythae's own trainer, one pass over the data; seconds a step."""
    clock, device = Clock(), detect().device.type
    config = BaseTrainerConfig(
        output_dir=str(folder),
        num_epochs=1,
        per_device_train_batch_size=batch,
        learning_rate=rate,
        seed=0,
        no_cuda=device != "cuda",
    )
    trainer = BaseTrainer(model, data, training_config=config, callbacks=[clock])
    if bf16:
        trainer.amp_context = torch.autocast(device, torch.bfloat16)
    trainer.train()
    return _pace(clock.times)


def _pace(times: Sequence[float]) -> float:
    """Seconds a step, without those that warm up."""
    first = min(WARM, len(times) // 2)
    return (times[-1] - times[first]) / (len(times) - 1 - first)


def pictures(recipe: Recipe) -> BaseDataset:
    """The pictures that the recipe's steps see, in [0, 1]."""
    source = recipe.data()
    assert isinstance(source, Pictures)
    order = Order(len(source), recipe.batch, recipe.seed)
    seen = [i for step in range(recipe.steps) for i in order.indices(step)]
    data = torch.from_numpy(source.usual[seen]).permute(0, 3, 1, 2) / 255
    return BaseDataset(data.contiguous(), torch.zeros(len(data)))


# --- the test -----------------------------------------------------------------------------------


@torch.no_grad()
def bits(model: theirs.VAE, n: int) -> float:
    """The bound of a model of pythae over test pictures, in bits/dim."""
    x = pixels.real("test", n, 0)[0].float() / 255
    torch.manual_seed(0)
    nats = 0.0
    for some in x.to(model.device).split(BATCH):
        answer = model({"data": some})
        nats += (answer.recon_loss + answer.reg_loss).item() * len(some)
    return nats / (n * x[0].numel() * math.log(2))


@torch.no_grad()
def drawn(model: theirs.VAE, n: int) -> Tensor:
    """Mean pictures of codes from the prior of a model of pythae, uint8."""
    torch.manual_seed(0)
    z = torch.randn(n, model.latent_dim, device=model.device)
    if isinstance(model, theirs.VAMP):
        shape = (model.number_components, *model.input_dim)
        law = model.encoder(model.pseudo_inputs(model.idle_input.to(z.device)).reshape(shape))
        which = torch.randint(len(law.embedding), (n,), device=z.device)
        z = law.embedding[which] + (law.log_covariance[which] / 2).exp() * z
    raw = (model.decoder(some).reconstruction for some in z.split(BATCH))
    return to_uint8(torch.cat([LogisticMixture.of(some).mean for some in raw])).cpu()


def row(
    name: str, recipe: Recipe, rates: Sequence[float], n: int, tested: int
) -> dict[str, float]:
    """Trains and tests one of the contestants."""
    with tempfile.TemporaryDirectory() as folder:
        if name == OURS:
            model, pace = train_ours(recipe, Path(folder) / "run")
            model = model.requires_grad_(False).to(detect().device)
            cost, pictures_ = families.bound(model, tested, 0)[0], families.sampled(model, n)
            parameters, rate = sum(p.numel() for p in model.parameters()), recipe.lr
        else:
            model, pace, rate = stable(name, recipe, rates, Path(folder))
            parameters = size(model)
            model.eval()
            cost, pictures_ = bits(model, tested), drawn(model, n)
    found = families.compared(pixels.ruler(), pictures_, pixels.real("test", n, 0)[0])
    return {"bits/dim": cost, **found, "s/step": pace, "rate": rate, "parameters": parameters}


def stable(
    name: str, recipe: Recipe, rates: Sequence[float], folder: Path
) -> tuple[theirs.VAE, float, float]:
    """A model of pythae, trained, seconds a step, and the first rate that did not diverge."""
    data = pictures(recipe)
    for rate in rates:
        torch.manual_seed(recipe.seed)
        model, bf16 = ROWS[name](recipe.model()), name.endswith("bfloat16")
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # a bar for every step
                return model, train_theirs(model, data, recipe.batch, rate, bf16, folder), rate
        except ArithmeticError as error:
            print(f"{name}: {error} at the rate {rate:g}", flush=True)
    raise SystemExit(f"{name} diverges at every rate of {rates}: give a lower one, --rates 3e-5.")


def verdict(rows: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """Ours against the best of the others, and against our own network trained by pythae."""
    if OURS not in rows or len(rows) < 2:
        return {}
    others = {name: one for name, one in rows.items() if name != OURS}
    best = min(others, key=lambda name: others[name]["bits/dim"])
    ours, found = rows[OURS], {"best of pythae": best}
    for title, name in {"the best": best, "our network": SAME}.items():
        if name in others:
            found |= {
                f"bits/dim less than {title} %": 100
                * (1 - ours["bits/dim"] / others[name]["bits/dim"]),
                f"frechet of {title}'s": ours["frechet"] / others[name]["frechet"],
                f"times as fast as {title}": others[name]["s/step"] / ours["s/step"],
            }
    return found


def show(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the table."""
    keys = list(next(iter(rows.values())))
    table = [["", *keys]]
    table += [[name, *(f"{one[key]:.5g}" for key in keys)] for name, one in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(map(str.ljust, line, widths)).rstrip(), flush=True)


def main(
    steps: int = 1500,
    batch: int = 64,
    rates: tuple[float, ...] = (1e-3, 3e-4, 1e-4),
    n: int = 2000,
    tested: int = 1000,
    rows: tuple[str, ...] = (OURS, *ROWS),
) -> None:
    """Trains and tests all contestants, one after the other.

    Args:
        steps: Of every training, at least 4.
        batch: Pictures of a step.
        rates: Of pythae's Adam, the preferred one first.
        n: Pictures for each distance, at least 4.
        tested: Test pictures for bits/dim.
        rows: Which contestants.
    """
    if steps < 4 or n < 4 or not rows or not set(rows) <= {OURS, *ROWS}:
        raise SystemExit(f"At least 4 steps and pictures; rows are {'; '.join((OURS, *ROWS))}.")
    logging.disable(logging.INFO)
    apply(detect())
    recipe = find(RECIPE)
    recipe = override(recipe, steps=steps, batch=batch, warmup=min(recipe.warmup, steps // 5))
    found = {}
    for name in rows:
        found[name] = row(name, recipe, rates, n, tested)
        show(found)
    about = {"steps": steps, "batch": batch, "n": n, "tested": tested}
    save("pythae_vae", about | {"rows": found} | verdict(found))


if __name__ == "__main__":
    tyro.cli(main)
