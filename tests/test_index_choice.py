"""The choice of an index by hand: what is tried, what a measure is made of, and what the entry says
of both.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_index import clustered, configured, planted, put

from fashionrec.store.approximate import payload
from fashionrec.store.index import Truth, ask, choose, find_truth, make_index, measure, recall_of, text_recall
from fashionrec.store.index_kinds import expected_bytes, lists_of, search_parameters
from fashionrec.store.vectors import open_store


@pytest.mark.parametrize(
    ("count", "lists"),
    [(0, 2), (1, 2), (2, 4), (3, 4), (100, 16), (128, 16), (129, 32), (1000, 64), (10_000, 256), (1_000_000, 2048)],
)
def test_about_twice_the_root_of_the_count_is_the_number_of_lists(count: int, lists: int) -> None:
    assert lists_of(count) == lists


def test_about_how_large_an_index_will_be() -> None:
    assert payload("hnsw", 1000, 33) == 33_000
    assert payload("ivf", 1000, 32) == 1000 * (4 + 8 + 8)
    assert payload("ivf", 1000, 33) == 1000 * (5 + 8 + 8)
    assert expected_bytes("hnsw", 1000, 33) == 1000 * (33 + 4 * (64 + 2) + 16)
    assert expected_bytes("ivf", 1000, 33) == 21_000 + 64 * 33 * 4


def test_efforts_are_tried_from_the_cheapest() -> None:
    assert list(search_parameters("hnsw", 1000, 20)) == [(20, 20), (40, 40), (80, 80), (160, 160)]
    assert list(search_parameters("ivf", 1000, 5)) == [
        (lists, kept) for kept in (10, 20, 40) for lists in (4, 8, 16, 32)
    ]
    assert list(search_parameters("ivf", 10, 5)) == list(search_parameters("ivf", 1, 5)) == [(4, 10), (4, 20), (4, 40)]


def arrays(*pairs: tuple[list[float], list[int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array(scores, np.float32), np.array(positions)) for scores, positions in pairs]


def test_recall_is_the_share_of_the_nearest_that_is_in_the_answer_by_score() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.1]] * 5, np.float32)
    truth = Truth(np.zeros((5, 2), np.float32), np.arange(5), scores)
    answers = arrays(
        ([1, 0.9, 0.8, 0.7], [0, 7, 8, 9]),  # the question itself is left aside
        ([0.9, 0.8, 0.7, 0.7], [7, 8, 9, 6]),  # no more than three are looked at
        ([0.9, 0.7, 0.1], [7, 9, 8]),
        ([0.9, 0.7 - 5e-7, 0.7 - 5e-6], [7, 8, 9]),  # as near as rounding
        ([], []),
    )
    assert recall_of(answers, truth, 3).tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])
    assert recall_of(answers, truth, 1).tolist() == [1, 1, 1, 1, 0]
    assert recall_of(answers, truth, 9).tolist() == pytest.approx([3 / 4, 1, 3 / 4, 3 / 4, 0])  # there are four
    assert recall_of(answers, replace(truth, scores=scores[:, :0]), 3).tolist() == [1] * 5


class Answers:
    """A store that takes so many milliseconds for each query, and answers every second
    one wrongly.
    """

    def __init__(self, clock: list[float], took: list[float], index: object = None) -> None:
        self.clock, self.took, self.index, self.asked = clock, took, index, list[tuple[int, int]]()

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(query[0, 0])
        self.asked.append((number, k))
        self.clock[0] += self.took[number] / 1000
        scores = np.full((1, k), 0.5 if number % 2 else 0.9, np.float32)
        scores[0, 0] = 0.9
        return scores, np.arange(1000, 1000 + k)[None]


def timed(took: list[float], depth: int, index: object, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Answers]:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    store: Any = Answers(clock, took, index)
    numbers = np.arange(len(took))
    questions = np.stack([numbers, numbers], axis=1).astype(np.float32)
    truth = Truth(questions, numbers, np.full((len(took), 30), 0.8, np.float32))
    return measure(store, truth, depth), store


def test_times_are_of_single_queries_for_their_ten_best(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, store = timed([(n + 1.004) / 10 for n in range(100)][::-1], 20, None, monkeypatch)
    assert figures == {"recall_at_10": 1.0, "latency_ms_p50": 5.05, "latency_ms_p95": 9.5}
    assert store.asked == [(n, 10) for n in (0, 1, 2, *range(100))]  # three first, which are not counted
    assert timed([], 20, None, monkeypatch)[0] == {"recall_at_10": 1.0, "latency_ms_p50": 0.0, "latency_ms_p95": 0.0}
    assert timed([3], 20, None, monkeypatch)[0]["latency_ms_p95"] == 3


@pytest.mark.parametrize(("took", "count"), [(200.0, 30), (100.5, 30), (61.0, 50), (29.0, 80)])
def test_enough_are_timed(took: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three seconds, and thirty at least."""
    _, store = timed([took] * 80, 20, None, monkeypatch)
    assert len(store.asked) == 3 + count


