"""Common base of the SQLite files of paid work: transactions, and SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

from fashionrec.common.sqlite import UntrustedFile
from fashionrec.errors import Busy, CatalogueError, WriteError

#: Parts of SQLite's messages when the disk is full or fails, or a journal cannot be created.
_DISK_ERRORS = ("full", "I/O", "unable to open")


class SqliteFile:
    """An SQLite file used by one process; a context manager that closes it."""

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
        """Run the block in a transaction: all of it is written, or nothing."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite itself rolls back after a disk error
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Map SQLite's errors to :class:`Busy`, :class:`WriteError` or :class:`CatalogueError`."""
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
            is_accessible = path.parent.is_dir() and not path.is_dir()
            if is_accessible and any(word in str(error) for word in _DISK_ERRORS):
                raise WriteError(
                    f"{path} cannot be written: {error}",
                    hint="its content is intact: check the disk space and the permissions",
                ) from None
            raise CatalogueError(f"cannot use {path}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, reason: str) -> CatalogueError:
        return CatalogueError(f"{self.path} is damaged: {reason}", hint=self.again)
