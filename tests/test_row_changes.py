"""Test what differs between two generations, row by row; what is kept of a photo that is looked at
again; other data of products.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, two_halves
from tampered import Ask, Inputs, tampered

from fashionrec import Catalogue
from fashionrec.captioner.job import caption_catalogue
from fashionrec.catalogue.build.changes import RowChanges, Wanted, find_changes, read_entry
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.catalogue.edit import add_products, entries, update_products
from fashionrec.config import Config
from fashionrec.errors import DataError
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.products.tables import read_products
from fashionrec.store import generations
from fashionrec.store.content import EntryRow, EntryText

Build = Callable[..., BuildReport]


def old(number: int, image: str, product: str, photo: str, metadata: str = "{}", base: str = "shop") -> EntryText:
    return EntryText(number, image, base, product, photo, metadata)


def new(image: str, product: str, photo: str, base: str = "shop", **metadata: Any) -> Wanted:
    return Wanted(image, base, product, photo, metadata)


def test_rows_are_told_apart_by_image_and_product() -> None:
    before = [
        old(1, "a.jpg", "A", "1"),
        old(2, "a.jpg", "B", "1"),  # another product of the photo, which goes
        old(3, "b.jpg", "A", "2", '{"price": 1}'),
        old(4, "c.jpg", "A", "3", '{"price":1,  "title": "x"}'),  # another text, the same data
        old(5, "d.jpg", "A", "4"),
        old(6, "e.jpg", "A", "5"),
        old(7, "f.jpg", "A", "6"),
        old(8, "g.jpg", "A", "7"),
    ]
    rows = [
        new("new.jpg", "A", "9"),
        new("f.jpg", "A", "6"),  # its photo is found anew
        new("e.jpg", "A", "6"),  # another photo
        new("d.jpg", "A", "4", base="moved"),
        new("c.jpg", "A", "3", title="x", price=1),
        new("b.jpg", "A", "2", price=2),
        new("a.jpg", "A", "1"),
        new("a.jpg", "C", "1"),
    ]
    found = find_changes(before, {row.key: row for row in rows}, {"1", "2", "3", "4", "5", "7"})
    entries = [read_entry(one) for one in before]
    assert found == RowChanges(
        added=[rows[0], rows[1], rows[2], rows[7]],
        changed=[(entries[4], rows[3]), (entries[2], rows[5])],
        removed=[entries[6], entries[5], entries[1], entries[7]],  # replaced ones in the order of the rows
        replaced=2,
        kept=2,
    )
    assert found.counts() == {
        "added": 2, "changed": 2, "replaced": 2, "removed": 2, "kept": 2, "photos_removed": 0,
    }  # fmt: skip
    assert entries[2] == EntryRow(3, "b.jpg", "shop", "A", "2", {"price": 1})


def test_whether_anything_differs() -> None:
    row, entry = new("a.jpg", "A", "1"), read_entry(old(1, "a.jpg", "A", "1"))
    assert not RowChanges(kept=3)
    assert RowChanges(added=[row])
    assert RowChanges(changed=[(entry, row)])
    assert RowChanges(removed=[entry])
    assert find_changes([], {}, set()).counts() == dict.fromkeys(
        ("added", "changed", "replaced", "removed", "kept", "photos_removed"), 0
    )


# -- photos that are looked at again


def other_encoder(folder: Path) -> Bundle:
    """The same vectors by another name: of another temperature."""
    tiny = Bundle.open(TINY / "embedder")
    files = {name: tiny.path / name for name in tiny.files}
    spec = {**tiny.spec, "logit_scale": tiny.spec["logit_scale"] + 1}
    return write_bundle(
        folder, kind="embedder", name="other", graphs=tiny.graphs, spec=spec, source={}, agreement={}, files=files
    )


def changed(config: Config, section: str, **values: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def test_crops_are_known_where_they_were_cut_and_kept_alike(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    root = tmp_path / "c"
    build(photos, root)
    strict = changed(config, "detector", conf=0.3)
    steps: list[tuple[Config, dict[str, Any], int]] = [
        (strict, {}, 8),
        (changed(strict, "build", thumbnail=64), {}, 0),
        (changed(changed(strict, "build", thumbnail=64), "detector", conf=0.31), {}, 8),
        (changed(strict, "images", scaled_decoding="never"), {}, 0),
        (changed(strict, "images", scaled_decoding="never"), {"embedder_bundle": other_encoder(tmp_path / "other")}, 0),
    ]
    for settings, options, known in steps:
        report = build(photos, root, settings=settings, **options)
        assert (report.embedded, report.reused, report.crops_reused, report.unchanged) == (6, 0, known, False)


def moved(bundle: Bundle, pixels: float) -> Bundle:
    """A detector whose boxes lie further to the right."""

    def change(graph: str, inputs: Inputs, ask: Ask) -> list[np.ndarray]:
        (found,) = ask(inputs)
        found = np.array(found)
        found[:, 0] += pixels
        return [found]

    return tampered(bundle, change)


@pytest.mark.parametrize(("pixels", "stay"), [(0.5, True), (4.0, False)])
def test_a_caption_stays_with_a_garment_that_is_seen_in_nearly_the_same_box(
    pixels: float, stay: bool, build: Build, tmp_path: Path, config: Config
) -> None:
    """By hand: of 64 pixels of a photo the top is 32 wide: it moves by 1/64 or by 1/8 of that,
    which overlaps by 97 or 78 %.
    """
    root = tmp_path / "c"
    two_halves(tmp_path / "p" / "a.png", "red", "blue", (64, 64))
    build(tmp_path / "p", root)
    caption_catalogue(root, config)

    def told() -> dict[str | None, tuple[dict[str, str] | None, tuple[float, ...]]]:
        with Catalogue.open(root) as catalogue:
            return {one.item.class_name: (one.captions, tuple(one.item.box)) for one in catalogue.items.everything()}

    before = told()
    assert before.keys() == {"top", "pants"}
    assert all(captions for captions, _ in before.values())
    again = changed(config, "detector", conf=0.3)
    report = build(tmp_path / "p", root, settings=again, detector_bundle=moved(Bundle.open(TINY / "detector"), pixels))
    assert report.embedded == 1
    after = told()
    assert after["top"][1] != before["top"][1]
    assert (after["top"][0] == before["top"][0]) is stay
    assert bool(after["top"][0]) is stay


def test_captions_of_another_encoder_are_not_kept(photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    """Their vectors could not be compared."""
    root = tmp_path / "c"
    build(photos, root)
    caption_catalogue(root, config)
    assert generations.read_current(root).manifest.counts["captions"] == 8
    build(photos, root, embedder_bundle=other_encoder(tmp_path / "other"))
    assert generations.read_current(root).manifest.counts["captions"] == 0


# -- how far it is


def test_a_build_tells_garments_and_failures_so_far(photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    ticks: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, *, detail: str = "") -> None:
        ticks.append((done, total, detail))

    (photos / "empty.jpg").touch()  # fails when it is hashed
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no photo")  # and this one when it is decoded
    report = build(photos, tmp_path / "c", progress=progress)
    assert (ticks[0], ticks[-1]) == ((0, 7, ""), (7, 7, "8 garments, 2 failed"))
    assert (report.rows, report.hashed, report.photos, report.embedded, report.garments) == (8, 7, 7, 6, 8)
    assert sorted((one["image"], one["product_id"], one["reason"]) for one in report.failures) == [
        ("broken.jpg", "broken.jpg", "not-an-image"),
        ("empty.jpg", "empty.jpg", "empty"),
    ]
    ticks.clear()
    two_halves(tmp_path / "more" / "x.png", "red", "white")
    report = add_products(
        tmp_path / "c", read_products(tmp_path / "more"), config, source=str(tmp_path / "more"), progress=progress
    )
    assert (ticks[0], ticks[-1]) == ((6, 7, ""), (7, 7, "1 garment, 0 failed"))
    assert generations.read_current(tmp_path / "c").manifest.photos_from == str(tmp_path / "more")


def test_a_file_that_is_no_utf8_name_is_a_failed_row(photos: Path, build: Build, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        two_halves(photos / name, "red", "white")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    report = build(photos, tmp_path / "c")
    assert [failure["reason"] for failure in report.failures] == ["name"]
    assert report.products == 6


# -- other data of products


def test_records_are_for_a_product_or_for_one_of_its_rows(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    rows = [
        {"image": "photos/red-blue.jpg", "product_id": "a", "title": "shirt", "price": 1},
        {"image": "photos/red-white.jpg", "product_id": "a", "title": "shirt", "price": 1},
        {"image": "photos/green.jpg", "product_id": "7", "title": "bag", "price": 2},
        {"image": "photos/grey.jpg", "product_id": "c", "title": "hat"},
    ]
    root = tmp_path / "c"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "t.jsonl", root)
    records: list[dict[str, Any]] = [
        {"product_id": " a ", "price": 5, "size": "M"},
        {"product_id": "a", "image": " photos/red-blue.jpg ", "price": 6, "title": None},
        {"product_id": "a", "image": "", "stock": 3},
        {"product_id": "a", "size": "L"},  # a later record of the same product
        {"product_id": 7, "price": 2},
        {"product_id": "c", "image": "photos/elsewhere.jpg", "price": 9},
        {"product_id": "z", "price": 9},
    ]
    report, unknown = update_products(root, records, config)
    assert unknown == ["c", "z"]
    assert report.entries == {"added": 0, "changed": 2, "replaced": 0, "removed": 0, "kept": 2, "photos_removed": 0}
    assert {(row.image, row.product_id): row.metadata for row in entries(root)} == {
        ("photos/red-blue.jpg", "a"): {"price": 6, "size": "L", "stock": 3},
        ("photos/red-white.jpg", "a"): {"title": "shirt", "price": 5, "size": "L", "stock": 3},
        ("photos/green.jpg", "7"): {"title": "bag", "price": 2},
        ("photos/grey.jpg", "c"): {"title": "hat"},
    }
    assert generations.read_current(root).manifest.photos_from == str(tmp_path / "t.jsonl")
    for record in ({"price": 1}, {"product_id": None}, {"product_id": "  "}):
        with pytest.raises(DataError, match="a record has no product_id"):
            update_products(root, [record], config)
    with pytest.raises(DataError, match=r"none of 2 products exists in"):
        update_products(root, [{"product_id": "y"}, {"product_id": "z"}, {"product_id": "z", "image": "i"}], config)
