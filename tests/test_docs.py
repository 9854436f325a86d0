"""Consistency of the documentation with itself and with the code: links, examples, commands,
version.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import talkhead
from talkhead.app.cli.main import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAX_README_LINES = 120
BUILT = "sample/"
"""Folder that `make docs` adds to the site: the web export of the sample person."""

# Inline links and images, reference definitions, and the README's HTML.
LINK = re.compile(
    r"\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)|^\[[^\]^]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)\"",
    re.MULTILINE,
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<code>.*?)^(?P=indent)```", re.S | re.M)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
API_ENTRY = re.compile(r"^::: +(\S+)", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_blocks(page: Path, *kinds: str) -> Iterator[str]:
    for block in FENCE.finditer(page.read_text("utf-8")):
        if block["kind"] in kinds:
            yield block["code"]


def prose(page: Path) -> str:
    """Return the text of a page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))


@cache
def anchors(page: Path) -> frozenset[str]:
    """List the fragments of a page, as Python-Markdown and GitHub derive them from headings."""
    text = FENCE.sub("", page.read_text("utf-8"))
    made = []
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\s-]", "", plain.lower())
        made.append(re.sub(r"[\s-]+", "-", slug.strip()))
    return frozenset([*made, *API_ENTRY.findall(text)])


def broken_links(page: Path) -> list[str]:
    broken = []
    for groups in LINK.findall(prose(page)):
        link = next(filter(None, groups))
        if re.match(r"[a-z]+:|//", link) or link.startswith(BUILT):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        is_page = path.suffix == ".md"
        if not path.exists() or (fragment and is_page and fragment not in anchors(path)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[a](page.md#one-heading) [b](#two) ![c](c.png) [d](https://a.example)\n"
        '<a href="e.md">\n`[f](f.md)`\n[g]: g.md\n'
    )
    assert broken_links(page) == ["#two", "c.png", "e.md", "g.md"]


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_parse(page: Path) -> None:
    for code in code_blocks(page, "python", "py"):
        ast.parse(code)


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    listed = set(re.findall(r"[\w/]+\.md", str(settings["nav"])))
    assert listed == {
        path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.parent != ROOT
    }


def test_api_reference_names_every_public_name() -> None:
    entries = API_ENTRY.findall((ROOT / "docs" / "api.md").read_text("utf-8"))
    public = {name.removeprefix("talkhead.") for name in entries if name.count(".") == 1}
    assert public == set(talkhead.__all__)


def test_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == talkhead.__version__


# ----------------------------------------------------------------------------- commands


def documented_commands(page: Path) -> Iterator[str]:
    """Yield the commands `talkhead ...` in the shell examples of a page."""
    for code in code_blocks(page, "bash", "sh", ""):
        for line in code.replace("\\\n", " ").splitlines():
            if line.strip().startswith("talkhead "):
                yield line.strip()


def unknown_words(line: str) -> list[str]:
    """List the commands and options of a command line that talkhead does not have."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return [words[0]]
        command, words = command.commands[words[0]], words[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return [word for word in words if word.startswith("-") and word.split("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_commands_exist(page: Path) -> None:
    unknown = {line: unknown_words(line) for line in documented_commands(page)}
    assert {line: words for line, words in unknown.items() if words} == {}


def test_unknown_commands_are_found() -> None:
    assert unknown_words("talkhead sing --audio a.wav") == ["sing"]
    assert unknown_words("talkhead speak --audio a.wav --louder -o b.mp4  # loud") == ["--louder"]
    assert unknown_words("talkhead identities export anna -o a.talkhead") == []


# --------------------------------------------------------------------------------- site


@pytest.mark.parametrize(
    ("html", "is_clean"),
    [
        ('<link rel="canonical" href="https://a.example/"><img src="b.png">', True),
        ('<a href="https://a.example/">a link is not loaded</a>', True),
        ('<script src="https://cdn.example/a.js"></script>', False),
        ('<link rel="stylesheet" href="//cdn.example/a.css">', False),
        ('<talking-head src="sample/"></talking-head>', True),
        ('<talking-head src="https://a.example/anna/"></talking-head>', False),
        ("<style>@import 'https://fonts.example/a.css';</style>", False),
        ('<p style="background: url(https://a.example/b.png)">', False),
    ],
)
def test_remote_loads_of_a_site_are_found(tmp_path: Path, html: str, is_clean: bool) -> None:
    (tmp_path / "index.html").write_text(html)
    command = [sys.executable, str(ROOT / "docs" / "check_site.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is is_clean, done.stdout
