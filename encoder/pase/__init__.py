"""PASE, the phoneme-aware speech encoder (arXiv 2504.05803)."""
