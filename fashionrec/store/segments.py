"""Segment files: raw vectors, written in a stream, opened without being read.

A segment is a file as FAISS writes an ``IndexFlatIP`` (float32) or an ``IndexScalarQuantizer`` of half floats (float16): the
raw vectors behind a short header, so that the one copy is searchable and other indexes can be built from it without
embedding again. Vectors are of unit length, so inner product is cosine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashionrec.errors import CatalogueError
from fashionrec.store.rows import AGAIN

VECTORS = "vectors.faiss"
#: Kind, dim, count, two numbers that FAISS leaves unused, trained, metric (0 = inner product).
_HEAD = struct.Struct("<4siqqq?i")
#: The quantizer of half floats: its type, two settings that it does not use, dim, bytes of a vector, length of its table.
_HALF = struct.Struct("<iifQQQ")
_UNUSED, _HALF_FLOATS = 1 << 20, 4
_TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
_BLOCK = 1 << 14  # rows converted at once
_SAMPLE = 1 << 12  # rows that the recall of half floats is measured on


class Written(NamedTuple):
    """What :func:`write_vectors` wrote. ``float16_recall_at_10`` is that of half floats against float32 (None for those)."""

    rows: int
    float16_recall_at_10: float | None


def load_faiss() -> Any:
    """FAISS, loaded when it is first needed. (The types that it comes with do not know all of it.)"""
    import faiss

    return faiss


def header(count: int, dim: int, dtype: str) -> bytes:
    """The bytes before the vectors of a segment file."""
    kind = b"IxFI" if dtype == "float32" else b"IxSQ"
    head = _HEAD.pack(kind, dim, count, _UNUSED, _UNUSED, True, 0)
    if dtype == "float32":
        return head + struct.pack("<Q", count * dim)
    return head + _HALF.pack(_HALF_FLOATS, 0, 0.0, dim, 2 * dim, 0) + struct.pack("<Q", count * dim * 2)


def write_vectors(
    path: Path, vectors: np.ndarray | Iterable[np.ndarray], dim: int | None = None, dtype: str = "float32"
) -> Written:
    """Write unit vectors as a segment file.

    ``vectors`` is one float array [n, d], or any number of them one after another, of which one is in memory at a time
    (``dim`` is then needed). ``dtype`` is ``float32`` or ``float16``; the recall of half floats is measured among the first
    4,096. What cannot be written whole is removed, and raises ``OSError`` (a full disk).
    """
    chunks: Iterable[np.ndarray] = [vectors] if isinstance(vectors, np.ndarray) else vectors
    if dim is None:
        if not isinstance(vectors, np.ndarray):
            raise TypeError("chunks of vectors need dim")
        dim = int(vectors.shape[1])
    count = 0
    sample: list[np.ndarray] = []
    try:
        with path.open("wb") as file:
            file.write(header(0, dim, dtype))
            for chunk in chunks:
                if chunk.ndim != 2 or chunk.shape[1] != dim:
                    raise ValueError(f"an array {chunk.shape} among vectors of length {dim}")
                if dtype == "float16" and count < _SAMPLE:
                    sample.append(np.array(chunk[: _SAMPLE - count], np.float32))
                for start in range(0, len(chunk), _BLOCK):
                    file.write(np.ascontiguousarray(chunk[start : start + _BLOCK], _TYPES[dtype]).data)
                count += len(chunk)
            file.seek(0)
            file.write(header(count, dim, dtype))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Written(count, _half_recall(np.concatenate(sample)) if sample else None)


def _half_recall(rows: np.ndarray, questions: int = 256, k: int = 10) -> float:
    """Of the ``k`` nearest among float32 rows, the share that is also nearest when the rows are half floats."""
    half = rows.astype(np.float16).astype(np.float32)
    asked = np.linspace(0, len(rows) - 1, min(questions, len(rows))).astype(int)
    k = min(k, len(rows) - 1)
    if k < 1:
        return 1.0
    kept = []
    for q in asked:
        full, rounded = rows @ rows[q], half @ rows[q]
        full[q] = rounded[q] = -2
        kept.append(len(np.intersect1d(np.argsort(-full, kind="stable")[:k], np.argsort(-rounded, kind="stable")[:k])))
    return round(float(np.mean(kept)) / k, 4)


def open_vectors(path: Path, *, count: int, dim: int) -> Any:
    """Map a segment file. Raises :class:`CatalogueError` if it is damaged or does not hold ``count`` x ``dim``.

    Its header must be, byte for byte, what such a file begins with, and its size what the header says: so that no byte can
    change what FAISS does with the file. Changed vectors are found by their checksum only (``catalogue verify``).
    """
    faiss = load_faiss()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_HEAD.size + _HALF.size + 8)
    except OSError as error:
        raise CatalogueError(f"catalogue is damaged: {path}: {error.strerror}", hint=AGAIN) from None
    dtype = next((name for name in _TYPES if start.startswith(header(0, dim, name)[:4])), None)
    if dtype is None:
        raise CatalogueError(f"catalogue is damaged: {path} is not a file of vectors", hint=AGAIN)
    expected = header(count, dim, dtype)
    if not start.startswith(expected):
        found = _HEAD.unpack(start[: _HEAD.size]) if len(start) >= _HEAD.size else (b"", 0, 0)
        raise CatalogueError(
            f"catalogue is damaged: {path} holds {found[2]} vectors of length {found[1]}, or its header has changed;"
            f" expected {count} of {dim}",
            hint=AGAIN,
        )
    whole = len(expected) + count * dim * _TYPES[dtype].itemsize
    if size != whole:
        raise CatalogueError(f"catalogue is damaged: {path} has {size} bytes, not {whole}", hint=AGAIN)
    index = read_mapped(path, size)
    if not isinstance(index, (faiss.IndexFlat, faiss.IndexScalarQuantizer)) or (index.ntotal, index.d) != (count, dim):
        raise CatalogueError(f"catalogue is damaged: {path} is not a file of vectors", hint=AGAIN)
    return index


def dtype_of(opened: Any) -> str:
    """``float32`` or ``float16``: how an opened segment file has its vectors."""
    return "float32" if isinstance(opened, load_faiss().IndexFlat) else "float16"


def read_mapped(path: Path, size: int) -> Any:
    """Map an index file of FAISS. Raises :class:`CatalogueError` where FAISS cannot make sense of it.

    FAISS reads sizes before what they measure: no vector and no loop in it may be longer than the file itself.
    """
    faiss = load_faiss()
    faiss.set_deserialization_vector_byte_limit(max(size, 1 << 20))
    faiss.set_deserialization_loop_limit(max(size, 1 << 20))
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except Exception as error:  # FAISS raises RuntimeError with a C++ trace
        reason = (str(error).strip().splitlines() or ["?"])[-1][:160]
        raise CatalogueError(f"catalogue is damaged: {path} cannot be read ({reason})", hint=AGAIN) from None
