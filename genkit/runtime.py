"""Where and how a model runs here: device, number type, threads, attention, each with its reason.

    probe()  : the machine's facts       Machine(cuda, mps, bf16, cores, ...)
    choose() : facts -> decision         Runtime(device, dtype, threads, attention, reasons)
    detect() = choose(probe())
    prepare(model, runtime) : eval mode, channels_last, device, dtype, no gradients

Measured on two cores: bfloat16 is 2.4x faster than float32 with AMX tiles (Sapphire Rapids, a
21 M-parameter U-Net at 32²), 1.4-2x with AVX512-BF16 (EPYC, the shipped U-Nets and decoder), and
2.6-5.5x SLOWER with neither, so the number type follows the instruction set. channels_last is
1.06-1.29x faster everywhere.

Three environment variables override the choice: GENKIT_DEVICE (cpu, cuda, cuda:1, mps),
GENKIT_DTYPE (float32, bfloat16, float16) and GENKIT_THREADS (1 to 1024). OMP_WAIT_POLICY=PASSIVE
must be set before torch is imported; `genkit.__main__` does that.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

__all__ = [
    "Machine",
    "Runtime",
    "apply",
    "choose",
    "cpu_flags",
    "described",
    "detect",
    "each",
    "prepare",
    "probe",
]

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MOST_THREADS = 16  # pictures of 128² have too little work for more: waiting outweighs sharing


@dataclass(frozen=True)
class Machine:
    """The facts that the decision depends on.

    Args:
        gpus: Names of the CUDA devices that torch sees.
        gpu_bf16: True where the first GPU computes bfloat16 natively (compute capability ≥ 8.0).
        mps: True where an Apple GPU answers.
        bf16: What multiplies bfloat16 in the processor: "AMX tiles", "AVX512-BF16" or "", nothing.
        simd: The widest instruction set that torch uses, such as AVX512.
        cores: Physical cores that this process may use (affinity and container quota applied).
        torch: Version of torch.
    """

    gpus: tuple[str, ...]
    gpu_bf16: bool
    mps: bool
    bf16: str
    simd: str
    cores: int
    torch: str


@dataclass(frozen=True)
class Runtime:
    """The decision, with a sentence for each part of it.

    Args:
        device: Where the weights and the pictures live.
        dtype: Number type of the weights; a sampler's state stays float32.
        threads: Threads of one tensor operation on the processor.
        attention: Name of the attention route.
        reasons: One sentence each on device, number type, threads and attention.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    attention: str
    reasons: tuple[str, ...]

    def threads_for(self, rows: int) -> int:
        """How many threads are worth waking for a batch of so many rows.

        In bfloat16 a processor is done with a row or two of a small network before threads that
        sleep between operations have helped, and the page needs a core, too. On two cores one
        thread took 82 ms and two took 93 for the four evaluations of book128_fast; 566 and 610
        for the twenty, of two rows each, of book128_latent; behind the page 810 and 970. Of more
        cores nothing was measured: there all work.
        """
        bf16 = self.device.type == "cpu" and self.dtype == torch.bfloat16
        return 1 if bf16 and rows <= 2 and self.threads == 2 else self.threads


def detect(environment: Mapping[str, str] | None = None) -> Runtime:
    """The runtime of this machine; `environment` defaults to os.environ. Changes nothing."""
    return choose(probe(), os.environ if environment is None else environment)


def probe() -> Machine:
    """Asks torch and the operating system; starts no GPU work."""
    gpus = _gpu_names()
    return Machine(
        gpus=gpus,
        gpu_bf16=bool(gpus) and torch.cuda.is_bf16_supported(including_emulation=False),
        mps=torch.backends.mps.is_available(),
        bf16=_bf16(cpu_flags()),
        simd=torch.backends.cpu.get_cpu_capability(),
        cores=_usable_cores(),
        torch=torch.__version__,
    )


def described(machine: Machine) -> str:
    """What a machine computes with, in a line."""
    if machine.gpus:
        return f"GPU {machine.gpus[0]}, torch {machine.torch}"
    bf16 = f", {machine.bf16} in bfloat16" if machine.bf16 else ""
    return f"{machine.cores} processor cores ({machine.simd}{bf16}), torch {machine.torch}"


def choose(machine: Machine, environment: Mapping[str, str]) -> Runtime:
    """The decision as a function of the facts and the three variables, and of nothing else.

    Raises:
        ValueError: A variable has a value that is unknown, or that this machine cannot serve.
    """
    device, why_device = _device(machine, environment)
    dtype, why_dtype = _dtype(machine, device, environment)
    threads, why_threads = _threads(machine, environment)
    why_attention = (
        "attention sdpa: torch's scaled_dot_product_attention chooses its kernel per call "
        "(flash on the processor and on GPUs that have it)."
    )
    reasons = (why_device, why_dtype, why_threads, why_attention)
    return Runtime(device, dtype, threads, "sdpa", reasons)


