"""Compile the modules of web pages: python -m talkhead.app.web_export.build_modules

They come with talkhead, so this is only needed after a change of their sources. The compiler is Clang, in
the package ziglang; the same version of it makes the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from talkhead.storage import sha256_of

PAGE, SOURCES = Path(__file__).parent / "page", Path(__file__).parent / "module"
CHECKSUMS = SOURCES / "modules.sha256"
"""Checksums of the modules, as sha256sum prints them."""
MODULES = {"talkhead.wasm": SOURCES / "head", "talkhead-speech.wasm": SOURCES / "speech"}
"""Folder with the sources of each module: drawing, and speech."""
COMMON = SOURCES / "common"
"""Folder with the sources of both."""
FLAGS = (
    "-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory+nontrapping_fptoint",
    "-std=c17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-sanitize=all",
    "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare", "-nostdlib",
    "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--strip-all", "-Wl,--max-memory=201326592",
)  # fmt: skip


def build_module(name: str, folder: Path) -> None:
    """Compile a module.

    Args:
        name: Its name.
        folder: Where to write it.

    Raises:
        subprocess.CalledProcessError: The compiler has failed.
    """
    module = folder.absolute() / name
    sources = sorted(path for part in (COMMON, MODULES[name]) for path in part.glob("*.c"))
    paths = [path.relative_to(SOURCES).as_posix() for path in sources]
    command = (sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(module), *paths)
    subprocess.run(command, cwd=SOURCES, check=True)
    module.chmod(0o644)


def main() -> None:
    """Compile the modules into the folder of the page, and write their checksums."""
    for name in MODULES:
        build_module(name, PAGE)
    lines = [f"{sha256_of(PAGE / name)}  {name}\n" for name in MODULES]
    CHECKSUMS.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
