"""The layout holds: imports go down only, `import genkit` is light, nothing dangerous is called.

Every file is parsed, not imported, so an import inside a function counts like any other.
"""

import ast
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for top in ("genkit", "apps") for path in (ROOT / top).rglob("*.py"))
FILES += sorted(ROOT.glob("app.py"))

# Layer by layer, and inside a layer in the order of the design: a module imports what stands
# above it. A line is a module, or a package whose files are one unit.
ORDER = """
genkit.store genkit.model genkit.distributions genkit.interpolation genkit.runtime
genkit.data.picturebook genkit.data.points genkit.data.folder genkit.data genkit.sheet

genkit.nn.layers genkit.nn.attention genkit.nn.embedding genkit.nn.convnet genkit.nn.unet
genkit.nn.transformer genkit.nn.bijection genkit.nn.quantize genkit.nn
genkit.diffusion.curve genkit.diffusion.schedule genkit.diffusion.terminal
genkit.diffusion.denoise genkit.diffusion.exchange genkit.diffusion.grid
genkit.diffusion.trajectory genkit.diffusion.multistep genkit.diffusion.sample
genkit.diffusion.variance genkit.diffusion.guide genkit.diffusion.likelihood
genkit.diffusion.invert genkit.diffusion.estimate genkit.diffusion

genkit.models.classifier genkit.models.autoencoder genkit.models.vae genkit.models.hvae
genkit.models.gan genkit.models.flow genkit.models.autoregressive
genkit.models.text genkit.models.reader genkit.models.encoders genkit.models.segmenter
genkit.models.vqvae genkit.models.dalle
genkit.models.diffusion genkit.models.latent genkit.models.controlnet genkit.models
genkit.objectives

genkit.hub genkit genkit.bridge genkit.coding genkit.frechet genkit.quality genkit.pixels
genkit.families genkit.probes genkit.spaces
genkit.fidelity genkit.adherence genkit.students genkit.evaluate
genkit.optimizer genkit.recipe genkit.cost genkit.train genkit.publish

genkit.asked genkit.generate genkit.drawing

genkit.recipes genkit.doctor genkit.cli genkit.__main__
""".split()

# Where a module is found by its name: checkpoints name their class, `train` and `publish` name a
# recipe, the command line starts the pages, and these are found by the name in their address.
BY_NAME = {"genkit.model", "genkit.train", "genkit.publish", "genkit.cli", "apps"}

OPTIONAL = {"spaces", "tensorboard"}  # used where present, never needed
DISTRIBUTION = {"PIL": "pillow", "huggingface_hub": "huggingface-hub"}  # where the names differ
DISTRIBUTION |= {"sklearn": "scikit-learn", "cv2": "opencv-python-headless"}
DISTRIBUTION |= {"starlette": "gradio"}  # Gradio is an application of it
HEAVY = {"gradio", "diffusers", "transformers", "accelerate", "matplotlib", "plotly", "tyro"}
PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SHELLS = {"subprocess", "pty", "commands"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"torch.load", "gr.load", "gradio.load", "gr.LoginButton", "os.system", "os.popen"}
CALLS |= {"torch.hub.load", "torch.jit.load"}
KEYWORDS = {"trust_remote_code", "allow_pickle", "shell"}


