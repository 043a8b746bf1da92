"""Items in SQLite: photos, garments, product rows, items and captions of one generation, with full-text search.

A garment belongs to a photo's content (its sha256), an entry to a row of the product table, and an item joins the two:
what can be returned. Garments and their captions can so be reused when only products change.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fashionrec.errors import CatalogueError
from fashionrec.store.words import match_expression, searchable
from fashionrec.types import Box, Item

APPLICATION_ID = 0x46524543  # "FREC"
SCHEMA_VERSION = 1
_AGAIN = "copy the catalogue again, or build it again with `fashionrec build-index`"

_SCHEMA = """
CREATE TABLE photos (
  sha256 TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL, build_key TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE garments (
  garment_no INTEGER PRIMARY KEY, photo TEXT NOT NULL REFERENCES photos, position INTEGER NOT NULL,
  class_name TEXT, confidence REAL, x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  whole_photo INTEGER NOT NULL, segment TEXT NOT NULL, row INTEGER NOT NULL,
  thumb_offset INTEGER NOT NULL, thumb_size INTEGER NOT NULL,
  UNIQUE (photo, position), UNIQUE (segment, row)
);
CREATE TABLE entries (
  entry_no INTEGER PRIMARY KEY, image TEXT NOT NULL, product_id TEXT NOT NULL, photo TEXT NOT NULL REFERENCES photos,
  metadata TEXT NOT NULL, UNIQUE (image, product_id)
);
CREATE TABLE items (
  item_no INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, entry_no INTEGER NOT NULL REFERENCES entries,
  garment_no INTEGER NOT NULL REFERENCES garments, product_id TEXT NOT NULL, worn_with INTEGER NOT NULL
);
CREATE INDEX items_by_garment ON items (garment_no);
CREATE INDEX items_by_product ON items (product_id);
CREATE TABLE captions (
  garment_no INTEGER PRIMARY KEY REFERENCES garments, caption_en TEXT NOT NULL, caption_ko TEXT NOT NULL,
  attributes TEXT NOT NULL, embedding_text TEXT NOT NULL, captioner TEXT NOT NULL, segment TEXT, row INTEGER,
  UNIQUE (segment, row)
);
CREATE VIRTUAL TABLE item_text USING fts5 (words, content='', tokenize='unicode61');
"""


@dataclass(frozen=True)
class GarmentRow:
    """A garment as stored: where it is in its photo, and where its vector and thumbnail are."""

    position: int
    class_name: str | None
    confidence: float | None
    box: Box
    whole_photo: bool
    segment: str
    row: int
    thumb_offset: int
    thumb_size: int


@dataclass(frozen=True)
class PhotoRow:
    """A photo's content as stored, with its garments. ``build_key`` names the models and settings that found them."""

    sha256: str
    width: int
    height: int
    build_key: str
    garments: tuple[GarmentRow, ...]


@dataclass(frozen=True)
class CaptionRow:
    """A garment's caption as stored; ``segment`` and ``row`` say where the vector of its text is."""

    caption_en: str
    caption_ko: str
    attributes: dict[str, str]
    embedding_text: str
    captioner: str
    segment: str | None = None
    row: int | None = None


@dataclass(frozen=True)
class StoredItem:
    """An item with what search needs beside it."""

    item: Item
    item_no: int
    worn_with: bool
    garment_no: int
    photo: str
    image_at: tuple[str, int]
    caption_at: tuple[str, int] | None
    thumb: tuple[str, int, int]
    whole_photo: bool
    captions: dict[str, str] = field(default_factory=dict)


class ItemWriter:
    """Writes the items of a new generation into a new file."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")  # a new file that nobody reads before it is committed and synced
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def add_photo(self, photo: PhotoRow) -> list[int]:
        """Add a photo with its garments; returns the garments' numbers in order."""
        self._db.execute(
            "INSERT INTO photos VALUES (?, ?, ?, ?)", (photo.sha256, photo.width, photo.height, photo.build_key)
        )
        numbers = []
        for g in photo.garments:
            cursor = self._db.execute(
                "INSERT INTO garments (photo, position, class_name, confidence, x1, y1, x2, y2, whole_photo,"
                " segment, row, thumb_offset, thumb_size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(photo.sha256, g.position, g.class_name, g.confidence, *g.box, int(g.whole_photo)),
                    *(g.segment, g.row, g.thumb_offset, g.thumb_size),
                ),
            )
            numbers.append(int(cursor.lastrowid or 0))
        return numbers

    def add_entry(self, image: str, product_id: str, photo: str, metadata: dict[str, Any]) -> int:
        """Add one row of the product table; returns its number."""
        cursor = self._db.execute(
            "INSERT INTO entries (image, product_id, photo, metadata) VALUES (?, ?, ?, ?)",
            (image, product_id, photo, json.dumps(metadata, ensure_ascii=False)),
        )
        return int(cursor.lastrowid or 0)

    def add_item(
        self, item_id: str, entry_no: int, garment_no: int, product_id: str, worn_with: bool, text: str
    ) -> None:
        """Add an item; ``text`` is what full-text search finds it by."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO items (item_id, entry_no, garment_no, product_id, worn_with) VALUES (?, ?, ?, ?, ?)",
            (item_id, entry_no, garment_no, product_id, int(worn_with)),
        )
        if cursor.rowcount and text:
            self._db.execute("INSERT INTO item_text (rowid, words) VALUES (?, ?)", (cursor.lastrowid, searchable(text)))

    def add_caption(self, garment_no: int, caption: CaptionRow) -> None:
        _write_caption(self._db, garment_no, caption)

    def close(self) -> None:
        """Finish the file."""
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA optimize")
        self._db.close()


def copy_with_captions(source: Path, target: Path, captions: dict[int, CaptionRow]) -> set[str]:
    """Copy an items file with captions added or replaced, and their words made searchable.

    Returns the caption segments that the copy still refers to.
    """
    shutil.copyfile(source, target)
    with _translated(target):
        db = sqlite3.connect(target, isolation_level=None)
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        for garment_no, caption in captions.items():
            _write_caption(db, garment_no, caption)
        db.execute("INSERT INTO item_text (item_text) VALUES ('delete-all')")
        rows = db.execute(
            "SELECT i.item_no, e.metadata, c.caption_en, c.caption_ko FROM items i JOIN entries e USING (entry_no)"
            " LEFT JOIN captions c USING (garment_no) WHERE NOT i.worn_with ORDER BY i.item_no"
        ).fetchall()
        for item_no, metadata, english, korean in rows:
            words = product_words(json.loads(metadata), english or "", korean or "")
            db.execute("INSERT INTO item_text (rowid, words) VALUES (?, ?)", (item_no, searchable(words)))
        used = {row[0] for row in db.execute("SELECT DISTINCT segment FROM captions WHERE segment IS NOT NULL")}
        db.execute("COMMIT")
        db.close()
    return used


def product_words(metadata: dict[str, Any], *captions: str) -> str:
    """What full-text search finds an item by: the product's own texts (links left out) and its captions."""
    words = [str(value) for value in metadata.values() if isinstance(value, str) and "://" not in value]
    return " ".join([*words, *captions])


