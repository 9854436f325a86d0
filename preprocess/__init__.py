"""Preprocessing: turn footage of a person into an IdentityDataset."""
