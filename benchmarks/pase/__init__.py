"""Measurements of PASE, besides lips over folds; docs/pase.md has the tables."""
