"""What the two files of what was paid for have in common: their transactions, and SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fashionrec.common.sqlite import UntrustedFile
from fashionrec.errors import Busy, CatalogueError, WriteError

#: What SQLite says where the disk is full or fails, also when a journal cannot be made beside the file.
_REFUSED_BY_THE_DISK = ("full", "I/O", "unable to open")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything within is written, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back itself where the disk refused
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def told_as_ours(path: Path, hint: str) -> Iterator[None]:
    """SQLite's errors as :class:`Busy`, :class:`WriteError` or :class:`CatalogueError`; ``hint`` is for a damaged file."""
    try:
        yield
    except UntrustedFile:
        raise
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise Busy(f"{path} is being written by another process") from None
        if "no such" in str(error):
            raise damaged(path, str(error), hint) from None
        there = path.parent.is_dir() and not path.is_dir()
        if there and any(word in str(error) for word in _REFUSED_BY_THE_DISK):
            raise WriteError(f"{path} cannot be written: {error}", hint="what is in it is whole") from None
        raise CatalogueError(f"cannot use {path}: {error}") from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error), hint) from None


def damaged(path: Path, reason: str, hint: str) -> CatalogueError:
    return CatalogueError(f"{path} is damaged: {reason}", hint=hint)
