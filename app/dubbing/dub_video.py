"""Dub a whole video: plan its lines, mix its sound, follow its speakers, and re-lip them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import numpy as np

from talkhead import __version__, media
from talkhead.app.avatar import Avatar
from talkhead.app.composer.followed_footage import FOLLOW_VERSION, follow_in
from talkhead.app.composer.source_clip import SourceFootage, footage_of, timeline_frames
from talkhead.app.dubbing.dub_report import DubReport, FollowReport, LineReport
from talkhead.app.dubbing.dubbed_frames import EASE_S, DubbedFrames, Piece, SpokenLine
from talkhead.app.dubbing.line_planner import plan_lines
from talkhead.app.dubbing.line_speech import durations, line_codes, speak_lines
from talkhead.app.dubbing.line_subtitles import line_cues
from talkhead.app.dubbing.line_sync import measure_sync
from talkhead.app.dubbing.shots import find_shots
from talkhead.app.dubbing.soundtrack import (
    SoundMix,
    mix_over_bed,
    mix_over_original,
    write_soundtrack,
)
from talkhead.app.dubbing.speaker_matching import assign_speakers
from talkhead.app.dubbing.timed_lines import TimedLines, read_lines
from talkhead.app.dubbing.timeline import Placement, Shot, Timeline
from talkhead.app.dubbing.video_dub import NO_BED, ORIGINAL, VideoDub
from talkhead.app.output.finalize import OutputFacts, ResolvedRequest, finish_video
from talkhead.app.output.subtitle_files import FONTS_DIR, line_chars, write_ass, write_srt
from talkhead.app.request import BURN, NONE, RenderRequest, frame_files
from talkhead.app.resume import RENDER_VERSION, Segments
from talkhead.app.text_to_speech import URL_VARIABLE
from talkhead.errors import FootageError
from talkhead.footage import Footage
from talkhead.identity import MANIFEST_NAME
from talkhead.media.probing import count_frames, own_rate
from talkhead.media.writer import Captions, scaled_size
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import fingerprint, make_folder, read_json, remove, sha256_of, write_json
from talkhead.types import Float32

DUB_VERSION = 1
"""Increase it when the same job would get other frames."""
STATE, SOUND, SHOTS, PIECES, PICTURE = (
    "dub.json", "sound.flac", "shots.json", "pieces", "picture",
)  # fmt: skip
PIECE_MARGIN_S = 0.4
"""Seconds around lines in which a face is followed, too: tracks are smoothed in time."""
MAX_GAP_S = 2.0
"""Lines of a speaker with a shorter pause are followed as one piece."""
MAX_PIECE_S = 60.0
"""Longest piece: the head crops of a minute take up to 1.5 GB while it is followed."""
PIECE_CRF, PIECE_PRESET = 8, "ultrafast"
"""Pieces are read two times and not kept small: 54 dB, at two thirds of the default preset's time."""


def dub_video(
    dub: VideoDub,
    avatars: Callable[[str], Avatar],
    work: Path,
    home: Path,
    progress: Progress,
) -> DubReport:
    """Dub a video, or resume from what is in the work folder.

    Args:
        dub: What to do.
        avatars: Loads an identity by its name or folder.
        work: Folder for this job only. It is kept.
        home: Folder of the identities, with the signing key.
        progress: Receives the progress.

    Returns:
        What became of lines and shots. The video, and subtitles if they are asked for, are written.

    Raises:
        TalkheadError: The job cannot be carried out; lines are named.
    """
    resolved = ResolvedRequest.of(
        RenderRequest(work / SOUND, dub.output, "paste", options=dub.options), home
    )
    job = _Job(dub, resolved, work, progress, _Notes(progress))
    people = {name: avatars(identity) for name, identity in dub.speakers.items()}
    timed = job.read_lines()
    job.enter(timed, people)
    timeline = job.plan(timed)
    loudness = job.mix(timeline)
    pieces = job.follow(timeline, people)
    frames = DubbedFrames(dub.video, job.n_frames, job.frame_rate, pieces)
    job.write(frames, timeline, people)
    return job.report(timeline, pieces, loudness)


