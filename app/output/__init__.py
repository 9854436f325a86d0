"""Frames and sound -> a finished file, with subtitles and signed provenance."""
