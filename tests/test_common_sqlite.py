"""SQLite files of others: nothing in them runs, and nothing runs for ever."""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from systems import posix_only

from fashionrec.common.sqlite import Mode, UntrustedFile, open_foreign
from fashionrec.errors import CatalogueError
from fashionrec.store.content import CaptionRow, GarmentRow, PhotoRow
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.items import ItemReader
from fashionrec.store.schema import SCHEMA as ITEMS
from fashionrec.types import Box

SCHEMA = """
CREATE TABLE IF NOT EXISTS photos (sha256 TEXT PRIMARY KEY, width INTEGER NOT NULL);
CREATE INDEX photos_by_width ON photos (width);
CREATE VIRTUAL TABLE words USING fts5 (word, content='photos', content_rowid='width');
"""


def make(path: Path, *more: str) -> Path:
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA)
        db.execute("INSERT INTO photos VALUES ('aa', 3)")
        for statement in more:
            db.execute(statement)
    db.close()
    return path


@pytest.mark.parametrize("mode", ["immutable", "ro", "rw", "rwc"])
def test_a_file_of_its_writer_opens(tmp_path: Path, mode: str) -> None:
    path = make(tmp_path / "a.sqlite", "INSERT INTO words (rowid, word) VALUES (3, 'shirt')", "ANALYZE")
    db = open_foreign(path, SCHEMA, mode=mode)  # type: ignore[arg-type]
    assert db.execute("SELECT width FROM photos").fetchall() == [(3,)]
    assert db.execute("SELECT rowid FROM words WHERE words MATCH 'shirt'").fetchall() == [(3,)]
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON photos BEGIN SELECT 1; END",
        "CREATE TABLE other (x)",
        "CREATE TABLE g (x, y AS (x + 1))",
        "CREATE INDEX i ON photos (length(sha256))",
        "CREATE VIRTUAL TABLE r USING rtree (id, a, b)",
        "CREATE VIRTUAL TABLE f USING fts5 (x)",
        "ALTER TABLE photos ADD COLUMN z INTEGER DEFAULT 4",
        "INSERT INTO words (words, rank) VALUES ('rank', 'bm25(9)')",
    ],
)
def test_what_its_writer_does_not_make_is_refused(tmp_path: Path, statement: str) -> None:
    with pytest.raises(UntrustedFile, match=r"not part of fashionrec's schema|has the setting"):
        open_foreign(make(tmp_path / "a.sqlite", statement), SCHEMA)


