"""The choice of a generation's index: the cheapest that measures as good as exact search.

Queries are held-out vectors of the catalogue (searched exactly in addition to the index), run one
by one, each excluded from its own results. Recall@10 is the share of the ten nearest, by exact
search over everything, that are found. Queries form two halves, by alternation; the worse half
counts and is reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.text import plural
from fashionrec.errors import CatalogueError
from fashionrec.store.approximate import INDEX, ApproximateIndex, held_out_rows, open_index
from fashionrec.store.generations import folder_of
from fashionrec.store.index_kinds import (
    KINDS,
    LEAST,
    WrittenIndex,
    expected_bytes,
    open_written,
    search_parameters,
    write_index,
)
from fashionrec.store.manifest import IndexEntry, SegmentEntry
from fashionrec.store.vectors import VectorStore, dtype_of, open_store

if TYPE_CHECKING:
    from fashionrec.config import IndexConfig

K = 10
Log = Callable[[str], None]
_FIRST = 3  # queries before timing starts
_TIMED, _LEAST_TIMES = 3000.0, 30  # milliseconds after which timing may stop, and the minimum number of queries
_GROWN = 0.1  # share of new vectors up to which a choice is kept
#: Bytes of vectors compared to measure the recall of new ones: about a tenth of a second.
_SCANNED = 1 << 30
_MEASURED = ("recall_at_10", "latency_ms_p50", "latency_ms_p95")


@dataclass(frozen=True)
class Truth:
    """Queries float32 [n, d], their positions, and the scores [n, m] of their nearest neighbours.

    A query is not its own neighbour.
    """

    questions: np.ndarray
    positions: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A candidate kind: its bytes in memory, and a function that builds and measures it."""

    kind: str
    memory: int
    make: Callable[[], IndexEntry]


def make_index(
    root: Path,
    name: str,
    segments: Mapping[str, SegmentEntry],
    *,
    settings: IndexConfig,
    previous: IndexEntry | None = None,
    log: Log = lambda text: None,
) -> IndexEntry:
    """Choose, build and measure the index of a generation; return its manifest ``index`` entry.

    Image vectors of ``segments`` are indexed; a new index is written to ``indexes/NAME``. The
    choice of ``previous`` is kept until a tenth of the vectors are new (:func:`carry`). Then its
    index is measured again, and kept if everything it covers exists, it reaches the required
    recall, and leaves at most ``settings.rebuild_above`` and ``max_beside`` of the vectors
    uncovered.

    Raises:
        OSError: The disk is full or fails.
    """
    over = tuple((key, entry.count) for key, entry in sorted(segments.items()))
    asked = settings.model_dump()
    if previous and previous.over == over and previous.settings == asked:
        with suppress(CatalogueError):  # a damaged one is rebuilt
            open_index(root, previous, segments)
            return previous
    store = open_store(root, segments, "image")
    entry = carry(root, segments, store, settings, previous, log) if previous and previous.settings == asked else None
    if entry is None:
        entry = _measure_anew(root, name, segments, store, settings, previous, log)
    halves = [one.float16_recall_at_10 for one in segments.values() if one.kind == "image"]
    half = min((recall for recall in halves if recall is not None), default=entry.float16_recall_at_10)
    dtypes = sorted({dtype_of(opened) for opened in store.indexes})
    return entry._replace(float16_recall_at_10=half, dtype=" and ".join(dtypes), over=over, settings=asked)


def _measure_anew(
    root: Path,
    name: str,
    segments: Mapping[str, SegmentEntry],
    store: VectorStore,
    settings: IndexConfig,
    previous: IndexEntry | None,
    log: Log,
) -> IndexEntry:
    """Return the previous index if still usable, else a new one, measured on all vectors."""
    truth = find_truth(store, settings)
    entry = _kept(root, segments, store, truth, settings, previous, log)
    if entry is None:
        entry = _chosen(root, f"indexes/{name}", store, truth, settings, log)
    if entry.path is not None:
        recall = text_recall(root, segments, open_store(root, segments, "image", entry), settings)
        entry = entry._replace(text_recall_at_10=recall, text=recall is not None and recall >= settings.recall)
    return entry._replace(measured_on={}, since={})


