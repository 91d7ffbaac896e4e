"""Training: one loop for every family, as a generator.

    for progress in train(find("book128_autoencoder"), Path("runs/autoencoder"), resume=True): ...

Step n of a run is a pure function of (weights, optimiser state, seed, n):

    batch, rate   `genkit.recipe`: functions of (recipe, n)
    randomness    torch.manual_seed(mix(seed, n, process)) before the objective runs
    average       θ̄ ← d θ̄ + (1 − d) θ,  d = min(ema, (1 + n)/(10 + n))

so nothing but tensors and n has to be saved, and a run killed at any moment resumes to the same
weights bit for bit (on the same processor and number of threads). The folder of a run:

    state/    weights, average, optimisers (safetensors), state.json; only the newest, whole
    export/   the average as a checkpoint (`Model.save_pretrained`), ready for `genkit.load`
    log/      TensorBoard         sheets/   sample sheets

Several processes each take their part of every batch: `accelerate launch --num_processes 2 -m
genkit train …`, with --multi_gpu on processors, where accelerate starts one process otherwise.
Gradients are averaged by hand and modules are not wrapped in DistributedDataParallel: an objective
calls submodules and several players in its own order, which the wrapper's forward hooks do not
see. Buffers are not exchanged: the first process's are saved.

A GPU waits for data that one processor core makes: `workers` are further processes that make the
batches ahead. They are the same batches.
"""

import hashlib
import importlib
import json
import multiprocessing
import pkgutil
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from genkit.objectives import Batch, Loss
from genkit.recipe import Order, Recipe, Source, learning_rate, mix, override
from genkit.runtime import apply, described, detect, probe
from genkit.store import existing, read_tensors, replaced, write_file

__all__ = ["Progress", "Recipe", "Source", "find", "override", "train"]


@dataclass(frozen=True)
class Progress:
    """After one step.

    Args:
        step: Steps done, 1 … steps.
        steps: Of the recipe.
        losses: "player" → total, "player.part" → part, "player.norm" → its gradient, unclipped.
        seconds: Since this call of `train` began to step.
    """

    step: int
    steps: int
    losses: dict[str, float]
    seconds: float


def find(name: str) -> Recipe:
    """The recipe of genkit/recipes/<name>.py (its attribute RECIPE).

    Raises:
        ValueError: There is no such recipe; the known ones are listed.
    """
    recipes = importlib.import_module("genkit.recipes")  # by name: recipes stand above
    known = sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))
    if name not in known:
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(known)}")
    return importlib.import_module(f"genkit.recipes.{name}").RECIPE


def train(
    recipe: Recipe,
    folder: str | Path,
    resume: bool = False,
    save_steps: int = 1000,
    save_minutes: float = 10.0,
    log_steps: int = 20,
    workers: int = 0,
) -> Iterator[Progress]:
    """Trains, saves and exports; yields after every step. Closing the generator saves, too.

    Args:
        recipe: What to train.
        folder: Of the run; made where it does not exist.
        resume: Continue the run of the folder, or begin where it has none.
        save_steps: Save at least every so many steps …
        save_minutes: … and at least every so many minutes.
        log_steps: Write losses to TensorBoard every so many steps.
        workers: Processes that make batches ahead; 0: each is made when it is needed.

    Raises:
        ValueError: The folder holds a run and `resume` is false, or a run of another recipe; there
            are workers where processes cannot be forked.
        FloatingPointError: A loss or a gradient is not finite; the last save is intact.
    """
    folder = Path(folder).absolute()
    step = _Run.step_of(folder / "state")
    if step is not None and not resume:
        raise ValueError(f"{folder} holds a run at step {step}; resume it or name another folder")
    if workers and "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError(f"{workers} workers need a system that forks processes; give 0 here")
    run = _Run(recipe, folder, workers)
    run.restore()
    return _steps(run, save_steps, save_minutes, log_steps)


def _steps(
    run: "_Run", save_steps: int, save_minutes: float, log_steps: int
) -> Iterator[Progress]:
    recipe, log = run.recipe, _Log(run)
    begun = saved = time.monotonic()
    try:
        for batch in run.batches():
            losses = run.advance(batch)
            now = time.monotonic()
            log.write(losses, log_steps)
            due = run.agreed(now - saved > 60 * save_minutes)
            if due or run.step % save_steps == 0 or run.step == recipe.steps:
                run.save()
                log.sheet()
                saved = time.monotonic()
            yield Progress(run.step, recipe.steps, losses, now - begun)
    except GeneratorExit:  # the consumer stopped between two steps: nothing is lost
        run.save()
        raise
    finally:
        log.close()
    run.accelerator.wait_for_everyone()


class _Data(Dataset):
    """What every step of a recipe sees, or a process's part of it: functions of the step alone."""

    def __init__(self, recipe: Recipe, process: int, processes: int) -> None:
        self.source, self.seed, self.process = recipe.data(), recipe.seed, process
        self.order = Order(len(self.source), recipe.batch, recipe.seed)
        share = recipe.batch // processes
        self.part = slice(process * share, (process + 1) * share)

    def __getitem__(self, step: int) -> Batch:
        rng = torch.Generator().manual_seed(mix(self.seed, "data", step, self.process))
        return self.source.batch(self.order.indices(step)[self.part], rng)


