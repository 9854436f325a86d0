"""Diagnosis of an installation, and the speed of this machine."""
