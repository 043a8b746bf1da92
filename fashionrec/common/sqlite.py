"""Open untrusted SQLite files so that nothing in them is executed, and no statement runs forever.

A file may contain views, triggers, generated columns or virtual tables that run code of its
author's choice in our statements; b-tree pages that refer to each other make a small file an
endless table; and a planted rollback journal can name any file of the user as its "super-journal",
which SQLite then deletes. https://www.sqlite.org/security.html
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

#: Bytes of one value or row: far more than product data, captions or thumbnails have.
MAX_VALUE = 16 << 20
#: Steps of SQLite's virtual machine per statement: our full scans take about one per byte of the
#: file.
_STEPS_PER_BYTE, _MOST_STEPS = 20, 2**31 - 1
#: Steps allowed for a statement on any file, however small.
MIN_STEPS = 5_000_000
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
#: Tables that SQLite adds itself: statistics of `PRAGMA optimize`, and those of an FTS5 index.
_STATISTICS = ("CREATE TABLE sqlite_stat1(tbl,idx,stat)", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)")
_FTS5 = re.compile(r"CREATE VIRTUAL TABLE (\w+) USING fts5 ?\(")
_FTS5_TABLES = (
    "CREATE TABLE '{}_data'(id INTEGER PRIMARY KEY, block BLOB)",
    "CREATE TABLE '{}_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID",
    "CREATE TABLE '{}_docsize'(id INTEGER PRIMARY KEY, sz BLOB)",
    "CREATE TABLE '{}_config'(k PRIMARY KEY, v) WITHOUT ROWID",
)

Mode = Literal["immutable", "ro", "rw", "rwc"]


class UntrustedFile(sqlite3.DatabaseError):
    """A file with content that its writer would not produce; the message has no path."""


def open_foreign(
    path: Path,
    schema: str,
    *,
    mode: Mode = "ro",
    timeout: float = 5.0,
    isolation_level: Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"] | None = None,
    max_value: int = MAX_VALUE,
    min_steps: int = MIN_STEPS,
    attach: Path | None = None,
) -> sqlite3.Connection:
    """Open a file whose tables and indexes must be those of its writer's script, or fewer.

    Args:
        schema: The script of the writer.
        mode: ``immutable`` (nobody writes it; no locks, no journal is read), ``ro`` (next to a
            journal: ``rw``), ``rw``, or ``rwc``, which creates a missing file.
        isolation_level: as for ``sqlite3.connect``.
        max_value: bytes of the largest text, blob or row.
        min_steps: steps allowed for a statement on any file, however small.
        attach: a second file with the same tables, which nobody writes: the schema ``other``.

    Raises:
        UntrustedFile: A link, a special file, a journal that names other files, or any table,
            view, trigger or index that ``schema`` does not create.
        sqlite3.Error: The file is damaged or missing.
    """
    size = _check_files(path)
    beside = 0 if attach is None else _check_files(attach)
    if mode == "ro" and path.with_name(path.name + "-journal").exists():
        mode = "rw"  # leftovers of a killed writer are rolled back first, which a reader may not do
    how = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    uri = f"{path.absolute().as_uri()}?{how}"
    db = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=isolation_level, factory=_Connection)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_value)
        _limit_steps(db, path, size, beside, min_steps)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            db.execute(f"PRAGMA {pragma}")
        _check_schema(db, _statements(schema))
        if attach is not None:
            db.execute("ATTACH ? AS other", (f"{attach.absolute().as_uri()}?mode=ro&immutable=1",))
            _check_schema(db, _statements(schema), "other")
    except BaseException:
        db.close()
        raise
    return db


def _check_files(path: Path) -> int:
    """Return the file's size, 0 if it is missing.

    SQLite follows links, and opens files with these names itself.
    """
    size = 0
    for suffix in ("", "-journal", "-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        try:
            state = beside.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(state.st_mode):
            kind = "link" if stat.S_ISLNK(state.st_mode) else "special file or folder"
            raise UntrustedFile(f"{beside.name} is a {kind}")
        size = max(size, state.st_size)
        if suffix == "-journal" and state.st_size >= len(_JOURNAL_MAGIC):
            with beside.open("rb") as file:
                file.seek(-len(_JOURNAL_MAGIC), os.SEEK_END)
                if file.read() == _JOURNAL_MAGIC:  # only written by transactions over several files, which we never use
                    raise UntrustedFile(f"{beside.name} names another file, which SQLite would delete")
    return size


class _Connection(sqlite3.Connection):
    """A connection that counts calls of its progress handler since the last statement began."""

    calls = 0

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self.calls = 0
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        self.calls = 0
        return super().executemany(*arguments)

    def executescript(self, *arguments: Any) -> sqlite3.Cursor:
        self.calls = 0
        return super().executescript(*arguments)


def _limit_steps(db: _Connection, path: Path, size: int, beside: int, least: int) -> None:
    """Interrupt statements that take more steps than the file's size allows; none in a new file.

    SQLite counts the steps of a prepared statement over all its executions, including those inside
    full-text search, so one call of the handler may come at any time. Two within one execution are
    one full count. Honest statements cost nothing.
    """
    if not size + beside:
        return
    steps = min(max(least, _STEPS_PER_BYTE * (size + beside)), _MOST_STEPS)

    def over() -> bool:
        db.calls += 1
        return (db.calls - 1) * steps >= max(steps, _STEPS_PER_BYTE * (path.stat().st_size + beside))  # may have grown

    db.set_progress_handler(over, steps)


def _check_schema(db: sqlite3.Connection, allowed: frozenset[str], schema: str = "main") -> None:
    for kind, name, sql in db.execute(f"SELECT type, name, sql FROM {schema}.sqlite_master"):
        if sql is None and kind == "index" and str(name).startswith("sqlite_autoindex_"):
            continue
        statement = _plain(str(sql))
        if statement not in allowed:
            raise UntrustedFile(f"its {str(kind)[:20]} {str(name)[:60]!r} is not part of fashionrec's schema")
        if found := _FTS5.match(statement):
            for (key,) in db.execute(f"SELECT k FROM {schema}.{found[1]}_config"):
                if key != "version":  # otherwise it would name ranking functions
                    raise UntrustedFile(f"its full-text index has the setting {str(key)[:60]!r}")


@lru_cache(maxsize=16)
def _statements(schema: str) -> frozenset[str]:
    """Return the texts that SQLite stores for the statements of a script."""
    found = {*_STATISTICS}
    for statement in schema.split(";"):
        text = _plain(statement).replace(" IF NOT EXISTS ", " ")
        if text.startswith("CREATE "):
            found.add(text)
            if name := _FTS5.match(text):
                found.update(one.format(name[1]) for one in _FTS5_TABLES)
    return frozenset(found)


def _plain(sql: str) -> str:
    return " ".join(sql.split())
