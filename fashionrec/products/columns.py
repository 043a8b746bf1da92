"""Product columns: a shop's names in ours, and its texts as numbers, dates, lists and the few words that filters know.

A cell that cannot be read is left out and reported with the reason; it is never passed on as text, for a price that is text
would be compared as text. Columns that ``feed.columns`` does not name are kept as they are, under their own names.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fashionrec.common.documents import parse_json
from fashionrec.errors import ConfigError, DataError
from fashionrec.products.prices import CURRENCIES, Money, choose_currency, parse_currency, parse_price

if TYPE_CHECKING:
    from fashionrec.config import FeedConfig

#: What `availability` becomes. in_stock and its like can be bought; query leaves out_of_stock out.
AVAILABILITIES = ("in_stock", "out_of_stock", "preorder", "backorder")

_AVAILABILITY = {
    word: name
    for name, words in {
        "in_stock": "instock available limitedavailability onlineonly instoreonly lowstock true yes y"
        " 재고있음 판매중 구매가능 판매가능 정상판매",
        "out_of_stock": "outofstock soldout discontinued unavailable notavailable false no n 품절 일시품절 매진 재고없음 판매종료"
        " 판매중지 판매중단 단종",
        "preorder": "preorder presale presell comingsoon 예약판매 예약주문 예약구매 출시예정",
        "backorder": "backorder backordered onbackorder 입고예정 재입고예정 입고대기",
    }.items()
    for word in words.split()
}
_DATE = re.compile(
    r"(\d{4})(?:\s*[-./년]\s*(\d{1,2})\s*[-./월]\s*(\d{1,2})\s*[.일]?|(\d{2})(\d{2}))"
    r"(?:[T\s]\s*(\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?)?"
)


@dataclass(frozen=True)
class Problem:
    """A cell that was left out. ``row`` counts products from 1; ``column`` is the feed's own name for it."""

    row: int
    column: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.column}: {self.value!r} {self.why}"


@dataclass(frozen=True)
class Product:
    """One row of a feed. ``images`` are addresses or paths as the feed has them; ``columns`` are typed, without empty ones."""

    row: int
    product_id: str | None
    images: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def sources_of(settings: FeedConfig) -> dict[str, tuple[str, ...]]:
    """For each of our columns the feed's that may fill it, in order. Raises :class:`ConfigError` for settings that cannot be."""
    if settings.currency.upper() not in CURRENCIES:
        raise ConfigError(f"feed.currency: {settings.currency!r} is no currency of ISO 4217", hint="KRW, USD, EUR, ...")
    named: dict[str, tuple[str, ...]] = {}
    for own, theirs in settings.columns.items():
        if theirs:
            named[own] = (theirs,) if isinstance(theirs, str) else tuple(theirs)
    if "image" not in named:
        raise ConfigError("feed.columns names no column for image", hint="for example image: [image_link]")
    return named


def map_products(records: Iterable[Mapping[str, Any]], settings: FeedConfig) -> list[Product]:
    """Rows of a feed as products. Raises :class:`DataError` if no row has a column that images come from."""
    named = sources_of(settings)
    records = list(records)
    present = {column for record in records for column in record}
    if not present & set(named["image"]):
        raise DataError(
            f"the feed has no column for images, only {', '.join(sorted(present)[:12])}",
            hint=f"name it: --set 'feed.columns.image=COLUMN' (now {', '.join(named['image'])})",
        )
    return [_map(row, record, named, settings.currency.upper()) for row, record in enumerate(records, start=1)]