def test_the_worse_half_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, store = timed([1] * 5, 21, "an index", monkeypatch)
    assert figures == {
        "recall_at_10": 0.1,  # of questions 1 and 3: one of ten
        "recall_at_20": round((3 * 20 + 2) / 20 / 5, 4),
        "latency_ms_p50": 1,
        "latency_ms_p95": 1,
    }
    assert store.asked[:5] == [(n, 21) for n in range(5)]
    assert "recall_at_9" not in timed([1] * 5, 10, "an index", monkeypatch)[0]
    assert "recall_at_10" in timed([1] * 5, 11, "an index", monkeypatch)[0]
    assert timed([1], 10, "an index", monkeypatch)[0]["recall_at_10"] == 1.0


def test_what_was_tried_is_told() -> None:
    said: list[str] = []
    candidates = [planted("small", 1 << 20, 0.9, 0.5), planted("big", 3 << 20, 0.95, 2.0)]
    entry, tried = choose(candidates, recall=0.95, max_memory=3 << 20, max_latency_ms=2.0, log=said.append)
    assert entry is not None
    assert entry.kind == "big"
    assert tried == [
        {
            **{"kind": "small", "memory": 1 << 20, "parameters": {}, "bytes": 1 << 20, "recall_at_10": 0.9},
            **{"latency_ms_p50": 0.5, "latency_ms_p95": 0.5, "build_seconds": 0.0},
            "rejected": "recall@10 is 0.9000, below 0.95",
        },
        {
            **{"kind": "big", "memory": 3 << 20, "parameters": {}, "bytes": 3 << 20, "recall_at_10": 0.95},
            **{"latency_ms_p50": 2.0, "latency_ms_p95": 2.0, "build_seconds": 0.0},
        },
    ]
    assert said == [
        "small: recall@10 0.9000, 0.50 ms a query: recall@10 is 0.9000, below 0.95",
        "big: recall@10 0.9500, 2.00 ms a query",
    ]
    said.clear()
    entry, tried = choose(candidates[1:], recall=0, max_memory=(3 << 20) - 1, max_latency_ms=None, log=said.append)
    assert (entry, said) == (None, ["big: takes 3 MiB, more than 3 MiB"])
    assert tried == [{"kind": "big", "memory": 3 << 20, "rejected": "takes 3 MiB, more than 3 MiB"}]


