"""An approximate index over image vectors: opened by mapping, asked for candidates.

Two kinds, both of FAISS. ``ivf``: the vectors in lists around centroids, one bit a dimension (RaBitQ, arXiv:2405.12497).
``hnsw``: a graph of neighbours (arXiv:1603.09320) over vectors of 8 bits a dimension. Neither holds the raw vectors:
candidates are scored again from those in the segments.

Some vectors are left out of every index. They are searched exactly beside it, and are the questions that the index is
measured with: it has never seen them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.errors import CatalogueError
from fashionrec.store.manifest import IndexEntry, SegmentEntry
from fashionrec.store.rows import AGAIN
from fashionrec.store.segments import load_faiss, read_mapped

INDEX = "index.faiss"
_DAMAGED = "build it again with `fashionrec catalogue reindex`, or copy the catalogue again"
_GOLDEN = (5**0.5 - 1) / 2


def left_out_rows(count: int, questions: int) -> np.ndarray:
    """Which of ``count`` rows are left out of an index, int64 ascending: spread evenly, in step with nothing, always the same.

    No more than a tenth of them. (Multiples of the golden ratio, modulo one: Weyl's sequence.)
    """
    wanted = min(questions, count // 10)
    if wanted == 0:
        return np.empty(0, np.int64)
    points = np.modf(np.arange(1, wanted + 1) * _GOLDEN)[0]
    return np.array(sorted(set((points * count).astype(np.int64).tolist())), np.int64)  # np.unique imports numpy.ma


@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """An index of the rows of some segments, counted through in the order of ``covers``, but those left out.

    ``effort`` is how many lists (``ivf``) or nodes (``hnsw``) a search looks into, ``candidates`` how many rows it gives,
    ``depth`` the most results that it may be used for, ``text`` whether queries of the text tower may use it too.
    """

    kind: str
    native: Any
    covers: tuple[tuple[str, int], ...]
    left_out: np.ndarray
    effort: int
    candidates: int
    depth: int
    text: bool = False

    @property
    def count(self) -> int:
        """Rows of the segments covered, those left out included."""
        return sum(count for _, count in self.covers)

    def tuned(self, effort: int, candidates: int) -> ApproximateIndex:
        return replace(self, effort=effort, candidates=candidates)

    def rows(self, query: np.ndarray) -> np.ndarray:
        """Rows that may be nearest to a float32 [1, d] query, int64 [m], in no order; no more than ``candidates``."""
        faiss = load_faiss()
        if self.kind == "hnsw":
            params = faiss.SearchParametersHNSW(efSearch=self.effort)
        else:
            params = faiss.IVFRaBitQSearchParameters()
            params.nprobe, params.qb = self.effort, 8
        _, found = self.native.search(query, min(self.candidates, int(self.native.ntotal)), params=params)
        numbers = found[0][found[0] >= 0]
        if numbers.size and int(numbers.max()) >= self.native.ntotal:
            raise CatalogueError("catalogue is damaged: its index names vectors that are not there", hint=_DAMAGED)
        # numbers count through the rows that are in the index: step over those that are not
        before = self.left_out - np.arange(len(self.left_out))
        return np.asarray(numbers + np.searchsorted(before, numbers, side="right"))


def payload(kind: str, count: int, dim: int) -> int:
    """Bytes at the end of an index file that may be anything without harm: codes, and the numbers of rows."""
    return count * (dim if kind == "hnsw" else (dim + 7) // 8 + 8 + 8)


def head_digest(path: Path, size: int) -> str:
    """sha256 of the first ``size`` bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def open_index(root: Path, entry: IndexEntry, segments: Mapping[str, SegmentEntry]) -> ApproximateIndex | None:
    """The index that a manifest's ``index`` entry speaks of; None where its vectors are searched exactly.

    Mapped, not read; only what links its parts (centroids, the sizes of lists; a graph's edges) is hashed, so that no
    changed byte can lead FAISS astray. Raises :class:`CatalogueError` where the file is damaged, or is not what the entry or
    the ``segments`` say.
    """
    faiss = load_faiss()
    if entry.path is None:
        return None
    path, kind, size, covers = root / entry.path / INDEX, entry.kind, entry.bytes, entry.covers
    try:
        head_size, head_sha256 = int(entry.head["bytes"]), str(entry.head["sha256"])
        dims = {segments[name].dim for name, _ in covers}
        fits = len(dims) == 1 and all(segments[name].count == count for name, count in covers)
        left_out = left_out_rows(sum(count for _, count in covers), int(entry.parameters["left_out"]))
        numbers = [int(entry.parameters[key]) for key in ("effort", "candidates", "depth")]
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogueError(f"catalogue is damaged: what it says of {path}: {error!r}", hint=AGAIN) from None
    if not fits:
        raise CatalogueError(f"catalogue is damaged: {path} is an index of other segments", hint=_DAMAGED)
    try:
        found = path.stat().st_size
        whole = found == size and head_digest(path, head_size) == head_sha256
    except OSError as error:
        raise CatalogueError(f"catalogue is damaged: {path}: {error.strerror}", hint=_DAMAGED) from None
    if not whole:
        raise CatalogueError(f"catalogue is damaged: {path} is not the file that was written", hint=_DAMAGED)
    native = read_mapped(path, size)
    count, dim = sum(count for _, count in covers) - len(left_out), dims.pop()
    wanted = {"hnsw": faiss.IndexHNSWSQ, "ivf": faiss.IndexIVFRaBitQ}.get(kind, ())
    if not isinstance(native, wanted) or native.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise CatalogueError(f"catalogue is damaged: {path} is not of kind {kind}", hint=_DAMAGED)
    if (native.ntotal, native.d) != (count, dim):
        raise CatalogueError(
            f"catalogue is damaged: {path} holds {native.ntotal} vectors of length {native.d}, not {count} of {dim}",
            hint=_DAMAGED,
        )
    if kind == "ivf" and not _is_sound(native):
        raise CatalogueError(f"catalogue is damaged: the parts of {path} do not fit together", hint=_DAMAGED)
    effort, candidates, depth = numbers
    return ApproximateIndex(kind, native, covers, left_out, effort, candidates, depth, bool(entry.text))


def _is_sound(native: Any) -> bool:
    """Whether the parts of lists of vectors fit together: FAISS checks the edges of a graph when it reads it, and not these.

    The hashes of the manifest are no proof: who forges an index writes them anew.
    """
    lists, quantizer, count = native.invlists, native.quantizer, int(native.nlist)
    return (
        (int(quantizer.ntotal), int(quantizer.d), int(lists.nlist)) == (count, int(native.d), count)
        and int(lists.code_size) == int(native.code_size)
        and sum(int(lists.list_size(n)) for n in range(count)) == int(native.ntotal)
    )
