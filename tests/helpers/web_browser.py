"""Pages of web exports in Chromium, with footage and a head that tell in their colors what they show."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from web_pages import write_fake_head, write_fake_pages

from talkhead import media
from talkhead.app import avatar
from talkhead.app.home.identities import Home
from talkhead.app.web_export import export, line_file
from talkhead.app.web_export import request as web_request
from talkhead.app.web_export.request import WebRequest
from talkhead.identity import MANIFEST_NAME
from talkhead.progress import SilentProgress
from talkhead.storage import read_json
from talkhead.types import Float32, UInt8

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
N_CLIP, WIDTH, HEIGHT, N_BITS = 40, 160, 120, 8
N_FRAMES = 2 * N_CLIP - 2
BOX = {"x": 50, "y": 60, "width": 60, "height": 30}
Open = Callable[..., Any]

UNTIL = """states => new Promise((done, fail) => {
  const head = document.querySelector("talking-head"), begun = performance.now();
  const check = () => {
    if (states.includes(head.state)) done();
    else if (performance.now() > begun + 30000) fail(new Error(`still ${head.state}`));
    else setTimeout(check, 10);
  };
  check();
})"""
WAIT = "seconds => new Promise((done) => setTimeout(done, 1000 * seconds))"
RECORD = """() => {
  window.head = document.querySelector("talking-head");
  window.seen = [];
  window.events = [];
  const codeAt = head.codeAt.bind(head);
  head.codeAt = (...given) => {
    const code = codeAt(...given), { index, heard } = head.statistics;
    if (index >= 0) window.apart = Math.max(window.apart ?? 0, Math.abs(25 * heard - index));
    return code;
  };
  for (const name of ["ready", "start", "end", "error", "statechange"]) {
    head.addEventListener(name, ({ detail }) => events.push([name, detail]));
  }
  const draw = head.draw.bind(head), context = head.canvas.getContext("2d");
  const pixel = (x, y) => [...context.getImageData(x, y, 1, 1).data];
  head.draw = (drawn) => {
    draw(drawn);
    seen.push({ frame: drawn.frame, index: drawn.index, state: head.state, box: pixel(80, 75),
      bits: Array.from({ length: 8 }, (_, i) => pixel(20 * i + 10, 20)[0]) });
  };
}"""


def bars(number: int) -> UInt8:
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(N_BITS):
        frame[:50, 20 * bit : 20 * (bit + 1)] = 235 if number >> bit & 1 else 20
    return frame


def write_readable_site(
    request: WebRequest, rest: Float32, codes: Float32, **of_avatar: object
) -> Path:
    """Write an export of footage and codes that can be read from the picture.

    Args:
        request: The export; other files are written next to it.
        rest: Code of the mouth at rest [K].
        codes: Codes of each line [n, K].
        of_avatar: Attributes of the person: encoder and predictor, for live speech.

    Returns:
        The folder.
    """
    folder = request.output.parent
    with pytest.MonkeyPatch.context() as patch:
        person = readable_avatar(patch, folder, rest, codes, **of_avatar)
        request.output.mkdir()
        export.write_site(person, request, request.output, folder, SilentProgress())
    return request.output


def readable_avatar(
    patch: pytest.MonkeyPatch, folder: Path, rest: Float32, codes: Float32, **of_avatar: object
) -> Any:
    """Make a person whose exports can be read from the picture, while `patch` lasts.

    Args:
        patch: Replaces head and speech.
        folder: For footage and pages.
        rest: Code of the mouth at rest [K].
        codes: Codes of each line [n, K].
        of_avatar: Further attributes of the person.

    Returns:
        The person, anna.
    """
    n_mouth = len(rest)
    media.write_video(folder / "clip.mp4", map(bars, range(N_CLIP)), keyframe_every=25)
    write_fake_pages(folder / "pages")

    class Clip(SimpleNamespace):
        def __len__(self) -> int:
            return N_CLIP

    clip = Clip(
        path=folder / "clip.mp4",
        background=np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        face=SimpleNamespace(n_mouth=n_mouth),
    )
    predictor = SimpleNamespace(scaling=SimpleNamespace(rest=rest))

    def write_head(path: Path, *_: object) -> None:
        write_fake_head(path, N_FRAMES, n_mouth, BOX)

    patch.setattr(export, "SOURCES", folder / "pages")
    patch.setattr(export, "write_head", write_head)
    patch.setattr(line_file, "predict_motion", lambda *_: codes)
    known = {"encoder": None, "predictor": predictor} | of_avatar
    return SimpleNamespace(name="anna", idle=clip, **known)


def readable_person(patch: pytest.MonkeyPatch, folder: Path, rest: Float32, codes: Float32) -> Any:
    """Make fitted people who have no Gaussians such people while `patch` lasts, see `readable_avatar`.

    Returns:
        The person that is loaded in place of each.
    """
    manifest = SimpleNamespace(consent=None)
    package = SimpleNamespace(manifest=manifest)
    person = readable_avatar(patch, folder, rest, codes, package=package)

    def load(name: str, *, home: Path, **_: object) -> Any:
        manifest.consent = read_json(Home(home).identity_dir(name) / MANIFEST_NAME)["consent"]
        person.name = name
        return person

    patch.setattr(avatar, "load_identity", load)
    patch.setattr(web_request, "RENDERER", "warp")
    return person


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and prints nothing."""

    def log_message(self, *_: object) -> None:
        pass


def opening(browser: Any, site: Path, tmp_path: Path) -> Iterator[Open]:
    """Yield a function that serves a copy of the export, changed by `change`, and opens its page.

    There must be no errors in the page and no requests elsewhere.
    """
    closing, problems = [], []

    def opened(
        change: Callable[[Path], object] = lambda _: None, path: str = "", before: str = ""
    ) -> Any:
        folder = tmp_path / f"site-{len(closing)}"
        shutil.copytree(site, folder)
        change(folder)
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever).start()
        page = new_page(f"http://127.0.0.1:{server.server_port}/{path}", before)
        closing.append((server, page))
        return page

    def new_page(address: str, before: str = "") -> Any:
        origin = address[: address.index("/", 8)]
        page = browser.new_page(viewport={"width": 400, "height": 700})
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda one: note(one.url, origin))
        page.add_init_script(before)
        page.goto(address)
        page.evaluate(RECORD)
        return page

    def note(url: str, origin: str) -> None:
        if not url.startswith((origin, "blob:", "data:")):
            problems.append(url)

    opened.file = lambda path: closing.append((None, new_page(path.as_uri()))) or closing[-1][1]  # type: ignore[attr-defined]
    yield opened
    for server, page in closing:
        page.close()
        if server is not None:
            server.shutdown()
            server.server_close()
    assert problems == []
