"""Model: a network that knows how it was made, and checkpoints that cannot lie about it.

A checkpoint is a folder:

    config.json          class, constructor arguments, SHA-256 of each weight file and of all that
    model.safetensors    the weights; above 15 MB model-00001-of-0000N.safetensors and an index

    fingerprint = SHA-256( canonical JSON of {class, config, weights: {file: SHA-256}} )

so one hash names the whole model. Constructor arguments are recorded, defaults included, by
wrapping `__init__`:

    describe : Model | frozen dataclass | tuple | str | int | float | bool | None  →  JSON
    build    : the inverse;  build(describe(x)) has the configuration of x

Invariants
    No pickle is ever read, and only classes below `genkit.` are ever built.
    Saving is atomic (`genkit.store`): after a kill or a full disk the old checkpoint or the new.
    Loading is strict: another class, a changed byte, a missing, extra or mis-shaped tensor, a NaN
    is a one-sentence error. Shapes are compared on the meta device before memory is allocated, so
    constructors must run under `torch.device("meta")`.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from genkit.store import existing, read_tensors, replaced, write_file

__all__ = ["Model", "Samples", "build", "describe", "fingerprint", "read_record"]

M = TypeVar("M", bound="Model")

SHARD_BYTES = 15_000_000
CONFIG_BYTES = 1_000_000
WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
OWN_FILE = re.compile(r"config\.json|model.*\.safetensors|model\.safetensors\.index\.json")
CLASS_NAME = re.compile(r"(genkit(?:\.[a-z][a-z0-9_]*)+):([A-Za-z][A-Za-z0-9_]*)")


class Model(nn.Module):
    """A network whose constructor arguments are recorded in `config`, defaults included.

    Arguments may be scalars, None, tuples, frozen dataclasses and other Models, all of them named.
    `sha256` is the fingerprint of the checkpoint that was loaded, None for a model made by hand.

    Raises:
        TypeError: An argument cannot be recorded: a list, a tensor, a module that is no Model.
    """

    config: dict[str, object]
    sha256: str | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recorded(cls.__init__)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the checkpoint atomically; other files of the folder (README.md …) are kept.

        Args:
            folder: Made where it does not exist.
            dtype: float32 tensors are stored in this type (float16, bfloat16); others as they are.

        Raises:
            TypeError: The model or a part of it is not a `genkit` class.
            ValueError: A weight is NaN or infinite, or becomes so in `dtype`.
            OSError: The disk is full; the old checkpoint is intact.
        """
        description = describe(self)
        _check_buildable(description)
        files = _weight_files(_stored_tensors(self, dtype))
        record = {
            "class": description["class"],
            "config": description["config"],
            "dtype": str(dtype or torch.float32).removeprefix("torch."),
            "weights": {
                name: hashlib.sha256(data).hexdigest()
                for name, data in files.items()
                if WEIGHT_FILE.fullmatch(name)
            },
        }
        record["sha256"] = fingerprint(record)
        files["config.json"] = (json.dumps(record, indent=1) + "\n").encode()
        needed = sum(map(len, files.values()))
        with replaced(Path(folder), needed, lambda name: not OWN_FILE.fullmatch(name)) as stage:
            for name, data in files.items():
                write_file(stage / name, data)

    @classmethod
    def from_pretrained(cls: type[M], folder: str | Path) -> M:
        """The model of a checkpoint folder, verified, in float32, in eval mode, on the CPU.

        Raises:
            FileNotFoundError: No such folder, or a file of it is missing.
            TypeError: The folder holds another class than `cls`.
            ValueError: Anything in it is damaged, changed, missing, extra or not finite.
        """
        folder = existing(Path(folder))
        record = read_record(folder)
        found = _resolve(record["class"])
        if not issubclass(found, cls):
            raise TypeError(
                f"{folder} holds a {found.__name__}, which is not a {cls.__name__}; "
                f"load it with {found.__name__}.from_pretrained"
            )
        tensors = _read_weights(folder, record["weights"])
        description = {"class": record["class"], "config": record["config"]}
        # No memory yet: a config that asks for 10⁹ channels fails against the file's shapes.
        with torch.device("meta"):
            _check_tensors(_built(description, folder).state_dict(), tensors, folder)
        with torch.random.fork_rng(
            devices=[]
        ):  # the initial values must not disturb the caller's randomness
            model = _built(description, folder)
        model.load_state_dict(tensors)
        model.sha256 = record["sha256"]
        return model.eval()


@runtime_checkable
class Samples(Protocol):
    """A model that draws pictures in [−1, 1] when it is asked for nothing.

    Args:
        size: Side of the pictures, in pixels.
    """

    size: int

    def sample(self, rngs: Sequence[torch.Generator]) -> Float[Tensor, "B 3 H W"]:
        """One picture for each generator, on which alone it depends."""


