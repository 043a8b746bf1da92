"""Another index for a catalogue: nothing embedded, the same answers, the generation before still
there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.reindex import reindex_catalogue
from fashionrec.common.files import sha256_file
from fashionrec.config import Config, load_config
from fashionrec.store import generations
from fashionrec.store.manifest import IndexEntry
from fashionrec.store.vectors import VECTORS, dtype_of, write_vectors

Build = Callable[..., Any]


def configured(*sets: str) -> Config:
    return load_config(sets=sets, env={}).config


@pytest.fixture
def many(tmp_path: Path, build: Build) -> Path:
    """A catalogue of 150 garments."""
    for n in range(75):
        two_halves(tmp_path / "p" / f"{n}.png", f"rgb(255,{3 * n},0)", f"rgb(0,{3 * n},255)", (60, 40))
    build(tmp_path / "p", tmp_path / "many")
    return tmp_path / "many"


def index_of(root: Path) -> IndexEntry:
    index = generations.read_current(root).manifest.index
    assert index is not None
    return index


def answers(root: Path, photos: list[Path]) -> list[list[tuple[str, float]]]:
    with Catalogue.open(root) as opened:
        return [
            [(hit.item.item_id, round(hit.score, 2)) for found in opened.search(photo).garments for hit in found.hits]
            for photo in photos
        ]


def test_a_new_index_serves_the_same_items_and_embeds_nothing(many: Path, tmp_path: Path) -> None:
    photos = [tmp_path / "p" / f"{n}.png" for n in (0, 30, 74)]
    before = answers(many, photos)
    served = generations.read_current(many)
    said: list[str] = []
    entry = reindex_catalogue(many, configured("index.type=ivf", "index.recall=0.5"), log=said.append)
    assert entry["kind"] == "ivf"
    assert entry["segments_converted"] == 0
    assert any("ivf" in line for line in said)
    now = generations.read_current(many)
    assert (now.name, now.manifest.parent) == (entry["generation"], served.name)
    assert now.manifest.segments == served.manifest.segments
    assert f"{entry['path']}/index.faiss" in now.manifest.files
    now.check(contents=True)
    with Catalogue.open(many) as opened:
        assert opened.images.index is not None
        assert opened.images.index.kind == "ivf"
    for found, exact in zip(answers(many, photos), before, strict=True):  # half of what is near is asked for above
        assert len(found) == len(exact)
        assert found[0] == exact[0]  # the photo itself
        assert len({name for name, _ in found} & {name for name, _ in exact}) >= len(exact) / 2
    generations.roll_back(many)
    with Catalogue.open(many) as opened:
        assert opened.images.index is None
    assert answers(many, photos) == before


def test_the_table_says_what_was_taken_and_what_was_wrong_with_the_rest(
    catalogue: Path, cli: Callable[..., Result]
) -> None:
    taken = cli("catalogue", "reindex", catalogue, "--set", "index.vectors=float16").out.splitlines()
    cells = [list(re.finditer(r"\S+( \S+)*", line)) for line in taken[:2]]
    assert [cell[0] for cell in cells[0]] == ["tried", "MiB", "recall@10", "p50 ms", "p95 ms", "made in s"]
    assert [cell.end() for cell in cells[0][1:6]] == [cell.end() for cell in cells[1][1:6]]  # numbers, to the right
    assert re.fullmatch(r"flat +0\.0 +1\.0000 +\d+\.\d\d +\d+\.\d\d +0\.0 +taken", taken[1])
    assert re.fullmatch(r"8 vectors \(float16\), recall@10 1\.000, \d+\.\d\d ms a query \(95 %: \d+\.\d\d\)", taken[-2])
    assert taken[-1] == "recall@10 of float16 against float32: 1.0000"
    rejected = cli("catalogue", "reindex", catalogue, "--max-latency-ms", "1e-9").out
    assert re.search(r"^flat .*  a query takes \d+\.\d\d ms, more than 1e-09 ms$", rejected, re.MULTILINE)
    assert "index: exact, since no index reaches recall@10 of 0.99 within 1e-09 ms (flat: a query takes" in rejected


def test_an_index_that_no_generation_needs_is_removed(many: Path) -> None:
    for _ in range(4):
        reindex_catalogue(many, configured("index.type=ivf", "index.recall=0.5"))
    assert len(list((many / "indexes").iterdir())) <= generations.KEEP


def test_compaction_leaves_half_floats_as_they_are(many: Path) -> None:
    from fashionrec.catalogue.edit import compact_catalogue

    reindex_catalogue(many, configured(), vectors="float16")
    compact_catalogue(many, configured())
    with Catalogue.open(many) as opened:
        assert {dtype_of(index) for index in opened.images.indexes} == {"float16"}
        assert len(opened.images) == opened.counts["garments"]


def test_half_floats_and_back_keep_rows_thumbnails_and_captions(many: Path, tmp_path: Path) -> None:
    from fashionrec.captioner.job import caption_catalogue

    caption_catalogue(many, configured())
    photos = [tmp_path / "p" / f"{n}.png" for n in (0, 30, 74)]
    before = answers(many, photos)
    with Catalogue.open(many) as opened:
        full = opened.images.fetch(np.arange(len(opened.images)))
        stored = list(opened.items.everything())
        pictures = [opened.thumbnail(one) for one in stored]
    entry = reindex_catalogue(many, configured(), vectors="float16")
    assert entry["segments_converted"] >= 2
    assert entry["dtype"] == "float16"
    assert 0.9 <= entry["float16_recall_at_10"] <= 1
    now = generations.read_current(many)
    now.check(contents=True)
    assert all(one.float16_recall_at_10 for one in now.manifest.segments.values())
    with Catalogue.open(many) as opened:
        assert {dtype_of(one) for store in (opened.images, opened.captions) for one in store.indexes} == {"float16"}
        half = opened.images.fetch(np.arange(len(opened.images)))
        assert (half == full.astype(np.float16).astype(np.float32)).all()
        again = list(opened.items.everything())
        assert [opened.thumbnail(one) for one in again] == pictures
        assert [one.item.item_id for one in again] == [one.item.item_id for one in stored]
        assert [one.caption_at and one.caption_at[1] for one in again] == [
            one.caption_at and one.caption_at[1] for one in stored
        ]
    assert [hits[0] for hits in answers(many, photos)] == [hits[0] for hits in before]
    same = reindex_catalogue(many, configured())
    assert (same["dtype"], same["segments_converted"]) == ("float16", 0)
    assert same["float16_recall_at_10"] == entry["float16_recall_at_10"]
    whole = reindex_catalogue(many, configured(), vectors="float32")
    assert whole["dtype"] == "float32"
    assert "float16_recall_at_10" not in whole
    generations.read_current(many).check(contents=True)


def test_the_recall_of_half_floats_by_hand_where_many_are_nearly_the_same(tmp_path: Path, build: Build) -> None:
    """All vectors point one way, a little longer the better: half floats are all the same, and go
    by their rows.

    Rows 4 and 12 are asked about. The ten nearest to row 12 are rows 0 to 8 and 10, of which 0 to 8
    are among the ten of the half floats (0 to 9). To row 4 they are, without itself, 0 to 10 by
    both. The mean of .9 and 1 is .95.
    """
    for n in range(20):
        two_halves(tmp_path / "p" / f"{n:02d}.png", f"rgb({n},0,0)", "white", (16, 16))
    root = tmp_path / "c"
    build(tmp_path / "p", root, detect=False)
    ((name, entry),) = generations.read_current(root).manifest.segments.items()
    best_first = [*range(9), 10, 9, *range(11, 20)]
    vectors = np.zeros((20, entry.dim), np.float32)
    vectors[best_first, 0] = 1 + np.arange(19, -1, -1) / 2**16
    path = root / "segments" / name / VECTORS
    write_vectors(path, vectors)
    manifest = root / "generations" / "000001" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"][path.relative_to(root).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    manifest.write_text(json.dumps(document))
    pointer = root / "catalogue.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"manifest_sha256": sha256_file(manifest)}))
    assert reindex_catalogue(root, configured(), vectors="float16")["float16_recall_at_10"] == 0.95


def test_one_vector_has_nothing_to_be_mistaken_for_and_what_is_halved_stays(tmp_path: Path, build: Build) -> None:
    two_halves(tmp_path / "p" / "a.png", "red", "white")
    root = tmp_path / "c"
    build(tmp_path / "p", root, detect=False)
    for number, converted in (("000002", 1), ("000003", 0)):
        found = reindex_catalogue(root, configured(), vectors="float16")
        assert (found["generation"], found["segments_converted"], found["dtype"]) == (number, converted, "float16")
        assert found["float16_recall_at_10"] == 1.0


def test_a_disk_that_is_full_leaves_what_was_served(many: Path) -> None:
    from fashionrec.errors import WriteError

    def full(text: str) -> None:
        if text.endswith("vectors to float16"):  # said before they are written
            raise OSError(28, "No space left on device")

    served = generations.read_current(many)
    with pytest.raises(WriteError, match="No space left"):
        reindex_catalogue(many, configured(), vectors="float16", log=full)
    assert generations.read_current(many).name == served.name
    reindex_catalogue(many, configured())
    assert not [path for path in (many / "segments").iterdir() if not (path / VECTORS).exists()]


def test_an_index_lives_through_what_happens_to_a_catalogue(many: Path, tmp_path: Path, build: Build) -> None:
    from fashionrec.captioner.job import caption_catalogue
    from fashionrec.catalogue.edit import compact_catalogue, remove_products

    settings = configured("index.exact_below=0", "index.recall=0.5", "index.depth=100")
    assert reindex_catalogue(many, settings)["kind"] == "ivf"
    first = index_of(many)
    for n in range(4):
        two_halves(tmp_path / "p" / f"new{n}.png", f"rgb(255,{3 * n},9)", f"rgb(9,{3 * n},255)", (60, 40))
    build(tmp_path / "p", many, settings=settings)
    grown = index_of(many)
    assert (grown.path, grown.vectors) == (first.path, first.vectors + 8)
    new = [tmp_path / "p" / f"new{n}.png" for n in range(4)]
    with Catalogue.open(many, settings) as opened:
        for photo in new:
            (found,) = opened.search(photo, garment="top").garments
            assert (found.hits[0].item.product_id, round(found.hits[0].score, 3)) == (photo.name, 1.0)
    caption_catalogue(many, settings)
    worded = index_of(many)
    assert worded.path == first.path
    assert worded.text_recall_at_10 is not None
    remove_products(many, ["new0.png", "0.png"], settings)
    compact_catalogue(many, settings)
    compacted = index_of(many)
    assert compacted.path not in (None, first.path)
    assert compacted.vectors == first.vectors + 4
    generations.read_current(many).check(contents=True)
    with Catalogue.open(many, settings) as opened:
        assert opened.images.index is not None
        assert {hit.item.product_id for found in opened.search(new[0]).garments for hit in found.hits}.isdisjoint(
            {"new0.png"}
        )
        assert opened.search(new[1], garment="top").garments[0].hits[0].item.product_id == "new1.png"
