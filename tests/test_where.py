"""Filters: parsed into a tree, never executed; checked against an evaluation of its own and against
noise.
"""

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
from fashionrec.store.content import GarmentRow, PhotoRow
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.items import ItemReader
from fashionrec.types import Box

ROW = {"price": 39000, "brand": "Ödön", "color": "Red", "sizes": ["S", "M"], "sale": True, "code": "0012", "가격": 5}


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("price < 50000 and brand in ('A', 'ödön') and color = 'red'", True),
        ("price >= 39000 AND NOT price > 39000", True),
        ("price between 30000 and 40000", True),
        ("price not between 30000 and 40000", False),
        ("price between 39001 and 40000", False),
        ("price between 30000 and 38999", False),
        ("price not between 30000 and 38999", True),
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
        with pytest.raises(WhereError, match="unknown column"):
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


@pytest.mark.release(25)
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


FILTER = "for example --where \"price < 50000 and brand in ('A', 'B')\""


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ("", "empty filter", FILTER),
        ("a = 'x", "unclosed '", FILTER),
        ('a = "x', 'unclosed "', FILTER),
        ("`a = 1", "unclosed `", FILTER),
        ("a ~ 1", "unexpected '~'", FILTER),
        ("a = 1e999", "number too large", FILTER),
        ("`` = 1", "empty column name", FILTER),
        ("a = 1 b = 2", "expected 'and' or 'or' before 'b'", FILTER),
        ("a = 1 and", "expected a column before 'the end'", FILTER),
        ("5 = a", "expected a column before '5'", "put unusual column names in backticks: `on sale` = true"),
        ("'a' = 1", "expected a column before \"'a'\"", "put unusual column names in backticks: `on sale` = true"),
        ("(a = 1", "expected a closing bracket before 'the end'", FILTER),
        ("a in 1", "expected an opening bracket before '1'", FILTER),
        ("a in (1", "expected a closing bracket before 'the end'", FILTER),
        ("a in ()", "expected a value before ')'", FILTER),
        ("a = b", "expected a value before 'b'", "put text in quotes: 'b'"),
        ("a = null", "expected a value before 'null'", "use: is null"),
        ("a is 5", "expected null before '5'", FILTER),
        ("a between 1 or 2", "expected and before 'or'", FILTER),
        ("a like 5", "like needs a text, as in like 'shirt%'", FILTER),
        ("a 5", "incomplete filter: expected a comparison (=, <, in, like ...) before '5'", FILTER),
        ("a not = 5", "incomplete filter: expected a comparison (=, <, in, like ...) before '='", FILTER),
        ("(" * 60 + "a = 1" + ")" * 60, "too many nested brackets", FILTER),
        (f"a = '{'x' * 9995}'", "filter longer than 10000 characters", FILTER),
    ],
)
def test_why_a_filter_is_not_understood(text: str, told: str, hint: str) -> None:
    with pytest.raises(WhereError) as caught:
        parse_where(text)
    assert (str(caught.value), caught.value.hint) == (told, hint)


def test_a_filter_up_to_its_limits() -> None:
    assert keeps(parse_where("(" * 59 + "a = 1" + ")" * 59), {"a": 1}.get) is True
    text = f"a = '{'x' * 9994}'"
    assert len(text) == 10_000
    assert keeps(parse_where(text), {"a": "x" * 9994}.get) is True
    brackets = " and ".join(["(a = 1)"] * 200)  # beside each other, not within
    assert keeps(parse_where(brackets), {"a": 1}.get) is True


def test_the_caret_stands_below_letters_of_two_columns() -> None:
    with pytest.raises(WhereError) as caught:
        parse_where("가격 = '빨강' ~ 1")
    assert caught.value.shown.split("\n") == ["  가격 = '빨강' ~ 1", f"  {' ' * 14}^"]
    with pytest.raises(WhereError) as caught:
        parse_where("a\n= 1 or " + "b = 1 and " * 20 + "~")
    line, caret = caught.value.shown.split("\n")
    assert line == "  " + ("a = 1 or " + "b = 1 and " * 20 + "~")[209 - 60 :]
    assert caret == " " * 62 + "^"


