"""Exchange: schedules from and to the scheduler_config.json of diffusers.

A diffusers scheduler is schedule, grid, sampler and parametrization in one. What is exchanged is
the schedule, and one word for the parametrization:

    LinearBeta, ScaledLinear, SigmoidBeta,    DDPMScheduler    prediction_type: epsilon,
    Cosine, Sigmoid, Trained, ZeroTerminal                     v_prediction or sample
    Rectified                                 FlowMatchEulerDiscreteScheduler    (Flow)
    Exploding                                 EDMEulerScheduler                  (EDM)

Any other scheduler of the same kind can be built from the file, as diffusers does it:
`DPMSolverMultistepScheduler.from_pretrained(folder)`. A chain that diffusers has no name for
(`Sigmoid`, `Cosine` with another s or clip) is written as its list of betas, and is read back as
`Trained`: another name of the same numbers, to the last bit.

The settings of grid and sampler in a file are not read; what would change the noise levels
themselves and has no counterpart here is refused. Time is told in genkit's way: a file written
here asks for trailing spacing, which starts at the last step of the chain.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from genkit.diffusion.curve import Discrete, Schedule
from genkit.diffusion.denoise import EDM, X0, Epsilon, Flow, Parametrization, V
from genkit.diffusion.schedule import (
    Cosine,
    Exploding,
    LinearBeta,
    Rectified,
    ScaledLinear,
    SigmoidBeta,
    Trained,
)
from genkit.diffusion.terminal import ZeroTerminal
from genkit.store import write_file

__all__ = ["from_diffusers", "save_diffusers", "to_diffusers"]

FILE = "scheduler_config.json"
FILE_BYTES = 4_000_000  # 100,000 betas fit

RANGES = {LinearBeta: "linear", ScaledLinear: "scaled_linear", SigmoidBeta: "sigmoid"}
PREDICTIONS = {Epsilon: "epsilon", V: "v_prediction", X0: "sample"}

CHAINS = frozenset(
    f"{name}Scheduler"
    for name in """
    DDIM DDIMInverse DDIMParallel DDPM DDPMParallel DEISMultistep DPMSolverMultistep
    DPMSolverMultistepInverse DPMSolverSDE DPMSolverSinglestep EulerAncestralDiscrete
    EulerDiscrete HeunDiscrete KDPM2AncestralDiscrete KDPM2Discrete LCM LMSDiscrete PNDM
    RePaint SASolver TCD UniPCMultistep
    """.split()
)
FLOWS = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
EDMS = frozenset({"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"})


def to_diffusers(
    schedule: Schedule, parametrization: Parametrization | None = None
) -> dict[str, object]:
    """The scheduler_config.json of a schedule, as a dict.

    Args:
        schedule: Any of genkit's.
        parametrization: Of the network. None is the usual one: Epsilon of a chain, V of one with
            zero terminal SNR, Flow of a rectified schedule, EDM of an exploding one.

    Raises:
        ValueError: diffusers has no scheduler for the schedule with this parametrization.
    """
    if isinstance(schedule, Discrete):
        return _written_chain(schedule, parametrization)
    if isinstance(schedule, Rectified):
        if not isinstance(parametrization, Flow | None):
            raise _unpaired(schedule, parametrization, "Flow")
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": schedule.T,
            "shift": schedule.shift,
        }
    if isinstance(schedule, Exploding):
        kind = EDM() if parametrization is None else parametrization
        if not isinstance(kind, EDM):
            raise _unpaired(schedule, parametrization, "EDM")
        return {
            "_class_name": "EDMEulerScheduler",
            "num_train_timesteps": schedule.T,
            "sigma_min": schedule.sigma_min,
            "sigma_max": schedule.sigma_max,
            "sigma_data": kind.sigma_data,
            "sigma_schedule": "karras",
            "rho": schedule.rho,
            "prediction_type": "epsilon",  # of EDM's preconditioned output, not of ε
        }
    raise ValueError(f"diffusers has no scheduler for {schedule}")


def save_diffusers(
    schedule: Schedule, folder: str | Path, parametrization: Parametrization | None = None
) -> Path:
    """Write `to_diffusers` to scheduler_config.json in a folder, and return its path.

    Raises:
        ValueError: As `to_diffusers`.
    """
    data = (json.dumps(to_diffusers(schedule, parametrization), indent=2) + "\n").encode()
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = path.with_name(f".{FILE}.new")
    write_file(stage, data)
    os.replace(stage, path)
    return path


def from_diffusers(source: Mapping[str, object] | str | Path) -> Schedule:
    """The schedule of a diffusers scheduler.

    Args:
        source: The path of a scheduler_config.json or of its folder, or what is in it (the
            `config` of a scheduler that was not loaded from a file lacks its `_class_name`).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, a value is missing or out of range, or the schedule has
            no counterpart in genkit.
    """
    config = source if isinstance(source, Mapping) else _read(Path(source))
    name = str(config.get("_class_name"))
    if name in FLOWS or (name in CHAINS and config.get("use_flow_sigmas")):
        return _read_flow(config, "shift" if name in FLOWS else "flow_shift")
    if name in EDMS:
        if config.get("sigma_schedule", "karras") != "karras":
            raise _unknown(config, "sigma_schedule", "the EDM curve is 'karras'")
        return Exploding(*(_number(config, key) for key in ("sigma_min", "sigma_max", "rho")))
    if name in CHAINS:
        chain = _read_chain(config)
        return ZeroTerminal(chain) if config.get("rescale_betas_zero_snr") else chain
    raise _unknown(config, "_class_name", "genkit reads chains of betas, flow matching and EDM")


def _written_chain(
    schedule: Discrete, parametrization: Parametrization | None
) -> dict[str, object]:
    rescaled = isinstance(schedule, ZeroTerminal)
    base = schedule.base if isinstance(schedule, ZeroTerminal) else schedule
    if rescaled and isinstance(parametrization, Epsilon):
        raise ValueError(
            "Epsilon is undefined at the end of a schedule with zero terminal SNR, "
            "where x_t holds no data; use V or X0"
        )
    kind = type(parametrization or (V() if rescaled else Epsilon()))
    if kind not in PREDICTIONS:
        raise _unpaired(schedule, parametrization, "Epsilon, V or X0")
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.T,
        **_written_betas(base),
        "rescale_betas_zero_snr": rescaled,
        "prediction_type": PREDICTIONS[kind],
        "timestep_spacing": "trailing",
        "clip_sample": False,
    }


def _written_betas(base: Discrete) -> dict[str, object]:
    if isinstance(base, LinearBeta | ScaledLinear | SigmoidBeta):
        return {
            "beta_schedule": RANGES[type(base)],
            "beta_start": base.beta_start,
            "beta_end": base.beta_end,
        }
    if base == Cosine(T=base.T):
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"trained_betas": base.betas().tolist()}


def _read_flow(config: Mapping[str, object], shift: str) -> Rectified:
    if config.get("use_dynamic_shifting"):
        raise _unknown(
            config, "use_dynamic_shifting", "its shift follows the picture: Rectified.of_tokens"
        )
    for key in ("invert_sigmas", "shift_terminal"):
        if config.get(key):
            raise _unknown(config, key, "a rectified schedule has a shift only")
    return Rectified(_number(config, shift))


def _read_chain(config: Mapping[str, object]) -> Discrete:
    if config.get("timestep_type", "discrete") != "discrete":
        raise _unknown(config, "timestep_type", "its noise levels are not those of its betas")
    T = config.get("num_train_timesteps")
    if not isinstance(T, int) or isinstance(T, bool):
        raise _unknown(config, "num_train_timesteps", "give the whole number of steps")
    betas = config.get("trained_betas")
    if betas is not None:
        if not isinstance(betas, list | tuple) or len(betas) != T:
            raise ValueError(f"trained_betas must be a list of {T} numbers, num_train_timesteps")
        return Trained(tuple(_finite("trained_betas", beta) for beta in betas))
    name = config.get("beta_schedule")
    if name == "squaredcos_cap_v2":
        return Cosine(T=T)
    for kind, known in RANGES.items():
        if name == known:
            return kind(_number(config, "beta_start"), _number(config, "beta_end"), T)
    raise _unknown(
        config, "beta_schedule", f"known are {', '.join(RANGES.values())} and squaredcos_cap_v2"
    )


def _number(config: Mapping[str, object], key: str) -> float:
    # No defaults: each class of diffusers has its own, and its save_pretrained writes them all.
    if key not in config:
        raise ValueError(f"the scheduler config lacks {key}; save it with save_pretrained")
    return _finite(key, config[key])


def _finite(key: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
        raise ValueError(f"{key} is {str(value)[:60]} in the scheduler config; give a number")
    return float(value)


def _read(path: Path) -> Mapping[str, object]:
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; name a {FILE} or its folder")
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, the limit is {FILE_BYTES}")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no scheduler config; it must be a JSON object")
    return config


def _unknown(config: Mapping[str, object], key: str, reason: str) -> ValueError:
    value = str(config.get(key))[:60]
    return ValueError(f"{key} is {value} in the scheduler config, which genkit lacks: {reason}")


def _unpaired(schedule: Schedule, found: Parametrization | None, remedy: str) -> ValueError:
    kinds = type(found).__name__, type(schedule).__name__
    return ValueError(f"diffusers has no {kinds[0]} on {kinds[1]} schedules; use {remedy}")
