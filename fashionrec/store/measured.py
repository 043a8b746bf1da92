"""Evaluation results stored in a catalogue: match curves, and the best caption weight.

They are only valid for the generation and encoder they were measured on. A missing or broken file
is not an error: it counts as no results.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from fashionrec.common.documents import read_json
from fashionrec.common.files import dump_json
from fashionrec.store.generations import folder_of

FILE = "measured.json"
#: Kinds of query whose matches can be calibrated.
KINDS = ("photo", "text")


@dataclass(frozen=True)
class Curve:
    """A probability that never decreases with the cosine: linear between knots, constant beyond."""

    cosines: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in pairwise(self.cosines))
        holds = all(a <= b for a, b in pairwise((0.0, *self.probabilities, 1.0)))
        if not (rises and holds and len(self.cosines) == len(self.probabilities) > 0):
            raise ValueError("not a monotonic curve")

    def __call__(self, cosine: float) -> float:
        at = bisect_right(self.cosines, cosine)
        if at == 0:
            return self.probabilities[0]
        if at == len(self.cosines):
            return self.probabilities[-1]
        left, right = self.cosines[at - 1], self.cosines[at]
        below, above = self.probabilities[at - 1], self.probabilities[at]
        return below + (above - below) * (cosine - left) / (right - left)

    def match(self, cosine: float) -> int:
        """Return the probability as 0..100."""
        return round(100 * self(cosine))


class Measured(NamedTuple):
    """The results for one generation; ``curves`` by kind of query."""

    curves: Mapping[str, Curve]
    caption_weight: float | None = None

    def match_of(self, kind: str) -> Callable[[float], int] | None:
        curve = self.curves.get(kind)
        return curve.match if curve else None


def read_measured(root: Path, generation: str, embedder: str) -> Measured:
    """Return the results that are valid for a generation and an encoder (its fingerprint)."""
    entries = _entries(root)
    curves: dict[str, Curve] = {}
    for kind in KINDS:
        try:
            entry = _of(entries, f"match_{kind}", generation, embedder)
            if entry is not None:
                curves[kind] = Curve(tuple(map(float, entry["cosines"])), tuple(map(float, entry["probabilities"])))
        except (KeyError, TypeError, ValueError):
            continue
    weight = _of(entries, "caption_weight", generation, embedder) or {}
    value = weight.get("value")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return Measured(curves, float(value))
    return Measured(curves)


def write_measured(root: Path, name: str, generation: str, embedder: str, entry: Mapping[str, Any]) -> None:
    """Store or replace one result (``match_photo``, ``match_text`` or ``caption_weight``)."""
    entries = {**_entries(root), name: {**entry, "generation": generation, "embedder": embedder}}
    folder_of(root).write(FILE, dump_json(entries))


def _entries(root: Path) -> dict[str, Any]:
    try:
        with folder_of(root).open(FILE) as file:
            found = read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _of(entries: Mapping[str, Any], name: str, generation: str, embedder: str) -> dict[str, Any] | None:
    entry = entries.get(name)
    if isinstance(entry, dict) and (entry.get("generation"), entry.get("embedder")) == (generation, embedder):
        return entry
    return None
