"""The measures that `evaluate` computes."""
