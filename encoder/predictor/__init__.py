"""Speech features -> motion codes of one person."""
