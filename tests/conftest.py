"""Shared fixtures: one thread, no network, no colours, a fixed seed."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ["NO_COLOR"] = "1"

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder of trained checkpoints."""
    return ROOT / "checkpoints"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test starts from the same global state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture()
def rng() -> torch.Generator:
    """A generator on the processor with seed 0."""
    return torch.Generator().manual_seed(0)
