"""Whether an encoder in another precision still finds the same: judged by its vectors of pictures beside the float32 ones.

Where enough pictures are known to show a product that another picture shows too, it is asked how well each finds that one; else
how many of the ten nearest are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fashionrec.errors import Refused

NEAREST = 10
#: Pictures with another of their product, from which on labels tell something: a rank that changes is then 2 points at most.
LABELLED = 50
_FEW = 2 * NEAREST  # pictures below which nothing can be told


@dataclass(frozen=True)
class Tolerance:
    """``points`` of mean reciprocal rank that may be lost where there are labels; else the least ``overlap`` of the ten nearest.
    Also with labels no more than twice as many neighbours may change: some hundred ranks say little of what is broken."""

    points: float
    overlap: float


@dataclass(frozen=True)
class Figures:
    """``overlap``: the mean share of the ten nearest that both have. MRR is None without labels."""

    pictures: int
    overlap: float
    cosine_mean: float
    cosine_least: float
    labelled: int
    mrr_source: float | None
    mrr: float | None

    @property
    def points_lost(self) -> float | None:
        return None if self.mrr is None or self.mrr_source is None else (self.mrr_source - self.mrr) * 100

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "points_lost": self.points_lost}

    def line(self, precision: str) -> str:
        """What was measured, in a sentence."""
        labels = ""
        if self.points_lost is not None:
            labels = f", MRR {self.mrr_source:.4f} to {self.mrr:.4f} with {self.labelled} labelled crops"
        return (
            f"{precision}: {self.overlap:.1%} of the {NEAREST} nearest are the same on {self.pictures} crops, cosine"
            f" {self.cosine_mean:.5f}{labels}"
        )


def compare(
    source: np.ndarray, other: np.ndarray, *, products: Sequence[str | None] = (), photos: Sequence[str] = ()
) -> Figures:
    """Figures of two encoders' unit vectors (float32 [n, d]) of the same pictures.

    ``products`` and ``photos`` are one for each picture: the product that it is known to show, or None, and the photo that it is
    cut from. A picture asks for another one of its product in another photo.
    """
    cosine = (source * other).sum(axis=1)
    ranks = [_ranks(vectors, products, photos) for vectors in (source, other)] if products else [[], []]
    labelled = len(ranks[0]) >= LABELLED
    return Figures(
        pictures=len(source),
        overlap=_overlap(source, other),
        cosine_mean=float(cosine.mean()) if len(cosine) else 0.0,
        cosine_least=float(cosine.min(initial=1.0)),
        labelled=len(ranks[0]),
        mrr_source=float(np.mean([1 / rank for rank in ranks[0]])) if labelled else None,
        mrr=float(np.mean([1 / rank for rank in ranks[1]])) if labelled else None,
    )


def judge(precision: str, figures: Figures, tolerance: Tolerance) -> None:
    """Raises :class:`Refused`, which says by what figure, where they are outside of the tolerance."""
    wrong = ""
    least = tolerance.overlap if figures.points_lost is None else 2 * tolerance.overlap - 1
    if figures.pictures < _FEW:
        wrong = f"{figures.pictures} crops are too few to tell"
    elif not figures.overlap >= least:
        wrong = f"{figures.overlap:.1%} of the {NEAREST} nearest are the same (least {least:.1%})"
    elif figures.points_lost is not None and not figures.points_lost <= tolerance.points:
        wrong = f"it loses {figures.points_lost:.2f} points of MRR (tolerance {tolerance.points:g}) on {figures.labelled} crops"
    if wrong:
        raise Refused(f"the encoder in {precision} does not agree with fp32: {wrong}", hint="use fp32")


def _overlap(source: np.ndarray, other: np.ndarray) -> float:
    count = min(NEAREST, len(source) - 1)
    if count < 1:
        return 0.0
    nearest = []
    for vectors in (source, other):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argsort(-scores, axis=1, kind="stable")[:, :count])
    return float(np.mean([len({*a} & {*b}) / count for a, b in zip(*nearest, strict=True)]))


def _ranks(vectors: np.ndarray, products: Sequence[str | None], photos: Sequence[str]) -> list[int]:
    """The rank of the nearest picture of the same product in another photo, of each picture that has one."""
    names, places = np.array([name or "" for name in products]), np.array(photos)
    scores = vectors @ vectors.T
    ranks = []
    for n, name in enumerate(names):
        elsewhere = places != places[n]
        right = elsewhere & (names == name)
        if name and right.any():
            best = scores[n][right].max()
            ranks.append(1 + int((scores[n][elsewhere & ~right] > best).sum()))
    return ranks
