"""Building: what becomes of each row, incremental growth, a kill half-way, guards."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, two_halves
from PIL import Image

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError, Refused
from fashionrec.store import generations
from fashionrec.store.items import ItemReader

Build = Callable[..., BuildReport]


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def item_ids(root: Path) -> set[str]:
    with Catalogue.open(root) as catalogue:
        return {stored.item.item_id for stored in catalogue.items.everything()}


def test_every_garment_of_every_photo_becomes_an_item(photos: Path, build: Build, tmp_path: Path) -> None:
    report = build(photos, tmp_path / "c")
    assert (report.photos, report.garments, report.items) == (6, 8, 8)
    assert report.without_detection == 2  # green and grey, indexed whole
    assert report.failures == []
    with Catalogue.open(tmp_path / "c") as catalogue:
        found = {(s.item.image, s.item.class_name, s.whole_photo) for s in catalogue.items.everything()}
        assert ("red-blue.jpg", "top", False) in found
        assert ("red-blue.jpg", "pants", False) in found
        assert ("green.jpg", None, True) in found
        assert len(catalogue.images) == 8
        assert catalogue.counts["products"] == 6
        for stored in catalogue.items.everything():
            assert catalogue.thumbnail(stored)[:2] == b"\xff\xd8"


def test_without_whole_photos_undetected_ones_are_left_out(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    settings = config.model_copy(update={"build": config.build.model_copy(update={"whole_photo": False})})
    assert build(photos, tmp_path / "c", settings=settings).items == 6
    with Catalogue.open(tmp_path / "c") as catalogue:
        for name in {stored.item.image for stored in catalogue.items.everything()}:
            (photos / name).unlink()
    with pytest.raises(DataError) as caught:
        build(photos, tmp_path / "d", settings=settings)
    assert str(caught.value) == "no garment was found in any photo"
    assert caught.value.hint == "set build.whole_photo=true, or lower detector.conf"


def test_the_garment_of_the_products_category_is_its_item_and_the_others_are_worn_with_it(
    photos: Path, build: Build, tmp_path: Path
) -> None:
    rows = [
        {"image": "photos/red-blue.jpg", "product_id": "jeans", "category": "pants", "price": 39000},
        {"image": "photos/red-white.jpg", "product_id": "shirt", "category": "top", "price": 20000},
    ]
    report = build(table(tmp_path / "p.csv", rows), tmp_path / "c")
    assert (report.items, report.products) == (2, 2)
    with Catalogue.open(tmp_path / "c") as catalogue:
        roles = {(s.item.product_id, s.item.class_name, s.worn_with) for s in catalogue.items.everything()}
        assert roles == {("jeans", "pants", False), ("jeans", "top", True), ("shirt", "top", False)}
        answer = catalogue.search(photos / "red-white.jpg", k=5)
        assert [hit.item.product_id for hit in answer.garments[0].hits] == ["shirt", "jeans"]
        assert answer.garments[0].hits[1].item.class_name == "pants"  # the worn top is not returned as the jeans


def test_unreadable_photos_are_rows_of_the_report_and_never_the_end(photos: Path, build: Build, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 this is no jpeg")
    (photos / "empty.png").touch()
    rows = [{"image": f"photos/{p.name}", "product_id": p.stem} for p in sorted(photos.iterdir())]
    rows += [{"image": "photos/none.jpg", "product_id": "none"}, {"image": "", "product_id": "blank"}]
    report = build(table(tmp_path / "p.csv", rows), tmp_path / "c")
    reasons = {failure["product_id"]: failure["reason"] for failure in report.failures}
    assert reasons == {"broken": "not-an-image", "empty": "empty", "none": "missing", "blank": "not-a-file"}
    assert report.products == 6
    written = json.loads((tmp_path / "c" / "generations" / "000001" / "report.json").read_text())
    assert written["failed"] == 4
    assert written["failure_reasons"]["missing"] == 1


def test_a_folder_of_nothing_readable_is_an_error_and_nothing_is_served(build: Build, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_text("no")
    with pytest.raises(DataError, match="none of 1 photo is usable"):
        build(tmp_path / "p", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_second_build_embeds_only_what_is_new_and_ids_are_stable(photos: Path, build: Build, tmp_path: Path) -> None:
    root = tmp_path / "c"
    build(photos, root)
    before = item_ids(root)
    again = build(photos, root)
    assert (again.embedded, again.reused) == (0, 6)
    assert item_ids(root) == before
    two_halves(photos / "new.jpg", "red", "black")
    third = build(photos, root)
    assert (third.embedded, third.reused, third.added) == (1, 6, 1)
    assert item_ids(root) > before
    with Catalogue.open(root) as catalogue:
        catalogue.generation.check(contents=True)
        assert len(catalogue.generation.manifest.segments) == 2
        found = catalogue.search(photos / "new.jpg", k=1).garments[0].hits[0]
        assert found.item.image == "new.jpg"
        assert found.score == pytest.approx(1.0, abs=1e-5)


def test_changed_metadata_alone_embeds_nothing(photos: Path, build: Build, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"image": "photos/red-blue.jpg", "product_id": "a", "price": 1}]
    build(table(tmp_path / "p.csv", rows), tmp_path / "c")
    rows[0]["price"] = 2
    report = build(table(tmp_path / "p.csv", rows), tmp_path / "c")
    assert report.embedded == 0
    with Catalogue.open(tmp_path / "c") as catalogue:
        assert {s.item.metadata["price"] for s in catalogue.items.everything()} == {2}


def test_a_moved_photo_is_not_embedded_again_and_a_changed_one_is(photos: Path, build: Build, tmp_path: Path) -> None:
    build(photos, tmp_path / "c")
    (photos / "green.jpg").rename(photos / "moved.jpg")
    two_halves(photos / "grey.jpg", "red", "gray")
    report = build(photos, tmp_path / "c", max_delete=1.0)
    assert (report.embedded, report.reused, report.removed) == (1, 5, 1)


def test_other_settings_embed_everything_again(photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    build(photos, tmp_path / "c")
    settings = config.model_copy(update={"crop": config.crop.model_copy(update={"margin": 0.2})})
    assert build(photos, tmp_path / "c", settings=settings).embedded == 6


def test_a_build_that_would_drop_many_products_is_refused_and_changes_nothing(
    photos: Path, build: Build, tmp_path: Path
) -> None:
    build(photos, tmp_path / "c")
    for name in ("green.jpg", "grey.jpg"):
        (photos / name).unlink()
    with pytest.raises(Refused, match="2 of 6 products") as caught:
        build(photos, tmp_path / "c")
    assert caught.value.exit_code == 3
    assert generations.read_current(tmp_path / "c").name == "000001"
    assert build(photos, tmp_path / "c", max_delete=0.5).products == 4


def test_photos_that_are_none_any_more_do_not_empty_a_catalogue(photos: Path, build: Build, tmp_path: Path) -> None:
    """A server that answers every address with a page has files that are hashed, and fail only when
    they are decoded.
    """
    build(photos, tmp_path / "c")
    for name in ("green.jpg", "grey.jpg"):
        (photos / name).write_text(f"<html>{name}</html>")
    with pytest.raises(Refused, match="2 of 6 products") as caught:
        build(photos, tmp_path / "c")
    assert "2 rows without a usable photo, first: " in caught.value.hint
    assert generations.read_current(tmp_path / "c").name == "000001"
    report = build(photos, tmp_path / "c", max_delete=0.5)
    assert (report.products, report.removed, len(report.failures)) == (4, 2, 2)


def test_the_same_photo_under_two_products_is_embedded_once(photos: Path, build: Build, tmp_path: Path) -> None:
    rows = [{"image": "photos/red-white.jpg", "product_id": name} for name in ("a", "b", "b")]
    report = build(table(tmp_path / "p.csv", rows), tmp_path / "c")
    assert (report.embedded, report.items, report.duplicate_rows) == (1, 2, 1)
    with Catalogue.open(tmp_path / "c") as catalogue:
        assert {h.item.product_id for h in catalogue.search(photos / "red-white.jpg").garments[0].hits} == {"a", "b"}


def test_a_folder_that_holds_other_things_is_left_alone(photos: Path, build: Build, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.docx").touch()
    with pytest.raises(CatalogueError, match="not empty"):
        build(photos, tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["thesis.docx"]
    with pytest.raises(CatalogueError, match="not empty"):
        build(photos, tmp_path / "c" / "thesis.docx")
    assert (tmp_path / "c" / "thesis.docx").is_file()


def finished(journal: Path) -> int:
    """Photos that are committed to a journal, which another process writes."""
    try:
        db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
        try:
            return int(db.execute("SELECT count(*) FROM photos").fetchone()[0])
        finally:
            db.close()
    except sqlite3.Error:
        return 0


def test_a_first_build_killed_as_it_commits_goes_on(photos: Path, build: Build, tmp_path: Path) -> None:
    """The pointer was half-written when the power went: the folder is ours all the same."""
    build(photos, tmp_path / "c")
    (tmp_path / "c" / "catalogue.json").rename(tmp_path / "c" / ".catalogue.json.123.tmp")
    for name in ("report.json", "report.html", "builds.jsonl"):
        (tmp_path / "c" / name).unlink()
    assert build(photos, tmp_path / "c").products == 6
    assert not list((tmp_path / "c").glob(".*.tmp"))


def test_a_killed_build_goes_on_where_it_was_and_ends_the_same(build: Build, tmp_path: Path, config: Config) -> None:
    """A process is killed hard after its first checkpoints; the next build takes what was finished
    from the journal.
    """
    folder = tmp_path / "many"
    for n in range(300):
        shade = f"rgb({255 - n % 60}, {n % 30}, {n // 8})"
        two_halves(folder / f"{n:03d}.png", shade, "white", size=(400 + n, 300))
    root = tmp_path / "c"
    command = [sys.executable, "-m", "fashionrec", "build-index", str(folder), "--index", str(root)]
    command += ["--detector", str(TINY / "detector"), "--embedder", str(TINY / "embedder")]
    command += ["--set", "build.checkpoint=8", "--set", "detector.batch=4", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "FASHIONREC_PROJECT__THREADS": "1"})
    journal = root / "work" / "journal.sqlite"
    for _ in range(1500):
        if finished(journal) >= 8:
            break
        time.sleep(0.02)
        assert process.poll() is None, "the build ended before it could be killed"
    process.kill()
    process.wait()
    with pytest.raises(CatalogueError):
        Catalogue.open(root)
    report = build(folder, root)
    assert report.resumed >= 8
    assert report.resumed + report.embedded == 300
    undisturbed = tmp_path / "d"
    build(folder, undisturbed)
    assert item_ids(root) == item_ids(undisturbed)
    assert not journal.exists()
    with Catalogue.open(root) as a, Catalogue.open(undisturbed) as b:
        assert (a.images.search(b.images.fetch(range(5)), 3)[0][:, 0] > 0.99999).all()


def test_a_batch_gives_each_photo_what_it_gets_alone(build: Build, tmp_path: Path, config: Config) -> None:
    sizes = [(120, 90), (333, 77), (64, 200), (1000, 900), (31, 33)]
    for n, size in enumerate(sizes * 2):
        two_halves(tmp_path / "p" / f"{n}.png", "red" if n % 3 else "white", "blue" if n % 2 else "gray", size)
    alone = config.model_copy(update={"detector": config.detector.model_copy(update={"batch": 1})})
    build(tmp_path / "p", tmp_path / "batched")
    build(tmp_path / "p", tmp_path / "alone", settings=alone)
    assert item_ids(tmp_path / "batched") == item_ids(tmp_path / "alone")


def test_vectors_of_another_encoder_are_never_searched(photos: Path, build: Build, tmp_path: Path) -> None:
    build(photos, tmp_path / "c")
    current = generations.read_current(tmp_path / "c")
    manifest = json.loads((current.folder / "manifest.json").read_text())
    for entry in manifest["segments"].values():
        entry["embedder"] = "0" * 64
    (current.folder / "manifest.json").write_text(json.dumps(manifest))
    pointer = json.loads((tmp_path / "c" / "catalogue.json").read_text())
    from fashionrec.common.files import sha256_file

    pointer["manifest_sha256"] = sha256_file(current.folder / "manifest.json")
    (tmp_path / "c" / "catalogue.json").write_text(json.dumps(pointer))
    with pytest.raises(CatalogueError, match="of another encoder"):
        Catalogue.open(tmp_path / "c")


def test_the_manifest_lists_every_file_and_says_what_was_measured(catalogue: Path) -> None:
    current = generations.read_current(catalogue)
    listed = set(current.manifest.files)
    there = {
        p.relative_to(catalogue).as_posix()
        for p in catalogue.rglob("*")
        if p.is_file()
        and p.name not in (".lock", "catalogue.json", "manifest.json")
        and p.parent not in (catalogue, catalogue / "work")  # the last build's report, and what is not finished
    }
    assert listed == there
    index = current.manifest.index
    assert index is not None
    assert (index.vectors, index.recall_at_10) == (8, 1.0)
    assert index.latency_ms_p50 > 0
    assert not any(
        str(Path.home()) in json.dumps(current.manifest.to_dict()[key]) for key in ("bundles", "settings", "versions")
    )


def test_progress_counts_to_the_end(photos: Path, build: Build, tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    build(photos, tmp_path / "c", progress=lambda done, total, detail="": ticks.append((done, total)))
    assert ticks[0] == (0, 6)
    assert ticks[-1] == (6, 6)
    assert ticks == sorted(ticks)


def test_a_reader_keeps_its_generation_while_a_writer_switches(photos: Path, build: Build, tmp_path: Path) -> None:
    build(photos, tmp_path / "c")
    with Catalogue.open(tmp_path / "c") as reader:
        for n in range(4):
            Image.new("RGB", (20 + n, 20), "pink").save(photos / f"more-{n}.png")
            build(photos, tmp_path / "c")
        hits = reader.search(photos / "red-blue.jpg", k=3).garments[0].hits
        assert hits[0].item.image == "red-blue.jpg"
    with Catalogue.open(tmp_path / "c") as later:
        assert later.counts["products"] == 10
    assert len(ItemReader(later.generation.items_path, later.generation.changes_path).product_ids()) == 10
