"""The cameras of a batch of images."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras without skew, one per image. Pixel centers are at half-integer coordinates.

    Attributes:
        viewmats: [B, 4, 4], world to camera, OpenCV axes.
        Ks: [B, 3, 3], intrinsics, px.
        height: Height of the images, px.
        width: Width of the images, px.
    """

    viewmats: Tensor
    Ks: Tensor
    height: int
    width: int
