"""Changes over a base: what a reader tells of the two is what it would tell of one file with all of
it.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashionrec.common.sqlite import open_foreign
from fashionrec.errors import CatalogueError
from fashionrec.search.filters.columns import Columns
from fashionrec.store.content import CaptionRow, GarmentRow, PhotoRow
from fashionrec.store.item_writer import ItemWriter, product_words
from fashionrec.store.items import ItemReader
from fashionrec.store.rows import DamagedRow
from fashionrec.store.schema import READABLE
from fashionrec.store.totals import count_changed, count_gone, read_gone, read_totals
from fashionrec.types import Box
from tests.old_items import make_old

SEGMENT, CAPTIONS = "000001-image", "000001-caption"
COLORS, KINDS = ("red", "navy", "white"), ("top", "pants", None)


class Images:
    """Vectors, of which only the places are asked for."""

    names, starts = (SEGMENT,), (0,)

    def __len__(self) -> int:
        return 1000


def garments(n: int, count: int) -> tuple[GarmentRow, ...]:
    return tuple(
        GarmentRow(at, KINDS[(n + at) % 3], 0.5, Box(at, 0, 9, 9), at == 2, SEGMENT, 10 * n + at, 0, 5)
        for at in range(count)
    )


def add(writer: ItemWriter, n: int, rng: random.Random) -> None:
    """A photo with its garments, and one or two products that it shows."""
    numbers = writer.add_photo(PhotoRow(f"photo{n}", 9, 9, f"key{n % 2}", garments(n, rng.choice([1, 2, 3]))))
    for product in {n, rng.randrange(40)}:
        show(writer, n, product, numbers, rng)


def show(writer: ItemWriter, n: int, product: int, numbers: list[int], rng: random.Random) -> None:
    data = {"color": rng.choice(COLORS), "price": rng.randrange(9), "title": f"t{n} {rng.choice(COLORS)} shirt"}
    entry = writer.add_entry(f"{n}.jpg", "", f"p{product}", f"photo{n}", data)
    for at, number in enumerate(numbers):
        text = "" if at else product_words(data)
        writer.add_item(f"i{n}-{product}-{at}", entry, number, f"p{product}", at > 0, text)


def change(writer: ItemWriter, reader: ItemReader, rng: random.Random) -> None:
    """One change; the same one for every writer with the same numbers drawn."""
    rows = sorted(reader.entry_texts(), key=lambda row: (row.image, row.product_id))
    row = rng.choice(rows)
    number = writer.entry_number(row.image, row.product_id)
    kind = rng.choice(["price", "remove", "caption", "show", "photo", "again"])
    if kind == "price":
        writer.change_entry(number, "moved", {"price": 100, "title": "t0 red shirt", "new": True})
    elif kind == "remove" and len(rows) > 3:
        writer.remove_entry(number)
        writer.remove_photos_without_entries()
    elif kind == "caption":
        at = writer.garment_number(row.photo, 0)
        row_of = int(row.photo.removeprefix("photo"))
        words = rng.choice(["", "oxford 셔츠"])
        writer.add_caption(at, CaptionRow("a shirt", "셔츠", {"fit": "slim"}, "a", "local", CAPTIONS, row_of, words))
        writer.reword([at])
    elif kind == "show":
        n = int(row.photo.removeprefix("photo"))
        product = 100 + rng.randrange(800)
        if not writer.entries_of(f"p{product}", row.photo):
            show(writer, n, product, writer.garment_numbers(row.photo), rng)
    elif kind == "photo" and not writer.has_photo("photo50"):
        add(writer, 50, rng)
    else:
        writer.remove_items(number)
        writer.add_item(
            f"again-{row.image}-{row.product_id}", number, writer.garment_number(row.photo, 0), "p1", False, "red"
        )


def sums(reader: ItemReader) -> tuple[object, ...]:
    """Return what a reader counts, counted one by one: rows, captions by who made them, photos
    without a detection.
    """
    items, photos = list(reader.everything()), [reader.photo(photo) for photo in reader.build_keys()]
    made = [garment for photo in photos if photo for garment in photo.garments]
    captions = [caption for photo in photos if photo for caption in reader.captions(photo.sha256).values()]
    shown = {stored.garment_no: stored for stored in items}
    by = Counter("local" for stored in shown.values() if stored.captions)
    counts = {
        "photos": len(photos),
        "garments": len(made),
        "items": sum(not stored.worn_with for stored in items),
        "worn_with": sum(stored.worn_with for stored in items),
        "products": len({stored.item.product_id for stored in items if not stored.worn_with}),
        "captions": len(captions),
    }
    undetected = sum(all(garment.whole_photo for garment in photo.garments) for photo in photos if photo)
    rows = {"entries": len(list(reader.entries())), "photos": len(photos)}
    return counts, (len(shown), dict(by)), undetected, rows["entries"], rows["photos"]


def counted(reader: ItemReader) -> tuple[object, ...]:
    counts = reader.counts(), reader.count_captioned(), reader.photos_without_detection()
    return (*counts, reader.count("entries"), reader.count("photos"))


def segments(reader: ItemReader) -> dict[str, int]:
    """Rows of each segment that garments and captions refer to."""
    photos = [photo for name in reader.build_keys() if (photo := reader.photo(name))]
    used = Counter(garment.segment for photo in photos for garment in photo.garments)
    captions = [caption for photo in photos for caption in reader.captions(photo.sha256).values()]
    return dict(used + Counter(caption.segment for caption in captions if caption.segment))


def told(reader: ItemReader) -> dict[str, Any]:
    """All that a reader tells, without the numbers that it gives to things."""
    items = list(reader.everything())
    numbers = [stored.item_no for stored in items]
    assert numbers == sorted(set(numbers))
    ids = {stored.item_no: stored.item.item_id for stored in items}
    columns = Columns(reader, Images())  # type: ignore[arg-type]
    questions = ["color = 'red'", "price > 4", "new = true", "fit = 'slim'", "class_name is null", "title like '%red%'"]
    photos = sorted(reader.build_keys())
    total, presence = reader.presence()
    found: dict[str, Any] = {
        "items": {
            s.item.item_id: (s.item, s.worn_with, s.photo, s.base, s.image_at, s.caption_at, s.captions) for s in items
        },
        "entries": sorted((row.image, row.product_id, row.photo, str(row.metadata)) for row in reader.entries()),
        "photos": [reader.photo(photo) for photo in photos],
        "captions": [reader.captions(photo) for photo in photos],
        "counts": (reader.counts(), total, presence, reader.photos_without_detection(), reader.count("entries")),
        "captioned": (reader.count_captioned(), len(reader.attributes_told())),
        "products": (reader.product_ids(), reader.entries_by("product_id", ["p1", "p2", "p3"])),
        "of": [[s.item.item_id for s in reader.of_photo(photo)] for photo in photos],
        "spread": len(reader.spread(3)),
        "words": reader.words_of(["color"]),
        "worn": sorted(reader.worn_together(), key=str),
        "classes": sorted(reader.places_of_classes(["top"])),
        "garments": len(list(reader.garments())),
        "keys": sorted(key.product_id for key in reader.keys_by_numbers(numbers)),
    }
    places = reader.places()
    found["places"] = {ids[n]: row for n, row in zip(places.numbers.tolist(), places.rows.tolist(), strict=True)}
    for question in [text for text in questions if reader.has_column(text.split()[0])]:
        kept = sorted(ids[number] for number in columns.kept(question, numbers))
        found[question] = kept, columns.allowed(question)[1].nonzero()[0].tolist()
    for query in ("red shirt", "t3", "셔츠", "oxford"):
        found[query] = {ids[number]: pytest.approx(score) for number, score in reader.text_search(query)}
    return found


@pytest.mark.parametrize("seed", range(6))
def test_changes_over_a_base_read_as_one_file(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    writer = ItemWriter(tmp_path / "0.sqlite", part_items=8)
    for n in range(14):
        add(writer, n, rng)
    writer.close()
    whole, base, changes = tmp_path / "0.sqlite", tmp_path / "0.sqlite", None
    for step in range(1, 6):
        draw = rng.random()
        one = ItemWriter(tmp_path / f"{step}.sqlite", whole, part_items=8)
        two = ItemWriter(
            tmp_path / f"base{step}.sqlite", base, changes=tmp_path / f"changes{step}.sqlite", changed_before=changes,
            part_items=8, most_changed=10 if step == 4 else 1000,
        )  # fmt: skip
        for writer in (one, two):
            again = random.Random(draw)
            with closing(ItemReader(whole)) as reader:
                change(writer, reader, again)
        if step == 3:
            assert sorted(place[1:] for place in one.places()) == sorted(place[1:] for place in two.places())
        used = one.segments(), two.segments()
        one.close()
        two.close()
        whole, base = tmp_path / f"{step}.sqlite", tmp_path / f"base{step}.sqlite"
        changes = tmp_path / f"changes{step}.sqlite"
        if not changes.exists():
            changes = None
        assert told(ItemReader(base, changes)) == told(ItemReader(whole))
        for reader in (ItemReader(base, changes), ItemReader(whole)):
            assert counted(reader) == sums(reader)
            assert used == (segments(reader),) * 2
    assert base.stat().st_nlink > 1 or changes is None


def layered(folder: Path, source: Path) -> tuple[Path, Path]:
    """A base, and one price that changed over it."""
    base, changes = folder / "base.sqlite", folder / "changes.sqlite"
    writer = ItemWriter(base, source, changes=changes)
    writer.change_entry(1, "", {"color": "blue", "price": 7})
    writer.close()
    return base, changes


@pytest.fixture
def source(tmp_path: Path) -> Path:
    writer = ItemWriter(tmp_path / "source.sqlite")
    for n in range(4):
        add(writer, n, random.Random(n))
    writer.close()
    return tmp_path / "source.sqlite"


def test_a_change_copies_nothing_and_a_file_of_before_becomes_a_base(tmp_path: Path, source: Path) -> None:
    base, changes = layered(tmp_path, source)
    assert base.samefile(source)
    with closing(sqlite3.connect(changes)) as db:
        assert db.execute("SELECT count(*) FROM photos").fetchone() == (1,)
    made = tmp_path / "of_before"
    made.mkdir()
    base, changes = layered(made, make_old(source))
    assert not changes.exists()
    assert not base.samefile(source)
    assert next(iter(ItemReader(base).entries())).metadata == {"color": "blue", "price": 7}


def test_an_item_of_the_base_keeps_its_id_to_itself(tmp_path: Path, source: Path) -> None:
    before = {stored.item.item_id for stored in ItemReader(source).everything()}
    base, changes = tmp_path / "base.sqlite", tmp_path / "changes.sqlite"
    writer = ItemWriter(base, source, changes=changes)
    writer.add_photo(PhotoRow("new", 9, 9, "key", ()))
    entry = writer.add_entry("new.jpg", "", "new", "new", {})
    writer.add_item(min(before), entry, 1, "new", False, "green")
    writer.close()
    reader = ItemReader(base, changes)
    assert {stored.item.item_id for stored in reader.everything()} == before
    assert reader.text_search("green") == []


@pytest.mark.parametrize(
    "change",
    [
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 2",
        "PRAGMA user_version = 4",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE gone_items",
        "DELETE FROM gone_items",
        "UPDATE arrays SET content = zeroblob(length(content)) WHERE kind = 'numbers'",
    ],
)
def test_changes_that_no_writer_makes_are_damage(tmp_path: Path, source: Path, change: str) -> None:
    base, changes = layered(tmp_path, source)
    with closing(sqlite3.connect(changes)) as db, db:
        db.execute(change)
    with pytest.raises(CatalogueError, match=r"damaged|schema"):
        told(ItemReader(base, changes))
    with suppress(CatalogueError, DamagedRow, sqlite3.Error):  # or it is mended: nothing else comes of it
        grow(base, changes, tmp_path)


def grow(base: Path, changes: Path, folder: Path) -> None:
    """Write another generation, and read it."""
    more = folder / "more.sqlite"
    writer = ItemWriter(folder / "next.sqlite", base, changes=more, changed_before=changes)
    writer.change_entry(1, "", {"price": 8})
    writer.close()
    told(ItemReader(folder / "next.sqlite", more))


def test_changes_become_one_with_their_base_beyond_the_most_that_is_allowed(tmp_path: Path) -> None:
    writer = ItemWriter(tmp_path / "source.sqlite")
    for n in range(40):
        add(writer, n, random.Random(n))
    writer.close()
    with closing(ItemReader(tmp_path / "source.sqlite")) as reader:
        entries = [row for row in reader.entries()][:10]
        changed = sum(len(reader.of_photo(photo)) for photo in {row.photo for row in entries})
    assert changed > 3
    for most in (changed, changed - 1):
        changes = tmp_path / f"changes{most}.sqlite"
        writer = ItemWriter(
            tmp_path / f"base{most}.sqlite", tmp_path / "source.sqlite", changes=changes, most_changed=most
        )
        for row in entries:
            writer.change_entry(row.entry_no, "", {"price": 7})
        writer.close()
        assert changes.exists() is (most == changed)


def captioned(writer: ItemWriter, n: int, segment: str | None) -> None:
    writer.add_caption(writer.garment_number(f"photo{n}", 0), CaptionRow("a", "b", {}, "c", "local", segment, n, ""))


def test_sums_follow_what_goes_and_what_comes(tmp_path: Path) -> None:
    """Captions of garments that have gone stay in the base and are not counted; a product may be in
    both files.
    """
    source = tmp_path / "source.sqlite"
    writer = ItemWriter(source)
    for n in range(4):
        numbers = writer.add_photo(PhotoRow(f"photo{n}", 9, 9, "key", garments(n, 3 if n else 1)))
        for product in (f"p{n}", "shared"):
            show_as(writer, n, product, numbers)
        captioned(writer, n, CAPTIONS if n < 3 else None)
    writer.add_photo(PhotoRow("photo9", 9, 9, "key", (garments(9, 3)[2],)))  # seen whole, and shown by no product
    writer.close()
    base, changes = tmp_path / "base.sqlite", tmp_path / "changes.sqlite"
    writer = ItemWriter(base, source, changes=changes)
    for product in ("p1", "shared"):
        writer.remove_entry(writer.entry_number("1.jpg", product))
    assert writer.remove_photos_without_entries() == 1
    show_as(writer, 2, "p1", writer.garment_numbers("photo2"))
    captioned(writer, 0, None)
    used = writer.segments()
    writer.close()
    with closing(ItemReader(base, changes)) as reader:
        assert counted(reader) == sums(reader)
        assert used == segments(reader) == {SEGMENT: 8, CAPTIONS: 1}
        assert reader.counts()["products"] == 5
        assert reader.photos_without_detection() == 1


def show_as(writer: ItemWriter, n: int, product: str, numbers: list[int]) -> None:
    entry = writer.add_entry(f"{n}.jpg", "", product, f"photo{n}", {})
    for at, number in enumerate(numbers):
        writer.add_item(f"i{n}-{product}-{at}", entry, number, product, at > 0, "")


def test_a_base_without_sums_is_counted(tmp_path: Path, source: Path) -> None:
    with closing(ItemReader(source)) as reader:
        before = counted(reader)
    for statement in ("DELETE FROM totals", "DROP TABLE totals"):
        with closing(sqlite3.connect(source)) as db, db:
            db.execute(statement)
        assert counted(ItemReader(source)) == before
        (tmp_path / statement).mkdir()
        base, changes = layered(tmp_path / statement, source)
        assert counted(ItemReader(base, changes)) == before


@pytest.mark.parametrize("value", ["-1", "'many'", "1.5"])
def test_sums_that_no_writer_makes_are_damage(tmp_path: Path, source: Path, value: str) -> None:
    base, changes = layered(tmp_path, source)
    for path in (source, changes):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE totals SET count = {value} WHERE name = 'products'")
    for told_by in (ItemReader(base), ItemReader(base, changes)):
        with pytest.raises(CatalogueError, match="damaged"):
            told_by.counts()
    writer = ItemWriter(tmp_path / "next.sqlite", base, changes=tmp_path / "more.sqlite", changed_before=changes)
    with pytest.raises((DamagedRow, sqlite3.Error)):
        writer.segments()
    writer.discard()


def test_sums_are_counted_again_after_a_change(tmp_path: Path, source: Path) -> None:
    """And those of changes are of base and changes together, however many generations
    there were.
    """
    base, before = layered(tmp_path, source)
    for night in range(3):
        changes = tmp_path / f"changes{night}.sqlite"
        writer = ItemWriter(tmp_path / f"next{night}.sqlite", base, changes=changes, changed_before=before)
        assert writer.segments() == segments(ItemReader(base, before))
        numbers = writer.add_photo(PhotoRow(f"new{night}", 9, 9, "key", garments(60 + night, 2)))
        entry = writer.add_entry("new.jpg", "", f"new{night}", f"new{night}", {})
        writer.change_entry(2 + night, "", {"price": night})  # brings a photo more
        writer.add_item(f"new{night}", entry, numbers[0], f"new{night}", False, "")
        used = writer.segments()
        writer.close()
        base, before = tmp_path / f"next{night}.sqlite", changes
        with closing(ItemReader(base, before)) as reader:
            assert counted(reader) == sums(reader)
            assert used == segments(reader)
        with closing(open_foreign(before, READABLE, attach=base)) as db:
            assert read_gone(db, "main") == +count_gone(db, "other", "main.gone_")
            assert count_changed(db, "other", "main") == read_totals(db, "main")
    with closing(sqlite3.connect(before)) as db, db:
        db.execute("DELETE FROM totals")
    assert counted(ItemReader(base, before)) == counted(reader)


def parts(changes: Path) -> dict[int, list[int]]:
    """The numbers of the items that each part of some changes tells of, or once told of."""
    with closing(sqlite3.connect(changes)) as db:
        rows = db.execute(
            "SELECT part, dtype, content FROM arrays WHERE owner = 'items' AND kind = 'numbers' ORDER BY part"
        )
        return {part: np.frombuffer(content, f"<{dtype}").tolist() for part, dtype, content in rows}


@pytest.fixture
def nights(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Forty photos of a garment each, and a price of some products changed in each of several
    generations.
    """
    source = tmp_path / "source.sqlite"
    writer = ItemWriter(source, part_items=64)
    for n in range(40):
        numbers = writer.add_photo(PhotoRow(f"photo{n}", 9, 9, "key", garments(n, 1)))
        show_as(writer, n, f"p{n}", numbers)
    writer.close()

    def go(*changed: Sequence[int], part_items: int = 15) -> tuple[Path, Path]:
        base, before = source, None
        for night, products in enumerate(changed):
            folder = tmp_path / f"night{night}"
            folder.mkdir()
            writer = ItemWriter(
                folder / "base.sqlite", base, changes=folder / "changes.sqlite", changed_before=before,
                part_items=part_items,
            )  # fmt: skip
            for n in products:
                writer.change_entry(
                    writer.entry_number(f"{n}.jpg", f"p{n}"), "", {"price": night, "night": f"n{night}"}
                )
            writer.close()
            base, before = folder / "base.sqlite", folder / "changes.sqlite"
        assert before
        return base, before

    return go


