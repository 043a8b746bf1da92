"""Each kind of approximate index: how it is built and written, and its search parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.store.approximate import INDEX, ApproximateIndex, head_digest, held_out_rows, payload
from fashionrec.store.generations import folder_of
from fashionrec.store.segments import load_faiss, read_mapped
from fashionrec.store.vectors import VectorStore

KINDS = ("ivf", "hnsw")
#: Minimum number of vectors for an index.
LEAST = 100
_BLOCK = 1 << 14  # rows per step while an index is filled
_PER_LIST = 40  # vectors per centroid for k-means: FAISS asks for 39
_ROUNDS = 8  # of k-means
_LINKS, _CARE = 32, 100  # HNSW's M and efConstruction


@dataclass(frozen=True)
class WrittenIndex:
    """An index file. ``head``: bytes at its beginning that must not change, and their sha256."""

    kind: str
    path: str
    bytes: int
    head: dict[str, Any]
    parameters: dict[str, Any]


def lists_of(count: int) -> int:
    """Return nlist for ``count`` vectors: about twice the square root, a power of two."""
    return int(2 ** round(math.log2(2 * math.sqrt(max(1, count)))))


def expected_bytes(kind: str, count: int, dim: int) -> int:
    """Return the approximate size of the index, in memory and on disk."""
    if kind == "hnsw":
        return count * (dim + 4 * (2 * _LINKS + 2) + 16)
    return payload("ivf", count, dim) + lists_of(count) * dim * 4


def search_parameters(kind: str, count: int, depth: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of nprobe or efSearch and number of candidates to try, cheapest first.

    There are at least twice as many candidates as the depth, so that the last of many results are
    right, too.
    """
    if kind == "hnsw":
        for effort in (depth, 2 * depth, 4 * depth, 8 * depth):
            yield effort, effort
        return
    for candidates in (2 * depth, 4 * depth, 8 * depth):
        effort = 4
        while effort <= max(4, lists_of(count) // 2):
            yield effort, candidates
            effort *= 2


def write_index(store: VectorStore, kind: str, root: Path, relative: str, *, questions: int, seed: int) -> WrittenIndex:
    """Build an index of a store's vectors, except the held-out ones, and write it.

    The file is ``root/relative/index.faiss``. The same vectors give the same file. Vectors are read
    from the segments in blocks.

    Raises:
        OSError: The disk is full or fails.
    """
    faiss = load_faiss()
    left_out = held_out_rows(len(store), questions)
    kept = np.delete(np.arange(len(store)), left_out)
    before = faiss.omp_get_max_threads()
    try:
        if kind == "hnsw":
            faiss.omp_set_num_threads(1)  # several threads would link nodes in random order
            native, parameters = _graph(store, kept, seed)
        else:
            native, parameters = _lists(store, kept, seed)
    finally:
        faiss.omp_set_num_threads(before)
    folder = folder_of(root).make_folder(relative, exist_ok=True)
    _write(native, folder / INDEX)
    size = (folder / INDEX).stat().st_size
    head = size - payload(kind, len(kept), store.dim)
    return WrittenIndex(
        kind,
        relative,
        size,
        {"bytes": head, "sha256": head_digest(folder / INDEX, head)},
        {**parameters, "left_out": questions},
    )


def open_written(store: VectorStore, written: WrittenIndex, root: Path, depth: int) -> ApproximateIndex:
    """Open a new index for tuning."""
    native = read_mapped(root / written.path / INDEX, written.bytes)
    covers = tuple((name, int(opened.ntotal)) for name, opened in zip(store.names, store.indexes, strict=True))
    left_out = held_out_rows(len(store), int(written.parameters["left_out"]))
    return ApproximateIndex(written.kind, native, covers, left_out, 1, depth, depth)


def _lists(store: VectorStore, kept: np.ndarray, seed: int) -> tuple[Any, dict[str, Any]]:
    faiss = load_faiss()
    lists = lists_of(len(kept))
    drawn = np.random.default_rng(seed).choice(len(kept), min(len(kept), lists * _PER_LIST), replace=False)
    sample = store.fetch(kept[np.sort(drawn)])
    means = faiss.Kmeans(store.dim, lists, niter=_ROUNDS, seed=seed, spherical=True, min_points_per_centroid=1)
    means.train(sample)
    coarse = faiss.IndexFlatIP(store.dim)
    coarse.add(means.centroids)
    native = faiss.IndexIVFRaBitQ(coarse, store.dim, lists, faiss.METRIC_INNER_PRODUCT)
    native.train(sample)
    del sample
    for start in range(0, len(kept), _BLOCK):
        native.add(store.fetch(kept[start : start + _BLOCK]))
    return native, {"lists": lists, "bits": 1}


def _graph(store: VectorStore, kept: np.ndarray, seed: int) -> tuple[Any, dict[str, Any]]:
    faiss = load_faiss()
    quantizer = faiss.ScalarQuantizer.QT_8bit
    native = faiss.IndexHNSWSQ(store.dim, quantizer, _LINKS, faiss.METRIC_INNER_PRODUCT)
    native.hnsw.efConstruction = _CARE
    drawn = np.random.default_rng(seed).choice(len(kept), min(len(kept), 1 << 16), replace=False)
    native.train(store.fetch(kept[np.sort(drawn)]))
    for start in range(0, len(kept), _BLOCK):
        native.add(store.fetch(kept[start : start + _BLOCK]))
    return native, {"links": _LINKS, "bits": 8}


def _write(native: Any, path: Path) -> None:
    """Write through a Python file, so that disk errors are ``OSError`` and not FAISS's own."""
    faiss = load_faiss()
    refused: list[OSError] = []
    try:
        with path.open("wb") as file:

            def take(data: bytes) -> int:
                try:
                    return file.write(data)
                except OSError as error:
                    refused.append(error)
                    return 0

            try:
                faiss.write_index(native, faiss.PyCallbackIOWriter(take))
            except RuntimeError:
                raise refused[0] if refused else OSError(f"cannot write {path}") from None
            if refused:
                raise refused[0]
    except BaseException:
        path.unlink(missing_ok=True)
        raise
