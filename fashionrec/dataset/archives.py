"""Access to a folder, or to an untrusted archive unpacked into a temporary one.

An archive is refused as a whole, with a one-line error, for: names that are absolute, leave the
folder through ``..`` or differ only by case; links of any kind; devices and pipes; encrypted or
damaged content; and more unpacked bytes than the settings allow, counted while writing. Owners,
modes and times are ignored. An archive within an archive stays packed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fashionrec.common.system import WINDOWS
from fashionrec.config import DatasetConfig
from fashionrec.errors import DataError

#: The usual suffixes of archives; the content of the file decides.
SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".txz", ".xz", ".tbz", ".tbz2", ".bz2", ".7z", ".rar", ".zst")
#: Folder names that belong to a format: an archive whose only entry is one of these is not entered.
PARTS = frozenset("train training val valid validation test images labels annotations jpegimages imagesets".split())

_UNCHECKED = 1 << 20  # bytes up to which the ratio is not checked: a few small texts may compress very well
_BLOCK = 1 << 20
_MAX_HEADER = 1 << 20  # tarfile reads names and attributes of a member into memory
_DRIVE = re.compile(r"[A-Za-z]:")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, IndexError, OverflowError),
)
_HINT = "use another archive, or an unpacked folder"


@contextmanager
def open_archive(path: Path, workspace: Path, settings: DatasetConfig) -> Iterator[Path]:
    """Yield ``path`` itself, or a new folder below ``workspace`` with its unpacked archive.

    Zip, tar, and tar compressed with gzip, bzip2 or xz are recognized by their content. The
    unpacked folder is removed afterwards. A single folder at an archive's top is entered, unless
    its name belongs to a format. A file with neither the name nor the content of an archive (a
    ``data.yaml``) is yielded unchanged. Raises :class:`DataError`.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}", hint="check the path")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is neither a folder nor a file")
    kind = None if path.is_dir() else _kind(path)
    if kind is None:
        if path.is_file() and path.name.lower().endswith(SUFFIXES):
            raise DataError(
                f"{path} is damaged or not a supported archive",
                hint="use .zip, .tar, .tar.gz, .tar.xz or .tar.bz2",
            )
        yield path
        return
    workspace.mkdir(parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(prefix=".archive-", dir=workspace))
    try:
        _unpack(path, kind, target, settings)
        yield _enter_single_folder(target)

    finally:
        shutil.rmtree(target, ignore_errors=True)


def safe_parts(name: str, *, windows: bool = WINDOWS) -> tuple[str, ...]:
    """Return the parts of a member's name, none for the top.

    Raises :class:`ValueError` for an unsafe name.
    """
    plain = name.replace("\\", "/")
    if plain.startswith("/") or _DRIVE.match(plain):
        raise ValueError("an absolute path")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ValueError("a path that leads out of the folder")
    if any(ord(letter) < 32 for letter in plain):
        raise ValueError("a name with control characters")
    if windows and any(":" in part or part[-1] in ". " or _RESERVED.fullmatch(part) for part in parts):
        raise ValueError("a name that Windows does not allow")
    return parts


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(512)
    for magic, kind in ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"PK\x03\x04", "zip")):
        if head.startswith(magic):
            return kind
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return "tar"
    except tarfile.TarError:
        return "zip" if zipfile.is_zipfile(path) else None  # an empty zip, or a self-extracting one


def _unpack(path: Path, kind: str, target: Path, settings: DatasetConfig) -> None:
    size = path.stat().st_size
    allowed = min(settings.max_unpacked, max(_UNCHECKED, int(settings.max_ratio * size)))
    limit = "dataset.max_unpacked" if allowed == settings.max_unpacked else "dataset.max_ratio"
    folder = _Folder(path, target, allowed, limit, settings.max_members)
    try:
        if kind == "zip":
            _unpack_zip(path, folder)
        else:
            _unpack_tar(path, kind, folder)
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(f"{path} uses an unsupported compression: {error}", hint=_HINT) from None
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged: {error or 'it is truncated'}", hint="download it again") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 raise it for damaged content
            raise DataError(f"{path} is damaged: {error}", hint="download it again") from None
        raise DataError(f"{path} cannot be unpacked: {error.strerror}", hint="is the disk full?") from None


