"""Tables and arrays of an export, a few rows in memory at a time, whatever the size of the catalogue."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from fashionrec.common.batches import batched
from fashionrec.errors import DataError

if TYPE_CHECKING:
    from fashionrec.store.vectors import VectorStore

#: Rows of a table that are written together, a row group: an item has some 15 KB.
_ROWS = 1024
#: Vectors that are read together.
_BLOCK = 1024
_MOST_OFF = 1e-3  # how far from 1 a vector's length may be


class SparseColumn(NamedTuple):
    """A column that may be empty: an ``example`` of its values, and whether ``some`` rows have one, or ``every`` row has."""

    example: Any
    some: bool
    every: bool


def write_rows(path: Path, rows: Iterable[dict[str, Any]], sparse: Mapping[str, SparseColumn] = {}) -> None:
    """Write rows as a Parquet file, with the types that pandas finds in the whole table: those of ``sparse`` columns are not
    told by the first rows."""
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
    """Begin an array of vectors, float32 [count, dim], as ``numpy.save`` does; their bytes follow."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
    np.lib.format.write_array_header_1_0(file, header)


class VectorRows:
    """Rows of an array to be: each position of a store has the next one when it is first asked for.

    ``positions`` are those of the rows so far.
    """

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._rows = np.full(len(store), -1, np.int64)
        self.positions = array("q")

    def row(self, place: tuple[str, int]) -> int:
        """The row of a (segment, row) place. Raises :class:`CatalogueError` where no vector is there."""
        position = self._store.position(*place)
        if self._rows[position] < 0:
            self._rows[position] = len(self.positions)
            self.positions.append(position)
        return int(self._rows[position])


class VectorFile:
    """An array of unit vectors, float32 [count, dim], read in blocks. Raises :class:`DataError` where it is none."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not an array of vectors: {error}", hint="export it again") from None
        if vectors.ndim != 2 or len(vectors) != count or vectors.dtype != np.float32:
            raise DataError(f"{path} holds {vectors.dtype} {vectors.shape}, not float32 of {count} rows")
        self.count, self.dim = vectors.shape
        del vectors  # what is read of a mapped file stays in memory as long as it is mapped
        self._block = lru_cache(16)(self._read)
        for number in range(-(-self.count // _BLOCK)):
            if not (abs(np.linalg.norm(self._read(number), axis=1) - 1) < _MOST_OFF).all():
                raise DataError(f"{path} holds vectors that are not of unit length")

    def __getitem__(self, row: int) -> np.ndarray:
        """A vector, float32 [dim]."""
        vector: np.ndarray = self._block(row // _BLOCK)[row % _BLOCK]
        return vector

    def _read(self, number: int) -> np.ndarray:
        mapped = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped[number * _BLOCK : (number + 1) * _BLOCK])


class StagedGarments:
    """The garments of an export by photo: a file for the time of an import, since the items come in an order of their own.

    A context manager that takes the file away.
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
        """Take in the garment of an item, unless another item has brought it."""
        values = [item[name] for name in self.COLUMNS[:-1]]
        values[1] = int(values[1])
        holes = ", ".join("?" * len(self.COLUMNS))
        self._db.execute(f"INSERT OR IGNORE INTO garments VALUES ({holes})", (*values, item.get("caption_words")))

    def of_photo(self, photo: str) -> list[dict[str, Any]]:
        """The garments of a photo, by position."""
        rows = self._db.execute("SELECT * FROM garments WHERE photo = ? ORDER BY position", (photo,))
        return [dict(zip(self.COLUMNS, row, strict=True)) for row in rows]
