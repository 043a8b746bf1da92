"""Test which photos go to which split, which are chosen to be labelled, and what prices are: by
hand, where cases are not alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashionrec.config import Config
from fashionrec.dataset.exports.choose import choose, disagreement, uncertainty
from fashionrec.dataset.prepare.split import Group, counts_of, split_groups
from fashionrec.errors import DataError
from fashionrec.products.prices import Money, choose_currency, parse_currency, parse_price
from fashionrec.products.values import parse_date
from fashionrec.types import Box, Garment


def groups(*rows: dict[int, int]) -> list[Group]:
    """Groups by how many photos of each class they have."""
    made, start = [], 0
    for row in rows:
        size = sum(row.values())
        made.append(Group(tuple(range(start, start + size)), Counter(row)))
        start += size
    return made


def test_groups_that_do_not_fit_leave_the_difference_to_train() -> None:
    given = groups({0: 5}, {0: 4}, {0: 4})
    chosen = split_groups(given, [5, 5, 3], exact=False, seed=0)
    assert chosen[0] == 1
    assert sorted(chosen) == [0, 1, 2]
    with pytest.raises(
        DataError, match=r"5/5/3 would separate photos that belong together; .* the largest group has 5 photos"
    ):
        split_groups(given, [5, 5, 3], exact=True, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_group_goes_where_there_is_most_room(seed: int) -> None:
    # nothing has room for eight: train, which has the most, takes them; then each of the others
    # fills a split
    given = groups({0: 1}, {0: 8}, {0: 2}, {0: 3})
    assert split_groups(given, [9, 3, 2], exact=True, seed=seed) == [0, 0, 2, 1]
    # 7/4/3 cannot be had: 8 are too many for any, and valid and test can be filled from 1, 2 and 3
    # to 3 and 3
    with pytest.raises(DataError, match="7/4/3 would separate photos"):
        split_groups(given, [7, 4, 3], exact=True, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_each_class_has_its_share_where_the_classes_are_not_alike(seed: int) -> None:
    given = groups(*[{0: 1}] * 70, *[{1: 1}] * 20, *[{2: 1}] * 10)
    chosen = split_groups(given, [60, 30, 10], exact=True, seed=seed)
    shares = [Counter(chosen[start:stop]) for start, stop in ((0, 70), (70, 90), (90, 100))]
    assert [[share[split] for split in range(3)] for share in shares] == [[42, 21, 7], [12, 6, 2], [6, 3, 1]]


def test_a_group_counts_for_its_rarest_class() -> None:
    # pairs of a common and a rare class: one of two goes to each of the splits that want one rare
    # photo
    given = groups({0: 1, 1: 1}, {0: 1, 1: 1}, *[{0: 1}] * 16)
    chosen = split_groups(given, [10, 5, 5], exact=True, seed=0)
    assert len(set(chosen[:2])) == 2
    assert 0 in chosen[:2]


def test_ratios_round_to_the_largest_remainders() -> None:
    assert counts_of(7, [0.5, 0.25, 0.25]) == [3, 2, 2]  # 3.5, 1.75, 1.75: the remainders .75 come before .5
    assert counts_of(1, [0.2, 0.3, 0.5]) == [0, 0, 1]
    assert counts_of(3, [0.5, 0.25, 0.25]) == [1, 1, 1]


A, RIGHT = Box(0, 0, 10, 10), Box(50, 0, 60, 10)


def garment(confidence: float | None, name: str = "top", box: Box = A) -> Garment:
    return Garment(0, name, confidence, box)


def test_doubt_is_greatest_at_a_half() -> None:
    assert uncertainty([garment(0.5), garment(1.0), garment(0.0), garment(None)]) == pytest.approx(1.0)
    assert uncertainty([garment(0.75), garment(0.25)]) == pytest.approx(0.5)


def test_boxes_and_labels_agree_once_each() -> None:
    labels = [("top", Box(0.0, 0.0, 0.1, 0.2)), ("pants", Box(0.5, 0.0, 0.6, 0.2))]  # of 100 x 50: as A and RIGHT
    both = [garment(0.9), garment(0.8, "pants", RIGHT)]
    assert disagreement(both, labels, (100, 50), 0.6) == (0, 0, 0)
    assert disagreement([*both, garment(0.7)], labels, (100, 50), 0.6) == (pytest.approx(0.7), 1, 0)
    assert disagreement([*both, garment(0.59)], labels, (100, 50), 0.6) == (0, 0, 0)
    assert disagreement([*both, garment(0.6)], labels, (100, 50), 0.6) == (pytest.approx(0.6), 1, 0)
    assert disagreement([garment(0.9, "pants")], labels, (100, 50), 0.6) == (pytest.approx(2.9), 1, 2)
    half = Box(0, 0, 10, 5)  # an IoU of just a half
    assert disagreement([garment(0.9, "top", half)], labels[:1], (100, 50), 0.6) == (0, 0, 0)
    less = Box(0, 0, 10, 4.9)
    assert disagreement([garment(0.9, "top", less)], labels[:1], (100, 50), 0.6) == (pytest.approx(1.9), 1, 1)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five photos of a red that tells them apart: two with labels, three without; one cannot be
    read.
    """
    for sub in ("train/images", "train/labels", "unlabelled"):
        (tmp_path / sub).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("train: train/images\nnames: [top, pants]\n")
    for n, name in enumerate(("train/images/a", "train/images/b", "unlabelled/c", "unlabelled/d", "unlabelled/e")):
        Image.new("RGB", (40, 20), (10 * n, 0, 0)).save(tmp_path / f"{name}.png")
        if "train" in name:
            (tmp_path / f"{name.replace('images', 'labels')}.txt").write_text("1 0.5 0.5 0.5 1.0\n")
    (tmp_path / "unlabelled" / "z.png").write_bytes(b"no photo")
    return tmp_path


