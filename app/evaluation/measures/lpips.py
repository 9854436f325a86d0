"""LPIPS of image boxes, if the package and AlexNet's weights are installed. Nothing is downloaded."""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.app.evaluation.measures.image import IMAGE_MEASURES, Box, FramePair
from talkhead.errors import TalkheadError
from talkhead.types import UInt8

ALEXNET = "alexnet-owt-7be5be79.pth"
"""torchvision's name for the weights."""
MIN_SIDE = 64
"""Boxes with a shorter side, in pixels, are scaled up to it, or AlexNet has nothing left to pool."""


def alexnet_path() -> Path:
    """Return the path at which torch looks for AlexNet's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


def lpips_unavailable_reason() -> str:
    """Explain what is missing for LPIPS and how to get it.

    Returns:
        One line; "" if nothing is missing.
    """
    for package in ("lpips", "torchvision"):
        if find_spec(package) is None:
            return f"LPIPS: the package {package} is not installed. pip install lpips"
    if not alexnet_path().is_file():
        return (
            f"LPIPS: {alexnet_path()} is missing. To download it: python -c "
            "'import torchvision; torchvision.models.alexnet(weights=\"DEFAULT\")'"
        )
    return ""


class Perceptual:
    """LPIPS, version 0.1, of AlexNet's features (Zhang et al. 2018, arXiv 1801.03924).

    Args:
        net: An instance of `lpips.LPIPS`.
    """

    def __init__(self, net: Any) -> None:
        self._net = net

    @classmethod
    def load(cls) -> Perceptual | None:
        """Load the network.

        Returns:
            The metric; None if something is missing, see `lpips_unavailable_reason`.

        Raises:
            TalkheadError: The weights cannot be read.
        """
        if lpips_unavailable_reason():
            return None
        try:
            with _offline(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torchvision warns of how lpips calls it
                net = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
        except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise TalkheadError(
                f"{alexnet_path()}: cannot be loaded for LPIPS ({reason}). Remove the file to "
                "evaluate without LPIPS, or download it again"
            ) from error
        return cls(net.eval())

    def distance(self, image: UInt8, reference: UInt8, box: Box) -> float:
        """Compute LPIPS of a box of two images. Only the pixels of the box are used.

        Args:
            image: Image [H, W, 3], RGB.
            reference: Real image [H, W, 3], RGB.
            box: Any box; its part inside the image counts.

        Returns:
            The distance, 0 for equal images; NaN for an empty box.
        """
        inside = box.clipped(*reference.shape[:2])
        if not inside.area:
            return float("nan")
        pair = (_as_input(inside.cut(i)) for i in (image, reference))
        with torch.no_grad():
            return float(self._net(*pair))


def _as_input(image: UInt8) -> Tensor:
    """Convert an image [h, w, 3] to [1, 3, h, w] in [-1, 1], scaled up if it is small."""
    height, width = image.shape[:2]
    scale = MIN_SIDE / min(height, width)
    if scale > 1:
        size = (max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC))
    values = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    return values / 127.5 - 1.0


@contextmanager
def _offline() -> Iterator[None]:
    """Make every download by torch fail."""

    def refuse(url: str, *_: Any, **__: Any) -> NoReturn:
        raise OSError(f"a download of {url} was requested")

    download = torch.hub.download_url_to_file
    torch.hub.download_url_to_file = refuse
    try:
        yield
    finally:
        torch.hub.download_url_to_file = download


@IMAGE_MEASURES.measure("lpips_face", label="LPIPS face", better="less", digits=3)
def _lpips_face(frame: FramePair) -> float | None:
    """Distance of AlexNet features in the face box."""
    return None if frame.lpips is None else frame.lpips(frame.image, frame.real, frame.face)


@IMAGE_MEASURES.measure("lpips_mouth", label="LPIPS mouth", better="less", digits=3)
def _lpips_mouth(frame: FramePair) -> float | None:
    """Distance of AlexNet features in the mouth box."""
    return None if frame.lpips is None else frame.lpips(frame.image, frame.real, frame.mouth)
