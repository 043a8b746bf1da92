"""Segment files: full vectors, written as a stream and opened by memory mapping.

A segment is a file of FAISS, an ``IndexFlatIP`` (float32) or an ``IndexScalarQuantizer`` of half
floats (float16): the vectors after a short header, so that the one copy is searchable and other
indexes can be built from it without embedding again. Vectors have unit length, so the inner product
is the cosine.
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
#: Kind, dim, count, two numbers unused by FAISS, trained, metric (0 = inner product).
_HEAD = struct.Struct("<4siqqq?i")
#: The quantizer of half floats: its type, two unused settings, dim, bytes per vector, length of its
#: table.
_HALF = struct.Struct("<iifQQQ")
_UNUSED, _HALF_FLOATS = 1 << 20, 4
_TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
_BLOCK = 1 << 14  # rows converted at a time
_SAMPLE = 1 << 12  # rows for measuring the recall of half floats


class Written(NamedTuple):
    """The result of :func:`write_vectors`.

    ``float16_recall_at_10`` compares half floats with float32 (None for float32).
    """

    rows: int
    float16_recall_at_10: float | None


def load_faiss() -> Any:
    """Return FAISS, imported on first use.

    It is typed as Any, since its type stubs are incomplete.
    """
    import faiss

    return faiss


def header(count: int, dim: int, dtype: str) -> bytes:
    """Return the header of a segment file."""
    kind = b"IxFI" if dtype == "float32" else b"IxSQ"
    head = _HEAD.pack(kind, dim, count, _UNUSED, _UNUSED, True, 0)
    if dtype == "float32":
        return head + struct.pack("<Q", count * dim)
    return head + _HALF.pack(_HALF_FLOATS, 0, 0.0, dim, 2 * dim, 0) + struct.pack("<Q", count * dim * 2)


def write_vectors(
    path: Path, vectors: np.ndarray | Iterable[np.ndarray], dim: int | None = None, dtype: str = "float32"
) -> Written:
    """Write unit vectors as a segment file.

    Args:
        path: The file to write.
        vectors: One float array [n, d], or an iterable of them, of which one is in memory at a
            time.
        dim: Length of a vector; needed for an iterable.
        dtype: ``float32`` or ``float16``; the recall of half floats is measured on the first 4,096.

    Raises:
        OSError: The file could not be written completely (a full disk); it is removed.
    """
    chunks: Iterable[np.ndarray] = [vectors] if isinstance(vectors, np.ndarray) else vectors
    if dim is None:
        if not isinstance(vectors, np.ndarray):
            raise TypeError("blocks of vectors need dim")
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
    """Return the share of the ``k`` nearest among float32 rows that is preserved by half floats."""
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
    """Map a segment file.

    Its header must match byte by byte, and its size must match the header, so that no byte can
    change what FAISS does with the file. Changed vectors are only found by checksum (``catalogue
    verify``).

    Raises:
        CatalogueError: The file is damaged, or does not contain ``count`` x ``dim``.
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
        raise CatalogueError(f"catalogue is damaged: {path} is not a vector file", hint=AGAIN)
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
        raise CatalogueError(f"catalogue is damaged: {path} is not a vector file", hint=AGAIN)
    return index


def dtype_of(opened: Any) -> str:
    """Return ``float32`` or ``float16``: the type of an open segment file."""
    return "float32" if isinstance(opened, load_faiss().IndexFlat) else "float16"


def read_mapped(path: Path, size: int) -> Any:
    """Map an index file of FAISS. Raises :class:`CatalogueError` if FAISS cannot read it.

    FAISS reads sizes before the data they describe: no vector and no loop in it may be longer than
    the file itself.
    """
    faiss = load_faiss()
    faiss.set_deserialization_vector_byte_limit(max(size, 1 << 20))
    faiss.set_deserialization_loop_limit(max(size, 1 << 20))
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except Exception as error:  # FAISS raises RuntimeError with a C++ trace
        reason = (str(error).strip().splitlines() or ["?"])[-1][:160]
        raise CatalogueError(f"catalogue is damaged: {path} cannot be read ({reason})", hint=AGAIN) from None
