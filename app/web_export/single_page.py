"""A web export in one file: scripts and files of the folder, within its page."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

from talkhead.app.web_export.request import PAGE
from talkhead.storage import write_bytes

ELEMENT = (
    "badge.js", "controls.js", "files.js", "line.js", "sound.js", "live.js", "broadcast.js",
    "talking-head.js", "page.js",
)  # fmt: skip
"""Modules of the page, each after those that it imports."""
WORKER = ("module.js", "head.js", "worker.js")
"""Modules of the worker."""
LISTENER = ("resampler.js", "module.js", "speech.js", "listener.js")
"""Modules of the worker that listens, in exports with live speech."""
FILES_ID = "files"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob: data:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data:; media-src blob:"
)
"""The page loads nothing."""
_POLICY = re.compile(r'Content-Security-Policy" content="([^"]*)"')
_IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=(?:const|class|function|async) )", re.MULTILINE)


def write_page(folder: Path, page: Path) -> Path:
    """Write one page that contains an export.

    Args:
        folder: The export.
        page: The file to write.

    Returns:
        The file.

    Raises:
        TalkheadError: The file cannot be written.
    """
    scripts = {*ELEMENT, *WORKER, *LISTENER, PAGE, "page.css"}
    packed = {
        path.relative_to(folder).as_posix(): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in scripts
    }
    for names in (WORKER, LISTENER):
        if (folder / names[-1]).is_file():
            packed[names[-1]] = base64.b64encode(bundle(folder, names).encode()).decode()
    files = json.dumps(packed, separators=(",", ":"))  # base64 contains no "</script>"
    style = (folder / "page.css").read_text("utf-8")
    script = bundle(folder, ELEMENT).replace("</script", "<\\/script")
    html = (folder / PAGE).read_text("utf-8")
    (policy,) = _POLICY.findall(html)
    changes = {
        policy: POLICY,
        '<link rel="stylesheet" href="page.css">': f"<style>\n{style}</style>",
        'id="head" src="./"': f'id="head" src="#{FILES_ID}"',
        '<script type="module" src="page.js"></script>': (
            f'<script type="application/json" id="{FILES_ID}">{files}</script>\n'
            f'<script type="module">\n{script}</script>'
        ),
    }
    for old, new in changes.items():
        assert html.count(old) == 1, old
        html = html.replace(old, new)
    write_bytes(page, html.encode())
    return page


def bundle(folder: Path, names: Sequence[str]) -> str:
    """Join modules to one script.

    Args:
        folder: Folder of the modules.
        names: Their names, each after those that it imports. Top-level names must differ.

    Returns:
        The script, without imports and exports.
    """
    texts = [(folder / name).read_text("utf-8") for name in names]
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in texts)
