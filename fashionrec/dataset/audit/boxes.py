"""Boxes that are probably wrong: rules over the boxes of one photo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fashionrec.dataset.audit.lines import LabelBox, Problem
from fashionrec.types import Box

#: A box may reach this far beyond its photo, in pixels: tools round.
_ROUNDING = 0.5
#: So many earlier boxes are named that one is the same as: thousands of equal ones would make millions of findings.
_MOST_PAIRS = 10


class GoodBox(NamedTuple):
    """A box that can be learned from: corners in shares of the upright photo, clipped to it.

    ``number`` counts the boxes of its label file from 0, ``line`` is its line there, from 1.
    """

    class_id: int
    box: Box
    number: int
    line: int


@dataclass(frozen=True)
class BoxRules:
    """What is a finding; shares are of the photo's area. From the settings ``audit`` and ``dataset``."""

    tiny: float
    whole: float
    max_aspect: float
    same_box: float
    repeated: float
    min_side: float


def check_boxes(
    boxes: Sequence[LabelBox], size: tuple[int, int], names: Mapping[int, str], rules: BoxRules
) -> tuple[list[GoodBox], list[Problem]]:
    """The boxes that can be learned from, and what is wrong with these and the others.

    ``size`` is the upright photo's width and height in pixels.
    """
    good: list[GoodBox] = []
    problems = []
    for n, raw in enumerate(boxes):
        found = _check_one(n, raw, size, names, rules)
        if found is not None:
            problems.append(found)
        if found is None or found.kind not in ("pixel-coordinates", "box-of-no-area", "box-off-picture"):
            good.append(GoodBox(raw.class_id, _box(raw).clip(1.0, 1.0), n, raw.line))
    problems += _check_pairs(good, names, rules)
    return good, problems


def _check_one(
    n: int, raw: LabelBox, size: tuple[int, int], names: Mapping[int, str], rules: BoxRules
) -> Problem | None:
    box = _box(raw)
    name = names.get(raw.class_id, str(raw.class_id))

    def problem(kind: str, text: str, **figures: float) -> Problem:
        seen = box.clip(1.0, 1.0)
        shown = ((raw.class_id, seen),) if seen.area > 0 else ()
        return Problem(kind, f"{name}: {text}", raw.line, n, {key: round(v, 6) for key, v in figures.items()}, shown)

    if max(map(abs, box)) > 2:  # a slipped box is a little outside, one in pixels far
        return problem("pixel-coordinates", f"corners {', '.join(f'{v:g}' for v in box)} are not shares of the photo")
    width, height = box.width * size[0], box.height * size[1]
    if min(width, height) < rules.min_side:
        return problem("box-of-no-area", f"{width:.1f} x {height:.1f} pixels", width=width, height=height)
    clipped = box.clip(1.0, 1.0)
    if clipped.area <= 0:
        return problem("box-off-picture", f"corners {', '.join(f'{v:.3f}' for v in box)}")
    beyond = max(abs(a - b) * side for a, b, side in zip(box, clipped, (*size, *size), strict=True))
    if beyond > _ROUNDING:
        return problem("box-outside", f"{beyond:.0f} pixels beyond the edge", pixels=beyond)
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
    x1, y1, x2, y2 = np.array([one.box for one in good]).T.copy()
    areas = (x2 - x1) * (y2 - y1)
    for n in range(1, len(good)):
        width = np.minimum(x2[:n], x2[n]) - np.maximum(x1[:n], x1[n])
        height = np.minimum(y2[:n], y2[n]) - np.maximum(y1[:n], y1[n])
        common = np.maximum(width, 0) * np.maximum(height, 0)
        ious = common / (areas[:n] + areas[n] - common)
        for first in np.flatnonzero(ious > min(rules.same_box, rules.repeated))[:_MOST_PAIRS].tolist():
            one, other, iou = good[first], good[n], float(ious[first])
            found = _name_pair(one.class_id, other.class_id, iou, names, rules)
            if found:
                shown = ((one.class_id, one.box), (other.class_id, other.box))
                yield Problem(*found, other.line, other.number, {"iou": round(iou, 4), "other": one.number}, shown)


def _name_pair(one: int, other: int, iou: float, names: Mapping[int, str], rules: BoxRules) -> tuple[str, str] | None:
    left, right = names.get(one, str(one)), names.get(other, str(other))
    if one != other:
        if iou <= rules.same_box:
            return None
        return "two-classes-one-box", f"{left} and {right} on one garment (IoU {iou:.2f})"
    if iou > rules.repeated:
        return "repeated-box", f"{left} twice (IoU {iou:.2f})"
    return ("double-box", f"{left} twice, almost (IoU {iou:.2f})") if iou > rules.same_box else None


def _box(raw: LabelBox) -> Box:
    return Box(raw.x1, raw.y1, raw.x2, raw.y2)
