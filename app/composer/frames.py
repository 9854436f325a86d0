"""Frame renderers: motion codes -> frames, in any range, so that long videos can be made in
segments.

A frame depends on its number and on `state`, which the frames before it have updated. If `state` is
restored to its value at the end of one segment, the next segment is bit-identical to that of an
uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, repeat
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.app.composer.head_view import AS_FILMED, View, head_camera, head_origin, turned_clip
from talkhead.app.composer.idle_clip import IdleClip, idle_frames, ping_pong
from talkhead.app.composer.paste import (
    CropPaster,
    Window,
    eye_mask,
    inner_paste_mask,
    mask_window,
    paste_mask,
)
from talkhead.crops import cut_crop
from talkhead.device import kernel_concurrency, map_concurrently
from talkhead.face import FaceModel
from talkhead.renderers.base import Renderer, device_of
from talkhead.renderers.gaussian.model import without_body
from talkhead.types import FRAME_RATE, Float32, UInt8

BLEED_PX = (2.0, 8.0)
"""Standard deviations of the blurs that extend the colors of a head beyond its edge."""
EYE_CHANGE = 0.25
"""Change of the codes of eyes and brows from which on they are pasted entirely, in standard deviations of
the first; below it they are mixed with those of the frame."""
State = list[float]
"""State that each frame passes on to the next, empty at the start; JSON stores it exactly."""


class FrameSource(Protocol):
    """Footage that the mouth is pasted into."""

    @property
    def clip(self) -> IdleClip:
        """The footage with its tracks."""

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""

    def track_index(self, frame: int) -> int | None:
        """Return the index of a frame's tracks.

        Args:
            frame: Number of the frame.

        Returns:
            Index in the clip; None if no face was tracked in the frame.
        """

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Read frames.

        Args:
            first: First frame.
            after: Frame after the last one.

        Returns:
            Frames [H, W, 3].
        """


class FrameRenderer(Protocol):
    """Renderer of a video's frames.

    Attributes:
        state: State that each frame passes on to the next. Set it before frames(), read it
            afterwards.
    """

    state: State

    def __len__(self) -> int: ...
    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Render frames.

        Args:
            first: First frame.
            after: Frame after the last one.

        Returns:
            Frames [H, W, 3 or 4].
        """


class IdleFootage:
    """The idle clip, played forward and backward.

    Attributes:
        clip: The clip.
    """

    frame_rate = Fraction(FRAME_RATE)

    def __init__(self, clip: IdleClip) -> None:
        self.clip = clip

    def track_index(self, frame: int) -> int:
        """Return the index of a frame's tracks. See FrameSource.

        Args:
            frame: Number of the frame.

        Returns:
            Index in the clip.
        """
        return int(ping_pong(len(self.clip), 1, frame)[0])

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Read frames. See FrameSource.

        Args:
            first: First frame.
            after: Frame after the last one.

        Returns:
            Frames [H, W, 3].
        """
        return idle_frames(self.clip.path, len(self.clip), first, after)


class PasteFrameRenderer:
    """Renders the lower face into footage."""

    def __init__(
        self, renderer: Renderer, footage: FrameSource, codes: Float32, moves_eyes: bool = False
    ) -> None:
        """Initialize the renderer.

        Args:
            renderer: Renders motion codes.
            footage: Footage to paste into.
            codes: Motion codes [F, K] at the footage's frames.
            moves_eyes: Eyes and brows are those of the codes, too.
        """
        self._compositor = Compositor(renderer, footage.clip, moves_eyes)
        self._footage, self._codes = footage, codes

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return self._footage.frame_rate

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        height, width = self._footage.clip.background.shape[:2]
        return width, height

    @property
    def state(self) -> State:
        """Color gain of the last frame."""
        return self._compositor.composer.gain

    @state.setter
    def state(self, state: State) -> None:
        self._compositor.composer.gain = state

    def __len__(self) -> int:
        return len(self._codes)

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Render frames. See FrameRenderer.

        Args:
            first: First frame.
            after: Frame after the last one.

        Yields:
            Frames [H, W, 3].
        """
        faces = map_concurrently(
            self._face, range(first, after), kernel_concurrency(self._compositor.device)
        )
        with closing(faces), closing(self._footage.frames(first, after)) as frames:
            for frame, face in zip(frames, faces, strict=True):
                yield frame if face is None else self._compositor.paste(frame, face)

    def _face(self, number: int) -> Face | None:
        """Render the parts of a frame's face; None if no face was tracked in it."""
        track_index = self._footage.track_index(number)
        if track_index is None:
            return None
        return self._compositor.render(track_index, self._codes[number])


