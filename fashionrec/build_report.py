"""What a build did, and how its index measures."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.store.vectors import VECTORS, VectorStore, open_vectors


@dataclass
class BuildReport:
    """What a build did. Also written beside the generation as ``report.json``."""

    rows: int = 0
    photos: int = 0
    reused: int = 0
    resumed: int = 0
    embedded: int = 0
    garments: int = 0
    items: int = 0
    products: int = 0
    without_detection: int = 0
    duplicate_rows: int = 0
    added: int = 0
    removed: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "detect", "embed", "write"), 0.0))
    total_seconds: float = 0.0
    index: dict[str, Any] = field(default_factory=dict)
    generation: str = ""

    def to_dict(self) -> dict[str, Any]:
        document = dict(vars(self))
        document["failed"] = len(self.failures)
        document["failure_reasons"] = dict(Counter(failure["reason"] for failure in self.failures))
        document["seconds"] = {stage: round(value, 3) for stage, value in self.seconds.items()}
        document["total_seconds"] = round(self.total_seconds, 3)
        document["photos_per_second"] = round(self.embedded / self.total_seconds, 2) if self.total_seconds else 0.0
        return document


def measure_index(root: Path, segments: dict[str, Any], queries: int = 32) -> dict[str, Any]:
    """Kind, size, recall and single-query latency of the index as built, on vectors of its own slightly disturbed."""
    opened = [
        (name, open_vectors(root / "segments" / name / VECTORS, count=entry["count"], dim=entry["dim"]))
        for name, entry in segments.items()
        if entry["kind"] == "image"
    ]
    store = VectorStore(opened)
    rng = np.random.default_rng(0)
    picks = rng.choice(len(store), size=min(queries, len(store)), replace=False)
    probes = store.fetch([int(p) for p in picks])
    probes += rng.normal(0, 0.05 / np.sqrt(probes.shape[1]), probes.shape).astype(np.float32)
    times = []
    for probe in probes:
        start = time.perf_counter()
        store.search(probe[None], 10)
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    return {
        "kind": "flat",
        "vectors": len(store),
        "recall_at_10": 1.0,  # exact by construction: every vector is compared
        "latency_ms_p50": round(statistics.median(times), 3),
        "latency_ms_p95": round(times[int(0.95 * (len(times) - 1))], 3),
    }
