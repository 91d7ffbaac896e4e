"""The scheduler_config.json of diffusers: written, loaded there, read back, refused."""

import json
import math
from pathlib import Path

import pytest
import torch

from genkit.diffusion.denoise import EDM, X0, Epsilon, Flow, V
from genkit.diffusion.exchange import from_diffusers, save_diffusers, to_diffusers
from genkit.diffusion.schedule import (
    Cosine,
    Exploding,
    LinearBeta,
    Rectified,
    ScaledLinear,
    Schedule,
    Sigmoid,
    SigmoidBeta,
    Trained,
)
from genkit.diffusion.terminal import ZeroTerminal

NAMED = [
    LinearBeta(),
    LinearBeta(beta_start=0.001, beta_end=0.3, T=37),
    ScaledLinear(),
    SigmoidBeta(),
    Cosine(),
    Cosine(T=250),
    Trained((0.1, 0.3, 0.2, 0.9)),
    ZeroTerminal(ScaledLinear()),
    ZeroTerminal(Cosine()),
    ZeroTerminal(Trained((0.1, 0.3, 0.2, 0.9))),
    Rectified(),
    Rectified(shift=math.pi),
    Exploding(),
    Exploding(sigma_min=0.01, sigma_max=700.0, rho=5.0),
]
BY_BETAS = [Sigmoid(), Sigmoid(tau=0.7, T=100), Cosine(s=0.02), Cosine(clip=0.9, T=20)]
CHAIN = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
CHAIN |= {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000}
WAN = {"use_flow_sigmas": True, "flow_shift": 5}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def _diffusers(schedule: Schedule, folder: Path) -> object:
    """The scheduler that diffusers builds from the file."""
    import diffusers.schedulers as schedulers

    path = save_diffusers(schedule, folder)
    kind = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    return getattr(schedulers, kind).from_pretrained(folder)


@pytest.mark.parametrize("schedule", NAMED)
def test_read_back_is_the_same_schedule(schedule, tmp_path):
    assert from_diffusers(to_diffusers(schedule)) == schedule
    path = save_diffusers(schedule, tmp_path / "new" / "folder")
    assert from_diffusers(path) == from_diffusers(path.parent) == schedule
    assert [file.name for file in path.parent.iterdir()] == ["scheduler_config.json"]


