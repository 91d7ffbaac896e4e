"""Training: a killed run and an undisturbed one end at the same bits; two processes equal one.

Run as a script it trains the toy recipe: python tests/test_train.py FOLDER SAVE_STEPS [PAUSE].
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from genkit.cli import main
from genkit.model import Model
from genkit.models.autoencoder import Autoencoder
from genkit.objectives import Loss, Objective
from genkit.optimizer import muon
from genkit.recipe import Order, Recipe, Source, learning_rate, mix, override
from genkit.runtime import described, probe
from genkit.train import find, train

ROOT = Path(__file__).resolve().parent.parent


class Game:
    """An autoencoder against a critic, with noise from the global generator where asked."""

    def __init__(self, model: Autoencoder, noise: float = 1.0) -> None:
        self.model, self.noise = model, noise
        self.critic = nn.Conv2d(3, 1, 3)
        self.seen = []

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"model": self.model, "critic": self.critic}

    def __call__(self, batch):
        x = batch["image"]
        made = self.model(x + self.noise * 0.1 * torch.randn_like(x)).picture.mean
        distance = (made - x).square().mean()
        self.seen.append(("before", [p.detach().clone() for p in self.model.parameters()]))
        yield Loss("model", distance + 0.01 * self.critic(made).mean(), {"distance": distance})
        self.seen.append(("after", [p.detach().clone() for p in self.model.parameters()]))
        yield Loss("critic", (self.critic(x).mean() - self.critic(made.detach()).mean()).square())


class Noise:
    """Thirty-seven pictures; a draw from the batch's own generator."""

    def __len__(self) -> int:
        return 37

    def batch(self, indices: list[int], rng: torch.Generator) -> dict[str, torch.Tensor]:
        seeds = [torch.Generator().manual_seed(index) for index in indices]
        return {"image": torch.stack([torch.rand(3, 16, 16, generator=seed) for seed in seeds])}


def toy(**changes) -> Recipe:
    recipe = Recipe(
        name="toy",
        model=lambda: Autoencoder(2, (8, 8), (8, 8), (0, 0), (0, 0)),
        objective=Game,
        data=Noise,
        steps=12,
        batch=4,
        lr=3e-3,
        warmup=3,
    )
    return replace(recipe, **changes)


def finish(recipe, folder, **options):
    return list(train(recipe, folder, **options))


def state(folder) -> dict[str, torch.Tensor]:
    files = sorted((Path(folder) / "state").glob("*.safetensors"))
    return {f"{f.stem}/{key}": t for f in files for key, t in load_file(f).items()}


def difference(a, b) -> float:
    a, b = state(a), state(b)
    assert a.keys() == b.keys() and len(a) > 20
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


def export_bytes(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (Path(folder) / "export").iterdir()}


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "GENKIT_THREADS": "1"} | changes


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("GENKIT_THREADS", "1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The toy run without a break."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENKIT_THREADS", "1")
        finish(toy(), folder)
    return folder


def test_protocols():
    assert isinstance(Noise(), Source)
    assert isinstance(Game(Autoencoder(2, (8, 8), (8, 8), (0, 0), (0, 0))), Objective)


@pytest.mark.parametrize("length, batch", [(37, 4), (5, 12), (8, 8)])
def test_order_is_permutations_end_to_end(length, batch):
    order = Order(length, batch, seed=3)
    stream = [index for step in range(3 * length) for index in order.indices(step)]
    for epoch in range(3):
        assert sorted(stream[epoch * length : (epoch + 1) * length]) == list(range(length))
    assert stream[:length] != stream[length : 2 * length] or length < 3
    assert Order(length, batch, 3).indices(7) == order.indices(7)  # in any order of asking
    assert Order(length, batch, 4).indices(0) != order.indices(0)


def test_rates_have_their_closed_form():
    recipe = toy(steps=100, warmup=10, lr=2.0)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (n + 1) for n in range(10)])
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[-1] < 1e-3 and rates[10:] == sorted(rates[10:], reverse=True)


