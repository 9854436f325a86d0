"""Check that talkhead's commands connect to no address other than this machine's own.

    python -m benchmarks.network [--seconds N] [--keep FOLDER]

Fits the first seconds of the sample person, speaks, verifies the output and evaluates, and then
passes speak and fit playlists that name a server, each under strace (Linux; apt-get install
strace). A JSON line for each command: its exit status, the number of calls it made to connect to an
address, and those to addresses that are not loopback. Exits 1 if there is one, or if a command does
not end as expected: with status 0 on valid inputs, with an error message on playlists.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from talkhead import media

SAMPLES = Path(__file__).parents[1] / "samples"
CALLS = "connect,sendto,sendmsg,sendmmsg"
_CALL = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(")
_ADDRESS = re.compile(r'sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
HOSTILE = {
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4"><Representation '
    'id="1" bandwidth="1"><BaseURL>http://192.0.2.1/x.mp4</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://192.0.2.1/x.ts\n#EXT-X-ENDLIST\n",
    "concat.wav": "ffconcat version 1.0\nfile http://192.0.2.1/x.wav\n",
}
"""Playlists by name; the address is one of those that are reserved for documentation."""


def outside(lines: Iterable[str]) -> tuple[int, list[str]]:
    """Count the connecting calls in strace's lines, and list those to an address that is neither
    loopback nor unspecified.
    """
    n_calls, found = 0, []
    for line in lines:
        if _CALL.search(line) is None:
            continue
        n_calls += 1
        for four, six in ((m[1], m[2]) for m in _ADDRESS.finditer(line)):
            address = ipaddress.ip_address(four or six)
            if not (address.is_loopback or address.is_unspecified):
                found.append(line.strip())
    return n_calls, found


def traced(
    command: list[str], folder: Path, module: str = "talkhead.app.cli.main"
) -> dict[str, Any]:
    """Trace a module's command and all its processes; returns its connecting calls."""
    log = folder / "strace.log"
    strace = ["strace", "-f", "-qq", "-s", "64", "-e", f"trace={CALLS}", "-o", str(log)]
    program = [sys.executable, "-m", module, *command]
    done = subprocess.run([*strace, *program], capture_output=True, text=True, cwd=folder)
    with log.open(errors="replace") as lines:
        n_calls, found = outside(lines)
    return {"command": command[:3], "status": done.returncode, "calls": n_calls, "outside": found}


def sees_calls(folder: Path) -> bool:
    """Check that strace reports a call that is certain to be made: to a port of this machine."""
    (folder / "control.py").write_text(
        "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    )
    return traced([], folder, "control")["calls"] == 1


def commands(folder: Path, seconds: int) -> Iterator[tuple[int, list[str]]]:
    """Commands with the exit status that each must have: on valid inputs, then on playlists."""
    person, line = SAMPLES / "person.mp4", SAMPLES / "line.wav"
    with closing(media.read_frames(person, n_frames=seconds * 25)) as frames:
        media.write_video(folder / "short.mp4", frames, audio_path=person)
    home = ["--home", str(folder / "home")]
    yield (
        0,
        ["fit", "--video", "short.mp4", "--name", "short", "--preset", "preview", "--yes", *home],
    )
    yield 0, ["speak", "--audio", str(line), "--identity", "short", "--output", "line.mp4", *home]
    yield 0, ["verify", "line.mp4", *home]
    yield 0, ["evaluate", "short", *home]
    for name, text in HOSTILE.items():
        (folder / name).write_text(text)
        yield 1, ["fit", "--video", name, "--name", "other", "--yes", *home]
        yield 1, ["speak", "--audio", name, "--identity", "short", "--output", "no.mp4", *home]
        yield 1, ["verify", name, *home]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=8, help="seconds of the sample footage")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        raise SystemExit("error: strace is missing. Install it: apt-get install strace")
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not sees_calls(folder):
            raise SystemExit(
                "error: strace reports no calls here, not even one that is certain to be made"
            )
        ok = True
        for status, command in commands(folder, options.seconds):
            row = traced(command, folder)
            ok = ok and row["status"] == status and not row["outside"]
            print(json.dumps(row), flush=True)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
