"""The decision follows the facts: a table of machines with known answers."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from genkit import runtime
from genkit.runtime import Machine, Runtime, choose, prepare

LAPTOP = Machine((), False, False, "", "AVX2", 4, "2.13.0")
SERVER = replace(LAPTOP, bf16="AMX tiles", simd="AVX512", cores=2)
HOPPER = replace(SERVER, gpus=("H200",), gpu_bf16=True)
TURING = replace(LAPTOP, gpus=("T4", "T4"))
APPLE = replace(LAPTOP, mps=True, simd="DEFAULT", cores=8)


@pytest.mark.parametrize(
    ("machine", "device", "dtype", "threads"),
    [
        (LAPTOP, "cpu", torch.float32, 4),
        (SERVER, "cpu", torch.bfloat16, 2),
        (replace(SERVER, bf16="AVX512-BF16"), "cpu", torch.bfloat16, 2),
        (replace(SERVER, bf16=""), "cpu", torch.float32, 2),
        (HOPPER, "cuda:0", torch.bfloat16, 2),
        (TURING, "cuda:0", torch.float32, 4),
        (APPLE, "mps", torch.float32, 8),
        (replace(LAPTOP, cores=128), "cpu", torch.float32, 16),
    ],
)
def test_known_machines(machine, device, dtype, threads):
    chosen = choose(machine, {})
    assert (chosen.device, chosen.dtype, chosen.threads) == (torch.device(device), dtype, threads)
    assert [reason.split()[0] for reason in chosen.reasons] == [
        "device",
        "dtype",
        "threads",
        "attention",
    ]
    assert all(reason.endswith(".") for reason in chosen.reasons)


def test_environment_overrides():
    asked = {"GENKIT_DEVICE": "cpu", "GENKIT_DTYPE": "float32", "GENKIT_THREADS": "3"}
    chosen = choose(HOPPER, asked)
    assert (chosen.device.type, chosen.dtype, chosen.threads) == ("cpu", torch.float32, 3)
    assert choose(TURING, {"GENKIT_DEVICE": "cuda:1"}).device == torch.device("cuda", 1)
    assert choose(TURING, {"GENKIT_DTYPE": "float16"}).dtype == torch.float16
    assert choose(LAPTOP, {"OMP_NUM_THREADS": "2,1"}).threads == 2
    assert choose(LAPTOP, {"OMP_NUM_THREADS": "2", "GENKIT_THREADS": "1"}).threads == 1
    assert choose(LAPTOP, {"GENKIT_DTYPE": "  ", "GENKIT_DEVICE": ""}) == choose(LAPTOP, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GENKIT_DEVICE", "cuda"),
        ("GENKIT_DEVICE", "tpu"),
        ("GENKIT_DTYPE", "int8"),
        ("GENKIT_DTYPE", "float16"),
        ("GENKIT_THREADS", "0"),
        ("GENKIT_THREADS", "-1"),
        ("GENKIT_THREADS", "1025"),
        ("GENKIT_THREADS", "9" * 100_000),
        ("GENKIT_THREADS", "two"),
        ("GENKIT_THREADS", "٣"),
    ],
)
def test_bad_overrides_name_the_variable_and_the_remedy(variable, value):
    with pytest.raises(ValueError, match=variable) as caught:
        choose(LAPTOP, {variable: value})
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 300
    assert "unset" in sentence or "choose" in sentence


def test_detect_describes_this_machine():
    chosen = runtime.detect({})
    assert 1 <= chosen.threads <= (os.cpu_count() or 1)
    assert chosen.device.type in ("cpu", "cuda", "mps")
    assert runtime.probe() == runtime.probe()


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 1 << 20),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1 << 20),
        ({}, 1 << 20),
    ],
)
def test_container_quota(tmp_path: Path, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert runtime._quota(tmp_path) == quota


def test_prepare_changes_the_form_and_not_the_function():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(8, 4, 1))
    x = torch.randn(2, 3, 8, 8)
    expected = net[2](net[0](x))
    threads = torch.get_num_threads()
    try:
        same = prepare(net, Runtime(torch.device("cpu"), torch.float32, 1, "sdpa", ()))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert same is net and not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(net(x), expected, atol=1e-6)


def test_prepare_flushes_denormals_and_sets_the_number_type():
    net = prepare(nn.Linear(2, 2), Runtime(torch.device("cpu"), torch.bfloat16, 1, "sdpa", ()))
    assert net.weight.dtype == torch.bfloat16
    if torch.set_flush_denormal(True):  # False where the processor cannot
        tiny = torch.tensor([1e-38]) * 1e-2
        assert tiny.item() == 0.0
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    ("device", "dtype", "threads", "rows", "woken"),
    [
        ("cpu", torch.bfloat16, 2, 1, 1),
        ("cpu", torch.bfloat16, 2, 2, 1),
        ("cpu", torch.bfloat16, 2, 3, 2),
        ("cpu", torch.bfloat16, 4, 1, 4),
        ("cpu", torch.float32, 2, 1, 2),
        ("mps", torch.bfloat16, 2, 1, 2),
    ],
)
def test_on_two_cores_few_rows_in_bfloat16_take_one_thread(device, dtype, threads, rows, woken):
    assert Runtime(torch.device(device), dtype, threads, "sdpa", ()).threads_for(rows) == woken


@pytest.fixture()
def usual():
    """Threads of this test, which leaves none of its own behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def test_events_are_made_with_their_threads_and_others_keep_theirs(usual):
    ended = []

    def events():
        try:
            for _ in range(3):
                yield torch.get_num_threads()
        finally:
            ended.append(torch.get_num_threads())

    seen = runtime.each(events(), 3, usual)
    assert next(seen) == 3 and torch.get_num_threads() == usual
    assert list(seen) == [3, 3] and ended == [3]
    assert torch.get_num_threads() == usual
    stopped = runtime.each(events(), 3, usual)
    next(stopped)
    stopped.close()
    assert len(ended) == 2 and torch.get_num_threads() == usual

    def fails():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(runtime.each(fails(), 3, usual))
    assert torch.get_num_threads() == usual


def test_who_begins_while_somebody_has_few_threads_spoils_nothing(usual):
    """torch gives a thread of Python's the number that it finds when it begins."""
    with ThreadPoolExecutor(1) as late, ThreadPoolExecutor(1) as later:
        begun = (late.submit(torch.get_num_threads).result() for _ in range(1))
        assert list(runtime.each(begun, 1, usual)) == [1]
        again = (torch.get_num_threads() for _ in range(1))
        assert late.submit(lambda: list(runtime.each(again, usual, usual))).result() == [usual]
        assert later.submit(torch.get_num_threads).result() == usual
