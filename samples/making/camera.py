"""The sample's camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from head import Points


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at the person; positions in MakeHuman's space, in decimeters."""

    size_px: int = 384
    focal_px: float = 3.1 * 384
    eye: tuple[float, float, float] = (0.0, 8.0, 11.0)
    target: tuple[float, float, float] = (0.0, 7.96, 1.0)

    def intrinsics(self) -> Points:
        """K [3, 3], in pixels; pixel centers at half-integers, x right, y down."""
        centre = self.size_px / 2.0
        return np.array([[self.focal_px, 0, centre], [0, self.focal_px, centre], [0, 0, 1.0]])

    def viewmat(self) -> Points:
        """World (MakeHuman's space) to camera (OpenCV axes) [4, 4]."""
        eye, target = np.array(self.eye), np.array(self.target)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(forward, right), forward])
        view = np.eye(4)
        view[:3, :3], view[:3, 3] = turn, -turn @ eye
        return view

    def project(self, points: Points) -> Points:
        """Pixels [..., 2] of points [..., 3]."""
        view = self.viewmat()
        seen = (points @ view[:3, :3].T + view[:3, 3]) @ self.intrinsics().T
        return np.asarray(seen[..., :2] / seen[..., 2:])
