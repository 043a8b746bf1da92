"""A catalogue changed in place: each change costs what it must, ids stay, and one can go back."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Result, two_halves
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tampered import Ask, Inputs, tampered

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.catalogue.edit import add_products, compact_catalogue, entries, remove_products, update_products
from fashionrec.catalogue.exchange import export_catalogue, import_catalogue
from fashionrec.catalogue.reindex import reindex_catalogue
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import ProductRow, read_products
from fashionrec.store import generations
from fashionrec.store.items import ItemReader

Build = Callable[..., BuildReport]


def state(root: Path) -> dict[str, Any]:
    """All that a reader can see of a catalogue's items, with their vectors and pictures; not where
    they lie.
    """
    with Catalogue.open(root) as catalogue:
        return {
            f"{s.item.item_id} {s.item.image}": (
                *(s.item.product_id, s.item.class_name, s.item.box, s.worn_with, s.item.metadata, s.captions),
                catalogue.images.fetch([catalogue.images.position(*s.image_at)])[0].tobytes(),
                catalogue.thumbnail(s),
            )
            for s in catalogue.items.everything()
        }


def words(root: Path, query: str) -> set[str]:
    """Products that full-text search finds."""
    with Catalogue.open(root) as catalogue:
        numbers = [number for number, _ in catalogue.items.text_search(query, 100)]
        return {stored.item.product_id for stored in catalogue.items.by_numbers(numbers).values()}


@pytest.fixture
def table(photos: Path, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "products.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


ROWS: list[dict[str, Any]] = [
    {"image": "photos/red-blue.jpg", "product_id": "a", "category": "top", "title": "빨간 셔츠", "price": 10},
    {"image": "photos/red-white.jpg", "product_id": "b", "category": "top", "title": "red blouse", "price": 20},
    {"image": "photos/green.jpg", "product_id": "c", "title": "초록 치마", "price": 30},
]


def test_a_build_where_nothing_differs_makes_no_generation(photos: Path, build: Build, tmp_path: Path) -> None:
    root = tmp_path / "c"
    build(photos, root)
    two_halves(photos / "new.jpg", "red", "black")
    build(photos, root)
    again = build(photos, root)
    assert again.unchanged
    assert again.generation == "000002"
    assert generations.read_current(root).manifest.parent == "000001"  # a rollback still goes to what was there before
    assert sorted(p.name for p in (root / "generations").iterdir()) == ["000001", "000002"]
    assert len((root / "builds.jsonl").read_text().splitlines()) == 3


def test_unchanged_files_are_not_read_again(
    photos: Path, build: Build, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for path in photos.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert build(photos, tmp_path / "c").hashed == 6
    assert build(photos, tmp_path / "c").hashed == 0
    two_halves(photos / "green.jpg", "red", "black")  # just now: no time of change tells this from the next second's
    assert build(photos, tmp_path / "c").hashed == 1
    assert build(photos, tmp_path / "c").hashed == 1
    rehash = config.model_copy(update={"build": config.build.model_copy(update={"rehash": True})})
    assert build(photos, tmp_path / "c", settings=rehash).hashed == 6
    (tmp_path / "c" / "work" / "seen.sqlite").write_bytes(b"not a database" * 300)
    assert build(photos, tmp_path / "c").hashed == 6


def test_files_that_are_gone_are_forgotten(photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    def files() -> int:
        with closing(sqlite3.connect(root / "work" / "seen.sqlite")) as db:
            return int(db.execute("SELECT count(*) FROM files").fetchone()[0])

    import os

    root, names = tmp_path / "c", sorted(path.name for path in photos.iterdir())
    for path in photos.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    build(photos, root)
    assert files() == len(names) == 6
    for name in names[:3]:
        (photos / name).unlink()
    build(photos, root, max_delete=1.0)
    assert files() == 3
    assert build(photos, root).hashed == 0  # the others are still known
    with Catalogue.open(root) as catalogue:
        products = {stored.item.product_id for stored in catalogue.items.everything()}
    remove_products(root, sorted(products)[:1], config)
    assert files() == 2
    assert build(photos, root).hashed == 1


def test_a_changed_price_keeps_items_and_words(table: Any, build: Build, tmp_path: Path) -> None:
    root = tmp_path / "c"
    build(table(ROWS), root)
    before = state(root)
    report = build(table([{**ROWS[0], "price": 11}, *ROWS[1:]]), root)
    assert report.embedded == 0
    assert report.entries == {"added": 0, "changed": 1, "replaced": 0, "removed": 0, "kept": 2, "photos_removed": 0}
    after = state(root)
    assert after.keys() == before.keys()
    assert {key for key in after if after[key] != before[key]} == {key for key in after if after[key][0] == "a"}
    assert words(root, "셔츠") == {"a"}


def test_a_changed_title_or_category_is_found_and_acted_on(table: Any, build: Build, tmp_path: Path) -> None:
    root = tmp_path / "c"
    build(table(ROWS), root)
    build(table([{**ROWS[0], "title": "파란 바지", "category": "pants"}, *ROWS[1:]]), root)
    assert words(root, "셔츠") == set()
    assert words(root, "바지를") == {"a"}
    with Catalogue.open(root) as catalogue:
        roles = {(s.item.class_name, s.worn_with) for s in catalogue.items.of_product("a")}
    assert roles == {("pants", False), ("top", True)}


def test_another_threshold_embeds_only_crops_that_are_new(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    root = tmp_path / "c"
    build(photos, root)
    before = state(root)
    embedded: list[int] = []

    def counted(graph: str, inputs: Inputs, ask: Ask) -> list[np.ndarray]:
        embedded.append(len(next(iter(inputs.values()))))
        return ask(inputs)

    counting = tampered(Bundle.open(TINY / "embedder"), counted)
    other = config.model_copy(update={"detector": config.detector.model_copy(update={"conf": 0.3})})
    report = build(photos, root, settings=other, embedder_bundle=counting)
    assert (report.embedded, report.crops_reused, sum(embedded)) == (6, 8, 0)
    assert state(root) == before
    stricter = config.model_copy(update={"detector": config.detector.model_copy(update={"conf": 0.999})})
    # no garment is sure enough: photos are indexed whole
    report = build(photos, root, settings=stricter, embedder_bundle=counting)
    assert sum(embedded) == report.garments - report.crops_reused > 0
    wider = config.model_copy(update={"crop": config.crop.model_copy(update={"margin": 0.3})})
    assert build(photos, root, settings=wider).crops_reused == 0


def test_captions_stay_with_garments_that_are_seen_again(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    from fashionrec.captioner.job import caption_catalogue

    root = tmp_path / "c"
    build(photos, root)
    caption_catalogue(root, config)
    before = state(root)
    assert any(value[5] for value in before.values())
    other = config.model_copy(update={"detector": config.detector.model_copy(update={"conf": 0.3})})
    build(photos, root, settings=other)
    assert state(root) == before
    with Catalogue.open(root) as catalogue:
        assert len(catalogue.captions)


def test_add_remove_update(table: Any, photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    root = tmp_path / "c"
    build(table(ROWS), root)
    first = state(root)
    shutil.move(photos, tmp_path / "away")  # nothing of what is there is read again
    two_halves(tmp_path / "more" / "x.jpg", "red", "black")
    report = add_products(root, read_products(tmp_path / "more"), config, source=str(tmp_path / "more"))
    assert (report.embedded, report.reused, report.products, report.failures) == (1, 3, 4, [])
    assert {key: value for key, value in state(root).items() if value[0] != "x.jpg"} == first
    report, unknown = update_products(
        root, [{"product_id": "a", "price": 5, "stock": 3}, {"product_id": "zz", "price": 1}], config
    )
    assert (report.embedded, report.hashed, unknown) == (0, 0, ["zz"])
    with Catalogue.open(root) as catalogue:
        (item,) = [s.item for s in catalogue.items.of_product("a") if not s.worn_with]
    assert item.metadata == {"category": "top", "title": "빨간 셔츠", "price": 5, "stock": 3}
    report, unknown = remove_products(root, ["b", "nobody"], config)
    assert (report.embedded, report.products, unknown) == (0, 3, ["nobody"])
    with Catalogue.open(root) as catalogue:
        hits = catalogue.search(tmp_path / "away" / "red-white.jpg", k=10).garments[0].hits
        assert "b" not in {hit.item.product_id for hit in hits}
    assert words(root, "blouse") == set()
    with pytest.raises(DataError, match="none of 1 product exists"):
        remove_products(root, ["nobody"], config)
    with pytest.raises(DataError, match="this would remove everything"):
        remove_products(root, ["a", "c", "x.jpg"], config)
    again = add_products(root, [ProductRow("x.jpg", tmp_path / "none", "new", {})], config, source="none")
    assert [failure["reason"] for failure in again.failures] == ["missing"]
    assert again.unchanged


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what is open")
def test_a_damaged_row_is_not_held_open(photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    root = tmp_path / "c"
    build(photos, root)
    items = generations.read_current(root).items_path
    with sqlite3.connect(items) as db:
        db.execute("UPDATE entries SET metadata = '[1]'")
    db.close()
    with pytest.raises(CatalogueError) as caught:
        update_products(root, [{"product_id": "red-blue.jpg", "price": 1}], config)
    opened = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert items.resolve() not in opened
    assert "not a JSON object" in str(caught.value)  # the error, and what its traceback holds, is still here


def test_two_rows_of_one_product_and_photo_share_an_item_that_outlives_either(
    table: Any, photos: Path, build: Build, tmp_path: Path
) -> None:
    shutil.copy(photos / "green.jpg", photos / "copy.jpg")
    rows = [{"image": f"photos/{name}.jpg", "product_id": "a", "title": "초록"} for name in ("green", "copy")]
    root = tmp_path / "c"
    build(table(rows), root)
    build(table(rows[1:]), root)
    with Catalogue.open(root) as catalogue:
        assert [s.item.image for s in catalogue.items.everything()] == ["photos/copy.jpg"]
    assert words(root, "초록") == {"a"}


def test_compaction_changes_nothing_that_a_reader_sees(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    from fashionrec.captioner.job import caption_catalogue

    root = tmp_path / "c"
    build(photos, root)
    for n in range(3):
        two_halves(photos / f"new-{n}.jpg", "red", f"rgb(0, {n}, 0)")
        build(photos, root)
    caption_catalogue(root, config)
    (photos / "green.jpg").unlink()
    build(photos, root, max_delete=1.0)
    before = state(root)
    figures = compact_catalogue(root, config)
    assert figures["segments_before"] == 5
    assert figures["segments_after"] == 2
    assert state(root) == before
    with Catalogue.open(root) as catalogue:
        assert len(catalogue.images) == 8 + 3 - 1  # of the six photos, the three new ones, and without the green one
        catalogue.generation.check(contents=True)
        assert len(catalogue.images) == catalogue.counts["garments"]
        assert len(catalogue.captions) == catalogue.counts["captions"]


def test_a_build_compacts_by_itself_where_that_pays(photos: Path, build: Build, tmp_path: Path, config: Config) -> None:
    root = tmp_path / "c"
    few = config.model_copy(update={"build": config.build.model_copy(update={"max_segments": 2})})
    build(photos, root, settings=few)
    two_halves(photos / "n0.jpg", "red", "rgb(0, 9, 0)")
    assert not build(photos, root, settings=few).compacted
    two_halves(photos / "n1.jpg", "red", "rgb(0, 19, 0)")
    report = build(photos, root, settings=few)
    assert report.compacted
    assert len(generations.read_current(root).manifest.segments) == 1
    for name in ("green", "grey", "white"):
        (photos / f"{name}.jpg").unlink(missing_ok=True)
    assert build(photos, root, max_delete=1.0, settings=few).products < report.products


def test_rollback_serves_the_generation_before_and_back(photos: Path, build: Build, tmp_path: Path) -> None:
    root = tmp_path / "c"
    build(photos, root)
    with pytest.raises(CatalogueError, match="has no predecessor"):
        generations.roll_back(root)
    first = state(root)
    two_halves(photos / "new.jpg", "red", "black")
    build(photos, root)
    second = state(root)
    assert generations.roll_back(root).name == "000001"
    assert state(root) == first
    assert generations.roll_back(root, "000002").name == "000002"
    assert state(root) == second
    generations.roll_back(root)
    (photos / "green.jpg").unlink()
    build(photos, root, max_delete=1.0)  # made from the first: the second, which was left, goes
    assert generations.read_current(root).manifest.parent == "000001"
    assert sorted(p.name for p in (root / "generations").iterdir()) == ["000001", "000003"]
    with pytest.raises(CatalogueError, match="generation 000009 does not exist"):
        generations.roll_back(root, "000009")


def test_what_is_being_read_is_never_removed(photos: Path, build: Build, tmp_path: Path) -> None:
    root = tmp_path / "c"
    build(photos, root)
    command = [
        *(sys.executable, "-c"),
        "import sys; from fashionrec import Catalogue\n"
        "c = Catalogue.open(sys.argv[1]); print('open', flush=True); sys.stdin.readline()\n"
        "print(sorted(s.item.image for s in c.items.everything()), len(c.images), c.newer(), flush=True)",
        str(root),
    ]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdin is not None
    assert reader.stdout.readline() == "open\n"
    for n in range(4):
        two_halves(photos / f"n{n}.jpg", "red", f"rgb(0, {n}, 0)")
        build(photos, root)
    assert (root / "generations" / "000001" / "manifest.json").exists()
    answer, _ = reader.communicate("\n", timeout=60)
    assert "'green.jpg'" in answer
    assert answer.strip().endswith("8 True")
    two_halves(photos / "last.jpg", "red", "rgb(0, 99, 0)")
    build(photos, root)
    assert not (root / "generations" / "000001").exists()


def test_export_and_import_give_the_same_catalogue(
    table: Any, photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    from fashionrec.captioner.job import caption_catalogue

    shutil.copy(photos / "green.jpg", photos / "copy.jpg")
    root = tmp_path / "c"
    build(table([*ROWS, {"image": "photos/copy.jpg", "product_id": "c", "title": "초록"}]), root)
    caption_catalogue(root, config)
    export_catalogue(root, tmp_path / "out", config)
    vectors = np.load(tmp_path / "out" / "image_vectors.npy")
    assert vectors.shape == (4, 48)
    with pytest.raises(DataError, match="not empty"):
        export_catalogue(root, tmp_path / "out", config)
    import_catalogue(tmp_path / "out", tmp_path / "d", config)
    assert state(tmp_path / "d") == state(root)
    assert words(tmp_path / "d", "셔츠") == {"a"}
    with Catalogue.open(tmp_path / "d") as new, Catalogue.open(root) as old:
        new.generation.check(contents=True)
        assert new.counts == old.counts
        assert new.settings == old.settings
    assert add_products(tmp_path / "d", read_products(photos), config, source=str(photos)).reused >= 3


@pytest.mark.parametrize("fault", ["vectors", "norm", "items", "bundle", "document", "version"])
def test_a_damaged_export_is_one_error_and_leaves_nothing(
    catalogue: Path, tmp_path: Path, config: Config, fault: str
) -> None:
    out = tmp_path / "out"
    export_catalogue(catalogue, out, config)
    if fault == "vectors":
        np.save(out / "image_vectors.npy", np.load(out / "image_vectors.npy")[:-1])
    if fault == "norm":
        np.save(out / "image_vectors.npy", np.load(out / "image_vectors.npy") * 2)
    if fault == "items":
        (out / "items.parquet").write_bytes((out / "items.parquet").read_bytes()[:-100])
    if fault == "bundle":
        path = out / "bundles" / "embedder" / "image.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    if fault in ("document", "version"):
        document = json.loads((out / "export.json").read_text())
        document["format" if fault == "document" else "format_version"] = 9
        (out / "export.json").write_text(json.dumps(document))
    with pytest.raises((DataError, Exception)) as caught:
        import_catalogue(out, tmp_path / "d", config)
    assert type(caught.value).__module__ == "fashionrec.errors"
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("fault", ["items", "vectors"])
def test_an_import_below_a_file_is_one_error_and_keeps_the_file(
    catalogue: Path, tmp_path: Path, config: Config, fault: str
) -> None:
    export_catalogue(catalogue, tmp_path / "out", config)
    path = tmp_path / "out" / "image_vectors.npy"
    if fault == "vectors":
        shorter = np.load(path)[:, :-1]
        np.save(path, shorter / np.linalg.norm(shorter, axis=1, keepdims=True))
    else:
        (tmp_path / "out" / "items.parquet").write_bytes(b"no table")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(DataError, match=r"have length 47, the encoder's 48|cannot be imported"):
        import_catalogue(tmp_path / "out", tmp_path / "notes" / "d", config)
    assert (tmp_path / "notes").read_text() == "mine"


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["photo", "drop", "price", "title", "caption", "compact", "move"]), st.integers(0, 5)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_grown_step_by_step_is_what_is_built_at_once(
    build: Build, tmp_path: Path, config: Config, actions: list[tuple[str, int]]
) -> None:
    """Whatever the order of changes: the same items, vectors and words as a catalogue that is built
    from the last table.
    """
    from fashionrec.captioner.job import caption_catalogue

    base = tmp_path / "prop"
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(TINY / "photos", base / "photos")
    rows = [
        {"image": f"photos/{path.name}", "product_id": f"p{n % 4}", "price": n, "title": f"셔츠{n}"}
        for n, path in enumerate(sorted((base / "photos").iterdir()))
    ]
    captioned = False

    def write(name: str) -> Path:
        path = base / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    build(write("t.jsonl"), base / "c")
    for action, n in actions:
        row = rows[n % len(rows)]
        if action == "photo":
            two_halves(base / row["image"], "red", f"rgb(0, {n * 9}, 0)")
        elif action == "drop" and len(rows) > 1:
            rows.remove(row)
        elif action == "price":
            row["price"] += 100
        elif action == "title":
            row["title"] = f"바지{n}"
        elif action == "move":
            target = str(Path(row["image"]).with_name(f"moved-{n}.jpg"))
            if target != row["image"]:
                shutil.copy(base / row["image"], base / target)
            if all(other["image"] != target for other in rows):
                row["image"] = target
        elif action == "caption":
            caption_catalogue(base / "c", config)
            captioned = True
        elif action == "compact":
            compact_catalogue(base / "c", config)
        build(write("t.jsonl"), base / "c", max_delete=1.0)
    build(write("t.jsonl"), base / "whole")
    if captioned:
        for root in (base / "c", base / "whole"):
            caption_catalogue(root, config)
    assert state(base / "c") == state(base / "whole")
    for query in ("셔츠", "바지"):
        assert words(base / "c", query) == words(base / "whole", query)
    one, two = (generations.read_current(base / name) for name in ("c", "whole"))
    counts = [ItemReader(served.items_path, served.changes_path).counts() for served in (one, two)]
    assert counts[0] | {"captions": 0} == counts[1] | {"captions": 0}
    assert len(list(entries(base / "c"))) == len(rows)


def test_the_verbs(cli: Callable[..., Result], catalogue: Path, photos: Path, tmp_path: Path) -> None:
    listed = cli("catalogue", "list", tmp_path, "--json").document["catalogues"]
    assert [Path(one["path"]).name for one in listed] == ["catalogue"]
    assert listed[0]["counts"]["products"] == 6
    two_halves(tmp_path / "x.jpg", "red", "black")
    added = cli("catalogue", "add", tmp_path / "x.jpg", "--index", catalogue, "--json")
    assert (added.code, added.document["products"]) == (0, 7)
    (tmp_path / "stock.csv").write_text("product_id,stock\nx.jpg,4\nnobody,1\n")
    updated = cli("catalogue", "update", tmp_path / "stock.csv", "--index", catalogue, "--json").document
    assert updated["unknown"] == ["nobody"]
    shown = cli("catalogue", "show", catalogue, "--product", "x.jpg", "--json").document
    assert shown["metadata"] == {"stock": 4}
    (tmp_path / "gone.txt").write_text("x.jpg\n")
    removed = cli("catalogue", "remove", "--file", tmp_path / "gone.txt", "--index", catalogue)
    assert "6 products" in removed.out
    assert cli("catalogue", "show", catalogue, "--product", "x.jpg").code == 2
    back = cli("catalogue", "rollback", catalogue)
    assert "generation 000003 (7 products)" in back.out
    assert cli("catalogue", "compact", catalogue).code == 0
    assert cli("catalogue", "verify", catalogue).code == 0
    assert cli("catalogue", "export", tmp_path / "out", "--index", catalogue).code == 0
    assert cli("catalogue", "import", tmp_path / "out", "--index", tmp_path / "new").code == 0
    assert "generation" in cli("catalogue", "show", tmp_path / "new").out
    page = (catalogue / "report.html").read_text()
    assert "Where the time went" in page
    line = json.loads((catalogue / "builds.jsonl").read_text().splitlines()[-1])
    assert line["index"]["kind"] == "flat"


def flip(root: Path, name: str) -> None:
    """Change one byte in the middle of the largest file of some name."""
    path = max(root.rglob(name), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["vectors.faiss", "thumbnails.bin", "items.sqlite"])
def test_what_has_changed_in_a_file_is_not_copied_as_true(
    photos: Path, build: Build, tmp_path: Path, config: Config, name: str
) -> None:
    """Else the copy would be hashed anew, and `verify` would call it as it was written."""
    root = tmp_path / "c"
    build(photos, root)
    served = generations.read_current(root).name
    flip(root, name)
    with pytest.raises(CatalogueError, match="damaged"):
        compact_catalogue(root, config)
    if name == "vectors.faiss":
        with pytest.raises(CatalogueError, match=r"the content of segments/.* has changed"):
            reindex_catalogue(root, config, vectors="float16")
    pytest.importorskip("pyarrow")
    with pytest.raises(CatalogueError, match="damaged"):
        export_catalogue(root, tmp_path / "out", config)
    assert generations.read_current(root).name == served


def test_another_detector_does_not_take_over_vectors_that_have_changed(
    photos: Path, build: Build, tmp_path: Path, config: Config
) -> None:
    root = tmp_path / "c"
    build(photos, root)
    flip(root, "vectors.faiss")
    other = config.model_copy(update={"detector": config.detector.model_copy(update={"conf": 0.26})})
    with pytest.raises(CatalogueError, match=r"the content of segments/.* has changed"):
        build(photos, root, settings=other)


def test_a_build_that_changes_nothing_removes_what_a_killed_one_left(
    photos: Path, build: Build, tmp_path: Path
) -> None:
    root = tmp_path / "c"
    build(photos, root)
    left = root / "generations" / "000007"
    left.mkdir()
    (left / "items.sqlite").write_bytes(b"without a manifest")
    assert build(photos, root).unchanged
    assert not left.exists()
