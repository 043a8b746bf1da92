"""The journal of a build: what is finished for each photo, so that a kill costs at most one checkpoint.

One SQLite file in ``work/``. A photo's result depends on its content and on the models and settings (``build_key``), on
nothing else, so whatever is in the journal can be used by any later build with the same key.
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

_SCHEMA = """
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
    """A garment as a build finds it, with its vector (float32 bytes) and its thumbnail (JPEG bytes)."""

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
    """Opened by the one writer. A damaged journal is started anew: it holds nothing that cannot be made again."""

    def __init__(self, path: Path, build_key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._key = build_key
        db: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):
            db = self._open(path)
        if db is None:  # the error has gone with what it held open: Windows would not remove the file before
            path.unlink(missing_ok=True)
        self._db = db or self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = open_foreign(path, _SCHEMA, mode="rwc")
        try:
            db.executescript(_SCHEMA)
            if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("malformed")
            db.execute("DELETE FROM photos WHERE 0")  # a header may say that nobody can write the file
        except sqlite3.Error:
            db.close()
            raise
        return db

    def has(self, sha256: str) -> bool:
        sql = "SELECT 1 FROM photos WHERE sha256 = ? AND build_key = ?"
        return self._db.execute(sql, (sha256, self._key)).fetchone() is not None

    def put(self, photos: Sequence[FoundPhoto]) -> None:
        """Record finished photos in one transaction."""
        self._db.execute("BEGIN")
        for photo in photos:
            key = (photo.sha256, self._key)
            self._db.execute("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?)", (*key, photo.width, photo.height))
            for position, g in enumerate(photo.garments):
                fields = json.dumps([g.class_name, g.confidence, list(g.box), g.whole_photo])
                self._db.execute(
                    "INSERT OR REPLACE INTO garments VALUES (?, ?, ?, ?, ?, ?)",
                    (*key, position, fields, g.vector, g.thumbnail),
                )
        self._db.execute("COMMIT")

    def get(self, sha256: str) -> FoundPhoto | None:
        key = (sha256, self._key)
        row = self._db.execute("SELECT width, height FROM photos WHERE sha256 = ? AND build_key = ?", key).fetchone()
        if row is None:
            return None
        sql = "SELECT garment, vector, thumbnail FROM garments WHERE sha256 = ? AND build_key = ? ORDER BY position"
        garments = []
        for fields, vector, thumbnail in self._db.execute(sql, key):
            class_name, confidence, box, whole = parse_json(fields)
            garments.append(FoundGarment(class_name, confidence, Box(*box), whole, vector, thumbnail))
        return FoundPhoto(sha256, row[0], row[1], tuple(garments))

    def close(self) -> None:
        self._db.close()
