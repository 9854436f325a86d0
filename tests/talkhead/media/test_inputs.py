"""ffmpeg reads known file formats only, never a playlist, whatever its name is."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkhead import media
from talkhead.errors import MediaError
from talkhead.media import inputs
from talkhead.media.inputs import MEDIA_FORMATS, SEGMENT_FORMATS
from talkhead.media.mux import mux, sound_source
from talkhead.media.probing import frame_times

LONG_AGO = 1_000_000_000


def make(path: Path, *options: object) -> Path:
    """Half a second of video and audio in a file, made by ffmpeg alone."""
    command: list[object] = [media.ffmpeg_path(), "-v", "error", "-y"]
    command += ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=0.6"]
    command += ["-f", "lavfi", "-i", "sine=sample_rate=8000:duration=0.6"]
    subprocess.run([*map(str, command), *map(str, options), str(path)], check=True)
    return path


@dataclass
class Listener:
    """Requests to a port of this machine."""

    port: int
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/neighbor.ts"


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Listener(server.getsockname()[1])

        def extract_features() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.settimeout(5)
                    found.requests.append(client.recv(1000))
                    client.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

        threading.Thread(target=extract_features, daemon=True).start()
        yield found


@pytest.fixture(scope="module")
def neighbor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("inputs") / "neighbor.ts")


def age(path: Path) -> None:
    """Make the next read of a file detectable, on systems that record access times."""
    os.utime(path, (LONG_AGO, LONG_AGO + 60))


def was_read(path: Path) -> bool:
    return path.stat().st_atime != LONG_AGO


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"
 minBufferTime="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>
<AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="9" codecs="avc1.42c00d">
<BaseURL>{}</BaseURL><SegmentBase indexRange="0-10"><Initialization range="0-9"/></SegmentBase>
</Representation></AdaptationSet></Period></MPD>"""
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=x
c=IN IP4 127.0.0.1
t=0 0
m=audio {port} RTP/AVP 0
a=rtpmap:0 PCMU/8000
"""
XSPF = """<?xml version="1.0"?>
<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track><location>{}</location>
</track></trackList></playlist>"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">
<image xlink:href="{}"/></svg>"""
PLAYLISTS = {
    "hls.m3u8": HLS,
    "dash.mpd": DASH,
    "ffconcat.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "sdp.sdp": SDP,
    "webvtt.vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\n{}\n",
    "srt.srt": "1\n00:00:00,000 --> 00:00:01,000\n{}\n",
    "xspf.xspf": XSPF,
    "m3u.m3u": "{}\n",
    "pls.pls": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
    "svg.svg": SVG,
}


def readers(folder: Path) -> list[Callable[[Path], Any]]:
    """All ways to read a file."""

    def written(path: Path) -> None:
        media.write_video(folder / "out.mp4", [np.zeros((16, 16, 3), np.uint8)], audio_path=path)

    def unchecked(path: Path) -> None:
        """Read the file as if it had been replaced after it was described."""
        info = sound_source(make(folder / "sound.wav"))
        good = make(folder / "good.mp4", "-an")
        changed = type(info)(**{**vars(info), "path": path})
        mux(good, folder / "out.mp4", media_codec(), 1.0, sound=changed)

    return [
        media.probe,
        media.read_tags,
        lambda path: list(media.read_frames(path)),
        media.read_audio,
        frame_times,
        written,
        unchecked,
    ]


def media_codec() -> Any:
    from talkhead.media.codecs import choose_codec

    return choose_codec("h264")


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("target", ["http", "file", "name"])
def test_a_playlist_is_refused_and_its_files_are_not_opened(
    tmp_path: Path, listener: Listener, neighbor: Path, kind: str, target: str
) -> None:
    own = tmp_path / "neighbor.ts"
    own.write_bytes(neighbor.read_bytes())
    address = {"http": listener.url, "file": f"file://{own}", "name": own.name}[target]
    text = PLAYLISTS[kind].format(address, port=listener.port)
    for name in ("film.mp4", "line.wav", kind):
        path = tmp_path / name
        path.write_text(text)
        for read in readers(tmp_path):
            age(own)
            with pytest.raises(MediaError) as error:
                read(path)
            assert "\n" not in str(error.value) and len(str(error.value)) < 600
            assert not was_read(own), (name, read)
        path.unlink()
    assert listener.requests == []


def test_reading_is_detected(tmp_path: Path, listener: Listener, neighbor: Path) -> None:
    """This is the control experiment for the test above: without the allow lists, ffmpeg sends
    requests.
    """
    film = tmp_path / "film.mp4"
    film.write_text(DASH.format(listener.url))
    command = [media.ffmpeg_path(), "-v", "error", "-i", str(film), "-f", "null", "-"]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert any(b"/neighbor.ts" in asked for asked in listener.requests)
    finally:
        listener.requests.clear()


def test_a_pattern_of_numbered_images_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "img1.png", "-frames:v", 1)
    for name in ("img%d.png", "img*.png", "img{1}.png"):
        (tmp_path / name).write_bytes((tmp_path / "img1.png").read_bytes())
        with pytest.raises(MediaError, match="is not a video or audio file"):
            media.probe(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "-i", "concat:a|b", "file:x.mp4", "pipe:", "x,y;z.mp4", "data:text", "-"]
)
def test_names_of_protocols_and_options_are_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="there is no such file"):
        media.probe(name)
    Path(name).write_bytes(make(tmp_path / "film.mp4").read_bytes())
    assert media.probe(name).width == 64
    assert len(list(media.read_frames(name))) == 15
    assert len(media.read_audio(name)) > 8000


@pytest.mark.parametrize(("suffix", "options"), [
    ("mp4", ""), ("mov", ""), ("m4v", "-f mp4"), ("3gp", "-c:v h263 -s 128x96 -c:a aac"),
    ("mkv", ""), ("webm", "-c:a libopus"), ("avi", ""), ("ts", ""), ("m2ts", ""), ("mpg", ""),
    ("vob", ""), ("flv", "-ar 44100"), ("ogv", ""), ("wmv", ""), ("gif", "-an"), ("apng", "-an"),
    ("nut", ""), ("y4m", "-an -pix_fmt yuv420p"), ("ivf", "-an"), ("h264", "-an"),
    ("hevc", "-an"), ("mjpeg", "-an"),
    ("m4a", "-vn"), ("wav", "-vn"), ("w64", "-vn"), ("mp3", "-vn"), ("aac", "-vn"),
    ("flac", "-vn"), ("ogg", "-vn"), ("opus", "-vn"), ("aiff", "-vn"), ("caf", "-vn"),
    ("amr", "-vn"), ("ac3", "-vn -ar 48000"), ("eac3", "-vn -ar 48000"), ("au", "-vn"),
    ("wma", "-vn"), ("wv", "-vn"), ("tta", "-vn"), ("voc", "-vn"),
    ("dv", "-s 720x576 -pix_fmt yuv420p -ar 48000 -ac 2"),
    ("mxf", "-c:v mpeg2video -ar 48000"),
])  # fmt: skip
def test_common_formats_are_read(tmp_path: Path, suffix: str, options: str) -> None:
    path = make(tmp_path / f"file.{suffix}", *options.split())
    info = media.probe(path)
    assert info.has_video is ("-vn" not in options)
    assert info.has_audio is ("-an" not in options)
    if info.has_video:
        assert len(list(media.read_frames(path))) >= 13
    if info.has_audio:
        assert len(media.read_audio(path)) > 0.4 * 16000


def test_no_allowed_format_opens_other_files() -> None:
    following = {
        "hls", "dash", "concat", "sdp", "rtsp", "rtp", "image2", "image2pipe", "imf", "lavfi", "tee",
        "webm_dash_manifest", "vobsub", "svg_pipe", "ffmetadata", "avisynth", "vapoursynth", "tty",
    }  # fmt: skip
    assert not following & {*MEDIA_FORMATS, *SEGMENT_FORMATS}


def test_a_list_of_segments_opens_only_segments(tmp_path: Path, listener: Listener) -> None:
    from talkhead.media.mux import join_segments

    good = make(tmp_path / "good.mp4", "-an")
    join_segments([good, good], tmp_path / "both.mp4")
    assert len(list(media.read_frames(tmp_path / "both.mp4"))) == 30
    bad = tmp_path / "bad.mp4"
    bad.write_text(DASH.format(listener.url))
    with pytest.raises(MediaError):
        join_segments([good, bad], tmp_path / "joined.mp4")
    assert not (tmp_path / "joined.mp4").exists() and listener.requests == []


def test_mpeg_ts_does_not_crash_the_program(tmp_path: Path) -> None:
    """The static build would load the system's character converters for a service name, and crash."""
    path = make(tmp_path / "talk.ts", "-metadata", "service_name=Zürich")
    assert media.probe(path).duration_s == pytest.approx(0.6, abs=0.1)
    assert len(list(media.read_frames(path))) == 15
    assert len(media.read_audio(path)) > 8000


def test_the_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_text(DASH.format("x"))
    with pytest.raises(MediaError, match=r"film\.mp4: .* of type dash\. Convert it"):
        media.probe(path)
    assert inputs.refused_format("[dash @ 0x1] Format not on whitelist 'mov'") == "dash"
    assert inputs.refused_format("Input #0, mov") is None
