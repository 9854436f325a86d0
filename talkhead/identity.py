"""A fitted person on disk: a folder of safetensors, JSON and an idle clip.

    anna/
      identity.json              Manifest: contents, origin, and a sha256 of every other file
      gaussian.safetensors ...   the files that the manifest names
      idle.mp4

`PackageWriter` writes one atomically. `export_package` turns one into a single file and
`import_package` back into a folder.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from talkhead import __version__, storage
from talkhead.config import from_json, limits
from talkhead.errors import PackageError
from talkhead.storage import ContentError, check_format, decode_json, short_repr
from talkhead.terminal import printable
from talkhead.types import MAX_SIDE_PX

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 3
MANIFEST_NAME = "identity.json"
IDLE_NAME = "idle.mp4"
EXPORT_SUFFIX = ".talkhead"
REMEDY = "Import or fit this identity again"
"""What to do about a damaged package."""

MAX_TENSOR_BYTES = 512 << 20
"""Largest safetensors file of a package; renderers take up to 35 MB."""
MAX_FILES = 64
"""Largest number of files of a package."""
MAX_PACKAGE_BYTES = (2 << 30) - 1
"""Largest exported file, the limit of zip without its 64-bit extension; a minute in 4K is 10 % of it."""
MAX_MANIFEST_BYTES = 4 << 20
MAX_CLIP_FRAMES = 1 << 20
LOCAL_HEADER_BYTES = 30
"""Size of the header before each file in a zip, without name and extra field."""
END, END_MARK = struct.Struct("<4s4H2LH"), b"PK\5\6"
"""The last record of a zip without a comment: its sixth number is the length of the list of files."""
MAX_LIST_BYTES = 64 << 10
"""Largest list of files at the end of a zip: 100 names of 100 characters take 15 kB."""

JsonObject = Mapping[str, Any]
"""Any JSON object; the component that wrote it reads it into its own config."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every member, so that exports are reproducible


@dataclass(frozen=True)
class FittedPart:
    """A fitted component of a package.

    Attributes:
        file: Name of the file with its tensors.
        config: Its settings.
    """

    file: str
    config: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class EncoderPart:
    """The speech encoder that the motion predictor was fitted with.

    Attributes:
        name: Its name.
        config: Its settings.
    """

    name: str
    config: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class SourceVideo:
    """The footage that the person was fitted on.

    Attributes:
        name: File name.
        sha256: Checksum of its content.
        duration_s: Seconds.
        width: Pixels, as displayed.
        height: Pixels, as displayed.
        frame_rate: Frames per second.
    """

    name: str
    sha256: str
    duration_s: float = field(metadata=limits(0.0, 1e9))
    width: int = field(metadata=limits(0, MAX_SIDE_PX))
    height: int = field(metadata=limits(0, MAX_SIDE_PX))
    frame_rate: float = field(metadata=limits(0.0, 1e6))


@dataclass(frozen=True)
class Manifest:
    """Content of identity.json.

    `files`, `created` and the versions are filled in by PackageWriter.

    Attributes:
        name: Name of the identity.
        seed: Seed of the fit.
        preset: Preset of the fit.
        source: The footage.
        encoder: The speech encoder.
        predictor: The motion predictor.
        renderers: Fitted renderers by name.
        default_renderer: One of these names.
        frame_width: Width of the idle clip and of the output, pixels.
        frame_height: Height of both, pixels.
        n_frames: Number of frames of the idle clip.
        av_offset_ms: How late the audio of the footage was; already corrected.
        consent: Statement of consent.
        figures: Results on the held-out frames.
        details: Further settings for `speak`.
        files: Checksum of each file by name.
        created: Time in ISO 8601.
        talkhead_version: Version of talkhead that wrote the package.
        format_version: Version of the format.
    """

    name: str
    seed: int
    preset: str
    source: SourceVideo
    encoder: EncoderPart
    predictor: FittedPart
    renderers: Mapping[str, FittedPart]
    default_renderer: str
    frame_width: int = field(metadata=limits(1, MAX_SIDE_PX))
    frame_height: int = field(metadata=limits(1, MAX_SIDE_PX))
    n_frames: int = field(metadata=limits(1, MAX_CLIP_FRAMES))
    av_offset_ms: float = 0.0
    consent: str | None = None
    figures: JsonObject = field(default_factory=dict)
    details: JsonObject = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    talkhead_version: str = ""
    format_version: int = FORMAT_VERSION

    def needed_files(self) -> set[str]:
        """Return the names of the files that the manifest's parts need, which must be among `files`."""
        return {IDLE_NAME, self.predictor.file} | {part.file for part in self.renderers.values()}


