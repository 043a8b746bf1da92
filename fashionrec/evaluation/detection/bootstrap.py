"""Uncertainty of the difference between two detectors: a paired bootstrap over the photos of both.

Photos are drawn with replacement, the same ones for both, and all metrics are computed each time;
the spread of the differences is what other test photos of the same kind would have given. Source:
B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals);
B. Hariharan et al. and COCO use the same unit, the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fashionrec.evaluation.detection.average_precision import IOU_THRESHOLDS, average_precision
from fashionrec.evaluation.detection.matches import Matches


@dataclass(frozen=True)
class Spread:
    """A difference, after minus before: on all photos, and in each resample (float [resamples])."""

    measured: float
    resamples: np.ndarray
    photos: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided percentile interval."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.resamples, [tail, 1 - tail])
        return float(low), float(high)

    def photos_to_tell(self, limit: float, confidence: float) -> int:
        """Estimate how many photos would put an interval of that confidence entirely on one side of
        ``limit``.

        An interval's width shrinks with the square root of the number of photos; the measured
        difference is assumed to be true.
        """
        low, high = self.interval(confidence)
        reach = max(abs(self.measured - low), abs(high - self.measured))
        distance = max(abs(self.measured - limit), 1e-9)
        return int(min(np.ceil(self.photos * (reach / distance) ** 2), 10**9))


def paired_spreads(before: Matches, after: Matches, *, resamples: int, seed: int = 0) -> dict[str, Spread]:
    """Return the differences of map50, map50_95, precision, recall, and ``map50_95, CLASS`` per
    class, as fractions (not points).

    Both must be of the same photos in the same order. Precision and recall are at the confidence of
    each detector's own report. Raises ValueError for different photos.
    """
    photos = len(before.truths)
    same = photos == len(after.truths) and all(
        np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(before.truths, after.truths, strict=True)
    )
    if not same:
        raise ValueError("the two were not measured on the same photos")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(photos, np.full(photos, 1 / photos), size=resamples)
    counts = np.concatenate([np.ones((1, photos), np.int64), drawn])  # the first row has the photos unchanged
    first, second = figures(before, counts), figures(after, counts)
    found = {}
    for name in second:
        difference = second[name] - first[name]
        known = difference[1:][np.isfinite(difference[1:])]
        if len(known):
            found[name] = Spread(float(difference[0]), known, photos)
    return found


def figures(matches: Matches, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return each metric for each row of ``counts`` [resamples, photos], the weights of the photos;
    NaN for absent classes.

    A row of ones gives the values of :func:`report.detection_report`; precision and recall to
    within one detection, as a report interpolates.
    """
    confidence = matches.class_figures().confidence
    where = np.repeat(np.arange(len(matches.scores)), [len(scores) for scores in matches.scores])
    correct, scores = np.concatenate(matches.correct), np.concatenate(matches.scores)
    classes = np.concatenate(matches.classes)
    present = sorted({int(number) for truths in matches.truths for number in truths})
    aps = np.full((len(present), len(counts), len(IOU_THRESHOLDS)), np.nan)
    precision, recall = (np.full((len(present), len(counts)), np.nan) for _ in range(2))
    for row, number in enumerate(present):
        mine = np.flatnonzero(classes == number)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        hits, photo = correct[mine].astype(np.float64), where[mine]
        shown = int((scores[mine] >= confidence).sum())
        totals = counts @ np.array([(truths == number).sum() for truths in matches.truths])
        kept = _corners(hits)
        for n in np.flatnonzero(totals):
            weight = counts[n, photo]
            true = np.cumsum(hits[kept] * weight[kept, None], axis=0)
            answered = np.maximum(np.cumsum(weight)[kept], 1e-9)
            aps[row, n] = average_precision(true / totals[n], true / answered[:, None])
            right = float(weight[:shown] @ hits[:shown, 0])
            answers = int(weight[:shown].sum())
            precision[row, n] = right / answers if answers else 1.0  # as in a report without detections
            recall[row, n] = right / totals[n]
    result = {
        "map50": np.nanmean(aps[:, :, 0], axis=0),
        "map50_95": np.nanmean(aps, axis=(0, 2)),
        "precision": np.nanmean(precision, axis=0),
        "recall": np.nanmean(recall, axis=0),
    }
    return result | {f"map50_95, {matches.names[number]}": aps[row].mean(axis=1) for row, number in enumerate(present)}


def _corners(hits: np.ndarray) -> np.ndarray:
    """Return the rows that determine average precision: each hit, and the detection before it,
    often a miss.

    Among thousands of detections there are a few hundred; at the others the curve only falls, below
    its envelope.
    """
    rows = np.flatnonzero(hits.any(axis=1))
    return np.unique(np.concatenate([rows, np.maximum(rows - 1, 0)]))
