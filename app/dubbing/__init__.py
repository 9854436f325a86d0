"""Dubbing at scale: tables of lines, and what works them off on one machine or on many."""
