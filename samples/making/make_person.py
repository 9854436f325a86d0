"""Make the sample person: person.mp4, line.wav and truth.npz / truth.json in the folder above.

python make_person.py render --assets DIR --cache DIR [--part 0/2]  # frames; resumes
python make_person.py finish --assets DIR --cache DIR               # the rest
python make_person.py mattes --assets DIR --cache DIR               # mattes.npz; resumes
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import motion
import numpy as np
import speech
import truth
from camera import Camera
from head import Head

SAMPLES = Path(__file__).resolve().parents[1]
SEED = 3
LINE_SEED = 4
CRF = 14
MATTE_FRAMES = np.linspace(568, 624, 24).round().astype(np.int64)  # of the frames held out by a fit


def frame_path(cache: Path, frame: int) -> Path:
    """Path of a rendered frame."""
    return cache / f"frame_{frame:04d}.png"


def render(assets: Path, cache: Path, part: int, n_parts: int) -> None:
    """Render every n-th frame that the cache lacks; several processes may share the work."""
    from scene import Quality, Scene  # Blender is needed here only

    poses = motion.perform(speech.clip_speech(), SEED)
    cache.mkdir(parents=True, exist_ok=True)
    scene = Scene(Head(assets), assets, Camera(), Quality())
    for frame in range(part, len(poses), n_parts):
        if frame_path(cache, frame).exists():
            continue
        started_s = time.monotonic()
        scene.render(poses[frame], frame_path(cache, frame))
        print(f"frame {frame}: {time.monotonic() - started_s:.2f} s", file=sys.stderr, flush=True)


def finish(assets: Path, cache: Path) -> None:
    """Write the audio files, join frames and audio, and write the ground truth."""
    head = Head(assets)
    clip, line = speech.clip_speech(), speech.line_speech()
    poses = motion.perform(clip, SEED)
    absent = [k for k in range(len(poses)) if not frame_path(cache, k).exists()]
    if absent:
        raise SystemExit(
            f"{cache}: {len(absent)} of {len(poses)} frames are missing; run `render` again"
        )
    speech.write_wav(SAMPLES / "line.wav", line.waveform)
    speech.write_wav(cache / "clip.wav", clip.waveform)
    encode(cache, SAMPLES / "person.mp4")
    truth.write(SAMPLES, head, clip, poses, line, motion.perform(line, LINE_SEED))


def mattes(assets: Path, cache: Path) -> None:
    """Render the person's matte in MATTE_FRAMES."""
    from scene import MATTE, Scene, read_image

    poses = motion.perform(speech.clip_speech(), SEED)
    cache.mkdir(parents=True, exist_ok=True)
    scene = Scene(Head(assets), assets, Camera(), MATTE)
    paths = [cache / f"matte_{frame:04d}.png" for frame in MATTE_FRAMES]
    for frame, path in zip(MATTE_FRAMES, paths, strict=True):
        if not path.exists():
            scene.render(poses[frame], path)
    alphas = np.stack([np.round(255.0 * read_image(path)[..., 3]) for path in paths])
    np.savez_compressed(SAMPLES / "mattes.npz", frames=MATTE_FRAMES, alphas=alphas.astype(np.uint8))


def encode(cache: Path, path: Path) -> None:
    """Join the cached frames and clip.wav into an MP4: H.264 and AAC, both starting at 0."""
    command = [
        ffmpeg(), "-y", "-v", "error",
        "-framerate", f"{motion.FPS:g}", "-i", str(cache / "frame_%04d.png"),
        "-i", str(cache / "clip.wav"),
        "-c:v", "libx264", "-preset", "veryslow", "-crf", str(CRF), "-pix_fmt", "yuv420p",
        "-vf", "scale=out_color_matrix=bt709:out_range=tv",
        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
        "-color_range", "tv",
        "-c:a", "aac", "-b:a", "96k", "-movflags", "+faststart", "-map_metadata", "-1", str(path),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def ffmpeg() -> str:
    """The ffmpeg on the path, or the one of imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found is None:
        import imageio_ffmpeg

        found = imageio_ffmpeg.get_ffmpeg_exe()
    return str(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("render", "finish", "mattes"))
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman's CC0 assets")
    parser.add_argument(
        "--cache", type=Path, required=True, help="where frames are kept; made if absent"
    )
    parser.add_argument(
        "--part", default="0/1", help="which of how many shares of the frames, as 0/2 and 1/2"
    )
    chosen = parser.parse_args(arguments)
    if chosen.step == "render":
        part, n_parts = (int(field) for field in chosen.part.split("/"))
        render(chosen.assets, chosen.cache, part, n_parts)
    elif chosen.step == "mattes":
        mattes(chosen.assets, chosen.cache)
    else:
        finish(chosen.assets, chosen.cache)


if __name__ == "__main__":
    main()
