"""A choice of index that is made once: what lets it stand while a catalogue grows a little, and
what does not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_index import brute, put
from test_index_kept import scattered, settings

from fashionrec.catalogue.build.report import BuildReport, report_page
from fashionrec.cli.reindex import index_line
from fashionrec.config import IndexConfig
from fashionrec.store.index import make_index
from fashionrec.store.manifest import IndexEntry
from fashionrec.store.vectors import open_store

#: Nothing reaches this, so that `auto` tries every kind and ends at exact search.
NOTHING: dict[str, Any] = {"recall": 1.01}


def grown(
    root: Path, wanted: IndexConfig, more: int, count: int = 1000, **changes: Any
) -> tuple[IndexEntry, IndexEntry, list[str]]:
    """The entry of ``count`` vectors (with ``changes``), the one made of it when ``more`` came, and
    what that logged.
    """
    table = put(root, {"a": scattered(count)})
    before = make_index(root, "1", table, settings=wanted)._replace(**changes)
    table |= put(root, {"b": scattered(more, seed=3)})
    logged: list[str] = []
    after = make_index(root, "2", table, settings=wanted, previous=before, log=logged.append)
    return before, after, logged


def is_carried(before: IndexEntry, after: IndexEntry) -> bool:
    """Return whether the figures are those of before, and say so; else they are of all that there
    is.
    """
    figures = ("kind", "path", "tried", "recall_at_10", "latency_ms_p50", "latency_ms_p95", "build_seconds")
    same = all(getattr(before, name) == getattr(after, name) for name in figures)
    assert same == bool(after.measured_on) == ("measured_on" in after.to_dict()) == ("since" in after.to_dict())
    return same


def test_what_ended_at_exact_is_not_tried_again_before_a_tenth_is_new(tmp_path: Path) -> None:
    before, after, logged = grown(tmp_path, settings(**NOTHING), 60)
    assert before.path is None
    assert {one["kind"] for one in before.tried} == {"flat", "ivf", "hnsw"}
    assert is_carried(before, after)
    assert (after.vectors, after.over, logged) == (1060, (("a", 1000), ("b", 60)), [])
    assert after.to_dict()["measured_on"] == {"image": 1000, "caption": 0}
    assert after.to_dict()["since"] == {"image": 60, "caption": 0}
    table = put(tmp_path, {"a": scattered(1000), "b": scattered(60, seed=3), "c": scattered(40, seed=4)})
    tenth = make_index(tmp_path, "3", table, settings=settings(**NOTHING), previous=after, log=logged.append)
    assert is_carried(before, tenth)
    assert (tenth.measured_on["image"], tenth.since["image"]) == (1000, 100)
    table |= put(tmp_path, {"d": scattered(1, seed=5)})
    more = make_index(tmp_path, "4", table, settings=settings(**NOTHING), previous=tenth, log=logged.append)
    assert not is_carried(before, more)
    assert any(line.startswith("building ivf for 1,101 vectors") for line in logged)
    few = {"a": replace(table["a"], count=899)}
    put(tmp_path, {"a": scattered(899)})
    assert not is_carried(before, make_index(tmp_path, "5", few, settings=settings(**NOTHING), previous=before))


@pytest.mark.parametrize(
    ("wanted", "changes", "more", "carried"),
    [
        ({"exact_below": 2000}, {}, 50, True),
        ({"exact_below": 1050, "recall": 0.2}, {}, 50, False),  # from now on there is to be an index
        ({"exact_below": 1051, "recall": 0.2}, {}, 50, True),
        ({"exact_below": 2000, "max_latency_ms": 1e6}, {}, 50, True),
        ({"exact_below": 2000, "max_latency_ms": 1e6}, {"latency_ms_p50": 2e6}, 50, False),  # it has become fast
        ({"exact_below": 2000, "max_latency_ms": 1e-9}, {}, 50, True),  # too slow it was before, and nothing is faster
        ({"exact_below": 2000, "max_latency_ms": 1e-9}, {"latency_ms_p50": 0.0}, 50, False),
    ],
)
def test_exact_search_stays_while_the_limits_say_the_same_of_it(
    wanted: dict[str, Any], changes: dict[str, Any], more: int, carried: bool, tmp_path: Path
) -> None:
    before, after, _ = grown(tmp_path, settings(**wanted), more, **changes)
    assert is_carried(before, after) == carried


def test_exact_search_that_outgrows_its_memory_is_chosen_again(tmp_path: Path) -> None:
    wanted = settings(max_memory=1, exact_below=10_000, recall=0.0)  # of 32 numbers, 8,192 vectors fit
    before, after, _ = grown(tmp_path, wanted, 193, count=8000)
    assert (before.path, after.path) == (None, "indexes/2")
    assert after.kind == "ivf"
    before, after, _ = grown(tmp_path, wanted, 192, count=8000)
    assert is_carried(before, after)


def test_an_index_is_kept_and_asked_for_the_new_vectors_alone(tmp_path: Path) -> None:
    wanted = settings(recall=0.4)
    before, after, logged = grown(tmp_path, wanted, 60)
    assert before.path == "indexes/1"
    assert is_carried(before, after)
    assert (after.vectors, logged) == (1060, [])
    assert "covers 1,000 vectors; 60 are searched exactly" in after.reason
    vectors = np.concatenate([scattered(1000), scattered(60, seed=3)])
    asked = 1000 + np.linspace(0, 59, 40).astype(int)  # as many as index.queries
    nearest = brute(vectors, vectors[asked], 11)
    store = open_store(tmp_path, put(tmp_path, {"a": vectors[:1000], "b": vectors[1000:]}), "image", after)
    shares = []
    for own, truth in zip(asked, nearest, strict=True):
        found = store.search(vectors[own][None], wanted.depth)[1][0]
        shares.append(np.isin(truth[truth != own], found[found != own]).sum() / 10)
    assert after.since["recall_at_10"] == pytest.approx(np.mean(shares), abs=0.011)
    assert {key: after.since[key] for key in ("image", "caption")} == {"image": 60, "caption": 0}


def test_an_index_that_finds_new_vectors_badly_is_measured_again(tmp_path: Path) -> None:
    wanted = settings(recall=0.4)
    before, after, logged = grown(tmp_path, wanted, 60, recall_at_10=0.4, since={"image": 30, "recall_at_10": 0.0})
    assert not is_carried(before, after)
    assert after.recall_at_10 >= 0.4
    assert any(line.startswith("recall@10 of new vectors is") for line in logged)
    before, after, logged = grown(tmp_path, wanted, 60, recall_at_10=0.9, since={"image": 30, "recall_at_10": 0.0})
    assert is_carried(before, after)  # those of before make up for them
    before, after, _ = grown(tmp_path, settings(type="ivf", recall=0.4), 60, recall_at_10=0.1)
    assert is_carried(before, after)  # a kind that is asked for is taken whatever it reaches


def test_words_are_measured_again_where_a_tenth_of_the_captions_is_new(tmp_path: Path) -> None:
    wanted = settings(recall=0.4)
    table = put(tmp_path, {"a": scattered(1000)}) | put(tmp_path, {"t": scattered(200, seed=7)}, kind="caption")
    before = make_index(tmp_path, "1", table, settings=wanted)
    assert before.text_recall_at_10 is not None
    table |= put(tmp_path, {"u": scattered(20, seed=8)}, kind="caption")
    after = make_index(tmp_path, "2", table, settings=wanted, previous=before)
    assert is_carried(before, after)
    assert (after.text, after.text_recall_at_10) == (before.text, before.text_recall_at_10)
    assert after.since == {"image": 0, "caption": 20}
    table |= put(tmp_path, {"v": scattered(1, seed=9)}, kind="caption")
    again = make_index(tmp_path, "3", table, settings=wanted, previous=after)
    assert (again.path, again.measured_on) == ("indexes/1", {})
    anew = put(tmp_path, {"w": scattered(200, seed=10)}, kind="caption") | {"a": table["a"]}  # as many, all of them new
    assert make_index(tmp_path, "4", anew, settings=wanted, previous=before).measured_on == {}


def test_it_is_said_what_the_figures_were_measured_on(tmp_path: Path) -> None:
    before, after, _ = grown(tmp_path, settings(exact_below=2000), 50)
    figures = f"recall@10 1.000, {before.latency_ms_p50:.2f} ms a query"
    assert index_line(before.to_dict()) == f"flat, 1,000 vectors, {figures}"
    assert index_line(after.to_dict()) == f"flat, 1,050 vectors, {figures} (measured on 1,000 vectors)"
    entries = dict.fromkeys(("added", "changed", "replaced", "removed", "kept"), 0)
    assert "1,000 vectors" in report_page(BuildReport(index=after, entries=entries).to_dict(), "c")
    assert "measured on" not in report_page(BuildReport(index=before, entries=entries).to_dict(), "c")
    assert IndexEntry.from_dict(after.to_dict()) == after
    for broken in ({"measured_on": 7}, {"since": {"image": "many"}}, {"measured_on": {"image": -1}}):
        with pytest.raises(ValueError, match=next(iter(broken))):
            IndexEntry.from_dict({**after.to_dict(), **broken})
