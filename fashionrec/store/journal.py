"""The journal of a build: results of finished photos; a kill costs at most one checkpoint.

One SQLite file in ``work/``. A photo's result depends only on its content and on the models and
settings (``build_key``), so any later build with the same key can use the journal.

Rows are only appended, without an index in another order: a commit writes little more than the new
rows. (With random keys, each photo would rewrite a page of every index, and copy it to the rollback
journal first.)
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fashionrec.common.documents import parse_json
from fashionrec.common.sqlite import open_foreign
from fashionrec.types import Box

#: The garments of a photo are consecutive rows. Among several rows of one photo the last one
#: counts.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS photos (
  photo_no INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, build_key TEXT NOT NULL, width INTEGER NOT NULL,
  height INTEGER NOT NULL, first_garment INTEGER NOT NULL, garments INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS garments (
  garment_no INTEGER PRIMARY KEY, garment TEXT NOT NULL, vector BLOB NOT NULL, thumbnail BLOB NOT NULL
);
"""
#: Tables of earlier versions, whose builds are resumed.
_KEYED = """
CREATE TABLE IF NOT EXISTS photos (
  sha256 TEXT NOT NULL, build_key TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
  PRIMARY KEY (sha256, build_key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garments (
  sha256 TEXT NOT NULL, build_key TEXT NOT NULL, position INTEGER NOT NULL, garment TEXT NOT NULL,
  vector BLOB NOT NULL, thumbnail BLOB NOT NULL, PRIMARY KEY (sha256, build_key, position)
);
"""


@dataclass(frozen=True)
class FoundGarment:
    """A garment found by a build, with its vector (float32 bytes) and thumbnail (JPEG bytes)."""

    class_name: str | None
    confidence: float | None
    box: Box
    whole_photo: bool
    vector: bytes
    thumbnail: bytes


@dataclass(frozen=True)
class FoundPhoto:
    sha256: str
    width: int
    height: int
    garments: tuple[FoundGarment, ...]


class Journal:
    """The journal file, opened by the only writer.

    A damaged one is replaced: it contains nothing that cannot be made again.
    """

    def __init__(self, path: Path, build_key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._key = build_key
        db: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):
            db = _open(path)
        if db is None:  # the error is gone with the handles it kept open, which on Windows would block the removal
            path.unlink(missing_ok=True)
        self._db = db or _open(path)
        sql = "SELECT sha256, photo_no FROM photos WHERE build_key = ? ORDER BY photo_no"
        self._numbers: dict[str, int] = dict(self._db.execute(sql, (build_key,)))

    def has(self, sha256: str) -> bool:
        return sha256 in self._numbers

    def put(self, photos: Sequence[FoundPhoto]) -> None:
        """Record finished photos in one transaction."""
        self._db.execute("BEGIN")
        numbers = {photo.sha256: _add(self._db, photo, self._key) for photo in photos}
        self._db.execute("COMMIT")
        self._numbers |= numbers

    def get(self, sha256: str) -> FoundPhoto | None:
        if sha256 not in self._numbers:
            return None
        sql = "SELECT width, height, first_garment, garments FROM photos WHERE photo_no = ?"
        width, height, first, count = self._db.execute(sql, (self._numbers[sha256],)).fetchone()
        sql = "SELECT garment, vector, thumbnail FROM garments WHERE garment_no >= ? ORDER BY garment_no LIMIT ?"
        garments = []
        for fields, vector, thumbnail in self._db.execute(sql, (first, count)):
            class_name, confidence, box, whole = parse_json(fields)
            garments.append(FoundGarment(class_name, confidence, Box(*box), whole, vector, thumbnail))
        return FoundPhoto(sha256, width, height, tuple(garments))

    def close(self) -> None:
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    db = open_foreign(path, _SCHEMA + _KEYED, mode="rwc")
    try:
        db.executescript(_SCHEMA)
        if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("malformed")
        if "photo_no" not in {row[1] for row in db.execute("PRAGMA table_info(photos)")}:
            _convert(db)
        db.execute("DELETE FROM photos WHERE 0")  # its header may mark the file as read-only
    except sqlite3.Error:
        db.close()
        raise
    return db


def _convert(db: sqlite3.Connection) -> None:
    """Convert keyed tables to the present form."""
    db.execute("BEGIN")
    for table in ("photos", "garments"):
        db.execute(f"ALTER TABLE {table} RENAME TO keyed_{table}")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO garments SELECT rowid, garment, vector, thumbnail FROM keyed_garments ORDER BY rowid")
    db.execute(
        "INSERT INTO photos (sha256, build_key, width, height, first_garment, garments)"
        " SELECT p.sha256, p.build_key, p.width, p.height, coalesce(min(g.rowid), 0), count(g.rowid)"
        " FROM keyed_photos p LEFT JOIN keyed_garments g USING (sha256, build_key) GROUP BY p.sha256, p.build_key"
    )
    for table in ("photos", "garments"):
        db.execute(f"DROP TABLE keyed_{table}")
    db.execute("COMMIT")


def _add(db: sqlite3.Connection, photo: FoundPhoto, key: str) -> int:
    """Append a photo; return its number."""
    first: int | None = None
    for g in photo.garments:
        fields = json.dumps([g.class_name, g.confidence, list(g.box), g.whole_photo])
        sql = "INSERT INTO garments (garment, vector, thumbnail) VALUES (?, ?, ?)"
        number = db.execute(sql, (fields, g.vector, g.thumbnail)).lastrowid
        first = number if first is None else first
    row = (photo.sha256, key, photo.width, photo.height, first or 0, len(photo.garments))
    sql = "INSERT INTO photos (sha256, build_key, width, height, first_garment, garments) VALUES (?, ?, ?, ?, ?, ?)"
    return int(db.execute(sql, row).lastrowid or 0)
