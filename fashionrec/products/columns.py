"""The one vocabulary of product columns: a table's names in ours, and what becomes of their cells.

A typed cell that cannot be read is left out and reported with the reason; it is never passed on as
text, for a price that is text would be compared as text. Columns that the vocabulary does not name
are kept as they are, under their own names.
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
    """What the columns of a table are called, and whether their cells are ``typed``.

    ``names`` has for each of our columns those of the table that may fill it, in order;
    ``currency`` is that of prices which name none. Where cells are not typed, ``image`` is one
    photo, ids lose the blanks around them, and all other cells stay as they are, empty lists and
    texts of JSON included.
    """

    names: Mapping[str, tuple[str, ...]]
    typed: bool = False
    currency: str = ""

    @property
    def text(self) -> frozenset[str]:
        """Columns of CSV that are not to be taken for numbers before they are read here."""
        return frozenset(name for names in self.names.values() for name in names) if self.typed else frozenset()


#: Of the tables that `build-index`, `catalogue add`, `evaluate` and the training of encoders are
#: handed.
OWN = Vocabulary({"image": ("image",), "product_id": ("product_id",)})


def feed_vocabulary(settings: FeedConfig) -> Vocabulary:
    """The vocabulary of a shop's feed. Raises :class:`ConfigError` for settings that cannot be."""
    if settings.currency.upper() not in CURRENCIES:
        raise ConfigError(f"feed.currency: {settings.currency!r} is no currency of ISO 4217", hint="KRW, USD, EUR, ...")
    names: dict[str, tuple[str, ...]] = {}
    for own, theirs in settings.columns.items():
        if theirs:
            names[own] = (theirs,) if isinstance(theirs, str) else tuple(theirs)
    if "image" not in names:
        raise ConfigError("feed.columns names no column for image", hint="for example image: [image_link]")
    return Vocabulary(names, True, settings.currency.upper())


@dataclass(frozen=True)
class Problem:
    """A cell that was left out.

    ``row`` counts products from 1; ``column`` is the table's own name for it.
    """

    row: int
    column: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.column}: {self.value!r} {self.why}"


@dataclass(frozen=True, slots=True)
class Product:
    """One record of a table. ``images`` are addresses or paths as the table has them; ``columns``
    are the other columns.

    ``row`` counts products from 1, ``line`` is that of the file
    (:class:`~fashionrec.products.records.Table`).
    """

    row: int
    line: int
    product_id: str | None
    images: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def map_products(table: Table, vocabulary: Vocabulary = OWN) -> Iterator[Product]:
    """The records of a table as products. Those that are not typed are taken out of ``table``,
    which spares a copy.

    Raises :class:`DataError` if no record has a column that images come from.
    """
    columns, images = table.columns, vocabulary.names["image"]
    if not set(columns) & set(images):
        raise _no_image(table, columns, images, vocabulary.typed)
    read = functools.partial(_typed, vocabulary=vocabulary) if vocabulary.typed else _as_written
    return map(read, range(1, len(table.records) + 1), table.lines, table.records)


def _no_image(table: Table, columns: list[str], images: tuple[str, ...], feed: bool) -> DataError:
    if feed:
        return DataError(
            f"the feed has no column for images, only {', '.join(sorted(columns)[:12])}",
            hint=f"name it: --set 'feed.columns.image=COLUMN' (now {', '.join(images)})",
        )
    return DataError(
        f"{table.path} has no column image, only {', '.join(columns[:12])}",
        hint=nearest("image", columns) or "name the column with the photos' paths image",
    )


_TYPES: dict[str, Callable[[Any], Any]] = {
    "availability": parse_availability,
    "sizes_in_stock": parse_sizes,
    "release_at": parse_date,
    "url": parse_url,
    "image": split_images,
}
#: Columns that are never there as anything but what they should be: their other names are not kept
#: beside them either.
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
    """Prices and the one currency that they share: the column's, else the price's own, else the
    setting's.
    """
    stated = cell("currency", parse_currency)
    unread = stated is None and chosen.get("currency") is not None  # it says something else than the setting
    found: dict[str, Any] = {}
    currency = stated
    for own in ("price", "sale_price"):
        expected = currency or (None if unread else default)
        money: Money | None = cell(own, functools.partial(parse_price, expected=expected))
        if money is None:
            continue
        its = choose_currency(money, expected)
        if its is None:
            why = "has a currency that is not known"
        elif currency is not None and its != currency:
            why = f"is in {its}, the currency of the row is {currency}"
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
