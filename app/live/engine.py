"""The live engine: sound and commands in, pictures with their sound out, on a clock that is passed in.

Frames are counted by the sound: the picture of frame i is shown with the samples of its 40 ms, so
that picture and sound can't drift apart. While there is nothing to say, the footage plays on with
the mouth at rest, and each frame has 40 ms of silence.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from talkhead.app.avatar import Avatar
from talkhead.app.live.frames import (
    ARRIVAL_AHEAD,
    FRAME_S,
    LiveFacts,
    LiveFrame,
    LiveStatistics,
    check_sound,
    check_waiting,
)
from talkhead.app.live.options import DEFAULTS, LiveOptions, Pace
from talkhead.app.live.pictures import Pictures, make_pictures
from talkhead.app.live.resampler import Resampler
from talkhead.app.live.speech import LiveSpeech
from talkhead.audio import as_int16
from talkhead.device import compute_alone
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, UInt8

GRACE_S = 1.5 * FRAME_S
"""How long a frame of a line that has not ended is waited for."""
LATE_S = 2 * FRAME_S
"""Beyond this, pictures are repeated and no longer rendered; synthetic speech is never left out, a
microphone's after STALE_S.
"""
MOST_READY = 2
"""The same for frames that are given out as soon as they are ready: beyond so many that wait."""
PIECE_S = 0.6
"""Sound that is encoded at a time, so that the first frame of a long line does not wait for it all."""
BLEND_FRAMES = 3
"""Frames over which the mouth moves from one motion to another: to rest, or into a new line."""
CLOSING_FRAMES = 2
"""The same after an interruption."""
BUSY_WEIGHT = 0.04
"""Weight of a frame in the average of the time that frames take."""
STALE_S = 0.5
"""A microphone's sound that has waited for longer is left out: in a conversation, late sound is
useless."""
HEARD_AHEAD_S = 0.2
"""Sound after its own that a frame waits for, at most. If none follows, a frame is not stale."""
MOST_REPEATED = 5
"""Pictures that are repeated in succession before one is rendered, so that the face still moves."""
AWAKE = 0.001
"""Added to codes in `rehearse`, so that no picture comes from the cache."""


class _Line:
    """A line that is being spoken: its sound, and the codes that are known."""

    def __init__(self, pace: Pace, sample_rate: int, begun_s: float) -> None:
        self.pace, self.begun_s = pace, begun_s
        self.speech: LiveSpeech | None = None  # begun by the thread that encodes: it reads weights
        self.down = Resampler(sample_rate, SAMPLE_RATE)
        self.pending: deque[Float32] = deque()  # not encoded yet
        self.sound: deque[Float32] = deque()  # not played yet
        self.n_sound = 0
        self.n_added = 0  # samples at the rate that is given out, since the beginning
        # n_added, and when it was reached; for "arrival" only, where `_drop_stale` removes the oldest
        self.arrivals: deque[tuple[int, float]] = deque()
        self.codes: deque[Float32] = deque()
        self.ended = self.finished = False
        self.n_shown = self.n_played = 0

    def drop_pending(self, n_frames: int, size: int) -> int:
        """Remove the oldest frames of `size` samples that are not encoded, as if they had not arrived.

        Returns how many were removed, `n_frames` at most.
        """
        pending = np.concatenate([np.zeros(0, np.float32), *self.pending])
        n_frames = min(n_frames, len(pending) // size)
        if n_frames > 0:
            sound, n = np.concatenate(list(self.sound)), n_frames * size
            encoded = len(sound) - len(pending)
            self.sound = deque([np.delete(sound, slice(encoded, encoded + n))])
            self.pending = deque([pending[n:]])
            self.n_sound -= n
        return max(n_frames, 0)


class LiveEngine:
    """Speaks live; all methods may be called from any thread, `step` from one at a time.

    Attributes:
        avatar: The person.
        options: Options of the session.
        pace: Pace of the lines that begin from now on.
        sample_rate: Samples per second of the sound that is given out.
    """

    def __init__(
        self,
        avatar: Avatar,
        options: LiveOptions = DEFAULTS,
        *,
        pictures: Pictures | None = None,
        speech: Callable[[Pace], LiveSpeech] | None = None,
    ) -> None:
        """Prepare a session.

        Args:
            avatar: The person.
            options: Sample rate, pace and look.
            pictures: Renders the pictures. None: the avatar's, or none if the options say so.
            speech: Begins a line. None: with the avatar's encoder and predictor.
        """
        self.avatar, self.options = avatar, options
        self.sample_rate = options.sample_rate
        self.pace: Pace = options.pace
        self._lead_s = options.lead_s
        self._rest = avatar.predictor.scaling.rest
        self._n_mouth = len(avatar.predictor.scaling.centre)
        self._pictures = pictures or make_pictures(
            avatar.renderer, avatar.idle, self._rest, options
        )
        self._speech = speech or (
            lambda pace: begin_speech(avatar, pace, options.ahead, options.intensity)
        )
        self._lock = threading.Lock()
        self._lines: deque[_Line] = deque()
        self._up: tuple[int, Resampler] | None = None  # of the line that is being pushed
        self._due_s: float | None = None
        self._from, self._n_blend, self._n_blended = self._rest, 0, 0  # where a blend began
        self._last = self._rest
        self._image: UInt8 | None = None
        self._n_repeats = 0  # in succession
        self._epoch = 0
        self._statistics = LiveStatistics()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self._pictures.size

    @property
    def facts(self) -> LiveFacts:
        """Facts about the person and the pictures."""
        consent = self.avatar.package.manifest.consent
        reach = _mouth_reach(self.avatar, self.options.intensity)
        rest = tuple(self._rest[: self._n_mouth].tolist())
        return LiveFacts(self.avatar.name, consent, self._pictures.note, reach, rest)

    @property
    def statistics(self) -> LiveStatistics:
        """What has been done so far."""
        with self._lock:
            return replace(self._statistics, waiting_s=self._waiting_s())

    def push(self, samples: Float32, sample_rate: int, now_s: float) -> None:
        """Add sound to the line that is being spoken; the first sound begins one.

        Args:
            samples: [n] in [-1, 1], one channel.
            sample_rate: Samples per second.
            now_s: The time, in seconds.

        Raises:
            TalkheadError: For an impossible sample rate, samples that are not numbers, or if too much
                sound is waiting. The sound is then left out.
        """
        check_sound(samples, sample_rate)
        if len(samples) == 0:
            return
        with self._lock:
            check_waiting(self._waiting_s() + len(samples) / sample_rate)
            line = self._open_line(now_s)
            if self._up is None or self._up[0] != sample_rate:
                self._up = (sample_rate, Resampler(sample_rate, self.sample_rate))
            self._add(line, self._up[1].push(np.clip(samples, -1.0, 1.0)))
            if line.pace == "arrival":
                line.arrivals.append((line.n_added, now_s))

    def flush(self) -> None:
        """End the line: what was pushed is spoken to its end."""
        with self._lock:
            line = self._lines[-1] if self._lines else None
            if line is not None and not line.ended:
                if self._up is not None:
                    self._add(line, self._up[1].finish())
                # A line takes a frame at least. With silence, `_waiting_s` counts it, so that the
                # number of lines is limited, too.
                n_missing = self.sample_rate // FRAME_RATE - line.n_added
                self._add(line, np.zeros(max(n_missing, 0), np.float32))
                line.ended = True
            self._up = None

    def interrupt(self) -> int:
        """Drop everything that was not given out yet; the mouth moves to rest.

        Returns:
            The new epoch.
        """
        with self._lock:
            self._lines.clear()
            self._up = None
            self._epoch += 1
            self._begin_blend(CLOSING_FRAMES)
            # What was given out ahead is dropped by the player, so the next frame is due at once.
            self._due_s = None
            n = self._statistics.n_interruptions + 1
            self._statistics = replace(self._statistics, n_interruptions=n)
            return self._epoch

    @staticmethod
    def prepare_thread() -> None:
        """Let the calling thread, which is to call `step`, compute alone.

        The matrices are so small that a second thread gains little, and each step would wait for
        both wherever other programs, such as a browser, use the cores.
        """
        compute_alone()

    def step(self, now_s: float) -> LiveFrame | None:
        """Make the next frame, if it is time.

        Args:
            now_s: The time, in seconds. It never goes back.

        Returns:
            The frame; None if it is too early (`wait_s`).

        Raises:
            MediaError: The footage can no longer be read.
            PackageError: The weights that a line needs are missing or damaged.
        """
        begun = time.perf_counter()
        with self._lock:
            self._drop_stale(now_s)
        self._encode_some()
        with self._lock:
            if self._due_s is None:
                self._due_s = now_s
            line = self._lines[0] if self._lines else None
            ready = line is not None and bool(line.codes)
            if not ready and now_s < self._idle_at(line):
                return None
            is_paced = line is None or line.pace == "playback"
            if ready and is_paced and now_s < self._due_s - self._lead_s:
                return None
            behind_s = now_s - self._due_s
            # Without a pace, lateness shows in the frames that are ready but were not shown.
            n_ready = len(line.codes) if line is not None else 0
            is_late = behind_s > LATE_S or (not is_paced and n_ready > MOST_READY)
            if not is_paced or behind_s > LATE_S:
                self._due_s = now_s
            self._due_s += FRAME_S
            sound_index = line.n_played if line is not None else 0
            if ready:
                assert line is not None
                code, audio, ended = self._next_of(line, now_s)
            else:
                code, audio, ended = self._idle(line)
            code = self._blended(code)
            if ended:
                self._begin_blend()
            epoch, index = self._epoch, self._statistics.n_frames
        can_repeat = self.options.rendered and self._image is not None
        repeats = ready and is_late and can_repeat and self._n_repeats < MOST_REPEATED
        self._n_repeats = self._n_repeats + 1 if repeats else 0
        if not repeats or self._image is None:
            self._image = self._pictures.next(code)
        with self._lock:
            old = self._statistics
            took_ms = 1000.0 * (time.perf_counter() - begun)
            self._statistics = replace(
                old,
                n_frames=index + 1,
                n_speech=old.n_speech + ready,
                n_repeated=old.n_repeated + repeats,
                behind_ms=max(0.0, 1000.0 * behind_s),
                busy_ms=old.busy_ms + BUSY_WEIGHT * (took_ms - old.busy_ms),
            )
        sound, mouth = as_int16(audio), code[: self._n_mouth]
        return LiveFrame(
            self._image, sound, self.sample_rate, index, epoch, sound_index, ready, ended, mouth
        )

    def wait_s(self, now_s: float) -> float:
        """Compute how long nothing is to be done, unless sound arrives.

        Args:
            now_s: The time, in seconds.

        Returns:
            Seconds, 0 or more.
        """
        with self._lock:
            if self._due_s is None:
                return 0.0
            line = self._lines[0] if self._lines else None
            if line is not None and line.codes:
                early = self._lead_s if line.pace == "playback" else np.inf
                return max(0.0, self._due_s - early - now_s)
            return max(0.0, self._idle_at(line) - now_s)

    def rehearse(self, n_frames: int) -> None:
        """Render frames of speech that are not given out, to load kernels and measure their cost.

        Args:
            n_frames: Number of frames.

        Raises:
            MediaError: The footage can no longer be read.
            PackageError: The weights that a line needs are missing or damaged.
        """
        speech, n_done = self._speech("arrival"), 0
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, SAMPLE_RATE // FRAME_RATE)
        while n_done < n_frames:
            for code in speech.push(noise.astype(np.float32)):
                self._pictures.next(np.asarray(code + AWAKE, np.float32))
                n_done += 1

    def close(self) -> None:
        """Stop reading the footage."""
        self._pictures.close()

    # ------------------------------------------------------------------------------ inside

    def _waiting_s(self) -> float:
        """Compute how much sound of all lines waits, seconds."""
        return sum(line.n_sound for line in self._lines) / self.sample_rate

    def _open_line(self, now_s: float) -> _Line:
        """Return the line that sound is added to; a new one if the last has ended."""
        if not self._lines or self._lines[-1].ended:
            self._lines.append(_Line(self.pace, self.sample_rate, now_s))
        return self._lines[-1]

    @staticmethod
    def _add(line: _Line, sound: Float32) -> None:
        """Add sound [n] at the rate that is given out."""
        if len(sound):
            line.pending.append(sound)
            line.sound.append(sound)
            line.n_sound += len(sound)
            line.n_added += len(sound)

    def _encode_some(self) -> None:
        """Encode waiting sound of the first line, PIECE_S at most if a frame is ready already."""
        with self._lock:
            line = self._lines[0] if self._lines else None
            if line is None or line.finished:
                return
            taken, n = [], 0
            while line.pending and n < PIECE_S * self.sample_rate:
                piece = line.pending.popleft()
                size = round(PIECE_S * self.sample_rate)
                if len(piece) > size:
                    line.pending.appendleft(piece[size:])
                    piece = piece[:size]
                taken.append(piece)
                n += len(piece)
            ends = line.ended and not line.pending
        if line.speech is None:
            line.speech = self._speech(line.pace)
        speech, down = line.speech, line.down
        codes = [speech.push(down.push(piece)) for piece in taken]
        if ends:
            codes += [speech.push(down.finish()), speech.finish()]
        with self._lock:
            for part in codes:
                line.codes.extend(part)
            line.finished = ends

    def _drop_stale(self, now_s: float) -> None:
        """Leave out sound of a microphone that has waited for too long, if possible before it is encoded.

        Synthetic speech comes early, and is spoken whole.
        """
        line = self._lines[0] if self._lines else None
        if line is None or line.pace != "arrival" or line.ended:
            return
        size, kept = self.sample_rate // FRAME_RATE, round(HEARD_AHEAD_S * self.sample_rate)
        begins = line.n_added - line.n_sound
        while line.arrivals and line.arrivals[0][0] < begins + size + kept:
            line.arrivals.popleft()
        if not line.arrivals or now_s - line.arrivals[0][1] <= STALE_S - HEARD_AHEAD_S:
            return
        n_frames = (line.n_sound - size - kept) // size
        n_dropped = line.drop_pending(n_frames, size)
        while n_dropped < n_frames and line.codes:
            line.codes.popleft()
            self._take(line)
            n_dropped += 1
        if n_dropped == 0:
            return
        line.n_played += n_dropped  # so that a frame's number still gives the time of its sound
        self._begin_blend()
        total = self._statistics.n_dropped + n_dropped
        self._statistics = replace(self._statistics, n_dropped=total)

    def _idle_at(self, line: _Line | None) -> float:
        """When the next idle frame is due, if no frame of the line becomes ready."""
        assert self._due_s is not None
        waits = line is not None and not line.finished
        return self._due_s + (GRACE_S if waits else 0.0)

    def _next_of(self, line: _Line, now_s: float) -> tuple[Float32, Float32, bool]:
        """The next code of a line, its sound, and whether it is the last."""
        if line.n_shown == 0:
            self._begin_blend()
            first_ms = 1000.0 * (now_s - line.begun_s)
            self._statistics = replace(self._statistics, first_frame_ms=first_ms)
        line.n_shown += 1
        line.n_played += 1
        code, audio = line.codes.popleft(), self._take(line)
        ended = line.finished and not line.codes
        if ended:
            self._lines.popleft()
        return code, audio, ended

    def _idle(self, line: _Line | None) -> tuple[Float32, Float32, bool]:
        """The code of rest with silence; a line whose sound is too slow is continued by a blend."""
        if line is not None and line.n_shown:
            self._begin_blend()
            line.n_shown = 0
        ended = line is not None and line.finished
        if ended:
            self._lines.popleft()
        return self._rest, np.zeros(self.sample_rate // FRAME_RATE, np.float32), ended

    def _take(self, line: _Line) -> Float32:
        """Sound [n] of the next frame, with silence after its end."""
        size = self.sample_rate // FRAME_RATE
        parts, n = [], 0
        while line.sound and n < size:
            piece = line.sound.popleft()
            if n + len(piece) > size:
                line.sound.appendleft(piece[size - n :])
                piece = piece[: size - n]
            parts.append(piece)
            n += len(piece)
        line.n_sound -= n
        return np.concatenate([*parts, np.zeros(size - n, np.float32)])

    def _begin_blend(self, n_frames: int = BLEND_FRAMES) -> None:
        """Blend from the last code to what follows."""
        self._from, self._n_blend, self._n_blended = self._last, n_frames, n_frames

    def _blended(self, code: Float32) -> Float32:
        """Blend a code [n_codes] with that from which a blend began."""
        if self._n_blend:
            share = self._n_blend / (self._n_blended + 1)
            code = share * self._from + (1.0 - share) * code
            self._n_blend -= 1
        self._last = np.asarray(code, np.float32)
        return self._last


def _mouth_reach(avatar: Avatar, intensity: float) -> tuple[float, ...]:
    """Compute the largest absolute value of each component of a mouth code.

    Intensity i moves codes away from rest: |rest + i (code - rest)| <= i |code| + |i - 1| |rest|.
    """
    scaling = avatar.predictor.scaling
    rest = np.abs(scaling.rest[: len(scaling.centre)])
    largest = np.maximum(np.abs(scaling.low), np.abs(scaling.high))
    reach = np.maximum(rest, intensity * largest + abs(intensity - 1.0) * rest)
    return tuple(reach.tolist())


def begin_speech(avatar: Avatar, pace: Pace, ahead: int | None, intensity: float) -> LiveSpeech:
    """Begin a line of a person.

    Args:
        avatar: The person.
        pace: With "arrival", a prediction waits for fewer frames.
        ahead: Frames that a prediction waits for. None: the pace's own.
        intensity: Factor on the motion of the mouth.

    Returns:
        The line.

    Raises:
        PackageError: If the weights of pase-live, which detects speech, are missing or damaged.
    """
    if pace == "arrival" and ahead is None:
        ahead = ARRIVAL_AHEAD
    return LiveSpeech(avatar.encoder, avatar.predictor, ahead=ahead, intensity=intensity)