@dataclass(frozen=True)
class IdentityPackage:
    """A package folder whose files were all present and unchanged when it was loaded.

    Attributes:
        path: The folder.
        manifest: Its manifest.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path) -> IdentityPackage:
        """Load and verify a package.

        Args:
            path: Its folder.

        Returns:
            The package.

        Raises:
            PackageError: It is not a package, has a different format version, or a file is missing
                or changed.
        """
        if not (path / MANIFEST_NAME).is_file():
            raise PackageError(
                f"{path}: not an identity package, there is no {MANIFEST_NAME} in it. "
                "`talkhead identities list` shows those that you have"
            )
        data = storage.read_json(path / MANIFEST_NAME)
        package = cls(path, read_manifest(data, path))
        package.verify()
        return package

    def verify(self) -> None:
        """Check all files.

        Raises:
            PackageError: A file of the package is missing or changed.
        """
        for name, digest in self.manifest.files.items():
            file_path = self.path / name
            if not file_path.is_file():
                raise PackageError(f"{self.path}: {name} is missing. {REMEDY}")
            if storage.sha256_of(file_path) != digest:
                raise PackageError(f"{self.path}: {name} was changed or damaged. {REMEDY}")

    def file(self, name: str) -> Path:
        """Return the path of a file of the package.

        Args:
            name: Name of the file.

        Returns:
            Its path.

        Raises:
            PackageError: The package has no such file.
        """
        if name not in self.manifest.files:
            raise PackageError(f"{self.path}: there is no {name} in this identity package")
        return self.path / name

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read a safetensors file of the package.

        Args:
            name: Name of the file.

        Returns:
            Its tensors by name, of any shape.

        Raises:
            PackageError: The file is missing, too large or damaged.
        """
        return storage.read_tensors(self.file(name), MAX_TENSOR_BYTES)

    def content_errors(self, name: str, advice: str = REMEDY) -> AbstractContextManager[None]:
        """Return a context in which errors in a file's content name the file and say what to do.

        Args:
            name: Name of the file.
            advice: What to do.

        Returns:
            A context manager, see `talkhead.storage.content_errors`.
        """
        return storage.content_errors(self.path / name, advice)

    def renderer(self, name: str | None = None) -> tuple[str, FittedPart]:
        """Look up a fitted renderer.

        Args:
            name: Its name, None for the default one.

        Returns:
            Name and part.

        Raises:
            PackageError: The package was fitted without it.
        """
        name = name or self.manifest.default_renderer
        if name not in self.manifest.renderers:
            raise PackageError(
                f"{self.path}: fitted without the renderer {name}; it has "
                f"{', '.join(sorted(self.manifest.renderers))}. Pass one of these, or fit again"
            )
        return name, self.manifest.renderers[name]


def read_manifest(data: Any, path: Path) -> Manifest:
    """Convert parsed JSON to a manifest.

    Args:
        data: The parsed JSON.
        path: Its source, for messages.

    Returns:
        The manifest.

    Raises:
        PackageError: It has a different format version, or a field is unknown, missing or wrong.
    """
    version = data.get("format_version") if isinstance(data, dict) else None
    check_format(path, "identity package", version, FORMAT_VERSION, "Fit this identity again")
    try:
        manifest = from_json(Manifest, data)
        _check_manifest(manifest)
    except (ContentError, ValueError) as error:
        raise PackageError(f"{path}: {MANIFEST_NAME} is damaged: {error}. {REMEDY}") from error
    return manifest


def _check_manifest(manifest: Manifest) -> None:
    """Raise ValueError if the manifest contradicts itself or names files outside the package."""
    if len(manifest.files) > MAX_FILES:
        raise ValueError(f"it lists {len(manifest.files)} files, where {MAX_FILES} are allowed")
    for name in manifest.files:
        check_file_name(name)
    missing = manifest.needed_files() - set(manifest.files)
    if missing:
        raise ValueError(f"no checksum for {', '.join(sorted(missing))}")
    if manifest.default_renderer not in manifest.renderers:
        raise ValueError(
            f"the default renderer {printable(manifest.default_renderer)} is not in it"
        )


