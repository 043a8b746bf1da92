"""The writer of generations: a commit serves all of one, and nothing else leaves a file behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.config import Config
from fashionrec.errors import Busy, CatalogueError, WriteError
from fashionrec.models.bundle import Bundle
from fashionrec.store import generations
from fashionrec.store.content import GarmentRow, PhotoRow
from fashionrec.store.index_kinds import LEAST
from fashionrec.store.manifest import CatalogueSettings, SegmentEntry
from fashionrec.store.vectors import VECTORS
from fashionrec.store.writer import GenerationWriter, next_generation
from fashionrec.types import Box

TINY = Path(__file__).parent / "data" / "tiny"


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != ".lock"}


def folders(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}


def change(writer: GenerationWriter) -> None:
    """A new photo of a new product, with a vector; and the first row taken away."""
    entry = next(iter(writer.segments.values()))
    segment = writer.new_segment("image", entry.embedder, entry.dim)
    row, offset = segment.add(bytes(4 * entry.dim), b"a thumbnail")
    garment = GarmentRow(0, "top", 0.9, Box(0, 0, 10, 20), False, segment.name, row, offset, 11)
    (number,) = writer.items.add_photo(PhotoRow("ab" * 32, 10, 20, "key", (garment,)))
    no = writer.items.add_entry("new.png", "", "new", "ab" * 32, {})
    writer.items.add_item("new", no, number, "new", False, "")
    writer.items.remove_entry(1)
    assert (writer.root / "segments" / segment.name).is_dir()


def test_a_commit_serves_the_changes_on_top_of_what_was_there(catalogue: Path, config: Config) -> None:
    before = generations.read_current(catalogue)
    with next_generation(catalogue, config.index) as writer:
        change(writer)
        served = writer.commit("test", {"generation": writer.name})
    assert (served.name, served.manifest.parent, served.manifest.made_by) == ("000002", before.name, "test")
    assert set(served.manifest.segments) == {*before.manifest.segments, "000002-image"}
    assert served.manifest.counts["products"] == before.manifest.counts["products"]
    assert served.manifest.index is not None
    assert before.manifest.index is not None
    assert served.manifest.index.vectors == before.manifest.index.vectors + 1
    served.check(contents=True)
    with Catalogue.open(catalogue, config) as opened:
        assert "new" in {stored.item.product_id for stored in opened.items.everything()}


@pytest.mark.parametrize("end", ["without a commit", "an error", "an index made", "an interruption"])
def test_what_is_not_committed_leaves_nothing(catalogue: Path, config: Config, end: str) -> None:
    before, there = files(catalogue), folders(catalogue)

    def write() -> None:
        with next_generation(catalogue, config.index) as writer:
            change(writer)
            if end == "an error":
                raise OSError(28, "No space left on device")
            if end == "an interruption":
                raise KeyboardInterrupt
            if end == "an index made":
                writer.make_index()

    if end == "an error":
        with pytest.raises(WriteError, match="No space left"):
            write()
    elif end == "an interruption":
        with pytest.raises(KeyboardInterrupt):
            write()
    else:
        write()
    assert files(catalogue) == before
    assert folders(catalogue) == there
    with next_generation(catalogue, config.index) as writer:
        assert writer.name == "000002"


def test_an_index_that_was_begun_goes_with_its_generation(catalogue: Path, config: Config) -> None:
    before, there = files(catalogue), folders(catalogue)
    settings = config.index.model_copy(update={"type": "ivf", "queries": 10, "depth": 10})

    def write() -> None:
        with next_generation(catalogue, settings) as writer:
            change(writer)
            entry = next(iter(writer.segments.values()))
            more = np.random.default_rng(0).normal(size=(LEAST, entry.dim)).astype(np.float32)
            name = writer.write_segment("more", more, SegmentEntry("image", LEAST, entry.dim, entry.embedder))
            garment = GarmentRow(0, "top", 0.9, Box(0, 0, 10, 20), False, name, 0, 0, 11)
            (number,) = writer.items.add_photo(PhotoRow("cd" * 32, 10, 20, "key", (garment,)))
            entry_no = writer.items.add_entry("more.png", "", "more", "cd" * 32, {})
            writer.items.add_item("more", entry_no, number, "more", False, "")
            assert writer.make_index().path == "indexes/000002"
            assert (catalogue / "indexes" / "000002").is_dir()
            raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="No space left"):
        write()
    assert files(catalogue) == before
    assert folders(catalogue) - there <= {"indexes"}


def test_without_a_change_items_and_vectors_are_those_of_before(catalogue: Path, config: Config) -> None:
    before = generations.read_current(catalogue)
    with next_generation(catalogue, config.index) as writer:
        served = writer.commit("test", {})
    assert served.items_path.read_bytes() == before.items_path.read_bytes()
    assert served.manifest.segments == before.manifest.segments


def test_a_segment_that_no_item_refers_to_is_left_out(catalogue: Path, config: Config) -> None:
    with next_generation(catalogue, config.index) as writer:
        change(writer)
        for number in range(1, 8):
            writer.items.remove_entry(number)
        writer.items.add_entry("new.png", "", "newer", "ab" * 32, {})
        writer.items.remove_photos_without_entries()
        served = writer.commit("test", {})
    assert set(served.manifest.segments) == {"000002-image"}


def test_a_first_generation_without_a_catalogue_before(tmp_path: Path, config: Config) -> None:
    bundle = Bundle.open(TINY / "embedder")
    with generations.writer_lock(tmp_path / "c"), GenerationWriter(tmp_path / "c", config.index) as writer:
        writer.segments["of"] = SegmentEntry("image", 0, int(bundle.spec["dim"]), bundle.fingerprint)
        change(writer)
        shape = {"settings": CatalogueSettings(build_key=""), "versions": {}, "photos_from": ""}
        served = writer.commit("test", {}, bundles=[bundle], **shape)
    assert (served.name, served.manifest.parent) == ("000001", None)
    assert set(served.manifest.segments) == {"000001-image"}
    assert (tmp_path / "c" / "segments" / "000001-image" / VECTORS).is_file()
    served.check(contents=True)


def test_there_is_no_next_generation_of_nothing_and_one_writer_at_a_time(catalogue: Path, config: Config) -> None:
    with pytest.raises(CatalogueError, match="no catalogue"), next_generation(catalogue / "x", config.index):
        pass
    assert not (catalogue / "x").exists()
    with next_generation(catalogue, config.index), pytest.raises(Busy), next_generation(catalogue, config.index):
        pass
