"""Export a fitted person as a web page: from the request to the finished folder or file.

export_web            checks the request, moves the finished folder or file into place
  write_site            writes the folder
    write_speech          for live speech           app/web_export/speech_file.py
    write_head            the fitted head           app/web_export/head_file.py
    _write_idle           footage, there and back
    write_line            sound and motion codes    app/web_export/line_file.py
    _write_manifest       what is there, and the signed statement that it is synthetic
  write_page            packs the folder into one file     app/web_export/single_page.py
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from talkhead import __version__, media
from talkhead.app.avatar import Avatar, load_identity
from talkhead.app.composer.idle_clip import idle_frames, period
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import scratch_folder
from talkhead.app.output.live_manifest import LiveStatement, sign_live
from talkhead.app.output.publish import publish
from talkhead.app.output.signing_keys import credentials
from talkhead.app.web_export.head_file import write_head
from talkhead.app.web_export.line_file import write_line
from talkhead.app.web_export.request import (
    FORMAT,
    MANIFEST,
    RENDERER,
    SOURCES,
    STATEMENT,
    VERSION,
    WebRequest,
    check_web,
)
from talkhead.app.web_export.single_page import LISTENER, WORKER, write_page
from talkhead.app.web_export.site_check import session_of
from talkhead.app.web_export.speech_file import write_speech
from talkhead.errors import TalkheadError
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import make_folder, sha256_of, write_json
from talkhead.types import FRAME_RATE, Float32

HEAD, IDLE, SPEECH = "head.bin", "idle.mp4", "speech.bin"
LIVE_SOURCES = frozenset({*LISTENER, "capture.js", "talkhead-speech.wasm"} - {*WORKER})
"""Files of the page that only live speech needs."""
IDLE_CRF, IDLE_PRESET = 22, "slow"


@dataclass(frozen=True)
class WebExportResult:
    """The result of `export_web`.

    Attributes:
        output_path: The folder, or the file.
        identity: Name of the identity.
        lines: Names of the lines that the page can say.
        size_bytes: Size of all files together.
        consent: The statement of consent that the export contains.
    """

    output_path: Path
    identity: str
    lines: tuple[str, ...]
    size_bytes: int
    consent: str | None


def export_web(
    identity: str | Path | None = None,
    *,
    output: Path | str,
    lines: Sequence[Path | str] = (),
    single_file: bool = False,
    live: bool = False,
    consent: str | None = None,
    home: Path | str | None = None,
    progress: Progress | None = None,
) -> WebExportResult:
    """Export a fitted person as a web page, for any web server.

    The head is rendered in the browser. Whoever can open the page can copy the person's likeness, and
    make it say anything: export only people who have agreed to that.

    Args:
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        output: Folder to write, or the file if `single_file` is set. An earlier export is replaced.
        lines: Files with audio that the page can say, named after the files.
        single_file: Write one file that contains everything and can be opened without a server.
        live: The page can also speak as a microphone, a stream or a recording does. Then anybody who
            has the page can make the person say anything, without further tools.
        consent: Statement of consent that the export contains; with `live`, also consent to live
            speech. None: that of the identity, which does not cover live speech.
        home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.
        progress: Receives the progress. None: nothing is shown.

    Returns:
        The path of the export and its properties.

    Raises:
        TalkheadError: The request cannot be carried out. The message says what to change.
    """
    target, paths = Path(output), [Path(line) for line in lines]
    request, _ = check_web(
        target,
        paths,
        identity=identity,
        single_file=single_file,
        live=live,
        consent=consent,
        home=home,
    )
    store, progress = Home.locate(home), progress or SilentProgress()
    avatar = load_identity(identity, renderer=RENDERER, device="cpu", home=home)
    with scratch_folder(store) as scratch:
        made = make_folder(scratch / "site")
        write_site(avatar, request, made, store.path, progress)
        if request.is_single:
            made = write_page(made, scratch / "page.html")
        publish(made, target.absolute())
    names = tuple(line.name for line in request.lines)
    return WebExportResult(target, avatar.name, names, _size_of(target), request.consent)


def write_site(
    avatar: Avatar, request: WebRequest, folder: Path, home: Path, progress: Progress
) -> None:
    """Write the files of an export.

    Args:
        avatar: The person, with the renderer of pages.
        request: What to export.
        folder: An empty folder.
        home: Folder of the identities, with the signing key.
        progress: Receives the progress.

    Raises:
        TalkheadError: A file cannot be read or written.
    """
    for source in sorted(SOURCES.iterdir()):
        if request.live or source.name not in LIVE_SOURCES:
            shutil.copyfile(source, folder / source.name)
    if request.live:
        write_speech(folder / SPEECH, avatar)
    write_head(folder / HEAD, avatar, progress)
    _write_idle(avatar, folder / IDLE, progress)
    lines = []
    with progress.step("Writing lines", total=len(request.lines)) as step:
        for line in request.lines:
            step.detail(line.name)
            lines.append(write_line(line, avatar, folder))
            step.advance()
    _write_manifest(avatar, request, [asdict(line) for line in lines], folder, home)


def _write_idle(avatar: Avatar, path: Path, progress: Progress) -> None:
    """Write the idle clip forward and backward, since browsers cannot play a video backward."""
    n_frames = period(len(avatar.idle))
    with (
        progress.step("Writing the footage", total=n_frames) as step,
        media.VideoWriter(path, crf=IDLE_CRF, preset=IDLE_PRESET) as video,
    ):
        for frame in idle_frames(avatar.idle.path, len(avatar.idle), 0, n_frames):
            video.write(frame)
            step.advance()


def _write_manifest(
    avatar: Avatar, request: WebRequest, lines: list[dict[str, Any]], folder: Path, home: Path
) -> None:
    """Write the manifest, and a signed statement about it. The same export has the same manifest."""
    height, width = avatar.idle.background.shape[:2]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rest: Float32 = avatar.predictor.scaling.rest[: avatar.idle.face.n_mouth]
    write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "version": VERSION,
            "tool": f"talkhead {__version__}",
            "identity": avatar.name,
            "synthetic": True,
            "consent": request.consent,
            "live": request.live,
            "live_consent": request.live_consent,
            "width": width,
            "height": height,
            "frame_rate": FRAME_RATE,
            "n_frames": period(len(avatar.idle)),
            "rest": [round(float(value), 6) for value in np.asarray(rest, np.float64)],
            "lines": lines,
            "files": {
                path.relative_to(folder).as_posix(): {
                    "sha256": sha256_of(path),
                    "bytes": path.stat().st_size,
                }
                for path in files
            },
        },
    )
    digest = sha256_of(folder / MANIFEST)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    statement = LiveStatement(
        avatar.name, "paste", request.consent, now, badge=True, session=session_of(digest)
    )
    write_json(folder / STATEMENT, sign_live(statement, credentials(home, None, None)))


def _size_of(output: Path) -> int:
    files = [output] if output.is_file() else [one for one in output.rglob("*") if one.is_file()]
    if not files:
        raise TalkheadError(f"{output}: is empty. Another program has removed the export")
    return sum(one.stat().st_size for one in files)