def _write_caption(db: sqlite3.Connection, garment_no: int, caption: CaptionRow) -> None:
    fields = json.dumps(caption.attributes, ensure_ascii=False)
    values = (garment_no, caption.caption_en, caption.caption_ko, fields, caption.embedding_text)
    db.execute(
        "INSERT OR REPLACE INTO captions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, caption.captioner, caption.segment, caption.row),
    )


_SELECT = """
SELECT i.item_no, i.item_id, i.product_id, i.worn_with, i.garment_no, e.image, e.metadata, e.photo,
  g.class_name, g.confidence, g.x1, g.y1, g.x2, g.y2, g.whole_photo, g.segment, g.row, g.thumb_offset, g.thumb_size,
  c.caption_en, c.caption_ko, c.attributes, c.segment, c.row
FROM items i JOIN entries e USING (entry_no) JOIN garments g USING (garment_no) LEFT JOIN captions c USING (garment_no)
"""


class ItemReader:
    """Reads the items of one generation. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        with _translated(path):
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise CatalogueError(f"catalogue is damaged: {path} is not an items file", hint=_AGAIN)
        if version != SCHEMA_VERSION:
            raise CatalogueError(f"{path} has schema {version}; this fashionrec reads {SCHEMA_VERSION}", hint=_AGAIN)

    @property
    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            with _translated(self._path):
                uri = self._path.resolve().as_uri() + "?mode=ro&immutable=1"
                self._local.db = sqlite3.connect(uri, uri=True)
        db: sqlite3.Connection = self._local.db
        return db

    def close(self) -> None:
        if hasattr(self._local, "db"):
            self._local.db.close()
            del self._local.db

    def at_rows(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], list[StoredItem]]:
        """The items whose image vectors are at some (segment, row) places; places that nothing refers to are left out."""
        found: dict[tuple[str, int], list[StoredItem]] = {}
        for stored in self._many(_SELECT + "WHERE (g.segment, g.row) IN (VALUES {})", list(places), 2):
            found.setdefault(stored.image_at, []).append(stored)
        return found

    def by_numbers(self, numbers: Sequence[int]) -> dict[int, StoredItem]:
        """Items by item number."""
        rows = self._many(_SELECT + "WHERE i.item_no IN (VALUES {})", [(n,) for n in numbers], 1)
        return {stored.item_no: stored for stored in rows}

    def everything(self) -> Iterable[StoredItem]:
        """Every item, in order."""
        with _translated(self._path):
            for row in self._db.execute(_SELECT + "ORDER BY i.item_no"):
                yield _stored(row)

    def text_search(self, query: str, limit: int) -> list[tuple[int, float]]:
        """Item numbers that match any word of the query, best first, with bm25 relevance (larger is better)."""
        expression = match_expression(query)
        if not expression:
            return []
        sql = "SELECT rowid, -bm25(item_text) FROM item_text WHERE item_text MATCH ? ORDER BY 2 DESC, 1 LIMIT ?"
        with _translated(self._path):
            return [(int(n), float(score)) for n, score in self._db.execute(sql, (expression, limit))]

    def photo(self, sha256: str) -> PhotoRow | None:
        """A photo's stored result, or None."""
        with _translated(self._path):
            row = self._db.execute("SELECT * FROM photos WHERE sha256 = ?", (sha256,)).fetchone()
            if row is None:
                return None
            garments = self._db.execute(
                "SELECT position, class_name, confidence, x1, y1, x2, y2, whole_photo, segment, row, thumb_offset,"
                " thumb_size FROM garments WHERE photo = ? ORDER BY position",
                (sha256,),
            ).fetchall()
        made = tuple(GarmentRow(g[0], g[1], g[2], Box(*g[3:7]), bool(g[7]), *g[8:]) for g in garments)
        return PhotoRow(row[0], row[1], row[2], row[3], made)

    def caption(self, sha256: str, position: int) -> CaptionRow | None:
        """The caption of one garment of a photo, or None."""
        sql = (
            "SELECT caption_en, caption_ko, attributes, embedding_text, captioner, c.segment, c.row"
            " FROM captions c JOIN garments g USING (garment_no) WHERE g.photo = ? AND g.position = ?"
        )
        with _translated(self._path):
            row = self._db.execute(sql, (sha256, position)).fetchone()
        return CaptionRow(row[0], row[1], json.loads(row[2]), *row[3:]) if row else None

    def product_ids(self) -> set[str]:
        with _translated(self._path):
            return {row[0] for row in self._db.execute("SELECT DISTINCT product_id FROM entries")}

    def counts(self) -> dict[str, int]:
        """Rows of each table."""
        with _translated(self._path):
            return {
                name: int(self._db.execute(sql).fetchone()[0])
                for name, sql in {
                    "photos": "SELECT count(*) FROM photos",
                    "garments": "SELECT count(*) FROM garments",
                    "items": "SELECT count(*) FROM items WHERE NOT worn_with",
                    "worn_with": "SELECT count(*) FROM items WHERE worn_with",
                    "products": "SELECT count(DISTINCT product_id) FROM items WHERE NOT worn_with",
                    "captions": "SELECT count(*) FROM captions",
                }.items()
            }

    def _many(self, sql: str, keys: Sequence[tuple[Any, ...]], width: int) -> Iterable[StoredItem]:
        for start in range(0, len(keys), 400):
            part = keys[start : start + 400]
            row = f"({', '.join('?' * width)})"
            values = [value for key in part for value in key]
            with _translated(self._path):
                yield from map(_stored, self._db.execute(sql.format(", ".join([row] * len(part))), values).fetchall())


