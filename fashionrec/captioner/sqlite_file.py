"""What the two files of what was paid for have in common: their transactions, and SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

from fashionrec.common.sqlite import UntrustedFile
from fashionrec.errors import Busy, CatalogueError, WriteError

#: What SQLite says where the disk is full or fails, also when a journal cannot be made beside the file.
_REFUSED_BY_THE_DISK = ("full", "I/O", "unable to open")


class SqliteFile:
    """A file opened by one process, closed at the end of its context."""

    #: The hint for a damaged file.
    again: ClassVar[str]
    path: Path
    _db: sqlite3.Connection

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything within is written, or nothing."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled back itself where the disk refused
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """SQLite's errors as :class:`Busy`, :class:`WriteError` or :class:`CatalogueError`."""
        path = self.path
        try:
            yield
        except UntrustedFile:
            raise
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Busy(f"{path} is being written by another process") from None
            if "no such" in str(error):
                raise self._damaged(str(error)) from None
            there = path.parent.is_dir() and not path.is_dir()
            if there and any(word in str(error) for word in _REFUSED_BY_THE_DISK):
                raise WriteError(f"{path} cannot be written: {error}", hint="what is in it is whole") from None
            raise CatalogueError(f"cannot use {path}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, reason: str) -> CatalogueError:
        return CatalogueError(f"{self.path} is damaged: {reason}", hint=self.again)
