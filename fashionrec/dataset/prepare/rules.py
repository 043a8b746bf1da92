"""The rules for a source's boxes.

Nothing is silent: each case is counted and listed in problems.csv.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fashionrec.common.boxes import iou_matrix
from fashionrec.common.text import plural, shell_word
from fashionrec.config import DatasetConfig
from fashionrec.dataset.source import RawBox, SourceImage
from fashionrec.errors import DataError
from fashionrec.labels.label_lines import MAX_BOXES, TooManyBoxes
from fashionrec.types import CLASS_NAMES, Box, resolve_class

#: Pixels by which a box may exceed its picture without being reported, because sources round.
ROUNDING = 0.5


class Label(NamedTuple):
    """A garment's class id and its box in pixels."""

    class_id: int
    box: Box


class Problem(NamedTuple):
    """A case that a rule decided: ``kind`` is a stable word, ``action`` dropped, fixed or kept."""

    kind: str
    action: str
    detail: str


@dataclass(frozen=True)
class Frame:
    """A decoded photo's size, stored and upright (after applying EXIF ``orientation``, 1-8)."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int = 1


def class_map(names: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the setting ``dataset.map`` by lower-case source name.

    Raises :class:`DataError` for an unknown class.
    """
    mapping: dict[str, str | None] = {}
    for theirs, ours in names.items():
        name = None if ours in (None, "", "null", "none") else resolve_class(str(ours))
        if ours not in (None, "", "null", "none") and name is None:
            raise DataError(f"{theirs}={ours}: {ours} is not a class", hint=f"the classes are {', '.join(CLASS_NAMES)}")
        mapping[theirs.strip().lower()] = name
    return mapping


def clean_boxes(
    image: SourceImage, frame: Frame, config: DatasetConfig, mapped: Mapping[str, str | None]
) -> tuple[list[Label], list[Problem]]:
    """Return a photo's labels in pixels of the upright photo, and every case that a rule decided.

    ``mapped`` is the result of :func:`class_map`. Raises :class:`DataError` for an unknown class if
    the rule is ``fail``.
    """
    if len(image.boxes) > MAX_BOXES:
        raise TooManyBoxes(
            f"{image.key} has {plural(len(image.boxes), 'box', 'boxes')}; the limit per photo is {MAX_BOXES:,}"
        )
    problems = [Problem("broken-line", "dropped", text) for text in image.problems]
    is_turned = frame.orientation != 1 and bool(image.boxes)
    as_stored = is_turned and _labels_are_stored(image, frame, config.exif_boxes)
    if is_turned:
        how = "turned with the picture" if as_stored else "unchanged, because they fit the upright picture"
        problems.append(Problem("exif-turned", "fixed", f"orientation {frame.orientation}: boxes {how}"))
    label_size = frame.stored if as_stored else frame.upright
    labels: list[Label] = []
    accepted = {name: _Boxes() for name in CLASS_NAMES}
    for raw in image.boxes:
        name = _class_of(raw.label, mapped)
        if name is None:
            if raw.label.strip().lower() in mapped:
                problems.append(Problem("class-left-out", "dropped", f"{raw.label}, by dataset.map"))
                continue
            if config.unknown_class == "fail":
                raise DataError(
                    f"{image.key} has a box of the unknown class {raw.label!r}",
                    hint=f"--map {shell_word(f'{raw.label}=top')} (or =null to drop it), or --set dataset.unknown_class=drop",
                )
            problems.append(Problem("unknown-class", "dropped", raw.label))
            continue
        box = _in_pixels(raw, label_size)
        if box is None:
            problems.append(Problem("not-finite", "dropped", _describe(raw)))
            continue
        if box.x1 > box.x2 or box.y1 > box.y2:
            box = Box(min(box.x1, box.x2), min(box.y1, box.y2), max(box.x1, box.x2), max(box.y1, box.y2))
            problems.append(Problem("reversed-corners", "fixed", _describe(raw)))
        if as_stored:
            box = turn_box(box, frame.stored, frame.orientation)
        clipped = _inside(box, frame.upright, raw, config, problems)
        if clipped is None:
            continue
        if accepted[name].has(clipped, config.repeated_iou):
            problems.append(Problem("repeated-box", "dropped", _describe(raw)))
            continue
        accepted[name].add(clipped)
        labels.append(Label(CLASS_NAMES.index(name), clipped))
    return labels, problems


