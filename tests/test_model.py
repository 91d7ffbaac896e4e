"""Checkpoints: what is written is what is read, and nothing else is ever read."""

import hashlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from genkit.diffusion.denoise import Denoiser, Flow
from genkit.diffusion.schedule import Rectified
from genkit.model import Model, build, describe, fingerprint
from genkit.models.autoencoder import Autoencoder
from genkit.nn.unet import UNet


def small() -> Autoencoder:
    return Autoencoder(2, (8, 8), (8, 8), (0, 0), decoder_blocks=(0, 0))


def nested() -> Denoiser:
    return Denoiser(UNet(2, (32, 32), (1, 1), (1, 1), text=8, dim=16), Rectified(), Flow())


def reseal(folder, **changes):
    """Changes config.json as its author could: the fingerprint agrees again."""
    record = json.loads((folder / "config.json").read_text()) | changes
    record["sha256"] = fingerprint(record)
    (folder / "config.json").write_text(json.dumps(record))


def replace_weights(folder, tensors):
    """Other weights, honestly hashed."""
    save_file(tensors, folder / "model.safetensors")
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    reseal(folder, weights={"model.safetensors": found})


@pytest.fixture()
def saved(tmp_path):
    folder = tmp_path / "checkpoint"
    small().save_pretrained(folder)
    return folder


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_round_trip_is_identity(tmp_path):
    model = nested()
    model.save_pretrained(tmp_path / "m")
    loaded = Denoiser.from_pretrained(tmp_path / "m")
    assert same(model, loaded) and loaded.config == model.config
    assert loaded.schedule == model.schedule and loaded.parametrization == model.parametrization
    assert not loaded.training
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


def test_every_argument_is_recorded_defaults_included():
    config = small().config
    assert config == {
        "channels": 2,
        "encoder": [8, 8],
        "decoder": [8, 8],
        "encoder_blocks": [0, 0],
        "decoder_blocks": [0, 0],
    }
    assert build(describe(small())).config == config
    assert nested().config["backbone"]["class"] == "genkit.nn.unet:UNet"


def test_build_inverts_describe_on_values():
    for value in (None, True, 3, -0.5, "word", (1, (2.5, "x"), None), Rectified()):
        assert build(json.loads(json.dumps(describe(value)))) == value


def test_the_outermost_class_records():
    class Base(Model):
        def __init__(self, width: int) -> None:
            super().__init__()

    class Derived(Base):
        def __init__(self, depth: int = 2) -> None:
            super().__init__(width=7)

    class Inherits(Derived):
        pass

    assert Derived().config == {"depth": 2} and Inherits(3).config == {"depth": 3}
    assert Base(4).config == {"width": 4}


@pytest.mark.parametrize(
    "value", [[1, 2], torch.zeros(1), {"a": 1}, float("nan"), float("inf"), nn.Linear(1, 1), len]
)
def test_what_cannot_be_recorded_is_refused(value):
    with pytest.raises(TypeError, match="cannot be recorded"):
        describe((value,))


def test_unnamed_arguments_are_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match="sizes"):

        class Loose(Model):
            def __init__(self, *sizes: int) -> None:
                super().__init__()


def test_a_class_from_elsewhere_cannot_be_saved(tmp_path):
    class Foreign(Model):
        def __init__(self) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="could not be loaded again"):
        Foreign().save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_storage_type_rounds_and_loads_as_float32(tmp_path, dtype):
    model = small()
    model.save_pretrained(tmp_path / "m", dtype)
    loaded = Autoencoder.from_pretrained(tmp_path / "m")
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].to(dtype).float())


def test_overflow_and_nan_are_not_saved(tmp_path):
    model = small()
    model.save_pretrained(tmp_path / "m")
    old = Model.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        model.scale[0] = 1e6
    with pytest.raises(ValueError, match="scale is not finite in torch.float16"):
        model.save_pretrained(tmp_path / "m", torch.float16)
    assert same(old, Model.from_pretrained(tmp_path / "m"))