def describe(value: object) -> dict[str, object] | list | str | int | float | bool | None:
    """JSON of a model, frozen dataclass, tuple or scalar.

    Raises:
        TypeError: The value has no exact JSON form.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, tuple):
        return [describe(item) for item in value]
    if isinstance(value, Model):
        return {"class": _class_name(type(value)), "config": value.config}
    if _is_frozen(type(value)):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return {
            "class": _class_name(type(value)),
            "config": {name: describe(getattr(value, name)) for name in fields},
        }
    hint = "pass a tuple" if isinstance(value, list) else "pass scalars, tuples or Models"
    raise TypeError(
        f"a {type(value).__name__} ({str(value)[:60]}) cannot be recorded in a config; {hint}"
    )


def build(value: object) -> object:
    """The inverse of `describe`: lists become tuples, {"class", "config"} becomes an object.

    Raises:
        ValueError: A class outside `genkit.`, or malformed JSON.
        TypeError: An argument is missing or unknown.
    """
    if isinstance(value, list):
        return tuple(build(item) for item in value)
    if isinstance(value, dict):
        if set(value) != {"class", "config"} or not isinstance(value["config"], dict):
            raise ValueError(
                f'an object must have the keys "class" and "config", not {sorted(value)}'
            )
        kind = _resolve(value["class"])
        arguments = {name: build(item) for name, item in value["config"].items()}
        inspect.signature(kind).bind(**arguments)
        return kind(**arguments)
    return value


def fingerprint(record: Mapping[str, object]) -> str:
    """SHA-256 over the class, the constructor arguments and the hashes of the weight files."""
    core = {key: record[key] for key in ("class", "config", "weights")}
    text = json.dumps(core, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_record(folder: Path) -> dict[str, object]:
    """config.json of a checkpoint, its form and its fingerprint verified; no weights are read.

    Raises:
        FileNotFoundError: No such folder, or it has no config.json.
        ValueError: config.json is damaged or was changed by hand.
    """
    path = existing(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a genkit checkpoint")
    if path.stat().st_size > CONFIG_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, the limit is {CONFIG_BYTES}")
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch the checkpoint again") from error
    kinds = {"class": str, "config": dict, "weights": dict, "sha256": str}
    for key, kind in kinds.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            raise ValueError(f'{path} has no valid "{key}"; it is damaged or not from genkit')
    if not record["weights"]:
        raise ValueError(f'{path} names no weight file in "weights"; fetch the checkpoint again')
    if fingerprint(record) != record["sha256"]:
        raise ValueError(
            f"{path} was changed: its fingerprint is {fingerprint(record)[:12]}…, "
            f"recorded {record['sha256'][:12]}…; fetch the checkpoint again"
        )
    return record


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    """`init` that first records its bound arguments; only the outermost class records."""
    signature = inspect.signature(init)
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"{init.__qualname__} has the argument {parameter}; name it to record it ({name})"
            )

    @functools.wraps(init)
    def wrapper(self: Model, *args: object, **kwargs: object) -> None:
        if type(self).__init__ is wrapper:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = list(bound.arguments.items())[1:]
            object.__setattr__(self, "config", {name: describe(item) for name, item in arguments})
        init(self, *args, **kwargs)

    return wrapper


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_frozen(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen


def _resolve(name: object) -> type:
    """The class of "genkit.module:Class"; nothing else is imported, let alone called."""
    match = CLASS_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(
            f'class {str(name)[:80]!r} is refused: only "genkit.module:Class" is built'
        )
    try:
        kind = getattr(importlib.import_module(match[1]), match[2], None)
    except ModuleNotFoundError as error:
        raise ValueError(f"class {name!r} is unknown ({error}); update genkit") from error
    if not isinstance(kind, type) or _class_name(kind) != name:
        raise ValueError(f"class {name!r} is unknown to this version of genkit; update genkit")
    if not issubclass(kind, Model) and not _is_frozen(kind):
        raise ValueError(
            f"class {name!r} is refused: it is neither a Model nor a frozen dataclass"
        )
    return kind


def _check_buildable(description: object) -> None:
    if isinstance(description, list):
        for item in description:
            _check_buildable(item)
    elif isinstance(description, dict):
        try:
            _resolve(description["class"])
        except ValueError as error:
            raise TypeError(f"this model could not be loaded again: {error}") from error
        for item in description["config"].values():
            _check_buildable(item)


def _stored_tensors(model: Model, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Contiguous copies on the CPU; float32 becomes `dtype`, wider tensors stay."""
    stored = {}
    for name, tensor in model.state_dict().items():
        kind = dtype if dtype is not None and tensor.dtype == torch.float32 else tensor.dtype
        stored[name] = tensor.detach().to("cpu", kind, copy=True).contiguous()
        if stored[name].is_floating_point() and not stored[name].isfinite().all():
            raise ValueError(f"{name} is not finite in {kind}, so nothing was saved; use float32")
    return stored


def _weight_files(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    """File name → bytes, each below 15 MB unless one tensor is larger; the standard index."""
    from huggingface_hub import split_torch_state_dict_into_shards

    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern="model{suffix}.safetensors", max_shard_size=SHARD_BYTES
    )
    files = {
        name: save_tensors({key: tensors[key] for key in keys}, metadata={"format": "pt"})
        for name, keys in plan.filename_to_tensors.items()
    }
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        files["model.safetensors.index.json"] = json.dumps(index, indent=1).encode()
    return files


def _read_weights(folder: Path, hashes: Mapping[str, object]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, expected in hashes.items():
        if not WEIGHT_FILE.fullmatch(name):
            raise ValueError(f"{folder}/config.json names the weight file {name!r}: not allowed")
        part = read_tensors(folder / name, expected)
        if repeated := tensors.keys() & part.keys():
            raise ValueError(f"{folder / name} repeats the tensor {sorted(repeated)[0]}")
        tensors |= part
    return tensors


def _built(description: dict[str, object], folder: Path) -> Model:
    try:
        return build(description)
    except (
        ArithmeticError,
        AssertionError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{folder}/config.json cannot be built: {error}") from error


def _check_tensors(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: Path
) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"{folder} lacks {len(missing)} tensors of the model, first {missing[0]}")
    if extra := sorted(found.keys() - expected.keys()):
        raise ValueError(
            f"{folder} has {len(extra)} tensors that the model lacks, first {extra[0]}"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{name} in {folder} has shape {tuple(tensor.shape)}, "
                f"the model needs {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise ValueError(
                f"{name} in {folder} is {tensor.dtype}, the model needs {expected[name].dtype}"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"{name} in {folder} has NaN or infinite values; the checkpoint is unusable"
            )
