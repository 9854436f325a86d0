"""Synthetic speech with known phone times, on which PASE is trained."""
