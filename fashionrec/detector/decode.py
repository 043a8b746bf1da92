"""Decode a detector's raw output to boxes: one decoder per kind of head, and class-wise NMS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fashionrec.errors import ModelError


@dataclass(frozen=True)
class Detections:
    """Detections in one photo, best first: boxes float32 [n, 4] (xyxy pixels), scores float32 [n],
    class_ids int64 [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: np.ndarray) -> Detections:
        return Detections(self.boxes[index], self.scores[index], self.class_ids[index])


#: Takes one photo's raw output, the minimum score, and whether a box may count for several classes.
Decoder = Callable[[np.ndarray, float, bool], Detections]


def decode_yolo(output: np.ndarray, conf: float, multi_label: bool) -> Detections:
    """Decode the head of YOLOv8/11/12: [4 + classes, anchors], boxes as centre and size in input
    pixels, scores after the sigmoid.
    """
    scores = output[4:]
    if multi_label:
        classes, anchors = np.nonzero(scores > conf)
    else:
        best = scores.argmax(axis=0)
        anchors = np.flatnonzero(scores[best, np.arange(scores.shape[1])] > conf)
        classes = best[anchors]
    x, y, w, h = output[:4, anchors]
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    return Detections(boxes.astype(np.float32), scores[classes, anchors].astype(np.float32), classes.astype(np.int64))


def decode_end2end(output: np.ndarray, conf: float, _multi_label: bool) -> Detections:
    """Decode heads that return boxes, [n, 6] of xyxy, score, class.

    YOLO26 and YOLOv10 need no NMS, which changes little; Faster R-CNN returns each proposal once
    per class, and needs it.
    """
    kept = output[output[:, 4] > conf]
    return Detections(kept[:, :4].astype(np.float32), kept[:, 4].astype(np.float32), kept[:, 5].astype(np.int64))


#: EfficientDet's output is converted to YOLO's form first: see
#: :mod:`fashionrec.detector.efficientdet`.
DECODERS: dict[str, Decoder] = {"yolo": decode_yolo, "end2end": decode_end2end, "efficientdet": decode_yolo}


def decoder_for(head: str) -> Decoder:
    """Return the decoder of a kind of head. Raises :class:`ModelError` for unknown kinds."""
    if head not in DECODERS:
        raise ModelError(f"unknown detector head {head!r}", hint=f"this version supports {', '.join(DECODERS)}")
    return DECODERS[head]


def non_maximum_suppression(found: Detections, iou: float, limit: int, *, candidates: int = 30000) -> Detections:
    """Keep the best of overlapping boxes of one class (IoU above ``iou``); at most ``limit`` in
    all, best first.

    Only the ``candidates`` best are considered. Equal scores keep their order.
    """
    order = np.argsort(-found.scores, kind="stable")[:candidates]
    found = found.take(order)
    if not len(found):
        return found
    span = float(found.boxes.max() - found.boxes.min()) + 1.0
    boxes = found.boxes + (found.class_ids * span)[:, None].astype(np.float32)  # classes apart: never overlap
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(found), bool)
    kept: list[int] = []
    for n in range(len(found)):
        if not alive[n]:
            continue
        kept.append(n)
        if len(kept) == limit:
            break
        rest = np.flatnonzero(alive[n + 1 :]) + n + 1
        width = np.minimum(boxes[n, 2], boxes[rest, 2]) - np.maximum(boxes[n, 0], boxes[rest, 0])
        height = np.minimum(boxes[n, 3], boxes[rest, 3]) - np.maximum(boxes[n, 1], boxes[rest, 1])
        overlap = np.clip(width, 0, None) * np.clip(height, 0, None)
        union = areas[n] + areas[rest] - overlap
        alive[rest[overlap > iou * np.maximum(union, 1e-9)]] = False
    return found.take(np.array(kept, dtype=np.int64))