def test_mix_gives_every_draw_a_seed_of_its_own():
    seeds = {mix(a, word, b) for a in range(20) for word in ("data", "noise") for b in range(20)}
    assert len(seeds) == 800 and all(0 <= seed < 2**63 for seed in seeds)


def test_override_changes_scalars_only():
    assert override(toy(), steps=5, lr=1).steps == 5
    for change, error in [
        ({"width": 3}, ValueError),
        ({"model": Autoencoder}, ValueError),
        ({"betas": (0.5, 0.9)}, ValueError),
        ({"steps": 2.5}, TypeError),
        ({"steps": True}, TypeError),
        ({"steps": 0}, ValueError),
        ({"lr": float("nan")}, ValueError),
        ({"ema": 1.0}, ValueError),
    ]:
        with pytest.raises(error):
            override(toy(), **change)


def test_find_lists_the_known():
    with pytest.raises(ValueError, match="'os'; choose one of .*book128_autoencoder"):
        find("os")
    assert find("book128_autoencoder").name == "book128_autoencoder"


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_closed_run_resumes_to_the_same_bits(tmp_path, undisturbed, stop):
    run = train(toy(), tmp_path)
    for progress in run:
        if progress.step == stop:
            run.close()
    rest = finish(toy(), tmp_path, resume=True)
    assert [progress.step for progress in rest] == list(range(stop + 1, 13))
    assert difference(tmp_path, undisturbed) == 0.0
    assert export_bytes(tmp_path) == export_bytes(undisturbed)


def test_batches_made_ahead_in_other_processes_are_the_same(tmp_path, undisturbed):
    run = train(toy(), tmp_path, workers=2)
    for progress in run:
        if progress.step == 5:
            run.close()
    finish(toy(), tmp_path, resume=True, workers=2)
    assert difference(tmp_path, undisturbed) == 0.0
    assert export_bytes(tmp_path) == export_bytes(undisturbed)


def test_a_run_says_on_which_machines_it_was(tmp_path, monkeypatch):
    def machines() -> list[str]:
        return json.loads((tmp_path / "state" / "state.json").read_text())["machines"]

    here, run = described(probe()), train(toy(), tmp_path)
    next(run)
    run.close()
    assert machines() == [here]
    monkeypatch.setattr("genkit.train.described", lambda machine: "elsewhere")
    finish(toy(), tmp_path, resume=True)
    assert machines() == [here, "elsewhere"]


def test_a_run_with_muon_resumes_to_the_same_bits(tmp_path):
    whole, parts = toy(optimizer=muon, steps=6), tmp_path / "parts"
    finish(whole, tmp_path / "whole")
    run = train(whole, parts)
    while next(run).step < 4:
        pass
    run.close()
    finish(whole, parts, resume=True)
    assert difference(tmp_path / "whole", parts) == 0.0
    keys = [key for key in state(parts) if key.startswith("optimizer-critic/")]
    assert {key.split(".")[-1] for key in keys} == {"mean", "square", "step"}


def test_a_killed_run_resumes_to_the_same_bits(tmp_path, undisturbed):
    """SIGKILL at three random moments, saving included, then to the end."""
    rng = torch.Generator().manual_seed(int(time.time()))
    for lines in (1, 3, 2):
        child = start(tmp_path, "1", "0.02")
        for _ in range(lines):
            assert child.stdout.readline()
        time.sleep(0.05 * torch.rand((), generator=rng).item())
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert json.loads((tmp_path / "state" / "state.json").read_text())["step"] < 12
    (tmp_path / "export" / "config.json").unlink(missing_ok=True)  # as if killed before the export
    rest = finish(toy(), tmp_path, resume=True)
    assert rest[-1].step == 12 and len(rest) < 12
    assert difference(tmp_path, undisturbed) == 0.0
    assert export_bytes(tmp_path) == export_bytes(undisturbed)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def start(folder, *arguments, command=(sys.executable,), **changes) -> subprocess.Popen:
    return subprocess.Popen(
        [*command, str(Path(__file__)), str(folder), *arguments],
        stdout=subprocess.PIPE,
        env=environment(**changes),
        cwd=ROOT,
    )


