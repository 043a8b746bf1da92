"""What becomes of a source's boxes: by rule, and nothing silently. Each case is counted, and listed in problems.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fashionrec.common.boxes import iou_matrix
from fashionrec.common.text import shell_word
from fashionrec.config import DatasetConfig
from fashionrec.dataset.source import RawBox, SourceImage
from fashionrec.errors import DataError
from fashionrec.labels.label_lines import MAX_BOXES, TooManyBoxes
from fashionrec.types import CLASS_NAMES, Box, resolve_class

#: A box may reach this far beyond its picture, in pixels, before that counts: sources round.
ROUNDING = 0.5


class Label(NamedTuple):
    """A garment's class by id, and its box in pixels."""

    class_id: int
    box: Box


class Problem(NamedTuple):
    """A case that a rule decided: ``kind`` is a stable word, ``action`` is dropped, fixed or kept."""

    kind: str
    action: str
    detail: str


@dataclass(frozen=True)
class Frame:
    """A decoded photo's size: as its file stores it and, after turning by EXIF ``orientation`` (1-8), upright."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int = 1


def class_map(names: Mapping[str, str | None]) -> dict[str, str | None]:
    """The setting ``dataset.map`` by lower-case source name, with our names checked. Raises :class:`DataError`."""
    found: dict[str, str | None] = {}
    for theirs, ours in names.items():
        name = None if ours in (None, "", "null", "none") else resolve_class(str(ours))
        if ours not in (None, "", "null", "none") and name is None:
            raise DataError(
                f"{theirs}={ours}: {ours} is not one of our classes", hint=f"they are {', '.join(CLASS_NAMES)}"
            )
        found[theirs.strip().lower()] = name
    return found


def clean_boxes(
    image: SourceImage, frame: Frame, config: DatasetConfig, mapped: Mapping[str, str | None]
) -> tuple[list[Label], list[Problem]]:
    """The labels of one photo in pixels of the upright photo, and every case that a rule decided.

    ``mapped`` is what :func:`class_map` gave. Raises :class:`DataError` for an unknown class where the rule is ``fail``.
    """
    if len(image.boxes) > MAX_BOXES:
        raise TooManyBoxes(f"{image.key} has {len(image.boxes):,} boxes, and a photo may have {MAX_BOXES:,}")
    problems = [Problem("broken-line", "dropped", text) for text in image.problems]
    turned = frame.orientation != 1 and bool(image.boxes)
    as_stored = turned and _labels_are_stored(image, frame, config.exif_boxes)
    if turned:
        how = "turned with the picture" if as_stored else "as they are, for the upright picture"
        problems.append(Problem("exif-turned", "fixed", f"orientation {frame.orientation}: boxes {how}"))
    written_for = frame.stored if as_stored else frame.upright
    labels: list[Label] = []
    known = {name: _Boxes() for name in CLASS_NAMES}
    for raw in image.boxes:
        name = _class_of(raw.label, mapped)
        if name is None:
            if raw.label.strip().lower() in mapped:
                problems.append(Problem("class-left-out", "dropped", f"{raw.label}, by the map"))
                continue
            if config.unknown_class == "fail":
                raise DataError(
                    f"{image.key} has a box of class {raw.label!r}, which is none of ours",
                    hint=f"--map {shell_word(f'{raw.label}=top')} (or =null to drop it), or --set dataset.unknown_class=drop",
                )
            problems.append(Problem("unknown-class", "dropped", raw.label))
            continue
        box = _in_pixels(raw, written_for)
        if box is None:
            problems.append(Problem("not-finite", "dropped", _words(raw)))
            continue
        if box.x1 > box.x2 or box.y1 > box.y2:
            box = Box(min(box.x1, box.x2), min(box.y1, box.y2), max(box.x1, box.x2), max(box.y1, box.y2))
            problems.append(Problem("reversed-corners", "fixed", _words(raw)))
        if as_stored:
            box = turn_box(box, frame.stored, frame.orientation)
        kept = _inside(box, frame.upright, raw, config, problems)
        if kept is None:
            continue
        if known[name].has(kept, config.repeated_iou):
            problems.append(Problem("repeated-box", "dropped", _words(raw)))
            continue
        known[name].add(kept)
        labels.append(Label(CLASS_NAMES.index(name), kept))
    return labels, problems


def turn_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box of the picture as it is stored, ``size`` wide and high, in pixels of the upright one. EXIF 2.32, tag 274."""
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
    """Whether boxes were drawn on the picture as it is stored. A size that the source names decides, where it can."""
    if rule != "auto":
        return rule == "stored"
    if image.size and frame.stored != frame.upright and image.size in (frame.stored, frame.upright):
        return image.size == frame.stored
    return True


def _class_of(label: str, mapped: Mapping[str, str | None]) -> str | None:
    key = label.strip().lower()
    if key in mapped:
        return mapped[key]
    return None if key.isdigit() else resolve_class(key)  # an id is a name only where the source says so


def _in_pixels(raw: RawBox, size: tuple[int, int]) -> Box | None:
    scale_x, scale_y = size if raw.relative else (1, 1)
    values = (raw.x1 * scale_x, raw.y1 * scale_y, raw.x2 * scale_x, raw.y2 * scale_y)
    return Box(*values) if all(math.isfinite(value) for value in values) else None


def _inside(box: Box, size: tuple[int, int], raw: RawBox, config: DatasetConfig, problems: list[Problem]) -> Box | None:
    if min(box.width, box.height) < config.min_side:
        problems.append(Problem("no-area", "dropped", _words(raw)))
        return None
    clipped = box.clip(*size)
    if clipped.width <= 0 or clipped.height <= 0:
        problems.append(Problem("outside-picture", "dropped", _words(raw)))
        return None
    beyond = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    if beyond > ROUNDING:
        if config.outside == "drop":
            problems.append(Problem("beyond-edge", "dropped", _words(raw)))
            return None
        problems.append(Problem("beyond-edge", "fixed", f"{_words(raw)}: clipped"))
        if min(clipped.width, clipped.height) < config.min_side:
            problems.append(Problem("no-area", "dropped", _words(raw)))
            return None
    return clipped


class _Boxes:
    """Boxes to compare another one with, all at once: one by one, thousands of them take minutes."""

    def __init__(self) -> None:
        self._boxes, self._count = np.empty((64, 4)), 0

    def add(self, box: Box) -> None:
        if self._count == len(self._boxes):
            self._boxes = np.concatenate([self._boxes, np.empty_like(self._boxes)])
        self._boxes[self._count] = box
        self._count += 1

    def has(self, box: Box, iou: float) -> bool:
        """Whether one of them is the same, or overlaps by more than ``iou``."""
        boxes, own = self._boxes[: self._count], np.array([box])
        return bool(((boxes == own).all(axis=1) | (iou_matrix(own, boxes)[0] > iou)).any())


def _words(raw: RawBox) -> str:
    unit = "" if raw.relative else " px"
    return f"{raw.label} " + ", ".join(f"{value:g}" for value in raw[1:5]) + unit


def yolo_lines(labels: Sequence[Label], size: tuple[int, int]) -> str:
    """The label file of a photo of that size (width, height): ``class x_center y_center width height``, 6 decimals."""
    return "".join(f"{number} {' '.join(f'{v:.6f}' for v in relative(box, size))}\n" for number, box in labels)


def relative(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """``x_center, y_center, width, height`` in shares of a picture of that size."""
    width, height = size
    return (
        (box.x1 + box.x2) / 2 / width,
        (box.y1 + box.y2) / 2 / height,
        box.width / width,
        box.height / height,
    )