@dataclass(frozen=True)
class Patch:
    """A rendering of a part of the face.

    Attributes:
        window: Part of the crop that was rendered.
        rgb: Premultiplied colors [h, w, 3].
        alpha: Opacity [h, w, 1].
        mask: Where to paste [h, w].
    """

    window: Window
    rgb: Float32
    alpha: Float32
    mask: Float32


@dataclass(frozen=True)
class Face:
    """The parts of a frame's face that are pasted.

    Attributes:
        track_index: Index of the frame's tracks in the clip.
        mouth: The lower face.
        eyes: Eyes and brows. None: those of the frame are kept.
    """

    track_index: int
    mouth: Patch
    eyes: Patch | None


class Compositor:
    """Re-lips single frames."""

    def __init__(self, renderer: Renderer, clip: IdleClip, moves_eyes: bool = False) -> None:
        """Initialize the compositor.

        Args:
            renderer: Renders motion codes.
            clip: Footage with its tracks.
            moves_eyes: Eyes and brows are pasted where those of the motion code are not those of the
                frame. If False, the frame's are kept.
        """
        self.composer = CropPaster(clip.background, clip.scale)
        # Where a body is, relative to another camera, is unknown: it could cover the chin.
        self._renderer = renderer if clip.colors is None else without_body(renderer)
        self._clip, self._moves_eyes = clip, moves_eyes
        self.device = device_of(renderer)

    def __call__(self, frame: UInt8, track_index: int, code: Float32) -> UInt8:
        """Re-lip a frame.

        Args:
            frame: Frame [H, W, 3].
            track_index: Index of its tracks in the clip.
            code: Motion code [K].

        Returns:
            Frame [H, W, 3].
        """
        return self.paste(frame, self.render(track_index, code))

    def render(self, track_index: int, code: Float32) -> Face:
        """Render the parts of a face. Several threads may call this at the same time.

        Args:
            track_index: Index of the frame's tracks in the clip.
            code: Motion code [K].

        Returns:
            The renderings.
        """
        clip, source = self._clip, self._clip.codes[track_index]
        spoken, target = (
            with_face(source, code, clip.face, moves) for moves in (False, self._moves_eyes)
        )
        size, part = (clip.crop_height, clip.crop_width), clip.face.eyes
        before, after = clip.landmarks(track_index, np.stack([source, spoken]))
        # With the frame's own eyes: the surroundings of the mouth must not depend on others.
        mask_of = paste_mask if clip.colors is None else inner_paste_mask
        mouth = self._patch(track_index, spoken, mask_of(before, after, size))
        change = float(np.linalg.norm(target[part] - source[part]))
        if change == 0.0:
            return Face(track_index, mouth, None)
        (moved,) = clip.landmarks(track_index, target[None])
        mask = min(change / EYE_CHANGE, 1.0) * eye_mask(before, moved, size)
        return Face(track_index, mouth, self._patch(track_index, target, mask))

    def _patch(self, track_index: int, code: Float32, mask: Float32) -> Patch:
        """Render a code [K] in the pose of a frame, inside a mask [H, W]."""
        window = mask_window(mask)
        ks = self._clip.crop_ks[track_index : track_index + 1].copy()
        ks[:, 0, 2] -= window.left
        ks[:, 1, 2] -= window.top
        size = (window.bottom - window.top, window.right - window.left)
        cameras, pose = torch.from_numpy(ks).to(self.device), self._clip.viewmats[track_index]
        rgb, alpha = _render(self._renderer, code, pose, cameras, size)
        if self._clip.colors is not None:
            (points,) = self._clip.landmarks(track_index, code[None])
            corner = np.array([window.left, window.top], np.float32)
            rgb = rgb * self._clip.colors.field(points - corner, size)
            # Where the head is transparent, the frame shows, not the background behind the person.
            mask = mask.copy()
            mask[window.slices] *= alpha[..., 0]
            rgb = np.asarray(rgb / np.maximum(alpha, 1e-3), np.float32)
            alpha = np.ones_like(alpha)
        return Patch(window, rgb, alpha, mask[window.slices])

    def paste(self, frame: UInt8, face: Face) -> UInt8:
        """Paste renderings into their frame. Frames are pasted in the order of the video.

        Args:
            frame: Frame [H, W, 3].
            face: Its renderings.

        Returns:
            Frame [H, W, 3].
        """
        clip, index = self._clip, face.track_index
        person = clip.mask(index)
        for patch, is_matched in ((face.mouth, True), (face.eyes, False)):
            if patch is not None:
                frame = self.composer.paste(
                    frame,
                    clip.origins[index],
                    patch.window,
                    np.concatenate([patch.rgb, patch.alpha], axis=2),
                    patch.mask,
                    person[patch.window.slices],
                    is_matched,
                )
        return frame


