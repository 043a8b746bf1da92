"""Classify the mistakes in each photo: missed, false, wrong class, misplaced, duplicate.

After TIDE (D. Bolya et al., arXiv 2008.08115), with the thresholds below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.boxes import iou_matrix
from fashionrec.evaluation.detection.confusion import BACKGROUND
from fashionrec.evaluation.detection.matches import Matches

#: IoU from which a detection belongs to a true box, from which it is well placed, and below which
#: the two are unrelated.
SAME, PLACED_WELL, APART = 0.5, 0.75, 0.1

KINDS = {
    "missed": "a garment without a detection",
    "false": "a detection without a garment",
    "wrong_class": "a garment detected as another class",
    "badly_placed": f"the right class, but an IoU of only {APART:g} to {PLACED_WELL:g}",
    "double": "a second detection of a garment",
}


@dataclass(frozen=True)
class Mistake:
    """A mistake of a ``kind`` of :data:`KINDS`. ``true`` and ``found`` are classes, or background;
    boxes are xyxy pixels of the photo.
    """

    kind: str
    true: str
    found: str
    confidence: float = 0.0
    iou: float = 0.0
    true_box: tuple[float, ...] = ()
    found_box: tuple[float, ...] = ()

    @property
    def cost(self) -> float:
        """Severity, 0 to 1: higher for confident mistakes, and for boxes with less overlap."""
        if self.kind == "badly_placed":
            return 1 - self.iou
        return self.confidence if self.kind in ("false", "double") else 1.0

    @property
    def text(self) -> str:
        sure = f"{self.found} {self.confidence:.2f}"
        return {
            "missed": f"{self.true} missed",
            "false": f"false {sure}",
            "wrong_class": f"{self.true} taken for {sure}",
            "badly_placed": f"{sure} badly placed, IoU {self.iou:.2f}",
            "double": f"{sure} on a {self.true} that was already detected",
        }[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Return a document; its box is that of the detection, or of the missed garment."""
        values = {key: getattr(self, key) for key in ("kind", "true", "found", "confidence", "iou")}
        return {**values, "box": list(self.found_box or self.true_box)}


@dataclass(frozen=True)
class PhotoMistakes:
    """A photo's mistakes, worst first, and its correct boxes (xyxy pixels)."""

    path: Path | None
    mistakes: Sequence[Mistake]
    right: Sequence[tuple[float, ...]]

    @property
    def cost(self) -> float:
        return sum(mistake.cost for mistake in self.mistakes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "photo": str(self.path or ""),
            "cost": self.cost,
            "mistakes": [mistake.to_dict() for mistake in self.mistakes],
        }


def find_mistakes(matches: Matches, confidence: float | None = None) -> list[PhotoMistakes]:
    """Find the mistakes in every photo, in order, by the detections above ``confidence``.

    The default is the confidence with the highest mean F1 over classes.
    """
    confidence = matches.class_figures().confidence if confidence is None else confidence
    return [_photo(matches, n, confidence) for n in range(len(matches.truths))]


def count_mistakes(photos: Sequence[PhotoMistakes]) -> dict[str, int]:
    """Count the mistakes of each kind."""
    counts = dict.fromkeys(KINDS, 0)
    for photo in photos:
        for mistake in photo.mistakes:
            counts[mistake.kind] += 1
    return counts


def worst(photos: Sequence[PhotoMistakes], limit: int) -> list[PhotoMistakes]:
    """Return the photos with most and worst mistakes first; none without mistakes."""
    return [photo for photo in sorted(photos, key=lambda photo: -photo.cost) if photo.cost][:limit]


def _photo(matches: Matches, n: int, confidence: float) -> PhotoMistakes:
    scores, truths = matches.scores[n], matches.truths[n]
    shown = np.flatnonzero(scores > confidence)
    shown = shown[np.argsort(-scores[shown], kind="stable")]
    scores, classes, boxes = scores[shown], matches.classes[n][shown], matches.boxes[n][shown]
    overlap = iou_matrix(matches.true_boxes[n], boxes)
    of, names = dict(_owners(overlap, classes, truths)), matches.names
    wrong, right = [], []
    for k, number in enumerate(classes):
        found, sure, box = names[int(number)], float(scores[k]), _box(boxes[k])
        if k in of:
            iou, true_box = float(overlap[of[k], k]), _box(matches.true_boxes[n][of[k]])
            true = names[int(truths[of[k]])]
            if true != found:
                wrong.append(Mistake("wrong_class", true, found, sure, iou, true_box, box))
            elif iou < PLACED_WELL:
                wrong.append(Mistake("badly_placed", true, found, sure, iou, true_box, box))
            else:
                right.append(box)
        elif len(truths) and overlap[:, k].max() >= SAME:
            owner = int(overlap[:, k].argmax())
            true, true_box = names[int(truths[owner])], _box(matches.true_boxes[n][owner])
            wrong.append(Mistake("double", true, found, sure, float(overlap[owner, k]), true_box, box))
        else:
            wrong.append(Mistake("false", BACKGROUND, found, sure, found_box=box))
    for row in sorted(set(range(len(truths))) - set(of.values())):
        true_box = _box(matches.true_boxes[n][row])
        wrong.append(Mistake("missed", names[int(truths[row])], BACKGROUND, true_box=true_box))
    wrong.sort(key=lambda mistake: -mistake.cost)
    return PhotoMistakes(matches.paths[n], wrong, right)


def _owners(overlap: np.ndarray, classes: np.ndarray, truths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return the true box that each detection (best first) belongs to: one of its class first, then
    any, then a near one.
    """
    same = truths[:, None] == classes[None, :]
    left, waiting = overlap.copy(), list(range(len(classes)))
    for rule, least in ((same, SAME), (~same, SAME), (same, APART)):
        for k in list(waiting) if len(truths) else []:
            row = int(np.where(rule[:, k], left[:, k], 0.0).argmax())
            if rule[row, k] and left[row, k] >= least:
                yield k, row
                left[row] = 0.0
                waiting.remove(k)


def _box(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
