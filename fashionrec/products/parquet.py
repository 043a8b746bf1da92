"""Read untrusted Parquet tables in small batches, with limits on decoded size.

A column with one long text, or one number, repeated millions of times takes a few bytes in the file
and gigabytes in memory: run lengths and dictionaries multiply beyond compression.
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

#: Maximum decoded size of any table, and the factor over its size for larger ones: honest ones stay
#: below 20.
_BYTES, _TIMES = 128 << 20, 100
#: Maximum rows of any table. Larger files may have one per byte: a product has its own id and
#: photo.
_ROWS = 10_000
_BATCH = 1_000
_TOO_LARGE = "is it the right file? if so, save it as CSV or JSONL"


def read_parquet(path: Path) -> pandas.DataFrame:
    """Return the table in a Parquet file, as pandas reads it.

    Raises :class:`DataError` beyond the limits.
    """
    pandas: Any = load("pandas", what="reading a Parquet table", packages=("pandas", "pyarrow"))
    with _errors_as_values(), path.open("rb") as file:
        for _ in _batches(path, file):
            pass
        frame: pandas.DataFrame = pandas.read_parquet(file)
    return frame


def stream_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file with at most one row group in memory, missing values as
    None, restricted to ``columns``.

    Raises like :func:`read_parquet` when it reaches the row.
    """
    with _errors_as_values(), path.open("rb") as file:
        for batch in _batches(path, file, columns):
            for row in batch.to_pylist():
                yield {name: None if value != value else value for name, value in row.items()}


@contextmanager
def _errors_as_values() -> Iterator[None]:
    """Raise Arrow's errors about a file as ``ValueError``: some are not, and some are an
    ``OSError`` without a system call.
    """
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(" ".join(str(error).split())[:200]) from None


def _batches(path: Path, file: BinaryIO, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the table in batches, with every text once per batch.

    Raises :class:`DataError` if they exceed the limits.
    """
    parquet: Any = load("pyarrow.parquet", what="reading a Parquet table", packages=("pandas", "pyarrow"))
    size = os.fstat(file.fileno()).st_size
    most = max(_BYTES, _TIMES * size)
    about = parquet.ParquetFile(file).metadata
    claimed = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
    if about.num_rows > max(_ROWS, size):
        raise DataError(f"{path} claims {about.num_rows:,} rows in {size:,} bytes", hint=_TOO_LARGE)
    if claimed > most:
        raise DataError(f"{path} has {size:,} bytes and decodes to {claimed >> 20:,} MiB", hint=_TOO_LARGE)
    # every text once, but counted as often as it is repeated
    known = [about.schema.column(n) for n in range(about.num_columns)]
    texts = [column.path for column in known if column.physical_type == "BYTE_ARRAY"]
    table = parquet.ParquetFile(file, read_dictionary=texts)
    total = 0
    for group in range(about.num_row_groups):  # otherwise Arrow keeps data of earlier row groups
        for batch in table.iter_batches(_BATCH, row_groups=[group], columns=columns):
            total += sum(map(_size, batch.columns))
            if total > most:
                raise DataError(
                    f"{path} has {size:,} bytes and decodes to more than {most >> 20:,} MiB", hint=_TOO_LARGE
                )
            yield batch


def _size(array: Any) -> int:
    """Return the bytes of an array's values with every text written out."""
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
