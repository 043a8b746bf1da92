"""Columns of an items file: packed by parts, decided as rows are, and never trusted."""

from __future__ import annotations

import random
import sqlite3
import sys
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashionrec.common.values import folded
from fashionrec.errors import CatalogueError
from fashionrec.search.filters.columns import Columns, compare
from fashionrec.search.filters.where import keeps, parse_where
from fashionrec.store.columns import ColumnBuilder, plain
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.items import ItemReader
from fashionrec.store.rows import DamagedRow
from fashionrec.store.totals import read_part_items
from tests import test_items, word_search
from tests.old_items import make_old
from tests.test_items import DRESS, ENTRIES, NAVY, RED, write

ITEMS_OF_COLUMNS = [
    ("color", [(1, "navy"), (2, "navy"), (3, "red")]),  # the product's own says more than its caption
    ("fit", [(1, "slim")]),
    ("price", [(1, 39000), (2, 39000)]),
    ("sale", [(1, True), (2, True)]),
    ("old", [(1, False), (2, False)]),
    ("empty", [(1, ""), (2, "")]),
    ("tags", [(3, ("a", 2, 1.5, True))]),
    *((name, []) for name in ("rows", "none", "object", "a\x00b", "a", "nobody")),
    ('a"b', [(3, 1.5)]),
    ("product_id", [(1, "p1"), (2, "p1"), (3, "p2")]),
    ("item_id", [(1, "i1"), (2, "i2"), (3, "i3")]),
    ("image", [(1, "aa.jpg"), (2, "aa.jpg"), (3, "bb.jpg")]),
    ("class_name", [(1, "top"), (2, "pants")]),
    ("confidence", [(1, 0.5), (2, 0.25)]),
]


