"""Shipped weights. None yet: what is fitted now is fitted per person."""