class _Run:
    """The live objects of a run: network, average, players with their optimisers, data, step."""

    def __init__(self, recipe: Recipe, folder: Path, workers: int = 0) -> None:
        from accelerate import Accelerator

        runtime = detect()
        apply(runtime)
        # Accelerate's mixed precision is a process-wide constant; an explicit autocast is not.
        self.accelerator = Accelerator(mixed_precision="no", cpu=runtime.device.type == "cpu")
        self.bf16 = recipe.bf16 and runtime.dtype == torch.bfloat16
        self.recipe, self.folder, self.step, self.saved = recipe, folder, 0, -1
        self.machines: list[str] = []
        self.workers = workers
        if recipe.batch % self.accelerator.num_processes:
            raise ValueError(
                f"batch {recipe.batch} cannot be shared by {self.accelerator.num_processes} "
                "processes; choose a multiple"
            )
        torch.manual_seed(mix(recipe.seed, "initial values"))  # the same in every process
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        self.data = _Data(recipe, process, processes)
        self.model = self._placed(recipe.model()).train()
        self.objective = recipe.objective(self.model)
        self.players = {name: self._placed(p) for name, p in self.objective.players.items()}
        self.optimizers = {
            name: recipe.optimizer(player, recipe.betas, recipe.weight_decay)
            for name, player in self.players.items()
        }
        self.average = AveragedModel(self.model, multi_avg_fn=_averaging(recipe.ema))
        self.average.eval()
        _check_players(self.players)

    def batches(self) -> Iterator[Batch]:
        """Those of the steps to come."""
        yield from DataLoader(
            self.data,
            batch_size=None,  # an item is a batch
            sampler=range(self.step, self.recipe.steps),
            num_workers=self.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            multiprocessing_context="fork" if self.workers else None,  # recipes hold closures
            generator=torch.Generator(),  # not the global one, which belongs to the steps
        )

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step of every player."""
        batch = {name: self._moved(item) for name, item in batch.items()}
        process = self.accelerator.process_index
        torch.manual_seed(mix(self.recipe.seed, "noise", self.step, process))
        values: dict[str, Tensor] = {}
        losses = iter(self.objective(batch))
        while (loss := self._next(losses)) is not None:
            values |= self._play(loss)
        self.average.update_parameters(self.model)
        self.step += 1
        return self._reported(values)

    def agreed(self, due: bool) -> bool:
        """What the first process says: clocks differ, and all must save at the same step."""
        flag = torch.tensor(float(due and self.accelerator.is_main_process))
        return self.accelerator.reduce(flag.to(self.accelerator.device), "sum").item() > 0

    def save(self) -> None:
        """State first, then the export; by the first process only."""
        if not self.accelerator.is_main_process or self.saved == self.step:
            return
        files = {f"{name}.safetensors": tensors for name, tensors in self._live().items()}
        needed = sum(t.nbytes for tensors in files.values() for t in tensors.values())
        with replaced(self.folder / "state", needed) as stage:
            hashes = {}
            for name, tensors in files.items():
                data = save_tensors({key: t.cpu().contiguous() for key, t in tensors.items()})
                write_file(stage / name, data)
                hashes[name] = hashlib.sha256(data).hexdigest()
            record = {"step": self.step, **_identity(self.recipe), "files": hashes}
            record["machines"] = list(dict.fromkeys([*self.machines, described(probe())]))
            write_file(stage / "state.json", json.dumps(record, indent=1).encode())
        self.export()
        self.saved = self.step

    def export(self) -> None:
        if self.recipe.finish is not None and self.step == self.recipe.steps:
            self.recipe.finish(self.average.module)
        self.average.module.save_pretrained(self.folder / "export", self.recipe.dtype)

    def restore(self) -> None:
        """Continue the folder's run; without one, stay at step 0."""
        if self.step_of(self.folder / "state") is None:
            return
        folder = existing(self.folder / "state")
        record = json.loads((folder / "state.json").read_bytes())
        for key, value in _identity(self.recipe).items():
            if record[key] != value:
                raise ValueError(
                    f"{folder} is a run with {key} {record[key]!r}, the recipe has {value!r}; "
                    "name another folder"
                )
        saved = {
            name.removesuffix(".safetensors"): read_tensors(folder / name, sha256)
            for name, sha256 in record["files"].items()
        }
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, saved.pop(f"optimizer-{name}", {}))
        for name, tensors in self._live().items():
            if not name.startswith("optimizer-"):
                _copy(tensors, saved.pop(name), folder)
        self.step, self.machines = record["step"], record.get("machines", ["unknown"])
        if self.accelerator.is_main_process:
            self.export()  # the kill may have come between state and export

    @staticmethod
    def step_of(state: Path) -> int | None:
        try:
            return json.loads((existing(state) / "state.json").read_bytes())["step"]
        except FileNotFoundError:
            return None

    def _live(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor that the future depends on, by file; a shared tensor is listed once."""
        modules = nn.ModuleDict({"model": self.model})
        modules.update({f"player-{name}": player for name, player in self.players.items()})
        seen: set[tuple[int, torch.Size]] = set()
        weights = {}
        for name, tensor in modules.state_dict().items():
            key = (tensor.data_ptr(), tensor.shape)
            if tensor.numel() == 0 or key not in seen:
                weights[name] = tensor
            seen.add(key)
        live = {"weights": weights, "average": dict(self.average.state_dict())}
        for name, optimizer in self.optimizers.items():
            live[f"optimizer-{name}"] = {
                f"{index}.{key}": value
                for index, parameter in enumerate(_parameters(optimizer))
                for key, value in optimizer.state[parameter].items()
            }
        return live

    def _next(self, losses: Iterator[Loss]) -> Loss | None:
        # One autocast per loss: its cache of bfloat16 weights must not outlive a player's step.
        device = self.accelerator.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.bf16):
            return next(losses, None)

    def _play(self, loss: Loss) -> dict[str, Tensor]:
        if loss.player not in self.players:
            raise ValueError(f"loss of {loss.player!r}, the players are {', '.join(self.players)}")
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self.accelerator.backward(loss.total)
        parameters = _parameters(self.optimizers[loss.player])
        self._average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        if not (loss.total.isfinite() & norm.isfinite()):
            raise FloatingPointError(
                f"step {self.step}: loss {loss.total.item()}, gradient norm {norm.item()} of "
                f"{loss.player}; lower lr or clip and resume from {self.folder}"
            )
        optimizer = self.optimizers[loss.player]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        if norm <= self.recipe.skip:
            optimizer.step()
        parts = {f"{loss.player}.{name}": part for name, part in loss.parts.items()}
        return {loss.player: loss.total, f"{loss.player}.norm": norm} | parts

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        if self.accelerator.num_processes == 1:
            return
        for parameter in parameters:  # the same list everywhere, or the processes would deadlock
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        flat = self.accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "mean")
        for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(piece.view(gradient.shape))

    def _reported(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        stacked = torch.stack([value.detach().float().reshape(()) for value in values.values()])
        means = self.accelerator.reduce(stacked, "mean").tolist()
        return dict(zip(values, means))

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(self.accelerator.device).to(memory_format=torch.channels_last)

    def _moved(self, item: Tensor) -> Tensor:
        form = torch.channels_last if item.ndim == 4 else torch.preserve_format
        return item.to(self.accelerator.device, memory_format=form, non_blocking=True)


class _Log:
    """TensorBoard events and sample sheets of the first process."""

    def __init__(self, run: _Run) -> None:
        self.run, self.writer = run, None
        if run.accelerator.is_main_process:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                warnings.warn(
                    "tensorboard is not installed, so losses are not logged", stacklevel=2
                )
            else:
                self.writer = SummaryWriter(run.folder / "log", purge_step=run.step or None)

    def write(self, losses: Mapping[str, float], every: int) -> None:
        if self.writer is not None and self.run.step % every == 0:
            for name, value in losses.items():
                self.writer.add_scalar(name, value, self.run.step)

    def sheet(self) -> None:
        run = self.run
        if run.recipe.sheet is None or not run.accelerator.is_main_process:
            return
        with torch.no_grad():
            picture = run.recipe.sheet(run.average.module)
        (run.folder / "sheets").mkdir(exist_ok=True)
        picture.save(run.folder / "sheets" / f"{run.step:08d}.png")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _identity(recipe: Recipe) -> dict[str, object]:
    """What a run may not change half-way; steps and lr may."""
    return {"recipe": recipe.name, "batch": recipe.batch, "seed": recipe.seed}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for name, tensor in saved.items():
        index, key = name.split(".")
        parameter = parameters[int(index)]
        # The same memory format as the parameter: another one could round differently.
        like = torch.empty_like(parameter) if tensor.shape == parameter.shape else tensor
        optimizer.state[parameter][key] = like if like is tensor else like.copy_(tensor).detach()


def _copy(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], folder: Path) -> None:
    if live.keys() != saved.keys():
        odd = sorted(live.keys() ^ saved.keys())[0]
        raise ValueError(f"{folder} belongs to another network ({odd}); name another folder")
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])


def _averaging(ema: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Exponential average whose memory grows with the run: d = min(ema, (1 + n)/(10 + n))."""

    def average(means: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        n = int(count)
        torch._foreach_lerp_(means, values, 1 - min(ema, (1 + n) / (10 + n)))

    return average


def _check_players(players: Mapping[str, nn.Module]) -> None:
    owner: dict[int, str] = {}
    for name, player in players.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"player {name!r}: use small letters, digits and _")
        for parameter in player.parameters():
            if parameter.requires_grad and owner.setdefault(id(parameter), name) != name:
                raise ValueError(f"{owner[id(parameter)]} and {name} share a parameter; part them")
