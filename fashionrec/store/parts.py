"""The items of a file in parts, as arrays: places of their vectors, their columns and words.

A base has a part for every 16,384 item numbers (65,536 before that was recorded in the file). A
delta has a part per generation, and the latest part with an item describes it. So a change costs in
proportion to itself, and filters and texts read only the arrays they need.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from fashionrec.common.documents import parse_json
from fashionrec.store import columns, text_index
from fashionrec.store.columns import ColumnBuilder, ColumnPart, check_below, plain
from fashionrec.store.packed import POSTINGS_PIECE, Ask, narrow, read_arrays, write_array
from fashionrec.store.rows import DamagedRow, Kinds, parse_table, typed
from fashionrec.store.text_index import Matches, Phrase, WordPart, bm25, index_words

#: Items per part, by number.
PART_ITEMS = 1 << 14
#: Columns that every item has, whatever its product data. A product column of the same name takes
#: precedence.
OWN = ("product_id", "item_id", "image", "class_name", "confidence")
_OWNER, _COLUMN = "items", "column:"
_MOST_PARTS = 32  # in a delta
_ROWS = """
SELECT i.item_no, i.product_id, i.item_id, e.image, g.class_name, g.confidence, e.metadata, c.attributes, g.segment, g.row,
  i.words
FROM items i CROSS JOIN entries e USING (entry_no) CROSS JOIN garments g USING (garment_no)
  LEFT JOIN captions c USING (garment_no)
