"""The studio page: self-contained, small, and served with all its files."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from talkhead.app.server.pages import PAGE

MAX_BYTES = 300_000
FILES = sorted(PAGE.iterdir())


class Elements(HTMLParser):
    """Collects elements with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def elements() -> list[tuple[str, dict[str, str]]]:
    parser = Elements()
    parser.feed((PAGE / "index.html").read_text("utf-8"))
    return parser.found


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < MAX_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere(path: object) -> None:
    text = (PAGE / str(getattr(path, "name", ""))).read_text("utf-8")
    found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace("// ", "")))
    assert found <= {"http://www.w3.org"}  # the namespace of SVG, which is not loaded
    # Names and messages are untrusted, so the page inserts them only as text.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_the_policy_allows_the_whole_page(elements: list[tuple[str, dict[str, str]]]) -> None:
    for tag, attributes in elements:
        assert tag != "style" and "style" not in attributes
        assert not any(name.startswith("on") for name in attributes), attributes
        assert tag != "script" or attributes["src"].startswith("/static/")


def test_all_files_of_the_page_are_served(
    client: TestClient, elements: list[tuple[str, dict[str, str]]]
) -> None:
    bare = TestClient(client.app, "http://127.0.0.1:8730")
    named = {v for _, a in elements for n, v in a.items() if n in ("src", "href") and v[0] == "/"}
    for path in FILES:
        named |= {
            f"/static/{name}"
            for name in re.findall(r'"(?:\./|/static/)([\w.-]+)"', path.read_text("utf-8"))
        }
    assert {f"/static/{path.name}" for path in FILES} - {"/static/index.html"} == named
    for address in named:
        answer = bare.get(address)
        assert answer.status_code == 200 and answer.content
        if address.endswith(".js"):
            assert "javascript" in answer.headers["content-type"]
    for outside in ("/static/../settings.py", "/static/%2e%2e/settings.py", "/static/"):
        assert bare.get(outside).status_code in (401, 404)


def test_every_field_has_an_accessible_name(elements: list[tuple[str, dict[str, str]]]) -> None:
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    for tag, attributes in elements:
        for name in ("aria-controls", "aria-labelledby", "aria-describedby"):
            assert attributes.get(name, next(iter(ids))) in ids
        assert tag != "img" or "alt" in attributes
    html = (PAGE / "index.html").read_text("utf-8")
    outside = re.sub(r"<label.*?</label>", "", html, flags=re.DOTALL)
    assert not re.findall(r"<(?:input|select|textarea)\b", outside)
    used = {name for p in FILES for name in re.findall(r'\$\("([\w-]+)"\)', p.read_text("utf-8"))}
    assert used <= ids
