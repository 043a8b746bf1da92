"""The one evaluator of detectors, from their bundles, so that metrics are comparable.

:func:`match_detector` runs a detector over a split and keeps its detections;
:func:`report.detection_report` computes the metrics, by ultralytics' rules and by COCO's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.config import EvaluateConfig, ImagesConfig
from fashionrec.errors import DataError
from fashionrec.evaluation.detection.matches import Matches
from fashionrec.evaluation.detection.report import DetectionReport, detection_report
from fashionrec.labels.data_yaml import declared, read_data_yaml
from fashionrec.labels.label_lines import read_labels
from fashionrec.photos.images import read_photo

if TYPE_CHECKING:
    from fashionrec.detector.decode import Detections
    from fashionrec.detector.detect import Detector

_BATCH = 8


def evaluate_detector(
    detector: Detector,
    data_yaml: Path,
    split: str,
    config: EvaluateConfig,
    limits: ImagesConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionReport:
    """Measure a detector on one split of a YOLO dataset. Classes are matched by name, whatever
    their numbers.

    Raises :class:`DataError` if the split is missing, has no boxes, or shares no class with the
    detector.
    """
    return detection_report(match_detector(detector, data_yaml, split, config, limits, progress=progress))


def measure_map(
    detector: Detector,
    data_yaml: Path,
    split: str,
    config: EvaluateConfig,
    limits: ImagesConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Return the mAP of a detector on a split, and its number of photos. Raises like
    :func:`evaluate_detector`.
    """
    report = evaluate_detector(detector, data_yaml, split, config, limits, progress=progress)
    return {"map50_95": report.map50_95, "map50": report.map50, "images": report.images}


def other_preparation(detector: Detector, data_yaml: Path) -> str:
    """Describe how the photos of a dataset were prepared, if it differs from the detector's
    training data.
    """
    theirs, own = declared(data_yaml).get("pixels", {}), detector.pixels.to_dict()
    if not theirs or theirs == own:
        return ""
    return f"{data_yaml} was prepared with {theirs}, the detector's training photos with {own or 'nothing'}"


def match_detector(
    detector: Detector,
    data_yaml: Path,
    split: str,
    config: EvaluateConfig,
    limits: ImagesConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """Match a detector's detections in each photo of a split with its labels. Raises like
    :func:`evaluate_detector`.
    """
    data = read_data_yaml(data_yaml)
    images = data.images(split)
    known = {name: number for number, name in data.names.items()}
    numbers = {own: known[name] for own, name in detector.labels.items() if name in known}
    if not numbers:
        raise DataError(
            f"{data_yaml} and the detector have no class in common",
            hint=f"the detector has {', '.join(detector.labels.values())}; the data has {', '.join(known)}",
        )
    prepared = bool(declared(data_yaml).get("pixels"))  # whether or not as for this detector: never twice
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
    """Return detections with the dataset's class numbers, without classes that it lacks."""
    kept = np.array([n for n, own in enumerate(found.class_ids) if int(own) in numbers], dtype=np.int64)
    part = found.take(kept)
    ids = np.array([numbers[int(own)] for own in part.class_ids], dtype=np.int64)
    return type(found)(part.boxes, part.scores, ids)
