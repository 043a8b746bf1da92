"""What a cosine is worth: how often a hit of it is what was asked for, as a curve that never falls, and how far that holds.

(The cosine less what another class was held back by: ``Hit.closeness``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fashionrec.store.measured import Curve

#: Hits for each question that are judged, the first of the list: those that a person looks at.
HITS = 10
#: Fewer judged hits than this, or so few right ones, say nothing.
LEAST, LEAST_RIGHT = 100, 10
_GROUP = 20  # hits of about one cosine that are counted together, at least


@dataclass
class Judged:
    """Hits that were judged, by question: their cosines, and whether each is what was asked for."""

    questions: list[list[tuple[float, bool]]] = field(default_factory=list)

    def add(self, hits: Sequence[tuple[float, bool]]) -> None:
        self.questions.append(list(hits[:HITS]))

    def document(self) -> dict[str, Any] | None:
        """The curve of all questions, and its expected calibration error where half of them made it and the others judge it.

        None where there is too little to go by.
        """
        pairs = _pairs(self.questions)
        right = int(pairs[:, 1].sum())
        if len(pairs) < LEAST or min(right, len(pairs) - right) < LEAST_RIGHT:
            return None
        curve = isotonic(pairs[:, 0], pairs[:, 1])
        half = isotonic(*_pairs(self.questions[::2]).T)
        return {
            "cosines": [round(one, 6) for one in curve.cosines],
            "probabilities": [round(one, 6) for one in curve.probabilities],
            "hits": len(pairs),
            "right": right,
            "calibration_error": round(calibration_error(half, *_pairs(self.questions[1::2]).T), 4),
        }


def isotonic(cosines: np.ndarray, right: np.ndarray) -> Curve:
    """Isotonic regression by pooling adjacent violators (Ayer et al., 1955) of groups of hits, each with one right and one wrong
    hit added (Laplace), so that nothing is ever certain. Between the groups' means it is straight."""
    order = np.argsort(cosines, kind="stable")
    groups = np.array_split(order, max(1, min(len(order) // _GROUP, 50)))
    pools: list[tuple[float, float, int]] = []  # sum of cosines, of right hits, and how many
    for group in groups:
        pools.append((float(cosines[group].sum()), float(right[group].sum()), len(group)))
        while len(pools) > 1 and _share(pools[-2]) >= _share(pools[-1]):
            (a, b, n), (c, d, m) = pools[-2:]
            pools[-2:] = [(a + c, b + d, n + m)]
    knots: dict[float, float] = {}
    for pool in pools:
        knots[round(pool[0] / pool[2], 6)] = round(_share(pool), 6)
    return Curve(tuple(knots), tuple(knots.values()))


def calibration_error(curve: Curve, cosines: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015): how far off the probabilities are, on average."""
    told = np.array([curve(float(cosine)) for cosine in cosines])
    if not len(told):
        return 0.0
    which = np.minimum((told * bins).astype(int), bins - 1)
    off = [abs(told[which == n].mean() - right[which == n].mean()) * (which == n).sum() for n in np.unique(which)]
    return float(sum(off) / len(told))


def _share(pool: tuple[float, float, int]) -> float:
    return (pool[1] + 1) / (pool[2] + 2)


def _pairs(questions: Sequence[Sequence[tuple[float, bool]]]) -> np.ndarray:
    return np.array([pair for hits in questions for pair in hits], float).reshape(-1, 2)
