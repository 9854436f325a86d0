"""Speech: waveform -> features -> motion codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkhead.lazy import lazy_attributes

if TYPE_CHECKING:
    from talkhead.encoder.registry import load_encoder as load_encoder
else:  # imported on first use: code that only uses phones doesn't need it
    __getattr__ = lazy_attributes(__name__, {"talkhead.encoder.registry": ("load_encoder",)})
