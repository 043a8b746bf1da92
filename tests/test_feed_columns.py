"""Product columns: prices, dates, availability and the rest, or a reason; never text that is
compared as text.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.config import Config, FeedConfig
from fashionrec.dataset.prepare.photo_names import photo_names
from fashionrec.errors import ConfigError, DataError
from fashionrec.products.columns import Product, feed_vocabulary, map_products
from fashionrec.products.prices import choose_currency, parse_currency, parse_price
from fashionrec.products.records import Table
from fashionrec.products.values import AVAILABILITIES, parse_availability, parse_date, parse_sizes
from fashionrec.search.ranking import UNAVAILABLE


def products(records: list[dict[str, Any]], settings: FeedConfig) -> list[Product]:
    """The records of a feed as products."""
    table = Table(Path("feed.jsonl"), records, range(1, len(records) + 1))
    return list(map_products(table, feed_vocabulary(settings)))


@pytest.mark.parametrize(
    ("written", "amount", "currency"),
    [
        ("39,000원", 39000, "KRW"),
        ("₩39,000", 39000, "KRW"),
        ("￦39,000", 39000, "KRW"),
        ("KRW 39,000", 39000, "KRW"),
        ("39,000.00 KRW", 39000, "KRW"),
        ("39.000원", 39000, "KRW"),
        ("3만9천원", 39000, "KRW"),
        ("3만 9,000원", 39000, "KRW"),
        ("1.5만원", 15000, "KRW"),
        (39000, 39000, "KRW"),
        (39000.0, 39000, "KRW"),
        ("39000", 39000, "KRW"),
        ("0", 0, "KRW"),
        ("1.299,00 €", 1299, "EUR"),
        ("1.299 EUR", 1299, "EUR"),
        ("€1,299", 1299, "EUR"),
        ("12,50 EUR", 12.5, "EUR"),
        ("$1,299.00", 1299, "USD"),
        ("US $12", 12, "USD"),
        ("$12.99 USD", 12.99, "USD"),
        ("A$12", 12, "AUD"),
        ("1 299,00 zł", 1299, "PLN"),
        ("1\u202f299,00 zł", 1299, "PLN"),
        ("1\u00a0299,90 zł", 1299.9, "PLN"),
        ("CHF 1'299.50", 1299.5, "CHF"),
        ("１２，０００円", 12000, "JPY"),
        ("1.250 KWD", 1.25, "KWD"),
        ("1,250 KWD", 1250, "KWD"),
        ("3,90,000 INR", 390000, "INR"),
        ("1.234.567", 1234567, "KRW"),
        ({"value": "15.00", "currency": "USD"}, 15, "USD"),
        ({"amount": 15, "currencyCode": "EUR"}, 15, "EUR"),
    ],
)
def test_prices_as_shops_write_them(written: Any, amount: float, currency: str) -> None:
    money = parse_price(written, "KRW")
    assert money.amount == amount
    assert type(money.amount) is type(amount)
    assert choose_currency(money, "KRW") == currency


@pytest.mark.parametrize(
    "written",
    [
        "문의", "Free", "", "-5 EUR", "−5", "39,000원 ~ 49,000원", "from $10 to $20", "2 pcs 39,000원", "50% off", "1e5", "NaN",
        "3 for 10", "1.2.3", "1,2,3", "12,34,567", "$12 EUR", "US$ 12 EUR", "39,000원부터", "1,299.00.00", "9" * 40, "1 2",
        "1,299" * 500, True, None, float("nan"), float("inf"), -1, [], {"amount": None}, {"value": "$5", "currency": "EUR"},
    ],
)  # fmt: skip
def test_what_is_no_price_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"is|names|more"):
        parse_price(written, "USD")


def test_one_point_and_three_digits_is_guessed_in_no_currency_that_writes_both() -> None:
    with pytest.raises(ValueError, match=r"could be 1\.299 or 1299"):
        parse_price("1.299", "USD")
    assert parse_price("1.299", "EUR").amount == 1299
    assert parse_price("0.999", "USD").amount == 0.999


@given(
    st.integers(0, 10**9),
    st.sampled_from([",", ".", "'", " ", "\u00a0", "\u202f"]),
    st.sampled_from(["{} KRW", "KRW {}", "{}원", "₩{}", "₩ {}", "{} 원"]),
)
def test_every_whole_price_reads_back(amount: int, mark: str, form: str) -> None:
    grouped = f"{amount:,}".replace(",", mark)
    assert parse_price(form.format(grouped)) == (amount, ("KRW",))
    assert parse_price(form.format(amount)) == (amount, ("KRW",))


@given(st.integers(0, 10**9), st.integers(0, 99), st.sampled_from([(",", "."), (".", ","), (" ", ","), ("'", ".")]))
def test_every_price_with_cents_reads_back(whole: int, cents: int, marks: tuple[str, str]) -> None:
    grouped = f"{whole:,}".replace(",", marks[0]) + f"{marks[1]}{cents:02d}"
    money = parse_price(f"{grouped} EUR")
    assert round(money.amount * 100) == whole * 100 + cents
    assert isinstance(money.amount, int) == (cents == 0)


@given(st.text(max_size=30))
def test_any_text_is_a_price_or_a_reason(text: str) -> None:
    with contextlib.suppress(ValueError):
        amount, currencies = parse_price(text, "KRW")
        assert amount >= 0
        assert all(code is None or (len(code) == 3 and code.isupper()) for code in currencies)


def test_currencies() -> None:
    assert [parse_currency(text) for text in ("krw", " USD ", "원", "€", "$")] == ["KRW", "USD", "KRW", "EUR", "USD"]
    for wrong in ("kr", "XYZ", "5", "", "monopoly"):
        with pytest.raises(ValueError, match="ISO 4217"):
            parse_currency(wrong)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("in stock", "in_stock"), ("in_stock", "in_stock"), ("https://schema.org/InStock", "in_stock"), (True, "in_stock"),
        ("http://schema.org/LimitedAvailability", "in_stock"), ("판매중", "in_stock"), ("재고 있음", "in_stock"),
        (12, "in_stock"),
        ("Out of Stock", "out_of_stock"), ("품절", "out_of_stock"), ("일시 품절", "out_of_stock"), (False, "out_of_stock"),
        ("https://schema.org/SoldOut", "out_of_stock"), ("0", "out_of_stock"), (0.0, "out_of_stock"),
        ("preorder", "preorder"), ("PreOrder", "preorder"), ("예약판매", "preorder"), ("BackOrder", "backorder"),
    ],
)  # fmt: skip
def test_availability(written: Any, name: str) -> None:
    assert parse_availability(written) == name


def test_availability_agrees_with_what_a_query_leaves_out() -> None:
    assert {parse_availability(word) for word in UNAVAILABLE} == {"out_of_stock"}
    assert set(AVAILABILITIES) & UNAVAILABLE == {"out_of_stock"}
    for wrong in ("maybe", "", "-3", "1.5", [], {}):
        with pytest.raises(ValueError, match="availability"):
            parse_availability(wrong)


def test_sizes() -> None:
    expected = ["S", "M", "L"]
    for written in ("S,M,L", "S|M|L", "S; M; L", '["S","M","L"]', ["S", "M", "L", "S"], " S , M,,L,"):
        assert parse_sizes(written) == expected
    assert parse_sizes("S/M|M/L") == ["S/M", "M/L"]
    assert parse_sizes([38, 39.0, 39.5]) == ["38", "39", "39.5"]
    assert parse_sizes(240) == ["240"]
    for wrong in ('["S"', True, {"S": 1}, [["S", {}]]):
        with pytest.raises(ValueError, match=r"list|text"):
            parse_sizes(wrong)


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2026-11-24", "2026-11-24"),
        ("2026.11.24.", "2026-11-24"),
        ("2026/1/4", "2026-01-04"),
        ("20261124", "2026-11-24"),
        (20261124, "2026-11-24"),
        ("2026년 11월 24일", "2026-11-24"),
        ("2026-11-24T10:00Z", "2026-11-24T10:00:00+00:00"),
        ("2026-12-25T13:00-0800", "2026-12-25T13:00:00-08:00"),
        ("2026-11-24 10:00:30", "2026-11-24T10:00:30"),
        ("2026-11-24T10:00:30.123+09:00", "2026-11-24T10:00:30+09:00"),
    ],
)
def test_dates(written: Any, iso: str) -> None:
    assert parse_date(written) == iso


@pytest.mark.parametrize(
    "written", ["11/24/2026", "24.11.2026", "soon", "2026-02-30", "2026-11", 1764547200, "2026-11-24T25:00"]
)
def test_dates_are_not_guessed(written: Any) -> None:
    with pytest.raises(ValueError, match=r"is not (a date such as|an existing date)"):
        parse_date(written)


def test_a_row_is_mapped_and_typed_and_what_cannot_be_read_is_named(config: Config) -> None:
    records = [
        {
            "id": "7", "image_link": "https://cdn.shop/7.jpg", "name": "셔츠\n반팔", "price": "39,000원", "sale_price": "29,000",
            "availability": "품절", "sizes": "S|M", "link": "https://shop/7", "release_date": "2026.03.01", "licence": "CC0-1.0",
            "sku": "A-7", "colour": "white", "season": None,
        },
        {
            "id": "8", "image_link": "b.jpg", "price": "문의", "availability": "물어보세요", "link": "javascript:alert(1)",
            "release_date": "곧", "sale_price": "$5", "sizes": True,
        },
    ]  # fmt: skip
    first, second = products(records, config.feed)
    assert (first.product_id, first.images, first.problems) == ("7", ("https://cdn.shop/7.jpg",), ())
    assert first.columns == {
        "title": "셔츠 반팔", "price": 39000, "sale_price": 29000, "currency": "KRW", "availability": "out_of_stock",
        "sizes_in_stock": ["S", "M"], "url": "https://shop/7", "release_at": "2026-03-01", "photo_licence": "CC0-1.0",
        "sku": "A-7", "colour": "white",
    }  # fmt: skip
    assert second.columns == {"sale_price": 5, "currency": "USD"}
    assert {(problem.row, problem.column) for problem in second.problems} == {
        (2, name) for name in ("price", "availability", "link", "release_date", "sizes")
    }
    assert "row 2, price: '문의' is not a price" in [str(problem) for problem in second.problems]


@pytest.mark.parametrize(
    ("row", "columns", "why"),
    [
        ({"price": "5", "currency": "EUR"}, {"price": 5, "currency": "EUR"}, None),
        ({"price": "5 EUR"}, {"price": 5, "currency": "EUR"}, None),
        ({"price": "$5", "currency": "CAD"}, {"price": 5, "currency": "CAD"}, None),
        ({"price": "$5"}, {"price": 5, "currency": "USD"}, None),
        ({"price": "5"}, {"price": 5, "currency": "KRW"}, None),
        ({}, {}, None),
        ({"price": "5 EUR", "currency": "USD"}, {"currency": "USD"}, "is in EUR, but the row's currency is USD"),
        ({"price": "5 EUR", "sale_price": "4 USD"}, {"price": 5, "currency": "EUR"}, "is in USD"),
        ({"price": "299 kr"}, {}, "has an unknown currency"),
        ({"price": "299 kr", "currency": "SEK"}, {"price": 299, "currency": "SEK"}, None),
        ({"price": "5", "currency": "Taler"}, {}, "has an unknown currency"),
        ({"price": "5 EUR", "currency": "Taler"}, {"price": 5, "currency": "EUR"}, "is not a currency of ISO"),
    ],
)
def test_a_row_has_one_currency(config: Config, row: dict[str, Any], columns: dict[str, Any], why: str | None) -> None:
    (product,) = products([{"image": "a.jpg", **row}], config.feed)
    assert product.columns == columns
    assert why is None or any(why in problem.why for problem in product.problems)
    assert (why is None) == (not product.problems)


def test_a_column_that_is_switched_off_is_not_passed_on_as_text(config: Config) -> None:
    settings = config.feed.model_copy(update={"columns": {"image": "image", "price": None, "farbe": "colour"}})
    (product,) = products([{"image": "a.jpg", "price": "39,000원", "colour": "red", "weight": 3}], settings)
    assert product.columns == {"farbe": "red", "weight": 3}


def test_several_images_and_passwords(config: Config) -> None:
    def images(cell: object) -> tuple[str, ...]:
        return products([{"image": cell, "id": 1}], config.feed)[0].images

    assert images("a.jpg|b.jpg | a.jpg") == ("a.jpg", "b.jpg")
    assert images('["a.jpg", "b,c.jpg"]') == ("a.jpg", "b,c.jpg")
    assert images(["a.jpg"]) == ("a.jpg",)
    (product,) = products([{"image": "a.jpg", "url": "https://me:secret@shop/x"}], config.feed)
    assert "secret" not in str(product.problems[0])


def test_settings_and_feeds_that_cannot_be(config: Config) -> None:
    with pytest.raises(DataError, match="no image column, only price"):
        products([{"price": "5"}], config.feed)
    with pytest.raises(ConfigError, match="ISO 4217"):
        products([{"image": "a"}], config.feed.model_copy(update={"currency": "WON"}))
    with pytest.raises(ConfigError, match="image"):
        products([{"image": "a"}], config.feed.model_copy(update={"columns": {"price": "price"}}))


def test_names_of_photos() -> None:
    names = photo_names(
        ["7", "셔츠 1", "a/b", "a:b", "ABC", "abc", "con", "con.x", "..", "", "x" * 500, "\ud800", "é", "e\u0301"]
    )
    assert names["7"] == "7"
    assert names["셔츠 1"] == "셔츠 1"
    assert names["a/b"].startswith("a-b-")
    assert names["ABC"].startswith("ABC-")
    assert names["con"].startswith("-con")
    assert photo_names(["ABC", "x"])["ABC"] == "ABC"


@given(st.lists(st.text(st.characters(codec=None), max_size=40), max_size=12))
def test_no_two_products_share_a_file_name_on_any_file_system(ids: list[str]) -> None:
    import unicodedata

    names = photo_names(ids)
    assert set(names) == set(ids)
    folded = [unicodedata.normalize("NFC", name.casefold()) for name in names.values()]
    assert len(set(folded)) == len(folded)
    for name in names.values():
        assert name
        assert 0 < len(name.encode()) <= 128
        assert not set(name) & set('<>:"/\\|?*\0')
        assert name[0] not in " ."
        assert name[-1] not in " ."
        assert name.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}
    assert json.dumps(names) == json.dumps(photo_names(ids))
