"""Filters: parsed into a tree, never executed; checked against an evaluation of its own and against noise."""

import json
import math
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionrec.search.filters.columns import Columns
from fashionrec.search.filters.where import WhereError, columns_of, keeps, parse_where
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.items import GarmentRow, ItemReader, PhotoRow
from fashionrec.types import Box

ROW = {"price": 39000, "brand": "Ödön", "color": "Red", "sizes": ["S", "M"], "sale": True, "code": "0012", "가격": 5}


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("price < 50000 and brand in ('A', 'ödön') and color = 'red'", True),
        ("price >= 39000 AND NOT price > 39000", True),
        ("price between 30000 and 40000", True),
        ("price not between 30000 and 40000", False),
        ("price = '39000' or color = 'x'", True),
        ("code = 12", True),  # read as a number, it is one
        ("code = '12'", False),
        ("color != 'red'", False),
        ("color <> 'blue'", True),
        ("sizes = 'm'", True),
        ("sizes = 'XL'", False),
        ("sizes != 'XL'", True),
        ("sale = true and sale != false", True),
        ("`brand` like 'ö%n' and brand like '____'", True),
        ("brand not like '%x%'", True),
        ("missing = 1", None),
        ("not missing = 1", None),
        ("missing = 1 or price > 1", True),
        ("missing = 1 and price < 1", False),
        ("missing is null and price is not null", True),
        ("가격 <= 5e0 and 가격 > -1.5", True),
        ("color > 'r' and color < 'rf'", True),
        ("price > 'a'", None),
        ("not not not price = 39000", False),
        ("(price = 1 or price = 39000) and (color = 'blue' or color = 'red')", True),
        ("color = 'it''s'", False),
    ],
)
def test_what_a_filter_says_of_a_row(text: str, truth: bool | None) -> None:
    assert keeps(parse_where(text), ROW.get) is truth


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", 0),
        ("price <", 7),
        ("price < 5 brand = 'x'", 10),
        ("brand = A", 8),
        ("brand = 'A", 8),
        ("(a = 1", 6),
        ("a = 1)", 5),
        ("a in 1", 5),
        ("a in ()", 6),
        ("a like 5", 7),
        ("5 < price", 0),
        ("a = 1 and", 9),
        ("a == = 1", 5),
        ("a = 1; drop table items", 5),
        ("__import__('os')", 10),
        ("a is 5", 5),
        ("a = null", 4),
        ("price < 1e999", 8),
        ("`` = 1", 0),
        ("(" * 100 + "a = 1" + ")" * 100, 60),
    ],
)
def test_the_caret_stands_where_it_stops_making_sense(text: str, at: int) -> None:
    with pytest.raises(WhereError) as caught:
        parse_where(text)
    line, caret = caught.value.shown.split("\n")
    assert caret.endswith("^")
    start = max(0, at - 60)
    assert caret.index("^") - 2 == at - start
    assert line[2:] == text[start : start + 120]
    assert caught.value.hint


# --- an oracle of its own: the expression as text, and its truth by another route

NAMES = ("a", "b", "이름", "odd name")
VALUES = st.one_of(
    st.integers(-5, 5),
    st.floats(-4, 4).map(lambda x: round(x, 1)),
    st.sampled_from(["x", "X", "y z", "it's", "3", "셔츠", "%"]),
)


def literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def name(column: str) -> str:
    return f"`{column}`" if " " in column else column


def number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def compared(sign: str, value: Any, wanted: Any) -> bool | None:
    if value is None:
        return None
    if isinstance(value, str) and isinstance(wanted, str):
        left: Any = value.casefold()
        right: Any = wanted.casefold()
    else:
        left, right = number(value), number(wanted)
        if left is None or right is None:
            return {"=": False, "!=": True}.get(sign)
    return bool(
        {
            "=": left == right,
            "!=": left != right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[sign]
    )


Pair = tuple[str, Any]


def leaf(parts: tuple[str, str, Any]) -> Pair:
    column, sign, wanted = parts
    return f"{name(column)} {sign} {literal(wanted)}", lambda row: compared(sign, row.get(column), wanted)


def member(parts: tuple[str, list[Any]]) -> Pair:
    column, wanted = parts

    def truth(row: dict[str, Any]) -> bool | None:
        value = row.get(column)
        return None if value is None else any(compared("=", value, one) for one in wanted)

    return f"{name(column)} IN ({', '.join(map(literal, wanted))})", truth


def nothing(column: str) -> Pair:
    return f"{name(column)} is null", lambda row: row.get(column) is None


def negated(pair: Pair) -> Pair:
    def truth(row: dict[str, Any]) -> bool | None:
        found = pair[1](row)
        return None if found is None else not found

    return f"not ({pair[0]})", truth


def joined(parts: tuple[list[Pair], bool]) -> Pair:
    pairs, any_ = parts

    def truth(row: dict[str, Any]) -> bool | None:
        # Kleene: false < unknown < true; and is the least, or the greatest
        levels = [{False: 0, None: 1, True: 2}[pair[1](row)] for pair in pairs]
        return {0: False, 1: None, 2: True}[max(levels) if any_ else min(levels)]

    return (" or " if any_ else " and ").join(f"({pair[0]})" for pair in pairs), truth


LEAVES = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), VALUES).map(leaf),
    st.tuples(st.sampled_from(NAMES), st.lists(VALUES, min_size=1, max_size=3)).map(member),
    st.sampled_from(NAMES).map(nothing),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(negated), st.tuples(st.lists(inner, min_size=2, max_size=3), st.booleans()).map(joined)
    ),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(NAMES), VALUES)


