"""The synthetic fashion world, through its door: what lies on disk, that it is true, repeatable and
not too easy.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashionrec.dataset.synthetic import WorldSettings, draw_world
from fashionrec.dataset.synthetic.attributes import COLORS, sample_products, style_of
from fashionrec.dataset.synthetic.captions import COLORS_KO, PATTERN_WORDS
from fashionrec.dataset.synthetic.plan import stream
from fashionrec.dataset.synthetic.world import PRODUCT_COLUMNS, split_counts
from fashionrec.errors import DataError
from fashionrec.types import CLASS_NAMES

TINY = WorldSettings(images=7, products=8, views=2, outfits=2, seed=3, size=128, workers=1)
SHOP = WorldSettings(images=40, products=80, views=3, outfits=20, seed=1, size=192, workers=1)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def rows_of(shop: Path) -> list[dict[str, str]]:
    """The rows of a drawn catalogue: every view of every product."""
    rows = list(table(shop / "catalogue" / "products.csv"))
    assert len(rows) == SHOP.products * SHOP.views
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shop"
    draw_world(out, SHOP)
    return out


def test_same_seed_same_bytes_however_many_workers(tmp_path: Path) -> None:
    one = draw_world(tmp_path / "one", TINY)
    two = draw_world(tmp_path / "two", dataclasses.replace(TINY, workers=2))
    assert one == two
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_another_seed_draws_another_world(tmp_path: Path) -> None:
    draw_world(tmp_path / "a", TINY)
    draw_world(tmp_path / "b", dataclasses.replace(TINY, seed=4))
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    photos = [name for name in a if name.startswith("catalogue") and name.endswith(".jpg")]
    assert photos
    assert all(a[name] != b[name] for name in photos)


def test_progress_and_counts(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    counts = draw_world(tmp_path / "w", TINY, lambda done, total: told.append((done, total)))
    total = 7 + 8 * 2 + 8 + 2
    assert told == [(i + 1, total) for i in range(total)]
    assert counts["images"] == 7
    assert (counts["products"], counts["catalogue"], counts["queries"], counts["outfits"]) == (8, 16, 8, 2)
    record = json.loads((tmp_path / "w" / "world.json").read_text(encoding="utf-8"))
    assert record["counts"] == counts
    assert record["settings"]["seed"] == 3
    assert "workers" not in record["settings"]


@pytest.mark.parametrize(
    ("images", "expected"),
    [(900, (630, 135, 135)), (100, (70, 15, 15)), (40, (28, 6, 6)), (3, (1, 1, 1)), (7, (5, 1, 1)), (2, (2, 0, 0))],
)
def test_split_counts(images: int, expected: tuple[int, int, int]) -> None:
    assert tuple(split_counts(images).values()) == expected


def test_labels_lie_in_the_photos_and_agree_with_the_counts(shop: Path) -> None:
    seen = dict.fromkeys(CLASS_NAMES, 0)
    for split, expected in split_counts(SHOP.images).items():
        photos = sorted((shop / split / "images").glob("*.jpg"))
        labels = sorted((shop / split / "labels").glob("*.txt"))
        assert len(photos) == expected
        assert [p.stem for p in photos] == [p.stem for p in labels]
        for path in labels:
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= 3
            for line in lines:
                name, *cells = line.split()
                assert all(len(cell.split(".")[1]) == 6 for cell in cells)
                x, y, w, h = map(float, cells)
                assert w > 0.02
                assert h > 0.02
                assert min(x - w / 2, y - h / 2) >= -2e-6
                assert max(x + w / 2, y + h / 2) <= 1 + 2e-6
                seen[CLASS_NAMES[int(name)]] += 1
    assert seen == json.loads((shop / "world.json").read_text(encoding="utf-8"))["counts"]["garments"]
    assert all(seen.values()), "a class is missing among 40 photos"


def test_data_yaml_names_the_pinned_classes(shop: Path) -> None:
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load((shop / "data.yaml").read_text(encoding="utf-8"))
    assert data == {
        "train": "train/images",
        "val": "valid/images",
        "test": "test/images",
        "nc": 5,
        "names": dict(enumerate(CLASS_NAMES)),
    }


def test_the_product_table(shop: Path) -> None:
    rows = table(shop / "catalogue" / "products.csv")
    assert tuple(rows[0]) == PRODUCT_COLUMNS
    by_product: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_product.setdefault(row["product_id"], []).append(row)
        assert (shop / "catalogue" / row["image"]).is_file()
        assert int(row["price"]) >= 5000
        assert int(row["price"]) % 1000 == 0
        assert row["currency"] == "KRW"
        assert row["availability"] in ("in_stock", "out_of_stock")
        assert row["url"].startswith("https://shop.example/p/")
        assert row["category"] in CLASS_NAMES
    assert len(by_product) == SHOP.products
    for views in by_product.values():
        assert [int(row["view"]) for row in views] == [1, 2, 3]
        assert len({row["caption_en"] for row in views}) == 1


def test_captions_tell_colour_and_pattern(shop: Path) -> None:
    for row in rows_of(shop):
        english, korean = PATTERN_WORDS[row["pattern"]]
        assert row["color"] in row["caption_en"].lower()
        assert english in row["caption_en"]
        assert COLORS_KO[row["color"]] in row["caption_ko"]
        assert korean in row["caption_ko"]
        if row["second_color"] != "none":
            assert row["second_color"] in row["caption_en"]
            assert COLORS_KO[row["second_color"]] in row["caption_ko"]


def test_attributes_apply_to_their_class(shop: Path) -> None:
    for row in rows_of(shop):
        upper = row["category"] in ("top", "dress")
        assert bool(row["sleeve"]) == bool(row["neckline"]) == upper
        assert bool(row["graphic"]) == (row["category"] == "top")
        assert (row["second_color"] == "none") == (row["pattern"] == "plain" and row["graphic"] in ("", "none"))
        assert row["color"] in COLORS


def test_boxes_lie_in_their_photos_and_find_the_product(shop: Path) -> None:
    boxes = table(shop / "catalogue" / "boxes.csv")
    products = table(shop / "catalogue" / "products.csv")
    own = {(row["image"], row["product_id"]) for row in boxes if row["product_id"]}
    assert own == {(row["image"], row["product_id"]) for row in products}
    places = [("catalogue", row) for row in boxes]
    places += [("queries", row) for row in table(shop / "queries" / "queries.csv")]
    places += [("outfits", row) for row in table(shop / "outfits" / "outfits.csv")]
    for folder, row in places:
        with Image.open(shop / folder / row["image"]) as photo:
            width, height = photo.size
        assert max(width, height) == SHOP.size
        x1, y1, x2, y2 = (float(row[k]) for k in ("x1", "y1", "x2", "y2"))
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
    worn_with_others = {row["image"] for row in boxes if not row["product_id"]}
    assert 0.15 < len(worn_with_others) / len(products) < 0.45
    classes: dict[str, list[str]] = {}
    for row in boxes:
        classes.setdefault(row["image"], []).append(row["class_name"])
    assert all(len(set(names)) == len(names) for names in classes.values()), "fillers are of other classes"


def test_queries_and_outfits_name_known_products(shop: Path) -> None:
    known = {row["product_id"]: row["category"] for row in table(shop / "catalogue" / "products.csv")}
    queries = table(shop / "queries" / "queries.csv")
    assert sorted(row["product_id"] for row in queries) == sorted(known)
    outfits = table(shop / "outfits" / "outfits.csv")
    together: dict[str, set[str]] = {}
    for row in [*queries, *outfits]:
        assert known[row["product_id"]] == row["category"]
    for row in outfits:
        together.setdefault(row["image"], set()).add(row["category"])
    assert len(together) == SHOP.outfits
    assert all(len(classes) == 2 for classes in together.values())


def test_outfits_mostly_share_a_style(shop: Path) -> None:
    products = {p.product_id: p for p in sample_products(stream(SHOP.seed, "products", 0), 80, SHOP.class_weights)}
    outfits: dict[str, list[str]] = {}
    for row in table(shop / "outfits" / "outfits.csv"):
        outfits.setdefault(row["image"], []).append(style_of(products[row["product_id"]]))
    same = sum(len(set(styles)) == 1 for styles in outfits.values())
    assert same / len(outfits) > 0.5


def test_products_differ_in_what_can_be_seen() -> None:
    products = sample_products(stream(0, "products", 0), 600, (1, 1, 1, 1, 1))
    assert len({product.look for product in products}) == 600
    assert {product.category for product in products} == set(CLASS_NAMES)


def test_a_second_batch_can_be_street_skewed_and_without_a_shop(tmp_path: Path) -> None:
    settings = WorldSettings(images=12, products=0, size=128, style="street", class_weights=(0, 0, 0, 1, 0), workers=1)
    counts = draw_world(tmp_path / "w", settings)
    assert not (tmp_path / "w" / "catalogue").exists()
    assert counts["garments"]["skirt"] > 5
    assert sum(counts["garments"].values()) == counts["garments"]["skirt"]


@pytest.mark.parametrize(
    "change",
    [
        {"images": -1},
        {"views": 1},
        {"seed": -1},
        {"size": 20},
        {"style": "noir"},
        {"class_weights": (1, 1)},
        {"class_weights": (0, 0, 0, 0, 0)},
        {"class_weights": (1, 1, 1, 1, float("nan"))},
        {"workers": -2},
        {"products": 2.5},
        {"images": 0, "products": 0},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        draw_world(tmp_path / "w", dataclasses.replace(TINY, **change))
    assert not (tmp_path / "w").exists()


def test_a_folder_that_is_not_empty_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(DataError, match="not an empty folder"):
        draw_world(tmp_path, TINY)
    assert files(tmp_path) == {"mine.txt": b"keep"}


def test_a_colour_histogram_does_not_solve_retrieval(shop: Path) -> None:
    def histogram(folder: str, row: dict[str, str]) -> np.ndarray:
        with Image.open(shop / folder / row["image"]) as photo:
            crop = np.asarray(photo.crop([round(float(row[k])) for k in ("x1", "y1", "x2", "y2")]))
        bins = (crop.reshape(-1, 3) // 64) @ np.array([16, 4, 1])
        counts = np.bincount(bins, minlength=64).astype(float)
        return counts / np.linalg.norm(counts)

    gallery = [row for row in table(shop / "catalogue" / "boxes.csv") if row["product_id"]]
    queries = table(shop / "queries" / "queries.csv")
    shelf = np.stack([histogram("catalogue", row) for row in gallery])
    asked = np.stack([histogram("queries", row) for row in queries])
    best = (asked @ shelf.T).argmax(axis=1)
    recall = np.mean([gallery[b]["product_id"] == row["product_id"] for b, row in zip(best, queries, strict=True)])
    assert 3 / SHOP.products < recall < 0.6
