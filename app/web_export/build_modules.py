"""Compile the modules of web pages: python -m talkhead.app.web_export.build_modules

The compiler is Clang, in the package ziglang; the same version of it makes the same bytes. The modules
come with talkhead, so that this is only needed after a change of their sources.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCES, PAGE = (Path(__file__).parent / name for name in ("module", "page"))
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
