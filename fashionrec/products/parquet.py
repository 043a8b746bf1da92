"""Parquet tables of others: read a few rows at a time, and only as many values as the file can
honestly hold.

A column of one long text, or of one number, repeated millions of times takes a few bytes in the
file and gigabytes when it is read: run lengths and dictionaries multiply what compression alone
cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fashionrec.common.extras import load
from fashionrec.errors import DataError

if TYPE_CHECKING:
    import pandas

#: What any table may decode to, and how many times its size a larger one may: honest ones stay
#: below 20 times.
_BYTES, _TIMES = 128 << 20, 100
#: Rows of any table. A larger file may have one for each of its bytes: a product has an id and a
#: photo of its own.
_ROWS = 10_000
_BATCH = 1_000
_TOO_LARGE = "is it the right file? write it again as CSV or JSONL if it is"


def read_parquet(path: Path) -> pandas.DataFrame:
    """The table in a Parquet file, as pandas reads it.

    Raises :class:`DataError` beyond the limits.
    """
    pandas: Any = load("pandas", what="reading a Parquet table", packages=("pandas", "pyarrow"))
    with _errors_as_values(), path.open("rb") as file:
        for _ in _batches(path, file):
            pass
        frame: pandas.DataFrame = pandas.read_parquet(file)
    return frame


def stream_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file one by one, those of a row group in memory at most, with what is
    missing as None; of ``columns`` those that there are. Raises as :func:`read_parquet`, when it
    comes to the row.
    """
    with _errors_as_values(), path.open("rb") as file:
        for batch in _batches(path, file, columns):
            for row in batch.to_pylist():
                yield {name: None if value != value else value for name, value in row.items()}


@contextmanager
def _errors_as_values() -> Iterator[None]:
    """What Arrow finds wrong in a file as ``ValueError``: some are none, and some are an
    ``OSError`` of no system call.
    """
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(" ".join(str(error).split())[:200]) from None


def _batches(path: Path, file: BinaryIO, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The table in batches, every text once in each.

    Raises :class:`DataError` where they hold more than a file may.
    """
    parquet: Any = load("pyarrow.parquet", what="reading a Parquet table", packages=("pandas", "pyarrow"))
    size = os.fstat(file.fileno()).st_size
    most = max(_BYTES, _TIMES * size)
    about = parquet.ParquetFile(file).metadata
    claimed = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
    if about.num_rows > max(_ROWS, size):
        raise DataError(f"{path} claims {about.num_rows:,} rows in {size:,} bytes", hint=_TOO_LARGE)
    if claimed > most:
        raise DataError(f"{path} has {size:,} bytes and unpacks to {claimed >> 20:,} MiB", hint=_TOO_LARGE)
    # every text once, and counted as often as it is repeated
    known = [about.schema.column(n) for n in range(about.num_columns)]
    texts = [column.path for column in known if column.physical_type == "BYTE_ARRAY"]
    table = parquet.ParquetFile(file, read_dictionary=texts)
    total = 0
    for group in range(about.num_row_groups):  # all at once, Arrow keeps what it has read of the groups before
        for batch in table.iter_batches(_BATCH, row_groups=[group], columns=columns):
            total += sum(map(_size, batch.columns))
            if total > most:
                raise DataError(f"{path} has {size:,} bytes and holds more than {most >> 20:,} MiB", hint=_TOO_LARGE)
            yield batch


def _size(array: Any) -> int:
    """Bytes of an array's values once every text is written out."""
    import pyarrow
    import pyarrow.compute as compute

    if isinstance(array, pyarrow.DictionaryArray):
        lengths = compute.binary_length(array.dictionary).cast("int64")
        return int(compute.sum(lengths.take(array.indices)).as_py() or 0) + int(array.indices.nbytes)
    if isinstance(array, pyarrow.MapArray):
        return _size(array.keys) + _size(array.items) + 4 * len(array)
    if isinstance(array, (pyarrow.ListArray, pyarrow.LargeListArray, pyarrow.FixedSizeListArray)):
        return _size(array.flatten()) + 4 * len(array)
    if isinstance(array, pyarrow.StructArray):
        return sum(map(_size, array.flatten()))
    return int(array.nbytes)
