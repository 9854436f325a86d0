"""Ways to damage a file, each drawn from a seeded generator: equal seeds give equal files.

A mutation returns the new bytes and a description of the change.
"""