@pytest.mark.parametrize("schedule", [*BY_BETAS, *(ZeroTerminal(s) for s in BY_BETAS)])
def test_read_back_has_the_same_numbers(schedule, tmp_path):
    again = from_diffusers(save_diffusers(schedule, tmp_path))
    for ours, theirs in zip(schedule.chain(), again.chain(), strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize("schedule", NAMED + BY_BETAS)
def test_diffusers_loads_the_file_without_a_word(schedule, tmp_path, capfd):
    """Its noise levels are the schedule's to its float32; what it saves is the schedule again."""
    theirs = _diffusers(schedule, tmp_path / "ours")
    assert "not expected" not in capfd.readouterr().err
    chain = schedule.chain()
    if isinstance(schedule, Rectified):
        torch.testing.assert_close(theirs.sigmas.flip(0), chain.sigma.float())
    elif isinstance(schedule, Exploding):
        theirs.set_timesteps(9)
        t = torch.linspace(1, 0, 9, dtype=torch.float64)
        torch.testing.assert_close(theirs.sigmas[:-1], schedule(t)[1].float())
    else:
        expected = chain.alpha.square().float()
        # Their float32 differences near the end of a rescaled chain keep three digits.
        torch.testing.assert_close(theirs.alphas_cumprod, expected, rtol=1e-3, atol=1e-7)
    theirs.save_pretrained(tmp_path / "theirs")
    again = from_diffusers(tmp_path / "theirs")
    if schedule in NAMED:
        assert again == schedule
    assert again.chain().alpha.equal(chain.alpha)


@pytest.mark.parametrize(
    "name", ["DDIM", "DPMSolverMultistep", "EulerDiscrete", "PNDM", "UniPCMultistep"]
)
def test_other_schedulers_of_diffusers_load_the_same_file(name, tmp_path):
    import diffusers.schedulers as schedulers

    save_diffusers(ScaledLinear(), tmp_path, V())
    theirs = getattr(schedulers, f"{name}Scheduler").from_pretrained(tmp_path)
    expected = ScaledLinear().chain().alpha.square().float()
    torch.testing.assert_close(theirs.alphas_cumprod, expected, rtol=1e-4, atol=0)
    assert theirs.config.prediction_type == "v_prediction"
    assert from_diffusers(theirs.config) == ScaledLinear()


@pytest.mark.parametrize(
    ("schedule", "parametrization", "key", "value"),
    [
        (LinearBeta(), None, "prediction_type", "epsilon"),
        (LinearBeta(), V(), "prediction_type", "v_prediction"),
        (LinearBeta(), X0(), "prediction_type", "sample"),
        (ZeroTerminal(LinearBeta()), None, "prediction_type", "v_prediction"),
        (Rectified(), Flow(), "_class_name", "FlowMatchEulerDiscreteScheduler"),
        (Exploding(), EDM(sigma_data=1.0), "sigma_data", 1.0),
    ],
)
def test_the_parametrization_is_written(schedule, parametrization, key, value):
    assert to_diffusers(schedule, parametrization)[key] == value


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (  # Stable Diffusion 1.5
            {
                "_class_name": "PNDMScheduler",
                "_diffusers_version": "0.6.0",
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "beta_start": 0.00085,
                "num_train_timesteps": 1000,
                "set_alpha_to_one": False,
                "skip_prk_steps": True,
                "steps_offset": 1,
                "trained_betas": None,
                "clip_sample": False,
            },
            ScaledLinear(),
        ),
        (FLOW | {"num_train_timesteps": 1000}, Rectified(shift=3.0)),  # Stable Diffusion 3
        (
            CHAIN
            | {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 5},
            Rectified(shift=5.0),
        ),
        (CHAIN | {"rescale_betas_zero_snr": True}, ZeroTerminal(LinearBeta())),
        (
            {
                "_class_name": "EDMDPMSolverMultistepScheduler",
                "sigma_min": 0.002,
                "sigma_max": 80,
                "rho": 7,
            },
            Exploding(),
        ),
    ],
)
def test_published_configs_are_read(config, expected):
    assert from_diffusers(config) == expected


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: to_diffusers(LinearBeta(), Flow()), "no Flow on LinearBeta"),
        (lambda: to_diffusers(Rectified(), Epsilon()), "no Epsilon on Rectified.*use Flow"),
        (lambda: to_diffusers(Exploding(), V()), "no V on Exploding.*use EDM"),
        (lambda: to_diffusers(ZeroTerminal(LinearBeta()), Epsilon()), "use V or X0"),
        (lambda: from_diffusers({}), "_class_name is None"),
        (lambda: from_diffusers({"_class_name": "CogVideoXDDIMScheduler"}), "CogVideoXDDIM"),
        (lambda: from_diffusers({"_class_name": ["DDIMScheduler"]}), "_class_name is"),
        (lambda: from_diffusers(CHAIN | {"beta_schedule": "laplace"}), "laplace"),
        (lambda: from_diffusers(CHAIN | {"beta_start": "small"}), "beta_start is small"),
        (lambda: from_diffusers(CHAIN | {"beta_start": math.nan}), "beta_start is nan"),
        (lambda: from_diffusers(CHAIN | {"beta_start": 10**400}), "beta_start is 1000"),
        (lambda: from_diffusers(CHAIN | {"beta_end": 2}), "beta is 2.0"),
        (lambda: from_diffusers(CHAIN | {"beta_end": 1e-5}), "falls from"),
        (lambda: from_diffusers(CHAIN | {"num_train_timesteps": 10**9}), "T is 1000000000"),
        (lambda: from_diffusers(CHAIN | {"num_train_timesteps": 0}), "T is 0"),
        (lambda: from_diffusers(CHAIN | {"num_train_timesteps": 10.5}), "whole number"),
        (lambda: from_diffusers(CHAIN | {"trained_betas": [0.1]}), "list of 1000 numbers"),
        (lambda: from_diffusers(CHAIN | {"timestep_type": "continuous"}), "timestep_type"),
        (lambda: from_diffusers(FLOW | {"use_dynamic_shifting": True}), "Rectified.of_tokens"),
        (lambda: from_diffusers(FLOW | {"invert_sigmas": True}), "invert_sigmas is True"),
        (lambda: from_diffusers(FLOW | {"shift_terminal": 0.1}), "shift_terminal is 0.1"),
        (lambda: from_diffusers(FLOW | {"shift": -1}), "shift is -1.0"),
        (lambda: from_diffusers({"_class_name": FLOW["_class_name"]}), "lacks shift"),
        (
            lambda: from_diffusers(
                {"_class_name": "EDMEulerScheduler", "sigma_schedule": "exponential"}
            ),
            "sigma_schedule is exponential",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "scheduler_config.json"
    with pytest.raises(FileNotFoundError, match="scheduler_config.json"):
        from_diffusers(tmp_path)
    for text in ("{", "[" * 100_000, "\udcff"):
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match="is damaged"):
            from_diffusers(path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="must be a JSON object"):
        from_diffusers(path)
    path.write_text(" " * 4_000_001)
    with pytest.raises(ValueError, match="the limit is 4000000"):
        from_diffusers(path)
