"""Ways to damage a file, each drawn from a seeded generator: the same draws, the same file.

A mutation gives the new bytes and says in words what it did.
"""
