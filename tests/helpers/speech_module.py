"""The module of live speech of web pages, in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import wasmtime

from talkhead.app.web_export.build_modules import PAGE
from talkhead.types import Float32

FINE, DAMAGED, OTHER_VERSION = 0, 1, 2
_ENGINE = wasmtime.Engine()
SPEECH = "talkhead-speech.wasm"
_MODULE = wasmtime.Module.from_file(_ENGINE, str(PAGE / SPEECH))


class SpeechModule:
    """An instance of the module, with a file that was opened.

    Attributes:
        error: Error code of opening the file.
    """

    def __init__(self, file: bytes) -> None:
        self._store = wasmtime.Store(_ENGINE)
        self._exports = wasmtime.Instance(self._store, _MODULE, []).exports(self._store)
        self.open(file)

    def __call__(self, name: str, *values: int) -> Any:
        """Call an exported function."""
        return self._exports[name](self._store, *values)

    def open(self, file: bytes) -> None:
        start = self("reserve", len(file))
        self._memory.write(self._store, file, start)
        self.error = self("open_speech", start, len(file))

    @property
    def n_bytes(self) -> int:
        """Size of the module's memory."""
        return int(self._memory.data_len(self._store))

    def push(self, samples: Float32) -> Float32:
        """Add samples; returns codes [m, K]."""
        size, parts = self("get_input_size"), [self._codes(0)]
        for start in range(0, len(samples), size):
            piece = np.ascontiguousarray(samples[start : start + size], np.float32)
            self._memory.write(self._store, piece.tobytes(), self("get_input"))
            parts.append(self._codes(self("push", len(piece))))
        return np.concatenate(parts)

    def finish(self) -> Float32:
        """End the line; returns codes [m, K]."""
        return self._codes(self("finish"))

    def line(self, samples: Float32, size: int = 640, ahead: int = 250) -> Float32:
        """Return the codes [m, K] of a whole line in pieces."""
        self("begin", ahead)
        starts = range(0, len(samples), size)
        parts = [self.push(samples[start : start + size]) for start in starts]
        return np.concatenate([*parts, self.finish()])

    @property
    def _memory(self) -> Any:
        return self._exports["memory"]

    def _codes(self, n: int) -> Float32:
        start, n_mouth = self("get_codes"), self("get_n_mouth")
        data = self._memory.read(self._store, start, start + 4 * n * n_mouth)
        return np.frombuffer(data, np.float32).reshape(n, n_mouth)