def carry(
    root: Path,
    segments: Mapping[str, SegmentEntry],
    store: VectorStore,
    settings: IndexConfig,
    previous: IndexEntry,
    log: Log,
) -> IndexEntry | None:
    """Return the choice made earlier with the same ``settings``; None to measure everything again.

    It must have been made for nearly the same vectors. Exact search misses nothing, so its choice
    stands while the limits on memory, time and number give the same decision. New vectors are
    searched exactly in addition to an index, which can only raise the recall of its queries, since
    fewer of their neighbours depend on the index. The recall of the new vectors themselves is
    measured, and must not pull the overall recall below the required one.
    """
    now = {kind: sum(entry.count for entry in segments.values() if entry.kind == kind) for kind in ("image", "caption")}
    known = sum(count for _, count in previous.over)
    base = {"image": previous.vectors, "caption": known - previous.vectors, **previous.measured_on}
    new = {name: entry for name, entry in segments.items() if (name, entry.count) not in previous.over}
    since: dict[str, float] = {
        kind: previous.since.get(kind, 0) + sum(entry.count for entry in new.values() if entry.kind == kind)
        for kind in now
    }
    kinds = ("image",) if previous.path is None else ("image", "caption")
    if any(abs(now[kind] - base[kind]) > base[kind] * _GROWN for kind in kinds):
        return None
    entry = previous._replace(vectors=now["image"], measured_on=base, since=since)
    if previous.path is None:
        return entry if _is_as_exact(store, settings, previous, base["image"]) else None
    if any(since[kind] > base[kind] * _GROWN for kind in kinds):  # as many were removed
        return None
    try:
        served = open_store(root, segments, "image", previous)
    except CatalogueError:  # a covered segment is gone, or the file is damaged
        return None
    assert served.index is not None
    beside = _beside(served.index, len(store), settings, log)
    if beside is None or _is_slow(served, settings) != _was_slow(previous, settings):
        return None
    recall = _recall_of_new(store, served, new, settings)
    if recall is not None:
        before = previous.since.get("image", 0)
        share = previous.since.get("recall_at_10", 1.0) * before + recall * (since["image"] - before)
        since["recall_at_10"] = round(share / since["image"], 4)
        reached = (previous.recall_at_10 * base["image"] + share) / (base["image"] + since["image"])
        if settings.type == "auto" and reached < settings.recall:
            log(f"recall@10 of new vectors is {recall:.4f}: measuring the existing index again")
            return None
    elif "recall_at_10" in previous.since:
        since["recall_at_10"] = previous.since["recall_at_10"]
    return entry._replace(reason=_reason_of_kept(served.index, beside))


def _is_as_exact(store: VectorStore, settings: IndexConfig, previous: IndexEntry, base: int) -> bool:
    """Return whether the limits decide about exact search as they did for ``base`` vectors."""
    count, size = len(store), _bytes(store)
    most = None if settings.max_memory is None else settings.max_memory << 20
    return (
        all((count < limit) == (base < limit) for limit in (LEAST, settings.exact_below))
        and (most is None or (size <= most) == (size * base <= most * count))
        and _is_slow(store, settings) == _was_slow(previous, settings)
    )


def _is_slow(store: VectorStore, settings: IndexConfig) -> bool:
    """Return whether a few queries take longer than the settings allow."""
    if settings.max_latency_ms is None:
        return False
    chosen = np.linspace(0, len(store) - 1, min(_LEAST_TIMES, len(store))).astype(np.int64)
    return time_queries(store, store.fetch(chosen))["latency_ms_p50"] > settings.max_latency_ms


def _was_slow(entry: IndexEntry, settings: IndexConfig) -> bool:
    return settings.max_latency_ms is not None and entry.latency_ms_p50 > settings.max_latency_ms


