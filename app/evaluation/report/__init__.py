"""The page and pictures that `evaluate` writes."""