def test_other_files_stay_and_modes_are_readable(saved):
    (saved / "README.md").write_text("card")
    (saved / "pictures").mkdir()
    (saved / "pictures" / "config.json").write_text("kept: not ours")
    umask = os.umask(0o077)
    try:
        small().save_pretrained(saved, torch.float16)
    finally:
        os.umask(umask)
    assert (saved / "README.md").read_text() == "card"
    assert (saved / "pictures" / "config.json").read_text() == "kept: not ours"
    assert (saved / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert saved.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]


def test_shards_are_small_and_equal_one_file(tmp_path, monkeypatch):
    model = small()
    model.save_pretrained(tmp_path / "one")
    monkeypatch.setattr("genkit.model.SHARD_BYTES", 4000)
    model.save_pretrained(tmp_path / "many")
    files = sorted((tmp_path / "many").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert len(files) > 1 and set(index["weight_map"].values()) == {f.name for f in files}
    assert same(Model.from_pretrained(tmp_path / "many"), model)
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        Model.from_pretrained(tmp_path / "many")
    monkeypatch.undo()
    model.save_pretrained(tmp_path / "many")  # the shards of before are gone
    assert {p.name for p in (tmp_path / "many").iterdir()} == {"config.json", "model.safetensors"}


def test_loading_leaves_the_callers_randomness_alone(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Model.from_pretrained(saved)
    assert torch.equal(torch.rand(3), expected)


def test_fingerprint_names_weights_and_config(saved, tmp_path):
    first = Model.from_pretrained(saved).sha256
    small().save_pretrained(tmp_path / "other")
    assert first != Model.from_pretrained(tmp_path / "other").sha256
    assert small().sha256 is None and len(first) == 64


def test_another_class_is_refused(saved):
    with pytest.raises(TypeError, match="holds a Autoencoder, which is not a Denoiser"):
        Denoiser.from_pretrained(saved)


def test_any_changed_byte_is_refused(saved, rng):
    path = saved / "model.safetensors"
    data = path.read_bytes()
    for position in torch.randint(len(data), (60,), generator=rng).tolist():
        path.write_bytes(data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :])
        with pytest.raises(ValueError, match="damaged or replaced"):
            Model.from_pretrained(saved)
    for changed in (data[:-1], data[: len(data) // 2], b"", data + b"x"):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="damaged or replaced"):
            Model.from_pretrained(saved)


def test_any_changed_letter_of_the_config_is_refused_or_harmless(saved, rng):
    path, expected = saved / "config.json", Model.from_pretrained(saved)
    data = path.read_bytes()
    for position in torch.randint(len(data), (200,), generator=rng).tolist():
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            loaded = Model.from_pretrained(saved)
        except (ValueError, FileNotFoundError):
            continue
        assert same(loaded, expected) and loaded.config == expected.config


class Canary:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_pickle_in_disguise_is_never_opened(saved, tmp_path, zipped, sealed):
    path, canary = saved / "model.safetensors", tmp_path / "canary"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Canary(str(canary))))
    else:
        path.write_bytes(pickle.dumps(Canary(str(canary))))
    if sealed:  # its author knows the hash
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        reseal(saved, weights={"model.safetensors": found})
    with pytest.raises(ValueError, match="not a safetensors file" if sealed else "damaged"):
        Model.from_pretrained(saved)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "genkit:load",
        "genkit.hub:load",
        "genkit.hub:Path",
        "genkit.model:Model.save_pretrained",
        "genkit.__main__:main",
        "genkit.model:os",
        "genkit.train:Progress.step",
        "genkit.runtime:Machine\n",
        "genkit..os:system",
        "genkit.nowhere:Model",
        "genkit.models.autoencoder:Denoiser",
        "torch.nn:Linear",
    ],
)
def test_only_genkit_classes_are_built(saved, name):
    with pytest.raises(ValueError, match="refused|unknown"):
        build({"class": name, "config": {}})
    reseal(saved, **{"class": name, "config": {"command": "touch /tmp/never"}})
    with pytest.raises(ValueError, match="refused|unknown"):
        Model.from_pretrained(saved)


