"""Hashes of photo files from earlier builds, so that a nightly build only reads changed files.

A file counts as unchanged if its size and modification time are the same, and that time was well
before the hashing: a file written while it was read would otherwise never be read again (git calls
such entries racy). The file is only a cache: without it everything is hashed again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from fashionrec.common.batches import batched
from fashionrec.common.sqlite import open_foreign

#: Seconds before hashing within which a modification time proves nothing.
RACY = 2.0
#: Seconds between two commits: keys are random, so each commit rewrites nearly every page.
_COMMIT_EVERY = 10.0
_AT_ONCE = 512  # files per lookup

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
  path BLOB PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, hashed INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""


class SeenFiles:
    """Digests by path, size and modification time.

    Paths are stored as hashes, because catalogues are shared.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._due = time.monotonic() + _COMMIT_EVERY
        try:
            self._db = _open(path)
        except sqlite3.Error:  # damaged: it contains nothing that cannot be made again
            path.unlink(missing_ok=True)
            self._db = _open(path)

    def digests(self, files: Iterable[str]) -> dict[str, str]:
        """Return the sha256 of files that are unchanged since they were hashed."""
        found = {}
        for part in batched(files, _AT_ONCE):
            here = os.getcwd()  # noqa: PTH109 - pathlib takes several times as long
            keys = {file: _key(file, here) for file in part}
            sql = f"SELECT path, size, changed, hashed, sha256 FROM files WHERE path IN ({', '.join('?' * len(keys))})"
            rows = {row[0]: row[1:] for row in self._db.execute(sql, tuple(keys.values()))}
            for file, key in keys.items():
                if row := rows.get(key):
                    size, changed, hashed, sha256 = row
                    if hashed - changed > RACY * 1e9 and _state(file) == (size, changed):
                        found[file] = str(sha256)
        return found

    def put(self, digests: dict[str, tuple[int, int, int, str]]) -> None:
        """Record size, modification time, time of hashing (both in ns) and sha256 of files."""
        here = os.getcwd()  # noqa: PTH109 - as above
        self._db.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            ((_key(path, here), *entry) for path, entry in digests.items()),
        )
        if time.monotonic() >= self._due:
            self._db.commit()
            self._due = time.monotonic() + _COMMIT_EVERY

    def holds_more_than(self, count: float) -> bool:
        """Return whether more than ``count`` files are recorded."""
        return bool(self._db.execute("SELECT count(*) > ? FROM files", (count,)).fetchone()[0])

    def keep_only(self, files: Iterable[str]) -> None:
        """Delete all other files, and free their space."""
        here = os.getcwd()  # noqa: PTH109 - as above
        self._db.execute("CREATE TEMP TABLE kept (path BLOB PRIMARY KEY) WITHOUT ROWID")
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((_key(file, here),) for file in files))
            self._db.execute("DELETE FROM files WHERE path NOT IN (SELECT path FROM kept)")
        self._db.execute("DROP TABLE kept")
        self._db.execute("VACUUM")

    def close(self) -> None:
        self._db.commit()
        self._db.close()


def file_state(path: str) -> tuple[int, int, int] | None:
    """Return a file's size, modification time and the present time (ns) before it is hashed.

    None if it is missing.
    """
    state = _state(path)
    return None if state is None else (*state, time.time_ns())


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - of every file of a build, and pathlib takes several times as long
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _open(path: Path) -> sqlite3.Connection:
    db = open_foreign(path, _SCHEMA, mode="rwc", isolation_level="DEFERRED")
    try:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -65536")
        db.executescript(_SCHEMA)
        db.execute("DELETE FROM files WHERE 0")  # its header may mark the file as read-only
        db.rollback()
    except sqlite3.Error:
        db.close()
        raise
    return db


def _key(path: str, here: str) -> bytes:
    whole = os.path.join(here, path)  # noqa: PTH118 - as above
    return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).digest()[:16]
