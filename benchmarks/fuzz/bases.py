"""Small valid files of every kind, which are generated when a run begins and then damaged."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from benchmarks.fuzz import people
from benchmarks.fuzz.traps import Traps
from talkhead import media
from talkhead.app.dubbing.job import Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.home.identities import Home
from talkhead.app.output.provenance import Statement, sidecar_of, sign
from talkhead.app.output.signing_keys import CHAIN, KEY, ROOT, SIGNING, credentials
from talkhead.app.request import OutputOptions
from talkhead.app.speak import speak

SAMPLES = Path(__file__).parents[2] / "samples"
LINE, PERSON = SAMPLES / "line.wav", SAMPLES / "person.mp4"
SOUND_S, CLIP_FRAMES, CLIP_PX = 0.4, 25, 192
ARCHIVE = f"{people.NAME}.talkhead"

SOUNDS: Mapping[str, tuple[str, ...]] = {
    "line.wav": (),
    "float.wav": ("-ar", "48000", "-ac", "2", "-c:a", "pcm_f32le"),
    "bytes.wav": ("-ar", "8000", "-c:a", "pcm_u8"),
    "line.flac": (),
    "line.mp3": ("-b:a", "64k"),
    "line.ogg": ("-c:a", "libvorbis"),
    "line.opus": ("-c:a", "libopus"),
    "line.m4a": ("-c:a", "aac"),
    "line.aiff": (),
}
VIDEOS: Mapping[str, tuple[str, ...]] = {
    "clip.mp4": ("-c", "copy"),
    "clip.mov": ("-c:v", "mjpeg", "-c:a", "pcm_s16le"),
    "clip.mkv": ("-c:v", "copy", "-c:a", "libopus"),
    "clip.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus"),
    "clip.avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "clip.ts": ("-c:v", "copy", "-c:a", "aac", "-metadata", "service_name=fuzz"),
}
PICTURES = ("picture.png", "picture.jpg", "picture.webp", "picture.bmp")
OTHER_PICTURES = (
    "picture.tiff",
    "picture.jp2",
    "picture.ppm",
    "picture.hdr",
    "picture.exr",
    "picture.gif",
)
"""Formats that are not allowed as a background, whatever the file name."""
SIGNED = ("signed.mp4", "signed.mov", "signed.png", "signed.wav", "signed.webm")

SRT = """1
00:00:00,000 --> 00:00:00,300
People often

2
00:00:00,300 --> 00:00:01,500
<i>say</i> that {\\an8}it is fine.
Second line

"""
VTT = """WEBVTT

NOTE made by hand

STYLE
::cue { color: yellow }

1
00:00.000 --> 00:00.300 align:start position:0%
<v Anna>People often

00:00:00.300 --> 00:00:01.500
say that it is fine.
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Noto Sans,20

[Events]
Format: Layer, Start, End, Style, Text
Dialogue: 0,0:00:00.00,0:00:01.00,Default,{\\pos(10,10)}People often say
"""
WORDS = "People often say, in 2 or 3 words: “that's fine”. Isn't it?\nYes — it is.\n"
TEXTS = {"line.srt": SRT, "line.vtt": VTT, "line.ass": ASS, "words.txt": WORDS}

CSV = """audio,output,identity,mode,codec,height,background,subtitles,transcript,loudness,yaw
line.wav,../out/1.mp4,anna,paste,h264,120,,srt,words.txt,-20,
line.wav,../out/2.webm,anna,head,vp9,,alpha,none,,,5.5
"line.wav","../out/3.mp4",anna,head,,,"#00ff00",burn,"Say this, please",,
"""
JSONL = """{"audio": "line.wav", "output": "../out/1.mp4", "identity": "anna", "height": 120}
{"audio": "line.wav", "output": "../out/2.webm", "identity": "anna", "mode": "head", "zoom": 1.2}
{"audio": "line.wav", "output": "../out/3.mp4", "identity": "anna", "provenance": false}
"""
YAML = """- audio: line.wav
  output: ../out/1.mp4
  identity: anna
  height: 120
- {audio: line.wav, output: ../out/2.webm, identity: anna, mode: head, yaw: 5.5}
- audio: "line.wav"
  output: ../out/3.mp4
  identity: anna
  provenance: no
  transcript: |
    Say this,
    please.