def test_missing_extra_and_misshapen_tensors(saved):
    tensors = load_file(saved / "model.safetensors")
    shift = tensors.pop("shift")
    replace_weights(saved, tensors)
    with pytest.raises(ValueError, match="lacks 1 tensors of the model, first shift"):
        Model.from_pretrained(saved)
    replace_weights(saved, tensors | {"shift": shift, "spare": shift.clone()})
    with pytest.raises(ValueError, match="that the model lacks, first spare"):
        Model.from_pretrained(saved)
    replace_weights(saved, tensors | {"shift": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"shift .* has shape \(3,\), the model needs \(2,\)"):
        Model.from_pretrained(saved)
    replace_weights(saved, tensors | {"shift": torch.zeros(2, dtype=torch.int64)})
    with pytest.raises(ValueError, match="int64"):
        Model.from_pretrained(saved)
    for bad in (float("nan"), float("inf")):
        replace_weights(saved, tensors | {"shift": torch.tensor([0, bad])})
        with pytest.raises(ValueError, match="NaN or infinite"):
            Model.from_pretrained(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": -1},
        {"channels": 10**9},  # refused by shape on the meta device: no memory is touched
        {"channels": "2"},
        {"channels": None},
        {"encoder": [8]},
        {"encoder": {"a": 1}},
        {"surprise": 1},
    ],
)
def test_wrong_configs_are_refused_before_memory_is_taken(saved, change):
    config = json.loads((saved / "config.json").read_text())["config"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reseal(saved, config=config | change)
    with pytest.raises(ValueError, match="cannot be built|needs|lacks"):
        Model.from_pretrained(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_damaged_json_and_missing_files(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Model.from_pretrained(tmp_path / "nowhere")
    config = saved / "config.json"
    text = config.read_text()
    for damage in (text[:-9], "", "[]", "{}", "[" * 5000, "\x00", '{"class": 3}'):
        config.write_text(damage)
        with pytest.raises(ValueError, match="config.json"):
            Model.from_pretrained(saved)
    config.write_text(" " * 1_000_001)
    with pytest.raises(ValueError, match="the limit is 1000000"):
        Model.from_pretrained(saved)
    config.unlink()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        Model.from_pretrained(saved)
    config.write_text(text)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        Model.from_pretrained(saved)
    reseal(saved, weights={"../../secret.safetensors": "0" * 64})
    with pytest.raises(ValueError, match="not allowed"):
        Model.from_pretrained(saved)
    reseal(saved, weights={})
    with pytest.raises(ValueError, match="names no weight file"):
        Model.from_pretrained(saved)


def test_a_full_disk_leaves_the_old_checkpoint(saved):
    old = Model.from_pretrained(saved)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"\d+ bytes are needed, \d+ are free"):
            small().save_pretrained(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(Model.from_pretrained(saved), old)
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]


def test_too_little_space_is_noticed_before_writing(saved, monkeypatch):
    @dataclass
    class Usage:
        free: int = 10

    monkeypatch.setattr("genkit.store.shutil.disk_usage", lambda _: Usage())
    before = (saved / "config.json").stat()
    with pytest.raises(OSError, match="10 are free"):
        small().save_pretrained(saved)
    assert (saved / "config.json").stat() == before


def test_a_writer_killed_at_any_moment_loses_nothing(tmp_path, rng):
    code = (
        "import sys, torch; from genkit.models.autoencoder import Autoencoder\n"
        "model = Autoencoder(2, (8, 8), (8, 8), (0, 0), (0, 0))\n"
        "while True:\n"
        "    model.scale.add_(1)\n"
        f"    model.save_pretrained({str(tmp_path / 'm')!r})\n"
        "    print(int(model.scale[0]), flush=True)\n"
    )
    small().save_pretrained(tmp_path / "m")
    for wait in torch.rand(3, generator=rng).tolist():
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.1 * wait)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        written = int(rest[-1]) if rest else 2
        loaded = Autoencoder.from_pretrained(tmp_path / "m")
        assert abs(int(loaded.scale[0]) - written) <= 1


def test_between_the_two_renames_the_old_checkpoint_is_found(saved):
    expected = Model.from_pretrained(saved)
    saved.rename(saved.with_name(".checkpoint.old"))
    assert same(Model.from_pretrained(saved), expected)
    (saved.with_name(".checkpoint.old") / "README.md").write_text("card")
    small().save_pretrained(saved)
    assert (saved / "README.md").read_text() == "card"
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]
