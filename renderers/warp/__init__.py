"""The warp baseline: the person's own frames, warped to the target mouth."""
