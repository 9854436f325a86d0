"""Each figure of a checkout, on synthetic sources with known results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.codebase.__main__ import format_figure, measure
from benchmarks.codebase.docstrings import (
    docstring_figures,
    gives_shapes,
    has_each_section,
    has_sections,
    names_errors,
    raised_errors,
    returns_value,
    takes_arrays,
)
from benchmarks.codebase.readme import (
    ci_units,
    covering_unit,
    needs_test,
    readme_figures,
    shell_commands,
)
from benchmarks.codebase.sources import Definition, Figure, Function, Source, definitions
from benchmarks.codebase.structure import (
    duplicated_runs,
    import_cycles,
    many_parameters,
    structure_figures,
)
from benchmarks.codebase.tracing import traced_files
from benchmarks.codebase.words import prose, word_figures


def source(code: str, path: str = "app/a.py") -> Source:
    return Source(path, dedent(code))


def defined(code: str, path: str = "app/a.py") -> Definition:
    """The last definition of some code."""
    return definitions([source(code, path)])[-1]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text), encoding="utf-8")


# ------------------------------------------------------------------------------ words


def test_words_are_counted_only_in_prose() -> None:
    code = source(
        '''
        """Tells what lies here; it goes
        on."""
        told = file.tell()  # Nobody hears `tell` or file.tell()
        text = f"{told} stands"
        ''',
        "app/a.py",
    )
    text = Source("docs/a.md", "Wholly anew.\n" * 5)
    figures = word_figures([code, text, Source("docs/experiments/a.md", "told\n")])
    n_lines = 5 + 5
    counted = [f.value for f in figures]
    assert counted == [1000 * n / n_lines for n in (1, 1, 3, 1, 10, 16)]
    assert figures[-1].met is False
    assert figures[-1].details == ["  10 docs/a.md", "   6 app/a.py"]
    assert "told" not in prose(code)


def test_plain_words_meet_the_aim() -> None:
    figure = word_figures([Source("README.md", "The layout of the retold earshot.\n")])[-1]
    assert figure.value == 0 and figure.met is True


# ------------------------------------------------------------------------------ docstrings


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): pass", False),
        ('def f():\n    """Do it."""\n    g()\n    h()', True),
        ('def f(a):\n    """Do it."""', False),
        ('def f(a):\n    """Do it.\n\n    Args:\n        a: A.\n    """', True),
        ('def f(a):\n    """Do it. Args: a."""', False),
        ('def f() -> int:\n    """The size."""\n    return 1', True),
        ('def f() -> int:\n    """The size."""\n    a = 1\n    return a', False),
        ('class C:\n    @property\n    def f(self) -> int:\n        """P."""\n        a = 1', True),
        ('class C:\n    def f(self):\n        """Do it."""\n        g()\n        h()', True),
        ('@dataclass\nclass C:\n    """A record."""\n    a: int', False),
        ('@dataclass\nclass C:\n    """A record."""\n    _a: int\n    B: ClassVar[int] = 1', True),
        (
            'class C(NamedTuple):\n    """R.\n\n    Attributes:\n        a: A.\n    """\n    a: int',
            True,
        ),
    ],
)
def test_which_docstrings_need_sections(code: str, expected: bool) -> None:
    assert has_sections(defined(code)) is expected


def test_constructors_need_sections() -> None:
    code = 'class C:\n    """A class."""\n    def __init__(self, a):\n        """Make it."""'
    explained = code.replace("Make it.", "Make it.\n\n        Args:\n            a: A.\n        ")
    found = [definitions([source(c)])[0] for c in (code, explained)]
    assert [has_sections(d) for d in found] == [False, True]


def test_each_section_is_required() -> None:
    half = defined('def f(a) -> int:\n    """F.\n\n    Returns:\n        It.\n    """')
    assert has_sections(half) and not has_each_section(half)
    assert has_each_section(
        defined('def f() -> int:\n    """F.\n\n    Yields:\n        It.\n    """')
    )


def test_commands_are_explained_by_their_options() -> None:
    code = 'def speak(audio: Annotated[Path, typer.Option("--audio")]) -> None:\n    """Speak."""'
    assert has_sections(defined(code, "app/cli/speak.py"))
    assert not has_sections(defined(code, "app/speak.py"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f():\n    return None", False),
        ("def f():\n    return 1", True),
        ("def f():\n    yield", True),
        ("def f():\n    def g():\n        return 1\n    return", False),
        ("def f() -> NoReturn: ...", False),
        ("def f() -> Iterator[int]: ...", True),
    ],
)
def test_functions_that_return_a_value(code: str, expected: bool) -> None:
    node = defined(code).node
    assert isinstance(node, Function) and returns_value(node) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Points [N, 3].", True),
        ("Levels [F, n_fft // 2 + 1].", True),
        ("The scalar product.", True),
        ("Values in [0, 1] or [-1, 1].", False),
        ("A list[int], see [the page](a.md).", False),
        ("The mouth shape.", False),
    ],
)
def test_texts_with_shapes(text: str, expected: bool) -> None:
    assert gives_shapes(defined(f'def f():\n    """{text}"""')) is expected


def test_functions_that_take_arrays() -> None:
    names = {"Float32"}
    assert takes_arrays(defined("def f(a: dict[str, Float32]): ..."), names)
    assert takes_arrays(defined("def f() -> Float32 | None: ..."), names)
    assert not takes_arrays(defined("def f(a: Float32Like) -> int: ..."), names)


def test_only_errors_of_the_function_itself_count() -> None:
    code = '''
    def f():
        """Raises MediaError."""
        def g():
            raise OSError
        if a:
            raise errors.MediaError("no") from b
        raise error
    '''
    found = defined(code)
    assert raised_errors(found.node) == {"MediaError"} and names_errors(found)
    assert not names_errors(defined(code.replace("Raises MediaError", "Raises TalkheadError")))


def test_shares_of_docstrings() -> None:
    types = source("Numbers = npt.NDArray[Any]", "core/types.py")
    code = source(
        '''
        def first(a: Numbers) -> None:
            """Do it."""
            raise ValueError
        def _hidden(a: Numbers): ...
        class Second:
            """A class."""
            def third(self): ...
            @overload
            def fourth(self): ...
            def __len__(self): ...
        if True:
            def fifth(a: Tensor):
                """Points [N, 3].

                Args:
                    a: It.
                """
        '''
    )
    figures = docstring_figures([types, code])
    assert [f.value for f in figures] == [75.0, 50.0, 50.0, 33.3, 50.0, 0.0]
    assert figures[0].details == ["app/a.py:8 Second.third"]
    assert not any(f.met for f in figures)


# ------------------------------------------------------------------------------ structure


def test_parameters_are_counted() -> None:
    many = ", ".join("abcdefghi")
    code = f"""
    def wrong({many}): ...
    def right({many[:-3]}): ...
    @numba.njit(cache=True)
    def kernel({many}): ...
    class C:
        def right(self, {many[:-3]}): ...
        def wrong(self, {many[:-3]}, *more): ...
    """
    command = f"@app.command()\ndef command({many}): ..."
    found = many_parameters([source(code), source(command, "app/cli/fit.py")])
    assert found == ["app/a.py:2 wrong: 9", "app/a.py:8 C.wrong: 9"]


def test_import_cycles_are_found() -> None:
    modules = {
        "core/__init__.py": "",
        "core/a.py": "from talkhead import b",
        "core/b.py": "import talkhead.encoder.c",
        "encoder/c.py": "try:\n    from talkhead.a import f\nexcept ImportError: ...",
        "encoder/d.py": "if TYPE_CHECKING:\n    from . import e",
        "encoder/e.py": "from . import d\ndef f():\n    from talkhead.encoder import e",
    }
    sources = [Source(path, code) for path, code in modules.items()]
    cycle = ["talkhead.a", "talkhead.b", "talkhead.encoder.c"]
    assert import_cycles(sources) == [cycle]
    modules["encoder/d.py"] = "from . import e"
    sources = [Source(path, code) for path, code in modules.items()]
    assert import_cycles(sources) == [cycle, ["talkhead.encoder.d", "talkhead.encoder.e"]]


def calls(n: int, name: str = "a") -> str:
    """Code of 5 n tokens."""
    return "".join(f"f{i}({name}, 'text')\n" for i in range(n))


def test_duplicated_code_is_found() -> None:
    long, short = calls(9), calls(8)
    first = source(f"x = 1\n{long}")
    copy = source(f"# A comment.\n{long.replace('text', 'other')}", "app/b.py")
    assert duplicated_runs([first, copy]) == ["app/b.py:2 as app/a.py:2"]
    assert duplicated_runs([source(short), source(short, "app/b.py")]) == []
    assert duplicated_runs([first, source(calls(9, "other"), "app/b.py")]) == []
    assert duplicated_runs([source(f"{long}y = 1\n{long}")]) == ["app/a.py:11 as app/a.py:1"]


def test_tables_and_imports_are_not_duplicated_code() -> None:
    code = f"from a import {', '.join(f'b{i}' for i in range(60))}\nTABLE = ({'1, ' * 100})\n"
    assert duplicated_runs([source(code), source(code, "app/b.py")]) == []


def test_sizes() -> None:
    long, short = source("a\n" * 601), source("a\n" * 600, "app/cli/b.py")
    figures = {f.name: f for f in structure_figures([long, short], [long, short])}
    assert figures["files over 600 lines"].details == ["app/a.py: 601"]
    assert figures["files over 600 lines"].met is False
    assert figures["files directly in app/"].value == 1


# ------------------------------------------------------------------------------ README

README = """\
# talkhead

    talkhead fit --video a.mp4 --preset preview   # what's said
    person.mp4 -> head

