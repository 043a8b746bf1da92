"""Atomic files: hashing, atomic writing, and small JSON documents."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fashionrec.common.folder import Folder
from fashionrec.common.text import json_text
from fashionrec.errors import Busy, UsageError


def sha256_file(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file atomically: a reader, or a crash, sees the old content or the new."""
    Folder(path.parent).write(path.name, data)


def temporary_beside(path: Path) -> Path:
    """Return an unused name next to a file, for a library that writes by path.

    The result then replaces the file.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def provisional_folder(folder: Path) -> Iterator[None]:
    """Create a folder with its parents; on a :class:`UsageError` remove new ones that are empty."""
    new = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except UsageError:
        with suppress(OSError):
            for path in new:
                path.rmdir()
        raise


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file at ``path``; its folder is created.

    ``doing`` is the purpose: "is writing data/catalogue". Raises :class:`Busy` at once if another
    process holds it; locks are released when a process dies. The file stays: others could otherwise
    hold one each. Only after a :class:`UsageError` (nothing was begun) is a new one removed, while
    it is held: filelock retries if the file that it locked was unlinked meanwhile.
    """
    from filelock import FileLock, Timeout

    with provisional_folder(path.parent):
        new = not os.path.lexists(path)
        lock = FileLock(Folder(path.parent).path(path.name, "file"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise Busy(f"another process {doing}", hint="wait for it to end, then try again") from None
        try:
            yield
        except UsageError:
            if new:
                with suppress(OSError):  # Windows keeps an open file
                    path.unlink(missing_ok=True)
            raise
        finally:
            lock.release()


def dump_json(value: Any) -> str:
    """Return indented UTF-8 JSON as in all our documents, ending with a newline; NaN is refused."""
    return json_text(value, indent=2, stored=True) + "\n"


def canonical_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, no spaces. For fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def fingerprint(value: Any) -> str:
    """Return the sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
