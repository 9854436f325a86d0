"""The report that `evaluate` writes: page, tables, plots and pictures."""
