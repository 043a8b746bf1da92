"""Open, write, list and remove entries of an untrusted folder.

Every operation of a :class:`Folder` walks from its root through directory handles and never follows
a link, so nothing outside the root can be read, written, listed or removed, not even if an entry is
replaced by a link meanwhile. The root itself may be reached through a link: that is the user's
choice.

Libraries that open files by path (SQLite, FAISS, ONNX Runtime) get paths checked by
:meth:`Folder.path`. Without directory handles (Windows), each component is checked before the path
is used.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, NamedTuple

from fashionrec.common import system
from fashionrec.errors import DataError, FashionrecError

Kind = Literal["file", "folder", "link", "special"]
Mode = Literal["rb", "r+b", "ab", "xb"]

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: A pipe is opened without waiting for its other end; the flag does not affect regular files.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_FLAGS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}
#: Temporary files of :meth:`Folder.write`, also as named by versions before 0.2 (by process id).
TEMPORARY = re.compile(r"^\..+\.[0-9a-f]+\.tmp$")
_DATABASE = re.compile(r"\.sqlite(-journal|-wal|-shm)?$")
#: Errors of opening a link, or a path through one.
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.ENXIO, errno.EISDIR)
_DEEPEST = 64
#: Characters of a name, and bytes of one part of it: no file system in use allows longer ones.
_LONGEST, _LONGEST_PART = 2048, 255


class Entry(NamedTuple):
    """An entry of a folder. ``name`` is relative to the root of the :class:`Folder`, with ``/``."""

    name: str
    kind: Kind
    size: int


class Folder:
    """A folder whose content is not trusted.

    ``what`` names it in messages ("catalogue", "bundle", "run"); refusals are raised as ``error``.
    Names are relative, with ``/`` between their parts. Missing entries raise ``FileNotFoundError``.
    """

    def __init__(self, root: str | Path, what: str = "folder", error: type[FashionrecError] = DataError) -> None:
        self.root, self.what, self.error = Path(root), what, error

    def check(self, expected: Mapping[str, Kind] | None = None) -> None:
        """Raise ``error`` for the first link or special file, or for excessively nested folders.

        ``expected`` gives the kinds that names must have, if they exist. Names of databases, and of
        the files that SQLite keeps next to them, must be files: SQLite would notice a folder only
        after writing other files.
        """
        for entry in self.walk():
            wanted = (expected or {}).get(entry.name, entry.kind)
            if entry.kind == "folder" and _DATABASE.search(entry.name):
                wanted = "file"
            if entry.kind not in ("file", "folder") or entry.kind != wanted:
                raise self.refusal(entry.name)

    def walk(self, name: str = "") -> Iterator[Entry]:
        """Yield everything below ``name``, sorted by folder; links are listed, not followed."""
        folders = [name]
        while folders:
            inside = folders.pop()
            if inside.count("/") > _DEEPEST:
                raise self.error(f"{self.what} {self.root}: folders are nested too deeply ({inside[:80]})")
            for entry in self.entries(inside):
                yield entry
                if entry.kind == "folder":
                    folders.append(entry.name)

    def entries(self, name: str = "") -> list[Entry]:
        """Return the entries of the folder ``name``, sorted; empty if it is missing."""
        prefix = f"{name}/" if name else ""
        try:
            with self._handle(name) as handle, os.scandir(handle) as scanned:
                entries = []
                for found in scanned:
                    with suppress(FileNotFoundError):  # removed meanwhile by another process
                        entries.append(Entry(prefix + found.name, *_kind(found.stat(follow_symlinks=False))))
        except FileNotFoundError:
            return []
        return sorted(entries, key=lambda entry: entry.name)

    def kind(self, name: str) -> Kind | None:
        """Return the kind of ``name``; None if it is missing."""
        try:
            with self._parent(name) as (handle, last):
                return _kind(os.stat(last, dir_fd=handle, follow_symlinks=False))[0]
        except FileNotFoundError:
            return None

    def open(self, name: str, mode: Mode = "rb") -> IO[bytes]:
        """Open a regular file; ``xb`` creates it and fails if anything has its name."""
        with self._parent(name) as (handle, last):
            if not system.has_handles() and mode != "xb" and self.kind(name) not in ("file", None):
                raise self.refusal(name)
            try:
                number = os.open(last, _FLAGS[mode] | _NO_FOLLOW | _NO_WAIT, 0o666, dir_fd=handle)
            except OSError as error:
                raise self._translate(error, name) from None
        try:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise self.refusal(name)
            return os.fdopen(number, mode.replace("x", "w"))
        except BaseException:
            with suppress(OSError):  # fdopen closes what it refuses
                os.close(number)
            raise

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self.open(name) as file:
            return file.read()

    def write(self, name: str, data: bytes | str, *, sync: bool = True) -> None:
        """Write a file atomically: a reader, or a crash, sees the old content or the new one.

        An existing file or link is replaced; a link's target is not touched. A folder is refused.
        Without ``sync`` the content may be incomplete after a crash of the machine: for files that
        are checked when read.
        """
        raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data  # a name may not be UTF-8
        with self._parent(name) as (handle, last):
            above, plain = os.path.split(last)
            temporary = str(Path(above, f".{plain}.{os.urandom(8).hex()}.tmp"))
            number = os.open(temporary, _FLAGS["xb"] | _NO_FOLLOW, 0o666, dir_fd=handle)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(raw)
                    if sync:
                        system.sync_file(file)
                system.replace(temporary, last, old_folder=handle, new_folder=handle)
            except BaseException as error:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=handle)
                if isinstance(error, IsADirectoryError | PermissionError) and self.kind(name) == "folder":
                    raise self.refusal(name) from None
                raise
            if sync:
                system.sync_folder(handle)

    def append(self, name: str, data: bytes) -> None:
        """Append to a file (created if missing) and sync it to disk.

        A file with hard links is replaced by a copy: the other names keep their content.
        """
        with self.open(name, "ab") as file:
            if os.fstat(file.fileno()).st_nlink == 1:
                file.write(data)
                system.sync_file(file)
                return
        self.write(name, self.read(name) + data)

    def make_folder(self, name: str, *, exist_ok: bool = False) -> Path:
        """Create a folder and its parents; return its path. Unless ``exist_ok`` it must be new."""
        parts = self._parts(name)
        for n in range(1, len(parts) + 1):
            part = "/".join(parts[:n])
            with self._parent(part) as (handle, last):
                try:
                    os.mkdir(last, 0o777, dir_fd=handle)
                except FileExistsError:
                    if n == len(parts) and not exist_ok:
                        raise
                    if self.kind(part) != "folder":
                        raise self.refusal(part) from None
        return self.root.joinpath(*parts)

    def path(self, name: str, kind: Literal["file", "folder"] | None = None) -> Path:
        """Return the path of ``name`` for a library that opens files by path.

        It is of the given ``kind``, or missing; never a link.
        """
        found = self.kind(name)
        if found in ("link", "special") or (kind is not None and found not in (kind, None)):
            raise self.refusal(name)
        return self.root.joinpath(*self._parts(name))

    def rename(self, name: str, to: str) -> None:
        """Move an entry within the folder; a file at ``to`` is replaced."""
        with self._parent(name) as (source, old), self._parent(to) as (target, new):
            system.replace(old, new, old_folder=source, new_folder=target)

    def remove(self, name: str, *, ignore_errors: bool = False) -> None:
        """Remove a file, a link (not its target), or a folder with its content, if it exists."""
        try:
            with self._parent(name) as (handle, last):
                if stat.S_ISDIR(os.stat(last, dir_fd=handle, follow_symlinks=False).st_mode):
                    shutil.rmtree(last, ignore_errors=ignore_errors, dir_fd=handle)
                else:
                    os.unlink(last, dir_fd=handle)
        except FileNotFoundError:
            return
        except OSError:
            if not ignore_errors:
                raise

    def sync(self, name: str = "") -> None:
        """Sync the entries of a folder, or the content of a file, to disk."""
        if name and self.kind(name) == "file":
            with self.open(name, "rb" if system.has_handles() else "r+b") as file:  # Windows only syncs writable files
                system.sync_file(file)
            return
        with self._handle(name) as handle:
            system.sync_folder(handle)

    def refusal(self, name: str) -> FashionrecError:
        """Return the error for an entry that is a link, a special file, or of the wrong kind."""
        path = self.root.joinpath(*name.split("/"))
        try:
            mode = path.lstat().st_mode
        except OSError:
            mode = 0
        if stat.S_ISLNK(mode) or is_link(path):
            found = "is a link"
            with suppress(OSError):
                found = f"is a link (to {str(path.readlink())[:200]})"
        elif stat.S_ISDIR(mode):
            found = "is a folder, not a file"
        elif stat.S_ISREG(mode):
            found = "is a file, not a folder"
        else:
            found = "is neither a file nor a folder" if mode else "is unusable"
        return self.error(
            f"{self.what} {self.root}: {name} {found}",
            hint="links and special files are never followed here: remove it, or get a copy without it",
        )

    def _parts(self, name: str) -> tuple[str, ...]:
        if not is_name(name):
            raise self.error(f"{self.what} {self.root}: {str(name)[:200]!r} is not a name inside it")
        return tuple(name.split("/"))

    @contextmanager
    def _handle(self, name: str) -> Iterator[int | str]:
        """Return the folder ``name`` as an open handle (as a path on systems without them)."""
        parts = self._parts(name) if name else ()
        if not system.has_handles():
            yield self._examine(parts)
            return
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for n, part in enumerate(parts, 1):
                try:
                    inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=handle)
                except OSError as error:
                    raise self._translate(error, "/".join(parts[:n])) from None
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int | None, str]]:
        """Return the parent folder and the last part of a name, for ``dir_fd`` of ``os``.

        Without directory handles: None and the whole path.
        """
        *above, last = self._parts(name)
        with self._handle("/".join(above)) as handle:
            if isinstance(handle, int):
                yield handle, last
            else:
                yield None, str(Path(handle, last))

    def _examine(self, parts: tuple[str, ...]) -> str:
        path = self.root
        for n, part in enumerate(parts, 1):
            path = path / part
            if not stat.S_ISDIR(path.lstat().st_mode) or is_link(path):
                raise self.refusal("/".join(parts[:n]))
        return str(path)

    def _translate(self, error: OSError, name: str) -> Exception:
        if error.errno in _LINK_ERRORS:
            return self.refusal(name)
        return error


def is_name(name: object) -> bool:
    """Return whether this is a relative name with ``/`` that cannot lead out of a folder."""
    if not isinstance(name, str) or len(name) > _LONGEST:
        return False
    return not any(
        part in ("", ".", "..")
        or "\0" in part
        or (system.WINDOWS and ("\\" in part or ":" in part))
        or len(part.encode("utf-8", "surrogatepass")) > _LONGEST_PART
        for part in name.split("/")
    )


def _kind(state: os.stat_result) -> tuple[Kind, int]:
    mode = state.st_mode
    if stat.S_ISLNK(mode) or getattr(state, "st_reparse_tag", 0) == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1):
        return "link", 0
    if stat.S_ISDIR(mode):
        return "folder", 0
    return ("file", state.st_size) if stat.S_ISREG(mode) else ("special", 0)


def is_link(path: Path) -> bool:
    """Return whether a path is itself a link (or, on Windows, a junction)."""
    with suppress(OSError):
        return _kind(path.lstat())[0] == "link"
    return False
