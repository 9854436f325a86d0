"""Speech: waveform -> features -> motion codes."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """load_encoder, without the cost of PyTorch for those who want phones alone."""
    if name == "load_encoder":
        from talkhead.encoder.registry import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
