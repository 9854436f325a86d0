"""The WebAssembly module of web exports, run without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import wasmtime

from talkhead.app.web_export.build_modules import PAGE
from talkhead.types import Float32, UInt8

WASM = PAGE / "talkhead.wasm"
FINE, DAMAGED, OTHER_VERSION, TOO_LARGE = range(4)
"""Error codes of open_head."""


class WebModule:
    """An instance of the module. A trap raises wasmtime.Trap."""

    def __init__(self, path: Path = WASM) -> None:
        """Compile the module of a file."""
        engine = wasmtime.Engine()
        self._store = wasmtime.Store(engine)
        module = wasmtime.Module(engine, path.read_bytes())
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory: Any = self._exports["memory"]

    @property
    def memory_bytes(self) -> int:
        """Size of the memory."""
        return int(self._memory.data_len(self._store))

    def open(self, file: bytes) -> int:
        """Read a head; returns an error code."""
        start = self._call("reserve", len(file))
        if start == 0:
            return TOO_LARGE
        self._memory.write(self._store, file, start)
        return self._call("open_head", start, len(file))

    def facts(self) -> list[int]:
        """Return width, height, period, mouth components, crop width and crop height."""
        return [int(n) for n in self._read(self._call("get_facts"), 6, "<i4")]

    def patch(self, shown: int, mouth: Float32) -> tuple[int, int, UInt8]:
        """Draw the lower face; returns left, top and RGBA [h, w, 4] in source pixels."""
        return self._draw("draw_patch", shown, mouth)

    def head(self, shown: int, mouth: Float32) -> UInt8:
        """Draw the whole head, RGBA [H, W, 4]."""
        return self._draw("draw_head", shown, mouth)[2]

    def rendering(self) -> Float32:
        """Return premultiplied colors and opacity [h, w, 4] of the last drawing before it was pasted."""
        address = self._call("get_rendering")
        width, height, stride, *planes = (int(n) for n in self._read(address, 7, "<i4"))
        read = [self._read(plane, height * stride, "<f4") for plane in planes]
        return np.stack([plane.reshape(height, stride)[:, :width] for plane in read], axis=2)

    def _draw(self, name: str, shown: int, mouth: Float32) -> tuple[int, int, UInt8]:
        self._memory.write(self._store, np.asarray(mouth, "<f4").tobytes(), self._call("get_mouth"))
        self._call(name, shown)
        left, top, width, height = (int(n) for n in self._read(self._call("get_place"), 4, "<i4"))
        pixels = self._read(self._call("get_pixels"), 4 * width * height, "u1")
        return left, top, pixels.reshape(height, width, 4)

    def _read(self, address: int, n: int, kind: str) -> Any:
        stop = address + n * np.dtype(kind).itemsize
        return np.frombuffer(bytes(self._memory.read(self._store, address, stop)), kind)

    def _call(self, name: str, *arguments: int) -> Any:
        return self._exports[name](self._store, *arguments)
