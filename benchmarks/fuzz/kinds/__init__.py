"""The kinds of input: for each, which file is damaged and which command then reads it."""

from __future__ import annotations

from benchmarks.fuzz import bases, patches
from benchmarks.fuzz.kinds import arguments, media, packages, server, signed, stores, tables
from benchmarks.fuzz.trial import Suite

SUITE = Suite(
    (
        *media.KINDS,
        *packages.KINDS,
        *tables.KINDS,
        *signed.KINDS,
        *stores.KINDS,
        *arguments.KINDS,
        *server.KINDS,
    ),
    bases.build,
    patches.patch,
    patches.begin_case,
)
"""All kinds, in the order from which a case's kind is drawn."""
