"""Search over many vectors: `IndexFlatIP` as a user would write it, our exact search, and the index
that a build chooses.

python -m benchmarks index [--vectors 100000 1000000] [--dim 512] [--queries 300] [--seed 0] [--dtype float32] [--set index.k=v]
                           [--out DIR] [--keep]

The vectors are drawn as a catalogue's lie: kinds of garment, styles within them of very different
size, products within those, four views of each product; all with a spectrum that falls as 1/n, as
that of an encoder's does. Queries are vectors of the same drawing that are held out of the
catalogue: three of four have other views of their product in it.

Each way runs in a fresh process: memory is that of /proc/self/smaps_rollup, anonymous and
file-backed apart. Cold: the files' pages are dropped (posix_fadvise) before the process starts, and
each query is asked once. Warm: all queries were asked before. One query at a time. Recall@10 is
against the answers of `IndexFlatIP`, read into memory; "OMP 1" is the same with one thread, where
FAISS takes another path for a single query.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.int8 import machine, table

SEGMENT = "000001-image"
_PRODUCTS, _VIEWS = 4096, 4  # products drawn at once, and views of each


def world(count: int, dim: int, seed: int) -> Iterator[np.ndarray]:
    """Unit vectors float32 in arrays of some thousand rows, views of a product beside
    one another.
    """
    rng = np.random.default_rng(seed)
    spectrum = 1 / np.sqrt(np.arange(1, dim + 1))
    spectrum /= np.sqrt((spectrum**2).sum())
    turn = (np.linalg.qr(rng.normal(size=(dim, dim)))[0] * spectrum[:, None]).astype(np.float32)

    def draw(rows: int, size: float, source: np.random.Generator) -> np.ndarray:
        return source.normal(size=(rows, dim)).astype(np.float32) @ turn * np.float32(size)

    styles = max(40, count // 400)
    common = 1 / np.arange(1, 41)
    kinds = draw(40, 0.5, rng)[rng.choice(40, styles, p=common / common.sum())]
    centres = draw(1, 0.7, rng) + kinds + draw(styles, 0.45, rng)
    share = rng.pareto(1.5, styles) + 0.2
    share /= share.sum()
    done, block = 0, 0
    while done < count:
        source = np.random.default_rng([seed, block])
        block += 1
        products = centres[source.choice(styles, _PRODUCTS, p=share)] + draw(_PRODUCTS, 0.4, source)
        views = np.repeat(products, _VIEWS, axis=0) + draw(_PRODUCTS * _VIEWS, 0.25, source)
        views += source.normal(size=views.shape).astype(np.float32) * np.float32(0.1 / np.sqrt(dim))
        views = views[: count - done]
        done += len(views)
        yield views / np.linalg.norm(views, axis=1, keepdims=True)


def make(out: Path, options: argparse.Namespace, count: int) -> dict[str, Any]:
    """A catalogue's vectors and index on the disk; returns what making them took, and the index
    entry.
    """
    from fashionrec.config import load_config
    from fashionrec.store.index import make_index
    from fashionrec.store.manifest import SegmentEntry
    from fashionrec.store.vectors import VECTORS, write_vectors

    held = np.zeros(count + options.queries, bool)
    held[np.random.default_rng([options.seed, 1]).choice(len(held), options.queries, replace=False)] = True
    queries: list[np.ndarray] = []

    def kept() -> Iterator[np.ndarray]:
        at = 0
        for block in world(len(held), options.dim, options.seed):
            mask = held[at : at + len(block)]
            at += len(block)
            queries.append(block[mask])
            yield block[~mask]

    folder = out / "segments" / SEGMENT
    folder.mkdir(parents=True)
    path = folder / VECTORS
    if options.dtype == "float32":
        write_vectors(path, kept(), options.dim)
    else:  # `IndexFlatIP` beside it has them whole
        write_vectors(out / "whole.faiss", kept(), options.dim)
        import faiss

        whole = faiss.read_index(str(out / "whole.faiss"), faiss.IO_FLAG_MMAP_IFC)
        blocks = (whole.reconstruct_n(at, min(1 << 14, count - at)) for at in range(0, count, 1 << 14))
        write_vectors(path, blocks, options.dim, "float16")
    np.save(out / "queries.npy", np.random.default_rng(options.seed).permutation(np.concatenate(queries)))
    segments = {SEGMENT: SegmentEntry("image", count, options.dim, "")}
    settings = load_config(sets=options.set, env={}).config.index
    before, start, cpu = memory(), time.perf_counter(), time.process_time()
    entry = make_index(out, "000001", segments, settings=settings, log=lambda text: print(text, file=sys.stderr))
    made = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "before": before}
    document = {"count": count, "dim": options.dim, "entry": entry.to_dict()}
    (out / "index.json").write_text(json.dumps(document))
    return {**made, "entry": entry.to_dict(), "vectors_bytes": path.stat().st_size}


def memory() -> dict[str, float]:
    """MB of this process in memory: anonymous, and file-backed."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return {
        "anonymous": round(kilobytes["Anonymous"] * 1024 / 1e6, 1),
        "file_backed": round((kilobytes["Rss"] - kilobytes["Anonymous"]) * 1024 / 1e6, 1),
    }