def with_face(source: Float32, code: Float32, face: FaceModel, moves_eyes: bool) -> Float32:
    """Replace the face in a motion code.

    Args:
        source: Motion code [K] of a frame.
        code: Motion code [K] whose mouth is taken.
        face: The face model.
        moves_eyes: Eyes and brows are taken, too.

    Returns:
        Motion code [K].
    """
    n_taken = face.eyes.stop if moves_eyes else face.n_mouth
    return np.concatenate([code[:n_taken], source[n_taken:]])


class HeadCompositor:
    """Renders single frames of the head alone, with the head motion of the idle clip."""

    def __init__(
        self,
        renderer: Renderer,
        clip: IdleClip,
        view: View = AS_FILMED,
        moves_eyes: bool = False,
    ) -> None:
        """Initialize the compositor.

        Args:
            renderer: Renders motion codes.
            clip: The idle clip.
            view: Requested view, limited to what the clip shows.
            moves_eyes: Eyes and brows are those of the motion codes, not of the clip.
        """
        self._renderer, self._clip = renderer, turned_clip(clip, view)
        self._moves_eyes = moves_eyes
        self.device = device_of(renderer)
        self._ks = torch.from_numpy(head_camera(clip, view.zoom)).to(self.device)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self._clip.crop_width, self._clip.crop_height

    def __call__(self, background: UInt8 | None, track_index: int, code: Float32) -> UInt8:
        """Render a frame. Several threads may call this at the same time.

        Args:
            background: Background [h, w, 3] in the size of the frames. None: the frame is RGBA, not
                premultiplied.
            track_index: Index in the clip.
            code: Motion code [K].

        Returns:
            Frame [h, w, 3], or [h, w, 4] without a background.
        """
        clip = self._clip
        target = with_face(clip.codes[track_index], code, clip.face, self._moves_eyes)
        size = (clip.crop_height, clip.crop_width)
        rgb, alpha = _render(self._renderer, target, clip.viewmats[track_index], self._ks, size)
        return transparent(rgb, alpha) if background is None else over(rgb, alpha, background)