WHERE i.item_no {} ORDER BY i.item_no
"""
_KINDS: Kinds = (int, str, str, str, str | None, float | None, str, str | None, str, int, str)


class Places(NamedTuple):
    """Places of items' image vectors: number (the base's first), index in ``segments``, row."""

    numbers: np.ndarray
    segments: list[str]
    codes: np.ndarray
    rows: np.ndarray


def write_part(db: sqlite3.Connection, part: int, size: int) -> None:
    """Write or replace the arrays of items ``part * size + 1`` to ``(part + 1) * size``."""
    _write(db, part, db.execute(_ROWS.format("BETWEEN ? AND ?"), (part * size + 1, (part + 1) * size)))


def write_places(db: sqlite3.Connection, part: int, size: int) -> None:
    """Rewrite the places of vectors in a part; its other arrays stay."""
    sql = (
        "SELECT g.segment, g.row FROM items i CROSS JOIN garments g USING (garment_no) WHERE i.item_no BETWEEN ? AND ?"
    )
    rows = list(typed(db.execute(f"{sql} ORDER BY i.item_no", (part * size + 1, (part + 1) * size)), (str, int)))
    db.execute("DELETE FROM arrays WHERE owner = ? AND part = ? AND kind != 'numbers'", (_OWNER, part))
    _write_places(db, part, rows)


def _write_places(db: sqlite3.Connection, part: int, places: Iterable[tuple[str, int]]) -> None:
    segments: dict[str, int] = {}
    codes, at = [], []
    for segment, row in places:
        codes.append(segments.setdefault(segment, len(segments)))
        at.append(row)
    write_array(db, _OWNER, part, "segments", np.frombuffer(json.dumps(list(segments)).encode(), np.uint8))
    write_array(db, _OWNER, part, "codes", narrow(codes))
    write_array(db, _OWNER, part, "rows", narrow(at))


def write_changed(db: sqlite3.Connection, changed: set[int], few: int) -> None:
    """Write the arrays of some item numbers as the last part of a delta.

    The previous last part is merged into it if it has at most ``few`` items, and all parts if there
    are too many. Parts that describe no items any more are removed.
    """
    ask: Ask = db.execute
    known = {part: _numbers(ask, part) for part in _parts_in(ask)}
    if len(known) >= _MOST_PARTS:
        changed = {number for (number,) in db.execute("SELECT item_no FROM items")}
    elif known and len(known[max(known)]) <= few:
        changed = changed.union(known.pop(max(known)).tolist())
    part = max(known, default=-1) + 1
    sql = _ROWS.format("IN (SELECT value FROM json_each(?))")
    _write(db, part, db.execute(sql, (json.dumps(list(changed)),)))
    live = _live(_item_numbers(ask), {**known, part: _numbers(ask, part)})
    db.executemany("DELETE FROM arrays WHERE part = ?", [(part,) for part, kept in live.items() if not kept.any()])


def _write(db: sqlite3.Connection, part: int, items: Iterable[tuple[Any, ...]]) -> None:
    """Write a part from rows of :data:`_ROWS`."""
    db.execute("DELETE FROM arrays WHERE part = ?", (part,))
    numbers: list[int] = []
    places: list[tuple[str, int]] = []
    words: list[str] = []
    builders: dict[str, ColumnBuilder] = {}
    for n, (number, *own, metadata, attributes, segment, row, text) in enumerate(typed(items, _KINDS)):
        numbers.append(number)
        places.append((segment, row))
        words.append(text)
        for name, value in _values(own, metadata, attributes).items():
            (builders.get(name) or builders.setdefault(name, ColumnBuilder())).add(n, value)
    if not numbers:
        return
    write_array(db, _OWNER, part, "numbers", narrow(numbers))
    _write_places(db, part, places)
    for name, builder in builders.items():
        for kind, array in builder.arrays(len(numbers)).items():
            write_array(db, _COLUMN + name, part, kind, array)
    for kind, array in index_words(words).items():
        piece = {"piece": POSTINGS_PIECE} if kind == "positions" else {}
        write_array(db, text_index.OWNER, part, kind, array, **piece)


def _values(own: list[Any], metadata: str, attributes: str | None) -> dict[str, Any]:
    """Return the columns of an item: product data, else caption attributes, else its own."""
    values = {name: value for name, value in zip(OWN, own, strict=True) if value is not None}
    if attributes is not None:
        values |= _plain(attributes)
    return values | _plain(metadata)


@lru_cache(maxsize=64)  # the items of one photo or product are adjacent
def _plain(table: str) -> dict[str, Any]:
    return {name: one for name, value in parse_table(table).items() if (one := plain(value)) is not None}


class _Part(NamedTuple):
    """A part of one layer: its item numbers, and which of them the next layer does not override."""

    ask: Ask
    part: int
    numbers: np.ndarray
    live: np.ndarray


class Parts:
    """Reads the parts of a base and its delta. ``ask`` runs a statement on one of these ``layers``.

    Raises :class:`DamagedRow`.
    """

    def __init__(self, ask: Callable[[int, str, Sequence[Any]], Iterable[Any]], layers: int = 1) -> None:
        self._layers: list[Ask] = [partial(ask, layer) for layer in range(layers)]
        self._known: list[_Part] | None = None
        self._words: list[tuple[np.ndarray, WordPart]] | None = None

    def places(self) -> Places:
        """Return the places of all items' vectors."""
        parts = [_places(one) for one in self._parts()]
        segments = {name: n for n, name in enumerate(dict.fromkeys(name for one in parts for name in one.segments))}
        codes = [np.array([segments[name] for name in one.segments], np.int64)[one.codes] for one in parts]
        numbers = _joined([one.numbers for one in parts])
        return Places(numbers, list(segments), _joined(codes), _joined([one.rows for one in parts]))

    def column(self, name: str) -> Iterator[tuple[int, ColumnPart]]:
        """Yield each part of a column and the number of items before it, skipping empty parts."""
        start = 0
        for one in self._parts():
            arrays = read_arrays(one.ask, _COLUMN + name, one.part, columns.KINDS)
            if len(arrays["shape"]):
                part = ColumnPart.of(arrays, len(one.numbers))
                yield start, part if one.live.all() else replace(part, codes=part.codes[one.live])
            start += int(one.live.sum())

    def has_column(self, name: str) -> bool:
        """Return whether any item has a value in a column."""
        sql = "SELECT 1 FROM arrays WHERE owner = ? LIMIT 1"
        if len(self._layers) > 1:  # all items that have it may have been removed
            return any(part.codes.any() for _, part in self.column(name))
        return any(self._layers[0](sql, (_COLUMN + name,)))

    def column_names(self) -> list[str]:
        """Return the names of all columns, most frequent first."""
        held: dict[str, int] = {}
        for ask in self._layers:
            owners = ask("SELECT DISTINCT owner, part FROM arrays WHERE kind = 'shape'", ())
            for owner, part in list(typed(owners, (str, int))):
                shape = read_arrays(ask, owner, part, ("shape",))["shape"]
                if owner.startswith(_COLUMN) and len(shape):
                    name = owner.removeprefix(_COLUMN)
                    held[name] = held.get(name, 0) + int(shape[-1])
        return sorted(held, key=lambda name: (-held[name], name))

    def matches(self, phrases: list[Phrase]) -> Matches:
        """Return the items that contain one of some phrases, with their relevance."""
        found = bm25(self._word_parts(), phrases)
        order = np.argsort(found.numbers)
        return Matches(found.numbers[order], found.scores[order])

    def terms_with(self, pieces: list[str], limit: int) -> list[str]:
        """Return terms that contain one of some pieces, those of the most items first."""
        held: dict[str, int] = {}
        for _, part in self._word_parts():
            for term, count in part.terms_with(pieces):
                held[term] = held.get(term, 0) + count
        return sorted(held, key=lambda term: (-held[term], term))[:limit]

    def _word_parts(self) -> list[tuple[np.ndarray, WordPart]]:
        if self._words is None:
            self._words = [(one.numbers, WordPart(one.ask, one.part, one.live)) for one in self._parts()]
        return self._words

    def _parts(self) -> list[_Part]:
        if self._known is None:
            found: list[_Part] = []
            for layer, ask in enumerate(self._layers):
                gone = np.zeros(0, np.int64)
                if layer + 1 < len(self._layers):
                    keys = typed(self._layers[layer + 1]("SELECT key FROM gone_items", ()), (int,))
                    gone = np.fromiter((key for (key,) in keys), np.int64)
                numbers = {part: _numbers(ask, part) for part in _parts_in(ask)}
                if layer:
                    live = _live(_item_numbers(ask), numbers)
                else:
                    live = {part: ~np.isin(held, gone) for part, held in numbers.items()}
                found += [_Part(ask, part, held, live[part]) for part, held in numbers.items()]
            told = np.sort(_joined([one.numbers[one.live] for one in found]))
            if (np.diff(told) < 1).any() or any((np.diff(one.numbers) < 1).any() for one in found):
                raise DamagedRow("the items of the parts are out of order")
            self._known = found
        return self._known