def test_a_generation_writes_the_parts_of_what_it_changes(nights: Callable[..., tuple[Path, Path]]) -> None:
    base, changes = nights([0, 1, 2], [2, 3], [5], [5], [0, 1])
    assert parts(changes) == {1: [3, 4], 3: [6], 4: [1, 2]}  # 0 and 2 tell of nothing that a later one does not
    with closing(ItemReader(base, changes)) as reader:
        columns = Columns(reader, Images())  # type: ignore[arg-type]
        for price, kept in enumerate([[], [3, 4], [], [6], [1, 2]]):
            assert np.flatnonzero(columns.allowed(f"price = {price}")[0]).tolist() == [
                n for n, number in enumerate(columns.numbers.tolist()) if number in kept
            ]
        assert sorted(columns.numbers.tolist()) == list(range(1, 41))


def test_a_small_part_is_taken_into_the_next(nights: Callable[..., tuple[Path, Path]]) -> None:
    _, changes = nights([0], [1], [2], [3], [4], part_items=32)
    assert parts(changes) == {0: [1, 2, 3], 1: [4, 5]}


def test_there_are_never_many_parts(nights: Callable[..., tuple[Path, Path]]) -> None:
    base, changes = nights(*[[n] for n in range(36)])
    assert parts(changes) == {32: list(range(1, 34)), 33: [34], 34: [35], 35: [36]}
    assert len(list(ItemReader(base, changes).places().numbers)) == 40


def test_items_that_no_part_tells_of_are_damage(nights: Callable[..., tuple[Path, Path]]) -> None:
    base, changes = nights([0], [1])
    with closing(sqlite3.connect(changes)) as db, db:
        db.execute("DELETE FROM arrays WHERE part = 1")
    with pytest.raises(CatalogueError, match="do not describe all"):
        ItemReader(base, changes).places()


def test_keys_of_some_photos_are_those_of_no_others(source: Path) -> None:
    """Few of them are looked for one by one; where many are asked for, all are read."""
    with closing(ItemReader(source)) as reader:
        every = reader.build_keys()
        assert sorted(every) == [f"photo{n}" for n in range(4)]
        for wanted in ([], ["photo1"], ["photo1", "none"], ["photo0", "photo3"]):
            assert reader.build_keys(wanted) == {photo: every[photo] for photo in wanted if photo in every}
