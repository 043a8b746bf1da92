"""Draw the files of this folder: ``python examples/draw.py NEW_FOLDER``.

Needs the extra ``train``'s pandas and pyarrow for ``fetch-dataset``; nothing is downloaded.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COLUMNS = ("image", "product_id", "title", "category", "price", "currency", "brand", "color", "availability", "url")


def read(path: Path) -> list[dict[str, Any]]:
    """Read a CSV table as rows."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Write some columns of rows as a CSV table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(out: Path, **settings: object) -> None:
    """Draw a synthetic data set with some settings of the section ``synthetic``."""
    sets = [word for name, value in settings.items() for word in ("--set", f"synthetic.{name}={value}")]
    command = [sys.executable, "-m", "fashionrec", "fetch-dataset", "synthetic", "--out", str(out), "--quiet", *sets]
    subprocess.run(command, check=True)


def dataset(source: Path, out: Path) -> None:
    """Copy the labelled photos of a drawn data set: images, labels and data.yaml."""
    for split in ("train", "valid", "test"):
        shutil.copytree(source / split, out / split)
    shutil.copy(source / "data.yaml", out)


def table(source: Path, out: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Copy the photos of a table beside it, into a folder of the table's name; return its rows."""
    shutil.copytree(source.parent / "images", out.with_suffix(""))
    rows = [row | {"image": row["image"].replace("images/", f"{out.stem}/")} for row in read(source)]
    write(out, rows, columns)
    return rows


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir()
    with tempfile.TemporaryDirectory() as name:
        world, street = Path(name, "world"), Path(name, "street")
        draw(world, images=60, products=24, views=2, outfits=12, size=240, style="studio", seed=11)
        draw(street, images=40, products=0, queries=0, outfits=0, size=240, style="street", seed=12)
        dataset(world, out / "garments")
        dataset(street, out / "street")
        products = table(world / "catalogue" / "products.csv", out / "products.csv", COLUMNS)
        table(world / "queries" / "queries.csv", out / "queries.csv", ("image", "product_id", "category"))
        table(world / "outfits" / "outfits.csv", out / "outfits.csv", ("image", "product_id", "category"))
    first = {row["product_id"]: row for row in reversed(products)}
    texts = [
        {"product_id": product, "text": first[product][caption]}
        for product in sorted(first)
        for caption in ("caption_en", "caption_ko")
    ]
    write(out / "texts.csv", texts, ("product_id", "text"))
    stock = [
        {"product_id": product, "price": int(first[product]["price"]) - 1000, "availability": state}
        for product, state in zip(sorted(first), ("in_stock", "out_of_stock", "in_stock"), strict=False)
    ]
    write(out / "stock.csv", stock, ("product_id", "price", "availability"))
    shutil.copy(out / "queries" / "p00004_q1.jpg", out / "photo.jpg")


if __name__ == "__main__":
    main()
