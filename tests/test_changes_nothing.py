"""Test what a build, an update, an addition or a removal costs where little or nothing differs: not
the catalogue.
"""

from __future__ import annotations

import cProfile
import hashlib
import json
import os
import pstats
import random
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from conftest import TINY, two_halves

from fashionrec.catalogue.build.build import build_catalogue
from fashionrec.catalogue.build.work import Recipe
from fashionrec.catalogue.catalogue import verify_catalogue
from fashionrec.catalogue.edit import add_products, remove_products, update_products
from fashionrec.common.files import sha256_file
from fashionrec.config import Config
from fashionrec.errors import DataError
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import read_products
from fashionrec.store import generations
from fashionrec.store.assemble import item_id
from fashionrec.store.content import GarmentRow, PhotoRow
from fashionrec.store.item_writer import product_words
from fashionrec.store.items import ItemReader
from fashionrec.store.writer import GenerationWriter
from fashionrec.types import Box

COUNT, COLUMNS = 400, 30
T = TypeVar("T")


@pytest.fixture
def recipe(config: Config) -> Recipe:
    return Recipe(Bundle.open(TINY / "detector", "detector"), Bundle.open(TINY / "embedder", "embedder"), config)


@pytest.fixture
def drawn(recipe: Recipe, tmp_path: Path) -> Path:
    """The table of a catalogue ``c`` beside it, which was built of it, as far as anybody can see.

    Two rows a product.
    """
    rng, lines = random.Random(0), []
    (tmp_path / "photos").mkdir()
    for n in range(COUNT):
        path = tmp_path / "photos" / f"{n:04d}.jpg"
        path.write_bytes(b"photo %d" % n)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        data = {f"column {k}": f"{rng.random()}" if k % 2 else rng.randrange(10**6) for k in range(COLUMNS)}
        lines.append({"image": f"photos/{n:04d}.jpg", "product_id": f"p{n // 2}", "price": n, **data})
    table = tmp_path / "products.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    vector = np.eye(1, int(recipe.embedder.spec["dim"]), dtype=np.float32)[0].tobytes()
    root = tmp_path / "c"
    with generations.writer_lock(root), GenerationWriter(root, recipe.config.index) as writer:
        segment = writer.new_segment("image", recipe.embedder.fingerprint, int(recipe.embedder.spec["dim"]))
        for n, row in enumerate(read_products(table)):
            digest = hashlib.sha256(b"photo %d" % n).hexdigest()
            place = segment.name, *segment.add(vector, b"\xff\xd8"), 2
            garment = GarmentRow(0, "top", 0.9, Box(0, 0, 20, 30), False, *place)
            (number,) = writer.items.add_photo(PhotoRow(digest, 200, 300, recipe.key, (garment,)))
            entry = writer.items.add_entry(row.image, str(tmp_path), row.product_id, digest, row.metadata)
            words = product_words(row.metadata)
            writer.items.add_item(item_id(row.product_id, digest, garment), entry, number, row.product_id, False, words)
        bundles = [bundle for bundle in (recipe.detector, recipe.embedder) if bundle]
        writer.commit("build", {}, bundles=bundles, photos_from=str(table), settings=recipe.settings)
    return table


