"""Sizes, parameters, import cycles and duplicated code."""

from __future__ import annotations

import ast
import io
import token
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from benchmarks.codebase.sources import Figure, Function, Source, definitions

MAX_PARAMETERS = 8
MAX_FILE_LINES = 600
MAX_APP_FILES = 15
RUN_LENGTH = 50
"""Number of equal consecutive tokens from which code counts as duplicated."""
STATEMENT_ENDS = {token.NEWLINE, token.INDENT, token.DEDENT, token.ENDMARKER}
F_START, F_END = (getattr(token, f"FSTRING_{end}", -1) for end in ("START", "END"))
"""Token types of f-strings in Python 3.12 and newer; in older versions, an f-string is one token.
"""
FOR_CHECKERS = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
KERNELS = ("njit", "jit", "vectorize", "guvectorize")


def many_parameters(packages: Iterable[Source]) -> list[str]:
    """List the functions with too many parameters, apart from commands, routes and numba's kernels."""
    found = []
    for definition in definitions(packages):
        n = len(definition.parameters)
        is_kernel = any(d.rpartition(".")[2] in KERNELS for d in definition.decorators)
        if n > MAX_PARAMETERS and not is_kernel and not definition.is_command:
            found.append(f"{definition.place}: {n}")
    return found


def _imports(body: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) in FOR_CHECKERS:
            yield from _imports(node.orelse)
        elif not isinstance(node, Function | ast.Lambda):
            yield from _imports(ast.iter_child_nodes(node))


def import_graph(packages: Sequence[Source]) -> dict[str, set[str]]:
    """Find which modules import which at import time.

    Args:
        packages: All Python files of the packages.

    Returns:
        For each module, the modules of the same packages that it imports. `from a import b` is an
        import of a.b if that is a module, otherwise of a. Implicit imports of parent packages are
        not included.
    """
    modules = {source.module for source in packages}
    graph: dict[str, set[str]] = {}
    for source in packages:
        targets: set[str] = set()
        for node in _imports(source.tree.body):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
                continue
            base = node.module or ""
            if node.level:
                is_package = source.path.endswith("__init__.py")
                parts = source.module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                targets.add(inner if inner in modules else base)
        graph[source.module] = targets & modules
    return graph


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """The modules that importing a module loads; the module itself only if it is in a cycle."""
    found: set[str] = set()
    ahead = [*graph[start]]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += graph[module]
    return found


def import_cycles(packages: Sequence[Source]) -> list[list[str]]:
    """List the groups of modules that import one another, directly or through others."""
    graph = import_graph(packages)
    reachable = {module: _reachable(graph, module) for module in graph}
    cycles = set()
    for module, others in reachable.items():
        if module in others:
            cycles.add(tuple(sorted(m for m in others if module in reachable[m])))
    return [[*cycle] for cycle in sorted(cycles)]


def code_tokens(source: Source) -> list[tuple[str, int]]:
    """Reduce a file to the tokens that are compared.

    Args:
        source: A Python file.

    Returns:
        Tokens and their lines, without layout, comments, docstrings and imports. Names are kept, all
        strings and numbers are equal, and a sequence of them is one token, so that tables do not
        count as duplicated code.
    """
    found: list[tuple[str, int]] = []
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    for ends, group in groupby(tokens, lambda t: t.type in STATEMENT_ENDS):
        statement = [t for t in group if t.type not in (tokenize.NL, tokenize.COMMENT)]
        only_text = all(t.type == token.STRING for t in statement)
        if ends or only_text or statement[0].string in ("import", "from"):
            continue
        previous, depth = "", 0
        for t in statement:
            depth += (t.type == F_START) - (t.type == F_END)
            if depth:
                continue  # the end of an f-string represents all of it
            word = "literal" if t.type in (token.STRING, token.NUMBER, F_END) else t.string
            if previous != "literal" or word not in ("literal", ","):
                found.append((word, t.start[0]))
                previous = word
    return found


def duplicated_runs(packages: Iterable[Source]) -> list[str]:
    """Find duplicated code.

    Args:
        packages: Python files.

    Returns:
        A line for each copy after the first of at least RUN_LENGTH equal tokens: where it is, and
        where the first is.
    """
    first: dict[tuple[str, ...], tuple[str, int, int]] = {}
    found = []
    for source in packages:
        tokens = code_tokens(source)
        words = [word for word, _ in tokens]
        in_run = False
        for i in range(len(tokens) - RUN_LENGTH + 1):
            window = tuple(words[i : i + RUN_LENGTH])
            path, position, line = first.setdefault(window, (source.path, i, tokens[i][1]))
            is_copy = path != source.path or position + RUN_LENGTH <= i
            if is_copy and not in_run:
                found.append(f"{source.path}:{tokens[i][1]} as {path}:{line}")
            in_run = is_copy
    return found


def structure_figures(sources: Sequence[Source], packages: Sequence[Source]) -> list[Figure]:
    """Measure sizes, parameters, cycles and duplication.

    Args:
        sources: All files of a checkout.
        packages: The Python files of its packages.

    Returns:
        Numbers of cases, each with the cases as details.
    """
    large = [
        f"{s.path}: {s.n_lines}"
        for s in sources
        if s.path.endswith(".py") and s.n_lines > MAX_FILE_LINES
    ]
    cycles = [", ".join(cycle) for cycle in import_cycles(packages)]
    in_app = [s.path for s in packages if s.path.startswith("app/") and s.path.count("/") == 1]
    results: list[tuple[str, list[str], float | None, bool]] = [
        (
            f"functions with more than {MAX_PARAMETERS} parameters",
            many_parameters(packages),
            0,
            True,
        ),
        (f"files over {MAX_FILE_LINES} lines", large, 0, True),
        ("import cycles", cycles, 0, True),
        (f"duplicated runs of {RUN_LENGTH} tokens or more", duplicated_runs(packages), None, False),
        ("files directly in app/", in_app, MAX_APP_FILES, False),
    ]
    return [
        Figure(name, len(cases), aim, details=cases, listed=listed)
        for name, cases, aim, listed in results
    ]
