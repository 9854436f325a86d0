"""Compile the modules of web pages, which come with talkhead: python app/web_export/module/build.py

The compiler is Clang of the package ziglang. The same version makes the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent
PAGE = SOURCES.parent / "page"
SPEECH = "talkhead-speech.wasm"
MODULES = {SPEECH: ("speech*.c", "linear.c", "sections.c")}
"""Modules, and the sources of each."""
FLAGS = (
    "-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory+nontrapping_fptoint",
    "-std=c11", "-O3", "-ffp-contract=off", "-fno-sanitize=all", "-fvisibility=hidden",
    "-Wall", "-Wextra", "-Werror", "-nostdlib",
    "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
    "-Wl,--max-memory=134217728",
)  # fmt: skip


def build(name: str, folder: Path) -> Path:
    """Compile a module.

    Args:
        name: Name of the module.
        folder: Where to write it.

    Returns:
        The file.

    Raises:
        subprocess.CalledProcessError: The compiler has failed.
    """
    sources = sorted(path.name for pattern in MODULES[name] for path in SOURCES.glob(pattern))
    output = folder.absolute() / name
    compiler = (sys.executable, "-m", "ziglang", "cc")
    subprocess.run((*compiler, *FLAGS, "-o", str(output), *sources), cwd=SOURCES, check=True)
    output.chmod(0o644)
    return output


if __name__ == "__main__":
    for module in MODULES:
        build(module, PAGE)
