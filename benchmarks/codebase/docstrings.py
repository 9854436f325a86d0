"""Docstrings: which public names have one, and whether it gives sections, shapes and errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks.codebase.sources import Definition, Figure, Function, Source, definitions

SECTION = re.compile(r"^\s*(Args|Returns|Raises|Yields|Attributes):\s*$", re.MULTILINE)
ARRAYS = {"Float32", "Float64", "UInt8", "Int", "Int16", "Bool", "Complex", "Tensor"}
ARRAYS |= {"NDArray", "ndarray"}
RECORDS = {"NamedTuple", "TypedDict"}
SHAPE = re.compile(
    r"(?<!\w)\[(?![-0])[\w .,+*/()…-]+\](?!\()"  # [N, 3] or [F, n // 2 + 1]; not [0, 1], not a link
    r"|\bscalars?\b|(?<!mouth )(?<!lip )(?<!face )(?<!head )\bshape\b"
)


def _share(
    name: str, chosen: Sequence[Definition], fine: Callable[[Definition], bool], aim: float | None
) -> Figure:
    """The share in percent of the definitions that are fine; the details are the others."""
    wrong = [d.place for d in chosen if not fine(d)]
    share = 100 * (1 - len(wrong) / len(chosen)) if chosen else 100.0
    # Rounded down, so that 100 % always means all.
    value = int(share * 10) / 10
    return Figure(f"{name} (of {len(chosen)}), %", value, aim, at_least=True, details=wrong)


def _within(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a function's own body, without those of nested functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            yield from _within(ast.iter_child_nodes(node))


def returns_value(node: Function) -> bool:
    """True if a function returns or yields something other than None."""
    if node.returns is not None:
        return ast.unparse(node.returns) not in ("None", "NoReturn", "Never")
    inner = [*_within(node.body)]
    returned = [n.value for n in inner if isinstance(n, ast.Return) and n.value is not None]
    yields = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inner)
    return yields or any(ast.unparse(value) != "None" for value in returned)


def _class_has_sections(definition: Definition, node: ast.ClassDef) -> bool:
    """True if the class's docstring or that of __init__ explains its fields and parameters."""
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    is_record = bool(bases & RECORDS) or any("dataclass" in d for d in definition.decorators)
    needed, docstring = False, definition.docstring
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            is_field = "ClassVar" not in ast.unparse(part.annotation)
            needed |= is_record and is_field and not part.target.id.startswith("_")
        elif isinstance(part, Function) and part.name == "__init__":
            constructor = Definition(definition.source, part, part.name, in_class=True)
            needed |= bool(constructor.parameters)
            docstring += "\n" + constructor.docstring
    return not needed or bool(SECTION.search(docstring))


def has_sections(definition: Definition) -> bool:
    """Check whether a docstring has at least one of Google's sections, or needs none.

    Args:
        definition: A public function, method or class.

    Returns:
        False without a docstring. True if there is nothing to explain: no parameters, return value,
        fields or constructor parameters. Also true for commands, whose docstring is their help
        text, for properties, and for functions of one statement without parameters.
    """
    node = definition.node
    if not definition.docstring:
        return False
    if isinstance(node, ast.ClassDef):
        return _class_has_sections(definition, node)
    if SECTION.search(definition.docstring) or definition.is_command:
        return True
    if definition.parameters:
        return False
    is_property = any(d.rpartition(".")[2].endswith("property") for d in definition.decorators)
    return is_property or len(node.body) <= 2 or not returns_value(node)


def has_each_section(definition: Definition) -> bool:
    """Judge as has_sections, but with Args for parameters and Returns or Yields for a value."""
    node, sections = definition.node, {*SECTION.findall(definition.docstring)}
    if isinstance(node, ast.ClassDef) or not sections or definition.is_command:
        return has_sections(definition)
    has_args = "Args" in sections or not definition.parameters
    return has_args and (bool(sections & {"Returns", "Yields"}) or not returns_value(node))


def array_names(sources: Iterable[Source]) -> set[str]:
    """List the names that denote arrays in annotations, with the aliases of types.py."""
    names = {*ARRAYS}
    for source in sources:
        if source.module == "talkhead.types":
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Assign) and "NDArray" in ast.unparse(node.value):
                    names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return names


def takes_arrays(definition: Definition, names: set[str]) -> bool:
    """True if an annotation of the function's parameters or result mentions one of the names."""
    if isinstance(definition.node, ast.ClassDef):
        return False
    notes = [p.annotation for p in definition.parameters] + [definition.node.returns]
    words = {w for note in notes if note for w in re.findall(r"\w+", ast.unparse(note))}
    return bool(words & names)


def raised_errors(node: Function | ast.ClassDef) -> set[str]:
    """List the errors that a function raises by name in its own body.

    Args:
        node: The function; a class raises nothing.

    Returns:
        Names such as ValueError, without their modules. Exceptions that only end a program are not
        included.
    """
    names: set[str] = set()
    if isinstance(node, ast.ClassDef):
        return names
    for inner in _within(node.body):
        if isinstance(inner, ast.Raise) and inner.exc is not None:
            error = inner.exc.func if isinstance(inner.exc, ast.Call) else inner.exc
            names.add(ast.unparse(error).rpartition(".")[2])
    return {n for n in names if n[:1].isupper() and n not in ("Exit", "Abort", "SystemExit")}


def names_errors(definition: Definition) -> bool:
    """True if the docstring names every error that the function raises in its own body."""
    words = {*re.findall(r"\w+", definition.docstring)}
    return raised_errors(definition.node) <= words


def gives_shapes(definition: Definition) -> bool:
    """True if the docstring has a shape such as [N, 3], or the word scalar or shape."""
    return bool(SHAPE.search(definition.docstring))


def docstring_figures(packages: Sequence[Source]) -> list[Figure]:
    """Measure the docstrings of the packages.

    Args:
        packages: Their Python files.

    Returns:
        Shares in percent. The details of each are the definitions that do not meet the criterion.
    """
    found = definitions(packages)
    public = [d for d in found if d.is_public]
    names = array_names(packages)
    arrays = [d for d in found if takes_arrays(d, names)]
    raising = [d for d in public if not d.is_command and raised_errors(d.node)]
    public_arrays = [d for d in arrays if d.is_public]
    return [
        _share("public names with a docstring", public, lambda d: bool(d.docstring), 95),
        _share("public names with sections where needed", public, has_sections, 95),
        _share("the same, with each section needed", public, has_each_section, None),
        _share("functions of arrays that give shapes", arrays, gives_shapes, 85),
        _share("the same, public functions alone", public_arrays, gives_shapes, None),
        _share("public functions that name what they raise", raising, names_errors, 100),
    ]
