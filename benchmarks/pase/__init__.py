"""What PASE is held to, besides the lips over folds: docs/pase.md has the tables."""