@lru_cache(maxsize=4096)
def _parsed(text: str) -> dict[str, Any]:
    """A JSON object; the same ones come back query after query. Not to be changed: give out copies."""
    document: dict[str, Any] = json.loads(text)
    return document


def _stored(row: Sequence[Any]) -> StoredItem:
    caption = row[20] if row[20] else row[19]
    item = Item(
        item_id=row[1],
        product_id=row[2],
        image=row[5],
        class_name=row[8],
        box=Box(*row[10:14]),
        confidence=row[9],
        caption=caption or None,
        attributes=dict(_parsed(row[21])) if row[21] else {},
        metadata=dict(_parsed(row[6])),
    )
    return StoredItem(
        item=item,
        item_no=row[0],
        worn_with=bool(row[3]),
        garment_no=row[4],
        photo=row[7],
        image_at=(row[15], row[16]),
        caption_at=(row[22], row[23]) if row[22] is not None else None,
        thumb=(row[15], row[17], row[18]),
        whole_photo=bool(row[14]),
        captions={"en": row[19] or "", "ko": row[20] or ""} if row[19] or row[20] else {},
    )


class _translated:
    """SQLite's errors as :class:`CatalogueError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, sqlite3.Error):
            raise CatalogueError(f"catalogue is damaged: {self._path}: {error}", hint=_AGAIN) from None
