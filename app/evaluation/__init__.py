"""Evaluation of renderings: metrics against held-out frames, and reports."""