def split_images(value: Any) -> list[str]:
    """The images of one cell, each once: a list, a JSON list, or texts parted by ``|`` (a comma can be part of an address)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = parse_json(value)
    if isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("is no image")
    return list(dict.fromkeys(item.strip() for item in value if item.strip()))


def parse_availability(value: Any) -> str:
    """One of :data:`AVAILABILITIES`, from the words of Google, schema.org and Korean shops, a stock count or a boolean."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = unicodedata.normalize("NFKC", str(value)).strip().lower()
    if re.fullmatch(r"\d{1,9}", text):
        return "in_stock" if int(text) else "out_of_stock"
    word = re.sub(r"[\s_\-]", "", text.rstrip("/").rpartition("/")[2])
    if word not in _AVAILABILITY:
        raise ValueError("is no availability that is known")
    return _AVAILABILITY[word]


def parse_sizes(value: Any) -> list[str]:
    """Sizes as texts, each once: from a list, a JSON list, or a text with ``|``, ``;`` or ``,`` between them."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = parse_json(text)
            except ValueError:
                raise ValueError("is no list of sizes") from None
        else:
            mark = next((mark for mark in "|;," if mark in text), None)
            value = text.split(mark) if mark else [text]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        raise ValueError("is no list of sizes")
    return [size for size in dict.fromkeys(parse_text(item) for item in value if item is not None) if size]


def parse_date(value: Any) -> str:
    """ISO 8601, with a time where there is one: from year, month and day in this order. Other orders are not guessed."""
    found = _DATE.fullmatch(unicodedata.normalize("NFKC", str(value)).strip())
    if found is None:
        raise ValueError("is no date of the form 2026-11-24")
    year, month, day, month2, day2, hour, minute, second, zone = found.groups()
    try:
        on = date(int(year), int(month or month2), int(day or day2))
        if hour is None:
            return on.isoformat()
        at = datetime(on.year, on.month, on.day, int(hour), int(minute), int(second or 0))
        return at.replace(tzinfo=_zone(zone)).isoformat()
    except ValueError:
        raise ValueError("is no date that exists") from None


def parse_text(value: Any) -> str:
    """A text in one line, without control characters; numbers as they are written, a list joined with ``>``."""
    if isinstance(value, list) and value:
        return " > ".join(parse_text(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("is no text")
    kept = "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in str(value))
    return " ".join(kept.split())


def parse_url(value: Any) -> str:
    """An address of a web page. Only http and https; no user name or password in it."""
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ValueError("is no http(s) address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or password")
    return text


_TYPES: dict[str, Callable[[Any], Any]] = {
    "availability": parse_availability,
    "sizes_in_stock": parse_sizes,
    "release_at": parse_date,
    "url": parse_url,
    "image": split_images,
}
#: Columns that are never there as anything but what they should be: their other names are not kept beside them either.
_TYPED = frozenset({*_TYPES, "price", "sale_price", "currency"})


def _map(row: int, record: Mapping[str, Any], named: Mapping[str, tuple[str, ...]], currency: str) -> Product:
    problems: list[Problem] = []
    chosen = {
        own: next((name for name in theirs if not _empty(record.get(name))), None) for own, theirs in named.items()
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
    for own in named:
        if own not in ("image", "product_id", "price", "sale_price", "currency"):
            columns[own] = cell(own, _TYPES.get(own, parse_text))
    images = cell("image", split_images) or []
    product_id = cell("product_id", parse_text)
    columns.update(_money(row, record, chosen, cell, currency, problems))
    taken = {name for name in chosen.values() if name} | {name for own in _TYPED for name in named.get(own, ())}
    taken |= set(named) | _TYPED
    columns.update({name: value for name, value in record.items() if name not in taken and not _empty(value)})
    filled = {own: value for own, value in columns.items() if value is not None}
    return Product(row, product_id, tuple(images), filled, tuple(problems))


def _money(
    row: int,
    record: Mapping[str, Any],
    chosen: Mapping[str, str | None],
    cell: Callable[[str, Callable[[Any], Any]], Any],
    default: str,
    problems: list[Problem],
) -> dict[str, Any]:
    """Prices and the one currency that they share: the column's, else the price's own, else the setting's."""
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


def _zone(text: str | None) -> timezone | None:
    if text is None or text in ("Z", "UTC"):
        return UTC if text else None
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
