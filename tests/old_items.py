"""Items files as earlier versions wrote them: an index of FTS5 for words, and no parts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fashionrec.store.schema import READABLE


def make_old(path: Path) -> Path:
    """Turn an items file into one of schema 2, in its place."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE arrays")
        db.execute(next(one for one in READABLE.split(";") if "USING fts5" in one))
        db.execute("INSERT INTO item_text (rowid, words) SELECT item_no, words FROM items WHERE words != ''")
        db.execute("PRAGMA user_version = 2")
    return path
