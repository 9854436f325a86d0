"""Waveform -> speech features -> motion codes."""