"""
TABLES = {"lines.csv": CSV, "lines.jsonl": JSONL, "lines.yaml": YAML}


def build(folder: Path, traps: Traps) -> None:
    """Make all base files in a folder, and the canaries."""
    _sounds(folder)
    traps.place((folder / "line.wav").read_bytes())
    _videos(folder)
    _pictures(folder)
    for name, text in {**TEXTS, **TABLES}.items():
        (folder / name).write_text(text, encoding="utf-8")
    people.write_encoder(folder / "encoder.safetensors")
    home = Home(folder / "home")
    (folder / "work").mkdir()
    dataset = people.make_dataset(folder / "work" / "dataset")
    people.make_person(home, dataset, folder)
    people.make_work(folder / "work", dataset)
    home.export(people.NAME, folder / ARCHIVE)
    _signed(folder, home)
    _line(folder, home)
    _jobs(folder, home)


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg. Raises CalledProcessError."""
    command = [media.ffmpeg_path(), "-v", "error", "-y", "-bitexact", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _sounds(folder: Path) -> None:
    for name, options in SOUNDS.items():
        ffmpeg("-ss", 0.5, "-t", SOUND_S, "-i", LINE, *options, "-bitexact", folder / name)


def _videos(folder: Path) -> None:
    first = folder / "first.mp4"
    people.make_clip(first, PERSON, CLIP_FRAMES, CLIP_PX)
    for name, options in VIDEOS.items():
        ffmpeg("-i", first, *options, "-bitexact", folder / name)
    first.unlink()


def _pictures(folder: Path) -> None:
    y, x = np.mgrid[:48, :64]
    picture = np.stack([3 * x, 4 * y, x + y], axis=-1).astype(np.uint8)
    for name in (*PICTURES, *OTHER_PICTURES):
        suffix = Path(name).suffix
        if suffix in (".exr", ".gif"):  # OpenCV does not write these
            ffmpeg("-i", folder / "picture.png", folder / name)
            continue
        values = picture.astype(np.float32) / 255 if suffix == ".hdr" else picture
        _, data = cv2.imencode(suffix, values)
        (folder / name).write_bytes(data.tobytes())


def _signed(folder: Path, home: Home) -> None:
    """Signed files, each made from an unsigned one, with certificates and the key next to them."""
    by = credentials(home.path, None, None)
    said = Statement(people.NAME, "paste", "Yes.")
    sources = {"mp4": "clip.mp4", "mov": "clip.mov", "png": "picture.png", "wav": "line.wav"}
    for suffix, source in sources.items():
        target = folder / f"signed.{suffix}"
        sign(folder / source, target, target.name, said, by)
    shutil.copyfile(folder / "clip.webm", folder / "signed.webm")
    sign(folder / "clip.webm", sidecar_of(folder / "signed.webm"), "signed.webm", said, by)
    for name in (KEY, CHAIN, ROOT):
        shutil.copyfile(home.path / SIGNING / name, folder / name)


def _line(folder: Path, home: Home) -> None:
    """The work folder of a speak command that was interrupted in its last segment."""
    work, made = folder / "line", folder / "made"
    made.mkdir()
    options = OutputOptions(subtitles="srt", transcript=WORDS, language="de", provenance=False)
    speak(
        folder / "line.wav",
        output=made / "line.mp4",
        options=options,
        device="cpu",
        home=home.path,
        renderer="warp",
        work=work,
    )
    shutil.rmtree(made)


def _jobs(folder: Path, home: Home) -> None:
    """A store with jobs of every status; paths are those of a case."""
    store = JobStore(folder / "jobs")
    inside = Path("/case")
    tasks = [
        Task("line", people.NAME, audio=str(inside / "in" / "line.wav"),
             output=str(inside / "out" / f"{number}.mp4"), renderer="warp",
             options={"height": 120})
        for number in range(4)
    ]  # fmt: skip
    store.add(tasks)
    for task, status in zip(tasks, ("queued", "running", "done", "failed"), strict=True):
        if status != "queued":
            store.rename(task.id, "queued", status)
