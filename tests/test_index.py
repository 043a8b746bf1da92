"""Search over vectors: exactness, ties, masks, half floats, the approximate index, what grows
beside it, and its choice.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from fashionrec.config import IndexConfig, load_config
from fashionrec.errors import CatalogueError
from fashionrec.store.approximate import INDEX, held_out_rows, open_index
from fashionrec.store.index import Candidate, choose, find_truth, make_index, measure
from fashionrec.store.manifest import IndexEntry, SegmentEntry
from fashionrec.store.segments import header
from fashionrec.store.vectors import VECTORS, Cut, VectorStore, open_store, open_vectors, write_vectors

DIM = 32
Segments = dict[str, SegmentEntry]


def configured(**changes: Any) -> IndexConfig:
    base = load_config(env={}).config.index
    return base.model_copy(
        update={"exact_below": 0, "queries": 100, "depth": 20, "recall": 0.95, "rebuild_above": 0.2, **changes}
    )


def clustered(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Unit vectors around centres that are the same for every seed."""
    centres = np.random.default_rng(99).normal(size=(60, dim))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(60, size=count)] + rng.normal(0, 0.5, size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def put(root: Path, parts: dict[str, np.ndarray], dtype: str = "float32", kind: str = "image") -> Segments:
    """Segments on the disk, as a manifest's table has them."""
    table = {}
    for name, vectors in parts.items():
        folder = root / "segments" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_vectors(folder / VECTORS, vectors, dtype=dtype)
        table[name] = SegmentEntry(kind, len(vectors), vectors.shape[1], "e")
    return table


def keep(root: Path, table: Segments, entry: IndexEntry | None) -> None:
    """Leave a table of segments and an entry for another process."""
    (root / "entry.pickle").write_bytes(pickle.dumps((table, entry)))


def brute(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k nearest, equal scores by position."""
    cosine = queries.astype(np.float64) @ vectors.astype(np.float64).T
    return np.argsort(-cosine, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_segment_is_what_faiss_itself_writes(tmp_path: Path, dtype: str) -> None:
    vectors = clustered(300)
    chunks = (vectors[start : start + 70] for start in range(0, 300, 70))
    written = write_vectors(tmp_path / "v", chunks, DIM, dtype)
    if dtype == "float32":
        index: Any = faiss.IndexFlatIP(DIM)
        assert written == (300, None)
    else:
        half: Any = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(DIM, half, faiss.METRIC_INNER_PRODUCT)
        assert written.rows == 300
        assert written.float16_recall_at_10 is not None
        assert 0.98 <= written.float16_recall_at_10 <= 1
    index.add(vectors)
    ours, theirs = (tmp_path / "v").read_bytes(), faiss.serialize_index(index).tobytes()
    start = len(header(300, DIM, dtype))
    assert ours[:start] == theirs[:start]
    if dtype == "float32":
        assert ours == theirs
    else:  # what lies half way between two half floats is rounded to the even one here, away from zero there
        one, two = (np.frombuffer(data[start:], np.uint16).astype(int) for data in (ours, theirs))
        assert np.abs(one - two).max() <= 1
        assert np.mean(one != two) < 0.001


def test_a_disk_that_takes_no_more_is_an_oserror_and_leaves_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "v").symlink_to(full)
    with pytest.raises(OSError, match="No space"):
        write_vectors(tmp_path / "v", clustered(5000))
    assert not (tmp_path / "v").is_symlink()
    table = put(tmp_path, {"a": clustered(2000)})
    (tmp_path / "indexes" / "1").mkdir(parents=True)
    (tmp_path / "indexes" / "1" / INDEX).symlink_to(full)
    with pytest.raises(OSError, match="No space"):
        make_index(tmp_path, "1", table, settings=configured())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_exact_search_is_brute_force(tmp_path: Path, dtype: str) -> None:
    vectors, queries = clustered(3000), clustered(40, seed=1)
    table = put(tmp_path, {"a": vectors[:1000], "b": vectors[1000:1001], "c": vectors[1001:]}, dtype)
    stored = vectors.astype(dtype).astype(np.float32)
    for threads in (1, 2, 3):
        store = open_store(tmp_path, table, "image", threads=threads, cut=Cut(piece=vectors.nbytes // 9))
        for k in (1, 10, 150):
            scores, positions = store.search(queries, k)
            assert (positions == brute(stored, queries, k)).all()
            assert np.allclose(scores, np.take_along_axis(queries @ stored.T, positions, 1), atol=1e-6)
        assert (store.fetch([0, 1000, 2999]) == stored[[0, 1000, 2999]]).all()


def test_equal_scores_come_by_position_however_many_there_are(tmp_path: Path) -> None:
    vectors = clustered(900)
    vectors[[5, 300, 301, 302, *range(400, 700), 899]] = vectors[5]
    table = put(tmp_path, {"a": vectors[:450], "b": vectors[450:]})
    store = open_store(tmp_path, table, "image", threads=2)
    same = [5, 300, 301, 302, *range(400, 700), 899]
    for k in (1, 3, 10, 120, 304):
        scores, positions = store.search(vectors[5:6], k)
        assert positions[0].tolist() == same[:k]
        assert (scores == scores[0, 0]).all()


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005, 0.0005])
@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_a_filter_never_shortens_an_answer_and_is_exact(tmp_path: Path, share: float, kind: str) -> None:
    vectors, queries = clustered(8000), clustered(20, seed=1)
    table = put(tmp_path, {"a": vectors[:5000], "b": vectors[5000:]})
    entry = make_index(tmp_path, "1", table, settings=configured(type=kind))
    store = open_store(tmp_path, table, "image", entry)
    mask = np.random.default_rng(3).random(8000) < share
    allowed = np.flatnonzero(mask)
    k = min(10, len(allowed))
    expected = allowed[brute(vectors[allowed], queries, k)]
    for given in (mask, allowed, allowed[::-1]):
        _, positions = store.search(queries, 10, allowed=given)
        assert (positions == expected).all()
    assert store.search(queries, 10, allowed=np.zeros(8000, bool))[1].shape == (20, 0)
    with pytest.raises(ValueError, match="mask"):
        store.search(queries, 10, allowed=mask[:-1])
    with pytest.raises(ValueError, match="position"):
        store.search(queries, 10, allowed=np.array([8000]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["any", "the farthest", "the nearest", "with equals"])
def test_one_query_among_many_allowed_is_exact(tmp_path: Path, kind: str, dtype: str) -> None:
    """The best of all are taken, and those allowed among them; where they are too few, all are
    looked through.
    """
    vectors = clustered(4000, dim=32)
    if kind == "with equals":
        vectors[1::2] = vectors[::2]
    table = put(tmp_path, {"a": vectors[:2500], "b": vectors[2500:]}, dtype=dtype)
    store = open_store(tmp_path, table, "image", None, threads=2)
    held = store.fetch(np.arange(4000))
    for n in range(20):
        query = held[n * 190][None]
        scores = held @ query[0]
        order = np.lexsort((np.arange(4000), -scores))
        mask = np.random.default_rng(n).random(4000) < (0.6 if n % 2 else 0.2)
        if kind == "the farthest":
            mask[:] = False
            mask[order[2500:]] = True
        elif kind == "the nearest":
            mask[order[:700]] = True
        expected = [place for place in order if mask[place]][:10]
        found_scores, found = store.search(query, 10, allowed=mask)
        assert np.allclose(found_scores[0], scores[expected], atol=1e-6)
        assert len(found[0]) == 10
        assert mask[found[0]].all()
        if kind != "with equals":
            assert found[0].tolist() == expected


@pytest.mark.parametrize("share", [0.39, 0.1, 0.01])
def test_rows_looked_up_on_all_cores_score_as_in_a_scan(tmp_path: Path, share: float) -> None:
    vectors = clustered(4000, dim=32)
    vectors[2::4] = vectors[::4]  # equals, of which the first come first
    table = put(tmp_path, {"a": vectors[:2500], "b": vectors[2500:]})
    store = open_store(tmp_path, table, "image", threads=2, cut=Cut(looked_up=1000))
    scanning = open_store(tmp_path, table, "image", threads=2, cut=Cut(few=np.inf))
    mask = np.random.default_rng(1).random(4000) < share
    for query in vectors[::400]:
        looked_up = store.search(query[None], 25, allowed=mask)
        scan = scanning.search(query[None], 25, allowed=mask)
        assert looked_up[1].tolist() == scan[1].tolist()
        assert looked_up[0].tolist() == scan[0].tolist()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_index_reaches_what_its_entry_says_on_vectors_never_seen(tmp_path: Path, kind: str, dtype: str) -> None:
    vectors, queries = clustered(4000), clustered(200, seed=1)
    table = put(tmp_path, {"a": vectors[:2500], "b": vectors[2500:]}, dtype)
    entry = make_index(tmp_path, "1", table, settings=configured(type=kind))
    assert entry.kind == kind
    assert entry.recall_at_10 >= 0.95
    assert entry.covers == (("a", 2500), ("b", 1500))
    assert entry.bytes == (tmp_path / entry.path / INDEX).stat().st_size
    assert IndexEntry.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry
    store = open_store(tmp_path, table, "image", entry)
    truth = brute(vectors.astype(dtype), queries, 10)
    found = store.search(queries, 10)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)])
    assert recall >= entry.recall_at_10 - 0.03
    # deeper than it was tuned for, or on demand, it is exact
    assert (store.search(queries, 21)[1][:, :10] == truth).all()
    assert (store.search(queries, 10, exact=True)[1] == truth).all()


def test_scores_of_an_index_are_those_of_exact_search(tmp_path: Path) -> None:
    vectors, queries = clustered(3000), clustered(50, seed=1)
    table = put(tmp_path, {"a": vectors})
    store = open_store(tmp_path, table, "image", make_index(tmp_path, "1", table, settings=configured()))
    exact_scores, exact_positions = store.search(queries, 3000, exact=True)
    for n, (scores, positions) in enumerate(zip(*store.search(queries, 10), strict=True)):
        known = dict(zip(exact_positions[n].tolist(), exact_scores[n].tolist(), strict=True))
        assert scores.tolist() == [known[position] for position in positions.tolist()]
        assert len(set(positions.tolist())) == 10


def test_vectors_left_out_of_an_index_are_found_all_the_same(tmp_path: Path) -> None:
    vectors = clustered(3000)
    table = put(tmp_path, {"a": vectors})
    store = open_store(tmp_path, table, "image", make_index(tmp_path, "1", table, settings=configured()))
    left_out = held_out_rows(3000, 100)
    assert store.index is not None
    assert store.index.native.ntotal == 3000 - 100
    assert len(left_out) == 100
    assert (store.search(vectors[left_out], 1)[1][:, 0] == left_out).all()


@pytest.mark.parametrize("count", [0, 5, 10, 99, 1000, 100_000])
def test_left_out_rows_are_spread_and_always_the_same(count: int) -> None:
    rows = held_out_rows(count, 200)
    assert len(rows) == min(200, count // 10)
    assert (np.diff(rows) > 0).all()
    if count >= 1000:
        assert rows[0] < 2 * count / len(rows)
        assert rows[-1] < count
        assert np.diff(rows).max() < 3 * count / len(rows)
        assert len(set(rows % 4)) == 4  # four views of a product: all of them ask
    if count == 1000:
        assert {618, 236, 854, 472, 90} <= set(rows.tolist())  # multiples of .6180339..., modulo one


def test_what_is_added_is_searched_beside_the_index_until_it_is_too_much(tmp_path: Path) -> None:
    vectors, more, queries = clustered(3000), clustered(300, seed=5), clustered(60, seed=1)
    table = put(tmp_path, {"000001-image": vectors})
    settings = configured()
    first = make_index(tmp_path, "000001", table, settings=settings)
    table |= put(tmp_path, {"000002-image": more})
    second = make_index(tmp_path, "000002", table, settings=settings, previous=first)
    assert second.path == first.path == "indexes/000001"
    assert second.covers == (("000001-image", 3000),)
    assert second.vectors == 3300
    assert "300 are searched exactly" in second.reason
    assert not (tmp_path / "indexes" / "000002").exists()
    store = open_store(tmp_path, table, "image", second)
    assert (store.search(more, 1)[1][:, 0] == 3000 + np.arange(300)).all()
    both = np.concatenate([vectors, more])
    truth, found = brute(both, queries, 10), store.search(queries, 10)[1]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)]) > 0.9
    assert (found >= 3000).any()
    # nothing new: the entry is taken over as it is, figures and all
    assert make_index(tmp_path, "000003", table, settings=settings, previous=second) == second
    few = settings.model_copy(update={"max_beside": 299})
    assert make_index(tmp_path, "000005", table, settings=few, previous=first).path == "indexes/000005"
    table |= put(tmp_path, {"000004-image": clustered(900, seed=6)})
    rebuilt = make_index(tmp_path, "000004", table, settings=settings, previous=second)
    assert rebuilt.path == "indexes/000004"
    assert rebuilt.covers == tuple((name, entry.count) for name, entry in sorted(table.items()))


def test_an_index_over_a_segment_that_has_gone_is_made_again(tmp_path: Path) -> None:
    vectors = clustered(3000)
    table = put(tmp_path, {"a": vectors[:1000], "b": vectors[1000:]})
    first = make_index(tmp_path, "1", table, settings=configured())
    gone = {"b": table["b"]}
    with pytest.raises(CatalogueError, match="damaged"):
        open_store(tmp_path, gone, "image", first)
    second = make_index(tmp_path, "2", gone, settings=configured(), previous=first)
    assert second.path == "indexes/2"
    assert second.covers == (("b", 2000),)
    assert (open_store(tmp_path, gone, "image", second).search(vectors[1000:1010], 1)[1][:, 0] == np.arange(10)).all()


def test_an_index_between_other_segments_finds_the_right_positions(tmp_path: Path) -> None:
    vectors = clustered(3300)
    table = put(tmp_path, {"b": vectors[200:2200], "d": vectors[2250:3250]})
    first = make_index(tmp_path, "1", table, settings=configured())
    table |= put(tmp_path, {"a": vectors[:200], "c": vectors[2200:2250], "e": vectors[3250:]})
    store = open_store(
        tmp_path, table, "image", make_index(tmp_path, "2", table, settings=configured(), previous=first)
    )
    assert store.index is not None
    assert store.names == ["a", "b", "c", "d", "e"]
    found = store.search(vectors, 1)[1][:, 0]
    assert np.mean(found == np.arange(3300)) > 0.97


def test_the_same_vectors_give_the_same_index(tmp_path: Path) -> None:
    for kind in ("ivf", "hnsw"):
        table = put(tmp_path, {"a": clustered(2500)})
        for name in ("1", "2"):
            make_index(tmp_path, name, table, settings=configured(type=kind))
        one, two = ((tmp_path / "indexes" / name / INDEX).read_bytes() for name in ("1", "2"))
        assert one == two


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_answers_are_the_same_from_any_number_of_threads(tmp_path: Path, kind: str) -> None:
    table = put(tmp_path, {"a": clustered(2500), "b": clustered(100, seed=8)})
    queries = clustered(120, seed=1)
    store = open_store(tmp_path, table, "image", make_index(tmp_path, "1", table, settings=configured(type=kind)))
    ask: Callable[[int], tuple[np.ndarray, np.ndarray]] = lambda n: store.search(queries[n : n + 1], 10)  # noqa: E731
    alone = store.search(queries, 10)
    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            answers = list(pool.map(ask, range(120)))
        assert (np.concatenate([scores for scores, _ in answers]) == alone[0]).all()
        assert (np.concatenate([positions for _, positions in answers]) == alone[1]).all()


def planted(kind: str, memory: int, recall: float, latency: float, made: list[str] | None = None) -> Candidate:
    def make() -> IndexEntry:
        if made is not None:
            made.append(kind)
        return IndexEntry(
            *(kind, f"indexes/{kind}"),
            bytes=memory,
            recall_at_10=recall,
            latency_ms_p50=latency,
            latency_ms_p95=latency,
        )

    return Candidate(kind, memory, make)


def test_the_cheapest_that_passes_is_chosen_and_each_other_says_why_not() -> None:
    made: list[str] = []
    candidates = [
        planted("exact", 900 << 20, 1.0, 60.0, made),
        planted("forgetful", 100 << 20, 0.95, 0.1, made),
        planted("fits", 300 << 20, 0.993, 0.9, made),
        planted("slow", 200 << 20, 0.999, 7.0, made),
    ]
    limits: dict[str, Any] = {"recall": 0.99, "max_memory": 500 << 20, "max_latency_ms": 3.0, "log": lambda text: None}
    entry, tried = choose(candidates, **limits)
    assert entry is not None
    assert entry.kind == "fits"
    assert made == ["forgetful", "slow", "fits"]  # what is dearer is never made
    assert {one["kind"]: one.get("rejected") for one in tried} == {
        "forgetful": "recall@10 is 0.9500, below 0.99",
        "slow": "a query takes 7.00 ms, more than 3 ms",
        "fits": None,
    }
    made.clear()
    entry, tried = choose([candidates[0], candidates[1]], **limits)
    assert entry is None
    assert made == ["forgetful"]  # what is too large is not even made
    assert tried[1]["rejected"] == "takes 900 MiB, more than 500 MiB"
    # without limits the least memory wins, however slow it is
    entry, _ = choose(candidates, recall=0.99, max_memory=None, max_latency_ms=None, log=lambda text: None)
    assert entry is not None
    assert entry.kind == "slow"


def test_few_vectors_are_searched_exactly_and_it_says_why(tmp_path: Path) -> None:
    table = put(tmp_path, {"a": clustered(900)})
    entry = make_index(tmp_path, "1", table, settings=configured(exact_below=1000))
    assert (entry.kind, entry.path, entry.recall_at_10) == ("flat", None, 1.0)
    assert "fewer than index.exact_below (1,000)" in entry.reason
    assert not (tmp_path / "indexes" / "1").exists()
    for count in (1, 2, 9, 99):
        table = put(tmp_path, {"a": clustered(count)})
        for kind in ("auto", "ivf", "hnsw", "flat"):
            assert make_index(tmp_path, "1", table, settings=configured(type=kind)).kind == "flat"
    assert make_index(tmp_path, "1", {}, settings=configured()).vectors == 0


def test_where_nothing_passes_search_is_exact_and_it_says_why(tmp_path: Path) -> None:
    table = put(tmp_path, {"a": clustered(2000)})
    entry = make_index(tmp_path, "1", table, settings=configured(max_latency_ms=1e-6))
    assert entry.kind == "flat"
    assert {one["kind"] for one in entry.tried} == {"ivf", "hnsw", "flat"}
    assert all("a query takes" in one["rejected"] for one in entry.tried)
    assert "no index reaches recall@10 of 0.95 within 1e-06 ms" in entry.reason
    assert not (tmp_path / "indexes" / "1").exists()
    forced = make_index(tmp_path, "2", table, settings=configured(type="ivf", recall=1.0))
    assert forced.kind == "ivf"
    assert "set by index.type" in forced.reason


def test_the_measure_sees_an_index_that_forgets(tmp_path: Path) -> None:
    table = put(tmp_path, {"a": clustered(4000)})
    settings = configured()
    entry = make_index(tmp_path, "1", table, settings=settings)
    truth = find_truth(open_store(tmp_path, table, "image"), settings)
    whole = open_store(tmp_path, table, "image", entry)
    assert whole.index is not None
    blind = VectorStore(list(zip(whole.names, whole.indexes, strict=True)), whole.index.tuned(1, 20))
    assert measure(blind, truth, 20)["recall_at_10"] < 0.9 < entry.recall_at_10


def test_words_use_the_index_only_where_it_was_measured_with_words(tmp_path: Path) -> None:
    table = put(tmp_path, {"a": clustered(3000)})
    entry = make_index(tmp_path, "1", table, settings=configured())
    assert (entry.text, entry.text_recall_at_10) == (False, None)
    assert not open_store(tmp_path, table, "image", entry).serves_text
    assert open_store(tmp_path, table, "image").serves_text  # exact search serves all
    table |= put(tmp_path, {"c": clustered(300, seed=4)}, kind="caption")
    entry = make_index(tmp_path, "2", table, settings=configured(), previous=entry)
    assert entry.path == "indexes/1"
    assert entry.text_recall_at_10 > 0.9
    assert open_store(tmp_path, table, "image", entry).serves_text == (entry.text_recall_at_10 >= 0.95)
    elsewhere = np.random.default_rng(5).normal(size=(300, DIM)).astype(np.float32)
    table |= put(tmp_path, {"c": elsewhere / np.linalg.norm(elsewhere, axis=1, keepdims=True)}, kind="caption")
    hard = make_index(tmp_path, "3", table, settings=configured())
    assert hard.text_recall_at_10 < entry.text_recall_at_10


@pytest.mark.parametrize(
    "fault", ["missing", "truncated", "longer", "head", "kind", "segments", "entry", "other", "ids"]
)
def test_an_index_that_is_not_what_was_written_is_one_clear_error(tmp_path: Path, fault: str) -> None:
    table = put(tmp_path, {"a": clustered(3000)})
    entry = make_index(tmp_path, "1", table, settings=configured(type="ivf"))
    path = tmp_path / entry.path / INDEX
    data = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(data[:-100])
    elif fault == "longer":
        path.write_bytes(data + b"x")
    elif fault == "head":
        path.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif fault == "kind":
        entry = entry._replace(kind="hnsw")
    elif fault == "segments":
        table = put(tmp_path, {"a": clustered(2000)})
    elif fault == "entry":
        entry = entry._replace(parameters={"left_out": 100})
    elif fault == "other":
        other = make_index(
            tmp_path / "b", "1", put(tmp_path / "b", {"a": clustered(3000, dim=24)}), settings=configured()
        )
        shutil.copy(tmp_path / "b" / other.path / INDEX, path)
        entry = entry._replace(bytes=other.bytes, head=other.head)
    elif fault == "ids":  # rows that do not exist: found when they are asked for
        path.write_bytes(data[: entry.head["bytes"]] + b"\x7f" * (len(data) - entry.head["bytes"]))
    with pytest.raises(CatalogueError, match="damaged") as caught:
        open_store(tmp_path, table, "image", entry).search(clustered(20, seed=1), 10)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_damaged_index_is_made_again_by_the_next_build(tmp_path: Path) -> None:
    table = put(tmp_path, {"a": clustered(3000)})
    entry = make_index(tmp_path, "1", table, settings=configured())
    (tmp_path / entry.path / INDEX).write_bytes(b"gone")
    more = table | put(tmp_path, {"b": clustered(30, seed=2)})
    for name, present in (("2", table), ("3", more)):
        again = make_index(tmp_path, name, present, settings=configured(), previous=entry)
        assert again.path == f"indexes/{name}"
        assert open_index(tmp_path, again, present) is not None


FUZZ = """
import json, pickle, sys
import numpy as np
from pathlib import Path
from fashionrec.errors import CatalogueError
from fashionrec.store.vectors import Cut, open_store
root, seed, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
table, entry = pickle.loads((root / "entry.pickle").read_bytes())
queries = np.load(root / "queries.npy")
rng = np.random.default_rng(seed)
files = [root / entry.path / "index.faiss", root / "segments" / "a" / "vectors.faiss"]
whole = [file.read_bytes() for file in files]
refused = answered = 0
for trial in range(trials):
    n = trial % 2
    data = bytearray(whole[n])
    if trial % 7 == 0:
        data = data[: rng.integers(len(data))]
    else:
        for _ in range(rng.integers(1, 4)):
            # half of the flips where the structure is
            end = len(data) if rng.random() < 0.5 else min(len(data), 400)
            data[rng.integers(end)] ^= 1 << rng.integers(8)
    store = None  # Windows does not remove what is mapped
    files[n].unlink()
    files[n].write_bytes(data)
    try:
        store = open_store(root, table, "image", entry)
        scores, positions = store.search(queries, 10)
        store.search(queries[:2], 10, exact=True)
        assert positions.min() >= 0 and positions.max() < len(store)
        answered += 1
    except CatalogueError:
        refused += 1
    files[n].write_bytes(whole[n])
print(json.dumps([refused, answered]))
"""


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_no_flipped_bit_crashes_a_search(tmp_path: Path, kind: str) -> None:
    table = put(tmp_path, {"a": clustered(1500)})
    entry = make_index(tmp_path, "1", table, settings=configured(type=kind))
    keep(tmp_path, table, entry)
    np.save(tmp_path / "queries.npy", clustered(10, seed=1))
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path), "0", "300"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, answered = json.loads(done.stdout)
    assert refused + answered == 300
    assert refused > 100
    assert answered > 20  # a changed number in a vector is seen by its checksum only


MAPPED = """
import json, pickle, sys
from pathlib import Path
from fashionrec.store.vectors import Cut, open_store
import faiss, numpy
def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024
before = anonymous()
root = Path(sys.argv[1])
table, entry = pickle.loads((root / "entry.pickle").read_bytes())
store = open_store(root, table, "image", entry, threads=1)
opened = anonymous() - before
store.search(store.fetch([0, 1, 2]), 10)
store.search(store.fetch([0, 1, 2]), 10, exact=True)
print(json.dumps([opened, anonymous() - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_opening_maps_and_does_not_read(tmp_path: Path, dtype: str) -> None:
    bytes_of = {"float32": 4, "float16": 2}[dtype]
    rows = (100 << 20) // (256 * bytes_of)
    block = np.random.default_rng(0).normal(size=(8192, 256)).astype(np.float32) / 16
    folder = tmp_path / "segments" / "a"
    folder.mkdir(parents=True)
    chunks = (block[: min(8192, rows - start)] for start in range(0, rows, 8192))
    write_vectors(folder / VECTORS, chunks, 256, dtype)
    keep(tmp_path, {"a": SegmentEntry("image", rows, 256, "e")}, None)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MAPPED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment)
    opened, searched = json.loads(done.stdout)
    assert opened < 2
    assert searched < 20


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(("kind", "rows", "dim"), [("ivf", 80_000, 256), ("hnsw", 20_000, 128)])
def test_an_index_is_mapped_too(tmp_path: Path, kind: str, rows: int, dim: int) -> None:
    table = put(tmp_path, {"a": clustered(rows, dim=dim)})
    entry = make_index(tmp_path, "1", table, settings=configured(type=kind, recall=0.5))
    keep(tmp_path, table, entry)
    command = [sys.executable, "-c", MAPPED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert entry.bytes > 4 << 20  # else reading it would not show
    assert json.loads(done.stdout)[0] < 0.5 * entry.bytes / 2**20


@pytest.mark.parametrize("place", range(0, 81, 5))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_byte_of_a_header_counts(tmp_path: Path, place: int, dtype: str) -> None:
    path = tmp_path / "v"
    write_vectors(path, clustered(20), dtype=dtype)
    data = bytearray(path.read_bytes())
    if place >= len(header(20, DIM, dtype)):
        return
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(CatalogueError, match="damaged"):
        open_vectors(path, count=20, dim=DIM)