def _places(one: _Part) -> Places:
    arrays = read_arrays(one.ask, _OWNER, one.part, ("segments", "codes", "rows"))
    segments = parse_json(arrays["segments"].tobytes() or b"[]")
    if not isinstance(segments, list) or not all(isinstance(name, str) for name in segments):
        raise DamagedRow("the segments of a part are not texts")
    codes, rows = arrays["codes"], arrays["rows"]
    if not len(one.numbers) == len(codes) == len(rows) or codes.dtype.kind not in "ui" or rows.dtype.kind not in "ui":
        raise DamagedRow("the arrays of a part have different lengths")
    check_below(codes, len(segments))
    return Places(one.numbers[one.live], segments, codes[one.live], rows[one.live].astype(np.int64))


def _parts_in(ask: Ask) -> list[int]:
    sql = "SELECT DISTINCT part FROM arrays WHERE owner = ? ORDER BY part"
    return [part for (part,) in list(typed(ask(sql, (_OWNER,)), (int,)))]


def _item_numbers(ask: Ask) -> np.ndarray:
    return np.fromiter((number for (number,) in typed(ask("SELECT item_no FROM items", ()), (int,))), np.int64)


def _live(items: np.ndarray, parts: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return which numbers of each part of a delta are valid: those that no later part has."""
    live: dict[int, np.ndarray] = {}
    left = items
    for part in sorted(parts, reverse=True):
        live[part] = np.isin(parts[part], left)
        left = np.setdiff1d(left, parts[part])
    if len(left):
        raise DamagedRow("the parts do not describe all items")
    return live


def _numbers(ask: Ask, part: int) -> np.ndarray:
    numbers = read_arrays(ask, _OWNER, part, ("numbers",))["numbers"]
    if numbers.dtype.kind not in "ui":
        raise DamagedRow("item numbers are invalid")
    return numbers.astype(np.int64)


def parts_of(db: sqlite3.Connection, size: int) -> list[int]:
    """Return the parts of a file's items."""
    return [int(part) for (part,) in db.execute("SELECT DISTINCT (item_no - 1) / ? FROM items", (size,))]


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays])