def check_file_name(name: str) -> None:
    """Check that a name is a plain file name, without folders and not hidden.

    Args:
        name: The name.

    Raises:
        ValueError: It is not.
    """
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise ValueError(f"{short_repr(name)} is not a valid name for a file in a package")


class PackageWriter:
    """Collects the files of a package next to its destination and moves it there atomically.

        with PackageWriter(home / "anna") as writer:
            writer.add_tensors("gaussian.safetensors", renderer.tensors())
            writer.add_file("idle.mp4", clip_path)
            package = writer.finish(manifest)

    Without `finish`, or after an exception, nothing is left behind and an existing package is unchanged.
    """

    def __init__(self, destination: Path) -> None:
        """Prepare a temporary folder next to the destination.

        Args:
            destination: Folder of the package.

        Raises:
            PackageError: The destination holds something that is not a package.
        """
        if destination.exists() and not _is_replaceable(destination):
            raise PackageError(f"{destination}: holds something else. Choose another name")
        if destination.exists():
            storage.remove_stale(destination.parent, f".{destination.name}.old-")
        self.destination = destination
        self.folder = storage.temp_path_for(destination)

    def __enter__(self) -> PackageWriter:
        storage.make_folder(self.destination.parent)
        storage.make_folder(self.folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        storage.remove(self.folder)

    def path(self, name: str) -> Path:
        """Return where to write a file of the package.

        Args:
            name: Name of the file.

        Returns:
            Path in the temporary folder.

        Raises:
            ValueError: It is not a plain file name.
        """
        check_file_name(name)
        return self.folder / name

    def add_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as a file of the package.

        Args:
            name: Name of the file.
            tensors: Tensors of any shape by name.

        Raises:
            TalkheadError: The disk is full.
        """
        storage.write_tensors(self.path(name), tensors)

    def add_file(self, name: str, source: Path) -> None:
        """Copy a file into the package.

        Args:
            name: Name in the package.
            source: The file.

        Raises:
            TalkheadError: It cannot be copied.
        """
        with storage.translate_os_errors(source):
            shutil.copyfile(source, self.path(name))

    def finish(self, manifest: Manifest) -> IdentityPackage:
        """Move the package to its destination, replacing an older one.

        Args:
            manifest: The manifest; checksums, versions and the date are filled in.

        Returns:
            The package.

        Raises:
            TalkheadError: The disk is full or not writable.
            ValueError: The manifest names files that were not added.
        """
        created = manifest.created or datetime.now(timezone.utc).isoformat(timespec="seconds")
        files = {p.name: storage.sha256_of(p) for p in sorted(self.folder.iterdir())}
        manifest = dataclasses.replace(
            manifest,
            files=files,
            created=created,
            talkhead_version=manifest.talkhead_version or __version__,
        )
        _check_manifest(manifest)
        storage.write_json(self.folder / MANIFEST_NAME, dataclasses.asdict(manifest))
        with storage.translate_os_errors(self.destination):
            for path in self.folder.iterdir():
                storage.sync(path)
            storage.sync(self.folder)
            old = f".{self.destination.name}.old-{secrets.token_hex(4)}"
            with storage.replace_directory(self.destination, self.destination.with_name(old)):
                os.replace(self.folder, self.destination)
        return IdentityPackage(self.destination, manifest)


def _is_replaceable(path: Path) -> bool:
    """Return True for a package or an empty folder, which may be replaced."""
    return path.is_dir() and ((path / MANIFEST_NAME).is_file() or not any(path.iterdir()))


def export_package(package: IdentityPackage, path: Path) -> Path:
    """Write a package as one file: a zip without compression, with the same bytes every time.

    Args:
        package: The package.
        path: The file.

    Returns:
        The file.

    Raises:
        TalkheadError: The file cannot be written.
    """
    with storage.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in [MANIFEST_NAME, *sorted(package.manifest.files)]:
            member = zipfile.ZipInfo(name, _EPOCH)
            member.external_attr = 0o644 << 16
            member.file_size = (package.path / name).stat().st_size
            with (package.path / name).open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return path


def import_package(path: Path, destination: Path) -> IdentityPackage:
    """Unpack and verify an exported file.

    Nothing outside the destination is written, whatever names the file contains.

    Args:
        path: The exported file.
        destination: Folder of the package; the name of the folder becomes that of the identity.

    Returns:
        The package.

    Raises:
        PackageError: The file is not an export or damaged, or the destination holds something else.
    """
    with _open_archive(path) as archive, PackageWriter(destination) as writer:
        manifest = _read_archive_manifest(archive, path)
        for name, digest in manifest.files.items():
            with storage.translate_os_errors(destination):
                _extract(archive, name, writer.path(name))
            if storage.sha256_of(writer.path(name)) != digest:
                raise PackageError(f"{path}: {name} is damaged. Export the identity again")
        return writer.finish(dataclasses.replace(manifest, name=destination.name))


def read_export_manifest(path: Path) -> Manifest:
    """Read the manifest of an exported file without unpacking it.

    Args:
        path: The exported file.

    Returns:
        The manifest.

    Raises:
        PackageError: The file is not an export or damaged.
    """
    with _open_archive(path) as archive:
        return _read_archive_manifest(archive, path)


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the zip at path; anything wrong with it inside the block becomes a PackageError."""
    try:
        with storage.translate_os_errors(path):
            _check_end(path)
            archive = zipfile.ZipFile(path)
        with archive:
            yield archive
    except _BAD_ZIP as error:
        reason = short_repr(str(error))
        raise PackageError(
            f"{path}: not an exported identity, or damaged ({reason}). Export the identity again"
        ) from error


_BAD_ZIP = (
    zipfile.BadZipFile,
    EOFError,
    UnicodeDecodeError,  # a name that is marked as UTF-8 and is not
    NotImplementedError,  # a version or a method that zipfile does not support
    OverflowError,
    struct.error,
)


def _check_end(path: Path) -> None:
    """Raise PackageError or BadZipFile unless a file ends as an export does, with a short list of files.

    zipfile would read a list of any length into memory.
    """
    storage.check_ordinary(path)
    size = path.stat().st_size
    if size > MAX_PACKAGE_BYTES:
        raise PackageError(
            f"{path}: has more than {MAX_PACKAGE_BYTES >> 30} GiB, too much for an export"
        )
    with path.open("rb") as stream:
        stream.seek(max(0, size - END.size))
        end = stream.read(END.size)
    if len(end) < END.size or not end.startswith(END_MARK):
        raise zipfile.BadZipFile("the list of its files is missing")
    n_bytes = END.unpack(end)[5]
    if n_bytes > MAX_LIST_BYTES:
        raise zipfile.BadZipFile(f"a list of files of {n_bytes} bytes")


def _read_archive_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    """Read the manifest of an opened export whose members are exactly the manifest's files."""
    members = archive.infolist()
    names = {member.filename for member in members}
    if MANIFEST_NAME not in names or len(names) != len(members) or not _is_export(members, path):
        raise PackageError(
            f"{path}: not an exported identity. Make one with `talkhead identities export`"
        )
    if archive.getinfo(MANIFEST_NAME).file_size > MAX_MANIFEST_BYTES:
        raise PackageError(f"{path}: {MANIFEST_NAME} in it is damaged (too large)")
    try:
        data = decode_json(archive.read(MANIFEST_NAME))
    except ValueError as error:
        raise PackageError(f"{path}: {MANIFEST_NAME} in it is damaged ({error})") from error
    manifest = read_manifest(data, path)
    if names != {MANIFEST_NAME, *manifest.files}:
        raise PackageError(f"{path}: its files are not those that its {MANIFEST_NAME} lists")
    return manifest


def _is_export(members: Sequence[zipfile.ZipInfo], path: Path) -> bool:
    """Check whether the members of an archive are as export_package writes them.

    They are few, uncompressed, not encrypted, and do not overlap, which could expand a small file.
    """
    if len(members) > MAX_FILES + 1:
        return False
    end = path.stat().st_size
    for member in sorted(members, key=lambda one: one.header_offset, reverse=True):
        stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        size = LOCAL_HEADER_BYTES + len(member.filename.encode()) + member.file_size
        fits = 0 <= member.header_offset <= end - size
        if not stored or member.file_size != member.compress_size or not fits:
            return False
        end = member.header_offset
    return True


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(name) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
