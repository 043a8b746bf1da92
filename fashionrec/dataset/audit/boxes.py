"""Rules for the boxes of one photo that find probable mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fashionrec.dataset.audit.lines import LabelBox, Problem
from fashionrec.types import Box

#: Pixels by which a box may exceed its photo, because tools round.
_ROUNDING = 0.5
#: The most duplicates reported per box: thousands of equal boxes would make millions of findings.
_MAX_PAIRS = 10


class GoodBox(NamedTuple):
    """A usable box: corners as fractions of the upright photo, clipped to it.

    ``number`` counts the boxes of its label file from 0, ``line`` is its line there, from 1.
    """

    class_id: int
    box: Box
    number: int
    line: int


@dataclass(frozen=True)
class BoxRules:
    """Thresholds from the settings ``audit`` and ``dataset``; areas are fractions of the photo."""

    tiny: float
    whole: float
    max_aspect: float
    same_box: float
    repeated: float
    min_side: float


def check_boxes(
    boxes: Sequence[LabelBox], size: tuple[int, int], names: Mapping[int, str], rules: BoxRules
) -> tuple[list[GoodBox], list[Problem]]:
    """Return the usable boxes, and the problems of all boxes.

    ``size`` is the upright photo's width and height in pixels.
    """
    good: list[GoodBox] = []
    problems = []
    for n, raw in enumerate(boxes):
        problem = _check_box(n, raw, size, names, rules)
        if problem is not None:
            problems.append(problem)
        if problem is None or problem.kind not in ("pixel-coordinates", "box-of-no-area", "box-off-picture"):
            good.append(GoodBox(raw.class_id, _box(raw).clip(1.0, 1.0), n, raw.line))
    problems += _check_pairs(good, names, rules)
    return good, problems


def _check_box(
    n: int, raw: LabelBox, size: tuple[int, int], names: Mapping[int, str], rules: BoxRules
) -> Problem | None:
    box = _box(raw)
    name = names.get(raw.class_id, str(raw.class_id))

    def problem(kind: str, text: str, **figures: float) -> Problem:
        clipped = box.clip(1.0, 1.0)
        shown = ((raw.class_id, clipped),) if clipped.area > 0 else ()
        return Problem(kind, f"{name}: {text}", raw.line, n, {key: round(v, 6) for key, v in figures.items()}, shown)

    if max(map(abs, box)) > 2:  # a misplaced box exceeds the photo a little, one in pixels by far
        return problem(
            "pixel-coordinates", f"corners {', '.join(f'{v:g}' for v in box)} are not fractions of the photo"
        )
    width, height = box.width * size[0], box.height * size[1]
    if min(width, height) < rules.min_side:
        return problem("box-of-no-area", f"{width:.1f} x {height:.1f} pixels", width=width, height=height)
    clipped = box.clip(1.0, 1.0)
    if clipped.area <= 0:
        return problem("box-off-picture", f"corners {', '.join(f'{v:.3f}' for v in box)}")
    excess = max(abs(a - b) * side for a, b, side in zip(box, clipped, (*size, *size), strict=True))
    if excess > _ROUNDING:
        return problem("box-outside", f"{excess:.0f} pixels beyond the edge", pixels=excess)
    if clipped.area < rules.tiny:
        text = f"{width:.0f} x {height:.0f} pixels, {100 * clipped.area:.3f} % of the photo"
        return problem("tiny-box", text, share=clipped.area)
    if clipped.area > rules.whole:
        return problem("whole-picture-box", f"{100 * clipped.area:.1f} % of the photo", share=clipped.area)
    aspect = max(width / height, height / width)
    if aspect > rules.max_aspect:
        text = f"{width:.0f} x {height:.0f} pixels, {aspect:.1f} times as long as it is wide"
        return problem("extreme-aspect", text, aspect=aspect)
    return None


def _check_pairs(good: Sequence[GoodBox], names: Mapping[int, str], rules: BoxRules) -> Iterator[Problem]:
    if len(good) < 2:
        return
    x1, y1, x2, y2 = np.array([good_box.box for good_box in good]).T.copy()
    areas = (x2 - x1) * (y2 - y1)
    for n in range(1, len(good)):
        width = np.minimum(x2[:n], x2[n]) - np.maximum(x1[:n], x1[n])
        height = np.minimum(y2[:n], y2[n]) - np.maximum(y1[:n], y1[n])
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        ious = intersection / (areas[:n] + areas[n] - intersection)
        for position in np.flatnonzero(ious > min(rules.same_box, rules.repeated))[:_MAX_PAIRS].tolist():
            first, second, iou = good[position], good[n], float(ious[position])
            kind_and_text = _describe_pair(first.class_id, second.class_id, iou, names, rules)
            if kind_and_text:
                shown = ((first.class_id, first.box), (second.class_id, second.box))
                numbers = {"iou": round(iou, 4), "other": first.number}
                yield Problem(*kind_and_text, second.line, second.number, numbers, shown)


def _describe_pair(
    first: int, second: int, iou: float, names: Mapping[int, str], rules: BoxRules
) -> tuple[str, str] | None:
    left, right = names.get(first, str(first)), names.get(second, str(second))
    if first != second:
        if iou <= rules.same_box:
            return None
        return "two-classes-one-box", f"{left} and {right} on one garment (IoU {iou:.2f})"
    if iou > rules.repeated:
        return "repeated-box", f"{left} twice (IoU {iou:.2f})"
    return ("double-box", f"nearly the same {left} twice (IoU {iou:.2f})") if iou > rules.same_box else None


def _box(raw: LabelBox) -> Box:
    return Box(raw.x1, raw.y1, raw.x2, raw.y2)