```python
make = 1
```

```sh
git clone https://example.org/talkhead
python3 -m venv .venv && . .venv/bin/activate
pip install torch --index-url https://download.pytorch.org/whl/cpu
$ talkhead speak --audio a.wav \\
    -o a.mp4
make demo
```
"""
FIT, VENV, SPEAK = (
    "talkhead fit --video a.mp4 --preset preview",
    "python3 -m venv .venv",
    "talkhead speak --audio a.wav -o a.mp4",
)


def test_commands_of_the_readme() -> None:
    commands = shell_commands(README)
    assert [c for c in commands if needs_test(c)] == [FIT, VENV, SPEAK, "make demo"]
    assert len(commands) == 7


@pytest.mark.parametrize(
    ("command", "code", "covered"),
    [
        (FIT, 'run("fit", "--video", path, "--preset", "preview")', True),
        (FIT, 'words = "fit --video b.mov --preset preview".split()', True),
        (FIT, 'run("fit", "--video", path, "--preset", "high")', False),
        (FIT, 'run("evaluate", "--video", path, "--preset", "preview")', False),
        (SPEAK, "talkhead speak --audio b.wav --output c", True),
        (SPEAK, "talkhead speak --audio b.wav", False),
        ("talkhead identities list", 'run("identities", "list")', True),
        ("talkhead identities list", 'run("identities", "show")', False),
        ("talkhead verify a.mp4", 'run("verify", path)', True),
        ("talkhead verify a.mp4", "setattr(verify, name)", False),
        ("make demo", "bare make demo", True),
        ("make demo", "bare make demo-short", False),
        ("pip install -c constraints.txt .", "python -m pip install -c constraints.txt -e .", True),
        ("pip install -c constraints.txt .", "python -m pip install .", False),
    ],
)
def test_code_that_covers_a_command(command: str, code: str, covered: bool) -> None:
    assert (covering_unit(command, {"unit": code}) == "unit") is covered


def test_a_readme_and_the_code_that_runs_it(tmp_path: Path) -> None:
    makefile = """\
    PYTHON ?= $(shell which python3)
    VENV ?= .venv
    demo: venv  ## set up and fit
    \t$(VENV)/bin/talkhead fit --video a.mp4 \\
    \t    --preset preview
    venv: $(VENV)/done
    $(VENV)/done:
    \t$(PYTHON) -m venv $(VENV)
    other:
    \ttalkhead speak --audio a.wav --output a.mp4
    """
    write(tmp_path, {"Makefile": makefile, ".ci/run": "# make other\nbare make demo\n"})
    assert [*ci_units(tmp_path)] == [
        ".ci/run:2",
        "Makefile: demo, line 1",
        "Makefile: .venv/done, line 1",
    ]
    lines, commands = readme_figures(tmp_path, [Source("README.md", README)])
    assert lines.value == README.count("\n") and lines.met is True
    assert commands.value == 1 and commands.met is False
    assert f"{SPEAK}  <- NOTHING" in commands.details
    write(tmp_path, {"tests/test_a.py": 'def test_it():\n    run("speak", "--audio", "-o")'})
    _, commands = readme_figures(tmp_path, [Source("README.md", README)])
    assert commands.value == 0
    assert f"{SPEAK}  <- tests/test_a.py::test_it" in commands.details


# ------------------------------------------------------------------------------ all of it


CHECKOUT = {
    "pyproject.toml": '[project.scripts]\ntalkhead = "talkhead.app.cli:main"\n',
    "core/__init__.py": "",
    "core/used.py": "def used(): ...",
    "app/__init__.py": "",
    "app/imported.py": "def helper(): ...\nclass C: ...\nhelper()",
    "app/threaded.py": "def work(): ...",
    "app/spawned.py": "def work(): ...\nif __name__ == '__main__':\n    work()",
    "app/unused.py": "def work(): ...",
    "app/cli.py": """
        import subprocess, sys, threading
        import talkhead.app.imported, talkhead.app.unused
        from talkhead.app.threaded import work
        from talkhead.used import used
        def main():
            used()
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            child = "import talkhead.app.spawned as s; s.work()"
            subprocess.run([sys.executable, "-c", child], check=True)
            sys.exit(sys.argv[1:] == ["fail"])
        """,
    ".venv/wrong.py": "told = 'told'",
}


def test_files_are_traced(tmp_path: Path) -> None:
    write(tmp_path, CHECKOUT)
    expected = ["app/cli.py", "app/spawned.py", "app/threaded.py", "core/used.py"]
    assert traced_files(tmp_path, []) == expected
    assert not [*tmp_path.rglob("__pycache__")]
    with pytest.raises(SystemExit, match="talkhead fail failed"):
        traced_files(tmp_path, ["fail"])


def test_a_whole_checkout(tmp_path: Path) -> None:
    write(tmp_path, CHECKOUT)
    figures = {figure.name: figure for figure in measure(tmp_path)}
    assert figures["files directly in app/"].value == 6
    assert figures["public names with a docstring (of 7), %"].value == 0
    assert figures["files on the path of talkhead speak --audio"].value is None
    assert figures["files on the path of talkhead speak --audio"].met is None
    assert figures["words per 1000 lines: tell"].value == 0
    command = [sys.executable, "-m", "benchmarks.codebase", "--root", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == [*figures]
    assert [row["met"] for row in rows] == [figure.met for figure in figures.values()]


def test_lines_of_figures() -> None:
    figure = Figure("share, %", 94.9, 95, at_least=True, details=["a.py"])
    line = format_figure(figure, with_details=False)
    assert " ".join(line.split()) == "94.9 aim ≥ 95 MISSED share, %"
    assert format_figure(figure, with_details=True).splitlines()[1].strip() == "a.py"
    assert "not run" in format_figure(Figure("n", None, 1), with_details=False)
