"""Structure of the code: packages, direction of imports, lengths, unsafe calls."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[1]
STAGES = ("preprocess", "encoder", "renderers", "app", "weights")
LEVELS = {"talkhead": 0, "weights": 1, "preprocess": 2, "encoder": 2, "renderers": 2, "app": 3}
FOLDERS = (*LEVELS, "tests", "benchmarks", "samples")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 100
# Modules that talkhead/__init__ imports for type checkers only.
LAZY_MODULES = {
    "talkhead.app.avatar",
    "talkhead.app.dub",
    "talkhead.app.evaluate",
    "talkhead.app.fit",
    "talkhead.app.live.frames",
    "talkhead.app.live.options",
    "talkhead.app.live.session",
    "talkhead.app.evaluation.options",
    "talkhead.app.options",
    "talkhead.app.request",
    "talkhead.app.speak",
    "talkhead.app.text_to_speech",
    "talkhead.app.web_export.export",
    "talkhead.encoder.registry",
}
FORBIDDEN_CALLS = {"os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load", "eval"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = [*path.relative_to(ROOT).with_suffix("").parts]
    if parts[0] != "talkhead":
        parts.insert(0, "talkhead")
    return ".".join(parts).removesuffix(".__init__")


def setup_packages(root: Path) -> dict[str, str]:
    """Return the packages that setup.py finds in a checkout, with their folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        settings = runpy.run_path(str(ROOT / "setup.py"))
    folders = settings["FOLDERS"]
    assert len(settings["PACKAGES"]) == len({*settings["PACKAGES"]})
    found = {}
    for package in settings["PACKAGES"]:
        top = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
        found[package] = folders[top] + package.removeprefix(top).replace(".", "/")
    return found


def test_setup_finds_exactly_the_packages_of_the_tree() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in sources(*LEVELS)}
    folders.add("samples")  # because of the sample line
    assert [f for f in sorted(folders) if not (ROOT / f / "__init__.py").is_file()] == []
    found = {module_name(ROOT / folder / "__init__.py"): folder for folder in folders}
    assert setup_packages(ROOT) == found


def test_setup_finds_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "renderers" / "new" / "inner"
    folder.mkdir(parents=True)
    for path in (folder, folder.parent, folder.parent.parent):
        (path / "__init__.py").touch()
    found = setup_packages(tmp_path)
    assert found["talkhead.renderers.new"] == "renderers/new"
    assert found["talkhead.renderers.new.inner"] == "renderers/new/inner"


NOT_PACKED = {"__pycache__", "README.md", "module"}
"""Folders and files next to the code that are not part of a wheel."""


def test_pyproject_packs_all_data_files() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    package_folders = setup_packages(ROOT)
    found = {
        path.relative_to(ROOT)
        for folder in LEVELS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".py" and not NOT_PACKED & {*path.parts}
    }
    covered = {
        path.relative_to(ROOT)
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package_folders[package]).glob(pattern)
    }
    assert sorted(found - covered) == []
    assert Path("talkhead/py.typed") in covered


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the talkhead modules that a file imports anywhere; relative imports as "."."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = ["."]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("talkhead", ""))


def stage_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in STAGES else "talkhead"


def wrong_imports(module: str, code: str) -> list[str]:
    """List imports of later or parallel stages, and relative imports."""
    tree = ast.parse(code)
    names = Counter(imported(tree))
    for node in ast.walk(tree):
        is_lazy = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if module == "talkhead" and is_lazy:
            seen = [name for part in node.body for name in imported(part)]
            names -= Counter(n for n in seen if n.rpartition(".")[0] in LAZY_MODULES)
    own, wrong = stage_of(module), []
    for name in names:
        other = stage_of(name)
        if name == "." or (other != own and LEVELS[other] >= LEVELS[own]):
            wrong.append(f"{module} imports {name}")
    return sorted(wrong)


