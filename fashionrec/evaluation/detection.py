"""Average precision of any detector, from its bundle, as COCO and ultralytics define it.

AP is the area under the precision envelope at 101 recall points (Lin et al., arXiv 1405.0312; ultralytics' ``compute_ap``),
mAP50-95 its mean over the IoU thresholds .50, .55, ... .95. Precision, recall and F1 are at the confidence where the mean
F1 over classes is highest, at IoU .50.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.config import EvaluateConfig, load_config
from fashionrec.errors import DataError
from fashionrec.images import read_photo
from fashionrec.yolo_data import declared, read_data_yaml, read_labels

if TYPE_CHECKING:
    from fashionrec.detector.decode import Detections
    from fashionrec.detector.detect import Detector

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_GRID = 1000  # points of the confidence axis
_BATCH = 8


@dataclass
class DetectionReport:
    """What was measured. ``per_class`` has the same figures for each class that occurs, and its number of boxes."""

    images: int
    boxes: int
    map50: float
    map50_95: float
    precision: float
    recall: float
    f1: float
    confidence: float
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def to_markdown(self) -> str:
        """A table with a line in all and one per class."""
        lines = ["| class | boxes | mAP50 | mAP50-95 | P | R |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
        everything = {key: getattr(self, key) for key in ("boxes", "map50", "map50_95", "precision", "recall")}
        for name, values in {"all": everything, **self.per_class}.items():
            figures = " | ".join(f"{values[key]:.3f}" for key in ("map50", "map50_95", "precision", "recall"))
            lines.append(f"| {name} | {values['boxes']:.0f} | {figures} |")
        return "\n".join(lines) + "\n"


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
            truth = np.concatenate([centre - half, centre + half], axis=1)
            matches.add(renumbered(detections, numbers), truth, labels[:, 0].astype(np.int64))
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
    """Detections matched with the truth. Each list has an entry per photo, in the order of the split: ``correct`` bool
    [detections, 10] (see :func:`match`), ``scores``, ``classes`` of its detections, and ``truths``, classes of its true boxes.
    ``names`` are the classes' names by number."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self.correct: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []
        self.classes: list[np.ndarray] = []
        self.truths: list[np.ndarray] = []

    def add(self, found: Detections, truth: np.ndarray, classes: np.ndarray) -> None:
        """One photo: detections (xyxy pixels), true boxes float [n, 4] in the same pixels, and their class numbers."""
        self.correct.append(match(found, truth, classes))
        self.scores.append(found.scores)
        self.classes.append(found.class_ids)
        self.truths.append(classes)

    def report(self) -> DetectionReport:
        """The figures over all photos. At least one true box is needed."""
        correct, scores = np.concatenate(self.correct), np.concatenate(self.scores)
        classes, truths = np.concatenate(self.classes), np.concatenate(self.truths)
        names = self.names
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
            aps.append([average_precision(recall[:, n], precision[:, n]) for n in range(len(IOU_THRESHOLDS))])
            if len(hits):
                recalls.append(np.interp(-grid, -confidence, recall[:, 0], left=0))
                precisions.append(np.interp(-grid, -confidence, precision[:, 0], left=1))
            else:
                recalls.append(np.zeros(_GRID))
                precisions.append(np.zeros(_GRID))
        ap, p, r = np.array(aps), np.array(precisions), np.array(recalls)
        f1 = 2 * p * r / (p + r + 1e-16)
        at = int(smooth(f1.mean(axis=0), 0.1).argmax())
        per_class = {
            names[number]: {
                "boxes": int((truths == number).sum()),
                "map50": float(ap[n, 0]),
                "map50_95": float(ap[n].mean()),
                "precision": float(p[n, at]),
                "recall": float(r[n, at]),
                "f1": float(f1[n, at]),
            }
            for n, number in enumerate(present)
        }
        return DetectionReport(
            images=len(self.truths),
            boxes=len(truths),
            map50=float(ap[:, 0].mean()),
            map50_95=float(ap.mean()),
            precision=float(p[:, at].mean()),
            recall=float(r[:, at].mean()),
            f1=float(f1[:, at].mean()),
            confidence=float(grid[at]),
            per_class=per_class,
        )


def match(found: Detections, truth: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """bool [detections, 10]: is each a hit at each IoU threshold?

    The surest detection chooses first, as in COCO: the box of its class that it overlaps most and that none has taken yet.
    ``found`` is best first.
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


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of every box of ``a`` [n, 4] with every box of ``b`` [m, 4], both xyxy: float [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return np.asarray(inter / np.maximum(area_a[:, None] + area_b[None, :] - inter, 1e-9))


def average_precision(recall: Sequence[float] | np.ndarray, precision: Sequence[float] | np.ndarray) -> float:
    """Area under the envelope of a precision-recall curve (recall rising), at 101 points by trapezoids."""
    if not len(recall):
        return 0.0
    r = np.concatenate([[0.0], recall, [recall[-1]], [1.0]])
    p = np.concatenate([[1.0], precision, [0.0], [0.0]])
    envelope = np.flip(np.maximum.accumulate(np.flip(p)))
    points = np.linspace(0, 1, 101)
    values = np.interp(points, r, envelope)
    return float(((values[1:] + values[:-1]) / 2 * np.diff(points)).sum())


def smooth(values: np.ndarray, fraction: float) -> np.ndarray:
    """A box filter over a fraction of the curve, its ends held."""
    width = round(len(values) * fraction * 2) // 2 + 1
    ends = np.ones(width // 2)
    padded = np.concatenate([ends * values[0], values, ends * values[-1]])
    return np.convolve(padded, np.ones(width) / width, mode="valid")