def ask(way: str, out: Path) -> dict[str, Any]:
    """In a fresh process: open, ask each query cold, then warm."""
    import faiss

    from fashionrec.store.manifest import IndexEntry, SegmentEntry
    from fashionrec.store.vectors import VECTORS, open_store

    known = json.loads((out / "index.json").read_text())
    queries = np.load(out / "queries.npy")
    before = memory()
    start = time.perf_counter()
    search: Callable[[np.ndarray], np.ndarray]
    if way.startswith("IndexFlatIP"):
        if way.endswith("1"):
            faiss.omp_set_num_threads(1)
        whole = out / "whole.faiss"
        index = faiss.read_index(str(whole if whole.exists() else out / "segments" / SEGMENT / VECTORS))
        search = lambda query: index.search(query, 10)[1][0]  # noqa: E731
    else:
        segments = {SEGMENT: SegmentEntry("image", known["count"], known["dim"], "")}
        store = open_store(out, segments, "image", IndexEntry.from_dict(known["entry"]))
        exact = way == "exact"
        search = lambda query: store.search(query, 10, exact=exact)[1][0]  # noqa: E731
    opened = (time.perf_counter() - start) * 1000
    after = memory()
    found, cold = timed(search, queries)
    _, warm = timed(search, queries)
    np.save(out / f"{way}.npy", np.array(found))
    return {
        "open_ms": round(opened, 1),
        "anonymous_open": after["anonymous"],
        "anonymous_added": round(after["anonymous"] - before["anonymous"], 1),
        "file_backed_open": after["file_backed"],
        "end": memory(),
        "cold": cold,
        "warm": warm,
    }


def timed(search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray) -> tuple[list[np.ndarray], dict[str, float]]:
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query[None]))
        times.append((time.perf_counter() - start) * 1000)
    first = times[0]
    times.sort()
    at = {name: times[round(share * (len(times) - 1))] for name, share in (("p95", 0.95), ("p99", 0.99))}
    figures = {"first": first, "p50": statistics.median(times), **at}
    return found, {name: round(value, 3) for name, value in figures.items()}


def drop(out: Path) -> None:
    """Forget the files' pages, so that the next process reads them from the disk."""
    for path in out.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def measure(out: Path, made: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A row for each way of searching."""
    rows = []
    entry = made["entry"]
    for way in ("IndexFlatIP", "IndexFlatIP, OMP 1", "exact", "chosen"):
        drop(out)
        command = [sys.executable, "-m", "benchmarks.index", "--ask", way, "--at", str(out)]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        truth, found = np.load(out / "IndexFlatIP.npy"), np.load(out / f"{way}.npy")
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)])
        name = f"chosen: {entry['kind']}" if way == "chosen" else way
        rows.append({"vectors": count, "way": name, "recall_at_10": round(float(recall), 4), **told})
    least = rows[0]["warm"]["p50"]
    for row in rows:
        row["times_IndexFlatIP"] = round(least / row["warm"]["p50"], 1)
    return rows


def shown(row: dict[str, Any]) -> dict[str, Any]:
    flat = {key: row[key] for key in ("vectors", "way", "recall_at_10")}
    flat |= {f"warm {name}": row["warm"][name] for name in ("p50", "p95", "p99")}
    flat |= {f"cold {name}": row["cold"][name] for name in ("first", "p50", "p95", "p99")}
    flat |= {"open ms": row["open_ms"], "anonymous MB": row["end"]["anonymous"], "added": row["anonymous_added"]}
    flat |= {"file-backed MB, open": row["file_backed_open"], "end": row["end"]["file_backed"]}
    return flat | {"times IndexFlatIP": row["times_IndexFlatIP"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--set", action="append", default=[], help="index.recall=0.98, index.type=hnsw ...")
    parser.add_argument("--out", type=Path, default=Path("runs/index-benchmark"))
    parser.add_argument("--keep", action="store_true", help="leave the vectors on the disk")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "index"])
    if options.ask:
        print(json.dumps(ask(options.ask, options.at)))
        return
    print(f"{machine()}\n")
    document: dict[str, Any] = {"machine": machine(), "runs": []}
    for count in options.vectors:
        out = options.out / f"{count}x{options.dim}"
        shutil.rmtree(out, ignore_errors=True)
        made = make(out, options, count)
        entry = made["entry"]
        print(f"{count:,} x {options.dim} {options.dtype}: {entry['reason']}; parameters {entry['parameters']}")
        print(f"told by the build: recall@10 {entry['recall_at_10']}, {entry['latency_ms_p50']} ms")
        print(
            f"vectors {made['vectors_bytes'] / 1e6:.1f} MB, index {entry['bytes'] / 1e6:.1f} MB, made in"
            f" {entry['build_seconds']:.1f} s; chosen, tuned and measured in {made['seconds']:.1f} s in all\n"
        )
        rows = measure(out, made, count)
        table([shown(row) for row in rows])
        document["runs"].append({"made": made, "ways": rows})
        if not options.keep:
            shutil.rmtree(out)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "index.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
