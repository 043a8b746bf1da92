"""The same products as CSV, TSV and JSON lines are the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result

from fashionrec.products.records import is_table, read_table
from fashionrec.products.tables import ProductRow, read_products

ROWS = [
    {"image": "red-white.jpg", "product_id": "007", "title": "red, and white", "price": 12.5, "stock": 3},
    {"image": "green.jpg", "product_id": "8", "title": "green", "price": 9, "sku": "0042"},
]
COLUMNS = ("image", "product_id", "title", "price", "stock", "sku")


def write(path: Path) -> Path:
    """The rows as the table that a suffix names."""
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return path
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    quoted = [
        [f'"{row[name]}"' if separator in str(row.get(name, "")) else str(row.get(name, "")) for name in COLUMNS]
        for row in ROWS
    ]
    path.write_text("\n".join(separator.join(cells) for cells in [list(COLUMNS), *quoted]) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".TSV", ".jsonl", ".ndjson"])
def test_each_kind_of_table_holds_the_same_rows(suffix: str, tmp_path: Path) -> None:
    table = write(tmp_path / f"p{suffix}")
    assert is_table(table)
    assert read_table(table).records == ROWS
    one, two = read_products(table)
    assert (one.product_id, one.path) == ("007", tmp_path / "red-white.jpg")
    assert one.metadata == {"title": "red, and white", "price": 12.5, "stock": 3}
    assert two.metadata == {"title": "green", "price": 9, "sku": "0042"}


def test_columns_of_numbers_stay_text_where_that_is_asked_for(tmp_path: Path) -> None:
    table = write(tmp_path / "p.tsv")
    assert [row.get("stock") for row in read_table(table, text=("stock",)).records] == ["3", None]


def test_a_catalogue_is_built_of_a_tsv_table(cli: Callable[..., Result], tmp_path: Path) -> None:
    write(tmp_path / "p.tsv")
    for row in ROWS:
        (tmp_path / str(row["image"])).write_bytes((TINY / "photos" / str(row["image"])).read_bytes())
    models = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
    assert cli("build-index", "p.tsv", "--index", "c", *models, "--quiet").code == 0
    done = cli("query", "red-white.jpg", "--index", "c", "--json")
    assert done.code == 0, done.err
    assert done.document["garments"][0]["hits"][0]["metadata"]["title"] == "red, and white"


@pytest.mark.parametrize("folder", ["", ".", "/", "/photos", "a/b", ".."])
@pytest.mark.parametrize(
    "image",
    [
        *("a.jpg", "a/b.jpg", "./a.jpg", "../a.jpg", "a//b.jpg", "a/./b.jpg", "a/../b.jpg", "/a.jpg"),
        *("a/", "", ".a", "a/.b", "a.", "한글/셔츠 1.jpg"),
    ],
)
def test_where_a_photo_is(folder: str, image: str) -> None:
    assert ProductRow(image, Path(folder), "p").location == str(Path(folder, image))