def test_two_processes_equal_one(tmp_path, monkeypatch):
    """The same global batches over gloo; sums in another order, so equal to float tolerance."""
    monkeypatch.setenv("GENKIT_DTYPE", "float32")
    recipe = toy(objective=lambda model: Game(model, noise=0.0), lr=1e-3)
    one = finish(recipe, tmp_path / "one")
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0")
    launcher += ("--multi_gpu", "--num_processes", "2")  # without GPUs: gloo on the processor
    changes = {"GENKIT_DTYPE": "float32", "TOY_NOISE": "0", "HF_HOME": str(tmp_path)}
    child = start(tmp_path / "two", "4", command=launcher, **changes)
    out, _ = child.communicate(timeout=250)
    assert child.returncode == 0
    printed = [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]
    assert len(printed) == 24  # each process reports each step, already averaged over both
    for step in range(1, 13):
        ours = one[step - 1].losses
        for theirs in (p for p in printed if p["step"] == step):
            assert theirs["losses"] == pytest.approx(ours, rel=2e-3, abs=1e-4)
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-3
    # The halves of a batch differ, so half of the pictures would not have led there.
    half = replace(recipe, batch=2)
    finish(half, tmp_path / "half")
    assert difference(tmp_path / "one", tmp_path / "half") > 3e-3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_told_to_stop_ends_its_step_and_saves(
    tmp_path, undisturbed, monkeypatch, capsys, number
):
    class Told(Game):
        def __call__(self, batch):
            if len(self.seen) == 2 * 4:  # in the middle of the fifth step
                os.kill(os.getpid(), number)
            yield from super().__call__(batch)

    before, command = signal.getsignal(number), ["train", "toy", "--folder", str(tmp_path)]
    monkeypatch.setattr("genkit.train.find", lambda name: toy(objective=Told))
    assert main(command) == 130
    assert signal.getsignal(number) is before
    told = capsys.readouterr().err
    assert "1 process trains, on batches of 4" in told
    assert "interrupted after step 5, saved; continue with --resume" in told
    monkeypatch.setattr("genkit.train.find", lambda name: toy())
    assert main([*command, "--resume"]) == 0
    assert difference(tmp_path, undisturbed) == 0.0


def damage(folder, piece) -> None:
    """Forgets one piece of the state, as a resume that does not save it would."""
    path = folder / "state" / "state.json"
    record = json.loads(path.read_text())
    if piece == "step":
        record["step"] -= 1
    else:
        file = folder / "state" / f"{piece}.safetensors"
        save_file({key: t.mul(0) for key, t in load_file(file).items()}, file)
        import hashlib

        record["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "piece", ["step", "weights", "average", "optimizer-model", "optimizer-critic"]
)
def test_every_piece_of_the_state_matters(tmp_path, undisturbed, piece):
    run = train(toy(), tmp_path)
    next(run), next(run), next(run)
    run.close()
    damage(tmp_path, piece)
    finish(toy(), tmp_path, resume=True)
    assert difference(tmp_path, undisturbed) > 0.0


def test_a_tampered_or_foreign_state_is_refused(tmp_path):
    run = train(toy(), tmp_path)
    next(run)
    run.close()
    with pytest.raises(ValueError, match="holds a run at step 1; resume it"):
        train(toy(), tmp_path)
    for change in ({"name": "other"}, {"batch": 8}, {"seed": 1}):
        with pytest.raises(ValueError, match="name another folder"):
            train(toy(**change), tmp_path, resume=True)
    wider = toy(model=lambda: Autoencoder(2, (8, 8), (8, 8), (1, 0), (0, 0)))
    with pytest.raises(ValueError, match="another network"):
        train(wider, tmp_path, resume=True)
    path = tmp_path / "state" / "average.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or replaced"):
        train(toy(), tmp_path, resume=True)


