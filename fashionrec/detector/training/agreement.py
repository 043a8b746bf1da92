"""Compare the detections and the speed of two detectors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.boxes import iou_matrix
from fashionrec.detector.decode import Detections

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.detector.detect import Detector

CONF = 0.25  # detections at least this confident must be found by both
_IOU = 0.5  # IoU from which both found the same
_BATCH = 8


def compare(
    source: Detector, exported: Detector, photos: Sequence[Image.Image], *, prepared: bool = False
) -> dict[str, Any]:
    """Compare detections in ``photos`` of any size, in batches and alone. Returns figures without
    judging them.

    A detection with a confidence of at least ``CONF`` counts as found by the other if that has one
    of its class with at least half the confidence and an IoU of at least .5; both directions are
    tested.
    """
    answers = [_in_batches(detector, photos, prepared) for detector in (source, exported)]
    sure = [[found.take(np.flatnonzero(found.scores > CONF)) for found in answer] for answer in answers]
    found, ious, scores = [], [], []
    for wanted, others in ((sure[0], answers[1]), (sure[1], answers[0])):
        for one, other in zip(wanted, others, strict=True):
            for n in range(len(one)):
                overlap, at = _nearest(one, n, other)
                found.append(overlap >= _IOU)
                if found[-1]:
                    ious.append(overlap)
                    scores.append(abs(float(one.scores[n]) - float(other.scores[at])))
    alone = [exported.predict([photo], conf=CONF, prepared_already=prepared)[0] for photo in photos]
    return {
        "photos_compared": len(photos),
        "detections_source": sum(map(len, sure[0])),
        "detections_exported": sum(map(len, sure[1])),
        "detections_exported_alone": sum(map(len, alone)),
        "found_by_both": float(np.mean(found)) if found else 0.0,
        "iou_mean": float(np.mean(ious)) if ious else 0.0,
        "score_difference_mean": float(np.mean(scores)) if scores else 0.0,
    }


def speed(source: Detector, exported: Detector, photo: Image.Image, seconds: float = 3.0) -> dict[str, float]:
    """Return milliseconds per photo of each, alternating so that other load affects both, and the
    median ratio.

    A ratio above 1 means that the export is faster.
    """
    for detector in (source, exported):
        detector.predict([photo])
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begin < seconds and len(times) < 20):
        times.append((_seconds(source, photo), _seconds(exported, photo)))
    return {
        "fp32_ms": statistics.median(first for first, _ in times) * 1000,
        "ms": statistics.median(second for _, second in times) * 1000,
        "ratio": statistics.median(first / second for first, second in times),
    }


def _seconds(detector: Detector, photo: Image.Image) -> float:
    start = time.perf_counter()
    detector.predict([photo])
    return time.perf_counter() - start


def _in_batches(detector: Detector, photos: Sequence[Image.Image], prepared: bool) -> list[Detections]:
    found: list[Detections] = []
    for start in range(0, len(photos), _BATCH):
        found += detector.predict(photos[start : start + _BATCH], conf=CONF / 2, prepared_already=prepared)
    return found


def _nearest(one: Detections, n: int, other: Detections) -> tuple[float, int]:
    """Return the best IoU of a detection with one of its class, and its index; (0, -1) if there is
    none.
    """
    same = np.flatnonzero(other.class_ids == one.class_ids[n])
    overlaps = iou_matrix(one.boxes[n : n + 1].astype(np.float64), other.boxes[same].astype(np.float64))[0]
    best = int(overlaps.argmax()) if len(same) else -1
    return (float(overlaps[best]), int(same[best])) if best >= 0 and overlaps[best] > 0 else (0.0, -1)
