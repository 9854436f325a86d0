"""Publish finished files: move them from their own folder into place, all or none of them."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection
from pathlib import Path

from talkhead.app.output.finalize import mark_as_made_with
from talkhead.app.output.provenance import forget_sidecar, sidecar_of
from talkhead.app.request import srt_path
from talkhead.errors import TalkheadError
from talkhead.storage import make_folder, remove, replace_directory, sync, translate_os_errors


def publish_all(products: Path, output: Path) -> None:
    """Move all files of a folder next to the output, which is one of them.

    Args:
        products: Folder with the finished files.
        output: Path of the output.

    Raises:
        TalkheadError: A file cannot be moved.
    """
    names = product_names(products, output)
    for name in names:
        publish(products / name, output.parent / name)
    settle(output, names)


def settle(output: Path, names: Collection[str]) -> None:
    """Finish what files next to an output need once all are in place.

    A manifest of an older output is removed, and subtitles get the time stamp of their output.

    Args:
        output: Path of the output.
        names: Names of the files that were published with it.
    """
    if sidecar_of(output).name not in names:
        forget_sidecar(output)
    if srt_path(output).name in names:
        mark_as_made_with(srt_path(output), output)


def product_names(products: Path, output: Path) -> list[str]:
    """List the finished files.

    Args:
        products: Folder with the finished files.
        output: Path of the output.

    Returns:
        Names, the output itself last: once it is in place, all files are.
    """
    names = sorted(entry.name for entry in products.iterdir() if not entry.name.startswith("."))
    return sorted(names, key=lambda name: name == output.name)


def publish(source: Path, target: Path) -> None:
    """Move a finished file or folder into place, atomically.

    Args:
        source: The file. It may have been moved by an earlier call.
        target: Where it belongs.

    Raises:
        TalkheadError: It cannot be moved, or is in neither place.
    """
    aside = target.with_name(f".{target.name}.old")
    if not source.exists():
        if not target.exists():
            raise TalkheadError(
                f"{target}: was finished but is missing. Run the same command again"
            )
        remove(aside)  # the earlier call may have been killed just before that
        return
    if target.is_dir() and not source.is_dir():
        raise TalkheadError(f"{target}: this is a folder. Pass the name of a file")
    make_folder(target.parent)
    with translate_os_errors(target), replace_directory(target, aside):
        _move(source, target)


def _move(source: Path, target: Path) -> None:
    """Rename, or copy between disks. The temporary name is always the same: a killed process leaves
    at most one."""
    try:
        source.replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    temporary = target.with_name(f".{target.name}.new")
    remove(temporary)
    try:
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        sync(temporary)
        temporary.replace(target)
    finally:
        remove(temporary)
    remove(source)
