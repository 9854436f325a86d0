"""Files that refer to other files: playlists and reference movies, stored under media file names."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from benchmarks.fuzz.traps import Traps

_Make = Callable[[str], str]


def _hls(target: str) -> str:
    return (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n"
        f"#EXTINF:1.0,\n{target}\n#EXT-X-ENDLIST\n"
    )


def _hls_key(target: str) -> str:
    return _hls(target).replace("#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF')


def _dash(target: str) -> str:
    return (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-main:2011">\n'
        f"<BaseURL>{target}</BaseURL><Period><AdaptationSet mimeType='video/mp4'>"
        f"<Representation id='1' bandwidth='1000'><BaseURL>{target}</BaseURL><SegmentList>"
        f"<Initialization sourceURL='{target}'/><SegmentURL media='{target}'/></SegmentList>"
        "</Representation></AdaptationSet></Period></MPD>\n"
    )


def _concat(target: str) -> str:
    return f"ffconcat version 1.0\nfile '{target}'\n"


def _sdp(target: str) -> str:
    port = target.rpartition(":")[2].partition("/")[0]
    return (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port if port.isdigit() else 5004} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )


def _xspf(target: str) -> str:
    return f"<asx version='3.0'><entry><ref href='{target}'/></entry></asx>\n"


def _svg(target: str) -> str:
    return (
        "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' "
        f"width='64' height='64'><image xlink:href='{target}' width='64' height='64'/></svg>\n"
    )


def _redirect(target: str) -> str:
    return f"RTSPtextRTSP://{target}\n"


def _imf(target: str) -> str:
    return (
        '<?xml version="1.0"?>\n<CompositionPlaylist '
        'xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:0</Id>'
        f"<SegmentList><Segment><Resource>{target}</Resource></Segment></SegmentList>"
        "</CompositionPlaylist>\n"
    )


def _pls(target: str) -> str:
    return f"[playlist]\nFile1={target}\nNumberOfEntries=1\n"


FORMATS: dict[str, _Make] = {
    "HLS": _hls, "HLS with a key": _hls_key, "DASH": _dash, "ffconcat": _concat, "SDP": _sdp,
    "ASX": _xspf, "SVG": _svg, "QuickTime text": _redirect, "IMF": _imf, "PLS": _pls,
}  # fmt: skip


def make(rng: Random, traps: Traps) -> tuple[bytes, str]:
    """Draw a playlist of any format that refers to the listener or a canary; returns it and a
    description.
    """
    name = rng.choice(sorted(FORMATS))
    media = traps.media
    target = rng.choice(
        (traps.url + ".wav", traps.url + ".mp4", f"file://{media}", str(media), f"file:{media}",
         f"../../{media.parent.name}/{media.name}", f"concat:{media}|{media}",
         f"subfile,,start,0,end,99,,:{media}", f"crypto:{traps.url}", f"tcp://{traps.url[7:]}")
    )  # fmt: skip
    return FORMATS[name](target).encode(), f"{name} naming {target}"