def _recall_of_new(
    store: VectorStore, served: VectorStore, new: Mapping[str, SegmentEntry], settings: IndexConfig
) -> float | None:
    """Return recall@10 of a sample of new vectors that a short scan can measure; None if none."""
    starts = dict(zip(store.names, store.starts[:-1].tolist(), strict=True))
    rows = [np.arange(starts[name], starts[name] + entry.count) for name, entry in new.items() if entry.kind == "image"]
    positions = np.concatenate(rows) if rows else np.empty(0, np.int64)
    if not len(positions):
        return None
    asked = max(1, min(len(positions), settings.queries, _SCANNED // _bytes(store)))
    chosen = positions[np.linspace(0, len(positions) - 1, asked).astype(np.int64)]
    truth = _truth_at(store, chosen, K)
    return float(recall_of(ask(served, truth.questions, settings.depth), truth, K).mean())


def _bytes(store: VectorStore) -> int:
    """Return the bytes of all vectors in their segments."""
    return sum(int(one.ntotal) * int(one.sa_code_size()) for one in store.indexes)


def choose(
    candidates: Iterable[Candidate], *, recall: float, max_memory: int | None, max_latency_ms: float | None, log: Log
) -> tuple[IndexEntry | None, list[dict[str, Any]]]:
    """Return the candidate with the least memory that reaches ``recall``, and all that were tried.

    Candidates above ``max_memory`` (bytes) are not built. ``rejected`` gives the reason for each
    rejected one.
    """
    tried: list[dict[str, Any]] = []
    for candidate in sorted(candidates, key=lambda one: one.memory):
        figures: dict[str, Any] = {"kind": candidate.kind, "memory": candidate.memory}
        tried.append(figures)
        if max_memory is not None and candidate.memory > max_memory:
            figures["rejected"] = f"takes {candidate.memory / 2**20:.0f} MiB, more than {max_memory / 2**20:.0f} MiB"
            log(f"{candidate.kind}: {figures['rejected']}")
            continue
        entry = candidate.make()
        figures |= {key: getattr(entry, key) for key in ("parameters", "bytes", *_MEASURED, "build_seconds")}
        recall_at_10, latency = entry.recall_at_10, entry.latency_ms_p50
        if recall_at_10 < recall:
            figures["rejected"] = f"recall@10 is {recall_at_10:.4f}, below {recall}"
        elif max_latency_ms is not None and latency > max_latency_ms:
            figures["rejected"] = f"a query takes {latency:.2f} ms, more than {max_latency_ms:g} ms"
        log(
            f"{candidate.kind}: recall@10 {recall_at_10:.4f}, {latency:.2f} ms a query"
            + (f": {figures['rejected']}" if "rejected" in figures else "")
        )
        if "rejected" not in figures:
            return entry, tried
    return None, tried


def _chosen(root: Path, relative: str, store: VectorStore, truth: Truth, settings: IndexConfig, log: Log) -> IndexEntry:
    """Return the entry of a new index: the configured kind, otherwise the cheapest."""
    count = len(store)
    raw = _bytes(store)
    made: list[WrittenIndex] = []

    def exact() -> IndexEntry:
        return _measured(IndexEntry(), measure(store, truth, K))

    def build(kind: str) -> IndexEntry:
        start = time.perf_counter()
        for written in made:
            folder_of(root).remove(f"{written.path}/{INDEX}")
        log(f"building {kind} for {plural(count, 'vector')}")
        made[:] = [write_index(store, kind, root, relative, questions=settings.queries, seed=settings.seed)]
        seconds = time.perf_counter() - start
        return tune(root, store, made[0], truth, settings)._replace(build_seconds=round(seconds, 1))

    flat = Candidate("flat", raw, exact)
    most = None if settings.max_memory is None else settings.max_memory << 20
    kinds = KINDS if settings.type == "auto" else () if settings.type == "flat" else (settings.type,)
    usable = [Candidate(kind, expected_bytes(kind, count, store.dim), partial(build, kind)) for kind in kinds]
    if count < LEAST:
        usable = []
    limits: dict[str, Any] = {"recall": settings.recall, "max_memory": most, "max_latency_ms": settings.max_latency_ms}
    tried: list[dict[str, Any]] = []
    entry: IndexEntry | None = None
    if settings.type == "flat":
        entry, reason = exact(), "exact, set by index.type"
    elif settings.type != "auto" and usable:  # used whatever its recall
        entry, tried = choose(usable, recall=-1.0, max_memory=None, max_latency_ms=None, log=log)
        assert entry is not None
        short = "" if entry.recall_at_10 >= settings.recall else f", although its recall@10 is below {settings.recall}"
        reason = f"{settings.type}, set by index.type{short}"
    else:
        if count < max(settings.exact_below, LEAST):
            entry, tried = choose([flat], log=log, **limits)
            small = count < settings.exact_below
            limit = (
                f"index.exact_below ({settings.exact_below:,})" if small else f"the minimum for an index ({LEAST:,})"
            )
            reason = f"exact: {plural(count, 'vector')}, fewer than {limit}"
        if entry is None:
            entry, more = choose(usable if tried else [*usable, flat], log=log, **limits)
            tried += more
            reason = _why(entry, tried, settings)
        if entry is None:
            entry = exact()
    if entry.path is None:
        folder_of(root).remove(relative, ignore_errors=True)
    return entry._replace(vectors=count, reason=reason, tried=tried)


def _why(entry: IndexEntry | None, tried: Sequence[Mapping[str, Any]], settings: IndexConfig) -> str:
    wanted = [f"recall@10 of {settings.recall}"]
    if settings.max_memory is not None:
        wanted.append(f"{settings.max_memory} MiB")
    if settings.max_latency_ms is not None:
        wanted.append(f"{settings.max_latency_ms:g} ms")
    bar = " within ".join([wanted[0], " and ".join(wanted[1:])]) if wanted[1:] else wanted[0]
    failed = "; ".join(f"{one['kind']}: {one['rejected']}" for one in tried if "rejected" in one)
    if entry is None:
        return f"exact, since no index reaches {bar} ({failed})" if failed else "exact: too few vectors for an index"
    name = "exact" if entry.kind == "flat" else entry.kind
    return f"{name}: the lowest memory that reaches {bar}" + (f" ({failed})" if failed else "")


def _kept(
    root: Path,
    segments: Mapping[str, SegmentEntry],
    store: VectorStore,
    truth: Truth,
    settings: IndexConfig,
    previous: IndexEntry | None,
    log: Log,
) -> IndexEntry | None:
    """Return the previous index measured on the present vectors; None if it cannot be used."""
    if previous is None or previous.path is None or settings.type not in ("auto", previous.kind):
        return None
    if any(previous.settings.get(key) != getattr(settings, key) for key in ("depth", "queries", "seed")):
        return None
    try:
        index = open_index(root, previous, {name: e for name, e in segments.items() if e.kind == "image"})
    except CatalogueError:  # a covered segment is gone, or the file is damaged
        return None
    assert index is not None
    beside = _beside(index, len(store), settings, log)
    if beside is None:
        return None
    served = open_store(root, segments, "image", previous)
    figures = measure(served, truth, index.depth)
    slow = settings.max_latency_ms is not None and figures["latency_ms_p50"] > settings.max_latency_ms
    if (figures["recall_at_10"] < settings.recall and settings.type == "auto") or slow:
        log(
            f"the existing index reaches {figures['recall_at_10']:.4f}, {figures['latency_ms_p50']:.2f} ms: rebuilding it"
        )
        return None
    return _measured(previous._replace(vectors=len(store), reason=_reason_of_kept(index, beside)), figures)


def _beside(index: ApproximateIndex, count: int, settings: IndexConfig, log: Log) -> int | None:
    """Return how many of ``count`` vectors an index does not cover; None if there are too many."""
    beside = count - index.count
    if beside <= min(settings.rebuild_above * count, settings.max_beside):
        return beside
    log(f"{beside:,} of {plural(count, 'vector')} are not in the index: rebuilding it")
    return None


def _reason_of_kept(index: ApproximateIndex, beside: int) -> str:
    return f"{index.kind}: the existing index covers {plural(index.count, 'vector')}; {beside:,} are searched exactly"


def _measured(entry: IndexEntry, figures: Mapping[str, float]) -> IndexEntry:
    """Return an entry with the figures of :func:`measure`."""
    named: dict[str, Any] = {key: value for key, value in figures.items() if key in _MEASURED}
    deeper = {key: value for key, value in figures.items() if key not in _MEASURED}
    return entry._replace(**named, extra={**entry.extra, **deeper})


def find_truth(store: VectorStore, settings: IndexConfig) -> Truth:
    """Choose queries from a store and find their nearest neighbours by exact search.

    There are ``settings.depth`` neighbours, at least ten.
    """
    positions = held_out_rows(len(store), settings.queries)
    if not len(positions):  # only a few vectors: all are queries
        positions = np.arange(len(store))
    return _truth_at(store, positions, max(settings.depth, K))


def _truth_at(store: VectorStore, positions: np.ndarray, depth: int) -> Truth:
    """Use the vectors at some positions as queries; find the ``depth`` nearest others exactly."""
    questions = store.fetch(positions)
    scores, found = store.search(questions, depth + 1, exact=True)
    width = max(0, scores.shape[1] - 1)
    others = [line[where != own][:width] for line, where, own in zip(scores, found, positions, strict=True)]
    return Truth(questions, positions, np.array(others, np.float32).reshape(len(positions), width))


def ask(store: VectorStore, questions: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Run each query alone; return scores and positions."""
    found = [store.search(question[None], k) for question in questions]
    return [(scores[0], positions[0]) for scores, positions in found]


def recall_of(answers: Sequence[tuple[np.ndarray, np.ndarray]], truth: Truth, k: int) -> np.ndarray:
    """Return, per query, the share of its ``k`` nearest that was found, itself excluded.

    Compared by score: any of several equally near vectors counts.
    """
    k = min(k, truth.scores.shape[1])
    if k == 0:
        return np.ones(len(answers))
    shares = []
    for n, (scores, positions) in enumerate(answers):
        found = scores[positions != truth.positions[n]][:k]
        shares.append(np.count_nonzero(found >= truth.scores[n, k - 1] - 1e-6) / k)
    return np.array(shares)


def measure(store: VectorStore, truth: Truth, depth: int) -> dict[str, float]:
    """Return recall@10, recall at the full depth if greater, and ms per top-10 query."""
    if store.index is None:
        figures = {"recall_at_10": 1.0}  # every vector is compared
    else:
        answers = ask(store, truth.questions, depth)
        figures = {"recall_at_10": _worse_half(recall_of(answers, truth, K))}
        if depth > K:
            deep = recall_of(answers, truth, depth - 1)
            figures[f"recall_at_{depth - 1}"] = round(float(deep.mean()), 4)
    return figures | time_queries(store, truth.questions)


def time_queries(store: VectorStore, questions: np.ndarray) -> dict[str, float]:
    """Return the median and 95th percentile of a single top-10 query, in milliseconds."""
    for question in questions[:_FIRST]:
        store.search(question[None], K)
    times: list[float] = []
    for question in questions:
        start = time.perf_counter()
        store.search(question[None], K)
        times.append((time.perf_counter() - start) * 1000)
        if sum(times) > _TIMED and len(times) >= _LEAST_TIMES:
            break
    times.sort()
    return {
        "latency_ms_p50": round(statistics.median(times), 3) if times else 0.0,
        "latency_ms_p95": round(times[int(0.95 * (len(times) - 1))], 3) if times else 0.0,
    }


def tune(root: Path, store: VectorStore, written: WrittenIndex, truth: Truth, settings: IndexConfig) -> IndexEntry:
    """Return the entry of a new index with the lowest effort that reaches the required recall.

    If none does, that with the best recall.
    """
    index = open_written(store, written, root, settings.depth)
    segments = list(zip(store.names, store.indexes, strict=True))
    best, reached = (1, settings.depth), -1.0
    for effort, candidates in search_parameters(written.kind, len(store), settings.depth):
        trial = VectorStore(segments, index.tuned(effort, candidates), threads=store.threads)
        answers = ask(trial, truth.questions, settings.depth)
        worse = _worse_half(recall_of(answers, truth, K))
        if worse > reached:
            best, reached = (effort, candidates), worse
        if worse >= settings.recall:
            break
    effort, candidates = best
    served = VectorStore(segments, index.tuned(effort, candidates), threads=store.threads)
    entry = IndexEntry(
        written.kind,
        written.path,
        covers=index.covers,
        parameters={**written.parameters, "effort": effort, "candidates": candidates, "depth": settings.depth},
        bytes=written.bytes,
        head=written.head,
    )
    return _measured(entry, measure(served, truth, settings.depth))


def _worse_half(shares: np.ndarray) -> float:
    """Return the lower of two means: of every second query, and of the others.

    An effort that suits some queries by chance is less likely to suit both.
    """
    halves = [half.mean() for half in (shares[::2], shares[1::2]) if len(half)]
    return round(float(min(halves, default=1.0)), 4)


def text_recall(
    root: Path, segments: Mapping[str, SegmentEntry], store: VectorStore, settings: IndexConfig
) -> float | None:
    """Return recall@10 of the index for text queries, measured with caption vectors.

    Texts are distributed differently from images. None without captions: texts are then searched
    exactly.
    """
    captions = open_store(root, segments, "caption")
    if not len(captions) or captions.dim != store.dim:
        return None
    questions = captions.fetch(np.linspace(0, len(captions) - 1, min(settings.queries, len(captions))).astype(np.int64))
    scores, _ = store.search(questions, K, exact=True)
    truth = Truth(questions, np.full(len(questions), -1), scores)
    answers = ask(store, questions, K)
    return round(float(recall_of(answers, truth, K).mean()), 4)