def turn_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Convert a box from the stored picture of ``size`` to the upright one (EXIF 2.32, tag 274)."""
    width, height = size
    corners = [_turn(x, y, width, height, orientation) for x, y in ((box.x1, box.y1), (box.x2, box.y2))]
    (xa, ya), (xb, yb) = corners
    return Box(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))


def _turn(x: float, y: float, width: float, height: float, orientation: int) -> tuple[float, float]:
    return {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]


def _labels_are_stored(image: SourceImage, frame: Frame, rule: str) -> bool:
    """Return whether boxes refer to the stored picture.

    A size stated by the source decides if it can.
    """
    if rule != "auto":
        return rule == "stored"
    if image.size and frame.stored != frame.upright and image.size in (frame.stored, frame.upright):
        return image.size == frame.stored
    return True


def _class_of(label: str, mapped: Mapping[str, str | None]) -> str | None:
    key = label.strip().lower()
    if key in mapped:
        return mapped[key]
    return None if key.isdigit() else resolve_class(key)  # an id is a name only if the source says so


def _in_pixels(raw: RawBox, size: tuple[int, int]) -> Box | None:
    scale_x, scale_y = size if raw.relative else (1, 1)
    values = (raw.x1 * scale_x, raw.y1 * scale_y, raw.x2 * scale_x, raw.y2 * scale_y)
    return Box(*values) if all(math.isfinite(value) for value in values) else None


def _inside(box: Box, size: tuple[int, int], raw: RawBox, config: DatasetConfig, problems: list[Problem]) -> Box | None:
    if min(box.width, box.height) < config.min_side:
        problems.append(Problem("no-area", "dropped", _describe(raw)))
        return None
    clipped = box.clip(*size)
    if clipped.width <= 0 or clipped.height <= 0:
        problems.append(Problem("outside-picture", "dropped", _describe(raw)))
        return None
    excess = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    if excess > ROUNDING:
        if config.outside == "drop":
            problems.append(Problem("beyond-edge", "dropped", _describe(raw)))
            return None
        problems.append(Problem("beyond-edge", "fixed", f"{_describe(raw)}: clipped"))
        if min(clipped.width, clipped.height) < config.min_side:
            problems.append(Problem("no-area", "dropped", _describe(raw)))
            return None
    return clipped


class _Boxes:
    """The accepted boxes of a class as an array: comparing thousands one by one takes minutes."""

    def __init__(self) -> None:
        self._boxes, self._count = np.empty((64, 4)), 0

    def add(self, box: Box) -> None:
        if self._count == len(self._boxes):
            self._boxes = np.concatenate([self._boxes, np.empty_like(self._boxes)])
        self._boxes[self._count] = box
        self._count += 1

    def has(self, box: Box, iou: float) -> bool:
        """Return whether one of them equals ``box`` or overlaps it by more than ``iou``."""
        boxes, own = self._boxes[: self._count], np.array([box])
        return bool(((boxes == own).all(axis=1) | (iou_matrix(own, boxes)[0] > iou)).any())


def _describe(raw: RawBox) -> str:
    unit = "" if raw.relative else " px"
    return f"{raw.label} " + ", ".join(f"{value:g}" for value in raw[1:5]) + unit


def yolo_lines(labels: Sequence[Label], size: tuple[int, int]) -> str:
    """Return the YOLO label file of a photo of ``size`` (width, height), with 6 decimals."""
    return "".join(f"{number} {' '.join(f'{v:.6f}' for v in relative(box, size))}\n" for number, box in labels)


def relative(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return ``x_center, y_center, width, height`` as fractions of a picture of that size."""
    width, height = size
    return (
        (box.x1 + box.x2) / 2 / width,
        (box.y1 + box.y2) / 2 / height,
        box.width / width,
        box.height / height,
    )
