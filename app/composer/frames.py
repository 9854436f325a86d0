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
from talkhead.app.composer.paste import CropPaster, Window, mask_window, paste_mask
from talkhead.crops import cut_crop
from talkhead.device import kernel_concurrency, map_concurrently
from talkhead.renderers.base import Renderer
from talkhead.types import FRAME_RATE, Float32, UInt8

BLEED_PX = (2.0, 8.0)
"""Standard deviations of the blurs that extend the colors of a head beyond its edge."""
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

    def __init__(self, renderer: Renderer, footage: FrameSource, codes: Float32) -> None:
        """Initialize the renderer.

        Args:
            renderer: Renders motion codes.
            footage: Footage to paste into.
            codes: Motion codes [F, K] at the footage's frames.
        """
        self._compositor = Compositor(renderer, footage.clip)
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
        mouths = map_concurrently(
            self._mouth, range(first, after), kernel_concurrency(self._compositor.device)
        )
        with closing(mouths), closing(self._footage.frames(first, after)) as frames:
            for frame, mouth in zip(frames, mouths, strict=True):
                yield frame if mouth is None else self._compositor.paste(frame, mouth)

    def _mouth(self, number: int) -> Mouth | None:
        """Render the lower face of a frame; None if no face was tracked in it."""
        track_index = self._footage.track_index(number)
        if track_index is None:
            return None
        return self._compositor.render(track_index, self._codes[number])


@dataclass(frozen=True)
class Mouth:
    """A rendering of the lower face.

    Attributes:
        track_index: Index of the frame's tracks in the clip.
        window: Part of the crop that was rendered.
        rgb: Premultiplied colors [h, w, 3].
        alpha: Opacity [h, w, 1].
        mask: Where to paste [h, w].
    """

    track_index: int
    window: Window
    rgb: Float32
    alpha: Float32
    mask: Float32


class Compositor:
    """Re-lips single frames. The eyes and brows of the frame are kept."""

    def __init__(self, renderer: Renderer, clip: IdleClip) -> None:
        """Initialize the compositor.

        Args:
            renderer: Renders motion codes.
            clip: Footage with its tracks.
        """
        self.composer = CropPaster(clip.background, clip.scale)
        self._renderer, self._clip = renderer, clip
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

    def render(self, track_index: int, code: Float32) -> Mouth:
        """Render the lower face of a frame. Several threads may call this at the same time.

        Args:
            track_index: Index of the frame's tracks in the clip.
            code: Motion code [K].

        Returns:
            The rendering.
        """
        clip, n_mouth = self._clip, self._clip.face.n_mouth
        source = clip.codes[track_index]
        target = np.concatenate([code[:n_mouth], source[n_mouth:]])
        before, after = clip.landmarks(track_index, np.stack([source, target]))
        mask = paste_mask(before, after, (clip.crop_height, clip.crop_width))
        window = mask_window(mask)
        ks = clip.crop_ks[track_index : track_index + 1].copy()
        ks[:, 0, 2] -= window.left
        ks[:, 1, 2] -= window.top
        size = (window.bottom - window.top, window.right - window.left)
        cameras = torch.from_numpy(ks).to(self.device)
        rgb, alpha = _render(self._renderer, target, clip.viewmats[track_index], cameras, size)
        return Mouth(track_index, window, rgb, alpha, mask[window.slices])

    def paste(self, frame: UInt8, mouth: Mouth) -> UInt8:
        """Paste a rendering into its frame. Frames are pasted in the order of the video.

        Args:
            frame: Frame [H, W, 3].
            mouth: Its rendering.

        Returns:
            Frame [H, W, 3].
        """
        return self.composer.paste(
            frame,
            self._clip.origins[mouth.track_index],
            mouth.window,
            mouth.rgb,
            mouth.alpha,
            mouth.mask,
            self._clip.mask(mouth.track_index)[mouth.window.slices],
        )


class HeadCompositor:
    """Renders single frames of the head alone, with the head motion of the idle clip."""

    def __init__(self, renderer: Renderer, clip: IdleClip, view: View = AS_FILMED) -> None:
        """Initialize the compositor.

        Args:
            renderer: Renders motion codes.
            clip: The idle clip.
            view: Requested view, limited to what the clip shows.
        """
        self._renderer, self._clip = renderer, turned_clip(clip, view)
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
        clip, n_mouth = self._clip, self._clip.face.n_mouth
        target = np.concatenate([code[:n_mouth], clip.codes[track_index, n_mouth:]])
        size = (clip.crop_height, clip.crop_width)
        rgb, alpha = _render(self._renderer, target, clip.viewmats[track_index], self._ks, size)
        return transparent(rgb, alpha) if background is None else over(rgb, alpha, background)


class HeadFrameRenderer:
    """Renders the head alone, which follows the head motion of the idle clip."""

    frame_rate = Fraction(FRAME_RATE)

    def __init__(
        self,
        renderer: Renderer,
        clip: IdleClip,
        codes: Float32,
        backgrounds: Callable[[int, int], Iterator[UInt8]] | None,
        view: View = AS_FILMED,
    ) -> None:
        """Initialize the renderer.

        Args:
            renderer: Renders motion codes.
            clip: The idle clip.
            codes: Motion codes [F, K].
            backgrounds: Returns the backgrounds [h, w, 3] of the frames first to after - 1, in the
                size of the crop. None: frames are RGBA, not premultiplied.
            view: Requested view, limited to what the clip shows.
        """
        self.state: State = []
        self._compositor = HeadCompositor(renderer, clip, view)
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


def device_of(renderer: Renderer) -> torch.device:
    """Return the device that a renderer computes on.

    Args:
        renderer: The renderer.

    Returns:
        The device of its tensors.
    """
    return next(iter(renderer.tensors().values())).device


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