def test_both_players_step_and_the_objective_resumes_between(tmp_path):
    made = []

    def objective(model):
        made.append(Game(model))
        return made[0]

    recipe = toy(objective=objective, steps=2, lr=1e-2)
    torch.manual_seed(0)
    progress = finish(recipe, tmp_path)
    game = made[0]
    (_, before), (_, after) = game.seen[:2]
    assert any(not torch.equal(a, b) for a, b in zip(before, after))
    critic = load_file(tmp_path / "state" / "optimizer-critic.safetensors")
    assert {key.split(".")[1] for key in critic} == {"step", "exp_avg", "exp_avg_sq"}
    assert all(t.item() == 2 for key, t in critic.items() if key.endswith("step"))
    assert set(progress[0].losses) == {
        "model",
        "model.norm",
        "model.distance",
        "critic",
        "critic.norm",
    }


def test_steps_with_a_large_gradient_are_left_out(tmp_path):
    torch.manual_seed(0)
    slow = toy(warmup=0, lr=1e-6)  # gradients then differ by their batch
    norms = [p.losses["model.norm"] for p in finish(slow, tmp_path / "all")]
    limit = sorted(norms)[len(norms) // 2]
    models = []

    def model():
        models.append(toy().model())
        return models[-1]

    recipe = replace(slow, model=model, skip=limit)
    run = train(recipe, tmp_path / "some")
    left_out = 0
    before = [p.detach().clone() for p in models[0].parameters()]
    for progress in run:
        after = [p.detach().clone() for p in models[0].parameters()]
        still = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert still == (progress.losses["model.norm"] > limit)
        left_out += still
        before = after
    assert 0 < left_out < recipe.steps


def test_a_recipe_finishes_its_average_once_at_the_end(tmp_path):
    finished = []
    recipe = toy(finish=lambda model: finished.append(model) or model.calibrate(
        torch.full((2,), 3.0), torch.full((2,), 2.0)
    ))  # fmt: skip
    run = train(recipe, tmp_path, save_steps=5)
    next(run)
    run.close()  # saved in the middle: not finished
    assert not finished
    finish(recipe, tmp_path, resume=True, save_steps=5)
    assert len(finished) == 1
    exported = Autoencoder.from_pretrained(tmp_path / "export")
    assert exported.shift.tolist() == [3, 3] and exported.scale.tolist() == [2, 2]


def test_the_average_follows_its_recursion(tmp_path):
    """θ̄ = d θ̄ + (1 − d) θ with d = min(ema, (1 + n)/(10 + n)), begun at the first θ."""
    made = []

    def objective(model):
        made.append(Game(model))
        return made[0]

    finish(toy(objective=objective, ema=0.3, dtype=torch.float32), tmp_path)
    weights = [values for when, values in made[0].seen if when == "after"]
    mean = [value.double() for value in weights[0]]
    for n, values in enumerate(weights[1:], start=1):
        d = min(0.3, (1 + n) / (10 + n))
        mean = [d * m + (1 - d) * v.double() for m, v in zip(mean, values)]
    exported = Model.from_pretrained(tmp_path / "export")
    for ours, theirs in zip(exported.parameters(), mean):
        assert (ours - theirs).abs().max() < 1e-6


def test_frozen_parts_stay_and_biases_do_not_decay(tmp_path):
    class Zero(Game):
        def __init__(self, model):
            super().__init__(model)
            model.encoder.requires_grad_(False)

        def __call__(self, batch):  # gradients are exactly zero: what moves is weight decay
            yield Loss("model", sum(p.sum() * 0 for p in self.model.decoder.parameters()))

    recipe = toy(objective=Zero, weight_decay=0.5, lr=0.1, warmup=0, ema=0.0, bf16=False)
    recipe = replace(recipe, dtype=torch.float32, steps=2)
    finish(recipe, tmp_path)
    torch.manual_seed(mix(0, "initial values"))
    start, end = recipe.model(), Autoencoder.from_pretrained(tmp_path / "export")
    factor = (1 - 0.5 * learning_rate(recipe, 0)) * (1 - 0.5 * learning_rate(recipe, 1))
    for (name, old), new in zip(start.named_parameters(), end.parameters()):
        moved = name.startswith("decoder") and old.ndim > 1
        assert torch.allclose(new, old * factor if moved else old, atol=1e-6), name


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_ends_the_run_and_leaves_the_last_save(tmp_path, where):
    class Breaks(Game):
        def __call__(self, batch):
            self.seen.append(0)
            x = next(self.model.parameters()).square().sum()
            if len(self.seen) > 2:
                x = x * float("nan") if where == "loss" else (x - x).sqrt()
            yield Loss("model", x)

    run = train(toy(objective=Breaks), tmp_path, save_steps=1)
    with pytest.raises(FloatingPointError, match="step 2: .*lower lr"):
        list(run)
    assert json.loads((tmp_path / "state" / "state.json").read_text())["step"] == 2
    Model.from_pretrained(tmp_path / "export")


def test_wrong_players_are_refused(tmp_path):
    class Shared(Game):
        players = property(lambda self: {"model": self.model, "copy": self.model.decoder})

    with pytest.raises(ValueError, match="model and copy share a parameter"):
        train(toy(objective=Shared), tmp_path)

    class Unknown(Game):
        def __call__(self, batch):
            yield Loss("nobody", torch.zeros(()))

    with pytest.raises(ValueError, match="loss of 'nobody', the players are model, critic"):
        next(train(toy(objective=Unknown), tmp_path))


def test_a_full_disk_stops_the_run_and_leaves_the_last_save(tmp_path, undisturbed):
    run = train(toy(), tmp_path)
    next(run), next(run)
    run.close()
    run = train(toy(), tmp_path, resume=True, save_steps=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"\d+ bytes are needed, \d+ are free"):
            next(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert finish(toy(), tmp_path, resume=True)[0].step == 3
    assert difference(tmp_path, undisturbed) == 0.0


def test_sheets_logs_and_a_missing_tensorboard(tmp_path, monkeypatch):
    def sheet(model):
        assert isinstance(model, Autoencoder) and not model.training
        torch.rand(3)  # the caller's draws do not disturb the run
        return Image.new("RGB", (4, 4))

    finish(toy(sheet=sheet), tmp_path / "a", save_steps=5, log_steps=1)
    names = sorted(path.name for path in (tmp_path / "a" / "sheets").iterdir())
    assert names == ["00000005.png", "00000010.png", "00000012.png"]
    assert list((tmp_path / "a" / "log").glob("events*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.warns(UserWarning, match="tensorboard is not installed"):
        finish(toy(), tmp_path / "b")
    assert difference(tmp_path / "a", tmp_path / "b") == 0.0


def test_nothing_but_tensors_and_json_is_written(tmp_path):
    finish(toy(steps=1), tmp_path)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or re.search(r"\.safetensors$|\.json$|tfevents", path.name)
        assert path.is_dir() or b"\x80\x04" != path.read_bytes()[:2]


if __name__ == "__main__":
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    strength = float(os.environ.get("TOY_NOISE", "1"))
    plan = toy(objective=lambda model: Game(model, strength))
    plan = replace(plan, lr=plan.lr if strength else 1e-3)
    for done in train(plan, sys.argv[1], resume=True, save_steps=int(sys.argv[2])):
        line = json.dumps({"step": done.step, "losses": done.losses}) + "\n"
        print(line, end="", flush=True)  # in one write: two processes share the pipe
        time.sleep(pause)
