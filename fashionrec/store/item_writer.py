"""Items in SQLite, writing: a new generation's file, complete or as a delta over the previous one.

A garment belongs to a photo's content (its sha256), an entry to a row of the product table, and an
item joins the two: a possible search result. Garments and captions stay when only products change.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from fashionrec.common.sqlite import open_foreign
from fashionrec.common.system import link
from fashionrec.store.content import CaptionRow, PhotoRow
from fashionrec.store.parts import PART_ITEMS, parts_of, write_changed, write_part, write_places
from fashionrec.store.rows import parse_table, typed
from fashionrec.store.schema import APPLICATION_ID, LAYERED, OLD_VERSION, READABLE, SCHEMA, SCHEMA_VERSION
from fashionrec.store.totals import (
    SEGMENT,
    count_changed,
    count_gone,
    count_rows,
    of_kind,
    read_gone,
    read_part_items,
    read_totals,
    write_totals,
)
from fashionrec.store.words import searchable

#: Limits for merging delta and base: items in the delta; its share of the base; and a number of
#: items that is always small enough.
MOST_CHANGED, _SHARE_CHANGED, _FEW = 20_000, 0.1, 100
#: A part of the delta is merged into the next if it has at most a base part's items divided by
#: this.
_SMALL_PART = 16


class ItemWriter:
    """Writes the items of a new generation to ``path``, from nothing or from a copy of ``source``.

    With ``changes`` nothing is copied: ``path`` becomes a hard link to ``source``, and the delta is
    written to ``changes``, starting from a copy of ``changed_before`` if the previous generation
    has a delta. Before anything of a photo changes, all rows of the photo are copied into the
    delta, and its rows in the base are marked as removed. If the delta exceeds a share of the base,
    or all places are needed, both are merged into a new base.
    """

    def __init__(
        self,
        path: Path,
        source: Path | None = None,
        *,
        changes: Path | None = None,
        changed_before: Path | None = None,
        part_items: int = PART_ITEMS,
        most_changed: int = MOST_CHANGED,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the files.

        ``check`` is called before rows of the source are copied, and raises if its content has
        changed.
        """
        self._path, self._source, self._changes = path, source, changes
        self._base_part, self._most_changed, self._check = part_items, most_changed, check
        self._touched: set[int] = set()
        self._moved: set[int] = set()  # parts in which only places of vectors change
        self._last: dict[str, int] = {}
        self._counted: tuple[int, Counter[str]] | None = None
        path.unlink(missing_ok=True)
        if source is None or changes is None or _version(source) == OLD_VERSION:
            self._changes, self._part_items = None, part_items
            if source is not None:
                check()
                shutil.copyfile(source, path)
            self._open(path)
        else:
            self._part_items = 1  # the delta tracks changes per item
            if changed_before is not None:
                shutil.copyfile(changed_before, changes)
            self._open(changes, source)
            for table, key in LAYERED.items():
                self._db.execute(f"CREATE TEMP TABLE fresh_{table} (key PRIMARY KEY) WITHOUT ROWID")
                where = f"{key} NOT IN (SELECT key FROM main.gone_{table})"
                self._db.execute(f"CREATE TEMP VIEW base_{table} AS SELECT * FROM other.{table} WHERE {where}")

    def _open(self, path: Path, attach: Path | None = None) -> None:
        self._db = open_foreign(path, READABLE, mode="rwc", attach=attach)
        self._db.execute("PRAGMA main.journal_mode = OFF")  # nobody reads the file before it is committed and synced
        self._db.execute("PRAGMA main.synchronous = OFF")
        self._db.execute("PRAGMA main.cache_size = -24576")
        known = self._db.execute("SELECT 1 FROM main.sqlite_master").fetchone()
        if known is None:
            self._db.execute(f"PRAGMA main.application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA main.user_version = {SCHEMA_VERSION}")
        self._db.execute("BEGIN")
        for statement in SCHEMA.split(";"):  # tables that a file of an earlier version lacks
            self._db.execute(re.sub("^\\s*CREATE (TABLE|INDEX)", r"CREATE \1 IF NOT EXISTS", statement))
        if self._db.execute("PRAGMA main.user_version").fetchone()[0] == OLD_VERSION:
            self._db.execute("DROP TABLE IF EXISTS item_text")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._touched.update(parts_of(self._db, self._part_items))
        elif known and self._changes is None:
            self._part_items = read_part_items(self._db)

    def _ask(self, sql: str, *values: Any) -> list[Any]:
        """Return the rows of a statement on ``{items}`` etc., of delta and remaining base."""
        main = {table: f"main.{table}" for table in LAYERED}
        rows = self._db.execute(sql.format(**main), values).fetchall()
        if self._changes is not None:
            base = {table: f"base_{table}" for table in LAYERED}
            rows += self._db.execute(sql.format(**base), values).fetchall()
        return rows

    def _bring(self, photo: str) -> None:
        """Copy a photo of the base into the delta, with all rows that belong to it."""
        if (
            self._changes is None
            or not self._db.execute("SELECT 1 FROM base_photos WHERE sha256 = ?", (photo,)).fetchone()
        ):
            return
        garments = "(SELECT garment_no FROM other.garments WHERE photo = ?)"
        which = {
            "photos": "sha256 = ?",
            "garments": "photo = ?",
            "captions": f"garment_no IN {garments}",
            "caption_words": f"garment_no IN {garments}",
            "entries": "photo = ?",
            "items": f"garment_no IN {garments}",
        }
        for table, where in which.items():
            self._db.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table} WHERE {where}", (photo,))
        for table, key in LAYERED.items():
            for keys in (f"main.gone_{table}", f"temp.fresh_{table}"):
                self._db.execute(f"INSERT INTO {keys} SELECT {key} FROM other.{table} WHERE {which[table]}", (photo,))
        rows = self._db.execute(f"SELECT item_no FROM other.items WHERE {which['items']}", (photo,))
        self._touched.update(number - 1 for (number,) in typed(rows, (int,)))

    def _bring_of(self, table: str, number: int) -> None:
        """Copy the photo of a garment or entry into the delta."""
        if self._changes is not None:
            key = LAYERED[table]
            for (photo,) in self._db.execute(f"SELECT photo FROM base_{table} WHERE {key} = ?", (number,)).fetchall():
                self._bring(photo)

    def _next(self, table: str) -> int:
        """Return the number of a new row: after the highest in both files."""
        sql = f"SELECT coalesce(max({LAYERED[table]}), 0) FROM {{}}.{table}"
        if table not in self._last:
            self._last[table] = self._db.execute(sql.format("other")).fetchone()[0] if self._changes is not None else 0
        return int(max(self._last[table], self._db.execute(sql.format("main")).fetchone()[0])) + 1

    def _become_base(self) -> None:
        """Merge base and delta into a new base."""
        if self._changes is None:
            return
        changes, self._changes, self._counted = self._changes, None, None
        self._check()
        self._db.execute("COMMIT")
        self._db.close()
        assert self._source is not None
        shutil.copyfile(self._source, self._path)
        self._open_merged(changes)
        changes.unlink()

    def _open_merged(self, changes: Path) -> None:
        self._open(self._path, changes)
        gone = "(SELECT key FROM other.gone_{})"
        for table in ("captions", "caption_words"):
            self._db.execute(f"DELETE FROM main.{table} WHERE garment_no IN {gone.format('garments')}")
        for table, key in reversed(LAYERED.items()):
            self._db.execute(f"DELETE FROM main.{table} WHERE {key} IN {gone.format(table)}")
        for table in (*LAYERED, "captions", "caption_words"):
            self._db.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table}")
        numbers = "SELECT key AS n FROM other.gone_items UNION ALL SELECT item_no FROM other.items"
        parts = self._db.execute(f"SELECT DISTINCT (n - 1) / ? FROM ({numbers})", (self._part_items,))
        self._touched = {int(part) for (part,) in parts}
        self._db.execute("COMMIT")
        self._db.execute("DETACH other")
        self._db.execute("BEGIN")

    def _write_parts(self) -> None:
        if self._changes is None:
            for part in sorted(self._touched):
                write_part(self._db, part, self._part_items)
            for part in sorted(self._moved - self._touched):
                write_places(self._db, part, self._part_items)
        elif self._touched:
            changed = {number + 1 for number in self._touched}
            write_changed(self._db, changed, self._base_part // _SMALL_PART)
        self._touched.clear()

    def add_photo(self, photo: PhotoRow) -> list[int]:
        """Add a photo with its garments; return the garments' numbers in order."""
        self._db.execute(
            "INSERT INTO photos VALUES (?, ?, ?, ?)", (photo.sha256, photo.width, photo.height, photo.build_key)
        )
        numbers = []
        for g in photo.garments:
            numbers.append(self._next("garments"))
            self._db.execute(
                f"INSERT INTO garments VALUES ({', '.join('?' * 14)})",
                (
                    *(numbers[-1], photo.sha256, g.position, g.class_name, g.confidence, *g.box, int(g.whole_photo)),
                    *(g.segment, g.row, g.thumb_offset, g.thumb_size),
                ),
            )
        return numbers

    def garment_numbers(self, photo: str) -> list[int]:
        """Return the numbers of a photo's garments, in order."""
        rows = self._ask("SELECT garment_no FROM {garments} WHERE photo = ? ORDER BY position", photo)
        return [int(row[0]) for row in rows]

    def garment_number(self, photo: str, position: int) -> int:
        """Return the number of one garment of a photo. Raises ``KeyError`` if there is none."""
        return self._number("SELECT garment_no FROM {garments} WHERE photo = ? AND position = ?", photo, position)

    def has_photo(self, sha256: str) -> bool:
        """Return whether a photo exists."""
        return bool(self._ask("SELECT 1 FROM {photos} WHERE sha256 = ?", sha256))

    def remove_photo(self, sha256: str) -> None:
        """Remove a photo with its garments and their captions, after its entries."""
        self._bring(sha256)
        garments = "(SELECT garment_no FROM garments WHERE photo = ?)"
        self._touch("garment_no IN (SELECT garment_no FROM garments WHERE photo = ?)", sha256)
        for table in ("captions", "caption_words"):
            self._db.execute(f"DELETE FROM {table} WHERE garment_no IN {garments}", (sha256,))
        self._db.execute("DELETE FROM garments WHERE photo = ?", (sha256,))
        self._db.execute("DELETE FROM photos WHERE sha256 = ?", (sha256,))

    def remove_photos_without_entries(self) -> int:
        """Remove every changed photo without entries; return how many."""
        sql = "SELECT sha256 FROM photos WHERE sha256 NOT IN (SELECT photo FROM entries)"
        gone = [row[0] for row in self._db.execute(sql).fetchall()]
        for sha256 in gone:
            self.remove_photo(sha256)
        return len(gone)

    def add_entry(self, image: str, base: str, product_id: str, photo: str, metadata: dict[str, Any]) -> int:
        """Add a row of the product table; return its number."""
        self._bring(photo)
        number = self._next("entries")
        row = (number, image, base, product_id, photo, json.dumps(metadata, ensure_ascii=False))
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
        return number

    def entry_number(self, image: str, product_id: str) -> int:
        """Return the number of a row of the product table. Raises ``KeyError`` if there is none."""
        return self._number("SELECT entry_no FROM {entries} WHERE image = ? AND product_id = ?", image, product_id)

    def change_entry(self, entry_no: int, base: str, metadata: dict[str, Any]) -> None:
        """Replace the data of a row of the product table; its items stay."""
        self._bring_of("entries", entry_no)
        self._touch("entry_no = ?", entry_no)
        self._db.execute(
            "UPDATE entries SET base = ?, metadata = ? WHERE entry_no = ?",
            (base, json.dumps(metadata, ensure_ascii=False), entry_no),
        )

    def remove_entry(self, entry_no: int) -> None:
        """Remove a row of the product table with its items."""
        self.remove_items(entry_no)
        self._db.execute("DELETE FROM entries WHERE entry_no = ?", (entry_no,))

    def entries_of(self, product_id: str, photo: str) -> list[tuple[int, dict[str, Any]]]:
        """Return number and metadata of each entry that shows a photo as a product."""
        sql = "SELECT entry_no, metadata FROM {entries} WHERE product_id = ? AND photo = ? ORDER BY entry_no"
        rows = typed(self._ask(sql, product_id, photo), (int, str))
        return [(number, parse_table(text)) for number, text in rows]

    def add_item(
        self, item_id: str, entry_no: int, garment_no: int, product_id: str, worn_with: bool, text: str
    ) -> None:
        """Add an item, unless its id exists; ``text`` is indexed for full-text search."""
        self._bring_of("entries", entry_no)
        if not self._ask("SELECT 1 FROM {items} WHERE item_id = ?", item_id):
            number = self._next("items")
            row = (number, item_id, entry_no, garment_no, product_id, int(worn_with), searchable(text))
            self._db.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._touched.add((number - 1) // self._part_items)

    def remove_items(self, entry_no: int) -> None:
        """Remove the items of an entry, and their words from full-text search."""
        self._bring_of("entries", entry_no)
        self._touch("entry_no = ?", entry_no)
        self._db.execute("DELETE FROM items WHERE entry_no = ?", (entry_no,))

    def add_caption(self, garment_no: int, caption: CaptionRow) -> None:
        """Set or replace the caption of a garment."""
        self._bring_of("garments", garment_no)
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
        """Index the items of some garments again by their present captions and product data."""
        for garment_no in garment_numbers:
            self._bring_of("garments", garment_no)
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
                    self._touched.add((item_no - 1) // self._part_items)

    def places(self) -> Iterable[tuple[int, str, int, int, int]]:
        """Yield number, segment, row, thumbnail offset and size of every garment, in disk order."""
        self._become_base()
        sql = "SELECT garment_no, segment, row, thumb_offset, thumb_size FROM garments ORDER BY segment, row"
        yield from typed(self._db.execute(sql).fetchall(), (int, str, int, int, int))

    def caption_places(self) -> Iterable[tuple[int, str, int]]:
        """Yield garment number, segment and row of every caption with a vector, in disk order."""
        self._become_base()
        sql = "SELECT garment_no, segment, row FROM captions WHERE segment IS NOT NULL ORDER BY segment, row"
        yield from typed(self._db.execute(sql).fetchall(), (int, str, int))

    def move(self, garment_no: int, segment: str, row: int, thumb_offset: int) -> None:
        """Set the new place of a garment's vector and thumbnail."""
        self._become_base()
        self._moved |= self._parts_with("garment_no = ?", garment_no)
        self._db.execute(
            "UPDATE garments SET segment = ?, row = ?, thumb_offset = ? WHERE garment_no = ?",
            (segment, row, thumb_offset, garment_no),
        )

    def move_caption(self, garment_no: int, segment: str, row: int) -> None:
        """Set the new place of a caption's vector."""
        self._become_base()
        self._db.execute("UPDATE captions SET segment = ?, row = ? WHERE garment_no = ?", (segment, row, garment_no))

    def segments(self) -> dict[str, int]:
        """Return how many rows of each segment are in use."""
        return of_kind(self._totals(), SEGMENT)

    def _totals(self) -> Counter[str]:
        """Return the counts over all rows, counted again if a row has changed."""
        if self._counted is None or self._counted[0] != self._db.total_changes:
            if self._changes is None:
                totals = count_rows(self._db, "main")
            else:
                totals = count_changed(self._db, "other", "main", self._all_gone())
            self._counted = self._db.total_changes, totals
        return self._counted[1]

    def close(self, *, shrink: bool = False) -> None:
        """Finish the files and write the parts of changed items; ``shrink`` runs VACUUM."""
        if shrink or self._is_large():
            self._become_base()
        totals = self._totals()
        self._write_parts()
        write_totals(self._db, totals, self._part_items, None if self._changes is None else self._all_gone())
        self._db.execute("COMMIT")
        if shrink:
            self._db.execute("VACUUM main")
        if self._changes is None:
            self._db.execute("PRAGMA optimize")
        self._db.close()
        if self._changes is not None and self._source is not None:
            link(self._source, self._path)

    def _is_large(self) -> bool:
        """Return whether the delta has grown so far that it must be merged into the base."""
        if self._changes is None:
            return False
        base = read_totals(self._db, "other") or count_rows(self._db, "other")
        count = "SELECT count(*) FROM main.{}"
        changed = sum(self._db.execute(count.format(table)).fetchone()[0] for table in ("gone_items", "items"))
        share = _SHARE_CHANGED * (base["items"] + base["worn_with"])
        return bool(changed > 2 * min(self._most_changed, max(_FEW, share)))

    def discard(self) -> None:
        """Close without finishing; the file is unusable afterwards."""
        self._db.close()

    def _number(self, sql: str, *key: Any) -> int:
        rows = self._ask(sql, *key)
        if not rows:
            raise KeyError(key)
        return int(rows[0][0])

    def _touch(self, which: str, key: Any) -> None:
        """Mark the parts of some items for rewriting."""
        self._touched |= self._parts_with(which, key)

    def _all_gone(self) -> Counter[str]:
        """Return the counts over all rows removed from the base, now or in earlier generations."""
        before = read_gone(self._db, "main")
        if before is None:
            return count_gone(self._db, "other", "main.gone_")
        return before + count_gone(self._db, "other", "temp.fresh_")

    def _parts_with(self, which: str, key: Any) -> set[int]:
        sql = f"SELECT DISTINCT (item_no - 1) / ? FROM items WHERE {which}"
        return {part for (part,) in typed(self._db.execute(sql, (self._part_items, key)), (int,))}


def _version(path: Path) -> int:
    with closing(open_foreign(path, READABLE, mode="immutable")) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def product_words(metadata: dict[str, Any], *captions: str) -> str:
    """Return an item's text for full-text search: product texts without links, and captions."""
    words = [str(value) for value in metadata.values() if isinstance(value, str) and "://" not in value]
    return " ".join([*words, *captions])
