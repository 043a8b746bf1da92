"""Items in SQLite, reading: photos, garments, products, items, captions and full-text search.

A garment belongs to a photo's content (its sha256), an entry to a row of the product table, and an
item joins the two: a possible search result. So garments and captions can be reused when only
products change.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property, lru_cache
from heapq import merge
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from fashionrec.common.batches import batched
from fashionrec.common.documents import parse_json
from fashionrec.common.sqlite import open_foreign
from fashionrec.errors import CatalogueError
from fashionrec.store.rows import (
    AGAIN,
    CAPTION,
    ENTRY,
    GARMENT,
    GARMENT_KEY,
    KEY,
    PHOTO,
    STORED,
    DamagedRow,
    GarmentKey,
    ItemKey,
    Kinds,
    damage_reported,
    parse_table,
    parse_texts,
    typed,
)
from fashionrec.store.schema import APPLICATION_ID, LAYERED, OLD_VERSION, READABLE, SCHEMA_VERSION
from fashionrec.store.totals import CAPTIONER, count_changed, count_rows, of_kind, read_totals
from fashionrec.store.words import match_expression, query_phrases, single_syllables
from fashionrec.types import Box, Item

if TYPE_CHECKING:  # modules that need numpy are imported on first use
    from fashionrec.store.columns import ColumnPart
    from fashionrec.store.content import CaptionRow, EntryRow, EntryText, PhotoRow
    from fashionrec.store.item_keys import KeyTable
    from fashionrec.store.parts import Parts, Places
    from fashionrec.store.text_index import Matches

T = TypeVar("T")


class StoredItem(NamedTuple):
    """An item with what a search needs."""

    item: Item
    item_no: int
    worn_with: bool
    garment_no: int
    photo: str
    base: str
    image_at: tuple[str, int]
    caption_at: tuple[str, int] | None
    thumb: tuple[str, int, int]
    whole_photo: bool
    captions: dict[str, str]


_first = itemgetter(0)
_MANY = 4  # if more than a quarter of a table is requested, all of it is read
_AT_ONCE = 50_000  # values per statement: a few megabytes of JSON
_ITEMS = "FROM items i JOIN entries e USING (entry_no) JOIN garments g USING (garment_no)"
_SELECT = f"""
SELECT i.item_no, i.item_id, i.product_id, i.worn_with, i.garment_no, e.image, e.metadata, e.photo,
  g.class_name, g.confidence, g.x1, g.y1, g.x2, g.y2, g.whole_photo, g.segment, g.row, g.thumb_offset, g.thumb_size,
  c.caption_en, c.caption_ko, c.attributes, c.segment, c.row, e.base
{_ITEMS} LEFT JOIN captions c USING (garment_no)
"""
_KEYS = "SELECT i.item_no, i.product_id, g.class_name, i.worn_with, g.segment, g.row, c.segment, c.row FROM "
_OF_ITEMS = "items i JOIN garments g USING (garment_no) LEFT JOIN captions c USING (garment_no) "
# in this join order, which SQLite does not find by itself: from places to garments, not through all
# items
_AT_ROWS = (
    "(VALUES {}) asked CROSS JOIN garments g ON (g.segment, g.row) = (asked.column1, asked.column2)"
    " CROSS JOIN items i USING (garment_no) LEFT JOIN captions c USING (garment_no)"
)
_GARMENTS = """
SELECT i.item_no, g.garment_no, g.photo, g.class_name, g.x1, g.y1, g.x2, g.y2, c.captioner,
  NOT EXISTS (SELECT 1 FROM garments o WHERE o.photo = g.photo AND o.class_name IS g.class_name
    AND o.garment_no != g.garment_no)
FROM items i CROSS JOIN entries e USING (entry_no) CROSS JOIN garments g USING (garment_no)
  LEFT JOIN captions c USING (garment_no)
