"""The description of a dataset: a table with one row per box, counts and a fingerprint."""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fashionrec.common.extras import load
from fashionrec.common.files import write_atomic
from fashionrec.common.text import TableWriter
from fashionrec.dataset.prepare.split import SPLITS
from fashionrec.labels.data_yaml import DATA_YAML
from fashionrec.types import CLASS_NAMES

COLUMNS = tuple(
    "image_id image_path width height class_id class_name bbox_x_center bbox_y_center bbox_width bbox_height".split()
)
_ROWS = 50_000  # rows of the Parquet table per batch


@dataclass(frozen=True)
class TableImage:
    """A photo of a dataset; ``boxes`` are ``(class_id, x_center, y_center, width, height)``."""

    split: str
    path: str
    size: tuple[int, int]
    sha256: str
    boxes: tuple[tuple[int, float, float, float, float], ...]


def write_data_yaml(folder: Path, splits: Iterable[str]) -> None:
    """Write the data.yaml of a dataset. It has no ``path``: splits are relative to the file."""
    keys = {"train": "train", "valid": "val", "test": "test"}
    document: dict[str, Any] = {keys[split]: f"{split}/images" for split in splits}
    document |= {"nc": len(CLASS_NAMES), "names": dict(enumerate(CLASS_NAMES))}
    write_atomic(folder / DATA_YAML, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def write_table(folder: Path, images: Iterable[TableImage]) -> dict[str, Any]:
    """Write ``annotations.csv``, with pyarrow also ``.parquet``; return counts and fingerprint.

    The fingerprint is a sha256 over each photo's path, bytes and boxes, in the given order.
    """
    counts: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    digest = hashlib.sha256()
    parquet = _Parquet(folder / "annotations.parquet") if importlib.util.find_spec("pyarrow") else None
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.writerow(COLUMNS)
        for image in images:
            counts[image.split] += 1
            digest.update(image.path.encode() + b"\0" + bytes.fromhex(image.sha256))
            for number, *box in image.boxes:
                name = CLASS_NAMES[number]
                boxes[name] += 1
                digest.update(f"{number} {' '.join(f'{value:.6f}' for value in box)}\n".encode())
                identity = image.path.replace("/images/", "/", 1).rpartition(".")[0]
                row = (identity, image.path, *image.size, number, name, *(round(value, 6) for value in box))
                writer.writerow([*row[:6], *(f"{value:.6f}" for value in box)])
                if parquet:
                    parquet.add(row)
    if parquet:
        parquet.close()
    return {
        "counts": {
            **{split: counts[split] for split in SPLITS if counts[split]},
            **{name: boxes[name] for name in CLASS_NAMES},
        },
        "fingerprint": digest.hexdigest(),
    }


class _Parquet:
    """The same rows as a Parquet file, written in batches."""

    def __init__(self, path: Path) -> None:
        arrow = load("pyarrow", what="writing Parquet", packages=("pyarrow",))
        self._parquet = load("pyarrow.parquet", what="writing Parquet")
        kinds = (arrow.string(),) * 2 + (arrow.int32(),) * 3 + (arrow.string(),) + (arrow.float64(),) * 4
        self._schema = arrow.schema(list(zip(COLUMNS, kinds, strict=True)))
        self._arrow = arrow
        self._writer = self._parquet.ParquetWriter(path, self._schema)
        self._rows: list[tuple[Any, ...]] = []

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(COLUMNS)
        arrays = [self._arrow.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []
