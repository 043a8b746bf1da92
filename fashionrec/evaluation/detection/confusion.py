"""The confusion matrix of true boxes and detections of any class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fashionrec.common.boxes import iou_matrix
from fashionrec.evaluation.detection.matches import Matches

BACKGROUND = "background"


@dataclass(frozen=True)
class ConfusionMatrix:
    """A confusion matrix. ``counts`` is int [classes + 1, classes + 1]: rows are predicted, columns
    true, as in ultralytics.

    The last row is background predicted at a box (a miss), the last column a box predicted on
    background (a false positive). Detections above ``confidence`` with an IoU above ``iou`` are
    counted. ``names`` ends with background.
    """

    names: list[str]
    counts: np.ndarray
    confidence: float
    iou: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "confidence": self.confidence,
            "iou": self.iou,
            "classes": self.names,
            "counts": self.counts.tolist(),
        }

    def confused(self, limit: int) -> list[tuple[str, str, int, float]]:
        """Return the most confused pairs: true class, predicted class, count, and the count as a
        share of the true class's boxes.
        """
        classes = self.counts[:-1, :-1].copy()
        np.fill_diagonal(classes, 0)
        order = np.argsort(-classes, axis=None, kind="stable")[:limit]
        pairs = []
        for found, true in zip(*np.unravel_index(order, classes.shape), strict=True):
            if count := int(classes[found, true]):
                share = count / int(self.counts[:, true].sum())
                pairs.append((self.names[true], self.names[found], count, share))
        return pairs


def confusion_matrix(matches: Matches, confidence: float, iou: float) -> ConfusionMatrix:
    """Compute the matrix over all photos. The most confident detection takes the free true box, of
    any class, with the highest IoU.
    """
    numbers = sorted(matches.names)
    counts = np.zeros((len(numbers) + 1, len(numbers) + 1), np.int64)
    for scores, classes, boxes, truths, true_boxes in zip(
        matches.scores, matches.classes, matches.boxes, matches.truths, matches.true_boxes, strict=True
    ):
        shown = np.flatnonzero(scores > confidence)
        shown = shown[np.argsort(-scores[shown], kind="stable")]
        found, true = _places(classes[shown], numbers), _places(truths, numbers)
        pairs = _pairs(iou_matrix(true_boxes, boxes[shown]), iou)
        np.add.at(counts, (found, np.array([true[pairs[n]] if n in pairs else -1 for n in range(len(found))], int)), 1)
        missed = np.delete(true, list(pairs.values()))
        np.add.at(counts, (np.full(len(missed), -1), missed), 1)
    return ConfusionMatrix([*(matches.names[n] for n in numbers), BACKGROUND], counts, confidence, iou)


def _places(classes: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    return np.searchsorted(numbers, classes).astype(np.int64)


def _pairs(overlap: np.ndarray, iou: float) -> dict[int, int]:
    """Return the true box (row) that each detection (column, best first) takes."""
    left, pairs = overlap.copy(), {}
    for column in np.flatnonzero((overlap > iou).any(axis=0)):
        row = int(left[:, column].argmax())
        if left[row, column] > iou:
            pairs[int(column)] = row
            left[row] = 0.0
    return pairs
