"""The baseline: own frames, warped."""
