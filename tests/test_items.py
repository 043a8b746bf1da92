"""The items file: everything that is written is read back, whole, and changes leave nothing of what
was before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fashionrec.errors import CatalogueError
from fashionrec.store.content import CaptionRow, EntryRow, GarmentRow, PhotoRow
from fashionrec.store.item_writer import ItemWriter, product_words
from fashionrec.store.items import ItemReader, StoredItem
from fashionrec.store.rows import DamagedRow, typed
from fashionrec.types import Box, Item
from tests import word_search

IMAGES, CAPTIONS = "000001-image", "000001-caption"
TOP = GarmentRow(0, "top", 0.5, Box(1, 2, 30, 40), False, IMAGES, 0, 0, 11)
PANTS = GarmentRow(1, "pants", 0.25, Box(5, 50, 60, 190), False, IMAGES, 1, 11, 12)
WHOLE = GarmentRow(0, None, None, Box(0, 0, 300, 400), True, IMAGES, 2, 23, 13)
PHOTOS = [
    PhotoRow("aa", 100, 200, "k1", (TOP, PANTS)),
    PhotoRow("bb", 300, 400, "k2", (WHOLE,)),
    PhotoRow("cc", 50, 60, "k1", ()),
]
NAVY = {"color": "navy", "price": 39000, "sale": True, "old": False, "empty": "", "link": "https://shop/셔츠"}
RED = {
    "color": "red",
    "tags": ["a", 2, {"x": 1}, None, 1.5, True],
    "rows": [{"x": 1}],
    "none": None,
    "object": {"x": 1},
    'a"b': 1.5,
}
ENTRIES = [
    EntryRow(1, "aa.jpg", "/photos", "p1", "aa", NAVY),
    EntryRow(2, "bb.jpg", "", "p2", "bb", RED),
    EntryRow(3, "cc.jpg", "", "p3", "cc", {}),
]
SHIRT = CaptionRow(
    *("a navy shirt", "네이비 셔츠", {"color": "blue", "fit": "slim"}, "a navy shirt", "local"),
    segment=CAPTIONS,
    row=0,
    words="oxford 옥스퍼드",
)
DRESS = CaptionRow("a red dress", "", {}, "the dress", "remote")
ITEMS = [
    StoredItem(
        Item("i1", "p1", "aa.jpg", "top", TOP.box, 0.5, "네이비 셔츠", SHIRT.attributes, NAVY),
        *(1, False, 1, "aa", "/photos", (IMAGES, 0), (CAPTIONS, 0), (IMAGES, 0, 11), False),
        {"en": "a navy shirt", "ko": "네이비 셔츠"},
    ),
    StoredItem(
        Item("i2", "p1", "aa.jpg", "pants", PANTS.box, 0.25, None, {}, NAVY),
        *(2, True, 2, "aa", "/photos", (IMAGES, 1), None, (IMAGES, 11, 12), False),
        {},
    ),
    StoredItem(
        Item("i3", "p2", "bb.jpg", None, WHOLE.box, None, "a red dress", {}, RED),
        *(3, False, 3, "bb", "", (IMAGES, 2), None, (IMAGES, 23, 13), True),
        {"en": "a red dress", "ko": ""},
    ),
]


def write(path: Path, *, captions: bool = True, worn_with: bool = True) -> ItemWriter:
    """The items above; the writer is still open."""
    writer = ItemWriter(path)
    assert [writer.add_photo(photo) for photo in PHOTOS] == [[1, 2], [3], []]
    for entry in ENTRIES:
        fields = (entry.image, entry.base, entry.product_id, entry.photo, entry.metadata)
        assert writer.add_entry(*fields) == entry.entry_no
    writer.add_item("i1", 1, 1, "p1", False, "navy")
    if worn_with:
        writer.add_item("i2", 1, 2, "p1", True, "")
    writer.add_item("i3", 2, 3, "p2", False, "red")
    if captions:
        writer.add_caption(1, SHIRT)
        writer.add_caption(3, DRESS)
        writer.reword([1, 2, 3])
    return writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "items.sqlite").close()
    return tmp_path / "items.sqlite"


@pytest.fixture
def reader(path: Path) -> ItemReader:
    return ItemReader(path)


def rows(path: Path, sql: str) -> list[Any]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def check_words(path: Path) -> None:
    """Every word finds the items that hold it, and no others, with the relevance it should have."""
    words = dict(rows(path, "SELECT item_no, words FROM items"))
    reader = ItemReader(path)
    for word in {word for text in words.values() for word in text.split()}:
        assert dict(reader.text_search(word)) == pytest.approx(word_search.search(words, word))


def test_photos_entries_and_items_are_read_as_they_were_written(reader: ItemReader) -> None:
    assert [reader.photo(photo.sha256) for photo in PHOTOS] == PHOTOS
    assert reader.photo("zz") is None
    assert list(reader.entries()) == ENTRIES
    assert list(reader.everything()) == ITEMS
    assert reader.of_product("p1") == ITEMS[:2]
    assert reader.of_product("p3") == []
    assert reader.by_numbers([3, 1, 99]) == {1: ITEMS[0], 3: ITEMS[2]}
    assert reader.by_item_ids(["i2", "nobody"]) == [ITEMS[1]]
    for _ in ("from the file", "from memory"):
        assert reader.keys_at_rows([(IMAGES, 2), (IMAGES, 9), ("other", 0), (IMAGES, 0)]) == [
            (3, "p2", None, False, (IMAGES, 2), None),
            (1, "p1", "top", False, (IMAGES, 0), ITEMS[0].caption_at),
        ]
        assert reader.keys_by_numbers([99, 2]) == [(2, "p1", "pants", True, (IMAGES, 1), None)]
        assert reader.keys_at_rows([]) == reader.keys_at_rows([("other", 2)]) == reader.keys_by_numbers([]) == []
        reader.keep_keys()
    assert reader.build_keys() == {"aa": "k1", "bb": "k2", "cc": "k1"}
    assert reader.product_ids() == {"p1", "p2", "p3"}
    places = reader.places()
    assert (places.numbers.tolist(), places.segments) == ([1, 2, 3], [IMAGES])
    assert (places.codes.tolist(), places.rows.tolist()) == ([0, 0, 0], [0, 1, 2])
    assert reader.worn_together() == [("aa", "top", IMAGES, 0), ("aa", "pants", IMAGES, 1)]
    assert reader.places_of_classes(["top", "pants", "skirt"]) == [(IMAGES, 0)]
    assert reader.photos_without_detection() == 2
    assert reader.counts() == {"photos": 3, "garments": 3, "items": 2, "worn_with": 1, "products": 2, "captions": 2}


def test_captions_are_read_as_they_were_written(reader: ItemReader) -> None:
    assert reader.captions("aa") == {0: SHIRT}
    assert reader.caption("bb", 0) == DRESS
    assert reader.caption("aa", 1) is None
    assert reader.captions("cc") == {}
    assert [(key.garment_no, key.captioner) for key in reader.garments()] == [(1, "local"), (2, None), (3, "remote")]
    assert reader.attributes_told() == {1: ("local", SHIRT.attributes), 3: ("remote", {})}
    assert (SHIRT.searched, DRESS.searched) == ("oxford 옥스퍼드", "a red dress ")


def test_a_file_from_before_captions_had_words_of_their_own(path: Path, tmp_path: Path) -> None:
    rows(path, "DROP TABLE caption_words")
    assert ItemReader(path).captions("aa") == {0: replace(SHIRT, words="")}
    writer = ItemWriter(tmp_path / "new.sqlite", path)
    writer.add_caption(1, SHIRT)
    writer.close()
    assert ItemReader(tmp_path / "new.sqlite").captions("aa") == {0: SHIRT}


@pytest.mark.parametrize(
    ("count", "numbers"),
    [(1, [1]), (2, [1, 5]), (3, [1, 4, 7]), (4, [1, 3, 5, 7]), (7, [1, 2, 3, 4, 5, 6, 7]), (9, [1, 2, 3, 4, 5, 6, 7])],
)
def test_some_items_evenly_over_all(tmp_path: Path, count: int, numbers: list[int]) -> None:
    writer = write(tmp_path / "items.sqlite", captions=False, worn_with=False)
    writer.remove_items(1)
    writer.remove_items(2)
    for n in range(1, 8):
        writer.add_item(f"i{n}", 1, 1, "p1", False, "")
    writer.add_item("worn", 1, 2, "p1", True, "")
    writer.close()
    assert [stored.item_no for stored in ItemReader(tmp_path / "items.sqlite").spread(count)] == numbers


def test_no_items_are_spread_over_none(tmp_path: Path) -> None:
    ItemWriter(tmp_path / "items.sqlite").close()
    reader = ItemReader(tmp_path / "items.sqlite")
    assert reader.spread(3) == []
    assert set(reader.counts().values()) == {0}


def many(path: Path, words: Sequence[str]) -> ItemReader:
    """Items 1, 2, ... of one garment, each with its words."""
    writer = write(path, captions=False, worn_with=False)
    writer.remove_items(1)
    writer.remove_items(2)
    for n, text in enumerate(words, 1):
        writer.add_item(f"i{n}", 1, 1, "p1", False, text)
    writer.close()
    return ItemReader(path)


@pytest.mark.parametrize("count", [399, 400, 401, 802])
def test_any_number_of_items_is_read_at_once(tmp_path: Path, count: int) -> None:
    reader = many(tmp_path / "items.sqlite", [""] * 802)
    numbers = list(range(1, count + 1))
    assert sorted(stored.item_no for stored in reader.by_item_ids([f"i{n}" for n in numbers])) == numbers
    assert list(reader.by_numbers(numbers)) == numbers
    places = [(IMAGES, 9)] * (count - 1) + [(IMAGES, 0)]
    for _ in ("from the file", "from memory"):
        keys = reader.keys_at_rows(places)
        assert [key.item_no for key in keys] == list(range(1, 803))
        assert {key.image_at for key in keys} == {(IMAGES, 0)}
        assert [key.item_no for key in reader.keys_by_numbers(numbers)] == numbers
        reader.keep_keys()


def test_keys_of_a_file_without_items(tmp_path: Path) -> None:
    write(tmp_path / "items.sqlite", captions=False).close()
    writer = ItemWriter(tmp_path / "none.sqlite", tmp_path / "items.sqlite")
    for entry in ENTRIES:
        writer.remove_entry(entry.entry_no)
    writer.close()
    reader = ItemReader(tmp_path / "none.sqlite")
    reader.keep_keys()
    assert reader.keys_at_rows([(IMAGES, 0)]) == reader.keys_by_numbers([1]) == []


def test_word_search_gives_the_best_first_and_equals_by_number(tmp_path: Path) -> None:
    reader = many(tmp_path / "items.sqlite", ["red dress long", "red", "blue dress", "red", *["grey"] * 9])
    found = reader.text_search("red", 10)
    assert [number for number, _ in found] == [2, 4, 1]
    assert found[0][1] == found[1][1] > found[2][1] > 0
    assert reader.text_search("red", 2) == found[:2]
    assert reader.text_search("red") == found
    assert [number for number, _ in reader.text_search("blue red", 10)] == [3, 2, 4, 1]
    assert reader.text_search("코", 10) == reader.text_search("", 10) == reader.text_search("코") == []


def test_a_syllable_finds_the_200_most_frequent_terms_that_hold_it(tmp_path: Path) -> None:
    pairs = [f"{chr(0xAC00 + n)}옷" for n in range(200)]
    reader = many(tmp_path / "items.sqlite", ["뷁옷", *pairs, *pairs])
    assert sorted(number for number, _ in reader.text_search("옷")) == list(range(2, 402))
    assert [number for number, _ in reader.text_search("뷁옷")] == [1]


def test_what_has_no_words_weighs_nothing_in_word_search(tmp_path: Path) -> None:
    write(tmp_path / "with.sqlite").close()
    write(tmp_path / "without.sqlite", worn_with=False).close()
    writer = ItemWriter(tmp_path / "removed.sqlite", tmp_path / "with.sqlite")
    writer.add_entry("x.jpg", "", "p9", "cc", {})
    writer.add_item("x", 4, 1, "p9", False, "")
    writer.remove_entry(4)
    writer.close()
    one, two, three = (ItemReader(tmp_path / f"{n}.sqlite").text_search("red") for n in ("with", "without", "removed"))
    assert one[0][1] == two[0][1] == three[0][1]


def test_an_id_is_given_once(tmp_path: Path) -> None:
    writer = write(tmp_path / "items.sqlite")
    writer.add_item("i1", 3, 2, "p3", False, "green")
    writer.close()
    reader = ItemReader(tmp_path / "items.sqlite")
    assert list(reader.everything()) == ITEMS
    assert reader.text_search("green") == []
    check_words(tmp_path / "items.sqlite")


def found_by(path: Path, *words: str) -> list[list[int]]:
    reader = ItemReader(path)
    return [sorted(number for number, _ in reader.text_search(word)) for word in words]


def test_words_of_captions_and_products_find_the_items(path: Path) -> None:
    # the words of their own stand for the two captions; what is worn with a product, and links, are
    # not found
    assert found_by(path, "oxford", "navy", "셔츠", "dress", "red", "shop") == [[1], [1], [], [3], [3], []]
    check_words(path)


def test_another_caption_is_found_in_place_of_the_one_before(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite"
    writer = ItemWriter(new, path)
    writer.add_item("again", 3, 1, "p3", False, "oxford 옥스퍼드")
    writer.reword([1])  # the first is as it was
    plain = replace(SHIRT, words="", captioner="other", caption_en="a blue blouse", segment=None, row=None)
    writer.add_caption(1, plain)
    writer.close()
    check_words(new)
    assert found_by(new, "oxford", "blouse") == [[1, 4], []]
    assert ItemReader(new).captions("aa") == {0: plain}
    assert rows(new, "SELECT count(*) FROM caption_words") == [(0,)]
    last = tmp_path / "last.sqlite"
    writer = ItemWriter(last, new)
    writer.reword([2, 1])
    writer.close()
    check_words(last)
    assert found_by(last, "oxford", "blouse", "셔츠", "navy") == [[], [1, 4], [1, 4], [1]]


def test_words_are_made_anew_of_every_item_of_a_garment(tmp_path: Path) -> None:
    path = tmp_path / "items.sqlite"
    writer = write(path)
    writer.add_item("again", 3, 1, "p3", False, "green")
    writer.reword([1])  # what the first is found by is already so
    writer.close()
    check_words(path)
    assert found_by(path, "green", "oxford") == [[], [1, 4]]


def test_an_entry_that_goes_takes_its_items_and_words_along(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite"
    writer = ItemWriter(new, path)
    assert writer.entries_of("p1", "aa") == [(1, NAVY)]
    assert writer.entries_of("p1", "bb") == writer.entries_of("p2", "aa") == []
    writer.remove_entry(1)
    assert writer.entries_of("p1", "aa") == []
    assert writer.garment_numbers("aa") == [1, 2]
    assert writer.remove_photos_without_entries() == 1
    assert writer.remove_photos_without_entries() == 0
    assert writer.garment_numbers("aa") == []
    assert writer.segments() == {IMAGES: 1}
    writer.close()
    check_words(new)
    reader = ItemReader(new)
    assert list(reader.everything()) == ITEMS[2:]
    assert list(reader.entries()) == ENTRIES[1:]
    assert [reader.photo(photo.sha256) for photo in PHOTOS] == [None, *PHOTOS[1:]]
    assert reader.counts() == {"photos": 2, "garments": 1, "items": 1, "worn_with": 0, "products": 1, "captions": 1}
    assert rows(new, "SELECT count(*) FROM caption_words") == [(0,)]
    assert found_by(new, "navy", "oxford", "red") == [[], [], [3]]
    assert list(ItemReader(path).everything()) == ITEMS  # the file before is as it was


def test_garments_and_captions_move(path: Path, tmp_path: Path) -> None:
    writer = ItemWriter(tmp_path / "new.sqlite", path)
    assert list(writer.places()) == [(1, IMAGES, 0, 0, 11), (2, IMAGES, 1, 11, 12), (3, IMAGES, 2, 23, 13)]
    assert list(writer.caption_places()) == [(1, CAPTIONS, 0)]
    assert writer.segments() == {IMAGES: 3, CAPTIONS: 1}
    writer.move(1, "000002-image", 7, 100)
    writer.move_caption(1, "000002-caption", 5)
    moved = [(2, IMAGES, 1, 11, 12), (3, IMAGES, 2, 23, 13), (1, "000002-image", 7, 100, 11)]
    assert list(writer.places()) == moved
    assert list(writer.caption_places()) == [(1, "000002-caption", 5)]
    assert writer.segments() == {IMAGES: 2, "000002-image": 1, "000002-caption": 1}
    writer.close()
    (stored,) = ItemReader(tmp_path / "new.sqlite").by_item_ids(["i1"])
    changed = {"image_at": ("000002-image", 7), "thumb": ("000002-image", 100, 11)}
    assert stored == ITEMS[0]._replace(**changed, caption_at=("000002-caption", 5))


def test_texts_are_stored_as_they_are_written(path: Path) -> None:
    """Whoever opens the file with SQLite reads them, in any script."""
    assert rows(path, "SELECT metadata FROM entries WHERE entry_no = 1")[0][0].endswith('"https://shop/셔츠"}')
    new = path.with_name("new.sqlite")
    writer = ItemWriter(new, path)
    writer.change_entry(1, "", {"색": "남색"})
    writer.add_caption(1, replace(SHIRT, attributes={"색": "남색"}))
    writer.close()
    assert rows(new, "SELECT metadata FROM entries WHERE entry_no = 1") == [('{"색": "남색"}',)]
    assert rows(new, "SELECT attributes FROM captions WHERE garment_no = 1") == [('{"색": "남색"}',)]
    assert rows(new, "PRAGMA application_id") == [(0x46524543,)]
    assert rows(new, "PRAGMA user_version") == [(3,)]


def test_a_writer_begins_anew_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "items.sqlite"
    path.write_bytes(b"of a writer that was killed")
    writer = write(path)
    assert [file.name for file in tmp_path.iterdir()] == ["items.sqlite"]
    writer.close()
    assert list(ItemReader(path).everything()) == ITEMS
    assert [file.name for file in tmp_path.iterdir()] == ["items.sqlite"]
    with pytest.raises(sqlite3.ProgrammingError):
        writer.garment_numbers("aa")


def test_room_is_given_back_where_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "small.sqlite").close()
    writer = write(tmp_path / "large.sqlite")
    number = writer.add_entry("big.jpg", "", "big", "cc", {"text": "x" * 500_000})
    writer.close()
    for name, shrink in (("kept", False), ("shrunk", True)):
        writer = ItemWriter(tmp_path / f"{name}.sqlite", tmp_path / "large.sqlite")
        writer.remove_entry(number)
        writer.close(shrink=True) if shrink else writer.close()
    small, large, kept, shrunk = (
        (tmp_path / f"{name}.sqlite").stat().st_size for name in ("small", "large", "kept", "shrunk")
    )
    assert small <= shrunk < 200_000 < large <= kept


def test_what_is_discarded_is_closed(tmp_path: Path) -> None:
    writer = write(tmp_path / "items.sqlite")
    writer.discard()
    with pytest.raises(sqlite3.ProgrammingError):
        writer.garment_numbers("aa")


def test_a_reader_that_is_closed_opens_its_file_again(reader: ItemReader, path: Path) -> None:
    reader.close()
    reader.close()
    assert list(reader.everything()) == ITEMS


@pytest.mark.parametrize(
    ("pragma", "message"),
    [
        ("application_id = 1", "catalogue is damaged: {path} is not an items file"),
        ("user_version = 1", "{path} has schema 1; this fashionrec reads 3"),
        ("user_version = 4", "{path} has schema 4; this fashionrec reads 3"),
    ],
)
def test_another_file_or_schema_is_refused(path: Path, pragma: str, message: str) -> None:
    rows(path, f"PRAGMA {pragma}")
    with pytest.raises(CatalogueError) as caught:
        ItemReader(path)
    assert str(caught.value).startswith(message.format(path=path))
    assert (
        caught.value.hint
        == "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"
    )


@pytest.mark.parametrize(
    ("row", "kinds", "message"),
    [
        (("a", 1), (str, int), ""),
        (("a", None), (str, int), "NoneType in column 1"),
        ((1, None), (int, str | None), ""),
        ((b"a",), (str,), "bytes in column 0"),
        ((999_999_999.5,), (float,), ""),
        ((-999_999_999.5,), (float | None,), ""),
        ((None,), (float | None,), ""),
        ((1e9,), (float,), "1000000000.0 in column 0"),
        ((-1e9,), (float | None,), "-1000000000.0 in column 0"),
        (("a", float("nan")), (str, float), "nan in column 1"),
        ((float("inf"),), (float | None,), "inf in column 0"),
        ((2**62,), (int,), ""),
    ],
)
def test_rows_hold_what_their_columns_should(row: tuple[Any, ...], kinds: Any, message: str) -> None:
    sound = tuple({str: "x", int: 1, float: 0.5}.get(kind) for kind in kinds)
    if not message:
        assert list(typed([sound, row, row], kinds)) == [sound, row, row]
        return
    found = typed([sound, row], kinds)
    assert next(found) == sound
    with pytest.raises(DamagedRow) as caught:
        next(found)
    assert str(caught.value) == f"a row has {message}"


@pytest.mark.parametrize(
    ("change", "read", "message"),
    [
        ("entries SET metadata = '[1]'", ItemReader.entries, "a row's data is not a JSON object"),
        ("captions SET attributes = '{\"a\": 1}'", ItemReader.attributes_told, "a caption's attributes are not texts"),
        ("photos SET build_key = x'00'", ItemReader.build_keys, "a row has bytes in column 1"),
        ("garments SET x1 = 1e9", ItemReader.everything, "a row has 1000000000.0 in column 10"),
    ],
)
def test_values_that_no_writer_puts_there_are_one_clear_error(path: Path, change: str, read: Any, message: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(f"UPDATE {change}")
    db.close()
    with pytest.raises(CatalogueError) as caught:
        list(read(ItemReader(path)))
    assert str(caught.value) == f"catalogue is damaged: {path}: {message}"
    assert (
        caught.value.hint
        == "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"
    )


def test_a_product_is_found_by_its_texts_and_captions() -> None:
    product = {"name": "셔츠", "price": 5, "link": "http://a/b", "fit": "slim", "tags": ["x"], "sale": True}
    assert product_words(product, "a shirt", "") == "셔츠 slim a shirt "
    assert product_words({}) == ""


@pytest.mark.parametrize(
    "read",
    [
        lambda items: items.of_product("p1"),
        lambda items: items.of_photo("aa"),
        lambda items: items.by_numbers([1]),
        lambda items: items.by_item_ids(["i1"]),
        lambda items: list(items.everything()),
        lambda items: list(items.entries()),
    ],
)
def test_data_that_cannot_be_read_is_damage_however_it_is_asked(path: Path, read: Callable[[ItemReader], Any]) -> None:
    db = sqlite3.connect(path)
    db.execute("UPDATE entries SET metadata = '[1]'")
    db.commit()
    db.close()
    with pytest.raises(CatalogueError, match=r"damaged: .*not a JSON object"):
        read(ItemReader(path))
