"""The files of a catalogue by hand: segments as they come, thumbnails, what is compacted, ids, and
what was seen before.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashionrec.catalogue.compaction import compact_segments, should_compact
from fashionrec.config import load_config
from fashionrec.errors import CatalogueError
from fashionrec.store.approximate import head_digest
from fashionrec.store.assemble import SegmentWriter, item_id
from fashionrec.store.content import GarmentRow, PhotoRow
from fashionrec.store.journal import FoundGarment, FoundPhoto, Journal
from fashionrec.store.manifest import SegmentEntry
from fashionrec.store.measured import Curve, read_measured, write_measured
from fashionrec.store.seen import SeenFiles, file_state
from fashionrec.store.segments import dtype_of, header, open_vectors, write_vectors
from fashionrec.store.thumbnails import Thumbnails
from fashionrec.store.vectors import open_store
from fashionrec.store.writer import GenerationWriter
from fashionrec.types import Box

AGAIN = "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"
JPEG = b"\xff\xd8\xff"


def vector(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def refused(act: Any, kind: type[Exception] = CatalogueError) -> str:
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)


def test_a_segment_takes_vectors_and_thumbnails_as_they_come(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "segments" / "000001-image", 2)
    assert (writer.name, writer.count, writer.half_recall) == ("000001-image", 0, None)
    assert [writer.add(vector(n, 1), JPEG + b"x" * n) for n in range(3)] == [(0, 0), (1, 3), (2, 7)]
    told = "a vector has 3 values; the encoder's have 2"
    assert refused(lambda: writer.add(vector(1, 2, 3), b"")) == told
    found = FoundPhoto("ab", 10, 20, (FoundGarment("top", 0.5, Box(1, 2, 3, 4), False, vector(7, 8), JPEG + b"y"),))
    garment = GarmentRow(0, "top", 0.5, Box(1, 2, 3, 4), False, "000001-image", 3, 12, 4)
    assert writer.add_photo(found, "key") == PhotoRow("ab", 10, 20, "key", (garment,))
    writer.close()
    folder = tmp_path / "segments" / "000001-image"
    assert sorted(path.name for path in folder.iterdir()) == ["thumbnails.bin", "vectors.faiss"]
    assert writer.entry("image", "e") == SegmentEntry("image", 4, 2, "e", None)
    store = open_store(tmp_path, {"000001-image": writer.entry("image", "e")}, "image")
    assert store.fetch(range(4)).tolist() == [[0, 1], [1, 1], [2, 1], [7, 8]]
    with Thumbnails(tmp_path) as thumbnails:
        assert thumbnails.read("000001-image", 12, 4) == JPEG + b"y"
        assert [thumbnails.read("000001-image", offset, 3 + n) for n, offset in enumerate((0, 3, 7))] == [
            JPEG + b"x" * n for n in range(3)
        ]
    halves = SegmentWriter(tmp_path / "segments" / "000002-image", 2, "float16")
    halves.add(vector(1, 0), b"")
    halves.close()
    assert halves.half_recall == 1.0
    nothing = SegmentWriter(tmp_path / "segments" / "000003-image", 2)
    nothing.close()
    nothing.discard()
    assert not nothing.folder.exists()
    left = SegmentWriter(tmp_path / "segments" / "000004-image", 2)
    left.add(vector(1, 0), b"")
    left.discard()
    assert refused(lambda: left.add(vector(1, 0), b""), ValueError).startswith("write to closed file")


def test_thumbnails_that_are_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "segments" / "a"
    folder.mkdir(parents=True)
    path = folder / "thumbnails.bin"
    with Thumbnails(tmp_path) as thumbnails:
        told = f"catalogue is damaged: {path}: No such file or directory"
        assert refused(lambda: thumbnails.read("a", 0, 3)) == told
        path.write_bytes(JPEG + b"1" + JPEG)
        assert thumbnails.read("a", 4, 3) == JPEG
        assert thumbnails.read("a", 0, 7) == JPEG + b"1" + JPEG
        for offset, size in ((-1, 3), (0, 0), (0, -1), (5, 3), (0, 8), (0, (16 << 20) + 1)):
            told = f"catalogue is damaged: {path} has 7 bytes, and no thumbnail of {size} at {offset}"
            assert refused(lambda: thumbnails.read("a", offset, size)) == told  # noqa: B023
        told = f"catalogue is damaged: {path}: no JPEG of 3 bytes at 1"
        assert refused(lambda: thumbnails.read("a", 1, 3)) == told
    path.write_bytes(JPEG + bytes(16 << 20))
    with Thumbnails(tmp_path) as thumbnails:
        assert len(thumbnails.read("a", 0, 16 << 20)) == 16 << 20
        assert "no thumbnail" in refused(lambda: thumbnails.read("a", 0, (16 << 20) + 1))


@pytest.mark.parametrize(
    ("counts", "used", "most", "dead", "compact"),
    [
        ({"a": 5, "b": 5}, {"a": 5, "b": 5}, 2, 0.5, False),
        ({"a": 5, "b": 5}, {"a": 5, "b": 5}, 1, 0.5, True),
        ({"a": 5, "b": 5}, {"a": 5}, 2, 0.5, False),  # half of them, and no more
        ({"a": 5, "b": 5}, {"a": 4}, 2, 0.5, True),
        ({"a": 5, "c": 5}, {"a": 5, "c": 5}, 1, 0.5, False),  # one of each kind
        ({"a": 9, "c": 5}, {"a": 9, "c": 2}, 2, 0.5, True),
        ({"a": 0}, {}, 1, 0.0, False),
        ({}, {}, 0, 0.0, False),
    ],
)
def test_when_segments_are_put_together(
    counts: dict[str, int], used: dict[str, int], most: int, dead: float, compact: bool
) -> None:
    kinds = {"a": "image", "b": "image", "c": "caption"}
    table = {name: SegmentEntry(kinds[name], count, 2, "e") for name, count in counts.items()}
    assert should_compact(table, used, most=most, dead=dead) is compact


@pytest.mark.parametrize(
    ("first", "second", "dtype"), [("float16", "float16", "float16"), ("float16", "float32", "float32")]
)
def test_what_is_in_use_is_put_together(tmp_path: Path, first: str, second: str, dtype: str) -> None:
    writer = GenerationWriter(tmp_path, load_config(env={}).config.index)
    with writer:
        one = writer.new_segment("image", "e", 2, dtype=first, suffix="one")
        two = writer.new_segment("image", "e", 2, dtype=second, suffix="two")
        rows = {}
        for n, segment in enumerate((one, two, one, two)):
            rows[n] = (segment.name, *segment.add(vector(n, 0), JPEG + b"%d" % n))
        for n, (name, row, offset) in rows.items():
            if n != 2:  # nothing refers to it
                garment = GarmentRow(0, None, None, Box(0, 0, 1, 1), True, name, row, offset, 4)
                (number,) = writer.items.add_photo(PhotoRow(f"p{n}", 1, 1, "k", (garment,)))
                entry = writer.items.add_entry(f"{n}.jpg", "", f"{n}", f"p{n}", {})
                writer.items.add_item(f"i{n}", entry, number, f"{n}", False, "")
        writer.finish_segments()
        assert set(writer.segments) == {"000001-one", "000001-two"}
        compact_segments(writer)
        assert writer.finish_segments() == {"000001-images": 3}
        places = [(number, "000001-images", number - 1, 4 * (number - 1), 4) for number in (1, 2, 3)]
        assert list(writer.items.places()) == places
        store = open_store(tmp_path, writer.segments, "image")
        assert store.names == ["000001-images"]
        assert dtype_of(store.indexes[0]) == dtype
        assert store.fetch(range(3))[:, 0].tolist() == [0, 1, 3]
        with Thumbnails(tmp_path) as thumbnails:
            assert [thumbnails.read("000001-images", 4 * n, 4)[-1:] for n in range(3)] == [b"0", b"1", b"3"]


def test_what_is_written_of_vectors(tmp_path: Path) -> None:
    path = tmp_path / "v"
    rows = np.random.default_rng(0).normal(size=(4300, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert write_vectors(path, rows) == (4300, None)
    written = write_vectors(path, (rows[start : start + 900] for start in range(0, 4300, 900)), 3, "float16")
    assert (written.rows, path.stat().st_size) == (4300, len(header(0, 3, "float16")) + 4300 * 6)
    # among the first 4,096: of the ten nearest to 256 of them, evenly spread, those that are so
    # among half floats too
    sample, half = rows[:4096], rows[:4096].astype(np.float16).astype(np.float32)
    shares = []
    for n in [int(4095 * q / 255) for q in range(256)]:
        found = []
        for table in (sample, half):
            scores = table @ sample[n]
            scores[n] = -2
            found.append(set(np.argsort(-scores, kind="stable")[:10].tolist()))
        shares.append(len(found[0] & found[1]) / 10)
    assert written.float16_recall_at_10 == pytest.approx(np.mean(shares), abs=6e-5)
    assert written.float16_recall_at_10 < 1
    for count in (0, 1, 2):
        assert write_vectors(path, rows[:count], dtype="float16") == (count, 1.0)
    assert refused(lambda: write_vectors(path, iter([rows])), TypeError) == "blocks of vectors need dim"
    told = "an array (4300, 3) among vectors of length 4"
    assert refused(lambda: write_vectors(path, iter([rows]), 4), ValueError) == told
    assert refused(lambda: write_vectors(path, rows[0:1].reshape(-1), 1), ValueError).startswith("an array (3,)")
    assert not path.exists()


def test_a_file_that_holds_other_vectors(tmp_path: Path) -> None:
    path = tmp_path / "v"
    told = f"catalogue is damaged: {path}: No such file or directory"
    assert refused(lambda: open_vectors(path, count=2, dim=3)) == told
    write_vectors(path, np.eye(2, 3, dtype=np.float32))
    data = path.read_bytes()
    about = f"catalogue is damaged: {path} holds 2 vectors of length 3, or its header has changed; expected"
    assert refused(lambda: open_vectors(path, count=3, dim=3)) == f"{about} 3 of 3"
    assert refused(lambda: open_vectors(path, count=2, dim=4)) == f"{about} 2 of 4"
    path.write_bytes(data + b"x")
    told = f"catalogue is damaged: {path} has {len(data) + 1} bytes, not {len(data)}"
    assert refused(lambda: open_vectors(path, count=2, dim=3)) == told
    path.write_bytes(data[:10])
    told = f"catalogue is damaged: {path} holds 0 vectors of length 0, or its header has changed; expected 2 of 3"
    assert refused(lambda: open_vectors(path, count=2, dim=3)) == told
    path.write_bytes(b"IxXX" + data[4:])
    assert refused(lambda: open_vectors(path, count=2, dim=3)) == f"catalogue is damaged: {path} is not a vector file"


@pytest.mark.parametrize("size", [0, 1, 5, 9, (1 << 20) + 1])
def test_the_digest_of_a_files_head(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * 4100
    (tmp_path / "f").write_bytes(data)
    assert head_digest(tmp_path / "f", size) == hashlib.sha256(data[:size]).hexdigest()
    assert head_digest(tmp_path / "f", 1 << 30) == hashlib.sha256(data).hexdigest()


def test_ids_stay_the_same() -> None:
    garment = GarmentRow(0, "top", 0.5, Box(1.4, 2.5, 3.6, 4), False, "s", 0, 0, 1)
    text = "p1\x1fphoto\x1ftop\x1f1,2,4,4"
    assert item_id("p1", "photo", garment) == hashlib.sha256(text.encode()).hexdigest()[:16]
    bare = GarmentRow(0, None, None, Box(0, 0, 1, 1), True, "s", 0, 0, 1)
    assert item_id("p", "q", bare) == hashlib.sha256(b"p\x1fq\x1f\x1f0,0,1,1").hexdigest()[:16]


def test_a_curve_between_and_beyond_its_knots() -> None:
    curve = Curve((0.2, 0.4, 0.8), (0.1, 0.5, 0.6))
    values = {-1.0: 0.1, 0.2: 0.1, 0.3: 0.3, 0.4: 0.5, 0.6: 0.55, 0.8: 0.6, 1.0: 0.6}
    assert {cosine: curve(cosine) for cosine in values} == pytest.approx(values)
    assert [curve.match(cosine) for cosine in (0.3, 0.6001, 0.9)] == [30, 55, 60]
    Curve((0.0,), (0.0,))
    Curve((0.0, 1.0), (1.0, 1.0))
    for cosines, probabilities in (
        ((0.2, 0.2), (0.1, 0.2)),
        ((0.2, 0.3), (0.2, 0.1)),
        ((0.2,), (-0.1,)),
        ((0.2,), (1.1,)),
        ((0.2,), (0.1, 0.2)),
        ((), ()),
    ):
        assert refused(lambda: Curve(cosines, probabilities), ValueError) == "not a monotonic curve"  # noqa: B023


@pytest.mark.parametrize(
    ("value", "weight"),
    [(0, 0.0), (1, 1.0), (0.25, 0.25), (-0.01, None), (1.01, None), (True, None), ("1", None), (None, None)],
)
def test_what_was_measured_is_within_its_bounds(tmp_path: Path, value: Any, weight: float | None) -> None:
    curve = {"cosines": [0, "0.5"], "probabilities": [0.25, 1]}
    write_measured(tmp_path, "caption_weight", "g", "e", {"value": value})
    write_measured(tmp_path, "match_text", "g", "e", curve)
    write_measured(tmp_path, "match_photo", "g", "e", {"cosines": [0]})
    found = read_measured(tmp_path, "g", "e")
    assert (found.caption_weight, found.curves) == (weight, {"text": Curve((0.0, 0.5), (0.25, 1.0))})
    assert found.match_of("photo") is None
    match = found.match_of("text")
    assert match is not None
    assert match(0.25) == 62
    for generation, embedder in (("h", "e"), ("g", "f")):
        assert read_measured(tmp_path, generation, embedder).curves == {}
    document = json.loads((tmp_path / "measured.json").read_text())
    assert document["match_text"] == {**curve, "generation": "g", "embedder": "e"}
    (tmp_path / "measured.json").write_text("[]")
    assert read_measured(tmp_path, "g", "e").curves == {}


def test_a_file_is_known_again_by_its_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    second = 1_000_000_000
    os.utime(file, ns=(5 * second, 5 * second))
    state = file_state(str(file))
    assert state is not None
    assert state[:2] == (3, 5 * second)
    assert file_state(str(tmp_path / "no")) is None
    assert file_state("a\0b") is None
    seen = SeenFiles(tmp_path / "work" / "seen.sqlite")

    def known(size: int, changed: int, hashed: int) -> bool:
        seen.put({str(file): (size, changed, hashed, "digest")})
        found = seen.digests([str(tmp_path / "no"), "a\0b", str(file)])
        assert found in ({}, {str(file): "digest"})
        return bool(found)

    assert known(3, 5 * second, 7 * second + 1)
    assert not known(3, 5 * second, 7 * second)  # two seconds before, and no more
    assert not known(4, 5 * second, 9 * second)
    assert not known(3, 5 * second - 1, 9 * second)
    seen.close()
    assert str(file).encode() not in (tmp_path / "work" / "seen.sqlite").read_bytes()  # others may be given it


def test_a_journal_keeps_what_is_finished_by_key(tmp_path: Path) -> None:
    path = tmp_path / "work" / "j.sqlite"
    garments = [FoundGarment("top", 0.5, Box(n, 2, 3, 4), n > 0, b"v%d" % n, b"t%d" % n) for n in range(3)]
    bare = FoundGarment(None, None, Box(0, 0, 1, 1), True, b"", b"")
    photos = [FoundPhoto("aa", 10, 20, tuple(garments)), FoundPhoto("bb", 1, 2, (bare,)), FoundPhoto("cc", 3, 4, ())]
    journal = Journal(path, "one")
    journal.put(photos)
    journal.put([])
    assert [journal.get(photo.sha256) for photo in photos] == photos
    assert [journal.has(digest) for digest in ("aa", "dd")] == [True, False]
    again = FoundPhoto("bb", 5, 6, (garments[1],))
    journal.put([again])
    assert journal.get("bb") == again
    journal.close()
    other = Journal(path, "two")
    assert (other.get("aa"), other.has("aa")) == (None, False)
    other.put([FoundPhoto("aa", 7, 8, ())])
    assert other.get("aa") == FoundPhoto("aa", 7, 8, ())
    other.close()
    journal = Journal(path, "one")
    assert journal.get("aa") == photos[0]
    journal.close()


def test_a_journal_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    db = sqlite3.connect(path)
    db.executescript(
        """
        CREATE TABLE IF NOT EXISTS photos (
          sha256 TEXT NOT NULL, build_key TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
          PRIMARY KEY (sha256, build_key)
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS garments (
          sha256 TEXT NOT NULL, build_key TEXT NOT NULL, position INTEGER NOT NULL, garment TEXT NOT NULL,
          vector BLOB NOT NULL, thumbnail BLOB NOT NULL, PRIMARY KEY (sha256, build_key, position)
        );
        INSERT INTO photos VALUES ('cc', 'one', 3, 4), ('aa', 'one', 1, 2), ('aa', 'two', 1, 2), ('bb', 'one', 5, 6);
        INSERT INTO garments VALUES
          ('cc', 'one', 0, '["top", 0.5, [1, 2, 3, 4], false]', x'01', x'02'),
          ('cc', 'one', 1, '["skirt", 0.25, [5, 6, 7, 8], false]', x'03', x'04'),
          ('aa', 'two', 0, '[null, null, [0, 0, 1, 2], true]', x'05', x'06');
        """
    )
    db.close()
    top = FoundGarment("top", 0.5, Box(1, 2, 3, 4), False, b"\1", b"\2")
    skirt = FoundGarment("skirt", 0.25, Box(5, 6, 7, 8), False, b"\3", b"\4")
    for _ in range(2):  # as it was converted, and as it lies there then
        journal = Journal(path, "one")
        assert journal.get("cc") == FoundPhoto("cc", 3, 4, (top, skirt))
        assert [journal.get(digest) for digest in ("aa", "bb", "dd")] == [
            FoundPhoto("aa", 1, 2, ()),
            FoundPhoto("bb", 5, 6, ()),
            None,
        ]
        journal.close()
    journal = Journal(path, "two")
    assert journal.get("aa") == FoundPhoto("aa", 1, 2, (FoundGarment(None, None, Box(0, 0, 1, 2), True, b"\5", b"\6"),))
    journal.put([FoundPhoto("bb", 7, 8, (skirt,))])
    assert journal.get("bb") == FoundPhoto("bb", 7, 8, (skirt,))
    journal.close()
