"""A reader of label files with faults: each line becomes a box or a problem."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fashionrec.labels.label_lines import LabelFault, parse_labels
from fashionrec.types import Box


class LabelBox(NamedTuple):
    """A box of a label file: corners as fractions of the photo, unclipped; ``line`` is from 1."""

    line: int
    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Problem:
    """A fault of a photo or its labels, with a ``line`` of its label file (from 1) and a ``box``.

    ``shown`` are the boxes to draw: class id and corners as fractions of the upright photo.
    """

    kind: str
    text: str
    line: int | None = None
    box: int | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    shown: tuple[tuple[int, Box], ...] = ()


def read_lines(data: bytes, classes: Container[int]) -> tuple[list[LabelBox], list[Problem]]:
    """Return the boxes of a label file, and a problem per malformed line.

    ``classes`` are the ids that data.yaml names. Raises :class:`TooManyBoxes`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [Problem("label-encoding", f"byte {error.start} of the label file is not UTF-8")]
    if "\0" in text:
        return [], [Problem("label-encoding", "the label file contains zero bytes")]
    boxes, problems = [], []
    for number, parsed in parse_labels("the label file", text):
        if not isinstance(parsed, LabelFault) and parsed.class_id not in classes:
            parsed = LabelFault("unknown-class", f"class {parsed.class_id}", class_id=parsed.class_id)
        if isinstance(parsed, LabelFault):
            problems.append(Problem(parsed.kind, f"line {number}: {parsed}", number, numbers=dict(parsed.numbers)))
            continue
        boxes.append(LabelBox(number, parsed.class_id, *parsed.corners))
        if parsed.points:
            message = f"line {number} is a polygon of {parsed.points} points"
            problems.append(Problem("polygon", message, number, numbers={"points": parsed.points}))
    return boxes, problems
