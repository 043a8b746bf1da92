"""The one reader of product tables: the records of a CSV, TSV, JSONL or Parquet file, and the lines
that they stand on.

Columns of CSV whose every value is a number are numbers ("00123" stays text); empty cells are left
out. What the columns mean is for :mod:`fashionrec.products.columns`.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fashionrec.common.documents import DocumentError, iter_jsonl, parse_json
from fashionrec.errors import DataError
from fashionrec.products.parquet import read_parquet

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

#: Bytes of one line of JSON: a thousand times what a product has.
_MAX_LINE = 8 << 20

_INTEGER = re.compile(r"^[+-]?(0|[1-9]\d{0,17})$")
_NUMBER = re.compile(r"^[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?$")


@dataclass(frozen=True)
class Table:
    """The records of a table, and for each the line of the file where it begins.

    Lines count from 1, the header of a CSV file included; Parquet has no lines: there it is the
    number of the row.
    """

    path: Path
    records: list[dict[str, Any]]
    lines: Sequence[int]

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in the order of the file."""
        return list(dict.fromkeys(key for record in self.records for key in record))


def is_table(path: Path) -> bool:
    """Return whether a path names a product table by its suffix."""
    return path.suffix.lower() in TABLE_SUFFIXES


def read_table(path: Path, text: Collection[str] = ()) -> Table:
    """Read a table. ``image``, ``product_id`` and the columns ``text`` of CSV stay text though all
    their values are numbers.

    Raises :class:`DataError` if the table is missing, is of no known kind, cannot be read, or has
    no rows.
    """
    if not path.exists():
        hint = "check the path" if is_table(path) else "give a folder of photos, or a CSV, JSONL or Parquet table"
        raise DataError(f"no such file or folder: {path}", hint=hint)
    if not is_table(path):
        raise DataError(
            f"{path} is neither a folder of photos nor a table", hint=f"tables end in {', '.join(TABLE_SUFFIXES)}"
        )
    lines = array("Q")
    records: list[dict[str, Any]] = []
    try:
        for line, record in _records(path, text):
            lines.append(line)
            records.append(record)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="tables are UTF-8 CSV, JSONL or Parquet") from None
    if not records:
        raise DataError(f"{path} has no rows")
    return Table(path, records, lines)


def split_list(text: str) -> list[str]:
    """The entries of a plain list: one a line, blank lines left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _records(path: Path, text: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from _read_csv(path.read_bytes(), "\t" if suffix == ".tsv" else ",", text)
    elif suffix == ".parquet":
        yield from enumerate(map(_plain, read_parquet(path).to_dict("records")), start=1)
    else:
        for number, line in iter_jsonl(path, limit=_MAX_LINE, encoding="utf-8-sig"):
            yield number, _plain(_object(path, number, line))


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = parse_json(line, parse_float=_finite, parse_constant=_finite)
    except DocumentError as error:
        raise DocumentError(f"line {number}: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}, line {number}: every line must be a JSON object")
    return record


def _finite(text: str) -> float | None:
    """None for what is no number (JSON has neither NaN nor Infinity, but some write them)."""
    value = float(text)
    return value if math.isfinite(value) else None


def _read_csv(data: bytes, delimiter: str, text: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read twice, what its columns hold and then its rows, so that every value is in memory once.

    A column's name is one object for all rows; of two columns of one name the last counts.
    """
    rows = _rows(data, delimiter)
    header = next(rows, (1, []))[1]
    places = {name: place for place, name in enumerate(header) if name}
    kinds: dict[str, set[type]] = {name: set() for name in places}
    left = [(name, place) for name, place in places.items() if name not in ("image", "product_id", *text)]
    for _, row in rows:
        for name, place in left:
            if place < len(row) and (value := row[place].strip()):
                kinds[name].add(_kind(value))
        if any(str in kinds[name] for name, _ in left):  # whatever else it holds
            left = [(name, place) for name, place in left if str not in kinds[name]]
    numbers = dict(left)
    converters = [
        (name, place, (float if float in kinds[name] else int) if name in numbers else None)
        for name, place in places.items()
    ]
    for line, row in islice(_rows(data, delimiter), 1, None):
        record: dict[str, Any] = {}
        for name, place, convert in converters:
            if place < len(row) and (value := row[place].strip()):
                record[name] = convert(value) if convert else value
        yield line, record


def _rows(data: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The header, and each row that is not blank, with the line where it begins."""
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter)
        line = 1
        try:
            for number, row in enumerate(rows):
                if row or not number:
                    yield line, row
                line = rows.line_num + 1
        except csv.Error as error:
            raise csv.Error(f"line {rows.line_num}: {error}") from None


def _kind(value: str) -> type:
    """Return the type of a value. Numbers that floats cannot represent (too large, or codes with
    too many digits) stay text.
    """
    if _INTEGER.match(value):
        return int
    if not _NUMBER.match(value) or not math.isfinite(float(value)) or value.lstrip("+-").isdigit():
        return str
    return float


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON-ready values: numpy scalars and timestamps of a Parquet table become plain ones, missing
    ones are left out.
    """
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