#: How sure the detector is of the one garment of each photo: pants where the labels have them, but
#: in b.
SURE = {0: 0.9, 10: 0.8, 20: 0.55, 30: 0.6, 40: 1.0}


def detect(photos: Sequence[Image.Image]) -> list[list[Garment]]:
    reds = [photo.getpixel((0, 0))[0] for photo in photos]  # type: ignore[index]
    return [
        [Garment(0, "top" if red == 10 else "pants", SURE[red], Box(10, 0, 30, 20), whole_photo=False)] for red in reds
    ]


@pytest.mark.parametrize(
    ("strategy", "limit", "expected"),
    [
        # labelled: a agrees; b has a top of .8 and pants without a box. unlabelled: .81 and .64
        # boxes of doubt, none of e
        ("auto", 9, [("b", 1.8), ("c", 0.81), ("d", 0.64)]),
        ("auto", 2, [("b", 1.8), ("c", 0.81)]),
        ("disagree", 9, [("b", 1.8)]),
        ("uncertain", 9, [("c", 0.81), ("d", 0.64), ("b", 0.16), ("a", 0.04)]),
    ],
)
def test_the_most_doubtful_photos_are_chosen(
    strategy: Any, limit: int, expected: list[tuple[str, float]], dataset: Path, config: Config
) -> None:
    told: list[tuple[int, int]] = []
    chosen, failed = choose(
        dataset,
        detect,
        limit,
        limits=config.images,
        strategy=strategy,
        batch=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [one.path.stem for one in chosen] == [name for name, _ in expected]
    assert [one.score for one in chosen] == pytest.approx([score for _, score in expected])
    assert all((one.split == "train") == (one.path.stem in "ab") for one in chosen)
    assert all(one.size == (40, 20) for one in chosen)
    total = 2 if strategy == "disagree" else 6
    assert told == [(done, total) for done in range(2, total + 1, 2)]
    assert [one["key"] for one in failed] == ([] if strategy == "disagree" else ["unlabelled/z.png"])


def test_photos_that_are_done_with_or_alike_are_passed_over(dataset: Path, config: Config) -> None:
    (dataset / "unlabelled" / "cc.png").write_bytes((dataset / "unlabelled" / "c.png").read_bytes())
    first, _ = choose(dataset, detect, 9, limits=config.images)
    assert [one.path.stem for one in first] == ["b", "c", "d"]
    again, _ = choose(dataset, detect, 9, limits=config.images, skip={first[0].sha256, first[1].sha256})
    assert [one.path.stem for one in again] == ["d"]


@pytest.mark.parametrize(
    ("value", "money"),
    [
        (0, Money(0, ())),
        (0.0, Money(0, ())),
        ("0", Money(0, ())),
        ({"value": 0, "currency": "USD"}, Money(0, ("USD",))),
        ({"amount": "12.50", "currencyCode": "EUR"}, Money(12.5, ("EUR",))),
        ({"value": "$5", "currency_code": "CAD"}, Money(5, ("CAD",))),
        ("3만9천원", Money(39000, ("KRW",))),
        ("2만 500원", Money(20500, ("KRW",))),
        ("1.5만원", Money(15000, ("KRW",))),
        ("9천원", Money(9000, ("KRW",))),
        ("US$ 1,299.00", Money(1299, ("USD",))),
        ("EUR 1.299", Money(1299, ("EUR",))),
        ("1.299 KWD", Money(1.299, ("KWD",))),
        ("1,23,456.50 INR", Money(123456.5, ("INR",))),
        ("1'299.95 CHF", Money(1299.95, ("CHF",))),
        ("12,5 €", Money(12.5, ("EUR",))),
    ],
)
def test_amounts_and_currencies(value: Any, money: Money) -> None:
    found = parse_price(value)
    assert found == money
    assert type(found.amount) is type(money.amount)


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.01, float("inf"), float("nan"), True, None, "", "-5 EUR", "from $10 to $20", "5 per kg", "$ 5 EUR"),
        *("1.2.3", {"value": "5 EUR", "currency": "USD"}, "1,23,456 USD", "9" * 16, {"currency": "USD"}, "9" * 61),
    ],
)
def test_what_is_no_price(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_price(value)


def test_a_sign_means_what_the_row_expects_if_it_can() -> None:
    dollar = parse_price("$5")
    assert choose_currency(dollar, "CAD") == "CAD"
    assert choose_currency(dollar, "EUR") == "USD"
    assert choose_currency(dollar, None) == "USD"
    assert choose_currency(parse_price("5"), "EUR") == "EUR"
    assert choose_currency(parse_price("5 kr"), "SEK") == "SEK"
    assert choose_currency(parse_price("5 kr"), None) is None
    assert parse_currency("₩") == "KRW"
    for word in ("kr", "XYZ", ""):
        with pytest.raises(ValueError, match="not a currency of ISO 4217"):
            parse_currency(word)


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2026-11-24T10:00+05:30", "2026-11-24T10:00:00+05:30"),
        ("2026-11-24T10:00-03:30", "2026-11-24T10:00:00-03:30"),
        ("2026-11-24T10:00:05Z", "2026-11-24T10:00:05+00:00"),
    ],
)
def test_zones_of_half_an_hour(written: str, iso: str) -> None:
    assert parse_date(written) == iso


