"""Damaged and hostile inputs for every command that reads a file: see docs/fuzzing.md."""
