"""Validation of rows of an items file.

SQLite lets any column hold anything, and the file may be untrusted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple

from fashionrec.common.documents import parse_json
from fashionrec.errors import CatalogueError
from fashionrec.types import Box

AGAIN = "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"
#: Maximum coordinate of a box, in pixels.
_FAR = 1e9


class DamagedRow(ValueError):
    """A row with an invalid value."""


def parse_table(text: str) -> dict[str, Any]:
    """Parse a JSON object. Raises :class:`DamagedRow` for any other value."""
    document: Any = parse_json(text)
    if not isinstance(document, dict):
        raise DamagedRow("a row's data is not a JSON object")
    return document


def parse_texts(text: str) -> dict[str, str]:
    """Parse a JSON object of texts. Raises :class:`DamagedRow`."""
    document = parse_table(text)
    if not all(isinstance(value, str) for value in document.values()):
        raise DamagedRow("a caption's attributes are not texts")
    return document


Kinds = tuple["type | UnionType", ...]
_TEXT, _NUMBER = str | None, float | None
#: Types of the columns of some queries, as their writer stores them.
PHOTO: Kinds = (str, int, int, str)
ENTRY: Kinds = (int, str, str, str, str, str)
GARMENT: Kinds = (int, _TEXT, _NUMBER, float, float, float, float, int, str, int, int, int)
CAPTION: Kinds = (int, str, str, str, str, str, _TEXT, int | None, _TEXT)
STORED: Kinds = (
    *(int, str, str, int, int, str, str, str),
    *(_TEXT, _NUMBER, float, float, float, float, int, str, int, int, int),
    *(_TEXT, _TEXT, _TEXT, _TEXT, int | None, str),
)
GARMENT_KEY: Kinds = (int, int, str, _TEXT, float, float, float, float, _TEXT, int)
KEY: Kinds = (int, str, _TEXT, int, str, int, _TEXT, int | None)


class ItemKey(NamedTuple):
    """The ranking key of an item; ``image_at`` and ``caption_at`` are segment and row."""

    item_no: int
    product_id: str
    class_name: str | None
    worn_with: bool
    image_at: tuple[str, int]
    caption_at: tuple[str, int] | None


class GarmentKey(NamedTuple):
    """A garment that is, or is worn with, a product: its first item, its place, its captioner.

    ``alone``: its photo has no other garment of its class.
    """

    item_no: int
    garment_no: int
    photo: str
    class_name: str | None
    box: Box
    captioner: str | None
    alone: bool


def typed(rows: Iterable[tuple[Any, ...]], kinds: Kinds) -> Iterator[tuple[Any, ...]]:
    """Yield rows after checking their types, and that numbers are finite.

    Raises:
        DamagedRow: A row is invalid.
    """
    known: set[tuple[type, ...]] = set()
    numbers = [n for n, kind in enumerate(kinds) if kind in (float, _NUMBER)]
    for row in rows:
        found = tuple(map(type, row))
        if found not in known:
            for n, (value, kind) in enumerate(zip(row, kinds, strict=True)):
                if not isinstance(value, kind):
                    raise DamagedRow(f"a row has {type(value).__name__} in column {n}")
            known.add(found)
        for n in numbers:
            if row[n] is not None and not -_FAR < row[n] < _FAR:
                raise DamagedRow(f"a row has {row[n]!r} in column {n}")
        yield row


class damage_reported:
    """Report errors of SQLite and invalid values in the file as :class:`CatalogueError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (sqlite3.Error, ValueError, TypeError)):  # the file, or text or JSON in it
            raise CatalogueError(f"catalogue is damaged: {self._path}: {error}", hint=AGAIN) from error
