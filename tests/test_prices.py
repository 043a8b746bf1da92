"""Prices, exactly: what each sign stands for, what each way to write a number is, and the reason
where it is none.
"""

from __future__ import annotations

from typing import Any

import pytest

from fashionrec.products.prices import CURRENCIES, Money, choose_currency, parse_currency, parse_price

MORE = "is not a valid price: it has more than a number and a currency"
SIGNS = """
₩ KRW | 원 KRW | won KRW | $ USD AUD CAD HKD MXN NZD SGD TWD ARS CLP COP | us$ USD | 달러 USD | a$ AUD | au$ AUD | c$ CAD
ca$ CAD | hk$ HKD | nt$ TWD | nz$ NZD | s$ SGD | mx$ MXN | r$ BRL | € EUR | 유로 EUR | £ GBP EGP
¥ JPY CNY | 円 JPY | 엔 JPY | 元 CNY
위안 CNY | kr - SEK NOK DKK ISK | kr. - DKK SEK NOK ISK | zł PLN | kč CZK | ft HUF | lei RON | лв BGN | ₽ RUB | ₴ UAH | ₺ TRY
tl TRY | ₹ INR | rs - INR PKR LKR NPR | rs. - INR PKR LKR NPR | ฿ THB | ₫ VND | đ VND | rp IDR | rm MYR | ₱ PHP | ₪ ILS | fr. CHF
"""


@pytest.mark.parametrize("line", [line.strip() for line in SIGNS.replace("\n", "|").split("|") if line.strip()])
def test_each_sign_stands_for_its_currencies_the_likeliest_first(line: str) -> None:
    sign, *codes = line.split()
    meant = tuple(None if code == "-" else code for code in codes)
    for written in (f"{sign} 5", f"5 {sign}", f"5{sign.upper()}"):
        assert parse_price(written) == (5, meant)
    if meant[0]:
        assert parse_currency(sign) == meant[0]
    else:
        with pytest.raises(ValueError, match=r"^is not a currency of ISO 4217$"):
            parse_currency(sign)


def test_one_point_and_three_digits_in_each_currency() -> None:
    found: dict[str, set[str]] = {}
    for code in CURRENCIES:
        try:
            outcome = str(parse_price(f"1.299 {code}").amount)
        except ValueError as error:
            outcome = str(error)
        found.setdefault(outcome, set()).add(code)
    assert len(CURRENCIES) == 156
    assert found.keys() == {"1299", "1.299", "could be 1.299 or 1299"}
    assert found["1.299"] == set("BHD IQD JOD KWD LYD OMR TND".split())
    assert found["1299"] == set(
        "ARS BIF BRL CLP COP CZK DJF DKK EUR GNF HUF IDR ISK JPY KMF KRW NOK PLN PYG RON RSD RUB RWF SEK TRY UAH UGX UYU VND"
        " VUV XAF XOF XPF".split()
    )


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("1", 1), ("12,5", 12.5), ("1234.5", 1234.5), ("1234,50", 1234.5), ("12345,678", 12345.678), ("1,2345", 1.2345),
        ("1.00", 1), ("0.0", 0), ("1,299", 1299), ("0,999", 0.999), ("0.999", 0.999), ("01.299", 1.299), ("1'299", 1299),
        ("1’299", 1299), ("1 299", 1299), ("0 299", 299), ("1.299.000", 1299000), ("0.299.000", 299000), ("1.299,5", 1299.5),
        ("1,299.50", 1299.5), ("1,299.0", 1299), ("0,299.5", 299.5), ("1'299'000.5", 1299000.5), ("1,299.999", 1299.999),
        ("123,456,789", 123456789), ("9" * 15, 10**15 - 1), ("9" * 15 + ".0", 10**15 - 1),
        ("999,999,999,999,999.0", 10**15 - 1), ("1,000,000,000,000,000.0", 1e15),
        ("9" * 16, "is no number"), ("0" * 15 + "1", "is no number"), ("1.299.5", "is no number"), ("1,299,5", "is no number"),
        ("1,299.9999", "is no number"), ("12,34,567", "is no number"), ("1.299", "could be 1.299 or 1299"),
        ("+5", "is not a price"),
        ("5.", MORE), (".5", MORE), ("5-", MORE), ("1" + " " * 56 + "USD", 1), ("1" + " " * 57 + "USD", MORE),
        (" " * 98 + "12", 12), ("1" + " " * 120 + "299", MORE),
    ],
)  # fmt: skip
def test_numbers(written: str, amount: float | str) -> None:
    if isinstance(amount, str):
        with pytest.raises(ValueError, match=r"is|could") as caught:
            parse_price(written)
        assert str(caught.value) == amount
        return
    money = parse_price(written)
    assert (money.amount, type(money.amount)) == (amount, type(amount))


