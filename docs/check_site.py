"""Check that the built documentation loads nothing from other servers.

    python docs/check_site.py site

Exits with code 1 and prints a list if a page loads a script, style sheet, font, image or frame by an
absolute address.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "talking-head": ("src",),
    "track": ("src",),
    "video": ("src", "poster"),
}
"""Attributes whose address a browser fetches automatically."""
HARMLESS_LINKS = {"canonical", "alternate", "next", "prev", "license", "author"}
REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(
    r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)", re.IGNORECASE
)


class _Page(HTMLParser):
    """Collects the remote addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and set(values.get("rel", "").split()) <= HARMLESS_LINKS:
            return
        self.found += [
            f"<{tag} {name}> {values[name]}"
            for name in LOADED.get(tag, ())
            if REMOTE.match(values.get(name, "").strip())
        ]
        self.found += [f"<{tag} style> {url}" for url in IN_STYLE.findall(values.get("style", ""))]


def remote_loads(site: Path) -> Iterator[str]:
    """Yield one line for each remote address that a page or style sheet under `site` loads."""
    for path in sorted(site.rglob("*.html")):
        page, text = _Page(), path.read_text(encoding="utf-8")
        page.feed(text)
        styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
        found = page.found + [url for style in styles for url in IN_STYLE.findall(style)]
        yield from (f"{path.relative_to(site)}: {load}" for load in found)
    for path in sorted(site.rglob("*.css")):
        for url in IN_STYLE.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: {url}"


if __name__ == "__main__":
    loads = list(remote_loads(Path(sys.argv[1])))
    print("\n".join(loads) or "The pages load nothing from other servers.")
    sys.exit(bool(loads))
