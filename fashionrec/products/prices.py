"""Parse prices of shops: a number and a currency, or the reason why not. Nothing is guessed.

Text is a price only as a whole: ranges, prices "from", and prices with a unit are refused, because
comparing or filtering by them would be wrong. (price-parser takes the first number: 10 for "from
$10 to $20", 5 for "-5 EUR", 3 for "3만9천원".)
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

#: ISO 4217, list one, without funds and metals.
CURRENCIES = frozenset(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP"
    " CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD"
    " IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR"
    " MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP"
    " SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG"
    " XOF XPF YER ZAR ZMW ZWG".split()
)
_NO_DECIMALS = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split())
_THREE_DECIMALS = frozenset("BHD IQD JOD KWD LYD OMR TND".split())
#: Currencies usually written with a decimal comma and points between thousands: "1.299" is 1299.
_DECIMAL_COMMA = frozenset("ARS BRL COP CZK DKK EUR HUF IDR NOK PLN RON RSD RUB SEK TRY UAH UYU".split())

#: Currencies of a sign; the first is the default. None first: the sign alone is ambiguous.
_SIGNS: dict[str, tuple[str | None, ...]] = {
    "₩": ("KRW",), "원": ("KRW",), "won": ("KRW",),
    "$": ("USD", "AUD", "CAD", "HKD", "MXN", "NZD", "SGD", "TWD", "ARS", "CLP", "COP"), "us$": ("USD",), "달러": ("USD",),
    "a$": ("AUD",), "au$": ("AUD",), "c$": ("CAD",), "ca$": ("CAD",), "hk$": ("HKD",), "nt$": ("TWD",), "nz$": ("NZD",),
    "s$": ("SGD",), "mx$": ("MXN",), "r$": ("BRL",),
    "€": ("EUR",), "유로": ("EUR",), "£": ("GBP", "EGP"), "¥": ("JPY", "CNY"), "円": ("JPY",), "엔": ("JPY",), "元": ("CNY",),
    "위안": ("CNY",), "kr": (None, "SEK", "NOK", "DKK", "ISK"), "kr.": (None, "DKK", "SEK", "NOK", "ISK"), "zł": ("PLN",),
    "kč": ("CZK",), "ft": ("HUF",), "lei": ("RON",), "лв": ("BGN",), "₽": ("RUB",), "₴": ("UAH",), "₺": ("TRY",), "tl": ("TRY",),
    "₹": ("INR",), "rs": (None, "INR", "PKR", "LKR", "NPR"), "rs.": (None, "INR", "PKR", "LKR", "NPR"), "฿": ("THB",),
    "₫": ("VND",), "đ": ("VND",), "rp": ("IDR",), "rm": ("MYR",), "₱": ("PHP",), "₪": ("ILS",), "fr.": ("CHF",),
}  # fmt: skip

_LONGEST = 60  # characters
_PARTS = re.compile(r"(?P<before>[^\d+\-−.,]*\.?)\s*(?P<number>\d(?:[\d.,'’\s]*\d)?)\s*(?P<after>\D*)")
_GROUPED = re.compile(r"\d{1,3}(?:(?P<sep>[.,'’ ])\d{3})(?:(?P=sep)\d{3})*(?P<rest>[.,]\d{1,3})?")
_LAKHS = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}(?P<rest>\.\d{1,2})?")
_PLAIN = re.compile(r"(?P<whole>\d+)(?:(?P<sep>[.,])(?P<part>\d+))?")
_KOREAN = re.compile(
    r"[₩\s]*(?:(?P<man>\d{1,4}(?:\.\d+)?)\s*만)?\s*(?:(?P<chun>\d)\s*천)?\s*(?P<one>\d{1,4}|\d,\d{3})?\s*원"
)


class Money(NamedTuple):
    """An amount, an integer if possible, and the possible currencies of its sign, likeliest first;
    empty if unspecified.
    """

    amount: int | float
    currencies: tuple[str | None, ...]


def parse_currency(value: Any) -> str:
    """Parse a currency cell to ISO 4217. Raises :class:`ValueError` with the reason."""
    text = unicodedata.normalize("NFKC", str(value)).strip()
    currencies = _meaning(text)
    if not currencies or currencies[0] is None:
        raise ValueError("is not a currency of ISO 4217")
    return currencies[0]


def parse_price(value: Any, expected: str | None = None) -> Money:
    """Parse a price cell. ``expected`` is the currency if the price has none: it decides what
    "1.299" means.

    Accepts a number, a text, or the object of shop software (``{"value": "15.00", "currency":
    "USD"}``). Raises :class:`ValueError` with the reason.
    """
    if isinstance(value, Mapping):
        amount = next((value[key] for key in ("value", "amount") if value.get(key) is not None), None)
        code = next((value[key] for key in ("currency", "currencyCode", "currency_code") if value.get(key)), None)
        own = parse_currency(code) if code else None
        money = parse_price(amount, own or expected)
        if own and money.currencies and own not in money.currencies:
            raise ValueError("names two currencies")
        return Money(money.amount, (own,)) if own else money
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError("is not a price")
        return Money(_tidy(float(value)) if isinstance(value, float) else value, ())
    if not isinstance(value, str):
        raise ValueError("is not a price")
    if len(value.strip()) > _LONGEST:
        raise ValueError("is not a valid price: it has more than a number and a currency")
    text = unicodedata.normalize("NFKC", value).strip()
    korean = _KOREAN.fullmatch(text)
    if korean and (korean["man"] or korean["chun"]):
        small = (korean["one"] or "0").replace(",", "")
        if korean["chun"] and len(small) > 3:
            raise ValueError("is not a price")
        return Money(_tidy(float(korean["man"] or 0) * 10_000 + int(korean["chun"] or 0) * 1000 + int(small)), ("KRW",))
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError("is not a price")
    signs = [sign for sign in (parts["before"].strip(), parts["after"].strip()) if sign]
    meanings = [_meaning(sign) for sign in signs]
    if any(not meaning for meaning in meanings):
        raise ValueError("is not a valid price: it has more than a number and a currency")
    currencies = meanings[0] if meanings else ()
    if len(meanings) == 2:
        currencies = tuple(code for code in meanings[0] if code and code in meanings[1])
        if not currencies:
            raise ValueError("names two currencies")
    return Money(_number(parts["number"], _choose(currencies, expected)), currencies)


def choose_currency(money: Money, expected: str | None) -> str | None:
    """Return the currency of a price if ``expected`` is that of the row or the settings.

    None if they contradict each other.
    """
    return _choose(money.currencies, expected) if money.currencies else expected


def _choose(currencies: tuple[str | None, ...], expected: str | None) -> str | None:
    if not currencies:
        return expected
    return expected if expected in currencies else currencies[0]


def _meaning(sign: str) -> tuple[str | None, ...]:
    """The currencies that a code or a sign can stand for; blanks within a sign ("US $") count for
    nothing.
    """
    if sign.upper() in CURRENCIES:
        return (sign.upper(),)
    return _SIGNS.get(sign.lower().replace(" ", ""), ())


def _number(text: str, currency: str | None) -> int | float:
    text = re.sub(r"\s", " ", text)
    lakhs = _LAKHS.fullmatch(text)
    if lakhs and currency in ("INR", "PKR", "LKR", "NPR", "BDT"):
        return _tidy(float(text.replace(",", "")))
    grouped = _GROUPED.fullmatch(text)
    if grouped:
        sep, rest = grouped["sep"], grouped["rest"] or ""
        if rest[:1] == sep:
            raise ValueError("is no number")
        whole = text[: len(text) - len(rest)]
        several = whole.count(sep) > 1 or bool(rest)
        if not several and sep in ".," and whole.startswith("0"):
            return _tidy(float(whole.replace(",", ".")))
        if not several and sep == "." and currency in _THREE_DECIMALS:
            return _tidy(float(whole))
        if not several and sep == "." and currency not in _NO_DECIMALS | _DECIMAL_COMMA:
            raise ValueError(f"could be {whole} or {whole.replace('.', '')}")
        digits = re.sub(r"\D", "", whole)
        return _tidy(float(f"{digits}.{rest[1:]}")) if rest else int(digits)
    plain = _PLAIN.fullmatch(text)
    if plain is None or len(plain["whole"]) > 15:
        raise ValueError("is no number")
    if plain["part"] is None:
        return int(plain["whole"])
    return _tidy(float(f"{plain['whole']}.{plain['part']}"))


def _tidy(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
