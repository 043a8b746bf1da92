"""Detections of a split matched with its labels: the basis of every metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.evaluation.detection.average_precision import ClassFigures, class_figures, match

if TYPE_CHECKING:
    from fashionrec.detector.decode import Detections


class Matches:
    """Detections matched with the truth. Each list has one entry per photo, in the order of the
    split.

    Detections: ``correct`` bool [n, 10] (see :func:`match`), ``scores``, ``classes``, ``boxes``
    (xyxy pixels). True boxes: ``truths``, their classes, and ``true_boxes``. ``paths``: the file,
    or None. ``names`` are the classes by number.
    """

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self.correct: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []
        self.classes: list[np.ndarray] = []
        self.boxes: list[np.ndarray] = []
        self.truths: list[np.ndarray] = []
        self.true_boxes: list[np.ndarray] = []
        self.paths: list[Path | None] = []

    def add(self, found: Detections, truth: np.ndarray, classes: np.ndarray, path: Path | None = None) -> None:
        """Add one photo: detections (xyxy pixels), true boxes float [n, 4] in the same pixels, and
        their class numbers.
        """
        self.correct.append(match(found, truth, classes))
        self.scores.append(found.scores)
        self.classes.append(found.class_ids)
        self.boxes.append(found.boxes)
        self.truths.append(classes)
        self.true_boxes.append(truth)
        self.paths.append(path)

    def class_figures(self) -> ClassFigures:
        """Return ultralytics' metrics of each class that occurs, over all photos. At least one true
        box is needed.
        """
        parts = (self.correct, self.scores, self.classes, self.truths)
        return class_figures(*(np.concatenate(part) for part in parts))
