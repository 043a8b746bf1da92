"""Product tables: what `build-index` and `evaluate` are handed. A folder of photos, or CSV, JSONL or Parquet.

A table has a column ``image`` (relative to the file, or absolute), optionally ``product_id``, and further columns, which
become metadata. Columns whose every value is a number are numbers ("00123" stays text); empty cells are left out.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashionrec.common.documents import DocumentError, iter_jsonl, parse_json
from fashionrec.config import nearest
from fashionrec.errors import DataError
from fashionrec.photos.images import find_photos
from fashionrec.products.parquet import read_parquet

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

#: Bytes of one line of JSON: a thousand times what a product has.
_MAX_LINE = 8 << 20

_INTEGER = re.compile(r"^[+-]?(0|[1-9]\d{0,17})$")
_NUMBER = re.compile(r"^[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?$")


@dataclass(frozen=True, slots=True)
class ProductRow:
    """One photo of one product. ``image`` is as the table has it: below ``folder``, or absolute.

    A build holds all rows of its table, so a row is small: it has no ``Path`` of its own.
    """

    image: str
    folder: Path
    product_id: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def location(self) -> str:
        """``path`` as text."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.folder, self.image)


def is_table(path: Path) -> bool:
    """Whether a path names a product table by its suffix."""
    return path.suffix.lower() in TABLE_SUFFIXES


def read_products(source: Path) -> list[ProductRow]:
    """The rows of a folder of photos (each photo a product of its own) or of a product table.

    Raises :class:`DataError` if the source is missing, is of no known kind, has no column ``image``, or no rows.
    A row whose image is missing is kept: that is for the build to report.
    """
    if source.is_dir():
        rows = [_folder_row(source, path) for path in find_photos(source)]
        if not rows:
            raise DataError(f"no photos in {source}", hint="it should hold .jpg, .png, .webp ... files, at any depth")
        return rows
    records = read_records(source)
    columns = list(dict.fromkeys(key for record in records for key in record))
    if "image" not in columns:
        raise DataError(
            f"{source} has no column image, only {', '.join(columns[:12])}",
            hint=nearest("image", columns) or "name the column with the photos' paths image",
        )
    rows = []
    for record in records:
        image = str(record.pop("image", "") or "").strip()
        product = record.pop("product_id", None)
        product_id = image if product is None or str(product).strip() == "" else str(product).strip()
        rows.append(ProductRow(image, source.parent, product_id, record))
    return rows


def _folder_row(folder: Path, path: Path) -> ProductRow:
    image = path.relative_to(folder).as_posix()
    return ProductRow(image, folder, image, {})


def read_records(source: Path, text: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of a CSV, TSV, JSONL or Parquet table, as they are, without empty cells; ``text`` columns of CSV stay text.

    Raises :class:`DataError` if the table is missing, is of no known kind, cannot be read, or has no rows.
    """
    if not source.exists():
        raise DataError(f"no photos at {source}", hint="give a folder of photos, or a CSV, JSONL or Parquet table")
    if not is_table(source):
        raise DataError(
            f"{source} is neither a folder of photos nor a table", hint=f"tables end in {', '.join(TABLE_SUFFIXES)}"
        )
    records = _read_records(source, text)
    if not records:
        raise DataError(f"{source} has no rows")
    return records


def _read_records(source: Path, text: Collection[str]) -> list[dict[str, Any]]:
    suffix = source.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            return _read_csv(source.read_bytes(), "\t" if suffix == ".tsv" else ",", text)
        if suffix == ".parquet":
            return [_plain(record) for record in read_parquet(source).to_dict("records")]
        lines = iter_jsonl(source, limit=_MAX_LINE, encoding="utf-8-sig")
        return [_plain(_object(source, number, line)) for number, line in lines]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{source} cannot be read: {error}", hint="tables are UTF-8 CSV, JSONL or Parquet") from None


def _object(source: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = parse_json(line, parse_float=_finite, parse_constant=_finite)
    except DocumentError as error:
        raise DocumentError(f"line {number}: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{source}: every line must be a JSON object")
    return record


def _finite(text: str) -> float | None:
    """None for what is no number (JSON has neither NaN nor Infinity, but some write them)."""
    value = float(text)
    return value if math.isfinite(value) else None


def _read_csv(data: bytes, delimiter: str, text: Collection[str]) -> list[dict[str, Any]]:
    """Read twice, what its columns hold and then its rows, so that every value is in memory once.

    Columns of numbers become numbers; empty cells are left out; `image`, `product_id` and ``text`` are always text.
    """
    kinds: dict[str, set[type]] = {}
    for cells in _cells(data, delimiter):
        for column, value in cells:
            kinds.setdefault(column, set()).add(_kind(value))
    converters: dict[str, Any] = {}
    for column, found in kinds.items():
        plain = str in found or column in ("image", "product_id") or column in text
        converters[column] = str if plain else float if float in found else int
    return [{column: converters[column](value) for column, value in cells} for cells in _cells(data, delimiter)]


def _cells(data: bytes, delimiter: str) -> Iterator[Iterable[tuple[str, str]]]:
    """Of each row that is not empty its cells that are not: the column's name (one object for all rows) and the value."""
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter=delimiter):
            yield [(column, value.strip()) for column, value in row.items() if column and value and value.strip()]


def _kind(value: str) -> type:
    """What a value is. A number that is none in floats stays text: one beyond them, or a code of more digits than they keep."""
    if _INTEGER.match(value):
        return int
    if not _NUMBER.match(value) or not math.isfinite(float(value)) or value.lstrip("+-").isdigit():
        return str
    return float


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON-ready values: numpy scalars and timestamps of a Parquet table become plain ones, missing ones are left out."""
    plain = {}
    for key, value in record.items():
        if hasattr(value, "tolist"):  # a numpy scalar, or a list column's array
            value = value.tolist()
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if not isinstance(value, (str, int, float, bool, list, dict)):
            value = str(value)
            if value == "NaT":
                continue
        plain[sys.intern(str(key))] = value  # one string for all rows
    return plain
