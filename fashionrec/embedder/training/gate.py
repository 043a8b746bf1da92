"""Test whether an encoder in another precision finds the same, by its vectors compared with float32
ones.

If enough images are known to show the same product as another image, it is measured how well each
encoder finds that; otherwise how many of the ten nearest neighbours are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fashionrec.common.text import plural
from fashionrec.errors import Refused

NEAREST = 10
#: Images with another one of their product, from which on labels are conclusive: a rank that
#: changes is then 2 points at most.
LABELLED = 50
_FEW = 2 * NEAREST  # fewer images than this are inconclusive


@dataclass(frozen=True)
class Tolerance:
    """Limits of the loss. ``points`` of mean reciprocal rank with labels; otherwise the minimum
    ``overlap`` of the ten nearest.

    Even with labels, at most twice as many neighbours may change: some hundred ranks say little
    about damage.
    """

    points: float
    overlap: float


@dataclass(frozen=True)
class Figures:
    """Measurements. ``overlap``: the mean share of the ten nearest in both. MRR is None without
    labels.
    """

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
        """Return the measurements as one sentence."""
        labels = ""
        if self.points_lost is not None:
            labels = f", MRR {self.mrr_source:.4f} to {self.mrr:.4f} with {self.labelled} labelled crops"
        return (
            f"{precision}: {self.overlap:.1%} of the {NEAREST} nearest are the same on {plural(self.pictures, 'crop')}, cosine"
            f" {self.cosine_mean:.5f}{labels}"
        )


def compare(
    source: np.ndarray, other: np.ndarray, *, products: Sequence[str | None] = (), photos: Sequence[str] = ()
) -> Figures:
    """Compare two encoders' unit vectors (float32 [n, d]) of the same images.

    ``products`` and ``photos`` have one value per image: the product it is known to show, or None,
    and its photo. Each image searches for another one of its product in another photo.
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
    """Raise :class:`Refused` with the measurement that exceeds the tolerance, if any."""
    wrong = ""
    least = tolerance.overlap if figures.points_lost is None else 2 * tolerance.overlap - 1
    if figures.pictures < _FEW:
        wrong = f"{plural(figures.pictures, 'crop')} are too few to decide"
    elif not figures.overlap >= least:
        wrong = f"{figures.overlap:.1%} of the {NEAREST} nearest are the same (minimum {least:.1%})"
    elif figures.points_lost is not None and not figures.points_lost <= tolerance.points:
        wrong = (
            f"it loses {figures.points_lost:.2f} points of MRR (tolerance {tolerance.points:g})"
            f" on {plural(figures.labelled, 'crop')}"
        )
    if wrong:
        raise Refused(f"the encoder in {precision} does not match fp32: {wrong}", hint="use fp32")


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
    """Return for each image the rank of the nearest image of the same product in another photo, if
    there is one.
    """
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
