"""Cells of shops, exactly: what each is, or the reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fashionrec.products.values import (
    AVAILABILITIES,
    parse_availability,
    parse_date,
    parse_sizes,
    parse_text,
    parse_url,
    split_images,
)

WORDS = {
    "in_stock": "instock available limitedavailability onlineonly instoreonly lowstock true yes y 재고있음 판매중"
    " 구매가능 판매가능 정상판매 In_Stock in-stock https://schema.org/InStock/ １２ 1 999999999",
    "out_of_stock": "outofstock soldout discontinued unavailable notavailable false no n 품절 일시품절 매진 재고없음"
    " 판매종료 판매중지 판매중단 단종 NO schema/Sold_Out 000000000",
    "preorder": "preorder presale presell comingsoon 예약판매 예약주문 예약구매 출시예정 Pre-Order",
    "backorder": "backorder backordered onbackorder 입고예정 재입고예정 입고대기 Back_Order",
}


def outcome(parse: Callable[[Any], Any], cell: Any) -> Any:
    """Return what a cell is, or the reason as an exception would print it."""
    try:
        return parse(cell)
    except ValueError as error:
        return f"! {error}"


def test_each_word_for_availability() -> None:
    assert tuple(WORDS) == AVAILABILITIES
    for name, words in WORDS.items():
        assert {word: outcome(parse_availability, word) for word in words.split()} == dict.fromkeys(words.split(), name)
    assert (parse_availability(" in stock "), parse_availability(1.0), parse_availability(0)) == (
        "in_stock",
        "in_stock",
        "out_of_stock",
    )
    for wrong in (1.5, "-0", "1234567890", None, "/", "1.0", "in stock now"):
        assert outcome(parse_availability, wrong) == "! is not a known availability"


@pytest.mark.parametrize(
    ("cell", "images"),
    [
        ("", []), ("a", ["a"]), ("|a| |b|a", ["a", "b"]), ('["a",""," b ","a"]', ["a", "b"]), (' ["x|y"]', ["x|y"]),
        ('["a", "b"', ['["a", "b"']), ("[]", []), ([], []), (["b", " a", "b"], ["b", "a"]), ("a,b", ["a,b"]),
        ("[1]", "! is not an image"), ([1], "! is not an image"), (["a", None], "! is not an image"), (None, "! is not an image"),
        (5, "! is not an image"), ({}, "! is not an image"),
    ],
)  # fmt: skip
def test_images(cell: Any, images: Any) -> None:
    assert outcome(split_images, cell) == images


@pytest.mark.parametrize(
    ("cell", "sizes"),
    [
        ("", []), ("M", ["M"]), ("a|b,c;d", ["a", "b,c;d"]), ("a;b,c", ["a", "b,c"]), ("b, a ,b", ["b", "a"]),
        (' ["a", null, 1.0, ""] ', ["a", "1"]), ([None, "x"], ["x"]), (["a", ["b", "c"]], ["a", "b > c"]), (5.0, ["5"]),
        (5.5, ["5.5"]), (0, ["0"]), ("[", "! is not a list of sizes"), (None, "! is not a list of sizes"),
        (False, "! is not a list of sizes"), ({}, "! is not a list of sizes"), ([[]], "! is not text"), ([True], "! is not text"),
    ],
)  # fmt: skip
def test_sizes(cell: Any, sizes: Any) -> None:
    assert outcome(parse_sizes, cell) == sizes


@pytest.mark.parametrize(
    ("cell", "date"),
    [
        ("2026-1-4", "2026-01-04"), ("2026.1.4.", "2026-01-04"), ("2026년1월4", "2026-01-04"), (" ２０２６-01-04 ", "2026-01-04"),
        ("2026-01-04T10:00:00.5Z", "2026-01-04T10:00:00+00:00"), ("2026-01-04T10:00 UTC", "2026-01-04T10:00:00+00:00"),
        ("2026-01-04 10:00:05+0930", "2026-01-04T10:00:05+09:30"), ("2026-01-04 10:00-09:30", "2026-01-04T10:00:00-09:30"),
        ("2026-01-04T10:00+00:30", "2026-01-04T10:00:00+00:30"), ("2026-01-04T10:00-23:59", "2026-01-04T10:00:00-23:59"),
        ("20260104 10:07:59", "2026-01-04T10:07:59"), ("2026-01-04T00:00", "2026-01-04T00:00:00"),
        ("2026-01-04T10:00+24:00", "! is not an existing date"), ("2026-01-04 10:00:60", "! is not an existing date"),
        ("2026-13-01", "! is not an existing date"), ("0000-01-01", "! is not an existing date"),
        ("2026-01-04T10", "! is not a date such as 2026-11-24"), ("20260104T1000", "! is not a date such as 2026-11-24"),
        ("202614", "! is not a date such as 2026-11-24"), ("2026-01-04T10:00z", "! is not a date such as 2026-11-24"),
        (None, "! is not a date such as 2026-11-24"), ("2026-01-04 sale", "! is not a date such as 2026-11-24"),
    ],
)  # fmt: skip
def test_dates(cell: Any, date: str) -> None:
    assert outcome(parse_date, cell) == date


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("  a\n\tb ", "a b"), ("a\x00b\u2028c\u2029d\ud800e\x9ff", "a b c d e f"), ("a\u200bb\xadc", "a\u200bb\xadc"), ("", ""),
        (5, "5"), (5.0, "5"), (5.5, "5.5"), (1e20, "1" + "0" * 20), (["a", ["b", 3.0]], "a > b > 3"), (["a"], "a"),
        (True, "! is not text"), (None, "! is not text"), ([], "! is not text"),
        (["a", None], "! is not text"), ({}, "! is not text"),
    ],
)  # fmt: skip
def test_texts(cell: Any, text: str) -> None:
    assert outcome(parse_text, cell) == text


@pytest.mark.parametrize(
    ("cell", "address"),
    [
        *((same, same) for same in ("http://a", "https://a/b?c#d", "HTTPS://A", "https://a:1/", "https://[::1]/", "https://a/é")),
        (" https://a\n", "https://a"),
        *((wrong, "! is not an http(s) URL") for wrong in (
            "ftp://a", "//a", "https://", "https://:80/", "https://a:0/", "https://a:65536", "https://a:x", "https://a b",
            "https://a/\x7f", "https://a/b\xa0c", "https://a/\ud800", "https://a/\udfff", "https://[::1", "a", None, 5, "",
        )),
        *((secret, "! contains a user name or password") for secret in ("https://u@a", "https://:p@a", "https://u:p@a/")),
    ],
)  # fmt: skip
def test_addresses(cell: Any, address: str) -> None:
    assert outcome(parse_url, cell) == address


def test_json_in_a_cell_is_read_as_json_alone() -> None:
    assert split_images(json.dumps(["a", "b"])) == parse_sizes(json.dumps(["a", "b"])) == ["a", "b"]
