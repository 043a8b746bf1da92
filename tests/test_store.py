"""The catalogue's files: vectors, items, full-text, generations and the lock."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.errors import Busy, CatalogueError
from fashionrec.store import generations
from fashionrec.store.content import CaptionRow, GarmentRow, PhotoRow
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.items import ItemReader
from fashionrec.store.journal import FoundGarment, FoundPhoto, Journal
from fashionrec.store.manifest import Manifest
from fashionrec.store.vectors import VectorStore, open_vectors, write_vectors
from fashionrec.types import Box


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def store(tmp_path: Path, parts: list[np.ndarray]) -> VectorStore:
    opened = []
    for n, part in enumerate(parts):
        write_vectors(tmp_path / f"{n}.faiss", part)
        opened.append((f"s{n}", open_vectors(tmp_path / f"{n}.faiss", count=len(part), dim=part.shape[1])))
    return VectorStore(opened)


def test_several_segments_are_searched_as_one(tmp_path: Path) -> None:
    vectors = unit(50, 8)
    split = store(tmp_path, [vectors[:7], vectors[7:30], vectors[30:]])
    queries = unit(5, 8, seed=1)
    scores, positions = split.search(queries, 10)
    cosine = queries @ vectors.T
    expected = np.argsort(-cosine, axis=1, kind="stable")[:, :10]
    assert (positions == expected).all()
    assert np.allclose(scores, np.take_along_axis(cosine, expected, axis=1), atol=1e-6)
    assert split.search(queries, 1000)[0].shape == (5, 50)
    asked = np.array([0, 6, 7, 29, 30, 49])
    for position, place in zip(asked, split.locate(asked), strict=True):
        assert split.position(*place) == position
        assert np.allclose(split.fetch([position])[0], vectors[position])


def test_an_empty_store_answers_nothing() -> None:
    scores, positions = VectorStore([]).search(unit(2, 4), 5)
    assert scores.shape == positions.shape == (2, 0)


@pytest.mark.parametrize("fault", ["truncated", "garbage", "count", "dim"])
def test_a_damaged_segment_is_one_clear_error(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "v.faiss"
    write_vectors(path, unit(10, 4))
    data = path.read_bytes()
    if fault == "truncated":
        path.write_bytes(data[:-20])
    if fault == "garbage":
        path.write_bytes(b"x" * len(data))
    with pytest.raises(CatalogueError, match="damaged"):
        open_vectors(path, count=11 if fault == "count" else 10, dim=5 if fault == "dim" else 4)


def photo(sha: str, classes: list[str], segment: str = "000001-image", first: int = 0) -> PhotoRow:
    garments = [
        GarmentRow(n, name, 0.9, Box(0, 0, 10 + n, 20), False, segment, first + n, 0, 5)
        for n, name in enumerate(classes)
    ]
    return PhotoRow(sha, 100, 200, "key", tuple(garments))


def write_items(path: Path) -> None:
    writer = ItemWriter(path)
    for n, (sha, text, metadata) in enumerate(
        [("aa", "화이트 셔츠와 청바지", {"price": 39000}), ("bb", "red striped dress", {}), ("cc", "체크 바지", {})]
    ):
        (number,) = writer.add_photo(photo(sha, ["top"], first=n))
        entry = writer.add_entry(f"{sha}.jpg", "", f"p{n}", sha, metadata)
        writer.add_item(f"item{n}", entry, number, f"p{n}", False, text)
    writer.close()


def test_items_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_items(tmp_path / "items.sqlite")
    reader = ItemReader(tmp_path / "items.sqlite")
    (key,) = reader.keys_at_rows([("000001-image", 0), ("000001-image", 99)])
    assert key == (1, "p0", "top", False, ("000001-image", 0), None)
    stored = reader.by_numbers([key.item_no])[1]
    assert stored.item.product_id == "p0"
    assert stored.item.metadata == {"price": 39000}
    assert stored.item.box == Box(0, 0, 10, 20)
    assert reader.counts() == {"photos": 3, "garments": 3, "items": 3, "worn_with": 0, "products": 3, "captions": 0}
    assert reader.photo("aa") == photo("aa", ["top"])
    assert reader.photo("zz") is None


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("셔츠", [0]),
        ("셔츠와", [0]),
        ("바지", [0, 2]),  # 청바지 holds it too
        ("청바지", [0]),
        ("바지를", [0, 2]),
        ("체크", [2]),
        ("striped", [1]),
        ("dress RED", [1]),
        ("코트", []),
        ('" OR *', []),
        ("", []),
    ],
)
def test_two_syllable_words_are_found_with_and_without_particles(tmp_path: Path, query: str, items: list[int]) -> None:
    write_items(tmp_path / "items.sqlite")
    found = ItemReader(tmp_path / "items.sqlite").text_search(query, 10)
    assert sorted(number - 1 for number, _ in found) == items


@pytest.mark.parametrize(
    "particle", ["", "은", "는", "을", "를", "이", "가", "의", "와", "과", "로", "으로", "도", "만"]
)
@pytest.mark.parametrize("word", ["옷", "탑", "백", "셔츠", "바지", "치마", "청바지", "스커트", "원피스", "티셔츠"])
def test_korean_words_of_one_to_three_syllables_are_found(tmp_path: Path, word: str, particle: str) -> None:
    stored = {"옷": "겨울옷 세트", "탑": "민소매탑", "백": "백 프린트"}
    writer = ItemWriter(tmp_path / "items.sqlite")
    for n, text in enumerate([stored.get(word, f"체크 {word}와 함께"), "navy coat", "모자"]):
        (number,) = writer.add_photo(photo(f"p{n}", ["top"], first=n))
        entry = writer.add_entry(f"{n}.jpg", "", f"p{n}", f"p{n}", {})
        writer.add_item(f"item{n}", entry, number, f"p{n}", False, text)
    writer.close()
    found = ItemReader(tmp_path / "items.sqlite").text_search(word + particle, 10)
    assert [number for number, _ in found] == [1]


@given(st.text(max_size=30))
def test_no_text_breaks_the_full_text_query(text: str) -> None:
    import sqlite3

    from fashionrec.store.words import match_expression, query_phrases, searchable

    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5 (words, tokenize='unicode61')")
    db.execute("INSERT INTO t VALUES (?)", (searchable(text),))
    expression = match_expression(query_phrases(text))
    if expression:
        db.execute("SELECT * FROM t WHERE t MATCH ?", (expression,)).fetchall()


def test_captions_are_added_in_a_copy_and_searchable(tmp_path: Path) -> None:
    write_items(tmp_path / "old.sqlite")
    caption = CaptionRow("a navy shirt", "네이비 셔츠", {"color": "navy"}, "a navy shirt", "local", "c", 0)
    writer = ItemWriter(tmp_path / "new.sqlite", tmp_path / "old.sqlite")
    writer.add_caption(2, caption)
    writer.reword([2])
    assert writer.segments() == {"000001-image": 3, "c": 1}
    writer.close()
    reader = ItemReader(tmp_path / "new.sqlite")
    assert [number for number, _ in reader.text_search("네이비", 5)] == [2]
    assert not ItemReader(tmp_path / "old.sqlite").text_search("네이비", 5)
    assert reader.caption("bb", 0) == caption
    assert reader.by_numbers([2])[2].item.attributes == {"color": "navy"}


def test_a_file_that_is_no_items_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(CatalogueError, match="damaged"):
        ItemReader(tmp_path / "x.sqlite")


def test_the_journal_gives_back_what_was_put_and_knows_its_key(tmp_path: Path) -> None:
    found = FoundPhoto("aa", 10, 20, (FoundGarment("top", 0.5, Box(1, 2, 3, 4), False, b"\0" * 8, b"jpeg"),))
    journal = Journal(tmp_path / "j.sqlite", "key")
    journal.put([found, FoundPhoto("bb", 1, 1, ())])
    journal.close()
    again = Journal(tmp_path / "j.sqlite", "key")
    assert again.get("aa") == found
    assert again.has("bb")
    again.close()
    other = Journal(tmp_path / "j.sqlite", "other")
    assert other.get("aa") is None
    other.close()
    (tmp_path / "j.sqlite").write_bytes(b"damaged" * 1000)
    assert not Journal(tmp_path / "j.sqlite", "key").has("aa")


def commit(root: Path, name: str, text: str) -> generations.Generation:
    folder = root / "generations" / name
    folder.mkdir(parents=True)
    (folder / "items.sqlite").write_text(text)
    return generations.commit(root, name, Manifest(), [folder / "items.sqlite"])


def test_a_commit_switches_and_keeps_the_generation_before(tmp_path: Path) -> None:
    for n in range(1, 5):
        name = generations.next_name(tmp_path)
        assert name == f"{n:06d}"
        assert commit(tmp_path, name, f"text {n}").name == name
    assert sorted(p.name for p in (tmp_path / "generations").iterdir()) == ["000003", "000004"]
    generations.read_current(tmp_path).check(contents=True)


def test_what_a_killed_writer_left_is_tidied_up_and_never_served(tmp_path: Path) -> None:
    commit(tmp_path, "000001", "one")
    (tmp_path / "generations" / "000002").mkdir()
    (tmp_path / "segments" / "000002-image").mkdir(parents=True)
    assert generations.read_current(tmp_path).name == "000001"
    assert commit(tmp_path, generations.next_name(tmp_path), "three").name == "000003"
    assert sorted(p.name for p in (tmp_path / "generations").iterdir()) == ["000001", "000003"]
    assert not list((tmp_path / "segments").iterdir())


@pytest.mark.parametrize("fault", ["missing", "size", "content", "manifest", "pointer", "version", "foreign"])
def test_every_fault_of_a_catalogue_is_one_clear_error(tmp_path: Path, fault: str) -> None:
    folder = commit(tmp_path, "000001", "some text").folder
    pointer, manifest, items = tmp_path / "catalogue.json", folder / "manifest.json", folder / "items.sqlite"
    if fault == "missing":
        items.unlink()
    elif fault == "size":
        items.write_text("some")
    elif fault == "content":
        items.write_text("SOME text")
    elif fault == "manifest":
        manifest.write_text(manifest.read_text().replace("segments", "fragments"))
    elif fault == "pointer":
        pointer.write_text(pointer.read_text()[:30])
    else:
        value = json.loads(pointer.read_text())
        value["format_version" if fault == "version" else "format"] = 99
        pointer.write_text(json.dumps(value))
    with pytest.raises(CatalogueError) as caught:
        generations.read_current(tmp_path).check(contents=True)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def _hold(root: Path, ready: object, done: object) -> None:
    with generations.writer_lock(root):
        ready.set()  # type: ignore[attr-defined]
        done.wait(20)  # type: ignore[attr-defined]


def test_one_writer_at_a_time_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    assert ready.wait(20)
    with pytest.raises(Busy) as caught, generations.writer_lock(tmp_path):
        pass
    assert caught.value.exit_code == 75
    other.kill()
    other.join()
    with generations.writer_lock(tmp_path):
        pass
