"""Compile the module that follows speech in web pages: python -m talkhead.app.web_export.build_speech

The module comes with talkhead, so this is only needed after a change of its sources. The compiler is
Clang, in the package ziglang; the same version of it makes the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODULE = Path(__file__).parent / "page" / "talkhead-speech.wasm"
"""The compiled module."""
SOURCES = Path(__file__).parent / "module" / "speech"
"""Folder of its sources."""
FLAGS = (
    "-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory+nontrapping_fptoint",
    "-std=c17", "-O3", "-ffp-contract=off", "-fno-sanitize=all", "-fvisibility=hidden",
    "-Wall", "-Wextra", "-Werror", "-nostdlib",
    "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
    "-Wl,--max-memory=134217728",
)  # fmt: skip


def build_speech(module: Path) -> None:
    """Compile the module.

    Args:
        module: The file to write.

    Raises:
        subprocess.CalledProcessError: The compiler has failed.
    """
    sources = sorted(path.name for path in SOURCES.glob("*.c"))
    command = (sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(module.absolute()))
    subprocess.run((*command, *sources), cwd=SOURCES, check=True)
    module.chmod(0o644)


if __name__ == "__main__":
    build_speech(MODULE)
