"""The keys of all items in memory, for callers with many queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fashionrec.store.rows import ItemKey


class KeyTable:
    """The keys of all items, 40 bytes each plus product ids. Immutable and thread-safe."""

    _COLUMNS = (
        *(("item_no", "<i8"), ("product", "<i4"), ("class_name", "<i4"), ("worn_with", "?")),
        *(("segment", "<i4"), ("row", "<i8"), ("caption_segment", "<i4"), ("caption_row", "<i8")),
    )

    def __init__(self, keys: Iterable[ItemKey]) -> None:
        """Build the table from ``keys`` in the order of their numbers."""
        names: dict[str | None, int] = {}

        def code(name: str | None) -> int:
            return names.setdefault(name, len(names))

        self._rows = np.fromiter(
            (
                (key.item_no, code(key.product_id), code(key.class_name), key.worn_with)
                + (code(key.image_at[0]), key.image_at[1])
                + ((code(key.caption_at[0]), key.caption_at[1]) if key.caption_at else (code(None), 0))
                for key in keys
            ),
            dtype=list(self._COLUMNS),
        )
        self._names: list[Any] = list(names)
        self._by_place = np.lexsort((self._rows["row"], self._rows["segment"]))
        segments = self._rows["segment"][self._by_place]
        self._segments = {
            self._names[segment]: self._by_place[slice(*np.searchsorted(segments, (segment, segment + 1)))]
            for segment in np.unique(segments).tolist()
        }

    def at_rows(self, places: Iterable[tuple[str, int]]) -> list[ItemKey]:
        """Return the items whose image vectors are at some (segment, row) places.

        Items at the same place are ordered by number.
        """
        wanted: dict[str, list[int]] = {}
        for segment, row in places:
            wanted.setdefault(segment, []).append(row)
        found: list[ItemKey] = []
        for segment, rows in wanted.items():
            items = self._segments.get(segment)
            if items is not None:
                stored = self._rows["row"][items]
                first, last = (np.searchsorted(stored, rows, side=side) for side in ("left", "right"))
                count = last - first
                at = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
                found += self._keys(items[at])
        return found

    def by_numbers(self, numbers: Sequence[int]) -> list[ItemKey]:
        """Return the items of some numbers, if they exist."""
        wanted, known = np.asarray(numbers, np.int64), self._rows["item_no"]
        at = np.searchsorted(known, wanted)
        at[at == len(known)] = 0
        return self._keys(at[known[at] == wanted] if len(known) else at[:0])

    def _keys(self, at: np.ndarray) -> list[ItemKey]:
        names, rows = self._names, self._rows[at]
        products, classes, segments, captions = (
            map(names.__getitem__, rows[column].tolist())
            for column in ("product", "class_name", "segment", "caption_segment")
        )
        images = zip(segments, rows["row"].tolist(), strict=True)
        told = (
            None if segment is None else (segment, row)
            for segment, row in zip(captions, rows["caption_row"].tolist(), strict=True)
        )
        numbers, worn_with = rows["item_no"].tolist(), rows["worn_with"].tolist()
        return list(map(ItemKey._make, zip(numbers, products, classes, worn_with, images, told, strict=True)))
