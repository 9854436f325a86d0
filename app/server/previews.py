"""Stills: the portrait of a person, and the first frame of a video before it is rendered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.app.home.identities import Home
from talkhead.app.request import OutputOptions, RenderRequest
from talkhead.app.server.avatars import Avatars, package_state, shrink
from talkhead.identity import IDLE_NAME
from talkhead.progress import SilentProgress
from talkhead.types import UInt8

if TYPE_CHECKING:
    from talkhead.app.avatar import Avatar

PORTRAIT_HEIGHT = 480
JPEG_QUALITY = 88
MAX_PORTRAITS = 64
MARK = "preview, synthetic"


@dataclass(frozen=True)
class Still:
    """An encoded image.

    Attributes:
        data: Content of its file.
        media_type: "image/jpeg" or "image/png".
    """

    data: bytes
    media_type: str


class Previews:
    """Renders stills of the identities of a home folder, one at a time.

    Args:
        home: The home folder.
        avatars: The loaded people.
    """

    def __init__(self, home: Home, avatars: Avatars) -> None:
        self._home, self._avatars = home, avatars
        self._lock = threading.Lock()
        self._portraits: OrderedDict[tuple[Any, ...], Still] = OrderedDict()

    def portrait(self, name: str) -> Still:
        """Read the first frame of a person's own footage.

        Args:
            name: Name of a fitted identity.

        Returns:
            A JPEG with a height of at most 480 pixels.

        Raises:
            TalkheadError: The package is missing or damaged.
        """
        path = self._home.identity_dir(name)
        key = package_state(path)
        with self._lock:
            if key not in self._portraits:
                self._portraits[key] = _portrait(path / IDLE_NAME)
                shrink(self._portraits, MAX_PORTRAITS)
            self._portraits.move_to_end(key)
            return self._portraits[key]

    def still(
        self, name: str, renderer: str | None, mode: str, options: OutputOptions, wait_s: float
    ) -> Still | None:
        """Render the first frame of a video, with the mouth at rest.

        Args:
            name: Name of a fitted identity.
            renderer: Name of a renderer. None: the identity's own.
            mode: "paste" or "head".
            options: Options of the output.
            wait_s: How long to wait for other stills, in seconds.

        Returns:
            A JPEG, or a PNG with transparency; None if other stills took too long. It is marked as
            synthetic.

        Raises:
            TalkheadError: The options are not compatible, or the package is damaged.
        """
        if not self._lock.acquire(timeout=wait_s):
            return None
        try:
            return _still(self._avatars.load(name, renderer), mode, options, self._home)
        finally:
            self._lock.release()

    def forget(self, name: str) -> None:
        """Remove the portraits of a person from the cache.

        Args:
            name: Name of the identity.
        """
        path = self._home.identity_dir(name)
        with self._lock:
            for key in [one for one in self._portraits if one[0] == path]:
                del self._portraits[key]


def _portrait(video: Path) -> Still:
    import cv2

    from talkhead import media

    with closing(media.read_frames(video, n_frames=1)) as frames:
        frame = next(frames)
    height, width = frame.shape[:2]
    if height > PORTRAIT_HEIGHT:
        size = (max(1, round(width * PORTRAIT_HEIGHT / height)), PORTRAIT_HEIGHT)
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return _encoded(frame)


def _still(avatar: Avatar, mode: str, options: OutputOptions, home: Home) -> Still:
    import numpy as np

    from talkhead.app.composer.requested_frames import make_frames
    from talkhead.app.output.finalize import ResolvedRequest
    from talkhead.media.codecs import choose_codec, default_name

    output = default_name("preview", choose_codec(options.codec))
    request = RenderRequest(Path("preview.wav"), output, mode, options=options)
    codes = np.asarray(avatar.predictor.scaling.rest, dtype=np.float32)[None]
    resolved = ResolvedRequest.of(request, home.path)
    renderer = make_frames(avatar, resolved, codes, None, None, SilentProgress())
    with closing(renderer.frames(0, 1)) as frames:
        return _encoded(_marked(next(frames)))


def _marked(frame: UInt8) -> UInt8:
    """Write on an image [H, W, 3 or 4] that it is synthetic."""
    import cv2

    marked = frame.copy()
    scale = max(0.35, frame.shape[0] / 1000.0)
    place = (round(12 * scale), frame.shape[0] - round(14 * scale))
    for color, width in (((0, 0, 0, 255), 4), ((255, 255, 255, 255), 1)):
        thickness = max(1, round(width * scale))
        cv2.putText(
            marked, MARK, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA
        )
    return marked


def _encoded(image: UInt8) -> Still:
    """Encode an image [H, W, 3 or 4] as JPEG or, with transparency, as PNG."""
    import cv2

    if image.shape[2] == 4:
        _, data = cv2.imencode(".png", image[..., [2, 1, 0, 3]])
        return Still(data.tobytes(), "image/png")
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Still(data.tobytes(), "image/jpeg")