WHERE NOT EXISTS (SELECT 1 FROM items b WHERE b.garment_no = i.garment_no AND b.item_no < i.item_no)
ORDER BY i.item_no
"""


class ItemReader:
    """Reads the items of one generation: of its base at ``path``, and of the delta if there is one.

    Every query runs on both files, and no statement joins them: a photo and all that belongs to it
    is in one of them. Thread-safe.
    """

    def __init__(self, path: Path, changes: Path | None = None) -> None:
        self._path, self._changes = path, changes
        self._local = threading.local()
        self._keys: KeyTable | None = None
        for file, db in zip((path, changes), self._dbs, strict=False):
            with damage_reported(path):
                application = db.execute("PRAGMA application_id").fetchone()[0]
                version = db.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                raise CatalogueError(f"catalogue is damaged: {file} is not an items file", hint=AGAIN)
            if version not in (OLD_VERSION, SCHEMA_VERSION) or (changes and version == OLD_VERSION):
                raise CatalogueError(f"{file} has schema {version}; this fashionrec reads {SCHEMA_VERSION}", hint=AGAIN)
            self._has_parts = version == SCHEMA_VERSION

    @cached_property
    def _parts(self) -> Parts | None:
        from fashionrec.store.parts import Parts

        def ask(layer: int, sql: str, values: Sequence[Any]) -> Iterable[Any]:
            return self._dbs[layer].execute(sql, tuple(values))

        return Parts(ask, len(self._dbs)) if self._has_parts else None

    @property
    def _dbs(self) -> list[sqlite3.Connection]:
        """The base and the delta."""
        if not hasattr(self._local, "dbs"):
            with damage_reported(self._path):
                self._local.dbs = self._opened()
        dbs: list[sqlite3.Connection] = self._local.dbs
        return dbs

    def _opened(self) -> list[sqlite3.Connection]:
        base = open_foreign(self._path, READABLE, mode="immutable", attach=self._changes)
        if self._changes is None:
            return [base]
        try:
            for table, key in LAYERED.items():
                base.execute(
                    f"CREATE TEMP VIEW {table} AS SELECT * FROM main.{table}"
                    f" WHERE {key} NOT IN (SELECT key FROM other.gone_{table})"
                )
            return [base, open_foreign(self._changes, READABLE, mode="immutable")]
        except BaseException:
            base.close()
            raise

    def close(self) -> None:
        for db in self._local.__dict__.pop("dbs", ()):
            db.close()

    def keep_keys(self) -> None:
        """Read the keys of all items into memory once, for callers with many queries."""
        from fashionrec.store.item_keys import KeyTable

        if self._keys is None:
            with self._scan(f"{_KEYS}{_OF_ITEMS}ORDER BY i.item_no") as rows:
                self._keys = KeyTable(map(_key, typed(rows, KEY)))

    def keys_at_rows(self, places: Iterable[tuple[str, int]]) -> list[ItemKey]:
        """Return the items whose image vectors are at some (segment, row) places, if any."""
        if self._keys is not None:
            return self._keys.at_rows(places)
        return list(self._many(_KEYS + _AT_ROWS, list(places), 2, KEY, _key))

    def keys_by_numbers(self, numbers: Sequence[int]) -> list[ItemKey]:
        """Return the keys of items by number, ignoring missing ones."""
        if self._keys is not None:
            return self._keys.by_numbers(numbers)
        sql = f"{_KEYS}{_OF_ITEMS}WHERE i.item_no IN (VALUES {{}})"
        return list(self._many(sql, [(n,) for n in numbers], 1, KEY, _key))

    def by_numbers(self, numbers: Sequence[int]) -> dict[int, StoredItem]:
        """Return items by number."""
        sql = _SELECT + "WHERE i.item_no IN (VALUES {})"
        return {stored.item_no: stored for stored in self._many(sql, [(n,) for n in numbers], 1, STORED, _stored)}

    def by_item_ids(self, item_ids: Sequence[str]) -> list[StoredItem]:
        """Return items by id, ignoring missing ones."""
        sql = _SELECT + "WHERE i.item_id IN (VALUES {})"
        return list(self._many(sql, [(one,) for one in item_ids], 1, STORED, _stored))

    def of_product(self, product_id: str) -> list[StoredItem]:
        """Return the items of one product, in order."""
        with damage_reported(self._path):
            rows = self._rows(_SELECT + "WHERE i.product_id = ? ORDER BY i.item_no", STORED, (product_id,))
            return [_stored(row) for row in sorted(rows, key=_first)]

    def of_photo(self, sha256: str) -> list[StoredItem]:
        """Return the items of one photo, in order."""
        with damage_reported(self._path):
            rows = self._rows(_SELECT + "WHERE g.photo = ? ORDER BY i.item_no", STORED, (sha256,))
            return [_stored(row) for row in sorted(rows, key=_first)]

    def garments(self) -> Iterator[GarmentKey]:
        """Yield every garment that is, or is worn with, a product, once, in the order of items."""
        with self._scan(_GARMENTS) as rows:
            for item, number, photo, class_name, x1, y1, x2, y2, captioner, alone in typed(rows, GARMENT_KEY):
                yield GarmentKey(item, number, photo, class_name, Box(x1, y1, x2, y2), captioner, bool(alone))

    def everything(self) -> Iterable[StoredItem]:
        """Yield every item, in order."""
        with self._scan(_SELECT + "ORDER BY i.item_no") as rows:
            yield from map(_stored, typed(rows, STORED))

    def text_search(self, query: str, limit: int | None = None) -> list[tuple[int, float]]:
        """Return the numbers of the items that best match any word of a query, best first.

        Each comes with its BM25 relevance (higher is better).
        """
        import numpy as np

        found = self.matches(query)
        best = np.lexsort((found.numbers, -found.scores))[:limit]
        return list(zip(found.numbers[best].tolist(), found.scores[best].tolist(), strict=True))

    def matches(self, query: str) -> Matches:
        """Return all items that match any word of a query, by number, with BM25 relevance."""
        with damage_reported(self._path):
            found = self._matches(query_phrases(query))
            if not len(found.numbers) and (syllables := single_syllables(query)):
                found = self._matches(self._terms_with(syllables))
        return found

    def _matches(self, phrases: list[str]) -> Matches:
        import numpy as np

        from fashionrec.store.text_index import Matches, terms_of

        if self._parts:
            return self._parts.matches([tuple(terms_of(phrase)) for phrase in phrases])
        sql = "SELECT rowid, -rank FROM item_text WHERE item_text MATCH ? ORDER BY rowid"
        rows = self._rows(sql, (int, float), (match_expression(phrases),)) if phrases else []
        count = len(rows)
        return Matches(
            np.fromiter((n for n, _ in rows), np.int64, count), np.fromiter((s for _, s in rows), float, count)
        )

    def _terms_with(self, syllables: list[str], limit: int = 200) -> list[str]:
        """Return indexed terms that contain one of some syllables, most frequent first."""
        if self._parts:
            return self._parts.terms_with(syllables, limit)
        (db,) = self._dbs
        db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.terms USING fts5vocab('main', 'item_text', 'row')")
        where = " OR ".join("instr(term, ?)" for _ in syllables)
        sql = f"SELECT term FROM temp.terms WHERE {where} ORDER BY doc DESC LIMIT ?"
        return [str(row[0]) for row in db.execute(sql, (*syllables, limit))]

    def photo(self, sha256: str) -> PhotoRow | None:
        """Return a photo's stored result, or None."""
        from fashionrec.store.content import GarmentRow, PhotoRow

        with damage_reported(self._path):
            photos = self._rows("SELECT * FROM photos WHERE sha256 = ?", PHOTO, (sha256,))
            if not photos:
                return None
            garments = self._rows(
                "SELECT position, class_name, confidence, x1, y1, x2, y2, whole_photo, segment, row, thumb_offset,"
                " thumb_size FROM garments WHERE photo = ? ORDER BY position",
                GARMENT,
                (sha256,),
            )
            made = tuple(GarmentRow(g[0], g[1], g[2], Box(*g[3:7]), bool(g[7]), *g[8:]) for g in garments)
            ((digest, width, height, key),) = photos
        return PhotoRow(digest, width, height, key, made)

    def caption(self, sha256: str, position: int) -> CaptionRow | None:
        """Return the caption of one garment of a photo, or None."""
        return self.captions(sha256).get(position)

    @property
    def _of_garments(self) -> str:
        """The captions that count: the base still contains captions of removed garments."""
        return " WHERE garment_no IN (SELECT garment_no FROM garments)" if self._changes else ""

    @cached_property
    def _has_words(self) -> bool:
        """True if captions have their own search words, a table that older files lack."""
        with damage_reported(self._path):
            sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'caption_words'"
            return all(db.execute(sql).fetchone() is not None for db in self._dbs)

    def count_captioned(self) -> tuple[int, dict[str, int]]:
        """Return how many garments items show, and how many have a caption, by captioner."""
        totals = self._totals
        return totals["shown"], of_kind(totals, CAPTIONER)

    def garments_of(self, photo: str) -> list[tuple[str | None, Box]]:
        """Return class and box of each garment of a photo that an item shows."""
        sql = (
            "SELECT class_name, x1, y1, x2, y2 FROM garments g WHERE photo = ?"
            " AND EXISTS (SELECT 1 FROM items i WHERE i.garment_no = g.garment_no) ORDER BY position"
        )
        return [(row[0], Box(*row[1:])) for row in self._rows(sql, (str | None, *(float,) * 4), (photo,))]

    def attributes_told(self) -> dict[int, tuple[str, dict[str, str]]]:
        """Return captioner and attributes of each captioned garment, by its number."""
        with damage_reported(self._path):
            sql = f"SELECT garment_no, captioner, attributes FROM captions{self._of_garments}"
            rows = self._rows(sql, (int, str, str))
            return {number: (captioner, parse_texts(told)) for number, captioner, told in rows}

    def words_of(self, columns: Sequence[str]) -> dict[str, set[str]]:
        """Return the texts in some columns of product data; columns without any are skipped."""
        holes = ", ".join("?" * len(columns))
        sql = f"SELECT DISTINCT j.key, j.value FROM entries, json_each(metadata) j WHERE j.type = 'text' AND j.key IN ({holes})"
        found: dict[str, set[str]] = {}
        for column, text in self._rows(sql, None, columns):
            if text:
                found.setdefault(column, set()).add(text)
        return found

    def spread(self, count: int) -> list[StoredItem]:
        """Return at most ``count`` of the products' own items, evenly spread, in order."""
        numbers = sorted(n for (n,) in self._rows("SELECT item_no FROM items WHERE NOT worn_with", (int,)))
        chosen = numbers[:: max(1, -(-len(numbers) // count))]
        found = self.by_numbers(chosen)
        return [found[number] for number in chosen]

    def build_keys(self, photos: Iterable[str] | None = None) -> dict[str, str]:
        """Return, per photo (sha256), the key of the models and settings that found its garments.

        ``photos`` limits this to those given.
        """
        wanted = None if photos is None else set(photos)
        if wanted is None or _MANY * len(wanted) > self.count("photos"):
            rows = self._rows("SELECT sha256, build_key FROM photos", (str, str))
            return {photo: key for photo, key in rows if wanted is None or photo in wanted}
        return dict(self._among("SELECT sha256, build_key FROM photos WHERE sha256 IN", wanted, (str, str)))

    def entries(self) -> Iterable[EntryRow]:
        """Yield every row of the product table, in order."""
        from fashionrec.store.content import EntryRow

        for row in self.entry_texts():
            with damage_reported(self._path):
                metadata = parse_table(row.metadata)
            yield EntryRow(*row[:-1], metadata)

    def entry_texts(self) -> Iterator[EntryText]:
        """Yield every row of the product table with unparsed data, in order."""
        from fashionrec.store.content import EntryText

        with self._scan(
            "SELECT entry_no, image, base, product_id, photo, metadata FROM entries ORDER BY entry_no"
        ) as rows:
            yield from map(EntryText._make, typed(rows, ENTRY))

    def entries_of(self, product_ids: Iterable[str]) -> list[EntryText]:
        """Return the rows of some products in the product table, in order, reading no others."""
        from fashionrec.store.content import EntryText

        columns = "entry_no, image, base, product_id, photo, metadata"
        of = "SELECT entry_no FROM entries WHERE product_id IN"
        numbers = [row[0] for row in self._among(of, product_ids, (int,))]
        rows = self._among(f"SELECT {columns} FROM entries WHERE entry_no IN", sorted(numbers), ENTRY)
        return sorted(map(EntryText._make, rows))

    def count(self, table: Literal["entries", "photos"]) -> int:
        """Return the number of rows of the product table, or of photos."""
        return self._totals[table]

    def entries_by(self, column: Literal["product_id", "photo"], values: Iterable[str]) -> dict[str, int]:
        """Return the number of rows for each of some products or photos in the product table."""
        sql = f"SELECT {column}, count(*) FROM entries WHERE {column} IN"
        found: Counter[str] = Counter()
        for value, count in self._among(sql, values, (str, int), f"GROUP BY {column}"):
            found[value] += count
        return dict(found)

    def captions(self, sha256: str) -> dict[int, CaptionRow]:
        """Return the captions of a photo's garments, by position."""
        from fashionrec.store.content import CaptionRow

        words, joined = ("w.words", " LEFT JOIN caption_words w USING (garment_no)") if self._has_words else ("''", "")
        sql = (
            f"SELECT g.position, caption_en, caption_ko, attributes, embedding_text, captioner, c.segment, c.row, {words}"
            f" FROM captions c JOIN garments g USING (garment_no){joined} WHERE g.photo = ?"
        )
        with damage_reported(self._path):
            return {
                row[0]: CaptionRow(row[1], row[2], parse_texts(row[3]), row[4], row[5], row[6], row[7], row[8] or "")
                for row in self._rows(sql, CAPTION, (sha256,))
            }

    def places(self) -> Places:
        """Return the places of all items' image vectors."""
        import numpy as np

        from fashionrec.store.parts import Places

        if self._parts:
            with damage_reported(self._path):
                return self._parts.places()
        sql = "SELECT i.item_no, g.segment, g.row FROM items i JOIN garments g USING (garment_no) ORDER BY i.item_no"
        rows = self._rows(sql, (int, str, int))
        names = {name: n for n, name in enumerate(dict.fromkeys(name for _, name, _ in rows))}
        table = np.array([(number, names[name], row) for number, name, row in rows], np.int64).reshape(-1, 3)
        return Places(table[:, 0], list(names), table[:, 1], table[:, 2])

    def worn_together(self) -> list[tuple[str, str | None, str, int]]:
        """Return photo, class, segment and row of every garment in a photo with several."""
        sql = (
            "SELECT photo, class_name, segment, row FROM garments WHERE photo IN"
            " (SELECT photo FROM garments GROUP BY photo HAVING count(*) > 1) ORDER BY photo, position"
        )
        return sorted(self._rows(sql, (str, str | None, str, int)), key=_first)

    def places_of_classes(self, classes: Sequence[str]) -> list[tuple[str, int]]:
        """Return segment and row of every garment of some classes that is a product's own item.

        Garments that are only worn with a product are skipped.
        """
        sql = (
            "SELECT DISTINCT g.segment, g.row FROM items i JOIN garments g USING (garment_no)"
            f" WHERE NOT i.worn_with AND g.class_name IN ({', '.join('?' * len(classes))})"
        )
        return self._rows(sql, (str, int), classes)

    def column(self, name: str) -> Iterator[tuple[int, ColumnPart]]:
        """Return a column in the order of :meth:`places`: its parts, and the items before each.

        A value is that of the product data, else of the caption's attributes, else the item's own
        (columns ``OWN``).
        """
        from fashionrec.store.columns import ColumnBuilder

        with damage_reported(self._path):
            if self._parts:
                yield from self._parts.column(name)
                return
            numbers = self.places().numbers
            builder = ColumnBuilder()
            values = dict(self._values(name))
            for n, number in enumerate(numbers.tolist()):
                if number in values:
                    builder.add(n, values.pop(number))
            if values:
                raise DamagedRow("an item refers to a missing garment")
            if len(builder):
                yield 0, builder.part(len(numbers))

    def has_column(self, name: str) -> bool:
        """Return whether any item has a value in a column."""
        with damage_reported(self._path):
            return self._parts.has_column(name) if self._parts else next(self._values(name), None) is not None

    def _values(self, name: str) -> Iterator[tuple[int, Any]]:
        """Yield number and value of every item with a column, for files without parts."""
        path = '$."' + name + '"'
        direct = '"' not in name and "\x00" not in name
        value = "json_extract({0}, ?), json_type({0}, ?)" if direct else "j.value, j.type"
        found: set[int] = set()
        for table, joins in (
            ("e.metadata", ""),
            ("c.attributes", " JOIN captions c USING (garment_no)"),
        ):
            each = "" if direct else f", json_each({table}) j"
            where = f"json_type({table}, ?) IS NOT NULL" if direct else "j.key = ?"
            sql = (
                f"SELECT i.item_no, {value.format(table)} FROM items i JOIN entries e USING (entry_no){joins}{each}"
                f" WHERE {where}"
            )
            for number, content, kind in self._rows(sql, None, (path,) * 3 if direct else (name,)):
                one = _plain(content, kind)
                if one is not None and number not in found:
                    found.add(number)
                    yield number, one
        if name in _OWN:
            sql = f"SELECT i.item_no, {_OWN[name]} {_ITEMS}"
            for number, content in self._rows(sql, (int, str | float | None)):
                if content is not None and number not in found:
                    yield number, content

    def column_names(self) -> list[str]:
        """Return the names of all columns, most frequent first."""
        if self._parts:
            with damage_reported(self._path):
                return self._parts.column_names()
        sql = (
            "SELECT key, count(*) FROM (SELECT j.key FROM entries, json_each(metadata) j"
            " UNION ALL SELECT j.key FROM captions, json_each(attributes) j) GROUP BY key ORDER BY 2 DESC, 1"
        )
        return [str(row[0]) for row in self._rows(sql)]

    def photos_without_detection(self) -> int:
        """Return how many photos have no detected garment."""
        return self._totals["undetected"]

    def product_ids(self) -> set[str]:
        return {row[0] for row in self._rows("SELECT DISTINCT product_id FROM entries", (str,))}

    def presence(self) -> tuple[int, dict[str, int]]:
        """Return the number of items, and how many of them have each optional value."""
        words, joined = ("nullif(w.words, '')", " LEFT JOIN caption_words w USING (garment_no)")
        if not self._has_words:
            words, joined = "NULL", ""
        optional = {
            "class_name": "g.class_name",
            "confidence": "g.confidence",
            "caption": "c.garment_no",
            "caption_vector": "c.segment",
            "caption_words": words,
        }
        counted = ", ".join(f"count({column})" for column in optional.values())
        rows = self._rows(f"SELECT count(*), {counted} FROM {_OF_ITEMS}{joined}", (int,) * (len(optional) + 1))
        total, *found = map(sum, zip(*rows, strict=True))
        return total, dict(zip(optional, found, strict=True))

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each table."""
        totals = self._totals
        return {name: totals[name] for name in ("photos", "garments", "items", "worn_with", "products", "captions")}

    @cached_property
    def _totals(self) -> Counter[str]:
        """The counts over all rows; computed for files that do not store them."""
        db = self._dbs[0]
        with damage_reported(self._path):
            if self._changes is None:
                return read_totals(db, "main") or count_rows(db, "main")
            return read_totals(db, "other") or count_changed(db, "main", "other")

    def _rows(self, sql: str, kinds: Kinds | None = None, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query, those of the base first, checked for ``kinds`` if given."""
        with damage_reported(self._path):
            rows = chain.from_iterable(db.execute(sql, tuple(values)) for db in self._dbs)
            return list(rows if kinds is None else typed(rows, kinds))

    def _among(self, sql: str, values: Iterable[Any], kinds: Kinds, rest: str = "") -> Iterator[Any]:
        """Return the rows of a query for a list of values, passed to SQLite many at a time."""
        for part in batched(values, _AT_ONCE):
            yield from self._rows(f"{sql} (SELECT value FROM json_each(?)) {rest}", kinds, (json.dumps(part),))

    @contextmanager
    def _scan(self, sql: str) -> Iterator[Iterator[tuple[Any, ...]]]:
        """Yield the rows of a statement by their first column; other statements may run in between.

        They use a connection of their own: on a shared one, each of the others would reset the
        limit on steps.
        """
        with damage_reported(self._path), ExitStack() as stack:
            dbs = [stack.enter_context(closing(db)) for db in self._opened()]
            rows = stack.enter_context(closing(merge(*(db.execute(sql) for db in dbs), key=_first)))
            yield rows

    def _many(
        self,
        sql: str,
        keys: Sequence[tuple[Any, ...]],
        width: int,
        kinds: Kinds,
        make: Callable[[Sequence[Any]], T],
    ) -> Iterator[T]:
        """Yield what ``make`` returns for the rows of a statement with any number of keys.

        Each key has ``width`` values.
        """
        for start in range(0, len(keys), 400):
            part = keys[start : start + 400]
            row = f"({', '.join('?' * width)})"
            values = [value for key in part for value in key]
            with damage_reported(self._path):
                found = self._rows(sql.format(", ".join([row] * len(part))), None, values)
                yield from map(make, typed(found, kinds))  # here, so that invalid JSON is reported as damage


_OWN = {
    "product_id": "i.product_id",
    "item_id": "i.item_id",
    "image": "e.image",
    "class_name": "g.class_name",
    "confidence": "g.confidence",
}


def _plain(content: Any, kind: str) -> Any:
    """Convert a JSON value from SQLite to Python; None if it is missing or an object."""
    if kind in ("null", "object"):
        return None
    if kind in ("true", "false"):
        return kind == "true"
    if kind == "array":
        from fashionrec.store.columns import plain

        return plain(parse_json(content))
    return content


@lru_cache(maxsize=4096)
def _parsed(text: str) -> dict[str, Any]:
    """Parse a JSON object with a cache, because the same ones recur. Callers must not modify it."""
    return parse_table(text)


def _key(row: Sequence[Any]) -> ItemKey:
    number, product, class_name, worn_with, segment, at, caption_segment, caption_at = row
    caption = (caption_segment, caption_at) if caption_segment is not None else None
    return ItemKey(number, product, class_name, bool(worn_with), (segment, at), caption)


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
        base=row[24],
        image_at=(row[15], row[16]),
        caption_at=(row[22], row[23]) if row[22] is not None else None,
        thumb=(row[15], row[17], row[18]),
        whole_photo=bool(row[14]),
        captions={"en": row[19] or "", "ko": row[20] or ""} if row[19] or row[20] else {},
    )
