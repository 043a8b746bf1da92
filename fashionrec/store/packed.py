"""Arrays in an items file: written in pieces, and validated before use.

``owner`` says what an array belongs to: ``items``, ``words``, or ``column:`` and its name. ``size``
is that of the decompressed content.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fashionrec.store.rows import DamagedRow, typed

#: Values per piece. A piece is read as a whole, so postings use small ones.
_PIECE = 1 << 20
POSTINGS_PIECE = 1 << 14
_DTYPES = {name: np.dtype(f"<{name}") for name in ("u1", "u2", "u4", "i8", "f8")}
#: Compression is used if it saves space, and only up to this ratio: a small file cannot fill the
#: memory.
_MOST_INFLATED = 20
_COMPRESSED_FROM = 1 << 12

#: Runs a statement; rows are read lazily, so that endless ones of a forged file do not fill the
#: memory.
Ask = Callable[[str, Sequence[Any]], Iterable[Any]]


def narrow(values: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return integers in the smallest unsigned type that fits; int64 if none does."""
    array = np.asarray(values, np.int64)
    if not len(array) or array.min() < 0:
        return array
    most = int(array.max())
    for bits, dtype in ((8, np.uint8), (16, np.uint16), (32, np.uint32)):
        if most < 1 << bits:
            return array.astype(dtype)
    return array


def write_array(
    db: sqlite3.Connection, owner: str, part: int, kind: str, array: np.ndarray, *, piece: int = _PIECE
) -> None:
    """Write an array of one part; an empty one is not written."""
    dtype = array.dtype.str[1:]
    for n, start in enumerate(range(0, len(array), piece)):
        content = array[start : start + piece].astype(_DTYPES[dtype], copy=False).tobytes()
        size = len(content)
        if dtype == "u1" and size > _COMPRESSED_FROM:  # texts, and codes of few values
            packed = zlib.compress(content, 1)
            if size // _MOST_INFLATED <= len(packed) < size * 0.8:
                content = packed
        db.execute("INSERT INTO arrays VALUES (?, ?, ?, ?, ?, ?, ?)", (owner, part, kind, n, dtype, size, content))


def read_arrays(ask: Ask, owner: str, part: int, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """Read one-dimensional arrays of one part; missing ones are empty.

    Raises:
        DamagedRow: An array is invalid or incomplete.
    """
    holes = ", ".join("?" * len(kinds))
    sql = (
        f"SELECT kind, piece, dtype, size, content FROM arrays WHERE owner = ? AND part = ? AND kind IN ({holes})"
        " ORDER BY kind, piece"
    )
    pieces: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
    for kind, piece, dtype, size, content in typed(ask(sql, (owner, part, *kinds)), (str, int, str, int, bytes)):
        if piece != len(pieces[kind]):
            raise DamagedRow(f"a piece of the {kind} of {owner} is missing")
        pieces[kind].append(_array(dtype, size, content))
    empty = np.zeros(0, np.uint8)
    return {kind: _joined(found) if found else empty for kind, found in pieces.items()}


def read_slice(ask: Ask, owner: str, part: int, kind: str, start: int, stop: int, piece: int) -> np.ndarray:
    """Return the values ``start`` to ``stop`` of an array written in pieces of ``piece``.

    Raises:
        DamagedRow: The array is invalid or incomplete.
    """
    if start == stop:
        return np.zeros(0, np.uint32)
    first, last = start // piece, (stop - 1) // piece
    sql = (
        "SELECT piece, dtype, size, content FROM arrays WHERE owner = ? AND part = ? AND kind = ?"
        " AND piece BETWEEN ? AND ? ORDER BY piece"
    )
    pieces: list[np.ndarray] = []
    for number, *content in typed(ask(sql, (owner, part, kind, first, last)), (int, str, int, bytes)):
        if number != first + len(pieces):
            break
        pieces.append(_array(*content))
    found = _joined(pieces)[start - first * piece : stop - first * piece] if pieces else np.zeros(0)
    if len(pieces) != last - first + 1 or len(found) != stop - start:
        raise DamagedRow(f"a piece of the {kind} of {owner} is missing")
    return found


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    if len({one.dtype for one in pieces}) > 1:
        raise DamagedRow("an array has several types")
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _array(dtype: str, size: int, content: bytes) -> np.ndarray:
    if dtype not in _DTYPES:
        raise DamagedRow(f"an array of unknown type {dtype[:20]!r}")
    if size != len(content):
        if not 0 < size <= _MOST_INFLATED * (len(content) + 1):
            raise DamagedRow("an array has the wrong size")
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(content, size)
        except zlib.error as error:
            raise DamagedRow(f"an array cannot be decompressed: {error}") from None
        if len(content) != size or inflater.unconsumed_tail or not inflater.eof:
            raise DamagedRow("an array has the wrong size")
    if size % _DTYPES[dtype].itemsize:
        raise DamagedRow("an array ends within a value")
    return np.frombuffer(content, _DTYPES[dtype])
