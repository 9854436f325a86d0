"""Frames and audio -> a finished file, with subtitles and signed provenance."""