@pytest.mark.parametrize("code", ["INR", "PKR", "LKR", "NPR", "BDT"])
def test_lakhs_are_grouped_by_two_in_south_asia_alone(code: str) -> None:
    assert parse_price("12,34,567", code) == (1234567, ())
    assert parse_price(f"{code} 1,23,456") == (123456, (code,))
    assert parse_price("12,34,567.5", code) == (1234567.5, ())
    for written, expected in (("12,34,567.125", code), ("123,45,678", code), ("12,34,567", "USD")):
        with pytest.raises(ValueError, match=r"^is no number$"):
            parse_price(written, expected)


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("1천원", 1000), ("1만원", 10000), ("1만2천345원", 12345), ("1만 2,345원", 12345), ("1천 234원", 1234), ("0.5만원", 5000),
        ("1.25만 원", 12500), ("1.23456만원", 12345.6), ("₩ 3만원", 30000), ("₩3만 9천 원", 39000), ("1234만원", 12_340_000),
        ("12345만원", MORE), ("3만", MORE), ("9천", MORE), ("1천2,345원", "is not a price"), ("2천 1234원", "is not a price"),
    ],
)  # fmt: skip
def test_korean_numerals(written: str, amount: float | str) -> None:
    if isinstance(amount, str):
        with pytest.raises(ValueError, match="is no") as caught:
            parse_price(written)
        assert str(caught.value) == amount
    else:
        assert parse_price(written) == (amount, ("KRW",))
        assert type(parse_price(written).amount) is type(amount)


@pytest.mark.parametrize(
    ("written", "money"),
    [
        ({"value": 0, "amount": 5, "currency": "USD"}, (0, ("USD",))),
        ({"value": None, "amount": "5"}, (5, ())),
        ({"value": "5", "currency_code": "won"}, (5, ("KRW",))),
        ({"amount": "5", "currency": "", "currencyCode": "eur", "currency_code": "USD"}, (5, ("EUR",))),
        ({"value": "1.299", "currency": "KWD"}, (1.299, ("KWD",))),
        ({"value": "1.299"}, (1299, ())),
        ({"value": "$5", "currency": "CAD"}, (5, ("CAD",))),
        ({"value": "$5"}, (5, ("USD", "AUD", "CAD", "HKD", "MXN", "NZD", "SGD", "TWD", "ARS", "CLP", "COP"))),
        ({"value": "$5", "currency": "EUR"}, "names two currencies"),
        ({"value": "5", "currency": "kr"}, "is not a currency of ISO 4217"),
        ({"value": None, "currency": "EUR"}, "is not a price"),
        ({}, "is not a price"),
        (0, (0, ())), (0.0, (0, ())), (5.5, (5.5, ())), (1e14, (10**14, ())), (1e15, (1e15, ())),
        (-0.5, "is not a price"), (-1, "is not a price"), (float("inf"), "is not a price"),
        (True, "is not a price"), ([], "is not a price"),
        ("US$ 5 USD", (5, ("USD",))), ("₩5원", (5, ("KRW",))), ("kr 5 SEK", (5, ("SEK",))), ("$5 C$", (5, ("CAD",))),
        ("kr 5 kr.", (5, ("SEK", "NOK", "DKK", "ISK"))), ("rs 5 kr.", "names two currencies"), ("5 us $", (5, ("USD",))),
        ("5 krw", (5, ("KRW",))), ("5 $ €", MORE), ("5 pcs $", MORE), ("x 5 $", MORE),
    ],
)  # fmt: skip
def test_prices_of_programs_and_prices_with_two_signs(written: Any, money: Any) -> None:
    """In a shop of euros."""
    if isinstance(money, str):
        with pytest.raises(ValueError, match=r"is|names") as caught:
            parse_price(written, "EUR")
        assert str(caught.value) == money
        return
    found = parse_price(written, "EUR")
    assert found == money
    assert type(found.amount) is type(money[0])


@pytest.mark.parametrize(
    ("currencies", "expected", "chosen"),
    [
        ((), "EUR", "EUR"), ((), None, None), (("USD", "CAD"), "CAD", "CAD"), (("USD", "CAD"), "EUR", "USD"),
        (("USD", "CAD"), None, "USD"), ((None, "SEK"), "SEK", "SEK"), ((None, "SEK"), "EUR", None),
    ],
)  # fmt: skip
def test_which_currency_it_is(currencies: tuple[str | None, ...], expected: str | None, chosen: str | None) -> None:
    assert choose_currency(Money(5, currencies), expected) == chosen
