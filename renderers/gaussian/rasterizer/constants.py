"""The constants that every rasterizer shares, so that their images agree.

They are gsplat's: those below that are marked so are compiled into its CUDA kernels and cannot be
changed there. The numba kernels receive them as arguments, because numba's on-disk cache does not
notice when a global of another file changes.
"""

from typing import Final

BLUR_PX2: Final = 0.3
"""Added to both diagonal elements of each projected covariance, px^2: no splat under a pixel."""

ALPHA_FLOOR: Final = 1.0 / 255.0
"""A splat whose alpha at a pixel is below this does not touch the pixel (compiled into gsplat)."""

ALPHA_CAP: Final = 0.999
"""Largest alpha of one splat at one pixel; no gradient flows above it (compiled into gsplat)."""

MIN_TRANSMITTANCE: Final = 1e-4
"""A pixel is finished before the splat that would bring it to this or less (compiled into
gsplat)."""

NEAR_PLANE: Final = 0.01
"""Gaussians whose centre is not farther from the camera plane than this are culled, world units."""

FAR_PLANE: Final = 1e10
"""Gaussians whose centre is not nearer to the camera plane than this are culled, world units."""

FOV_MARGIN: Final = 0.3
"""The projection's Jacobian is taken no farther outside the image than this x tan(half the field of
view) (compiled into gsplat)."""
