"""The README: its length, and which of its shell commands a test or a CI step runs."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.codebase.sources import Figure, Source

MAX_LINES = 120
BLOCK = re.compile(
    r"^ *```(?P<language>\w*)[^\n]*\n(?P<fenced>.*?)^ *```"
    r"|(?:(?<=\n\n)|\A)(?P<indented>(?:(?: {4}|\t)[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)
SHELLS = {"", "sh", "bash", "shell", "console"}
PROGRAMS = {"talkhead", "make", "pip", "python", "python3", "git", "curl", "docker", "uv", "ffmpeg"}
SEPARATORS = {"&&", "||", ";", "|"}
SET_UP = ("git clone", "cd ", ". ", "source ", "export ")
"""Beginnings of commands that need no test. Those that name PyTorch's package index need none
either.
"""
TORCH_INDEX = "download.pytorch.org"
GROUPS = {"identities", "jobs"}
"""Commands of talkhead that have subcommands."""
FREE_VALUES = {"--identity", "--name", "--output", "-o", "--consent"}
SAME_OPTION = {"-o": "--output"}


def shell_blocks(text: str) -> Iterator[str]:
    """Find the code in a Markdown text that may be shell code.

    Args:
        text: The Markdown.

    Yields:
        Fenced blocks without a language or with a shell's name, and indented blocks.
    """
    for match in BLOCK.finditer(text):
        if (match["language"] or "") in SHELLS:
            yield match["fenced"] or match["indented"] or ""


def shell_commands(text: str) -> list[str]:
    """List the shell commands of a Markdown text, without comments, prompts and duplicates.

    Args:
        text: The Markdown.

    Returns:
        The commands in their order. A line counts if it begins with a program that users run.
    """
    found: dict[str, None] = {}
    for block in shell_blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if line.split(" ")[0] not in PROGRAMS:
                continue
            command: list[str] = []
            for word in [*shlex.split(line, comments=True), ";"]:
                if word not in SEPARATORS:
                    command.append(word)
                elif command:
                    found[" ".join(command)] = None
                    command = []
    return [*found]


def needs_test(command: str) -> bool:
    """True unless a command clones, changes the shell or installs PyTorch from its own index."""
    return not command.startswith(SET_UP) and TORCH_INDEX not in command


def _is_free(word: str) -> bool:
    """True for a value that a test may choose: a path or a number."""
    return bool(re.search(r"[./]|^-?\d", word))


def _mention(word: str) -> str:
    return rf"(?<![\w-]){re.escape(word)}(?![\w-])"


def command_patterns(command: str) -> list[re.Pattern[str]]:
    """Describe what a test or step that runs a command contains.

    Args:
        command: A command of the README.

    Returns:
        Patterns, all of which must be found: the program or talkhead's command, the options, and the
        values that are not paths, numbers or names. For make, the command itself.
    """
    words = command.split()
    program, rest = words[0], words[1:]
    patterns = [_mention(program)]
    if program == "make":
        patterns, rest = [_mention(" ".join(words[:2]))], []
    elif program == "talkhead":
        is_group = rest[0] in GROUPS and len(rest) > 1
        name = re.escape(rest[0])
        patterns = [rf"[\"']{name}[\"' ]|\btalkhead {name}(?![\w-])"]
        patterns += [_mention(rest[1])] if is_group else []
        rest = rest[1 + is_group :]
    positional_free, previous = program == "talkhead", ""
    for word in rest:
        option = word.split("=")[0]
        if word.startswith("-"):
            names = {option, SAME_OPTION.get(option, option)}
            patterns.append("|".join(map(_mention, sorted(names))))
        elif previous in FREE_VALUES or _is_free(word):
            pass
        elif previous.startswith("-") or not positional_free:
            patterns.append(_mention(word))
        previous = word
    return [re.compile(pattern) for pattern in patterns]


def test_units(root: Path) -> dict[str, str]:
    """Cut the tests into functions and other statements.

    Args:
        root: The checkout.

    Returns:
        The code of each by the name that pytest prints: tests first, then helpers, fixtures and
        constants. Classes are included only if they contain tests.
    """
    tests: dict[str, str] = {}
    others: dict[str, str] = {}
    for path in sorted((root / "tests").rglob("*.py")):
        text = path.read_text("utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            decorators = getattr(node, "decorator_list", [])
            start = min([node.lineno, *(d.lineno for d in decorators)])
            name = getattr(node, "name", f"line {node.lineno}")
            is_test = name.lower().startswith("test")
            if is_test or not isinstance(node, ast.ClassDef):
                code = "\n".join(lines[start - 1 : node.end_lineno])
                place = f"{path.relative_to(root).as_posix()}::{name}"
                (tests if is_test else others)[place] = code
    return {**tests, **others}


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    for _ in range(len(variables)):
        text = re.sub(r"\$[({](\w+)[)}]", lambda m: variables.get(m[1], ""), text)
    return text


def ci_units(root: Path) -> dict[str, str]:
    """List the steps of .ci/run and the lines of the Makefile's targets that it calls.

    Args:
        root: The checkout.

    Returns:
        The code of each by its location, with the Makefile's variables substituted.
    """
    ci, makefile = root / ".ci/run", root / "Makefile"
    units = {}
    if ci.is_file():
        steps = enumerate(ci.read_text("utf-8").splitlines(), 1)
        units = {f".ci/run:{i}": s for i, s in steps if s.strip() and not s.startswith("#")}
    if not makefile.is_file():
        return units
    text = makefile.read_text("utf-8").replace("\\\n", " ")
    variables = {n: v for n, v in re.findall(r"^(\w+) *[:?]?= *(.*)$", text, re.MULTILINE)}
    variables["PYTHON"] = "python3"  # what the Makefile looks for
    rules = re.findall(r"^([\w$()./-]+):(?!=)([^#\n]*).*\n((?:\t.*\n)*)", text, re.MULTILINE)
    targets = {_expanded(t, variables): (_expanded(needed, variables), r) for t, needed, r in rules}
    ahead = [t for step in units.values() for t in re.findall(r"\bmake ([\w-]+)", step)]
    called: set[str] = set()
    while ahead:
        target = ahead.pop()
        if target in targets and target not in called:
            called.add(target)
            needed, recipe = targets[target]
            ahead += needed.split()
            for i, line in enumerate(recipe.splitlines(), 1):
                units[f"Makefile: {target}, line {i}"] = _expanded(line, variables)
    return units


def covering_unit(command: str, units: Mapping[str, str]) -> str | None:
    """Find the first test or step that mentions a command; None if there is none."""
    patterns = command_patterns(command)
    for name, code in units.items():
        if all(pattern.search(code) for pattern in patterns):
            return name
    return None


def readme_figures(root: Path, sources: Iterable[Source]) -> list[Figure]:
    """Measure the README.

    Args:
        root: The checkout.
        sources: All its files.

    Returns:
        The number of lines, and the number of commands that no test or step runs, with all commands
        as details.
    """
    readme = next((s for s in sources if s.path == "README.md"), Source("README.md", ""))
    units = {**ci_units(root), **test_units(root)}
    commands: Sequence[str] = [c for c in shell_commands(readme.text) if needs_test(c)]
    found = {command: covering_unit(command, units) for command in commands}
    details = [f"{command}  <- {unit or 'NOTHING'}" for command, unit in found.items()]
    n_missing = sum(unit is None for unit in found.values())
    name = f"README: commands that no test or CI step mentions (of {len(found)})"
    return [
        Figure("README: lines", readme.n_lines, MAX_LINES),
        Figure(name, n_missing, 0, details=details, listed=True),
    ]
