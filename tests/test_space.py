"""What a Hugging Face Space reads: the front matter of README.md, and the files that it names.

References:
    Spaces configuration reference, https://huggingface.co/docs/hub/spaces-config-reference
"""

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
KEYS = {"title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version"}
KEYS |= {"app_file", "license", "short_description", "models", "datasets", "tags", "pinned"}
KEYS |= {"suggested_hardware", "startup_duration_timeout", "disable_embedding", "thumbnail"}
PYTHONS = {"3.10", "3.10.13", "3.12", "3.12.12"}  # ZeroGPU has no other
LARGEST = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def text() -> str:
    """The YAML between the first two lines of dashes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    assert found, "README.md must begin with its front matter"
    return found[1]


@pytest.fixture(scope="module")
def front(text) -> dict[str, Any]:
    return yaml.safe_load(text)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_keys_are_those_of_a_gradio_space(front) -> None:
    assert set(front) <= KEYS
    assert {"title", "sdk", "sdk_version", "app_file", "python_version"} <= set(front)
    assert front["sdk"] == "gradio" and front["title"]
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    assert len(front["emoji"]) <= 4


def test_the_description_fits(front) -> None:
    assert 0 < len(front["short_description"]) <= 60


def test_the_python_version_is_quoted(front, text) -> None:
    """YAML reads an unquoted 3.10 as the number 3.1."""
    assert front["python_version"] in PYTHONS
    assert re.search(r"""^python_version: (['"])[\d.]+\1$""", text, re.MULTILINE)
    lowest = re.search(r'^requires-python = ">=([\d.]+)"', read("pyproject.toml"), re.MULTILINE)
    assert numbers(front["python_version"]) >= numbers(lowest[1])


def test_the_gradio_version_is_exact_and_within_the_requirements(front) -> None:
    version = front["sdk_version"]
    assert isinstance(version, str) and re.fullmatch(r"\d+\.\d+\.\d+", version)
    low, high = re.search(r"^gradio>=([\d.]+),<([\d.]+)", read("requirements.txt"), re.M).groups()
    assert numbers(low) <= numbers(version) < numbers(high)


def test_the_files_that_it_needs_are_there(front) -> None:
    for name in (front["app_file"], "requirements.txt", "LICENSE"):
        assert (ROOT / name).is_file(), name


def test_a_space_is_not_told_what_it_brings_itself() -> None:
    lines = read("requirements.txt").splitlines()
    assert not [line for line in lines if re.match(r"\s*(spaces\b|-|git\+|https?:)", line)]


def test_the_pictures_of_the_readmes_exist() -> None:
    for name in ("README.md", "README.vi.md"):
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", read(name)):
            assert (ROOT / target).exists(), f"{name} names {target}, which is not there"


def test_checkpoints_are_small_and_readable_by_others() -> None:
    """A Space in Docker runs as another user, and the Hub wants large files elsewhere."""
    for path in (ROOT / "checkpoints").glob("*/*"):
        if path.is_file():
            assert path.stat().st_size < LARGEST, path
            assert path.stat().st_mode & stat.S_IROTH, path


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