def test_imports_have_one_direction() -> None:
    wrong = [w for path in sources(*LEVELS) for w in wrong_imports(module_name(path), read(path))]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "code", "is_wrong"),
    [
        ("talkhead.renderers.base", "from talkhead.types import Rendering", False),
        ("talkhead.renderers.base", "import talkhead.renderers.warp.model", False),
        ("talkhead.renderers.base", "from talkhead.weights import resolve", False),
        ("talkhead.renderers.base", "from talkhead.preprocess import pipeline", True),
        ("talkhead.renderers.base", "def f():\n    from talkhead import encoder", True),
        ("talkhead.renderers.base", "from . import fit", True),
        ("talkhead.weights", "import talkhead.encoder.mel", True),
        ("talkhead.dataset", "from talkhead.app.fit import fit", True),
        ("talkhead", "if TYPE_CHECKING:\n    from talkhead.app.fit import fit", False),
        ("talkhead", "if TYPE_CHECKING:\n    from talkhead.app.resume import Line", True),
        ("talkhead", "if not TYPE_CHECKING:\n    from talkhead.app.fit import fit", True),
        ("talkhead", "def __getattr__(n):\n    from talkhead.app.fit import fit", True),
        ("talkhead", "from talkhead.app.fit import fit", True),
        ("talkhead.app.fit", "from talkhead.encoder.base import load_encoder", False),
    ],
)
def test_wrong_imports_are_found(module: str, code: str, is_wrong: bool) -> None:
    assert bool(wrong_imports(module, code)) is is_wrong


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_files_and_functions_are_short() -> None:
    long = []
    for path in sources(*FOLDERS):
        code = read(path)
        if code.count("\n") > MAX_FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {code.count(chr(10))} lines")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if n_lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {n_lines} lines")
    assert long == []


def unsafe_calls(code: str) -> list[str]:
    """List calls that run a shell or execute code from data."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        keywords = {ast.unparse(k) for k in node.keywords}
        words = keywords & {"shell=True", "allow_pickle=True"}
        name = ast.unparse(node.func)
        if name == "torch.load" and "weights_only=True" in keywords:
            continue  # loads tensors and plain values only
        if words or name in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: {name}({', '.join(sorted(words))})")
    return found


def test_nothing_runs_a_shell_or_loads_pickles() -> None:
    found = {path.relative_to(ROOT): unsafe_calls(read(path)) for path in sources(*FOLDERS)}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run('ls', shell=True)",
        "numpy.load('a.npy', allow_pickle=True)",
        "torch.load('a.pt')",
        "os.system('ls')",
        "pickle.load(f)",
    ],
)
def test_unsafe_calls_are_found(code: str) -> None:
    assert len(unsafe_calls(code)) == 1
    assert unsafe_calls("torch.load('a.pt', weights_only=True)") == []


WITHOUT_MEDIAPIPE = """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mediapipe":
            raise ImportError("mediapipe is blocked")

sys.meta_path.insert(0, Block())
for package in ("talkhead.renderers", "talkhead.encoder"):
    loaded = importlib.import_module(package)
    for module in pkgutil.walk_packages(loaded.__path__, package + "."):
        importlib.import_module(module.name)
        print(module.name)
"""


def test_renderers_and_encoders_import_without_mediapipe() -> None:
    command = [sys.executable, "-c", WITHOUT_MEDIAPIPE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "talkhead.renderers.gaussian.rasterizer" in done.stdout


PRINTERS = {"app/cli/console.py", "talkhead/progress.py"}


def prints(code: str) -> bool:
    """Check whether code calls print()."""
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return any(isinstance(call, ast.Name) and call.id == "print" for call in calls)


def test_only_escaping_modules_print() -> None:
    """Only app/cli/console.py and talkhead/progress.py print: they escape text from files."""
    assert prints("def f():\n    print(1)") and not prints("print_line(1)")
    paths = [
        p for p in sources("talkhead", "preprocess", "renderers", "app") if prints(p.read_text())
    ]
    assert {path.relative_to(ROOT).as_posix() for path in paths} <= PRINTERS
