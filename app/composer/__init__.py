"""Motion codes -> finished frames: the rendered head pasted into footage, or alone."""
