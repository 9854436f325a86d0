"""Training and data preparation of the shipped weights."""
