"""The store of vectors by hand: which rows are looked through, in which pieces, by whom; and
exactly what is answered.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from fashionrec.common.system import available_cores
from fashionrec.errors import CatalogueError
from fashionrec.store.approximate import ApproximateIndex
from fashionrec.store.manifest import SegmentEntry
from fashionrec.store.vectors import VECTORS, Cut, VectorStore, open_store, write_vectors


@dataclass
class Call:
    """One search of a segment: how many queries, how deep, among which rows, by which thread with
    how many of FAISS's own.
    """

    queries: int
    k: int
    rows: list[int]
    thread: str
    own_threads: int


def remember(index: Any, **values: Any) -> None:
    """Give an index of FAISS attributes that it does not know."""
    for name, value in values.items():
        object.__setattr__(index, name, value)


class Flat(faiss.IndexFlatIP):
    """Float vectors that remember what they were asked."""

    calls: list[Call]

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors.shape[1])
        self.add(vectors)
        remember(self, calls=[])

    def search(self, x: np.ndarray, k: int, *, params: Any = None) -> Any:
        rows = [row for row in range(self.ntotal) if params.sel.is_member(row)]
        self.calls.append(Call(len(x), k, rows, threading.current_thread().name, faiss.omp_get_max_threads()))
        return super().search(x, k, params=params)


class Half(faiss.IndexScalarQuantizer):
    """Half floats that remember how many rows were decoded at once."""

    decoded: list[int]
    calls: list[int]

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self.add(vectors)
        remember(self, decoded=[], calls=[])

    def sa_decode(self, codes: np.ndarray) -> np.ndarray:
        self.decoded.append(len(codes))
        return super().sa_decode(codes)

    def search(self, x: np.ndarray, k: int, *, params: Any = None) -> Any:
        self.calls.append(k)
        return super().search(x, k, params=params)


class Listed(ApproximateIndex):
    """An index that gives the rows that its query names: those of its first number, and of all
    below it.
    """

    def rows(self, query: np.ndarray) -> np.ndarray:
        kept = np.delete(np.arange(self.count), self.left_out)
        return kept[: int(query[0, 0])]


def line(*values: float) -> np.ndarray:
    """Vectors (v, 1): a query (1, 0) scores each by its value."""
    return np.array([[value, 1] for value in values], np.float32).reshape(-1, 2)


ONE = np.array([[1, 0]], np.float32)


def answer(found: tuple[np.ndarray, np.ndarray]) -> tuple[list[list[float]], list[list[int]]]:
    assert (found[0].dtype, found[1].dtype) == (np.float32, np.int64)
    return found[0].tolist(), found[1].tolist()


@pytest.mark.parametrize(
    ("rows", "threads", "piece", "parts"),
    [
        ([8], 1, 1, [[8]]),  # one thread: one piece, however small
        ([8], 2, 16, [[2, 2, 2, 2]]),  # 64 bytes in pieces of 16
        ([8], 2, 17, [[2, 3, 3]]),  # three whole pieces
        ([10], 2, 20, [[3, 3, 4]]),  # of three rows at least, as a fourth of ten rows is
        ([10], 2, 21, [[5, 5]]),
        ([8], 2, 64, [[8]]),
        ([8], 2, 65, [[8]]),
        ([24], 2, 1, [[3] * 8]),  # no more than four for each thread
        ([36], 3, 1, [[3] * 12]),
        ([6, 2], 2, 16, [[2, 2, 2], [2]]),  # of one size over the segments
        ([7, 0, 1], 2, 16, [[1, 2, 2, 2], [], [1]]),
        ([2, 2, 2, 2], 1, 1, [[2], [2], [2], [2]]),
        ([40], 2, Cut().piece, [[40]]),
    ],
)
def test_the_rows_are_cut_into_pieces(rows: list[int], threads: int, piece: int, parts: list[list[int]]) -> None:
    segments = [Flat(line(*range(10 * n, 10 * n + count))) for n, count in enumerate(rows)]
    named = [(str(n), segment) for n, segment in enumerate(segments)]
    store = VectorStore(named, threads=threads, cut=Cut(piece=piece))
    store.search(ONE, 1)
    for segment, sizes in zip(segments, parts, strict=True):
        pieces = sorted(call.rows for call in segment.calls)
        assert [row for rows in pieces for row in rows] == list(range(segment.ntotal))
        assert [len(rows) for rows in pieces] == sizes
        assert {call.k for call in segment.calls} <= {1, 2}


def test_what_is_cut_where_nothing_else_is_said() -> None:
    assert Cut() == (33554432, 4194304, 2.5)
    assert VectorStore([]).threads == available_cores()
    assert VectorStore([], threads=3).threads == 3
    assert VectorStore([]).cut == Cut()
    assert VectorStore([], cut=Cut(few=1)).cut.few == 1


@pytest.mark.parametrize(("count", "batches"), [(0, []), (1, [1]), (32, [32]), (33, [32, 1]), (70, [32, 32, 6])])
def test_queries_are_asked_thirty_two_at_a_time(count: int, batches: list[int]) -> None:
    segment = Flat(line(3, 5, 4))
    scores, positions = VectorStore([("a", segment)], threads=1).search(ONE.repeat(count, 0), 2)
    assert [call.queries for call in segment.calls] == batches
    assert scores.tolist() == [[5, 4]] * count
    assert positions.tolist() == [[1, 2]] * count
    assert scores.shape == positions.shape == (count, 2)


@pytest.mark.parametrize(
    ("values", "k", "depths", "found"),
    [
        ([5, 4, 3, 2], 2, [3], [0, 1]),  # one more than asked for says that no other scores as the last does
        ([5, 4, 4, 2], 2, [3, 4], [0, 1]),
        ([4, 4, 4, *[1] * 96], 1, [2, 8], [0]),
        ([1] * 100, 3, [4, 16, 64, 100], [0, 1, 2]),
        ([2, 1], 2, [2], [0, 1]),
        ([1, 2], 9, [2], [1, 0]),
        ([1, 2, 3], 0, [], []),
        ([1, 2, 3], -1, [], []),
        ([np.nan, 2, np.nan, 1, 0], 2, [3], [1, 3]),
        ([np.nan, 2, np.nan, 1], 2, [3], [1, 3]),  # what is no number is never found
        ([2] * 5 + [np.nan] * 15, 1, [2, 8], [0]),
        ([np.nan, np.nan, 2], 3, [3], [2]),
    ],
)
def test_as_many_are_asked_for_as_say_which_comes_first(
    values: list[float], k: int, depths: list[int], found: list[int]
) -> None:
    segment = Flat(line(*values))
    scores, positions = VectorStore([("a", segment)], threads=1).search(ONE, k)
    assert [call.k for call in segment.calls] == depths
    assert positions.tolist() == [found]
    assert scores.tolist() == [[values[n] for n in found]]


def test_answers_to_several_queries_are_as_long_as_the_shortest() -> None:
    """By hand: of infinite numbers one query scores a row as no number, another does not."""
    vectors = np.array([[1, 0], [2, np.inf], [3, 0]], np.float32)
    store = VectorStore([("a", Flat(vectors))], threads=1)
    two = np.array([[1, 0]] * 32 + [[1, 1]], np.float32)
    scores, positions = store.search(two, 3)
    assert positions.tolist() == [[2, 0]] * 32 + [[1, 2]]
    assert scores.tolist() == [[3, 1]] * 32 + [[np.inf, 3]]


@pytest.mark.parametrize(
    ("kind", "rows", "queries", "allowed", "few", "way"),
    [
        ("float32", 1000, 1, 399, 2.5, "looked up"),  # fewer than one in 2.5
        ("float32", 1000, 1, 400, 2.5, "among all"),
        ("float32", 1000, 1, 1, 1000, "masked"),
        ("float32", 1000, 1, 124, 1000, "masked"),  # fewer than one in 8
        ("float32", 1000, 1, 125, 1000, "among all"),
        ("float32", 993, 2, 62, 2.5, "looked up"),  # fewer than one in 16
        ("float32", 992, 2, 62, 2.5, "masked"),
        ("float32", 1000, 2, 900, 2.5, "masked"),
        ("float16", 961, 1, 15, 2.5, "looked up"),  # fewer than one in 64
        ("float16", 960, 1, 15, 2.5, "masked"),
        ("float16", 961, 2, 15, 2.5, "looked up"),
        ("float16", 960, 2, 15, 2.5, "masked"),
    ],
)
def test_the_way_that_suits_how_many_are_allowed(
    kind: str, rows: int, queries: int, allowed: int, few: float, way: str
) -> None:
    values = np.arange(rows)[::-1]
    segment = Flat(line(*values)) if kind == "float32" else Half(line(*values))
    store = VectorStore([("a", segment)], threads=1, cut=Cut(few=few))
    mask = np.zeros(rows, bool)
    mask[1 : allowed + 1] = True
    scores, positions = store.search(ONE.repeat(queries, 0), 5, allowed=mask)
    best = list(range(1, min(5, allowed) + 1))
    assert positions.tolist() == [best] * queries
    assert scores.tolist() == [values[best].tolist()] * queries
    if way == "looked up":
        assert segment.calls == []
    elif kind == "float16":
        assert segment.calls == [6]
        assert segment.decoded == []
    else:
        (call,) = segment.calls
        assert call.queries == queries
        assert call.rows == (list(range(rows)) if way == "among all" else np.flatnonzero(mask).tolist())
        if way == "among all":  # 1.3 times as many as hold them on average, and a few; and one that says what is equal
            assert call.k == int(5 * rows / allowed * 1.3) + 32 + 1


def test_where_too_few_of_the_best_are_allowed_all_that_are_are_looked_through() -> None:
    segment = Flat(line(*range(1000)))
    store = VectorStore([("a", segment)], threads=1)
    mask = np.arange(1000) < 500
    assert answer(store.search(ONE, 3, allowed=mask)) == ([[499, 498, 497]], [[499, 498, 497]])
    assert [len(call.rows) for call in segment.calls] == [1000, 500]
    segment.calls.clear()
    mask[[999, 998]] = True  # two of the three are among the best
    assert answer(store.search(ONE, 3, allowed=mask)) == ([[999, 998, 499]], [[999, 998, 499]])
    assert [len(call.rows) for call in segment.calls] == [1000, 502]
    segment.calls.clear()
    mask[997] = True
    assert answer(store.search(ONE, 3, allowed=mask)) == ([[999, 998, 997]], [[999, 998, 997]])
    assert [len(call.rows) for call in segment.calls] == [1000]


def test_a_mask_is_cut_into_the_same_pieces() -> None:
    parts = [Flat(line(*range(start, start + 8))) for start in (0, 8, 16)]
    store = VectorStore([(str(n), part) for n, part in enumerate(parts)], threads=2, cut=Cut(piece=32, few=1000))
    assert answer(store.search(ONE, 9, allowed=np.array([1, 7]))) == ([[7, 1]], [[7, 1]])
    assert sorted(call.rows for call in parts[0].calls) == [[1], [7]]
    assert parts[1].calls == parts[2].calls == []  # nothing in them is allowed
    both = ONE.repeat(2, 0)
    allowed = np.array([23, 3, 3, 4, 9])
    assert answer(store.search(both, 3, allowed=allowed)) == ([[23, 9, 4]] * 2, [[23, 9, 4]] * 2)
    assert sorted(call.rows for call in parts[0].calls[2:]) == [[3], [4]]
    assert [call.rows for call in (*parts[1].calls, *parts[2].calls)] == [[1], [7]]


@pytest.mark.parametrize("allowed", [[], [False] * 4])
@pytest.mark.parametrize("k", [0, 3, -1])
def test_where_nothing_is_allowed_or_asked_for_the_answer_is_empty(allowed: list[Any], k: int) -> None:
    store = VectorStore([("a", Flat(line(1, 2, 3, 4)))], threads=1)
    for asked, given in ((k, np.array(allowed, bool if allowed else int)), (min(k, 0), np.arange(4))):
        scores, positions = store.search(ONE.repeat(3, 0), asked, allowed=given)
        assert scores.shape == positions.shape == (3, 0)
        assert answer((scores, positions)) == ([[]] * 3, [[]] * 3)


def test_what_may_be_allowed() -> None:
    store = VectorStore([("a", Flat(line(1, 2, 3))), ("b", Flat(line(4)))], threads=1)
    assert answer(store.search(ONE, 9, allowed=np.array([3, 0]))) == ([[4, 1]], [[3, 0]])
    for allowed, message in (
        (np.array([0, 4]), "position 4 of 4"),
        (np.array([-1, 2]), "position 2 of 4"),
        (np.ones(3, bool), r"a mask of shape \(3,\) for 4 positions"),
        (np.ones((4, 1), bool), r"a mask of shape \(4, 1\) for 4 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            store.search(ONE, 1, allowed=allowed)


@pytest.mark.parametrize(
    ("threads", "looked_up", "sizes"),
    [
        (1, 1, [12]),
        (2, 1, [1, 1, 1, 1, 2, 2, 2, 2]),  # no more than four for each thread
        (2, 24, [3, 3, 3, 3]),  # 96 bytes in pieces of 24
        (2, 25, [4, 4, 4]),
        (2, 96, [12]),
        (2, 97, [12]),
        (2, Cut().looked_up, [12]),
    ],
)
def test_rows_are_looked_up_in_pieces(threads: int, looked_up: int, sizes: list[int]) -> None:
    segment = Half(line(*range(900)))
    store = VectorStore([("a", segment)], threads=threads, cut=Cut(looked_up=looked_up))
    assert answer(store.search(ONE, 2, allowed=np.arange(100, 112))) == ([[111, 110]], [[111, 110]])
    assert sorted(segment.decoded) == sizes


@pytest.mark.parametrize("kind", [Flat, Half])
def test_positions_count_through_the_segments(kind: type[Flat] | type[Half]) -> None:
    parts = [[10, 11, 12], [], [13], [14, 15]]
    store = VectorStore([(name, kind(line(*values))) for name, values in zip("abcd", parts, strict=True)], threads=2)
    assert (len(store), store.dim, store.names) == (6, 2, ["a", "b", "c", "d"])
    assert store.starts.tolist() == [0, 3, 3, 4, 6]
    places = [("a", 0), ("a", 2), ("c", 0), ("d", 0), ("d", 1)]
    assert store.locate(np.array([0, 2, 3, 4, 5])) == places
    assert [store.position(*place) for place in places] == [0, 2, 3, 4, 5]
    assert store.fetch([5, 0, 3, 3]).tolist() == [[15, 1], [10, 1], [13, 1], [13, 1]]
    assert store.fetch([]).shape == (0, 2)
    assert answer(store.search(ONE, 9)) == ([[15, 14, 13, 12, 11, 10]], [[5, 4, 3, 2, 1, 0]])
    assert answer(store.search(ONE, 2, allowed=np.array([0, 3, 5]))) == ([[15, 13]], [[5, 3]])
    for segment, row in (("a", 3), ("a", -1), ("b", 0), ("d", 2), ("e" * 70, 0)):
        with pytest.raises(CatalogueError) as caught:
            store.position(segment, row)
        assert str(caught.value) == f"catalogue is damaged: there is no vector {row} of {segment[:60]!r}"
        assert (
            caught.value.hint
            == "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"
        )


def test_an_empty_store() -> None:
    for store in (VectorStore([]), VectorStore([("a", Flat(line()))])):
        assert len(store) == 0
        assert store.fetch([]).shape == (0, store.dim)
        assert answer(store.search(ONE, 3)) == ([[]], [[]])
        assert answer(store.search(ONE[:0], 3)) == ([], [])
        assert answer(store.search(ONE, 3, allowed=np.zeros(0, bool))) == ([[]], [[]])
    assert VectorStore([]).dim == 0


def test_scores_that_are_equal_come_by_position_from_any_piece() -> None:
    values = [1, 3, 2, 3, 3, 0, 2, 3] * 4
    best = sorted(range(32), key=lambda n: (-values[n], n))
    store = VectorStore(
        [("a", Flat(line(*values[:19]))), ("b", Flat(line(*values[19:])))], threads=2, cut=Cut(piece=40)
    )
    for k in (1, 2, 5, 16, 17, 31, 32):
        expected = [[values[n] for n in best[:k]]], [best[:k]]
        assert answer(store.search(ONE, k)) == expected
        assert answer(store.search(ONE, k, allowed=np.ones(32, bool))) == expected
        assert answer(store.search(ONE.repeat(2, 0), k, allowed=np.arange(32))) == tuple(part * 2 for part in expected)
        few = [n for n in best if n % 5 == 0]
        expected = [[values[n] for n in few[:k]]], [few[:k]]
        assert answer(store.search(ONE, k, allowed=np.arange(0, 32, 5))) == expected


def indexed(depth: int = 20, text: bool = False, threads: int = 1) -> VectorStore:
    """Segments of 4, 3 and 5 rows; an index of the third and the first that leaves rows 1 and 6 of
    those out.
    """
    parts = {"a": line(10, 90, 30, 40), "b": line(51, 52, 53), "c": line(61, 62, 63, 64, 65)}
    index = Listed("listed", None, (("c", 5), ("a", 4)), np.array([1, 6]), 1, 9, depth, text)
    return VectorStore([(name, Flat(values)) for name, values in parts.items()], index, threads=threads)


def test_an_index_is_asked_for_rows_of_its_segments_and_the_others_are_scanned() -> None:
    store = indexed()
    # the index's rows 0, 2, 3 (of "c") and those left out: 62 and 90; and "b", which it does not
    # cover
    assert answer(store.search(ONE * 3, 9)) == (
        [[270, 192, 189, 186, 183, 159, 156, 153]],
        [[1, 10, 9, 8, 7, 6, 5, 4]],
    )
    assert [call.rows for part in store.indexes for call in part.calls] == [[0, 1, 2]]
    assert answer(store.search(ONE * 3, 2)) == ([[270, 192]], [[1, 10]])
    # all of its rows: the last two are of "a"
    assert answer(store.search(ONE * 7, 20))[1] == [[1, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 0]]
    # several queries: as many as the one that finds fewest
    scores, positions = store.search(np.concatenate([ONE, ONE * 4]), 20)
    assert positions.tolist() == [[1, 8, 7, 6, 5, 4], [1, 11, 10, 9, 8, 7]]
    assert scores.tolist() == [[90, 62, 61, 53, 52, 51], [360, 260, 256, 252, 248, 244]]
    assert answer(store.search(ONE[:0], 5)) == ([], [])
    assert [part.shape for part in store.search(ONE[:0], 5)] == [(0, 0), (0, 0)]
    assert answer(store.search(ONE.astype(np.float64), 20)) == answer(store.search(ONE, 20))


def test_an_index_is_used_as_deep_as_it_was_tuned_for_and_never_with_a_filter() -> None:
    everything = [[1, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 0]]
    store = indexed(depth=7)
    assert answer(store.search(ONE, 7))[1] == [[1, 8, 7, 6, 5, 4]]
    assert answer(store.search(ONE, 8))[1] == [everything[0][:8]]
    assert answer(store.search(ONE, 7, exact=True))[1] == [everything[0][:7]]
    assert answer(store.search(ONE, 7, allowed=np.ones(12, bool)))[1] == [everything[0][:7]]
    assert not store.serves_text
    assert indexed(text=True).serves_text
    assert VectorStore([]).serves_text


def test_an_index_that_covers_everything_or_what_is_gone() -> None:
    parts = [("a", Flat(line(3, 2, 1)))]
    index = Listed("listed", None, (("a", 3),), np.array([], np.int64), 1, 9, 20)
    store = VectorStore(parts, index, threads=1)
    assert answer(store.search(ONE * 2, 5)) == ([[6, 4]], [[0, 1]])
    assert parts[0][1].calls == []
    with pytest.raises(CatalogueError) as caught:
        VectorStore([("b", parts[0][1])], index)
    assert str(caught.value) == "catalogue is damaged: the index covers a, which is missing"
    assert caught.value.hint


class Slow(Flat):
    """Each piece waits until as many threads are at work as there should be, the first time; and
    counts them.
    """

    together: threading.Barrier
    lock: Any
    active: int
    most: int

    def __init__(self, vectors: np.ndarray, threads: int) -> None:
        super().__init__(vectors)
        remember(self, together=threading.Barrier(threads), lock=threading.Lock(), active=0, most=0)

    def search(self, x: np.ndarray, k: int, *, params: Any = None) -> Any:
        with self.lock:
            self.active += 1
            self.most = max(self.most, self.active)
            first = len(self.calls) < self.together.parties
            found = super().search(x, k, params=params)
        if first:
            self.together.wait(20)
        time.sleep(0.005)
        with self.lock:
            self.active -= 1
        return found


def test_the_pieces_are_looked_through_by_as_many_threads_as_are_allowed() -> None:
    segment = Slow(line(*range(80)), 2)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        store = VectorStore([("a", segment)], threads=2, cut=Cut(piece=1))
        assert answer(store.search(ONE, 1)) == ([[79]], [[79]])
        assert segment.most == 2
        names = {call.thread for call in segment.calls}
        assert {name.rpartition("_")[0] for name in names - {threading.current_thread().name}} == {"fashionrec-search"}
        assert {call.own_threads for call in segment.calls} == {1}
        alone = Flat(line(*range(80)))
        VectorStore([("a", alone)], threads=1, cut=Cut(piece=1)).search(ONE, 1)
        VectorStore([("a", alone)], threads=2).search(ONE, 1)  # one piece
        assert {call.thread for call in alone.calls} == {threading.current_thread().name}
        assert {call.own_threads for call in alone.calls} == {1}
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


class Broken(Flat):
    def search(self, x: np.ndarray, k: int, *, params: Any = None) -> Any:
        found = super().search(x, k, params=params)
        if self.calls[-1].rows[0]:
            raise RuntimeError("a piece failed")
        time.sleep(0.02)  # the other thread has the rest
        return found


def test_what_fails_in_another_thread_fails() -> None:
    store = VectorStore([("a", Broken(line(*range(80))))], threads=2, cut=Cut(piece=320))
    with pytest.raises(RuntimeError, match="a piece failed"):
        store.search(ONE, 1)


def test_the_segments_of_a_kind_are_opened_by_name(tmp_path: Path) -> None:
    table = {}
    for name, kind, values in (("b", "image", [3, 4]), ("c", "caption", [9]), ("a", "image", [1])):
        (tmp_path / "segments" / name).mkdir(parents=True)
        write_vectors(tmp_path / "segments" / name / VECTORS, line(*values))
        table[name] = SegmentEntry(kind, len(values), 2, "e")
    store = open_store(tmp_path, table, "image", threads=5, cut=Cut(few=7))
    assert (store.names, store.threads, store.cut.few, store.index) == (["a", "b"], 5, 7, None)
    assert store.fetch([0, 1, 2]).tolist() == [[1, 1], [3, 1], [4, 1]]
    assert open_store(tmp_path, table, "caption").names == ["c"]
    assert open_store(tmp_path, table, "caption").threads == available_cores()
    assert len(open_store(tmp_path, table, "words")) == 0
