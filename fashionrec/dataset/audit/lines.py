"""A label file as it is, faults and all: each line is a box, or one problem."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fashionrec.types import Box

_SHOWN = 60


class LabelBox(NamedTuple):
    """A box of a label file: corners in shares of the photo, as they are written there; ``line`` counts from 1."""

    line: int
    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Problem:
    """A fault of one photo or its labels: of a ``line`` of the label file (from 1), of a ``box`` among its boxes (from 0).

    ``shown`` are the boxes it is about, class id and corners in shares of the upright photo.
    """

    kind: str
    text: str
    line: int | None = None
    box: int | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    shown: tuple[tuple[int, Box], ...] = ()


def read_lines(data: bytes, classes: Container[int]) -> tuple[list[LabelBox], list[Problem]]:
    """The boxes of a label file and a problem for each line that is none. ``classes`` are the ids that data.yaml names."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [Problem("label-encoding", f"byte {error.start} of the label file is not UTF-8")]
    if "\0" in text:
        return [], [Problem("label-encoding", "the label file holds zero bytes")]
    boxes, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = _read_line(number, line.split(), classes)
        if isinstance(found, LabelBox):
            boxes.append(found)
            if len(line.split()) > 5:
                points = (len(line.split()) - 1) // 2
                problems.append(
                    Problem(
                        "polygon", f"line {number} is a polygon of {points} points", number, numbers={"points": points}
                    )
                )
        else:
            problems.append(found)
    return boxes, problems


def _read_line(number: int, words: list[str], classes: Container[int]) -> LabelBox | Problem:
    def problem(kind: str, text: str, **numbers: Any) -> Problem:
        return Problem(kind, f"line {number}: {text}", number, numbers=numbers)

    values = [_number(word) for word in words]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        if len(known) < 2:
            return problem("broken-label-line", repr(" ".join(words)[:_SHOWN]))
        word = words[values.index(None)]
        return problem("not-a-number", f"{word[:_SHOWN]!r} is not a number")
    if not all(math.isfinite(value) for value in known):
        return problem("not-finite", " ".join(words)[:_SHOWN])
    if len(known) != 5 and (len(known) < 7 or len(known) % 2 == 0):
        why = ", as predictions have with their confidence" if len(known) == 6 else ""
        return problem("wrong-field-count", f"{len(known)} fields{why}", fields=len(known))
    if known[0] != int(known[0]):
        return problem("fractional-class", f"class {words[0]}", class_id=known[0])
    class_id = int(known[0])
    if class_id < 0:
        return problem("negative-class", f"class {class_id}", class_id=class_id)
    if class_id not in classes:
        return problem("unknown-class", f"class {class_id}", class_id=class_id)
    return LabelBox(number, class_id, *_corners(known[1:]))


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    xs, ys = values[0::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
