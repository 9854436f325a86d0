"""Footage of a person -> IdentityDataset."""
