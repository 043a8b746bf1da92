"""An index that exists: when it goes on being used, and when it is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_index import configured, put

from fashionrec.config import IndexConfig
from fashionrec.store.index import find_truth, make_index
from fashionrec.store.vectors import open_store


def settings(**changes: Any) -> IndexConfig:
    return configured(**{"queries": 40, "depth": 10, **changes})


def scattered(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors that lie anywhere, so that no index finds all of them."""
    vectors = np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def entries(root: Path, first: dict[str, Any], second: dict[str, Any], more: int = 0) -> tuple[Any, Any, list[str]]:
    """The entry made with ``first`` settings, and the one made of it with ``second`` over ``more``
    vectors; what was logged.
    """
    table = put(root, {"a": scattered(1000)})
    before = make_index(root, "1", table, settings=settings(**first))
    assert before.path == "indexes/1"
    if more:
        table |= put(root, {"b": scattered(more, seed=3)})
    logged: list[str] = []
    after = make_index(root, "2", table, settings=settings(**second), previous=before, log=logged.append)
    return before, after, logged


def test_an_index_that_no_longer_reaches_the_bar_is_made_again(tmp_path: Path) -> None:
    before, after, logged = entries(tmp_path, {"recall": 0.5}, {"recall": 0.7})
    assert 0.5 <= before.recall_at_10 < 0.7
    assert after.path == "indexes/2"
    assert after.recall_at_10 >= 0.7
    assert any("rebuilding it" in line for line in logged)


def test_an_index_that_reaches_the_bar_is_kept_and_measured_anew(tmp_path: Path) -> None:
    before, after, logged = entries(tmp_path, {"recall": 0.7}, {"recall": 0.65}, more=100)
    assert after.path == before.path
    assert (after.kind, after.covers) == (before.kind, (("a", 1000),))
    assert (before.vectors, after.vectors) == (1000, 1100)
    assert "covers 1,000 vectors; 100 are searched exactly" in after.reason
    assert after.recall_at_10 >= 0.65
    assert not any("rebuilding it" in line for line in logged)


def test_a_kind_that_is_asked_for_is_kept_whatever_it_reaches(tmp_path: Path) -> None:
    before, after, _ = entries(tmp_path, {"type": "ivf", "recall": 0.5}, {"type": "ivf", "recall": 0.99})
    assert before.recall_at_10 < 0.99
    assert (after.path, after.kind) == ("indexes/1", "ivf")


@pytest.mark.parametrize(
    "change",
    [{"type": "hnsw"}, {"depth": 20}, {"queries": 30}, {"seed": 5}, {"max_latency_ms": 1e-6}, {"type": "flat"}],
)
def test_an_index_of_other_settings_is_made_again(change: dict[str, Any], tmp_path: Path) -> None:
    kind = {"type": "ivf", "recall": 0.5}
    _, after, _ = entries(tmp_path, kind, {**kind, **change})
    if "type" in change:
        assert after.kind == change["type"]
    assert after.path == (None if change == {"type": "flat"} else "indexes/2")


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"rebuild_above": 0.1}, True),  # 100 of 1,100 are less than a tenth
        ({"rebuild_above": 0.09}, False),
        ({"rebuild_above": 0.2, "max_beside": 100}, True),
        ({"rebuild_above": 0.2, "max_beside": 99}, False),
    ],
)
def test_an_index_is_made_again_where_too_many_vectors_are_beside_it(
    limits: dict[str, Any], kept: bool, tmp_path: Path
) -> None:
    wanted = {"recall": 0.4, **limits}
    _, after, logged = entries(tmp_path, wanted, wanted, more=100)
    assert after.path == ("indexes/1" if kept else "indexes/2")
    assert any("100 of 1,100 vectors are not in the index" in line for line in logged) != kept
    assert after.covers == ((("a", 1000),) if kept else (("a", 1000), ("b", 100)))


def test_nothing_is_measured_where_nothing_has_changed(tmp_path: Path) -> None:
    before, after, logged = entries(tmp_path, {"recall": 0.5}, {"recall": 0.5})
    assert after == before
    assert logged == []


@pytest.mark.parametrize(("depth", "expected"), [(4, 10), (25, 25)])
def test_the_truth_is_as_deep_as_answers_may_be_and_ten_at_least(depth: int, expected: int, tmp_path: Path) -> None:
    store = open_store(tmp_path, put(tmp_path, {"a": scattered(300)}), "image")
    truth = find_truth(store, settings(depth=depth, queries=20))
    assert truth.scores.shape == (len(truth.positions), expected)
    for question, position, scores in zip(truth.questions, truth.positions, truth.scores, strict=True):
        cosines = scattered(300) @ question
        assert scores.tolist() == pytest.approx(
            sorted(cosines[[n for n in range(300) if n != position]])[::-1][:expected], abs=1e-6
        )