def test_a_view_in_the_place_of_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.sqlite"
    ItemWriter(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE photos")
        db.execute(
            "CREATE VIEW photos AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS sha256, 1 AS width, 1 AS height, '' AS build_key FROM n"
        )
    db.close()
    with pytest.raises(CatalogueError, match="its view 'photos' is not part of fashionrec's schema"):
        ItemReader(path)


def test_a_planted_journal_does_not_delete_a_file_elsewhere(tmp_path: Path) -> None:
    """SQLite deletes the "super-journal" that a hot journal names, whatever file that is."""
    victim = tmp_path / "private.key"
    victim.write_text("a key")
    path = make(tmp_path / "a.sqlite")
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(victim)
    head = magic + struct.pack(">5I", 0, 1, path.stat().st_size // 4096, 512, 4096)
    tail = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">2I", len(name), sum(name)) + magic
    Path(f"{path}-journal").write_bytes(head.ljust(512, b"\0") + tail)
    with pytest.raises(UntrustedFile, match="names another file"):
        open_foreign(path, SCHEMA, mode="rw")
    assert victim.read_text() == "a key"


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_journal_of_a_killed_writer_is_rolled_back(tmp_path: Path, mode: Mode) -> None:
    path = make(tmp_path / "a.sqlite")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute(
        "INSERT INTO photos WITH n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT i, i FROM n"
    )
    copies = [(Path(f"{path}{end}").read_bytes(), tmp_path / f"b.sqlite{end}") for end in ("", "-journal")]
    for data, copy in copies:
        copy.write_bytes(data)
    db.close()
    found = open_foreign(tmp_path / "b.sqlite", SCHEMA, mode=mode)
    assert found.execute("SELECT sha256 FROM photos").fetchall() == [("aa",)]
    found.close()


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
@posix_only("links", "named pipes")
def test_links_and_pipes_are_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    path = make(tmp_path / "a.sqlite")
    place = Path(f"{path}{suffix}")
    place.unlink(missing_ok=True)
    other = make(tmp_path / "b.sqlite")
    before = other.read_bytes()
    place.symlink_to(other) if kind == "link" else os.mkfifo(place)
    with pytest.raises(UntrustedFile, match=r"is a (link|special file)"):
        open_foreign(path, SCHEMA, mode="rw")
    assert other.read_bytes() == before


def endless(path: Path, table: str) -> None:
    """Give a table 20 ** 9 rows in a few pages: each page of its tree has the next one as a child
    20 times.
    """
    db = sqlite3.connect(path)
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    data = bytearray(path.read_bytes())
    leaf = bytes(data[(root - 1) * size : root * size])
    first = struct.unpack(">H", leaf[8:10])[0]
    kind, body = (5, b"\1") if leaf[0] == 13 else (2, leaf[first : first + 1 + leaf[first]])  # of a table, of an index
    pages = [root, *(len(data) // size + n for n in range(1, 10))]
    for page, child in pairwise(pages):
        cells = (struct.pack(">I", child) + body) * 20
        head = struct.pack(">BHHHBI", kind, 0, 20, size - len(cells), 0, child)
        places = b"".join(struct.pack(">H", size - (4 + len(body)) * n) for n in range(1, 21))
        data[(page - 1) * size : page * size] = (head + places).ljust(size - len(cells), b"\0") + cells
    data[(pages[-1] - 1) * size : pages[-1] * size] = leaf
    data[28:32] = struct.pack(">I", len(data) // size)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("captions", ItemReader.attributes_told),
        ("items", ItemReader.counts),
        ("photos", ItemReader.counts),
        ("totals", ItemReader.counts),
    ],
)
def test_a_small_file_with_endless_rows_is_interrupted(
    tmp_path: Path, table: str, read: Callable[[ItemReader], object]
) -> None:
    path = items_file(tmp_path)
    if table != "totals":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM totals")  # its rows are counted then
    endless(path, table)
    start = time.monotonic()
    with pytest.raises(CatalogueError, match="interrupted"):
        read(ItemReader(path))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("table", "read"),
    [("items", ItemReader.everything), pytest.param("entries", ItemReader.entries, marks=pytest.mark.slow)],
)
def test_questions_between_endless_rows_do_not_renew_the_limit(
    tmp_path: Path, table: str, read: Callable[[ItemReader], Iterable[object]]
) -> None:
    path = items_file(tmp_path)
    endless(path, table)
    reader = ItemReader(path)

    def ask() -> None:
        for n, _ in enumerate(read(reader)):
            assert n < 2_000_000
            if n % 1000 == 0:
                assert reader.photo("aa")

    with pytest.raises(CatalogueError, match="interrupted"):
        ask()


def items_file(folder: Path) -> Path:
    """The items of one garment with a caption, as they are written."""
    path = folder / "items.sqlite"
    garment = GarmentRow(0, "top", 0.9, Box(0, 0, 4, 4), False, "s", 0, 0, 1)
    writer = ItemWriter(path)
    writer.add_photo(PhotoRow("aa", 4, 4, "", (garment,)))
    writer.add_entry("a.jpg", "/", "p", "aa", {})
    writer.add_item("i", 1, 1, "p", False, "shirt")
    writer.add_caption(1, CaptionRow("a", "b", {}, "", "local"))
    writer.close()
    return path


def test_a_large_honest_file_is_not_interrupted(tmp_path: Path) -> None:
    """A file may grow tenfold while it is open, and be read whole, sorted and grouped."""
    path = make(tmp_path / "a.sqlite")
    db = open_foreign(path, SCHEMA, mode="rw", min_steps=1)
    assert path.stat().st_size < 100_000
    more = "INSERT INTO photos WITH n (i) AS (VALUES (?) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i, i FROM n"
    for n in range(0, 100_000, 10_000):
        db.execute(more, (n, n + 9_999))
    assert path.stat().st_size > 1_000_000
    assert db.execute("SELECT count(*) FROM (SELECT DISTINCT sha256 || width FROM photos ORDER BY 1)").fetchone() == (
        100_001,
    )
    db.close()


@pytest.mark.parametrize(
    ("statement", "times"),
    [("SELECT total(1) FROM photos", 2000), ("SELECT rowid FROM words WHERE words MATCH 'shirt' ORDER BY rank", 1000)],
)
def test_many_short_statements_are_not_one_long_one(tmp_path: Path, statement: str, times: int) -> None:
    """SQLite counts the steps of a statement over all its executions, and a catalogue is open for
    days.

    Counted together, they are interrupted after 1,279 and 511.
    """
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA page_size = 512")
        db.executescript(SCHEMA)
        db.executemany("INSERT INTO photos VALUES (?, ?)", [(str(n), n) for n in range(50)])
        db.executemany("INSERT INTO words (rowid, word) VALUES (?, 'a shirt')", [(n,) for n in range(50)])
    db.close()
    db = open_foreign(path, SCHEMA, mode="immutable", min_steps=1)
    for _ in range(times):
        db.execute(statement).fetchone()
    db.close()


def test_values_are_limited(tmp_path: Path) -> None:
    path = make(tmp_path / "a.sqlite", "INSERT INTO photos VALUES (hex(zeroblob(1000000)), 1)")
    db = open_foreign(path, SCHEMA, max_value=1_000_000)
    with pytest.raises(sqlite3.Error, match="too big"):
        db.execute("SELECT sha256 FROM photos").fetchall()
    db.close()


def test_the_items_file_of_an_earlier_version_opens(tmp_path: Path) -> None:
    """The first catalogues have no table of caption words."""
    path = tmp_path / "items.sqlite"
    ItemWriter(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE caption_words")
    db.close()
    assert ItemReader(path).counts()["photos"] == 0
    open_foreign(path, ITEMS, mode="rw").close()
