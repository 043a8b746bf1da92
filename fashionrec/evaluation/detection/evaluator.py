"""One evaluator for every detector, from its bundle, so that figures are comparable.

:func:`match_detector` runs a detector over a split and keeps what it found in each photo; :meth:`Matches.report` makes the
figures of it, by ultralytics' rules and by COCO's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.config import EvaluateConfig, load_config
from fashionrec.errors import DataError
from fashionrec.evaluation.detection.average_precision import (
    IOU_THRESHOLDS,
    ClassFigures,
    average_precision,
    class_figures,
    iou_matrix,
    match,
    smooth,
)
from fashionrec.evaluation.detection.coco import SIZES, coco_figures
from fashionrec.evaluation.detection.confusion import confusion_matrix
from fashionrec.evaluation.detection.mistakes import SAME, PhotoMistakes, count_mistakes, mistakes
from fashionrec.evaluation.detection.report import DetectionReport
from fashionrec.labels.yolo import declared, read_data_yaml, read_labels
from fashionrec.photos.images import read_photo

if TYPE_CHECKING:
    from fashionrec.detector.decode import Detections
    from fashionrec.detector.detect import Detector

__all__ = [
    "IOU_THRESHOLDS",
    "DetectionReport",
    "Matches",
    "average_precision",
    "evaluate_detector",
    "iou_matrix",
    "match",
    "match_detector",
    "renumbered",
    "smooth",
]

_BATCH = 8


def evaluate_detector(
    detector: Detector,
    data_yaml: Path,
    split: str,
    config: EvaluateConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionReport:
    """Measure a detector on one split of a YOLO dataset. Classes are matched by name, whatever their numbers.

    Raises :class:`DataError` if the split is missing, has no boxes, or shares no class with the detector.
    """
    return match_detector(detector, data_yaml, split, config, progress=progress).report()


def match_detector(
    detector: Detector,
    data_yaml: Path,
    split: str,
    config: EvaluateConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """What a detector finds in each photo of a split, matched with its labels. Raises as :func:`evaluate_detector`."""
    data = read_data_yaml(data_yaml)
    images = data.images(split)
    known = {name: number for number, name in data.names.items()}
    numbers = {own: known[name] for own, name in detector.labels.items() if name in known}
    if not numbers:
        raise DataError(
            f"{data_yaml} and the detector share no class",
            hint=f"it knows {', '.join(detector.labels.values())}; the data has {', '.join(known)}",
        )
    limits = load_config().config.images
    prepared = bool(declared(data_yaml).get("pixels"))  # as this detector does, or otherwise: never twice
    matches = Matches(data.names)
    for start in range(0, len(images), _BATCH):
        paths = images[start : start + _BATCH]
        photos = [read_photo(path, limits).pixels for path in paths]
        found = detector.predict(
            photos,
            conf=config.conf,
            iou=config.iou,
            max_det=config.max_det,
            multi_label=True,
            prepared_already=prepared,
        )
        for path, photo, detections in zip(paths, photos, found, strict=True):
            labels = read_labels(path)
            centre = labels[:, 1:3] * [photo.width, photo.height]
            half = labels[:, 3:5] * [photo.width, photo.height] / 2
            truth, classes = np.concatenate([centre - half, centre + half], axis=1), labels[:, 0].astype(np.int64)
            if unknown := sorted(set(classes.tolist()) - set(data.names)):
                raise DataError(
                    f"the labels of {path} have a class {unknown[0]} that {data_yaml} does not name",
                    hint="`fashionrec dataset audit` lists all such lines",
                )
            matches.add(renumbered(detections, numbers), truth, classes, path)
        if progress:
            progress(min(start + _BATCH, len(images)), len(images))
    if not sum(map(len, matches.truths)):
        raise DataError(f"the {split} split of {data_yaml} has no boxes")
    return matches


def renumbered(found: Detections, numbers: dict[int, int]) -> Detections:
    """Detections with the dataset's class numbers; classes that it does not have are left out."""
    kept = np.array([n for n, own in enumerate(found.class_ids) if int(own) in numbers], dtype=np.int64)
    part = found.take(kept)
    ids = np.array([numbers[int(own)] for own in part.class_ids], dtype=np.int64)
    return type(found)(part.boxes, part.scores, ids)


class Matches:
    """Detections matched with the truth. Each list has an entry per photo, in the order of the split.

    Of its detections: ``correct`` bool [n, 10] (see :func:`match`), ``scores``, ``classes``, ``boxes`` (xyxy pixels). Of its true
    boxes: ``truths``, their classes, and ``true_boxes``. ``paths``: where it is, or None. ``names`` are the classes by number.
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
        """One photo: detections (xyxy pixels), true boxes float [n, 4] in the same pixels, and their class numbers."""
        self.correct.append(match(found, truth, classes))
        self.scores.append(found.scores)
        self.classes.append(found.class_ids)
        self.boxes.append(found.boxes)
        self.truths.append(classes)
        self.true_boxes.append(truth)
        self.paths.append(path)

    def class_figures(self) -> ClassFigures:
        """ultralytics' figures of each class that occurs, over all photos. At least one true box is needed."""
        parts = (self.correct, self.scores, self.classes, self.truths)
        return class_figures(*(np.concatenate(part) for part in parts))

    def mistakes(self) -> list[PhotoMistakes]:
        """What is wrong in each photo, at the confidence where the mean F1 over classes is highest."""
        return mistakes(self, self.class_figures().confidence)

    def report(self) -> DetectionReport:
        """The figures over all photos. At least one true box is needed."""
        own, coco = self.class_figures(), coco_figures(self)
        counts = {number: sum(int((truths == number).sum()) for truths in self.truths) for number in own.classes}
        per_class = {
            self.names[number]: {
                "boxes": counts[number],
                "map50": float(own.ap[n, 0]),
                "map50_95": float(own.ap[n].mean()),
                "precision": float(own.precision[n]),
                "recall": float(own.recall[n]),
                "f1": float(own.f1[n]),
                "coco_ap": coco.class_ap(number),
            }
            for n, number in enumerate(own.classes)
        }
        by_size = {
            name: {
                "boxes": coco.in_area(name),
                "coco_ap": coco.ap(name),
                "coco_ap50": coco.ap(name, 0.5),
                "coco_ap75": coco.ap(name, 0.75),
                "coco_ar100": coco.ar(name),
            }
            for name in SIZES
        }
        return DetectionReport(
            images=len(self.truths),
            boxes=sum(counts.values()),
            map50=float(own.ap[:, 0].mean()),
            map50_95=float(own.ap.mean()),
            precision=float(own.precision.mean()),
            recall=float(own.recall.mean()),
            f1=float(own.f1.mean()),
            confidence=own.confidence,
            coco_ap=coco.ap(),
            coco_ap50=coco.ap(iou=0.5),
            coco_ap75=coco.ap(iou=0.75),
            coco_ap_small=coco.ap("small"),
            coco_ap_medium=coco.ap("medium"),
            coco_ap_large=coco.ap("large"),
            coco_ar100=coco.ar(),
            per_class=per_class,
            by_size=by_size,
            curves={self.names[number]: coco.curve(number).tolist() for number in own.classes},
            confusion=confusion_matrix(self, own.confidence, SAME),
            mistakes=count_mistakes(mistakes(self, own.confidence)),
        )
