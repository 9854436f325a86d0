"""Benchmarks of speed, memory and quality, printed as JSON lines. The README's numbers come from here."""
