"""Atomic files: hashing, atomic writing, and small JSON documents."""

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
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    Folder(path.parent).write(path.name, data)


def temporary_beside(path: Path) -> Path:
    """Yield a new name next to a file, for a library that writes by path; the result then replaces
    the file.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file at ``path`` (its folder is created). ``doing`` is the purpose: "is writing
    data/catalogue".

    Raises :class:`Busy` at once if another process holds it. The file stays: deleting it would let
    two others hold it, each with a file of its own.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(Folder(path.parent).path(path.name, "file"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(f"another process {doing}", hint="wait for it to end, then try again") from None
    try:
        yield
    finally:
        lock.release()


def dump_json(value: Any) -> str:
    """Return indented UTF-8 JSON in the format of all our documents, ending with a newline. NaN is
    refused.
    """
    return json_text(value, indent=2, stored=True) + "\n"


def canonical_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, no spaces. For fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def fingerprint(value: Any) -> str:
    """Return the sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
