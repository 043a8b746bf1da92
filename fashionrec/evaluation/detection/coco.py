"""COCO's metrics, equal to pycocotools up to the rounding of sums.

T.-Y. Lin et al., arXiv 1405.0312; https://cocodataset.org/#detection-eval. AP is the mean of the
precision envelope over 101 recalls, thresholds .50 to .95 and the classes that occur, with at most
100 detections per class and photo. For a size, true boxes of other sizes are ignored, and so are
unmatched detections of other sizes. YOLO labels have no crowd regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fashionrec.evaluation.detection.average_precision import IOU_THRESHOLDS, RECALLS
from fashionrec.evaluation.detection.matches import Matches

#: Smallest and largest area of a box in pixels of the photo, both inclusive: a box of exactly 32 x
#: 32 is small and medium.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
SIZES = tuple(name for name in AREAS if name != "all")
MAX_DET = 100


@dataclass(frozen=True)
class CocoFigures:
    """Metrics of ``classes``.

    ``precision`` is float [10, 101, classes, areas] and ``recall`` float [10, classes, areas], NaN
    if a class has no true box of a size; ``boxes`` is int [classes, areas], the true boxes that
    count.
    """

    classes: list[int]
    precision: np.ndarray
    recall: np.ndarray
    boxes: np.ndarray

    def ap(self, area: str = "all", iou: float | None = None) -> float | None:
        """Return average precision at one IoU or over all; None without true boxes of that size."""
        at = slice(None) if iou is None else np.isclose(IOU_THRESHOLDS, iou)
        return _mean(self.precision[at][..., list(AREAS).index(area)])

    def ar(self, area: str = "all") -> float | None:
        """Return average recall with at most 100 detections per class and photo; None without true
        boxes of that size.
        """
        return _mean(self.recall[..., list(AREAS).index(area)])

    def class_ap(self, number: int) -> float | None:
        """Return average precision of one class for boxes of all sizes."""
        return _mean(self.precision[:, :, self.classes.index(number), 0])

    def curve(self, number: int) -> np.ndarray:
        """Return float [101]: a class's precision at IoU .50 and recall 0, .01, ... 1; their mean
        is its AP50.
        """
        return np.asarray(self.precision[0, :, self.classes.index(number), 0])

    def in_area(self, area: str) -> int:
        """Return the number of true boxes of that size."""
        return int(self.boxes[:, list(AREAS).index(area)].sum())


def coco_figures(matches: Matches) -> CocoFigures:
    """Compute the metrics of all named classes over all photos."""
    classes = sorted(matches.names)
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), len(classes), len(AREAS)), np.nan)
    recall = np.full((len(IOU_THRESHOLDS), len(classes), len(AREAS)), np.nan)
    boxes = np.zeros((len(classes), len(AREAS)), np.int64)
    for k, number in enumerate(classes):
        photos = list(_photos(matches, number))
        for a, area in enumerate(AREAS.values()):
            scores, hits, misses, boxes[k, a] = _matched(photos, area)
            if boxes[k, a]:
                order = np.argsort(-scores, kind="stable")
                precision[:, :, k, a], recall[:, k, a] = _curves(hits[:, order], misses[:, order], int(boxes[k, a]))
    return CocoFigures(classes, precision, recall, boxes)


@dataclass(frozen=True)
class _Photo:
    """One class in one photo: scores and areas of detections, best first; areas of true boxes; IoU
    [found, true].
    """

    scores: np.ndarray
    found: np.ndarray
    true: np.ndarray
    iou: np.ndarray


def _photos(matches: Matches, number: int) -> list[_Photo]:
    photos = []
    for n, (classes, truths) in enumerate(zip(matches.classes, matches.truths, strict=True)):
        mine, theirs = np.flatnonzero(classes == number), truths == number
        if not len(mine) and not theirs.any():
            continue
        mine = mine[np.argsort(-matches.scores[n][mine], kind="stable")][:MAX_DET]
        found, true = _xywh(matches.boxes[n][mine]), _xywh(matches.true_boxes[n][theirs])
        scores = matches.scores[n][mine].astype(np.float64)
        photos.append(_Photo(scores, found[:, 2] * found[:, 3], true[:, 2] * true[:, 3], _iou(found, true)))
    return photos


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.astype(np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _iou(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Compute IoU by pycocotools' own steps (maskApi.c, bbIou), so that a box on a threshold falls
    on the same side.
    """
    a, b = found[:, None, :], true[None, :, :]
    sides = np.minimum(a[..., 2:] + a[..., :2], b[..., 2:] + b[..., :2]) - np.maximum(a[..., :2], b[..., :2])
    inter = sides[..., 0] * sides[..., 1]
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter
    overlap = (sides > 0).all(axis=2)
    return np.where(overlap, inter / np.where(overlap, union, 1.0), 0.0)


def _matched(photos: list[_Photo], area: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Collect over all photos: scores [n], right [10, n], wrong [10, n] (neither: ignored), and the
    number of true boxes that count.
    """
    low, high = area
    scores, right, wrong, count = [], [], [], 0
    for photo in photos:
        ignored = (photo.true < low) | (photo.true > high)
        taken, on_ignored = _assign(photo.iou, ignored)
        outside = (photo.found < low) | (photo.found > high)
        scores.append(photo.scores)
        right.append(taken & ~on_ignored)
        wrong.append(~taken & ~outside)
        count += int((~ignored).sum())
    if not photos:
        nothing = np.zeros((len(IOU_THRESHOLDS), 0), bool)
        return np.zeros(0), nothing, nothing, 0
    return np.concatenate(scores), np.concatenate(right, axis=1), np.concatenate(wrong, axis=1), count


def _assign(iou: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bool [10, detections] twice: whether each is matched, and whether with an ignored box.

    Each takes the free box with the highest IoU, the last among equals, and an ignored one only if
    no other fits.
    """
    thresholds = IOU_THRESHOLDS[:, None]
    taken = np.zeros((len(thresholds), len(iou)), bool)
    on_ignored = np.zeros_like(taken)
    if not len(ignored):
        return taken, on_ignored
    free = np.ones((len(thresholds), len(ignored)), bool)
    for n in np.flatnonzero(iou.max(axis=1) >= IOU_THRESHOLDS[0]):
        fits = free & (iou[n] >= thresholds)
        fits &= ~ignored | ~(fits & ~ignored).any(axis=1, keepdims=True)
        last = len(ignored) - 1 - np.where(fits, iou[n], -1.0)[:, ::-1].argmax(axis=1)
        hit = np.flatnonzero(fits.any(axis=1))
        free[hit, last[hit]] = False
        taken[hit, n] = True
        on_ignored[hit, n] = ignored[last[hit]]
    return taken, on_ignored


def _curves(right: np.ndarray, wrong: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision [10, 101] and highest recall [10] of right and wrong detections, both bool
    [10, n], best first.
    """
    precision = np.zeros((len(IOU_THRESHOLDS), len(RECALLS)))
    if not right.shape[1]:
        return precision, np.zeros(len(IOU_THRESHOLDS))
    true, false = right.cumsum(axis=1).astype(float), wrong.cumsum(axis=1).astype(float)
    recall = true / count
    envelope = np.maximum.accumulate((true / (false + true + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    for t in range(len(IOU_THRESHOLDS)):
        place = np.searchsorted(recall[t], RECALLS, side="left")
        reached = place < right.shape[1]
        precision[t, reached] = envelope[t, place[reached]]
    return precision, recall[:, -1]


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
