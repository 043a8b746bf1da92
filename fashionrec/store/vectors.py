"""Search the vectors of several segments as one: exactly, or with an approximate index."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fashionrec.common.system import available_cores
from fashionrec.errors import CatalogueError
from fashionrec.store.manifest import IndexEntry, SegmentEntry
from fashionrec.store.rows import AGAIN
from fashionrec.store.segments import VECTORS, Written, dtype_of, load_faiss, open_vectors, write_vectors

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from fashionrec.store.approximate import ApproximateIndex

__all__ = ["VECTORS", "Cut", "VectorStore", "Written", "dtype_of", "open_store", "open_vectors", "write_vectors"]

#: Maximum pieces per thread: more than one, so that a thread delayed by other work does not delay
#: the answer.
_PIECES = 4
#: Queries per FAISS call: with more it multiplies matrices, whose rounding depends on their number.
_TOGETHER = 32
#: :attr:`Cut.few` for half floats, which are decoded for it, and for several queries, which are
#: better searched in one scan.
_FEW_HALVES, _FEW_TOGETHER = 64, 16
#: If one in this many or more is allowed, the allowed ones are picked from the best of all.
_MANY = 8
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


class Cut(NamedTuple):
    """Sizes by which a search is divided into pieces.

    ``piece`` is the number of bytes that one thread scans at a time, ``looked_up`` the same for
    rows looked up one by one, as for a query with fewer than one in ``few`` rows allowed, which
    reads less memory.
    """

    piece: int = 32 << 20
    looked_up: int = 4 << 20
    few: float = 2.5


class Part(NamedTuple):
    """Rows ``first`` up to ``last`` of one segment for one thread; ``mask``: those allowed."""

    segment: int
    first: int
    last: int
    mask: np.ndarray | None = None


def open_store(
    root: Path,
    segments: Mapping[str, SegmentEntry],
    kind: str,
    index: IndexEntry | None = None,
    *,
    threads: int = 0,
    cut: Cut = Cut(),
) -> VectorStore:
    """Open the segments of a ``kind`` in a manifest's table, with the index of its ``index`` entry.

    ``threads`` 0 = one per core.

    Raises:
        CatalogueError: A file is damaged.
    """
    chosen = {name: entry for name, entry in sorted(segments.items()) if entry.kind == kind}
    opened = [
        (name, open_vectors(root / "segments" / name / VECTORS, count=entry.count, dim=entry.dim))
        for name, entry in chosen.items()
    ]
    approximate = None
    if index is not None and index.path is not None:
        from fashionrec.store.approximate import open_index  # here, because exact search does not need it

        approximate = open_index(root, index, chosen)
    return VectorStore(opened, approximate, threads=threads, cut=cut)


class VectorStore:
    """Several segments searched as one; positions number the rows of all segments in order.

    ``index`` covers some of the segments; the others, and its held-out rows, are searched exactly.
    Thread-safe.
    """

    def __init__(
        self,
        segments: Sequence[tuple[str, Any]],
        index: ApproximateIndex | None = None,
        *,
        threads: int = 0,
        cut: Cut = Cut(),
    ) -> None:
        self.names = [name for name, _ in segments]
        self.indexes = [opened for _, opened in segments]
        self.index = index
        self.threads = threads or available_cores()
        self.cut = cut
        self.starts = np.cumsum([0, *(int(opened.ntotal) for opened in self.indexes)])
        self._number = {name: n for n, name in enumerate(self.names)}
        self._raw = [_raw_floats(opened) for opened in self.indexes]
        self._everywhere = self._parts(range(len(self.names)))
        if index is not None:
            missing = [name for name, count in index.covers if self._number.get(name) is None]
            if missing:
                raise CatalogueError(
                    f"catalogue is damaged: the index covers {missing[0]}, which is missing", hint=AGAIN
                )
            covered = {name for name, _ in index.covers}
            self._beside = self._parts(n for n, name in enumerate(self.names) if name not in covered)
            counts = np.array([count for _, count in index.covers], np.int64)
            self._index_ends = np.cumsum(counts)
            firsts = self.starts[[self._number[name] for name, _ in index.covers]]
            self._shift = firsts - (self._index_ends - counts)  # from a row of the index to a position
            self._left_out = self._positions(index.left_out)
            self._left_out_vectors = self.fetch(self._left_out)  # every query reads them

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dim(self) -> int:
        return int(self.indexes[0].d) if self.indexes else 0

    @property
    def serves_text(self) -> bool:
        """True if text queries work as well as images: by exact search, or as measured."""
        return self.index is None or self.index.text

    def search(
        self, queries: np.ndarray, k: int, *, exact: bool = False, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search the ``k`` nearest by cosine of float32 [n, d] queries.

        The index is used if there is one and ``k`` is within its depth, unless ``exact``.

        Args:
            queries: float32 [n, d].
            k: Limited to the number of rows.
            exact: Do not use the index.
            allowed: A mask over all positions, or positions, to restrict the results: always exact,
                and complete if ``k`` of them exist.

        Returns:
            Scores float32 [n, k] and positions int64 [n, k], best first; equal scores by position.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        with _one_thread():
            if allowed is not None:
                return self._search_allowed(queries, k, np.asarray(allowed))
            if self.index is None or exact or k > self.index.depth:
                return self._exact(queries, k, self._everywhere)
            answers = [self._approximate(query[None], k) for query in queries]
        if not answers:
            return np.empty((0, 0), np.float32), np.empty((0, 0), np.int64)
        width = min(scores.shape[1] for scores, _ in answers)
        scores = [score[:, :width] for score, _ in answers]
        positions = [position[:, :width] for _, position in answers]
        return np.concatenate(scores), np.concatenate(positions)

    def locate(self, positions: np.ndarray) -> list[tuple[str, int]]:
        """Return segment name and row of positions int64 [n]."""
        at = np.searchsorted(self.starts, positions, side="right") - 1
        rows = positions - self.starts[at]
        return [(self.names[segment], row) for segment, row in zip(at.tolist(), rows.tolist(), strict=True)]

    def position(self, segment: str, row: int) -> int:
        """Return the position of a row of a segment.

        Raises:
            CatalogueError: There is no such row.
        """
        number = self._number.get(segment)
        if number is None or not 0 <= row < self.starts[number + 1] - self.starts[number]:
            raise CatalogueError(f"catalogue is damaged: there is no vector {row} of {segment[:60]!r}", hint=AGAIN)
        return int(self.starts[number]) + row

    def fetch(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the vectors at some positions, float32 [n, d]."""
        asked = np.asarray(positions, np.int64).reshape(-1)
        vectors = np.empty((len(asked), self.dim), np.float32)
        for segment, places, rows in self._by_segment(asked):
            raw = self._raw[segment]
            vectors[places] = (
                self.indexes[segment].reconstruct_batch(rows) if raw is not None else self._decoded(segment, rows)
            )
        return vectors

    def _parts(self, numbers: Sequence[int] | range | Iterator[int]) -> list[Part]:
        """Divide the rows of some segments into pieces of similar size."""
        chosen = list(numbers)
        total = sum(int(self.indexes[n].ntotal) for n in chosen)
        size = sum(int(self.indexes[n].ntotal) * int(self.indexes[n].sa_code_size()) for n in chosen)
        most = 1 if self.threads == 1 else self.threads * _PIECES
        share = -(-total // max(1, min(most, size // self.cut.piece)))
        parts = []
        for n in chosen:
            rows = int(self.indexes[n].ntotal)
            pieces = max(1, round(rows / share)) if share else 1
            ends = [rows * piece // pieces for piece in range(pieces + 1)]
            parts += [Part(n, first, last) for first, last in pairwise(ends) if last > first]
        return parts

    def _positions(self, rows: np.ndarray) -> np.ndarray:
        """Return positions of rows of the index."""
        result: np.ndarray = rows + self._shift[np.searchsorted(self._index_ends, rows, side="right")]
        return result

    def _by_segment(self, positions: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield number, indexes in ``positions`` and rows, per segment with any of them."""
        if not len(positions):
            return
        if len(self.names) == 1:
            yield 0, np.arange(len(positions)), positions
            return
        segments = np.searchsorted(self.starts, positions, side="right") - 1
        for segment in np.unique(segments):
            places = np.flatnonzero(segments == segment)
            yield int(segment), places, positions[places] - self.starts[segment]

    def _scores(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return inner products of a float32 [1, d] query with the vectors at some positions.

        They are equal to those that FAISS computes in a scan.
        """
        scores = np.empty(len(positions), np.float32)
        for segment, places, rows in self._by_segment(positions):
            raw = self._raw[segment]
            if raw is not None:
                scores[places] = _products(query, raw, rows)
            else:
                scores[places] = _products_with(query, self._decoded(segment, rows))
        return scores

    def _scores_of_many(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return the same as :meth:`_scores`, in pieces on all cores."""
        pieces = 1 if self.threads == 1 else self.threads * _PIECES
        pieces = max(1, min(pieces, len(positions) * self.dim * 4 // self.cut.looked_up))

        def scores(part: np.ndarray) -> np.ndarray:
            with _one_thread():
                return self._scores(query, part)

        return np.concatenate(_run([partial(scores, part) for part in np.array_split(positions, pieces)], self.threads))

    def _decoded(self, segment: int, rows: np.ndarray) -> np.ndarray:
        """Return rows of a segment of half floats as float32 [n, d]."""
        opened = self.indexes[segment]
        codes = load_faiss().rev_swig_ptr(opened.codes.data(), opened.codes.size())
        return np.asarray(opened.sa_decode(codes.reshape(int(opened.ntotal), -1)[rows]))

    def _approximate(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.index is not None
        positions = self._positions(self.index.rows(query))
        scores = np.concatenate([self._scores(query, positions), _products_with(query, self._left_out_vectors)])
        positions = np.concatenate([positions, self._left_out])
        if self._beside:
            more, where = self._exact(query, k, self._beside)
            scores, positions = np.concatenate([scores, more[0]]), np.concatenate([positions, where[0]])
        return _best(scores[None], positions[None], k)

    def _exact(self, queries: np.ndarray, k: int, parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
        total = sum(part.last - part.first for part in parts)
        k = max(0, min(k, total))
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        batches = [self._scan(queries[n : n + _TOGETHER], k, parts, total) for n in range(0, len(queries), _TOGETHER)]
        if not batches:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        width = min(scores.shape[1] for scores, _ in batches)
        return (
            np.concatenate([scores[:, :width] for scores, _ in batches]),
            np.concatenate([positions[:, :width] for _, positions in batches]),
        )

    def _scan(self, queries: np.ndarray, k: int, parts: Sequence[Part], total: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``k`` best of all rows in the parts.

        One more is requested: if it scores like the last, others may too, and their order is only
        known once all are seen.
        """
        want = min(k + 1, total)
        while True:
            found = _run([partial(self._scan_part, queries, want, part) for part in parts], self.threads)
            scores = np.concatenate([score for score, _ in found], axis=1)
            positions = np.concatenate([position for _, position in found], axis=1)
            scores, positions = _best(scores, positions, want)
            if want == total or scores.shape[1] <= k or (scores[:, k - 1] > scores[:, k]).all():
                return scores[:, :k], positions[:, :k]
            if scores.shape[1] < want or (scores[:, k - 1] > scores[:, -1]).all():
                return scores[:, :k], positions[:, :k]
            want = min(total, want * 4)

    def _scan_part(self, queries: np.ndarray, want: int, part: Part) -> tuple[np.ndarray, np.ndarray]:
        faiss = load_faiss()
        opened, start = self.indexes[part.segment], int(self.starts[part.segment])
        if part.mask is not None:
            bits = np.packbits(part.mask, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        else:
            selector = faiss.IDSelectorRange(part.first, part.last)
        with _one_thread():
            params = faiss.SearchParameters(sel=selector)
            scores, rows = opened.search(queries, min(want, part.last - part.first), params=params)
        return scores, np.where(rows < 0, -1, rows + start)

    def _search_allowed(self, queries: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if allowed.dtype == bool:
            if allowed.shape != (len(self),):
                raise ValueError(f"a mask of shape {allowed.shape} for {len(self)} positions")
            positions = np.flatnonzero(allowed)
        else:
            positions = np.unique(allowed.astype(np.int64))
            if positions.size and (positions[0] < 0 or positions[-1] >= len(self)):
                raise ValueError(f"position {positions[-1]} of {len(self)}")
        k = max(0, min(k, len(positions)))
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        few = _FEW_HALVES if None in self._raw else self.cut.few if len(queries) == 1 else _FEW_TOGETHER
        if len(positions) * few < len(self):
            scores = np.stack([self._scores_of_many(query[None], positions) for query in queries])
            return _best(scores, np.broadcast_to(positions, scores.shape), k)
        mask = np.zeros(len(self), bool)
        mask[positions] = True
        if len(queries) == 1 and len(positions) * _MANY >= len(self):
            found = self._among_all(queries, k, mask, len(self) / len(positions))
            if found is not None:
                return found
        parts = []
        for part in self._everywhere:
            start, rows = int(self.starts[part.segment]), int(self.indexes[part.segment].ntotal)
            own = np.zeros(rows, bool)
            own[part.first : part.last] = mask[start + part.first : start + part.last]
            if own.any():
                parts.append(part._replace(mask=own))
        return self._exact(queries, k, parts)

    def _among_all(
        self, query: np.ndarray, k: int, mask: np.ndarray, times: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the allowed ones among the best of all, if they are ``k``.

        FAISS scans twice as fast without a mask.
        """
        scores, positions = self._exact(query, int(k * times * 1.3) + 32, self._everywhere)
        kept = mask[positions[0]]
        if int(kept.sum()) < k:
            return None
        return scores[:, kept][:, :k], positions[:, kept][:, :k]


def _best(scores: np.ndarray, positions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` best of each row, best first, equal scores by position.

    FAISS's padding (-1) is dropped.
    """
    scores = np.where(positions < 0, -np.inf, scores)
    if len(scores) == 1 and scores.shape[1] > 8 * k > 0:  # of many, only possible candidates are sorted
        places = np.flatnonzero(scores[0] >= np.partition(scores[0], -k)[-k])
        scores, positions = scores[:, places], positions[:, places]
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    scores, positions = np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)
    width = int((positions >= 0).sum(axis=1).min()) if positions.size else 0
    return scores[:, :width], positions[:, :width]


def _products(query: np.ndarray, vectors: Any, rows: np.ndarray) -> np.ndarray:
    """Return inner products of a float32 [1, d] query with some rows of float32 vectors.

    ``vectors`` is a FAISS pointer.
    """
    faiss = load_faiss()
    rows = np.ascontiguousarray(rows, np.int64)
    found = np.empty(len(rows), np.float32)
    if not len(rows):
        return found
    pointers = (faiss.swig_ptr(found), faiss.swig_ptr(query), vectors, faiss.swig_ptr(rows))
    faiss.fvec_inner_products_by_idx(*pointers, query.shape[1], 1, len(rows))
    return found


def _products_with(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the same with all rows of an array."""
    return _products(query, load_faiss().swig_ptr(vectors), np.arange(len(vectors), dtype=np.int64))


def _raw_floats(opened: Any) -> Any:
    """Return a pointer to the float32 vectors of a segment in memory; None for half floats."""
    faiss = load_faiss()
    return opened.get_xb() if isinstance(opened, faiss.IndexFlat) else None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Restrict FAISS to the calling thread.

    Its own threads would use another code path for one query, which is slower, and whose rounding
    depends on their number. (OpenMP's setting is per thread.)
    """
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _run(jobs: Sequence[Callable[[], Any]], threads: int) -> list[Any]:
    """Run jobs on the calling thread and one more per core; return their results in order.

    The pool belongs to this process: threads do not survive a fork.
    """
    if len(jobs) == 1 or threads == 1:
        return [job() for job in jobs]
    results: list[Any] = [None] * len(jobs)
    todo = deque(enumerate(jobs))

    def work() -> None:
        while True:
            try:
                number, job = todo.popleft()
            except IndexError:
                return
            results[number] = job()

    from concurrent.futures import ThreadPoolExecutor

    pool = _pools.get((os.getpid(), threads))
    if pool is None:
        pool = _pools.setdefault((os.getpid(), threads), ThreadPoolExecutor(threads, "fashionrec-search"))
    others = [pool.submit(work) for _ in range(min(threads, len(jobs)) - 1)]
    work()
    for other in others:
        if not other.cancel():
            other.result()
    return results