@pytest.mark.parametrize(
    ("count", "changes", "kind", "reason"),
    [
        (99, {}, "flat", r"exact: 99 vectors, fewer than the minimum for an index \(100\)"),
        (99, {"exact_below": 99}, "flat", r"exact: 99 vectors, fewer than the minimum for an index \(100\)"),
        (149, {"exact_below": 150}, "flat", r"exact: 149 vectors, fewer than index\.exact_below \(150\)"),
        (150, {"exact_below": 150, "recall": 0.1}, "ivf", r"ivf: the lowest memory that reaches recall@10 of 0\.1"),
        (100, {"type": "ivf", "recall": 0.1}, "ivf", r"ivf, set by index\.type"),
        (99, {"type": "ivf"}, "flat", r"exact: 99 vectors, fewer than the minimum for an index \(100\)"),
        (150, {"type": "flat"}, "flat", r"exact, set by index\.type"),
        (
            150,
            {"type": "ivf", "recall": 1.01},
            "ivf",
            r"ivf, set by index\.type, although its recall@10 is below 1\.01",
        ),
        (
            *(150, {"max_memory": 0, "max_latency_ms": 1e-6}, "flat"),
            r"exact, since no index reaches recall@10 of 0\.95 within 0 MiB and 1e-06 ms \(ivf: takes 0 MiB, more than 0 MiB;"
            r" flat: takes 0 MiB, more than 0 MiB; hnsw: takes 0 MiB, more than 0 MiB\)",
        ),
        (
            *(120, {"exact_below": 1000, "max_latency_ms": 1e-6}, "flat"),
            r"exact, since no index reaches recall@10 of 0\.95 within 1e-06 ms \(flat: a query takes .* ms, more than 1e-06 ms;"
            r" ivf: .*; hnsw: .*\)",
        ),
        (
            *(99, {"max_latency_ms": 1e-6}, "flat"),
            r"exact, since no index reaches recall@10 of 0\.95 within 1e-06 ms \(flat: a query .*\)",
        ),
        (
            *(150, {"type": "auto", "max_latency_ms": 1e9, "recall": 0.1}, "ivf"),
            r"ivf: the lowest memory that reaches recall@10 of 0\.1 within 1000000000\.0 ms|ivf: .* within 1e\+09 ms",
        ),
    ],
)
def test_why_an_index_was_taken(tmp_path: Path, count: int, changes: dict[str, Any], kind: str, reason: str) -> None:
    table = put(tmp_path, {"a": clustered(count)})
    (tmp_path / "indexes" / "1").mkdir(parents=True)
    entry = make_index(tmp_path, "1", table, settings=configured(queries=10, depth=5, **changes))
    assert (entry.kind, entry.vectors, entry.over) == (kind, count, (("a", count),))
    assert re.fullmatch(reason, entry.reason), entry.reason
    assert entry.path == (None if kind == "flat" else "indexes/1")
    assert (tmp_path / "indexes" / "1").exists() == (kind != "flat")
    assert entry.settings == configured(queries=10, depth=5, **changes).model_dump()
    assert entry.dtype == "float32"
    if kind == "flat":
        assert (entry.text, entry.covers, entry.extra) == (None, (), {})
        assert entry.recall_at_10 == 1.0
        assert entry.latency_ms_p95 >= entry.latency_ms_p50 > 0
        assert all(one["memory"] == count * 32 * 4 for one in entry.tried if one["kind"] == "flat")
    else:
        assert entry.parameters["left_out"] == 10
        assert (entry.parameters["depth"], entry.covers) == (5, (("a", count),))


def test_half_floats_tell_the_worst_of_their_segments(tmp_path: Path) -> None:
    vectors = clustered(60)
    table = put(tmp_path, {"a": vectors[:20], "b": vectors[20:]}, "float16")
    table |= put(tmp_path, {"d": vectors[:9]}, "float16", kind="caption")
    recalls = {"a": 0.9, "b": 0.8, "d": 0.1}
    table = {name: replace(entry, float16_recall_at_10=recalls[name]) for name, entry in table.items()}
    entry = make_index(tmp_path, "1", table, settings=configured())
    assert (entry.float16_recall_at_10, entry.dtype) == (0.8, "float16")
    assert entry.over == (("a", 20), ("b", 40), ("d", 9))
    mixed = table | put(tmp_path, {"c": vectors[:5]})
    assert make_index(tmp_path, "1", mixed, settings=configured()).dtype == "float16 and float32"
    assert make_index(tmp_path, "1", {}, settings=configured()).dtype == ""


def test_words_are_asked_with_the_vectors_of_captions(tmp_path: Path) -> None:
    table = put(tmp_path, {"a": clustered(50)})
    store = open_store(tmp_path, table, "image")
    assert text_recall(tmp_path, table, store, configured()) is None
    assert (
        text_recall(tmp_path, table | put(tmp_path, {"c": clustered(9, dim=8)}, kind="caption"), store, configured())
        is None
    )
    table |= put(tmp_path, {"c": clustered(9)}, kind="caption")
    assert text_recall(tmp_path, table, store, configured()) == 1.0


def test_a_handful_of_vectors_all_ask(tmp_path: Path) -> None:
    store = open_store(tmp_path, put(tmp_path, {"a": clustered(9)}), "image")
    truth = find_truth(store, configured(queries=3))
    assert truth.positions.tolist() == list(range(9))
    assert truth.scores.shape == (9, 8)
    one = open_store(tmp_path, put(tmp_path, {"b": clustered(1)}), "image")
    assert find_truth(one, configured()).scores.shape == (1, 0)
    ((scores, positions),) = ask(store, truth.questions[:1], 3)
    assert positions[0] == 0
    assert scores.shape == positions.shape == (3,)