class _Notes(SilentProgress):
    """Keeps messages, and shows each once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        """See Progress."""
        if text not in self.texts:
            self.texts.append(text)
            self._progress.message(text)


class _Placed(SilentProgress):
    """Adds a place to messages, instead of the name of a temporary file."""

    def __init__(self, progress: Progress, place: str, name: str) -> None:
        self._progress, self._place, self._name = progress, place, name

    def message(self, text: str) -> None:
        """See Progress."""
        self._progress.message(self._place + text.removeprefix(self._name))


@dataclass
class _Job:
    """The steps of a job."""

    dub: VideoDub
    resolved: ResolvedRequest
    work: Path
    progress: Progress
    notes: _Notes
    n_shots: int = 1
    followed: list[FollowReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.frame_rate = own_rate(self.dub.video)
        self.n_frames = count_frames(self.dub.video, self.frame_rate)
        self.length_s = float(self.n_frames / self.frame_rate)

    def read_lines(self) -> TimedLines:
        """Read the lines. Raise TalkheadError if any is wrong."""
        names = [name for name in self.dub.speakers if name]
        timed = read_lines(self.dub.lines, self.length_s, names, overlaps=self.dub.limits.overlaps)
        timed.check()
        return timed

    def enter(self, timed: TimedLines, people: Mapping[str, Avatar]) -> None:
        """Discard the work on another job, or on files that have changed."""
        audio = [line.audio for line in timed.lines if line.audio is not None]
        files = [self.dub.video, self.dub.lines, *audio, *frame_files(self.dub.options)]
        bed = self.dub.bed
        if bed not in (ORIGINAL, NO_BED):  # by its content: it may be moved
            files.append(Path(bed))
            bed = "file"
        files += [one.package.path / MANIFEST_NAME for one in people.values()]
        options = {k: v for k, v in asdict(self.dub.options).items() if not isinstance(v, Path)}
        key = fingerprint(
            [
                [__version__, RENDER_VERSION, FOLLOW_VERSION, DUB_VERSION],
                [sha256_of(path) for path in files],
                [[name, one.renderer_name] for name, one in people.items()],
                [bed, asdict(self.dub.limits), options, os.environ.get(URL_VARIABLE)],
            ]
        )
        state = self.work / STATE
        if state.exists() and read_json(state) == {"key": key}:
            return
        if self.work.exists():
            for entry in self.work.iterdir():
                remove(entry)
        write_json(make_folder(self.work) / STATE, {"key": key})

    def plan(self, timed: TimedLines) -> Timeline:
        """Speak the lines that are text, and plan when all are spoken."""
        for note in timed.notes:
            self.notes.message(note)
        lines = speak_lines(timed.lines, self.work / "voices", self.progress)
        timeline = plan_lines(lines, durations(lines), self.length_s, self.dub.limits)
        timeline.check()
        return timeline

    def mix(self, timeline: Timeline) -> float:
        """Write the sound; return its loudness."""
        sound, facts = self.work / SOUND, self.work / "sound.json"
        if not (facts.exists() and sound.exists()):
            with self.progress.step("Mixing the sound", total=1) as step:
                loudness = write_soundtrack(sound, timeline, self._mix())
                write_json(facts, {"lufs": max(loudness.integrated_lufs, -200.0)})
                step.advance()
        return float(read_json(facts)["lufs"])

    def _mix(self) -> SoundMix:
        if self.dub.bed == NO_BED:
            return SoundMix()
        if self.dub.bed == ORIGINAL:
            return mix_over_original(self.dub.video)
        return mix_over_bed(Path(self.dub.bed))

    def follow(self, timeline: Timeline, people: Mapping[str, Avatar]) -> list[Piece]:
        """Follow the face of each speaker in the parts of the video in which they speak."""
        parts = []
        for shot, seen in self._shots(timeline, people):
            for name in people:
                spans = list(_spans(_spoken_by(timeline, name, people), shot, self.frame_rate))
                if name in seen:
                    parts += [(name, span, seen[name]) for span in spans]
                elif spans:
                    self.notes.message(
                        f"{self._times(shot.first, shot.after)}: the face of {people[name].name} is "
                        "not recognized. These frames stay as they are"
                    )
        pieces = []
        with self.progress.step("Following the speakers", total=len(parts)) as step:
            for name, span, face in parts:
                lines = self._lines_of(timeline, name, people, span)
                folder = self.work / PIECES / f"{list(people).index(name)}-{span[0]}-{span[1]}"
                source = self._followed(people[name], folder, span, face)
                if source is not None:
                    self.followed.append(FollowReport.of(name, span[0], source))
                    footage = replace(source, clip=source.clip.released())
                    pieces.append(Piece(span[0], footage, people[name].head, lines))
                step.advance()
        return pieces

    def _lines_of(
        self, timeline: Timeline, name: str, people: Mapping[str, Avatar], span: tuple[int, int]
    ) -> tuple[SpokenLine, ...]:
        """Predict the motion of a speaker's lines that are spoken in frames, or just before or after."""
        start_s, end_s = (frame / float(self.frame_rate) for frame in span)
        folder, intensity = self.work / "lines", self.dub.options.intensity
        return tuple(
            SpokenLine(one, line_codes(one, people[name], folder, intensity))
            for one in _spoken_by(timeline, name, people)
            if one.start_s - EASE_S < end_s and one.end_s + EASE_S > start_s
        )

    def _shots(
        self, timeline: Timeline, people: Mapping[str, Avatar]
    ) -> list[tuple[Shot, Mapping[str, Float32]]]:
        """Find the shots in which lines are spoken, and the faces [478, 3] of the speakers in each."""
        path = self.work / SHOTS
        if not path.exists():
            shots = find_shots(self.dub.video, self.progress)
            used = [
                shot
                for shot in shots
                if any(shot.frames_of(one, self.frame_rate) for one in timeline.placements)
            ]
            found = assign_speakers(self.dub.video, used, people, self.progress)
            faces = [{k: one.landmarks.tolist() for k, one in seen.items()} for seen in found]
            spans = [[shot.first, shot.after] for shot in used]
            write_json(path, {"n_shots": len(shots), "shots": spans, "faces": faces})
        stored = read_json(path)
        self.n_shots = stored["n_shots"]
        return [
            (Shot(*span), {k: np.array(v, np.float32) for k, v in faces.items()})
            for span, faces in zip(stored["shots"], stored["faces"], strict=True)
        ]

    def _times(self, first: int, after: int) -> str:
        """Describe frames by their times."""
        return f"{first / float(self.frame_rate):.1f} to {after / float(self.frame_rate):.1f} s"

    def _followed(
        self, avatar: Avatar, folder: Path, span: tuple[int, int], face: Float32
    ) -> SourceFootage | None:
        """Follow a face through frames; None if it cannot be followed."""
        clip, where = make_folder(folder) / "clip.mp4", self._times(*span)
        if not clip.exists():
            frames = timeline_frames(self.dub.video, self.frame_rate, *span)
            media.write_video(
                clip, frames, frame_rate=self.frame_rate, crf=PIECE_CRF, preset=PIECE_PRESET
            )
        try:
            footage = Footage.open(clip, needs_sound=False)
            progress = _Placed(self.notes, f"{where}: ", f"{clip.name}: ")
            followed = follow_in(folder, avatar.package, footage, progress, face, avatar)
        except FootageError as error:
            reason = str(error).removeprefix(f"{clip}: ")
            self.notes.message(f"{where}: {avatar.name} is not re-lipped. {reason}")
            return None
        return footage_of(followed.dataset, clip, followed.dataset.face, followed.colors)

    def write(self, frames: DubbedFrames, timeline: Timeline, people: Mapping[str, Avatar]) -> None:
        """Render the frames, and write video and subtitles."""
        options = self.dub.options
        srt, captions = self._subtitles(frames, timeline)
        segments = Segments(
            make_folder(self.work / PICTURE), self.resolved.codec, options, captions
        )
        picture = segments.joined(segments.render(frames, self.progress), len(frames))
        consents = [one.package.manifest.consent for one in people.values()]
        consent = "; ".join(dict.fromkeys(one for one in consents if one)) or None
        names = ", ".join(one.name for one in people.values())
        facts = OutputFacts(names, len(frames), frames.frame_rate, consent)
        finish_video(picture, self.resolved, facts, srt)

    def _subtitles(
        self, frames: DubbedFrames, timeline: Timeline
    ) -> tuple[Path | None, Captions | None]:
        """Write the subtitles of the lines, if they are asked for."""
        options = self.dub.options
        if options.subtitles == NONE:
            return None, None
        size = frames.size
        if options.height is not None:
            size = scaled_size(*size, options.height)
        burned = options.subtitles == BURN
        cues = line_cues(timeline, line_chars(size)) if burned else line_cues(timeline)
        srt = self.work / "subtitles.srt"
        write_srt(srt, cues)
        if not burned:
            return srt, None
        captions = Captions(self.work / "captions.ass", FONTS_DIR)
        write_ass(captions.path, cues, size)
        return srt, captions

    def report(
        self, timeline: Timeline, pieces: Sequence[Piece], loudness_lufs: float
    ) -> DubReport:
        """Report what became of lines and shots."""
        changed = np.zeros(self.n_frames, dtype=bool)
        for piece in pieces:
            shown = (piece.motion[1] > 0.0) & piece.footage.known
            inside = np.arange(piece.first, min(piece.after, self.n_frames))
            changed[inside] |= shown[: len(inside)]
        sync = measure_sync(timeline, pieces, self.work / SOUND)
        lines = tuple(
            LineReport.of(one, sync[one.line.number], pieces, self.n_frames, self.frame_rate)
            for one in timeline.placements
        )
        for one in lines:
            if one.on_screen == 0.0:
                self.notes.message(f"line {one.line}: its speaker's face is not seen, only heard")
        return DubReport(
            self.n_frames,
            round(timeline.length_s, 3),
            self.n_shots,
            int(changed.sum()),
            round(self.dub.options.loudness or loudness_lufs, 1),
            lines,
            tuple(self.notes.texts),
            tuple(self.followed),
        )


