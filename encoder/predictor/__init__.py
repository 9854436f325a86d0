"""Predict one person's motion codes from speech features."""