def name_of(path: Path) -> str:
    """genkit/nn/layers.py → genkit.nn.layers; a package's __init__.py → the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import; `from a import b` is a.b where that is a module."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                whole = inner in MODULES or base == "importlib"
                yield node.lineno, inner if whole else base


def unit(module: str) -> str:
    """The entry of ORDER that a module belongs to: itself or the nearest package."""
    if module in ORDER:
        return module
    parent = module.rpartition(".")[0]
    if parent in ("genkit", "genkit.nn", "genkit.diffusion", "genkit.models", ""):
        raise AssertionError(f"{module} has no place in ORDER: put it where the design has it")
    return unit(parent)


def dotted(node: ast.expr) -> str:
    """a.b.c of an attribute chain; empty where it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def found(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_go_down_only():
    wrong = []
    for path in FILES:
        here = name_of(path)
        if here.split(".")[0] != "genkit":
            continue
        for line, target in imports(path):
            top = target.split(".")[0]
            if top in ("apps", "app", "tests", "benchmarks"):
                wrong.append(f"{found(path, line)}: genkit never imports {top}")
            elif top == "genkit" and unit(target) != unit(here):
                if ORDER.index(unit(target)) > ORDER.index(unit(here)):
                    wrong.append(f"{found(path, line)}: {here} imports {target}, above it")
    assert not wrong, "\n".join(wrong)


def test_names_are_resolved_only_where_the_design_says():
    for path in FILES:
        uses = {target for _, target in imports(path) if target.split(".")[0] == "importlib"}
        uses -= {"importlib.metadata", "importlib.resources", "importlib.util"}
        assert not uses or owner(path) in BY_NAME, f"{path} imports modules by name"


def owner(path: Path) -> str:
    name = name_of(path)
    return unit(name) if name.startswith("genkit") else name.split(".")[0]


def test_every_genkit_import_exists():
    wrong = [
        f"{found(path, line)}: there is no module {target}"
        for path in FILES
        for line, target in imports(path)
        if target.split(".")[0] in ("genkit", "apps") and target not in MODULES
    ]
    assert not wrong, "\n".join(wrong)


def test_requirements_name_every_package_that_is_imported():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    listed = set(re.findall(r"^[A-Za-z0-9-]+", text, re.MULTILINE))
    known = set(sys.stdlib_module_names) | {"genkit", "apps"} | OPTIONAL
    used = {target.split(".")[0] for path in FILES for _, target in imports(path)} - known
    assert {DISTRIBUTION.get(name, name) for name in used} <= listed


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_ranges_without_an_index(name):
    """A Space brings its own packages and index: an exact pin or a host breaks its resolution."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        assert not re.search(r"://|index|find-links|==|@", line.partition("#")[0]), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous(path):
    """No pickle, no code from strings or the Hub, no shell."""
    wrong = []
    for line, target in imports(path):
        if target.split(".")[0] in PICKLES | SHELLS:
            wrong.append(f"{found(path, line)}: imports {target}")
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in BUILTINS | CALLS or name.startswith(("os.exec", "os.spawn")):
            wrong.append(f"{found(path, node.lineno)}: calls {name}")
        for keyword in node.keywords:
            off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in KEYWORDS and not off:
                wrong.append(f"{found(path, node.lineno)}: {keyword.arg} is set")
    assert not wrong, "\n".join(wrong)


def code_lines(path: Path) -> int:
    """Lines with code on them: neither blank, nor comment, nor documentation."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
    silent |= {tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in silent:
                lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_size_and_form(path):
    """Files ≤ 400 lines of code, functions ≤ 40 without docstring, ≤ 12 parameters, `__all__`."""
    module, wrong = tree(path), []
    lines = code_lines(path)
    if lines > 400:
        wrong.append(f"{found(path, 1)}: {lines} lines of code")
    if not ast.get_docstring(module):
        wrong.append(f"{found(path, 1)}: no docstring")
    bound = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    if "__all__" not in bound and path.name != "app.py":
        wrong.append(f"{found(path, 1)}: no __all__")
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef):
            continue
        documented = ast.get_docstring(node) is not None
        first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
        length = (node.end_lineno or 0) - first.lineno + 2
        count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
        if length > 40:
            wrong.append(f"{found(path, node.lineno)}: {node.name} has {length} lines")
        if count > 12 + (bool(node.args.args) and node.args.args[0].arg in ("self", "cls")):
            wrong.append(f"{found(path, node.lineno)}: {node.name} has {count} parameters")
    assert not wrong, "\n".join(wrong)


def fresh(code: str) -> str:
    """Standard output of a new interpreter."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_genkit_is_light():
    code = (
        "import time, torch, sys; start = time.perf_counter(); import genkit; "
        "print(time.perf_counter() - start, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    seconds = []
    for _ in range(3):  # the best of three: a busy neighbour must not fail this
        took, *loaded = fresh(code).split()
        assert not HEAVY & set(loaded)
        seconds.append(float(took))
        if seconds[-1] < 0.3:
            break
    assert min(seconds) < 0.3


def test_core_modules_are_light():
    """What the command line imports leaves Gradio and its kin to the functions that need them."""
    core = [f"genkit.{name}" for name in ("cli", "hub", "evaluate", "train", "generate")]
    code = f"import sys, {', '.join(core)}; print(*{{n.split('.')[0] for n in sys.modules}})"
    assert not HEAVY & set(fresh(code).split())
