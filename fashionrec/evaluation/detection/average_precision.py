"""Average precision as ultralytics computes it: matching, precision envelope, and metrics per
class.

AP is the area under the precision envelope at 101 recall points by trapezoids (ultralytics'
``compute_ap``), mAP50-95 its mean over the IoU thresholds .50, .55, ... .95. COCO's own, a mean
over the points instead, is in :mod:`coco`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.common.boxes import iou_matrix

if TYPE_CHECKING:
    from fashionrec.detector.decode import Detections

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
_GRID = 1000  # points of the confidence axis


@dataclass(frozen=True)
class ClassFigures:
    """Metrics of the classes that occur, in order.

    ``ap`` is float [classes, 10]; ``precision``, ``recall`` and ``f1`` [classes] are at IoU .50 and
    the one ``confidence`` with the highest mean F1 over classes.
    """

    classes: list[int]
    ap: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    confidence: float


def class_figures(correct: np.ndarray, scores: np.ndarray, classes: np.ndarray, truths: np.ndarray) -> ClassFigures:
    """Compute the metrics of all detections and classes.

    ``correct`` is bool [n, 10], see :func:`match`; ``scores`` and ``classes`` are [n]; ``truths``
    has the classes of all true boxes, at least one.
    """
    present = [int(number) for number in np.unique(truths)]
    grid = np.linspace(0, 1, _GRID)
    aps, precisions, recalls = [], [], []
    for number in present:
        mine = np.flatnonzero(classes == number)
        order = mine[np.argsort(-scores[mine], kind="stable")]
        hits, confidence = correct[order], scores[order]
        total = int((truths == number).sum())
        true = hits.cumsum(axis=0)
        recall = true / total
        precision = true / np.arange(1, len(hits) + 1)[:, None]
        aps.append(average_precision(recall, precision))
        if len(hits):
            recalls.append(np.interp(-grid, -confidence, recall[:, 0], left=0))
            precisions.append(np.interp(-grid, -confidence, precision[:, 0], left=1))
        else:
            recalls.append(np.zeros(_GRID))
            precisions.append(np.zeros(_GRID))
    p, r = np.array(precisions), np.array(recalls)
    f1 = 2 * p * r / (p + r + 1e-16)
    at = int(smooth(f1.mean(axis=0), 0.1).argmax())
    return ClassFigures(present, np.array(aps), p[:, at], r[:, at], f1[:, at], float(grid[at]))


def match(found: Detections, truth: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return bool [detections, 10]: whether each is a hit at each IoU threshold.

    As in COCO, the most confident detection chooses first: the free box of its class with the
    highest IoU. ``found`` is sorted best first.
    """
    correct = np.zeros((len(found), len(IOU_THRESHOLDS)), bool)
    if not len(found) or not len(truth):
        return correct
    overlap = iou_matrix(truth, found.boxes) * (classes[:, None] == found.class_ids[None, :])
    candidates = np.flatnonzero(overlap.max(axis=0) >= IOU_THRESHOLDS[0])
    for n, threshold in enumerate(IOU_THRESHOLDS):
        left = overlap.copy()
        for column in candidates:
            row = int(left[:, column].argmax())
            if left[row, column] >= threshold:
                correct[column, n] = True
                left[row] = 0.0
    return correct


def average_precision(recall: Sequence[float] | np.ndarray, precision: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the area under the envelope of each precision-recall curve, at 101 points by
    trapezoids: [curves].

    ``recall`` (ascending) and ``precision`` are one curve [n], or one curve per column [n, curves].
    """
    r, p = (np.atleast_2d(np.asarray(values, float).T).T for values in (recall, precision))
    curves = r.shape[1]
    if not len(r):
        return np.zeros(curves)
    zeros, ones = np.zeros((1, curves)), np.ones((1, curves))
    r = np.concatenate([zeros, r, r[-1:], ones])
    p = np.concatenate([ones, p, zeros, zeros])
    envelope = np.maximum.accumulate(p[::-1])[::-1]
    values = np.stack([np.interp(RECALLS, r[:, n], envelope[:, n]) for n in range(curves)])
    return np.asarray(((values[:, 1:] + values[:, :-1]) / 2 * np.diff(RECALLS)).sum(axis=1))


def smooth(values: np.ndarray, fraction: float) -> np.ndarray:
    """Apply a box filter over a fraction of the curve, extending its ends."""
    width = round(len(values) * fraction * 2) // 2 + 1
    ends = np.ones(width // 2)
    padded = np.concatenate([ends * values[0], values, ends * values[-1]])
    return np.convolve(padded, np.ones(width) / width, mode="valid")