#: What a sign means, first what it means where nothing else is said; "-" where it means nothing
#: alone.
SIGNS = """
₩ KRW | 원 KRW | won KRW | US$ USD | 달러 USD | A$ AUD | AU$ AUD | C$ CAD | CA$ CAD | HK$ HKD | NT$ TWD | NZ$ NZD | S$ SGD
MX$ MXN | R$ BRL | € EUR | 유로 EUR | £ GBP EGP | ¥ JPY CNY | 円 JPY | 엔 JPY | 元 CNY | 위안 CNY | zł PLN | Kč CZK | Ft HUF
lei RON | лв BGN | ₽ RUB | ₴ UAH | ₺ TRY | TL TRY | ₹ INR | ฿ THB | ₫ VND | đ VND | Rp IDR | RM MYR | ₱ PHP | ₪ ILS | Fr. CHF
$ USD AUD CAD HKD MXN NZD SGD TWD ARS CLP COP | kr - SEK NOK DKK ISK | kr. - SEK NOK DKK ISK
Rs - INR PKR LKR NPR | Rs. - INR PKR LKR NPR
"""


@pytest.mark.parametrize("entry", SIGNS.strip().replace("\n", " | ").split(" | "))
def test_what_a_sign_of_a_currency_means(entry: str) -> None:
    sign, alone, *others = entry.split()
    for text in (f"5 {sign}", f"{sign} 5"):
        assert choose_currency(parse_price(text), None) == (None if alone == "-" else alone)
        assert choose_currency(parse_price(text), "VES") == (None if alone == "-" else alone)
        for code in others:
            assert choose_currency(parse_price(text, code), code) == code
            assert parse_price(f"{text} {code}" if text[0] != "5" else f"{code} {text}").currencies == (code,)


@pytest.mark.parametrize(
    ("text", "expected", "amount"),
    [
        ("1.299", "EUR", 1299),
        ("1.299", "JPY", 1299),
        ("1.299", "KWD", 1.299),
        ("1.299", "USD", "could be 1.299 or 1299"),
        ("0.500", "USD", 0.5),
        ("0,500", "USD", 0.5),
        ("1,299", "USD", 1299),
        ("1,299.5", "USD", 1299.5),
        ("1.299,95", "USD", 1299.95),
        ("1.299.950", "USD", 1299950),
        ("1.299.95", "USD", "is no number"),
        ("1\N{NO-BREAK SPACE}299,95", "USD", 1299.95),
        ("1\t299", "USD", 1299),
        ("1,23,456", "INR", 123456),
        ("1,23,456", "USD", "is no number"),
        ("1234.5678", "USD", 1234.5678),
        ("1" * 15, "USD", int("1" * 15)),
        ("1" * 16, "USD", "is no number"),
        ("2만 1,500원", None, 21500),
        ("3천 234원", None, 3234),
        ("3천 1234원", None, "is not a price"),
        ("5" + " " * 56 + "EUR", None, 5),
        ("5" + " " * 57 + "EUR", None, "it has more than a number and a currency"),
        ("5 pieces", None, "it has more than a number and a currency"),
        ("€ 5 $", None, "names two currencies"),
        ("-5", None, "is not a price"),
        (True, None, "is not a price"),
        (-0.5, None, "is not a price"),
        (float("inf"), None, "is not a price"),
        ({"value": "5 €", "currency": "USD"}, None, "names two currencies"),
        ({"value": "1.299", "currency": "EUR"}, "USD", 1299),
    ],
)
def test_what_a_number_is_where_a_currency_is_expected(text: Any, expected: str | None, amount: object) -> None:
    if isinstance(amount, str):
        with pytest.raises(ValueError, match=amount):
            parse_price(text, expected)
    else:
        assert parse_price(text, expected).amount == amount
