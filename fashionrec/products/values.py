"""Parse product values of shops: availability, dates, sizes, texts, URLs. (Prices: :mod:`.prices`.)

Each function takes one cell and raises :class:`ValueError` with the reason if it is invalid.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

from fashionrec.common.documents import parse_json

#: Values of `availability`. in_stock and similar can be bought; query hides out_of_stock.
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


def split_images(value: Any) -> list[str]:
    """Return the images of one cell, each once: a list, a JSON list, or text separated by ``|``
    (URLs may contain commas).
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = parse_json(value)
    if isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("is not an image")
    return list(dict.fromkeys(item.strip() for item in value if item.strip()))


def parse_availability(value: Any) -> str:
    """Return one of :data:`AVAILABILITIES` for words of Google, schema.org and Korean shops, a
    stock count or a boolean.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = unicodedata.normalize("NFKC", str(value)).strip().lower()
    if re.fullmatch(r"\d{1,9}", text):
        return "in_stock" if int(text) else "out_of_stock"
    word = re.sub(r"[\s_\-]", "", text.rstrip("/").rpartition("/")[2])
    if word not in _AVAILABILITY:
        raise ValueError("is not a known availability")
    return _AVAILABILITY[word]


def parse_sizes(value: Any) -> list[str]:
    """Return sizes as texts, each once: from a list, a JSON list, or text separated by ``|``, ``;``
    or ``,``.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = parse_json(text)
            except ValueError:
                raise ValueError("is not a list of sizes") from None
        else:
            mark = next((mark for mark in "|;," if mark in text), None)
            value = text.split(mark) if mark else [text]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        raise ValueError("is not a list of sizes")
    return [size for size in dict.fromkeys(parse_text(item) for item in value if item is not None) if size]


def parse_date(value: Any) -> str:
    """Return ISO 8601, with a time if there is one, from year, month and day in this order.

    Other orders are not guessed.
    """
    found = _DATE.fullmatch(unicodedata.normalize("NFKC", str(value)).strip())
    if found is None:
        raise ValueError("is not a date such as 2026-11-24")
    year, month, day, month2, day2, hour, minute, second, zone = found.groups()
    try:
        on = date(int(year), int(month or month2), int(day or day2))
        if hour is None:
            return on.isoformat()
        at = datetime(on.year, on.month, on.day, int(hour), int(minute), int(second or 0))
        return at.replace(tzinfo=_zone(zone)).isoformat()
    except ValueError:
        raise ValueError("is not an existing date") from None


def parse_text(value: Any) -> str:
    """Return one line of text without control characters; numbers as written, a list joined with
    ``>``.
    """
    if isinstance(value, list) and value:
        return " > ".join(parse_text(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("is not text")
    kept = "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in str(value))
    return " ".join(kept.split())


def parse_url(value: Any) -> str:
    """Return the URL of a web page. Only http and https, without user name or password."""
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ValueError("is not an http(s) URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("contains a user name or password")
    return text


def _zone(text: str | None) -> timezone | None:
    if text is None or text in ("Z", "UTC"):
        return UTC if text else None
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