class _Folder:
    """The folder that an archive is unpacked into, with the checks of its content."""

    def __init__(self, archive: Path, target: Path, allowed: int, limit: str, members: int) -> None:
        self.archive, self.target = archive, target
        self.allowed, self.limit = allowed, limit
        self.members, self.written = members, 0
        self.names: dict[str, tuple[str, bool]] = {}

    def refuse(self, name: str, why: str) -> DataError:
        return DataError(f"{self.archive} contains {why}: {name[:100]!r}; nothing was imported", hint=_HINT)

    def count(self, total: int) -> None:
        """Raise :class:`DataError` if more bytes than allowed have been unpacked."""
        if total > self.allowed:
            raise DataError(
                f"{self.archive} unpacks to more than {self.allowed:,} bytes; nothing was imported",
                hint=f"it may be an archive bomb; if you trust it, raise {self.limit}",
            )

    def member(self, name: str, *, folder: bool) -> Path | None:
        """Return a member's path and make its folder. None for the top and for ``__MACOSX``."""
        self.members -= 1
        if self.members < 0:
            raise DataError(f"{self.archive} has too many members", hint="raise dataset.max_members")
        try:
            parts = safe_parts(name)
        except ValueError as error:
            raise self.refuse(name, str(error)) from None
        if not parts or parts[0] == "__MACOSX":
            return None
        for end in range(1, len(parts) + 1):
            self._claim("/".join(parts[:end]), is_folder=folder or end < len(parts), last=end == len(parts))
        place = self.target.joinpath(*parts)
        (place if folder else place.parent).mkdir(parents=True, exist_ok=True)
        return place

    def _claim(self, name: str, *, is_folder: bool, last: bool) -> None:
        key = unicodedata.normalize("NFC", name).casefold()
        existing = self.names.setdefault(key, (name, is_folder))
        if existing != (name, is_folder):
            raise self.refuse(name, f"two names that are equal on some machines ({existing[0][:100]!r})")
        if last and not is_folder:
            self.names[key] = (name, False)
            if (self.target / name).exists():
                raise self.refuse(name, "a duplicate name")

    def write(self, place: Path, content: IO[bytes]) -> int:
        """Write a new file block by block; return its size in bytes."""
        size = 0
        with place.open("xb") as file:
            while block := content.read(_BLOCK):
                size += len(block)
                self.written += len(block)
                self.count(self.written)
                file.write(block)
        return size


def _unpack_zip(path: Path, folder: _Folder) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise folder.refuse(info.filename, "a link")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise folder.refuse(info.filename, "a device or a pipe")
            if info.flag_bits & 0x41:
                raise DataError(f"{path} is encrypted", hint="unpack it yourself and use the folder")
            is_folder = info.orig_filename.endswith(("/", "\\"))
            place = folder.member(info.orig_filename, folder=is_folder)
            if place is not None and not is_folder:
                with archive.open(info) as content:
                    folder.write(place, content)


def _unpack_tar(path: Path, kind: str, folder: _Folder) -> None:
    unpackers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open, "tar": open}
    with unpackers[kind](path, "rb") as stream:
        counted: Any = _CountedStream(stream, folder)
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_CheckedHeader) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps them all in memory
                if member.size < 0:
                    raise _Damaged("a member has a negative size")
                if member.issym() or member.islnk():
                    raise folder.refuse(member.name, "a link")
                if not (member.isreg() or member.isdir()):
                    raise folder.refuse(member.name, "a device or a pipe")
                place = folder.member(member.name, folder=member.isdir())
                if hasattr(tarfile, "data_filter"):  # Python's own checks, if it has them
                    tarfile.data_filter(member, str(folder.target))
                if place is None or member.isdir():
                    continue
                content = archive.extractfile(member)
                if content is None or folder.write(place, content) != member.size:
                    raise tarfile.ReadError("unexpected end of data")


class _CountedStream:
    """The unpacked stream that tarfile reads, counted including headers and padding."""

    def __init__(self, stream: IO[bytes], folder: _Folder) -> None:
        self.stream, self.folder, self.total = stream, folder, 0

    def read(self, size: int) -> bytes:
        block = self.stream.read(size)
        self.total += len(block)
        self.folder.count(self.total)
        return block


class _CheckedHeader(tarfile.TarInfo):
    """A header check that tarfile lacks.

    tarfile takes a broken header within an archive for its end, and reads long names whole, of any
    length.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _CheckedHeader:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if bytes(buf) == bytes(tarfile.BLOCKSIZE):  # the proper end
                raise
            raise _Damaged(f"{error}" if buf else "it is truncated") from None
        if not header.isreg() and not header.isdir() and header.size > _MAX_HEADER:
            raise _Damaged("a header is too long")
        return header


class _Damaged(ValueError):
    """Damage that tarfile must not handle itself, unlike a tarfile.HeaderError."""


def _enter_single_folder(folder: Path) -> Path:
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name.lower() in PARTS:
            return folder
        folder = entries[0]
