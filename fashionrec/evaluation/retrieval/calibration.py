"""Calibrate cosines: how often a hit with a cosine is the right one, as a monotonic curve, and its
error.

(The cosine minus the penalty of another class: ``Hit.closeness``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fashionrec.store.measured import Curve

#: Hits judged per query, from the top of the list: those that a person looks at.
HITS = 10
#: Fewer judged hits than this, or so few right ones, are inconclusive.
LEAST, LEAST_RIGHT = 100, 10
_GROUP = 20  # minimum number of hits of similar cosine that are counted together


@dataclass
class Judged:
    """Judged hits by query: their cosines, and whether each is right."""

    questions: list[list[tuple[float, bool]]] = field(default_factory=list)

    def add(self, hits: Sequence[tuple[float, bool]]) -> None:
        self.questions.append(list(hits[:HITS]))

    def document(self) -> dict[str, Any] | None:
        """Return the curve of all queries, and the expected calibration error of a curve from one
        half, judged on the other.

        None if there is too little data.
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
    """Fit isotonic regression by pooling adjacent violators (Ayer et al., 1955) on groups of hits.

    One right and one wrong hit are added to each group (Laplace), so that nothing is ever certain.
    Between the groups' means it is linear.
    """
    order = np.argsort(cosines, kind="stable")
    groups = np.array_split(order, max(1, min(len(order) // _GROUP, 50)))
    pools: list[tuple[float, float, int]] = []  # sum of cosines, of right hits, and count
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
    """Return the expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015): the average
    deviation of the probabilities.
    """
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
