"""Items in SQLite, written: a new generation's file, from nothing or as a changed copy of the one before.

A garment belongs to a photo's content (its sha256), an entry to a row of the product table, and an item joins the two:
what can be returned. Garments and their captions stay when only products change.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fashionrec.common.sqlite import open_foreign
from fashionrec.store.content import CaptionRow, PhotoRow
from fashionrec.store.parts import PART_ITEMS, parts_of, write_part
from fashionrec.store.rows import parse_table, typed
from fashionrec.store.schema import APPLICATION_ID, OLD_VERSION, READABLE, SCHEMA, SCHEMA_VERSION
from fashionrec.store.words import searchable


class ItemWriter:
    """Writes the items of a new generation into a new file, which begins as a copy of ``source`` where one is given."""

    def __init__(self, path: Path, source: Path | None = None, *, part_items: int = PART_ITEMS) -> None:
        path.unlink(missing_ok=True)
        if source is not None:
            shutil.copyfile(source, path)
        self._db = open_foreign(path, READABLE, mode="rwc")
        self._db.execute("PRAGMA journal_mode = OFF")  # nobody reads the file before it is committed and synced
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA cache_size = -65536")
        self._part_items = part_items
        self._changed: set[int] = set()
        if source is None:
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._db.execute("BEGIN")
        for statement in SCHEMA.split(";"):  # what a file of an earlier version lacks
            self._db.execute(re.sub("^\\s*CREATE (TABLE|INDEX)", r"CREATE \1 IF NOT EXISTS", statement))
        if self._db.execute("PRAGMA user_version").fetchone()[0] == OLD_VERSION:
            self._db.execute("DROP TABLE IF EXISTS item_text")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._changed.update(parts_of(self._db, self._part_items))

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

    def garment_numbers(self, photo: str) -> list[int]:
        """The numbers of a photo's garments, in order."""
        rows = self._db.execute("SELECT garment_no FROM garments WHERE photo = ? ORDER BY position", (photo,))
        return [int(row[0]) for row in rows]

    def garment_number(self, photo: str, position: int) -> int:
        """The number of one garment of a photo. Raises ``KeyError`` where there is none."""
        sql = "SELECT garment_no FROM garments WHERE photo = ? AND position = ?"
        return self._number(sql, photo, position)

    def has_photo(self, sha256: str) -> bool:
        """Whether a photo is there."""
        return self._db.execute("SELECT 1 FROM photos WHERE sha256 = ?", (sha256,)).fetchone() is not None

    def remove_photo(self, sha256: str) -> None:
        """Take away a photo with its garments and their captions. Its entries must be gone."""
        garments = "(SELECT garment_no FROM garments WHERE photo = ?)"
        self._touch("garment_no IN (SELECT garment_no FROM garments WHERE photo = ?)", sha256)
        for table in ("captions", "caption_words"):
            self._db.execute(f"DELETE FROM {table} WHERE garment_no IN {garments}", (sha256,))
        self._db.execute("DELETE FROM garments WHERE photo = ?", (sha256,))
        self._db.execute("DELETE FROM photos WHERE sha256 = ?", (sha256,))

    def remove_photos_without_entries(self) -> int:
        """Take away every photo that no entry shows; returns how many."""
        sql = "SELECT sha256 FROM photos WHERE sha256 NOT IN (SELECT photo FROM entries)"
        gone = [row[0] for row in self._db.execute(sql).fetchall()]
        for sha256 in gone:
            self.remove_photo(sha256)
        return len(gone)

    def add_entry(self, image: str, base: str, product_id: str, photo: str, metadata: dict[str, Any]) -> int:
        """Add one row of the product table; returns its number."""
        cursor = self._db.execute(
            "INSERT INTO entries (image, base, product_id, photo, metadata) VALUES (?, ?, ?, ?, ?)",
            (image, base, product_id, photo, json.dumps(metadata, ensure_ascii=False)),
        )
        return int(cursor.lastrowid or 0)

    def entry_number(self, image: str, product_id: str) -> int:
        """The number of a row of the product table. Raises ``KeyError`` where there is none."""
        sql = "SELECT entry_no FROM entries WHERE image = ? AND product_id = ?"
        return self._number(sql, image, product_id)

    def change_entry(self, entry_no: int, base: str, metadata: dict[str, Any]) -> None:
        """Give a row of the product table other data; its items stay as they are."""
        self._touch("entry_no = ?", entry_no)
        self._db.execute(
            "UPDATE entries SET base = ?, metadata = ? WHERE entry_no = ?",
            (base, json.dumps(metadata, ensure_ascii=False), entry_no),
        )

    def remove_entry(self, entry_no: int) -> None:
        """Take away a row of the product table with its items."""
        self.remove_items(entry_no)
        self._db.execute("DELETE FROM entries WHERE entry_no = ?", (entry_no,))

    def entries_of(self, product_id: str, photo: str) -> list[tuple[int, dict[str, Any]]]:
        """Number and metadata of each entry that shows a photo as a product."""
        sql = "SELECT entry_no, metadata FROM entries WHERE product_id = ? AND photo = ? ORDER BY entry_no"
        rows = typed(self._db.execute(sql, (product_id, photo)), (int, str))
        return [(number, parse_table(text)) for number, text in rows]

    def add_item(
        self, item_id: str, entry_no: int, garment_no: int, product_id: str, worn_with: bool, text: str
    ) -> None:
        """Add an item, unless there is one of that id; ``text`` is what full-text search finds it by."""
        words = searchable(text)
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO items (item_id, entry_no, garment_no, product_id, worn_with, words)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (item_id, entry_no, garment_no, product_id, int(worn_with), words),
        )
        if cursor.rowcount:
            self._changed.add((int(cursor.lastrowid or 0) - 1) // self._part_items)

    def remove_items(self, entry_no: int) -> None:
        """Take away the items of an entry, and their words from full-text search."""
        self._touch("entry_no = ?", entry_no)
        self._db.execute("DELETE FROM items WHERE entry_no = ?", (entry_no,))

    def add_caption(self, garment_no: int, caption: CaptionRow) -> None:
        """Give a garment a caption, in place of the one it has."""
        self._touch("garment_no = ?", garment_no)
        fields = json.dumps(caption.attributes, ensure_ascii=False)
        values = (garment_no, caption.caption_en, caption.caption_ko, fields, caption.embedding_text)
        self._db.execute(
            "INSERT OR REPLACE INTO captions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, caption.captioner, caption.segment, caption.row),
        )
        self._db.execute("DELETE FROM caption_words WHERE garment_no = ?", (garment_no,))
        if caption.words:
            self._db.execute("INSERT INTO caption_words VALUES (?, ?)", (garment_no, caption.words))

    def reword(self, garment_numbers: Iterable[int]) -> None:
        """Make the items of some garments found by their present captions and product data."""
        for garment_no in garment_numbers:
            rows = self._db.execute(
                "SELECT i.item_no, i.words, e.metadata, coalesce(w.words, c.caption_en || ' ' || c.caption_ko, '')"
                " FROM items i JOIN entries e USING (entry_no) LEFT JOIN captions c USING (garment_no)"
                " LEFT JOIN caption_words w USING (garment_no) WHERE i.garment_no = ? AND NOT i.worn_with",
                (garment_no,),
            ).fetchall()
            for item_no, before, metadata, said in typed(rows, (int, str, str, str)):
                words = searchable(product_words(parse_table(metadata), said))
                if words != before:
                    self._db.execute("UPDATE items SET words = ? WHERE item_no = ?", (words, item_no))
                    self._changed.add((item_no - 1) // self._part_items)

    def places(self) -> Iterable[tuple[int, str, int, int, int]]:
        """Of every garment its number, segment, row, and the offset and size of its thumbnail, as they lie on the disk."""
        sql = "SELECT garment_no, segment, row, thumb_offset, thumb_size FROM garments ORDER BY segment, row"
        yield from typed(self._db.execute(sql).fetchall(), (int, str, int, int, int))

    def caption_places(self) -> Iterable[tuple[int, str, int]]:
        """Of every caption with a vector its garment's number, segment and row, as they lie on the disk."""
        sql = "SELECT garment_no, segment, row FROM captions WHERE segment IS NOT NULL ORDER BY segment, row"
        yield from typed(self._db.execute(sql).fetchall(), (int, str, int))

    def move(self, garment_no: int, segment: str, row: int, thumb_offset: int) -> None:
        """A garment's vector and thumbnail lie elsewhere now."""
        self._touch("garment_no = ?", garment_no)
        self._db.execute(
            "UPDATE garments SET segment = ?, row = ?, thumb_offset = ? WHERE garment_no = ?",
            (segment, row, thumb_offset, garment_no),
        )

    def move_caption(self, garment_no: int, segment: str, row: int) -> None:
        """A caption's vector lies elsewhere now."""
        self._db.execute("UPDATE captions SET segment = ?, row = ? WHERE garment_no = ?", (segment, row, garment_no))

    def segments(self) -> dict[str, int]:
        """How many rows of each segment are in use."""
        sql = (
            "SELECT segment, count(*) FROM garments GROUP BY segment"
            " UNION ALL SELECT segment, count(*) FROM captions WHERE segment IS NOT NULL GROUP BY segment"
        )
        return {str(name): int(count) for name, count in self._db.execute(sql)}

    def close(self, *, shrink: bool = False) -> None:
        """Finish the file: write the parts of what changed. ``shrink`` gives back the room of what was taken away."""
        for part in sorted(self._changed):
            write_part(self._db, part, self._part_items)
        self._db.execute("COMMIT")
        if shrink:
            self._db.execute("VACUUM")
        self._db.execute("PRAGMA optimize")
        self._db.close()

    def discard(self) -> None:
        """Close without finishing: the file is of no use afterwards."""
        self._db.close()

    def _number(self, sql: str, *key: Any) -> int:
        row = self._db.execute(sql, key).fetchone()
        if row is None:
            raise KeyError(key)
        return int(row[0])

    def _touch(self, which: str, key: Any) -> None:
        """The parts of some items are to be written anew."""
        sql = f"SELECT DISTINCT (item_no - 1) / ? FROM items WHERE {which}"
        self._changed.update(part for (part,) in typed(self._db.execute(sql, (self._part_items, key)), (int,)))


def product_words(metadata: dict[str, Any], *captions: str) -> str:
    """What full-text search finds an item by: the product's own texts (links left out) and its captions."""
    words = [str(value) for value in metadata.values() if isinstance(value, str) and "://" not in value]
    return " ".join([*words, *captions])