COMPARED = ("=", "!=", "<", "<=", ">", ">=")


@pytest.mark.parametrize(
    ("value", "wanted", "truths"),
    [
        (4, "5", "011100"), (5, "5", "100101"), (6, "5", "010011"), (5.0, "5", "100101"), ("5", "5", "100101"),
        ("5.0", "5", "100101"),
        (4, "'5'", "011100"), ("4", "'5'", "011100"), ("10", "'5'", "011100"), ("10", "5", "010011"), ("x", "5", "01...."),
        (True, "1", "01...."),
        ("B", "'b'", "100101"), ("a", "'B'", "011100"), ("Ａ", "'a'", "100101"), ("ß", "'SS'", "100101"), (5, "'x'", "01...."),
        (True, "true", "10...."), ("TRUE", "true", "10...."), (False, "true", "01...."), (1, "true", "01...."),
        (None, "5", "......"),
        ([4, 6], "5", "011111"), ([5, 6], "5", "100111"), ([], "5", "......"), ([None], "5", "......"),
        ([None, 4], "5", "011100"),
        ("1_000", "1000", "01...."), ("1e3", "1000", "100101"), ("nan", "5", "01...."), ("9" * 40, "5", "01...."),
    ],
)  # fmt: skip
def test_how_a_value_stands_to_another(value: Any, wanted: str, truths: str) -> None:
    """By hand: of each row by =, !=, <, <=, >, >=: 1 is true, 0 is not, a dot is unknown."""
    told = [keeps(parse_where(f"a {kind} {wanted}"), {"a": value}.get) for kind in COMPARED]
    assert "".join("." if one is None else str(int(one)) for one in told) == truths


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("shirt", {"shirt": True, "SHIRT": True, "shirts": False, "a shirt": False}),
        ("%shirt", {"shirt": True, "a shirt": True, "shirts": False}),
        ("shirt%", {"shirts": True, "shirt": True, "t-shirt": False}),
        ("%a%b%", {"ab": True, "xaxbx": True, "ba": False, "a": False}),
        ("%ab", {"aab": True, "abab": True, "aba": False}),
        ("_", {"a": True, "": False, "ab": False, "가": True}),
        ("a_c%", {"abc": True, "abcd": True, "ac": False}),
        ("%", {"": True, "x": True}),
        ("", {"": True, "x": False}),
        ("%%x", {"x": True, "": False}),
        ("tr%", {True: True, "tree": True, 3: False}),
        ("3_", {39: True, 3: False}),
    ],
)
def test_what_a_pattern_fits(pattern: str, texts: dict[Any, bool]) -> None:
    for text, fits in texts.items():
        assert keeps(parse_where(f"a like '{pattern}'"), {"a": text}.get) is fits, text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"), ('"it''s"', "its"), ('"say ""x"""', 'say "x"'), ("'a\"\"b'", 'a""b'), ("+5", 5), ("-.5", -0.5),
        ("5.", 5.0),
        ("1e2", 100.0), ("TRUE", True), ("False", False), ("''", ""),
    ],
)  # fmt: skip
def test_how_a_value_is_written(text: str, value: Any) -> None:
    (test,) = columns_of(parse_where(f"`a b` != {text}"))
    assert (test.column, test.kind, test.at) == ("a b", "!=", 0)
    assert test.values == (value,)
    assert type(test.values[0]) is type(value)


def test_the_tests_of_a_filter_from_left_to_right() -> None:
    tree = parse_where(
        "not (a.b = 1 or x in (1, 'y', true)) and z not between 2 and 3 and q is not null and p like '%'"
    )
    assert [(test.column, test.kind, test.values, test.at) for test in columns_of(tree)] == [
        ("a.b", "=", (1,), 5), ("x", "in", (1, "y", True), 16), ("z", ">=", (2,), 41), ("z", "<=", (3,), 41),
        ("q", "null", (), 67), ("p", "like", ("%",), 85),
    ]  # fmt: skip
