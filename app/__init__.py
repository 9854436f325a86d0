"""The commands and what they orchestrate."""