class HeadFrameRenderer:
    """Renders the head alone, which follows the head motion of the idle clip.

    Attributes:
        frame_rate: Frames per second.
    """

    def __init__(
        self,
        renderer: Renderer,
        clip: IdleClip,
        codes: Float32,
        backgrounds: Callable[[int, int], Iterator[UInt8]] | None,
        view: View = AS_FILMED,
        frame_rate: Fraction = Fraction(FRAME_RATE),
        moves_eyes: bool = False,
    ) -> None:
        """Initialize the renderer.

        Args:
            renderer: Renders motion codes.
            clip: The idle clip, with motion at the frame rate.
            codes: Motion codes [F, K] at the frame rate.
            backgrounds: Returns the backgrounds [h, w, 3] of the frames first to after - 1, in the
                size of the crop. None: frames are RGBA, not premultiplied.
            view: Requested view, limited to what the clip shows.
            frame_rate: Frames per second.
            moves_eyes: Eyes and brows are those of the motion codes, not of the clip.
        """
        self.state: State = []
        self.frame_rate = frame_rate
        self._compositor = HeadCompositor(renderer, clip, view, moves_eyes)
        self._n_clip, self._codes, self._backgrounds = len(clip), codes, backgrounds

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self._compositor.size

    def __len__(self) -> int:
        return len(self._codes)

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Render frames. See FrameRenderer.

        Args:
            first: First frame.
            after: Frame after the last one.

        Yields:
            Frames [h, w, 3], or [h, w, 4] without backgrounds.
        """
        backgrounds = None if self._backgrounds is None else self._backgrounds(first, after)
        n = after - first
        heads = map_concurrently(
            lambda at: self._compositor(*at),
            zip(
                repeat(None, n) if backgrounds is None else islice(backgrounds, n),
                ping_pong(self._n_clip, n, first).tolist(),
                self._codes[first:after],
                strict=True,
            ),
            kernel_concurrency(self._compositor.device),
        )
        with closing(heads):
            yield from heads


def _render(
    renderer: Renderer, code: Float32, viewmat: Float32, ks: Tensor, size: tuple[int, int]
) -> tuple[Float32, Float32]:
    """Render rgb [h, w, 3] and alpha [h, w, 1] of a code [K], pose [4, 4] and intrinsics [1, 3, 3].

    The intrinsics are on the device of the renderer.
    """
    with torch.no_grad():
        rendering = renderer.render(
            torch.from_numpy(code[None]).to(ks.device),
            torch.from_numpy(viewmat[None]).to(ks.device),
            ks,
            *size,
        )
    return rendering.rgb[0].cpu().numpy(), rendering.alpha[0].cpu().numpy()


def over(rgb: Float32, alpha: Float32, background: UInt8) -> UInt8:
    """Composite a rendering over a background.

    Args:
        rgb: Premultiplied colors [h, w, 3] in [0, 1].
        alpha: Opacity [h, w, 1] in [0, 1].
        background: Picture [h, w, 3].

    Returns:
        Picture [h, w, 3].
    """
    image = rgb + (1.0 - alpha) * (background.astype(np.float32) / 255.0)
    return np.asarray(np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def transparent(rgb: Float32, alpha: Float32) -> UInt8:
    """Convert a rendering to RGBA that is not premultiplied.

    The colors of the head are extended beyond its edge: encoders that subsample colors, and scaling,
    would otherwise mix black into the edge.

    Args:
        rgb: Premultiplied colors [h, w, 3] in [0, 1].
        alpha: Opacity [h, w, 1] in [0, 1].

    Returns:
        Picture [h, w, 4].
    """
    extended = np.concatenate([rgb, alpha], axis=2)
    for sigma in BLEED_PX:
        blurred = cv2.GaussianBlur(extended, (0, 0), sigma)
        extended = extended + (1.0 - np.clip(extended[..., 3:], 0.0, 1.0)) * blurred
    color = extended[..., :3] / np.maximum(extended[..., 3:], 1e-4)
    inside = alpha > 0.5  # where the rendering's own color is reliable
    color = np.where(inside, rgb / np.maximum(alpha, 1e-4), color)
    image = np.concatenate([color, alpha], axis=2)
    return np.asarray(np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def own_background(clip: IdleClip) -> UInt8:
    """Cut the person's own background to the crop that mode head shows.

    Args:
        clip: The clip.

    Returns:
        Picture [h, w, 3].
    """
    size = (clip.crop_height, clip.crop_width)
    return cut_crop(clip.background, head_origin(clip), size, clip.scale)


def pasted_line(renderer: Renderer, idle: IdleClip, codes: Float32) -> Generator[UInt8, None, None]:
    """Re-lip the idle clip, played forward and backward.

    Args:
        renderer: The renderer.
        idle: The idle clip.
        codes: Motion codes [F, K].

    Returns:
        Frames [H, W, 3].
    """
    return PasteFrameRenderer(renderer, IdleFootage(idle), codes).frames(0, len(codes))
