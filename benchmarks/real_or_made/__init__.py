"""Whether predicted lip trajectories can be told from tracked real ones; see __main__."""
