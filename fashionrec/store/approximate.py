"""An approximate index over image vectors: memory-mapped, and used to propose candidates.

Two kinds, both of FAISS. ``ivf``: inverted lists with one bit per dimension (RaBitQ,
arXiv:2405.12497). ``hnsw``: a neighbour graph (arXiv:1603.09320) over 8 bits per dimension. Neither
contains the full vectors: candidates are scored again with those in the segments.

Some vectors are held out of every index. They are searched exactly in addition to it, and serve as
the queries that measure it.
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
_DAMAGED = "rebuild it with `fashionrec catalogue reindex`, or get another copy of the catalogue"
_GOLDEN = (5**0.5 - 1) / 2


def held_out_rows(count: int, questions: int) -> np.ndarray:
    """Return which of ``count`` rows are held out of an index, int64 ascending.

    They are at most a tenth, evenly spread, aperiodic and reproducible (multiples of the golden
    ratio modulo one: Weyl's sequence).
    """
    wanted = min(questions, count // 10)
    if wanted == 0:
        return np.empty(0, np.int64)
    points = np.modf(np.arange(1, wanted + 1) * _GOLDEN)[0]
    return np.array(sorted(set((points * count).astype(np.int64).tolist())), np.int64)  # np.unique imports numpy.ma


@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """An index of the rows of some segments, except the held-out rows.

    Rows are numbered in the order of ``covers``. ``effort`` is nprobe (``ivf``) or efSearch
    (``hnsw``), ``candidates`` the number of rows it returns, ``depth`` the maximum number of
    results it may be used for, ``text`` whether queries of the text encoder may use it too.
    """

    kind: str
    native: Any
    covers: tuple[tuple[str, int], ...]
    left_out: np.ndarray
    search_width: int
    candidates: int
    depth: int
    text: bool = False

    @property
    def count(self) -> int:
        """The number of rows in the covered segments, including those held out."""
        return sum(count for _, count in self.covers)

    def tuned(self, effort: int, candidates: int) -> ApproximateIndex:
        return replace(self, search_width=effort, candidates=candidates)

    def rows(self, query: np.ndarray) -> np.ndarray:
        """Return at most ``candidates`` rows, int64 [m], unordered, for a float32 [1, d] query."""
        faiss = load_faiss()
        if self.kind == "hnsw":
            params = faiss.SearchParametersHNSW(efSearch=self.search_width)
        else:
            params = faiss.IVFRaBitQSearchParameters()
            params.nprobe, params.qb = self.search_width, 8
        _, found = self.native.search(query, min(self.candidates, int(self.native.ntotal)), params=params)
        numbers = found[0][found[0] >= 0]
        if numbers.size and int(numbers.max()) >= self.native.ntotal:
            raise CatalogueError("catalogue is damaged: its index refers to missing vectors", hint=_DAMAGED)
        # row numbers skip those held out of the index
        before = self.left_out - np.arange(len(self.left_out))
        return np.asarray(numbers + np.searchsorted(before, numbers, side="right"))


def payload(kind: str, count: int, dim: int) -> int:
    """Return the number of bytes at the end of an index file that cannot cause harm.

    These are codes and row numbers.
    """
    return count * (dim if kind == "hnsw" else (dim + 7) // 8 + 8 + 8)


def head_digest(path: Path, size: int) -> str:
    """Return the sha256 of the first ``size`` bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def open_index(root: Path, entry: IndexEntry, segments: Mapping[str, SegmentEntry]) -> ApproximateIndex | None:
    """Open the index of a manifest's ``index`` entry; return None for exact search.

    It is memory-mapped; only its structure (centroids and sizes of lists, or a graph's edges) is
    hashed, so that no changed byte can crash FAISS.

    Raises:
        CatalogueError: The file is damaged, or does not match the entry or the ``segments``.
    """
    faiss = load_faiss()
    if entry.path is None:
        return None
    path, kind, size, covers = root / entry.path / INDEX, entry.kind, entry.bytes, entry.covers
    try:
        head_size, head_sha256 = int(entry.head["bytes"]), str(entry.head["sha256"])
        dims = {segments[name].dim for name, _ in covers}
        fits = len(dims) == 1 and all(segments[name].count == count for name, count in covers)
        left_out = held_out_rows(sum(count for _, count in covers), int(entry.parameters["left_out"]))
        numbers = [int(entry.parameters[key]) for key in ("effort", "candidates", "depth")]
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogueError(f"catalogue is damaged: invalid index entry of {path}: {error!r}", hint=AGAIN) from None
    if not fits:
        raise CatalogueError(f"catalogue is damaged: {path} does not match the segments of the manifest", hint=_DAMAGED)
    try:
        found = path.stat().st_size
        whole = found == size and head_digest(path, head_size) == head_sha256
    except OSError as error:
        raise CatalogueError(f"catalogue is damaged: {path}: {error.strerror}", hint=_DAMAGED) from None
    if not whole:
        raise CatalogueError(f"catalogue is damaged: {path} has changed since it was written", hint=_DAMAGED)
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
        raise CatalogueError(f"catalogue is damaged: the parts of {path} are inconsistent", hint=_DAMAGED)
    effort, candidates, depth = numbers
    return ApproximateIndex(kind, native, covers, left_out, effort, candidates, depth, bool(entry.text))


def _is_sound(native: Any) -> bool:
    """Return whether the parts of inverted lists are consistent.

    FAISS does not check this (unlike the edges of a graph). The manifest's hashes do not prove it:
    whoever forges an index can update them.
    """
    lists, quantizer, count = native.invlists, native.quantizer, int(native.nlist)
    return (
        (int(quantizer.ntotal), int(quantizer.d), int(lists.nlist)) == (count, int(native.d), count)
        and int(lists.code_size) == int(native.code_size)
        and sum(int(lists.list_size(n)) for n in range(count)) == int(native.ntotal)
    )