def counted(act: Callable[[], T]) -> tuple[T, int]:
    """Return what a call gave, and of how many rows it read the data: thirty columns of JSON."""
    profile = cProfile.Profile()
    given = profile.runcall(act)
    calls: dict[tuple[str, int, str], tuple[int, int]] = vars(pstats.Stats(profile))["stats"]
    return given, sum(called[1] for (_, _, name), called in calls.items() if name == "parse_table")


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Return what lies in a catalogue, and when it was written: but the report of the last build,
    and its work.
    """
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.parent not in (root, root / "work")
    }


def test_an_update_looks_at_the_products_that_it_names(drawn: Path, config: Config) -> None:
    root = drawn.parent / "c"
    before = generations.read_current(root)
    _, read = counted(lambda: update_products(root, [{"product_id": "p0", "price": 1}], config))
    served = generations.read_current(root)
    assert served.items_path.samefile(before.items_path)
    assert served.changes_path is not None
    assert (before.changes_path, served.changes_path.name) == (None, "changes.sqlite")
    assert served.manifest.files[f"generations/{served.name}/items.sqlite"].sha256 == sha256_file(served.items_path)
    verify_catalogue(root)
    assert 2 <= read <= 8  # it has two rows, and the changes are packed
    before, served = files(root), generations.read_current(root).name
    again = [{"product_id": "p0", "price": 1}, {"product_id": "no"}]
    (report, unknown), read = counted(lambda: update_products(root, again, config))
    assert read == 2
    assert (report.unchanged, report.generation, unknown) == (True, served, ["no"])
    assert files(root) == before
    assert report.entries == {"added": 0, "changed": 0, "replaced": 0, "removed": 0, "kept": COUNT, "photos_removed": 0}
    told = (report.rows, report.photos, report.reused, report.items, report.products, report.embedded)
    assert told == (COUNT, COUNT, COUNT, COUNT, COUNT // 2, 0)
    report, _ = update_products(root, [{"product_id": "p0", "image": "photos/0001.jpg", "price": 7}], config)
    assert (report.entries["changed"], report.entries["kept"], report.unchanged) == (1, COUNT - 1, False)
    served = generations.read_current(root)
    items = ItemReader(served.items_path, served.changes_path)
    prices = {entry.image: entry.metadata["price"] for entry in items.entries()}
    assert prices == {f"photos/{n:04d}.jpg": n for n in range(COUNT)} | {"photos/0000.jpg": 1, "photos/0001.jpg": 7}


def test_what_is_added_again_changes_nothing(drawn: Path, config: Config) -> None:
    root = drawn.parent / "c"
    some = drawn.with_name("some.jsonl")
    some.write_text("".join(line + "\n" for line in drawn.read_text().splitlines()[:3]))
    rows = read_products(some)
    add_products(root, rows, config, source=str(some))
    before = files(root)
    report, read = counted(lambda: add_products(root, rows, config, source=str(some)))
    assert (report.unchanged, read) == (True, 0)
    assert files(root) == before
    assert (report.rows, report.photos, report.reused, report.added, report.removed) == (COUNT, COUNT, COUNT, 0, 0)


def test_one_photo_more(drawn: Path, config: Config, tmp_path: Path) -> None:
    root = drawn.parent / "c"
    two_halves(tmp_path / "more" / "x.png", "red", "white")
    report = add_products(root, read_products(tmp_path / "more"), config, source=str(tmp_path / "more"))
    assert (report.rows, report.photos, report.reused, report.embedded) == (COUNT + 1, COUNT + 1, COUNT, 1)
    assert (report.added, report.removed, report.products) == (1, 0, COUNT // 2 + 1)
    assert (report.entries["added"], report.entries["kept"]) == (1, COUNT)
    assert report.index is not None
    assert report.index.measured_on == {"image": COUNT, "caption": 0}
    two_halves(tmp_path / "more" / "x.png", "red", "black")
    report = add_products(root, read_products(tmp_path / "more"), config, source=str(tmp_path / "more"))
    assert (report.rows, report.photos, report.reused, report.embedded) == (COUNT + 1, COUNT + 1, COUNT, 1)
    assert {name: report.entries[name] for name in ("added", "replaced", "kept", "photos_removed")} == {
        **{"added": 0, "replaced": 1, "kept": COUNT, "photos_removed": 1},
    }


def test_a_photo_that_another_row_shows_is_not_looked_at_again(drawn: Path, config: Config, tmp_path: Path) -> None:
    """Whatever models and settings found its garments: the items of the other row refer to them."""
    root = drawn.parent / "c"
    with closing(sqlite3.connect(generations.read_current(root).items_path)) as db, db:
        db.execute("UPDATE photos SET build_key = 'of other settings' || substr(build_key, 18)")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(b"photo 5")  # it could not be decoded
    report = add_products(root, read_products(tmp_path / "more"), config, source=str(tmp_path / "more"))
    assert (report.embedded, report.failures, report.reused, report.photos) == (0, [], COUNT, COUNT)
    served = generations.read_current(root)
    items = ItemReader(served.items_path, served.changes_path)
    assert len({stored.garment_no for stored in items.everything()}) == COUNT
    assert len(list(items.everything())) == COUNT + 1


def test_a_removal_looks_at_what_goes(drawn: Path, config: Config) -> None:
    root = drawn.parent / "c"
    with pytest.raises(DataError, match="none of 1 product exists"):
        remove_products(root, ["nobody"], config)
    before = files(root)
    with pytest.raises(DataError, match="would remove everything"):
        remove_products(root, [f"p{n}" for n in range(COUNT // 2)], config)
    assert files(root) == before
    (report, unknown), read = counted(lambda: remove_products(root, ["p3", "nobody"], config))
    assert read <= 8
    assert (report.rows, report.photos, report.reused, report.removed) == (COUNT - 2, COUNT - 2, COUNT - 2, 1)
    assert (report.entries["removed"], report.entries["photos_removed"], unknown) == (2, 2, ["nobody"])


@pytest.mark.parametrize("change", ["none", "order of rows", "order of columns"])
def test_a_build_of_the_same_rows_changes_nothing(change: str, drawn: Path, recipe: Recipe) -> None:
    root = drawn.parent / "c"
    lines = [json.loads(line) for line in drawn.read_text().splitlines()]
    if change == "order of rows":
        lines.reverse()
    if change == "order of columns":
        lines = [dict(reversed(line.items())) for line in lines]
    drawn.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def build() -> Any:
        return build_catalogue(
            rows, root, detector_bundle=recipe.detector, embedder_bundle=recipe.embedder, config=recipe.config,
            source=str(drawn),
        )  # fmt: skip

    rows = read_products(drawn)
    assert build().hashed == COUNT
    before = files(root)
    report, read = counted(build)
    assert read == (COUNT if change == "order of columns" else 0)  # compared as texts first
    assert (report.unchanged, report.hashed, report.entries["kept"]) == (True, 0, COUNT)
    assert files(root) == before


@pytest.mark.skipif(sys.platform != "linux", reason="bytes are counted by /proc")
def test_nothing_is_written_but_the_report(drawn: Path, config: Config) -> None:
    def written() -> int:
        return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["wchar"])

    root = drawn.parent / "c"
    calls: list[Callable[[], Any]] = [
        lambda: update_products(root, [{"product_id": "p0", "price": 0, "column 0": None}], config),
        lambda: update_products(root, [{"product_id": "p0", "price": 0}], config),
    ]
    calls[0]()
    calls[1]()
    before = written()
    calls[1]()
    assert written() - before < 100_000
