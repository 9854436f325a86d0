"""Lines that people in web pages say, without a video being rendered."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

from talkhead.app.server.avatars import Avatars
from talkhead.app.server.models import WebLine


class WebLines:
    """Prepares lines, one at a time.

    Args:
        avatars: The loaded people.
    """

    def __init__(self, avatars: Avatars) -> None:
        self._avatars, self._lock = avatars, threading.Lock()

    def prepare(
        self, name: str, audio: Path, title: str, folder: Path, wait_s: float
    ) -> WebLine | None:
        """Compute the sound and the motion codes of a line, as `speak` does.

        Args:
            name: Name of a fitted identity.
            audio: File with audio.
            title: What the line is called.
            folder: Folder for files.
            wait_s: How long to wait for other lines, seconds.

        Returns:
            The line; None if other lines took too long.

        Raises:
            TalkheadError: The audio or the package is damaged.
        """
        if not self._lock.acquire(timeout=wait_s):
            return None
        try:
            from talkhead.app.web_export import line_file, request  # imports PyTorch

            line = request.WebLine("line", audio)
            files = line_file.write_line(line, self._avatars.load(name), folder)
        finally:
            self._lock.release()
        sound, codes = ((folder / part).read_bytes() for part in (files.sound, files.codes))
        return WebLine(
            identity=name,
            name=title,
            sound=base64.b64encode(sound).decode(),
            codes=base64.b64encode(codes).decode(),
            scale=files.scale,
            n_frames=files.n_frames,
            duration_s=files.duration_s,
        )
