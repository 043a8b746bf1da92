"""The vocabulary of product columns: which columns of a table become ours, and how cells are typed.

An invalid typed cell is dropped and reported with the reason; it is never passed on as text,
because a price as text would be compared as text. Columns outside the vocabulary are kept under
their own names.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fashionrec.config import nearest
from fashionrec.errors import ConfigError, DataError
from fashionrec.products.prices import CURRENCIES, Money, choose_currency, parse_currency, parse_price
from fashionrec.products.records import Table
from fashionrec.products.values import (
    parse_availability,
    parse_date,
    parse_sizes,
    parse_text,
    parse_url,
    split_images,
)

if TYPE_CHECKING:
    from fashionrec.config import FeedConfig


@dataclass(frozen=True)
class Vocabulary:
    """Names of a table's columns, and whether cells are ``typed``.

    ``names`` lists for each of our columns the table's columns that may fill it, in order;
    ``currency`` is that of prices without one. If cells are not typed, ``image`` is one photo, ids
    are stripped, and other cells stay unchanged, including empty lists and JSON text.
    """

    names: Mapping[str, tuple[str, ...]]
    typed: bool = False
    currency: str = ""

    @property
    def text(self) -> frozenset[str]:
        """CSV columns that must not be converted to numbers before they are parsed here."""
        return frozenset(name for names in self.names.values() for name in names) if self.typed else frozenset()


#: For tables given to `build-index`, `catalogue add`, `evaluate` and the training of encoders.
OWN = Vocabulary({"image": ("image",), "product_id": ("product_id",)})


def feed_vocabulary(settings: FeedConfig) -> Vocabulary:
    """Return the vocabulary of a shop's feed. Raises :class:`ConfigError` for invalid settings."""
    if settings.currency.upper() not in CURRENCIES:
        raise ConfigError(
            f"feed.currency: {settings.currency!r} is not a currency of ISO 4217", hint="KRW, USD, EUR, ..."
        )
    names: dict[str, tuple[str, ...]] = {}
    for own, theirs in settings.columns.items():
        if theirs:
            names[own] = (theirs,) if isinstance(theirs, str) else tuple(theirs)
    if "image" not in names:
        raise ConfigError("feed.columns has no column for image", hint="for example image: [image_link]")
    return Vocabulary(names, True, settings.currency.upper())


@dataclass(frozen=True)
class Problem:
    """A dropped cell.

    ``row`` counts products from 1; ``column`` is the table's own name.
    """

    row: int
    column: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.column}: {self.value!r} {self.why}"


@dataclass(frozen=True, slots=True)
class Product:
    """A record of a table. ``images`` are URLs or paths as in the table; ``columns`` are the other
    columns.

    ``row`` counts products from 1, ``line`` is that of the file
    (:class:`~fashionrec.products.records.Table`).
    """

    row: int
    line: int
    product_id: str | None
    images: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def map_products(table: Table, vocabulary: Vocabulary = OWN, *, need_image: bool = True) -> Iterator[Product]:
    """Convert the records of a table to products. Untyped records are removed from ``table``, which
    saves a copy.

    Raises :class:`DataError` if no record has an image column, unless ``need_image`` is false.
    """
    columns, images = table.columns, vocabulary.names["image"]
    if need_image and not set(columns) & set(images):
        raise _no_image(table, columns, images, vocabulary.typed)
    read = functools.partial(_typed, vocabulary=vocabulary) if vocabulary.typed else _as_written
    return map(read, range(1, len(table.records) + 1), table.lines, table.records)


def _no_image(table: Table, columns: list[str], images: tuple[str, ...], feed: bool) -> DataError:
    if feed:
        return DataError(
            f"the feed has no image column, only {', '.join(sorted(columns)[:12])}",
            hint=f"name it: --set 'feed.columns.image=COLUMN' (now {', '.join(images)})",
        )
    return DataError(
        f"{table.path} has no column image, only {', '.join(columns[:12])}",
        hint=nearest("image", columns) or "rename the column with the photos' paths to image",
    )


_TYPES: dict[str, Callable[[Any], Any]] = {
    "availability": parse_availability,
    "sizes_in_stock": parse_sizes,
    "release_at": parse_date,
    "url": parse_url,
    "image": split_images,
}
#: Columns that are never kept in untyped form, not even under their original names.
_TYPED = frozenset({*_TYPES, "price", "sale_price", "currency"})


def _as_written(row: int, line: int, record: dict[str, Any]) -> Product:
    image = str(record.pop("image", "") or "").strip()
    product_id = str(record.pop("product_id", "")).strip()
    return Product(row, line, product_id or None, (image,), record)


def _typed(row: int, line: int, record: Mapping[str, Any], vocabulary: Vocabulary) -> Product:
    names = vocabulary.names
    problems: list[Problem] = []
    chosen = {
        own: next((name for name in theirs if not _empty(record.get(name))), None) for own, theirs in names.items()
    }

    def cell(own: str, parse: Callable[[Any], Any]) -> Any:
        name = chosen.get(own)
        if name is None:
            return None
        try:
            value = parse(record[name])
        except ValueError as error:
            problems.append(_problem(row, name, record[name], str(error)))
            return None
        return None if _empty(value) else value

    columns: dict[str, Any] = {}
    for own in names:
        if own not in ("image", "product_id", "price", "sale_price", "currency"):
            columns[own] = cell(own, _TYPES.get(own, parse_text))
    images = cell("image", split_images) or []
    product_id = cell("product_id", parse_text)
    columns.update(_money(row, record, chosen, cell, vocabulary.currency, problems))
    taken = {name for name in chosen.values() if name} | {name for own in _TYPED for name in names.get(own, ())}
    taken |= set(names) | _TYPED
    columns.update({name: value for name, value in record.items() if name not in taken and not _empty(value)})
    filled = {own: value for own, value in columns.items() if value is not None}
    return Product(row, line, product_id, tuple(images), filled, tuple(problems))


def _money(
    row: int,
    record: Mapping[str, Any],
    chosen: Mapping[str, str | None],
    cell: Callable[[str, Callable[[Any], Any]], Any],
    default: str,
    problems: list[Problem],
) -> dict[str, Any]:
    """Parse prices and their common currency: the column's, otherwise the price's own, otherwise
    the setting's.
    """
    stated = cell("currency", parse_currency)
    unread = stated is None and chosen.get("currency") is not None  # it contradicts the setting
    found: dict[str, Any] = {}
    currency = stated
    for own in ("price", "sale_price"):
        expected = currency or (None if unread else default)
        money: Money | None = cell(own, functools.partial(parse_price, expected=expected))
        if money is None:
            continue
        its = choose_currency(money, expected)
        if its is None:
            why = "has an unknown currency"
        elif currency is not None and its != currency:
            why = f"is in {its}, but the row's currency is {currency}"
        else:
            found[own], currency = money.amount, its
            continue
        name = chosen[own]
        problems.append(_problem(row, str(name), record[str(name)], why))
    if currency is not None and (found or stated):
        found["currency"] = currency
    return found


def _problem(row: int, column: str, value: Any, why: str) -> Problem:
    text = re.sub(r"//[^/?#\s]*@", "//***@", str(value))
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return Problem(row, column, shown if len(shown) <= 80 else f"{shown[:77]}...", why)


def _empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or value == {} or (isinstance(value, float) and not math.isfinite(value))
