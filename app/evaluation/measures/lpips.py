"""LPIPS of image boxes, where the user has the package and AlexNet's weights. Nothing is fetched."""

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

from talkhead.app.evaluation.measures.image import Box
from talkhead.errors import TalkheadError
from talkhead.types import UInt8

ALEXNET = "alexnet-owt-7be5be79.pth"
"""Name that torchvision gives the weights."""
MIN_SIDE = 64
"""Pixels: boxes with a shorter side are scaled up to it, or AlexNet has nothing left to pool."""


def alexnet_path() -> Path:
    """Where torch looks for AlexNet's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


def lpips_unavailable_reason() -> str:
    """What is missing for LPIPS and how to get it, "" when nothing is."""
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
    """LPIPS, version 0.1, of AlexNet's features (Zhang et al. 2018, arXiv 1801.03924)."""

    def __init__(self, net: Any) -> None:
        """net: what lpips.LPIPS makes."""
        self._net = net

    @classmethod
    def load(cls) -> Perceptual | None:
        """The measure, None where something is missing (see lpips_unavailable_reason).

        Raises TalkheadError for weights that can't be read.
        """
        if lpips_unavailable_reason():
            return None
        try:
            with _offline(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torchvision, about lpips' way to call it
                net = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
        except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise TalkheadError(
                f"{alexnet_path()}: LPIPS can't be made of it ({reason}). Remove the file to do "
                "without LPIPS, or download it again"
            ) from error
        return cls(net.eval())

    def distance(self, image: UInt8, reference: UInt8, box: Box) -> float:
        """LPIPS of a box of two images [H, W, 3] RGB, 0 for equal ones; NaN for an empty box.

        Only the box's pixels are seen.
        """
        inside = box.clipped(*reference.shape[:2])
        if not inside.area:
            return float("nan")
        pair = (_as_input(inside.cut(i)) for i in (image, reference))
        with torch.no_grad():
            return float(self._net(*pair))


def _as_input(image: UInt8) -> Tensor:
    """An image as [1, 3, h, w] in [-1, 1], scaled up where it is small."""
    height, width = image.shape[:2]
    scale = MIN_SIDE / min(height, width)
    if scale > 1:
        size = (max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC))
    values = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    return values / 127.5 - 1.0


@contextmanager
def _offline() -> Iterator[None]:
    """Whatever wants to download by way of torch fails."""

    def refuse(url: str, *_: Any, **__: Any) -> NoReturn:
        raise OSError(f"it wants to download {url}")

    download = torch.hub.download_url_to_file
    torch.hub.download_url_to_file = refuse
    try:
        yield
    finally:
        torch.hub.download_url_to_file = download
