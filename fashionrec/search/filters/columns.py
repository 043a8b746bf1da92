"""Columns of a catalogue's items as arrays, read when a filter names them.

A filter is decided once for the distinct values of each part, and looked up for the items.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.common.values import as_number, as_text, folded, like
from fashionrec.errors import CatalogueError
from fashionrec.search.filters.where import (
    Comparison,
    Filter,
    Group,
    Not,
    Value,
    WhereError,
    columns_of,
    parse_where,
)
from fashionrec.store.columns import EDGE, ColumnPart
from fashionrec.store.parts import OWN

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.store.items import ItemReader
    from fashionrec.store.vectors import VectorStore

_UNKNOWN, _FALSE, _TRUE = -1, 0, 1


#: Up to this many texts are searched one by one, more in one pass over all.
_FEW = 3
#: Bytes of columns that are cached.
_KEPT = 128 << 20


class Columns:
    """Columns over the items of one generation, in the order of :attr:`numbers`. Thread-safe and
    cached.
    """

    def __init__(self, items: ItemReader, images: VectorStore) -> None:
        self._items, self._images = items, images
        self._lock = threading.RLock()
        self._kept: dict[str, list[tuple[int, ColumnPart]]] = {}
        self._room = _KEPT
        self._places: tuple[np.ndarray, np.ndarray] | None = None
        self._order: np.ndarray | None = None
        self.allowed = lru_cache(maxsize=64)(self._allowed)

    @classmethod
    def of(cls, catalogue: Catalogue) -> Columns:
        """Return the columns of a catalogue, cached by :meth:`Catalogue.memoize`."""
        return cls(catalogue.items, catalogue.images)

    @property
    def numbers(self) -> np.ndarray:
        """int64 [n]: item numbers in the order of :meth:`ItemReader.places`."""
        return self._read_places()[0]

    def _allowed(self, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mask of a filter over items, bool [n] in the order of ``numbers``, and over
        positions of image vectors.

        Raises :class:`WhereError` for invalid filters and unknown columns.
        """
        tree = parse_where(where)
        for test in columns_of(tree):
            if test.column not in (*OWN, *self._kept) and not self._items.has_column(test.column):
                from fashionrec.config import nearest

                known = [*self._items.column_names(), *OWN]
                raise WhereError(
                    f"unknown column {test.column!r}",
                    where,
                    test.at,
                    hint=nearest(test.column, known) or f"there are {', '.join(known[:20])}",
                )
        keep = self._truth(tree) == _TRUE
        _, positions = self._read_places()
        places = np.zeros(len(self._images), bool)
        places[positions[keep]] = True
        return keep, places

    def _truth(self, tree: Filter) -> np.ndarray:
        """Return int8 [n]: true, false or unknown for each item."""
        if isinstance(tree, Comparison):
            return self._compared(tree)
        if isinstance(tree, Not):
            truth = self._truth(tree.part)
            return np.where(truth == _UNKNOWN, _UNKNOWN, 1 - truth).astype(np.int8)
        assert isinstance(tree, Group)
        truths = np.stack([self._truth(part) for part in tree.parts])
        decisive, other = (_TRUE, _FALSE) if tree.any_ else (_FALSE, _TRUE)
        settled = np.where((truths == _UNKNOWN).any(axis=0), _UNKNOWN, other)
        return np.where((truths == decisive).any(axis=0), decisive, settled).astype(np.int8)

    def _compared(self, test: Comparison) -> np.ndarray:
        found = np.full(len(self.numbers), _number(test.truth(None)), np.int8)
        for start, part in self._parts(test.column):
            found[start : start + len(part.codes)] = compare(test, part)[part.codes]
        return found

    def _parts(self, name: str) -> Iterator[tuple[int, ColumnPart]]:
        """Return the parts of a column, cached while there is room."""
        if name in self._kept:
            yield from self._kept[name]
            return
        parts: list[tuple[int, ColumnPart]] | None = []
        size = 0
        for start, part in self._items.column(name):
            size += part.nbytes
            if parts is not None and size <= self._room:
                parts.append((start, part))
            else:
                parts = None
            yield start, part
        with self._lock:
            if parts is not None and name not in self._kept:
                self._kept[name] = parts
                self._room -= size

    def _read_places(self) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if self._places is None:
                starts = {name: int(self._images.starts[n]) for n, name in enumerate(self._images.names)}
                found = self._items.places()
                try:
                    begins = np.array([starts[segment] for segment in found.segments], np.int64)
                    positions = begins[found.codes] + found.rows
                    if len(positions) and not 0 <= positions.min() <= positions.max() < len(self._images):
                        raise ValueError("an item's vector is missing")
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise CatalogueError(f"catalogue is damaged: {error!r}") from None
                self._places = found.numbers, positions
            return self._places

    def kept(self, where: str, numbers: Sequence[int]) -> set[int]:
        """Return those of some items, by number, that match a filter."""
        keep, _ = self.allowed(where)
        return {number for number, n in zip(numbers, self._at(numbers), strict=True) if keep[n]}

    def _at(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the positions of item numbers. Raises :class:`CatalogueError` for one without a
        garment.
        """
        wanted, known = np.asarray(numbers, np.int64), self.numbers
        if self._order is None:
            self._order = np.argsort(known)
        at = np.searchsorted(known, wanted, sorter=self._order)
        if not len(wanted):
            return at
        if len(known):
            at = self._order[np.minimum(at, len(known) - 1)]
        if not len(known) or (known[at] != wanted).any():
            raise CatalogueError("catalogue is damaged: an item refers to a missing garment")
        return at


def compare(test: Comparison, part: ColumnPart) -> np.ndarray:
    """Return int8 per distinct value of a part: whether the test is true, false or unknown; index 0
    is for items without one.

    Decides all values together as :meth:`Comparison.truth` decides one.
    """
    numbers = np.concatenate([part.whole.astype(np.float64), part.floats])
    count = part.scalars
    found = np.full(1 + count + len(part.starts) - 1, _UNKNOWN, np.int8)
    found[0] = _number(test.truth(None))
    texts, others = found[1 : len(part.numbers) + 1], found[len(part.numbers) + 1 : count + 1]
    if test.kind == "null":
        found[1:] = _FALSE
        return found
    if test.kind == "like":
        pattern = folded(str(test.values[0]))
        texts[:] = matching(pattern, part.texts, len(texts))
        shown = [folded(as_text(value)) for array in (part.whole, part.floats, part.bools) for value in array.tolist()]
        others[:] = matching(pattern, EDGE + EDGE.join(map(str.encode, shown)) + EDGE, len(shown)) if shown else 0
    elif test.kind in ("=", "!=", "in"):
        found[1 : count + 1] = _equal(part, numbers, test.values) == (test.kind != "!=")
    else:
        _order(test, part, numbers, texts, others[: len(numbers)])
    if len(part.starts) > 1:
        members = found[1 : count + 1][part.members]
        every = test.kind == "!="
        reduce = np.minimum if every else np.maximum
        found[count + 1 :] = reduce.reduceat(members, part.starts[:-1].astype(np.int64)) == _TRUE
    return found


def _equal(part: ColumnPart, numbers: np.ndarray, values: Sequence[Value]) -> np.ndarray:
    """Return bool per value that is not a list: whether it equals one of ``values``."""
    wanted = [float(one) for one in values if isinstance(one, (int, float)) and not isinstance(one, bool)]
    texts = {_encoded(as_text(one)) for one in values if isinstance(one, (str, bool))}
    read = [number for one in values if isinstance(one, str) and (number := as_number(one)) is not None]
    same = np.isin(part.numbers, wanted)
    if len(texts) <= _FEW:
        for text in texts:
            same[positions(part.texts, EDGE + text + EDGE)] = True
    else:
        same |= np.array([text in texts for text in part.texts[1:-1].split(EDGE)][: len(same)], bool)
    bools = [as_text(one).encode() in texts for one in part.bools.tolist()]
    return np.concatenate([same, np.isin(numbers, wanted + read), np.array(bools, bool)])


def _order(test: Comparison, part: ColumnPart, numbers: np.ndarray, texts: np.ndarray, others: np.ndarray) -> None:
    """Fill in the order of texts and numbers relative to the test's value. Booleans
    have no order.
    """
    wanted = test.values[0]
    number = as_number(wanted)
    decide = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[test.kind]
    if number is not None:
        others[:] = decide(numbers, number)
    if isinstance(wanted, str):
        text = _encoded(wanted)
        than = {"<": text.__gt__, "<=": text.__ge__, ">": text.__lt__, ">=": text.__le__}[test.kind]
        texts[:] = list(map(than, part.texts[1:-1].split(EDGE)))[: len(texts)]
    elif number is not None:
        texts[:] = np.where(np.isnan(part.numbers), _UNKNOWN, decide(part.numbers, number))


def _encoded(text: str) -> bytes:
    return folded(text).encode(errors="surrogatepass")  # no table contains an argument that is not UTF-8


def positions(texts: bytes, piece: bytes) -> np.ndarray:
    """Return which texts, each between two :data:`EDGE`, contain a piece (which may begin and end
    with one).
    """
    found = []
    at = texts.find(piece)
    while at >= 0:
        found.append(at)
        at = texts.find(piece, texts.find(EDGE, at + 1))  # continue after the end of this text
    edges = np.flatnonzero(np.frombuffer(texts, np.uint8) == EDGE[0])
    return np.searchsorted(edges, found, side="right") - 1


def matching(pattern: str, texts: bytes, count: int) -> np.ndarray:
    """Return bool: which of ``count`` texts, each between two :data:`EDGE`, match a folded ``like``
    pattern.
    """
    encoded = EDGE + pattern.encode(errors="surrogatepass") + EDGE
    runs = encoded.split(b"%")
    pieces = sorted((piece for run in runs for piece in run.split(b"_") if piece.strip(EDGE)), key=len)
    edges = np.flatnonzero(np.frombuffer(texts, np.uint8) == EDGE[0])
    kept = np.zeros(count, bool)
    at = positions(texts, pieces[-1]).tolist() if pieces else range(count)
    if b"_" in encoded:
        at = [n for n in at if like(pattern, texts[edges[n] + 1 : edges[n + 1]].decode(errors="surrogatepass"))]
    elif len(pieces) != 1:
        at = [n for n in at if _follow(runs, texts, edges[n], edges[n + 1] + 1)]
    kept[at] = True
    return kept


def _follow(runs: Sequence[bytes], texts: bytes, start: int, stop: int) -> bool:
    """Return whether runs of bytes occur in order between two positions."""
    for run in runs:
        at = texts.find(run, start, stop)
        if at < 0:
            return False
        start = at + len(run)
    return True


def _number(truth: bool | None) -> int:
    return _UNKNOWN if truth is None else int(truth)
