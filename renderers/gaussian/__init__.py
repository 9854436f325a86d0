"""The Gaussian head: 3-D Gaussian splatting with blendshapes on the tracked face mesh."""
