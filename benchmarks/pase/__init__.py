"""Measurements of PASE, apart from lips (benchmarks.lips); docs/pase.md has the tables."""