def _spoken_by(timeline: Timeline, name: str, people: Mapping[str, Avatar]) -> list[Placement]:
    """Return the lines of a speaker in order; with one speaker, all of them."""
    return [one for one in timeline.placements if len(people) == 1 or one.line.speaker == name]


def _spans(
    placements: Sequence[Placement], shot: Shot, rate: Fraction
) -> Iterator[tuple[int, int]]:
    """Yield the frames of a shot in which a face has to be followed: first, and after the last one."""
    margin = PIECE_MARGIN_S + EASE_S
    times: list[list[float]] = []
    for one in sorted(placements, key=lambda one: one.start_s):
        if not shot.frames_of(one, rate):
            continue
        start, end = one.start_s - margin, one.end_s + margin
        if times and start - times[-1][1] < MAX_GAP_S:
            times[-1][1] = max(times[-1][1], end)
        else:
            times.append([start, end])
    for start, end in times:
        first, after = max(shot.first, floor(start * rate)), min(shot.after, ceil(end * rate))
        inside = [one for one in placements if start < one.start_s < end]
        yield from pairwise([first, *_splits(inside, first, after, rate), after])


def _splits(
    placements: Sequence[Placement], first: int, after: int, rate: Fraction
) -> Iterator[int]:
    """Yield the frames at which a long piece is divided: in pauses, and in speech without any."""
    ordered = sorted(placements, key=lambda one: one.start_s)
    pauses = [
        round((one.end_s + other.start_s) / 2 * rate)
        for one, other in pairwise(ordered)
        if other.start_s - one.end_s > 2 * EASE_S
    ]
    longest = int(MAX_PIECE_S * rate)
    while after - first > longest:
        near = [frame for frame in pauses if first < frame <= first + longest]
        first = near[-1] if near else first + longest
        yield first
