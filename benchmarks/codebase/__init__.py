"""Statistics of a checkout of talkhead: language, docstrings, structure, README."""
