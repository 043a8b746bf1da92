"""Files that are whole or not there: hashing, atomic writing, and the small JSON documents beside the data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fashionrec.common.folder import Folder
from fashionrec.common.text import json_text
from fashionrec.errors import Busy


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    Folder(path.parent).write(path.name, data)


def temporary_beside(path: Path) -> Path:
    """A new name beside a file, for a library that writes by path and whose result then takes the file's place."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file at ``path`` (its folder is made). ``doing`` says what for: "is writing data/catalogue".

    Raises :class:`Busy` at once if another process holds it; a dead one does not. The file stays: taking it away would let
    two others hold it, each by a file of its own.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(Folder(path.parent).path(path.name, "file"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(f"another process {doing}", hint="wait for it to end, then run this again") from None
    try:
        yield
    finally:
        lock.release()


def dump_json(value: Any) -> str:
    """Indented UTF-8 JSON as all our documents have it, ending in a newline. NaN is refused."""
    return json_text(value, indent=2, stored=True) + "\n"


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces. For fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON, hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
