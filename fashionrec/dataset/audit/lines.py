"""A label file as it is, faults and all: each line is a box, or one problem."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fashionrec.labels.label_lines import LabelFault, parse_labels
from fashionrec.types import Box


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
    """The boxes of a label file and a problem for each line that is none. ``classes`` are the ids that data.yaml names.

    Raises :class:`TooManyBoxes`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [Problem("label-encoding", f"byte {error.start} of the label file is not UTF-8")]
    if "\0" in text:
        return [], [Problem("label-encoding", "the label file holds zero bytes")]
    boxes, problems = [], []
    for number, found in parse_labels("the label file", text):
        if not isinstance(found, LabelFault) and found.class_id not in classes:
            found = LabelFault("unknown-class", f"class {found.class_id}", class_id=found.class_id)
        if isinstance(found, LabelFault):
            problems.append(Problem(found.kind, f"line {number}: {found}", number, numbers=dict(found.numbers)))
            continue
        boxes.append(LabelBox(number, found.class_id, *found.corners))
        if found.points:
            told = f"line {number} is a polygon of {found.points} points"
            problems.append(Problem("polygon", told, number, numbers={"points": found.points}))
    return boxes, problems
