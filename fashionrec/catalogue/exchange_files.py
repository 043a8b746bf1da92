"""Tables and arrays of an export, with a few rows in memory at a time, whatever the catalogue's
size.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from fashionrec.common.batches import batched
from fashionrec.common.text import plural
from fashionrec.errors import DataError

if TYPE_CHECKING:
    from fashionrec.store.vectors import VectorStore

#: Rows per row group of a table: an item has some 15 KB.
_ROWS = 1024
#: Vectors read at a time.
_BLOCK = 1024
_MOST_OFF = 1e-3  # maximum deviation of a vector's length from 1


class SparseColumn(NamedTuple):
    """An optional column: an ``example`` of its values, and whether ``some`` rows have one, or
    ``every`` row does.
    """

    example: Any
    some: bool
    every: bool


def write_rows(path: Path, rows: Iterable[dict[str, Any]], sparse: Mapping[str, SparseColumn] = {}) -> None:
    """Write rows as a Parquet file with the types that pandas would find in the whole table.

    The first rows cannot tell the types of ``sparse`` columns.
    """
    import pandas
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    groups = batched(rows, _ROWS)
    first = next(groups, [])
    examples = [
        row | {name: column.example if has else None for (name, column), has in zip(sparse.items(), told, strict=True)}
        for row in first[:1]
        for told in ([column.some for column in sparse.values()], [column.every for column in sparse.values()])
    ]
    schema = pyarrow.Table.from_pandas(pandas.DataFrame(examples), preserve_index=False).schema
    with ParquetWriter(path, schema) as writer:
        writer.write_table(pyarrow.Table.from_pylist(first, schema=schema))
        del first, examples
        for group in groups:
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def write_header(file: IO[bytes], count: int, dim: int) -> None:
    """Write the header of an array of vectors, float32 [count, dim], as ``numpy.save`` does; their
    bytes follow.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
    np.lib.format.write_array_header_1_0(file, header)


class VectorRows:
    """Assigns rows of a new array to positions of a store, in the order of first use.

    ``positions`` are those of the rows so far.
    """

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._rows = np.full(len(store), -1, np.int64)
        self.positions = array("q")

    def row(self, place: tuple[str, int]) -> int:
        """Return the row of a (segment, row) place. Raises :class:`CatalogueError` if there is no
        vector.
        """
        position = self._store.position(*place)
        if self._rows[position] < 0:
            self._rows[position] = len(self.positions)
            self.positions.append(position)
        return int(self._rows[position])


class VectorFile:
    """An array of unit vectors, float32 [count, dim], read in blocks. Raises :class:`DataError` if
    it is invalid.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not an array of vectors: {error}", hint="export it again") from None
        if vectors.ndim != 2 or len(vectors) != count or vectors.dtype != np.float32:
            raise DataError(f"{path} holds {vectors.dtype} {vectors.shape}, not float32 of {plural(count, 'row')}")
        self.count, self.dim = vectors.shape
        del vectors  # pages of a mapped file stay in memory as long as it is mapped
        self._block = lru_cache(16)(self._read)
        for number in range(-(-self.count // _BLOCK)):
            if not (abs(np.linalg.norm(self._read(number), axis=1) - 1) < _MOST_OFF).all():
                raise DataError(f"{path}: not all vectors have unit length")

    def __getitem__(self, row: int) -> np.ndarray:
        """Return a vector, float32 [dim]."""
        vector: np.ndarray = self._block(row // _BLOCK)[row % _BLOCK]
        return vector

    def _read(self, number: int) -> np.ndarray:
        mapped = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped[number * _BLOCK : (number + 1) * _BLOCK])


class StagedGarments:
    """The garments of an export by photo, in a temporary file, because items come in another order.

    A context manager that deletes the file.
    """

    #: Older exports have no ``caption_words``.
    COLUMNS = (
        *("photo", "position", "class_name", "confidence", "x1", "y1", "x2", "y2", "whole_photo", "image_vector"),
        *("caption_vector", "caption_en", "caption_ko", "attributes", "embedding_text", "captioner", "thumbnail"),
        "caption_words",
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(f"CREATE TABLE garments ({', '.join(self.COLUMNS)}, UNIQUE (photo, position))")
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)

    def add(self, item: Mapping[str, Any]) -> None:
        """Add the garment of an item, unless another item has added it."""
        values = [item[name] for name in self.COLUMNS[:-1]]
        values[1] = int(values[1])
        holes = ", ".join("?" * len(self.COLUMNS))
        self._db.execute(f"INSERT OR IGNORE INTO garments VALUES ({holes})", (*values, item.get("caption_words")))

    def of_photo(self, photo: str) -> list[dict[str, Any]]:
        """Return the garments of a photo, by position."""
        rows = self._db.execute("SELECT * FROM garments WHERE photo = ? ORDER BY position", (photo,))
        return [dict(zip(self.COLUMNS, row, strict=True)) for row in rows]
