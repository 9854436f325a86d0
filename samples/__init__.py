"""A synthetic person and a line of speech; the package holds the line."""