@pytest.fixture(params=["parts", "small parts", "old"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The items file of test_items, also in parts of two items, and as an earlier
    version wrote it.
    """
    path = tmp_path / "items.sqlite"
    write(path).close()
    if request.param == "small parts":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM arrays")
            db.execute("UPDATE totals SET count = 2 WHERE name = 'part_items'")
        writer = ItemWriter(tmp_path / "new.sqlite", path, part_items=2)
        writer.reword([1, 2, 3])
        for entry in ENTRIES:
            writer.change_entry(entry.entry_no, entry.base, entry.metadata)
        writer.close()
        return tmp_path / "new.sqlite"
    return make_old(path) if request.param == "old" else path


def values(path: Path, name: str) -> list[tuple[int, Any]]:
    """Number and value of every item that has a column."""
    reader = ItemReader(path)
    numbers, found = reader.places().numbers, []
    for start, part in reader.column(name):
        texts = part.texts[1:-1].split(b"\xff") if len(part.numbers) else []
        known: list[Any] = [text.decode() for text in texts]
        known += [*part.whole.tolist(), *part.floats.tolist(), *part.bools.tolist()]
        known += [
            tuple(known[code] for code in part.members[first:last].tolist())
            for first, last in zip(part.starts.tolist(), part.starts.tolist()[1:], strict=False)
        ]
        found += [(int(numbers[start + n]), known[code - 1]) for n, code in enumerate(part.codes.tolist()) if code]
    return found


@pytest.mark.parametrize(("name", "expected"), ITEMS_OF_COLUMNS)
def test_the_values_of_a_column(path: Path, name: str, expected: list[tuple[int, Any]]) -> None:
    found = values(path, name)
    assert sorted(found, key=lambda row: row[0]) == expected
    assert [type(value) for _, value in found] == [type(value) for _, value in expected]
    assert ItemReader(path).has_column(name) == bool(expected)


def test_a_products_own_column_says_more_than_the_items(tmp_path: Path) -> None:
    writer = write(tmp_path / "items.sqlite", captions=False)
    writer.change_entry(1, "/moved", {"class_name": "blouse"})
    writer.add_caption(3, replace(DRESS, attributes={"class_name": "gown"}))
    writer.close()
    for path in (tmp_path / "items.sqlite", make_old(tmp_path / "items.sqlite")):
        assert values(path, "class_name") == [(1, "blouse"), (2, "blouse"), (3, "gown")]
        entry = next(iter(ItemReader(path).entries()))
        assert entry == replace(ENTRIES[0], base="/moved", metadata={"class_name": "blouse"})


def test_names_and_words_of_columns(path: Path) -> None:
    names = ItemReader(path).column_names()
    assert {"color", "fit", "price", "tags", 'a"b'} <= set(names)
    assert names.index("color") < names.index("fit")
    assert ItemReader(path).words_of(["color", "empty", "price", "tags", "nobody"]) == {"color": {"navy", "red"}}
    assert ItemReader(path).words_of([]) == {}
    assert {*NAVY, *RED, "fit"} >= set(names) - {"product_id", "item_id", "image", "class_name", "confidence"}


def test_an_old_file_gains_by_its_next_write(path: Path, tmp_path: Path) -> None:
    before = {name: values(path, name) for name, _ in ITEMS_OF_COLUMNS}
    found = ItemReader(path).text_search("red navy oxford 셔츠")
    ItemWriter(tmp_path / "next.sqlite", path).close()
    after = tmp_path / "next.sqlite"
    with closing(sqlite3.connect(after)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'item_text%'").fetchone() == (0,)
    assert {name: values(after, name) for name, _ in ITEMS_OF_COLUMNS} == before
    assert dict(ItemReader(after).text_search("red navy oxford 셔츠")) == pytest.approx(dict(found))


TEXTS = [
    "",
    "a",
    "A",
    "aa",
    "ab",
    "b a",
    "Ödön",
    "ödön",
    "ß",
    "SS",
    "셔츠",
    "5",
    "5.0",
    "²",
    "2",
    "_",
    "%",
    "true",
    "a_b",
    "1e3",
]
SCALARS: list[Any] = [*TEXTS, "a\ud800", "\ud800b", 0, 5, 5.0, -2, 2**53 + 1, 1.5, True, False, float("inf"), 10**30]
WANTED = [
    "'a'",
    "'A%'",
    "''",
    "'ödön'",
    "'ss'",
    "5",
    "'5'",
    "2",
    "1.5",
    "true",
    "false",
    "'true'",
    "1e300",
    "'b'",
    "1000",
    "'a\ud800'",
]
PATTERNS = [
    "\ud800%",
    "_\ud800",
    "%",
    "",
    "a",
    "a%",
    "%a",
    "%a%",
    "_",
    "a_%",
    "%a%b%",
    "_%_",
    "5%",
    "tr%",
    "%ö%",
    "%%",
    "a%a",
    "%1%5",
]


def question(rng: random.Random) -> str:
    kind = rng.choice(["=", "!=", "<", "<=", ">", ">=", "in", "many", "like", "null"])
    if kind in ("in", "many"):
        return f"c in ({', '.join(rng.choices(WANTED, k=2 if kind == 'in' else 9))})"
    if kind == "like":
        return f"c like '{rng.choice(PATTERNS)}'"
    return "c is null" if kind == "null" else f"c {kind} {rng.choice(WANTED)}"


def test_a_column_decides_as_its_rows_do() -> None:
    rng = random.Random(7)
    for _ in range(60):
        rows = [
            rng.choice([None, rng.choice(SCALARS), rng.choice(SCALARS), rng.choices([*SCALARS, None, {}], k=3)])
            for _ in range(rng.choice([1, 9, 40]))
        ]
        builder = ColumnBuilder()
        for n, value in enumerate(rows):
            if plain(value) is not None:
                builder.add(n, plain(value))
        part = builder.part(len(rows))
        for text in {question(rng) for _ in range(12)}:
            test = parse_where(text)
            found = compare(test, part)[part.codes].tolist()  # type: ignore[arg-type]
            truths = [keeps(test, {"c": plain(value)}.get) for value in rows]
            assert found == [-1 if truth is None else int(truth) for truth in truths], (text, rows)


def test_folding_twice_changes_nothing() -> None:
    once = [folded(chr(n)) for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000]
    assert [folded(text) for text in once] == once


def many(path: Path, words: list[str], part_items: int) -> ItemReader:
    """Items of one garment with words, in parts."""
    writer = ItemWriter(path, part_items=part_items)
    writer.add_photo(test_items.PHOTOS[0])
    for n, text in enumerate(words, 1):
        entry = writer.add_entry(f"{n}.jpg", "", f"p{n}", "aa", {"n": n, "odd": n % 2 == 1})
        writer.add_item(f"i{n}", entry, 1, f"p{n}", False, text)
    writer.close()
    return ItemReader(path)


def test_word_search_over_parts_equals_plain_python_and_the_index_before(tmp_path: Path) -> None:
    rng = random.Random(5)
    known = ["red", "navy", "café", "cafe", "a_b", "셔츠", "체크셔츠", "청바지", "x1", "dress", "ſtreet", "옷"]
    texts = [" ".join(rng.choices(known, k=rng.choice([0, 1, 3, 9]))) for _ in range(90)]
    reader = many(tmp_path / "items.sqlite", texts, 16)
    with closing(sqlite3.connect(tmp_path / "items.sqlite")) as db:
        words = dict(db.execute("SELECT item_no, words FROM items"))
    queries = ["red", "café", "셔츠", "셔츠와 red", "a_b navy", "street dress x1", "바지", "b", "nothing"]
    found = {query: dict(reader.text_search(query)) for query in queries}
    assert found == {query: pytest.approx(word_search.search(words, query)) for query in queries}
    old = ItemReader(make_old(tmp_path / "items.sqlite"))
    assert {query: pytest.approx(dict(old.text_search(query))) for query in queries} == found
    assert dict(reader.text_search("옷")) == dict(reader.text_search("옷을"))


def test_only_the_parts_that_change_are_written_anew(tmp_path: Path) -> None:
    many(tmp_path / "items.sqlite", ["red"] * 10, 4)
    with closing(sqlite3.connect(tmp_path / "items.sqlite")) as db, db:
        db.execute("UPDATE arrays SET content = zeroblob(length(content)) WHERE owner = 'column:n' AND kind = 'whole'")
    writer = ItemWriter(tmp_path / "next.sqlite", tmp_path / "items.sqlite")  # which says how large its parts are
    writer.change_entry(6, "", {"n": 600})
    writer.close()
    assert [value for _, value in values(tmp_path / "next.sqlite", "n")] == [0, 0, 0, 0, 5, 600, 7, 8, 0, 0]
    assert values(tmp_path / "next.sqlite", "odd") == [(n, n % 2 == 1) for n in range(1, 11) if n != 6]


class Images:
    """Vectors, of which only the places are asked for."""

    names, starts = (test_items.IMAGES,), (0,)

    def __len__(self) -> int:
        return 2


def ask(path: Path) -> None:
    """Questions that read every kind of array."""
    reader = ItemReader(path)
    columns = Columns(reader, Images())  # type: ignore[arg-type]
    columns.allowed("product_id = 'p1' or n > 1 or odd = true")
    reader.text_search("red dress")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM arrays WHERE kind = 'codes'",
        "DELETE FROM arrays WHERE kind = 'segments'",
        "DELETE FROM arrays WHERE kind = 'lengths'",
        "DELETE FROM arrays WHERE kind = 'positions'",
        "DELETE FROM arrays WHERE kind = 'texts'",
        "UPDATE arrays SET content = x'ff' || content WHERE kind IN ('texts', 'terms')",
        "UPDATE arrays SET content = zeroblob(length(content)) WHERE kind IN ('numbers', 'terms')",
        "UPDATE arrays SET content = x'ff' || substr(content, 2) WHERE kind IN ('codes', 'positions')",
        "UPDATE arrays SET content = x'ffffffff', size = 4 WHERE kind = 'shape'",
        "UPDATE arrays SET piece = 1",
        "UPDATE arrays SET piece = 'x'",
        "UPDATE arrays SET dtype = 'f8', content = zeroblob(8 * length(content)), size = 8 * length(content)",
        "UPDATE arrays SET dtype = 'u2', content = substr(content, 1, 1), size = 1",
        "UPDATE arrays SET dtype = 'O'",
        "UPDATE arrays SET size = 1 << 40",
        "UPDATE arrays SET size = size + 1",
        "UPDATE arrays SET size = -1",
    ],
)
def test_arrays_that_no_writer_puts_there_are_damage(tmp_path: Path, change: str) -> None:
    path = tmp_path / "items.sqlite"
    many(path, ["red dress", "red"], 4)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(change)
    with pytest.raises(CatalogueError, match="catalogue is damaged"):
        ask(path)


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    """Texts that compress well are stored as they are, and one that inflates to more is refused."""
    reader = many(tmp_path / "items.sqlite", [" ".join(f"w{n}" for n in range(5000))], 4)
    assert len(reader.text_search("w4999")) == 1
    with closing(sqlite3.connect(tmp_path / "items.sqlite")) as db, db:
        stored = db.execute("SELECT size, length(content) FROM arrays").fetchall()
        assert any(size > length for size, length in stored)
        assert all(length <= size <= 21 * length for size, length in stored)
        packed = zlib.compress(bytes(1 << 20))
        db.execute("UPDATE arrays SET content = ?, size = 1 << 20 WHERE kind = 'terms'", (packed,))
    with pytest.raises(CatalogueError, match="damaged"):
        ItemReader(tmp_path / "items.sqlite").text_search("w1")


def test_numbers_of_a_column_are_narrow(tmp_path: Path) -> None:
    many(tmp_path / "items.sqlite", ["red"] * 300, 1 << 16)
    (_, part), *rest = ItemReader(tmp_path / "items.sqlite").column("odd")
    assert not rest
    assert part.codes.dtype == np.uint8


def test_parts_of_before_their_size_was_noted(tmp_path: Path) -> None:
    many(tmp_path / "items.sqlite", ["red"] * 10, 4)
    with closing(sqlite3.connect(tmp_path / "items.sqlite")) as db, db:
        assert read_part_items(db) == 4
        db.execute("UPDATE totals SET count = 1 WHERE name = 'part_items'")
        assert read_part_items(db) == 1
        db.execute("UPDATE totals SET count = 0 WHERE name = 'part_items'")
        with pytest.raises(DamagedRow, match="without room"):
            read_part_items(db)
        db.execute("DELETE FROM totals WHERE name = 'part_items'")
        assert read_part_items(db) == 65_536


def test_a_garment_that_moves_leaves_columns_and_words_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "items.sqlite"
    write(path).close()
    with closing(sqlite3.connect(path)) as db:
        before = db.execute("SELECT * FROM arrays WHERE owner != 'items' ORDER BY 1, 2, 3, 4").fetchall()
    writer = ItemWriter(tmp_path / "next.sqlite", path)
    for number in (1, 2, 3):
        writer.move(number, "000002-moved", 9 - number, 0)
    writer.close()
    with closing(sqlite3.connect(tmp_path / "next.sqlite")) as db:
        assert db.execute("SELECT * FROM arrays WHERE owner != 'items' ORDER BY 1, 2, 3, 4").fetchall() == before
    places = ItemReader(tmp_path / "next.sqlite").places()
    assert places.segments == ["000002-moved"]
    assert (places.numbers.tolist(), places.rows.tolist()) == ([1, 2, 3], [8, 7, 6])
