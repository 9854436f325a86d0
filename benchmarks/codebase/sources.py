"""The files of a checkout and the definitions in them, read without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGES = ("talkhead", "preprocess", "encoder", "renderers", "app", "weights")
FORMER_NAMES = {"core": "talkhead"}
"""Folders of earlier versions and the package that each of them contained."""
SKIPPED = {"build", "dist", "demo", "__pycache__"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figure:
    """One figure of a checkout and what it should be.

    Attributes:
        name: What is measured, with its unit.
        value: The figure; None where it was not measured.
        aim: The value to be reached; None for a figure without a target.
        at_least: True if the aim is a lower limit, else it is an upper one.
        details: What the figure counts, one entry per line.
        listed: False if the details are only printed on request.
    """

    name: str
    value: float | None
    aim: float | None = None
    at_least: bool = False
    details: list[str] = field(default_factory=list)
    listed: bool = False

    @property
    def met(self) -> bool | None:
        """True if the aim is reached; None without a value or an aim."""
        if self.value is None or self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim


@dataclass(frozen=True)
class Source:
    """A file of Python or Markdown.

    Attributes:
        path: Relative to the root of the checkout, with "/".
        text: Its content.
    """

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text)

    @property
    def n_lines(self) -> int:
        """The number of lines."""
        return len(self.text.splitlines())

    @property
    def package(self) -> str:
        """The first folder of the path, under its present name."""
        first = self.path.split("/")[0]
        return FORMER_NAMES.get(first, first)

    @property
    def module(self) -> str:
        """The name under which the file is imported, such as talkhead.app.fit."""
        parts = [self.package, *self.path.removesuffix(".py").split("/")[1:]]
        if parts[0] != "talkhead":
            parts.insert(0, "talkhead")
        return ".".join(parts).removesuffix(".__init__")


@dataclass(frozen=True)
class Definition:
    """A function, method or class that is not nested in a function.

    Attributes:
        source: The file it is in.
        node: Its syntax tree.
        name: Its name, qualified with the names of the enclosing classes.
        in_class: True for methods and nested classes.
    """

    source: Source
    node: Function | ast.ClassDef
    name: str
    in_class: bool

    @property
    def place(self) -> str:
        """The path, line and name."""
        return f"{self.source.path}:{self.node.lineno} {self.name}"

    @property
    def docstring(self) -> str:
        """The docstring; empty where there is none."""
        return ast.get_docstring(self.node) or ""

    @property
    def is_public(self) -> bool:
        """True if no part of the name or of the module's begins with an underscore."""
        parts = f"{self.source.module}.{self.name}".split(".")
        return not any(part.startswith("_") for part in parts if part != "__main__")

    @property
    def decorators(self) -> list[str]:
        """The decorators as code, without arguments."""
        called = [d.func if isinstance(d, ast.Call) else d for d in self.node.decorator_list]
        return [ast.unparse(decorator) for decorator in called]

    @property
    def parameters(self) -> list[ast.arg]:
        """The parameters of a function, without self or cls; none for a class."""
        if isinstance(self.node, ast.ClassDef):
            return []
        given = self.node.args
        positional = [*given.posonlyargs, *given.args]
        if self.in_class and "staticmethod" not in self.decorators:
            positional = positional[1:]
        variable = [a for a in (given.vararg, given.kwarg) if a is not None]
        return [*positional, *given.kwonlyargs, *variable]

    @property
    def is_command(self) -> bool:
        """True for Typer commands and FastAPI routes, whose docstrings are help texts."""
        if self.source.path.startswith("app/server"):
            return any(d.startswith("router.") for d in self.decorators)
        if not self.source.path.startswith("app/cli"):
            return False
        made = any(d.endswith((".command", ".callback")) for d in self.decorators)
        notes = " ".join(ast.unparse(p.annotation) for p in self.parameters if p.annotation)
        return made or "typer." in notes or "Option" in notes or "Argument" in notes


def _definitions(
    source: Source, body: Iterable[ast.stmt], outer: str, in_class: bool
) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            yield Definition(source, node, f"{outer}{node.name}", in_class)
            if isinstance(node, ast.ClassDef):
                yield from _definitions(source, node.body, f"{outer}{node.name}.", True)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            parts = [p for p in ast.iter_child_nodes(node) if isinstance(p, ast.stmt)]
            yield from _definitions(source, parts, outer, in_class)


def definitions(sources: Iterable[Source]) -> list[Definition]:
    """List the functions, methods and classes of Python files.

    Args:
        sources: The files.

    Returns:
        All that are not nested in a function, except overloads and property setters.
    """
    found = []
    for source in sources:
        for definition in _definitions(source, source.tree.body, "", False):
            last = {name.rpartition(".")[2] for name in definition.decorators}
            if not last & {"overload", "setter", "deleter"}:
                found.append(definition)
    return found


def read_sources(root: Path) -> list[Source]:
    """Read all Python and Markdown of a checkout.

    Args:
        root: Its folder.

    Returns:
        The files, sorted by path, without hidden folders and build outputs.
    """
    found = []
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.md")]):
        relative = path.relative_to(root)
        folders = relative.parts[:-1]
        hidden = any(f.startswith(".") or f.endswith(".egg-info") for f in folders)
        if not hidden and not SKIPPED & {*folders}:
            found.append(Source(relative.as_posix(), path.read_text("utf-8")))
    return found


def package_sources(sources: Iterable[Source]) -> list[Source]:
    """Choose the Python files of the packages that are imported as talkhead."""
    return [s for s in sources if s.path.endswith(".py") and s.package in PACKAGES]
