"""Columns of a catalogue's items as arrays, read when a filter first names them: a filter is decided for each different value
once, and for a hundred thousand items by looking its values up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.errors import CatalogueError
from fashionrec.search.filters.where import (
    Comparison,
    Filter,
    Group,
    Not,
    WhereError,
    as_number,
    columns_of,
    parse_where,
)

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.store.items import ItemReader
    from fashionrec.store.vectors import VectorStore

#: Columns that every item has, whatever its product's data says. A column of the product's own name comes first.
OWN = ("product_id", "item_id", "image", "class_name", "confidence")

_UNKNOWN, _FALSE, _TRUE = -1, 0, 1


@dataclass(frozen=True)
class Column:
    """Different values, and for each item which of them it has (int32, -1 = none). ``numbers`` is NaN where a value is none."""

    values: list[Any]
    codes: np.ndarray
    numbers: np.ndarray


class Columns:
    """Columns over the items of one generation, in the order of their numbers. Thread-safe; kept once they are read."""

    def __init__(self, items: ItemReader, images: VectorStore) -> None:
        self._items, self._images = items, images
        self._lock = threading.RLock()
        self._columns: dict[str, Column | None] = {}
        self._places: tuple[np.ndarray, np.ndarray] | None = None
        self.allowed = lru_cache(maxsize=64)(self._allowed)

    @classmethod
    def of(cls, catalogue: Catalogue) -> Columns:
        """The columns of a catalogue; :meth:`Catalogue.memoize` keeps them with it."""
        return cls(catalogue.items, catalogue.images)

    @property
    def numbers(self) -> np.ndarray:
        """int64 [n]: the items' numbers."""
        return self._read_places()[0]

    def column(self, name: str) -> Column | None:
        """The column of that name; None where no item has one."""
        with self._lock:
            if name not in self._columns:
                self._columns[name] = self._read(name)
            return self._columns[name]

    def _allowed(self, where: str) -> tuple[np.ndarray, np.ndarray]:
        """For a filter: bool [n] over the items (in the order of ``numbers``), and bool over the positions of image vectors.

        Raises :class:`WhereError` where it is not understood, or names a column that no item has.
        """
        tree = parse_where(where)
        for test in columns_of(tree):
            if self.column(test.column) is None:
                from fashionrec.config import nearest

                known = [*self._items.column_names(), *OWN]
                raise WhereError(
                    f"no item has a column {test.column!r}",
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
        """int8 [n]: true, false or unknown for each item."""
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
        column = self.column(test.column)
        assert column is not None
        number = as_number(test.values[0]) if len(test.values) == 1 and not isinstance(test.values[0], str) else None
        if number is not None and test.kind in ("<", "<=", ">", ">=") and not np.isnan(column.numbers).any():
            found = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[test.kind](
                column.numbers, number
            ).astype(np.int8)
        else:
            found = np.array([_number(test.truth(value)) for value in column.values], np.int8)
        missing = _number(test.truth(None))
        return np.concatenate([found, np.array([missing], np.int8)])[column.codes]

    def _read(self, name: str) -> Column | None:
        values: dict[Any, int] = {}
        codes = np.full(len(self.numbers), -1, np.int32)
        numbers, found = [], []
        for number, value in self._items.column(name, own=name in OWN):
            numbers.append(number)
            found.append(values.setdefault((type(value).__name__, value), len(values)))
        codes[self._at(numbers)] = found
        if not values:
            return None
        plain = [value for _, value in values]
        read = [as_number(value) if not isinstance(value, tuple) else None for value in plain]
        return Column(plain, codes, np.array([np.nan if one is None else one for one in read], np.float64))

    def _read_places(self) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if self._places is None:
                starts = {name: int(self._images.starts[n]) for n, name in enumerate(self._images.names)}
                rows = self._items.places()
                try:
                    numbers = np.array([number for number, _, _ in rows], np.int64)
                    positions = np.array([starts[segment] + row for _, segment, row in rows], np.int64)
                    if len(positions) and not 0 <= positions.min() <= positions.max() < len(self._images):
                        raise ValueError("an item's vector is not there")
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise CatalogueError(f"catalogue is damaged: {error!r}") from None
                self._places = numbers, positions
            return self._places

    def kept(self, where: str, numbers: Sequence[int]) -> set[int]:
        """Those of some items, by number, that a filter keeps."""
        keep, _ = self.allowed(where)
        return {number for number, n in zip(numbers, self._at(numbers), strict=True) if keep[n]}

    def _at(self, numbers: Sequence[int]) -> np.ndarray:
        """Where item numbers stand among all. Raises :class:`CatalogueError` for one that has no garment."""
        wanted = np.asarray(numbers, np.int64)
        at = np.searchsorted(self.numbers, wanted)
        if len(wanted) and (at.max() >= len(self.numbers) or (self.numbers[at] != wanted).any()):
            raise CatalogueError("catalogue is damaged: an item refers to a garment that is not there")
        return at


def _number(truth: bool | None) -> int:
    return _UNKNOWN if truth is None else int(truth)
