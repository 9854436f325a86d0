"""Fixtures of a server whose jobs are fakes."""

from __future__ import annotations

from serving import client, clip, people, serve, work

__all__ = ["client", "clip", "people", "serve", "work"]