def apply(runtime: Runtime) -> None:
    """Sets the threads of this process, flushes denormal numbers to zero in this thread, no TF32.

    Trained and averaged weights hold denormals (|w| < 1e-38), on which x86 is 5-50x slower.
    The flag belongs to a thread, and threads that it starts inherit it.
    """
    if torch.get_num_threads() != runtime.threads:
        torch.set_num_threads(runtime.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; what is fast is bfloat16


def each(events: Generator[T], threads: int, usual: int) -> Iterator[T]:
    """The same events, each made with so many threads; closed with the one who reads them.

    Between two events there are as many as usual: somebody else may work meanwhile. How many
    there were before is no measure of that, for torch's number is also the one that a thread of
    Python's begins with, and it may have begun while somebody else had few.
    """
    with closing(events):
        while True:
            torch.set_num_threads(threads)
            try:
                event = next(events)
            except StopIteration:
                return
            finally:
                torch.set_num_threads(usual)
            yield event


def prepare(model: M, runtime: Runtime) -> M:
    """The same model, ready to run: eval mode, no gradients, device, dtype, channels_last.

    Buffers (moments of latents and the like) keep their number type.
    """
    apply(runtime)
    model = model.eval().requires_grad_(False)
    model.to(device=runtime.device, memory_format=torch.channels_last)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(runtime.dtype)
    return model


def _device(machine: Machine, environment: Mapping[str, str]) -> tuple[torch.device, str]:
    asked = environment.get("GENKIT_DEVICE", "").strip().lower()
    if asked:
        return _asked_device(asked, machine), f"device {asked}: GENKIT_DEVICE asks for it."
    if machine.gpus:
        return torch.device("cuda", 0), f"device cuda:0: torch sees the GPU {machine.gpus[0]}."
    if machine.mps:
        return torch.device("mps"), "device mps: torch sees an Apple GPU."
    return torch.device("cpu"), f"device cpu: torch {machine.torch} sees no GPU here."


def _asked_device(asked: str, machine: Machine) -> torch.device:
    present = ["cpu"] + ["mps"] * machine.mps
    present += ["cuda"] * bool(machine.gpus) + [f"cuda:{i}" for i in range(len(machine.gpus))]
    if asked not in present:
        raise ValueError(
            f"GENKIT_DEVICE={asked!r} is not a device of this machine, which has "
            f"{', '.join(present)}; choose one of them or unset the variable."
        )
    return torch.device("cuda", 0) if asked == "cuda" else torch.device(asked)


def _dtype(
    machine: Machine, device: torch.device, environment: Mapping[str, str]
) -> tuple[torch.dtype, str]:
    asked = environment.get("GENKIT_DTYPE", "").strip().lower()
    if asked:
        dtype = _asked_dtype(asked, device)
        return dtype, f"dtype {_name(dtype)}: GENKIT_DTYPE asks for it."
    if device.type == "cuda" and machine.gpu_bf16:
        return torch.bfloat16, "dtype bfloat16: the GPU computes it natively."
    if device.type == "cuda":
        return torch.float32, "dtype float32: the GPU is older than native bfloat16."
    if device.type == "mps":
        return torch.float32, "dtype float32: the safe choice on an Apple GPU."
    if machine.bf16:
        return torch.bfloat16, f"dtype bfloat16: the processor has {machine.bf16} for it (faster)."
    return torch.float32, (
        f"dtype float32: the processor has {machine.simd} but no AMX tiles or AVX512-BF16, "
        "without which bfloat16 is 3-5x slower."
    )


def _asked_dtype(asked: str, device: torch.device) -> torch.dtype:
    if asked not in DTYPES:
        raise ValueError(
            f"GENKIT_DTYPE={asked!r} is not a number type; choose one of {', '.join(DTYPES)}, "
            "or unset the variable."
        )
    if asked == "float16" and device.type == "cpu":
        raise ValueError(
            "GENKIT_DTYPE='float16' overflows and is slow on the processor; choose float32 or "
            "bfloat16 there, or a GPU with GENKIT_DEVICE."
        )
    return DTYPES[asked]


def _threads(machine: Machine, environment: Mapping[str, str]) -> tuple[int, str]:
    for variable in ("GENKIT_THREADS", "OMP_NUM_THREADS"):
        asked = environment.get(variable, "").strip()
        if variable == "OMP_NUM_THREADS":
            asked = asked.partition(",")[0]  # OpenMP's nested lists: the outermost level counts
        if not asked:
            continue
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= 1024):
            raise ValueError(
                f"{variable}={asked[:40]!r} is not a number of threads from 1 to 1024; "
                "set such a number or unset the variable."
            )
        return int(asked), f"threads {int(asked)}: {variable} asks for it."
    threads = min(machine.cores, MOST_THREADS)
    limit = "" if threads == machine.cores else f", of which small networks use {threads}"
    return threads, f"threads {threads}: {machine.cores} physical cores may be used{limit}."


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bf16(flags: frozenset[str]) -> str:
    known = {"amx_bf16": "AMX tiles", "avx512_bf16": "AVX512-BF16"}
    return next((name for flag, name in known.items() if flag in flags), "")


def _gpu_names() -> tuple[str, ...]:
    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def cpu_flags() -> frozenset[str]:
    """The `flags` line of /proc/cpuinfo (Linux on x86); empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(found, "").split())


def _usable_cores() -> int:
    """Physical cores within this process's affinity, no more than the container's quota."""
    try:
        logical = sorted(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        logical = list(range(os.cpu_count() or 1))
    physical = {_siblings(index) for index in logical}
    return max(1, min(len(physical), _quota()))


def _siblings(index: int) -> str:
    """The logical processors that share a core with this one; itself where it is not told."""
    topology = Path(f"/sys/devices/system/cpu/cpu{index}/topology")
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return (topology / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
    return str(index)


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that the container's quota pays for, rounded up; large where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()[:2]
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return 1 << 20
    if not quota.isdigit() or int(quota) == 0 or int(period) == 0:  # "max" or -1: no limit
        return 1 << 20
    return max(1, -(-int(quota) // int(period)))
