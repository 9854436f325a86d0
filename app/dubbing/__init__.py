"""Dubbing at scale: tables of lines, and the workers that process them on one machine or many."""