@settings(max_examples=300)
@given(pair=TREES, row=ROWS)
def test_a_filter_means_what_it_says(pair: Pair, row: dict[str, Any]) -> None:
    text, truth = pair
    assert keeps(parse_where(text), row.get) is truth(row), text


class _Images:
    """Two segments of vectors; only their places are asked for."""

    names = ("one", "two")

    def __init__(self, first: int, second: int) -> None:
        self.starts = [0, first, first + second]

    def __len__(self) -> int:
        return self.starts[-1]


def catalogue(path: Path, rows: list[dict[str, Any]]) -> Columns:
    writer = ItemWriter(path)
    first = len(rows) // 2
    for n, row in enumerate(rows):
        segment, place = ("one", n) if n < first else ("two", n - first)
        garment = GarmentRow(0, "top", 0.5, Box(0, 0, 1, 1), False, segment, place, 0, 1)
        (garment_no,) = writer.add_photo(PhotoRow(f"photo{n}", 1, 1, "key", (garment,)))
        entry = writer.add_entry(f"{n}.jpg", "", f"p{n}", f"photo{n}", row)
        writer.add_item(f"item{n}", entry, garment_no, f"p{n}", False, "")
    writer.close()
    return Columns(ItemReader(path), _Images(first, len(rows) - first))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(pair=TREES, rows=st.lists(ROWS, min_size=4, max_size=12))
def test_columns_decide_as_rows_do(
    tmp_path_factory: pytest.TempPathFactory, pair: Pair, rows: list[dict[str, Any]]
) -> None:
    columns = catalogue(tmp_path_factory.mktemp("c") / "items.sqlite", rows)
    text, truth = pair
    missing = [test.column for test in columns_of(parse_where(text)) if not any(test.column in row for row in rows)]
    if missing:
        with pytest.raises(WhereError, match="no item has a column"):
            columns.allowed(text)
        return
    keep, places = columns.allowed(text)
    expected = [truth(row) is True for row in rows]
    assert keep.tolist() == expected
    assert places.tolist() == expected  # the items lie in the order of their vectors
    assert columns.kept(text, [1, 2]) == {n + 1 for n in range(2) if expected[n]}


def test_lists_bools_attributes_and_own_columns(tmp_path: Path) -> None:
    columns = catalogue(
        tmp_path / "items.sqlite", [{"s": ["a", "b"], "ok": True}, {"s": "B", "ok": False, 'od"d': 1}, {}, {}]
    )
    for text, expected in {
        "s = 'b'": [0, 1],
        "ok = true": [0],
        "ok = false or s is null": [1, 2, 3],
        "class_name = 'top' and product_id in ('p2', 'p0')": [0, 2],
        "confidence > 0.4 and image like '3%'": [3],
        '`od"d` = 1': [1],
    }.items():
        assert columns.allowed(text)[0].nonzero()[0].tolist() == expected, text
    with pytest.raises(WhereError) as caught:
        columns.allowed("klass_name = 'top'")
    assert "class_name" in caught.value.hint


PIECES = [
    *NAMES,
    *"and or not in like between is null ( ) , = < >= != 'x' \"y\" ` ' 5 -1e3 __class__ {} %s ; -- \\ 셔츠 é".split(),
    *("\x00", "lambda: 0", "import os", "\n"),
]


@settings(max_examples=2000)
@given(
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join),
        st.text(max_size=40),
        st.text(string.printable, max_size=40),
    )
)
def test_noise_gives_a_tree_or_a_clear_error(text: str) -> None:
    try:
        tree = parse_where(text)
    except WhereError as error:
        shown = error.shown
    else:
        assert keeps(tree, {"a": 1, "b": "x"}.get) in (True, False, None)
        return
    assert shown.endswith("^")


@pytest.mark.slow
@settings(max_examples=10_000)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.text(max_size=60)))
def test_ten_thousand_pieces_of_noise(text: str) -> None:
    shown = "^"
    try:
        keeps(parse_where(text), json.loads('{"a": 1, "b": ["x"]}').get)
    except WhereError as error:
        shown = error.shown
    assert shown.endswith("^")


def test_a_pattern_of_many_stars_is_quick() -> None:
    assert keeps(parse_where(f"a like '{'%a' * 200}%'"), {"a": "a" * 199 + "b" * 2000}.get) is False
