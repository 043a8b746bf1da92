"""Vectors in FAISS: immutable segments of raw float32 vectors, searched exactly, opened without being read.

A segment is a FAISS ``IndexFlatIP`` file: the raw vectors behind a short header, so that the one copy is searchable and
other indexes can be built from it without embedding again. Vectors are of unit length, so inner product is cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.errors import CatalogueError

VECTORS = "vectors.faiss"
#: FAISS reads sizes from the file before it reads what they measure: no vector of a catalogue is longer than this.
_READ_LIMIT = 1 << 34
_AGAIN = "copy the catalogue again, or build it again with `fashionrec build-index`"


def write_vectors(path: Path, vectors: np.ndarray) -> None:
    """Write float32 [n, d] unit vectors as a segment file."""
    import faiss

    index = faiss.IndexFlatIP(int(vectors.shape[1]))
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    faiss.write_index(index, str(path))


def open_vectors(path: Path, *, count: int, dim: int) -> Any:
    """Map a segment file. Raises :class:`CatalogueError` if it is damaged or does not hold ``count`` x ``dim``."""
    import faiss

    faiss.set_deserialization_vector_byte_limit(_READ_LIMIT)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except Exception as error:  # FAISS raises RuntimeError with a C++ trace
        reason = str(error).strip().splitlines()[-1][:160]
        raise CatalogueError(f"catalogue is damaged: {path} cannot be read ({reason})", hint=_AGAIN) from None
    if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise CatalogueError(f"catalogue is damaged: {path} is not a flat inner-product index", hint=_AGAIN)
    if (index.ntotal, index.d) != (count, dim):
        raise CatalogueError(
            f"catalogue is damaged: {path} holds {index.ntotal} vectors of length {index.d}, not {count} of {dim}",
            hint=_AGAIN,
        )
    return index


class VectorStore:
    """Several segments searched as one. A position counts through the segments in the order given."""

    def __init__(self, segments: Sequence[tuple[str, Any]]) -> None:
        self.names = [name for name, _ in segments]
        self.indexes = [index for _, index in segments]
        self.starts = np.cumsum([0, *(int(index.ntotal) for index in self.indexes)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` nearest by cosine of float32 [n, d] queries: scores float32 [n, k] and positions int64 [n, k].

        ``k`` is cut to the number of vectors. Best first; ties by position.
        """
        k = min(k, len(self))
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        scores, positions = [], []
        for start, index in zip(self.starts, self.indexes, strict=False):
            found, where = index.search(queries, min(k, int(index.ntotal)))
            scores.append(found)
            positions.append(where + start)
        score, position = np.concatenate(scores, axis=1), np.concatenate(positions, axis=1)
        order = np.lexsort((position, -score), axis=1)[:, :k]
        return np.take_along_axis(score, order, axis=1), np.take_along_axis(position, order, axis=1)

    def locate(self, position: int) -> tuple[str, int]:
        """Segment name and row of a position."""
        at = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.names[at], int(position - self.starts[at])

    def position(self, segment: str, row: int) -> int:
        """The position of a row of a segment."""
        return int(self.starts[self.names.index(segment)]) + row

    def fetch(self, positions: Sequence[int]) -> np.ndarray:
        """The vectors at some positions, float32 [n, d]."""
        rows = []
        for position in positions:
            name, row = self.locate(position)
            rows.append(self.indexes[self.names.index(name)].reconstruct(row))
        dim = int(self.indexes[0].d) if self.indexes else 0
        return np.stack(rows).astype(np.float32) if rows else np.empty((0, dim), np.float32)
