"""The constants that all rasterizers share, so that their images agree.

They are gsplat's. Those marked below are compiled into its CUDA kernels and cannot be changed
there. The numba kernels receive them as arguments, because numba's on-disk cache does not notice
that a global of another file has changed.
"""

from typing import Final

BLUR_PX2: Final = 0.3
"""Added to both diagonal elements of each projected covariance, px^2: no splat is smaller than a
pixel.
"""

ALPHA_FLOOR: Final = 1.0 / 255.0
"""A splat contributes nothing to a pixel at which its alpha is lower (compiled into gsplat)."""

ALPHA_CAP: Final = 0.999
"""Maximum alpha of one splat at one pixel; no gradient flows above it (compiled into gsplat)."""

MIN_TRANSMITTANCE: Final = 1e-4
"""A pixel is finished before the splat that would reduce its transmittance to this or less (compiled
into gsplat)."""

NEAR_PLANE: Final = 0.01
"""Near plane: Gaussians whose center is not beyond it are culled, world units."""

FAR_PLANE: Final = 1e10
"""Far plane: Gaussians whose center is not in front of it are culled, world units."""

FOV_MARGIN: Final = 0.3
"""The projection's Jacobian is evaluated no farther outside the image than this times the tangent of
half the field of view (compiled into gsplat).
"""
