"""Occurrences of words that plain technical English avoids."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable

from benchmarks.codebase.sources import Figure, Source

FAMILIES = {
    "tell": "tell|tells|told|telling",
    "hear": "hear|hears|heard|hearing|ears",
    "lie, stand, go on": r"lies|lie|lay|lying|stands|stood|goes\s+on|went\s+on|go\s+on",
    "somebody": "somebody|nobody|whoever|anybody",
    "anew": "anew|whence|seldom|wholly",
}
# Words of prose: neither an attribute, a call nor a keyword argument in quoted code.
PATTERNS = {
    family: re.compile(rf"(?<![\w.])(?:{words})(?![\w(=])", re.IGNORECASE)
    for family, words in FAMILIES.items()
}
CODE_SPAN = re.compile(r"`+[^`\n]*`+")
APART = ("docs/experiments/", "benchmarks/codebase/", "tests/benchmarks/test_codebase.py")
"""Paths that are not counted: records of experiments, and the files that name these words."""
N_FILES = 15


def prose(source: Source) -> str:
    """Extract the text that is written for readers.

    Args:
        source: A file.

    Returns:
        The comments and strings of Python, or the text of Markdown; without `code spans`.
    """
    text = source.text
    if source.path.endswith(".py"):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        parts = [t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(f"\n{node.value}\n")
        text = "\n".join(parts)
    return CODE_SPAN.sub("`", text)


def count_words(source: Source) -> Counter[str]:
    """Count the words of each family in a file's prose."""
    text = prose(source)
    return Counter({family: len(p.findall(text)) for family, p in PATTERNS.items()})


def word_figures(sources: Iterable[Source]) -> list[Figure]:
    """Measure the words per 1000 lines.

    Args:
        sources: All files of a checkout.

    Returns:
        A figure for each family and one for their sum, with the files that contain most of them.
    """
    read = [s for s in sources if not s.path.startswith(APART)]
    counts = {source.path: count_words(source) for source in read}
    n_lines = max(1, sum(source.n_lines for source in read))
    total: Counter[str] = sum(counts.values(), Counter())
    figures = [
        Figure(f"words per 1000 lines: {family}", round(1000 * total[family] / n_lines, 2))
        for family in FAMILIES
    ]
    most = Counter({path: c.total() for path, c in counts.items() if c.total()})
    details = [f"{n:4} {path}" for path, n in most.most_common(N_FILES)]
    value = round(1000 * total.total() / n_lines, 2)
    name = f"words per 1000 lines: all ({total.total()} in {n_lines} lines)"
    return [*figures, Figure(name, value, 1, details=details, listed=True)]
