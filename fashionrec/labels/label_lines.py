"""Label files of YOLO datasets: one line per box, ``class x_center y_center width height``,
relative to the image.

The label file of ``.../images/x.jpg`` is ``.../labels/x.txt``.
https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashionrec.common.documents import DocumentError, read_bytes
from fashionrec.common.reach import Reach, Refusal
from fashionrec.errors import DataError

#: Files in which tools write class names, one per line, without a data.yaml.
NAME_FILES = ("classes.txt", "obj.names", "names.txt", "labels/classes.txt", "data/obj.names")
#: Text files among label files that are not label files.
OTHER_TEXTS = frozenset(
    {*(Path(name).name for name in NAME_FILES), *(f"{s}.txt" for s in ("train", "val", "valid", "test"))}
)

#: Limits of a label file: bytes, lines, and characters per line: ten times what crowds and detailed
#: outlines need.
MAX_LABEL_BYTES, MAX_BOXES, _MAX_LINE = 16 << 20, 10_000, 1 << 20
_MAX_CLASS = 1_000_000
_TOO_MANY = "a label file has one line per box of one photo: is this another kind of file?"

_SHOWN = 60  # characters of a line shown in a message


def label_path(image: Path) -> Path:
    """Return the path of an image's labels: the last folder named images in its path becomes
    labels.
    """
    parts = list(image.parts)
    for n in range(len(parts) - 2, -1, -1):
        if parts[n] == "images":
            parts[n] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(image: Path) -> np.ndarray:
    """Read labels: float64 [n, 5] of class id and relative ``x_center, y_center, width, height``;
    empty without a label file.

    A polygon (class and three or more points) becomes its bounding box. Raises :class:`DataError`
    for an invalid line.
    """
    path = label_path(image)
    if not path.is_file():
        return np.zeros((0, 5))
    rows = []
    for number, found in parse_labels(path, read_label_text(path)):
        if isinstance(found, LabelFault):
            raise DataError(f"{path}, line {number} is not a valid box: {found}")
        rows.append(found[:5])
    return np.array(rows).reshape(-1, 5)


class TooManyBoxes(DataError):
    """A label file far larger than the boxes of one photo."""


def read_label_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a label file.

    Raises :class:`TooManyBoxes`, or :class:`DataError` if it is not a regular file.
    """
    try:
        return read_bytes(path, MAX_LABEL_BYTES).decode(encoding, errors)
    except DocumentError as error:
        raise (TooManyBoxes if "larger" in str(error) else DataError)(f"{path} is {error}") from None


class LabelFault(ValueError):
    """An invalid line of a label file.

    ``kind`` is a stable word, ``numbers`` are its parsed values.
    """

    def __init__(self, kind: str, text: str, **numbers: float) -> None:
        super().__init__(text)
        self.kind, self.numbers = kind, numbers


class LabelLine(NamedTuple):
    """A line of a label file: a class id, and a box relative to the image.

    A polygon of ``points`` is represented by its bounding box.
    """

    class_id: int
    x_center: float
    y_center: float
    width: float
    height: float
    points: int = 0

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """``x1, y1, x2, y2`` relative to the image, as written: not clipped."""
        half_width, half_height = self.width / 2, self.height / 2
        return (
            self.x_center - half_width,
            self.y_center - half_height,
            self.x_center + half_width,
            self.y_center + half_height,
        )


def parse_labels(path: Path | str, text: str) -> Iterator[tuple[int, LabelLine | LabelFault]]:
    """Yield the number of each line that is not blank, and its box or fault.

    Raises :class:`TooManyBoxes`.
    """
    if text.count("\n") > MAX_BOXES:
        raise TooManyBoxes(f"{path} has more than {MAX_BOXES:,} lines", hint=_TOO_MANY)
    for number, line in enumerate(text.splitlines(), start=1):
        if number > MAX_BOXES:
            raise TooManyBoxes(f"{path} has more than {MAX_BOXES:,} lines", hint=_TOO_MANY)
        if len(line) > _MAX_LINE:
            raise TooManyBoxes(f"{path}, line {number} has more than {_MAX_LINE:,} characters", hint=_TOO_MANY)
        if line.strip():
            try:
                yield number, parse_label_line(line)
            except LabelFault as fault:
                yield number, fault


def parse_label_line(line: str) -> LabelLine:
    """Parse ``class x_center y_center width height``, or a class and three or more points.

    Raises :class:`LabelFault`.
    """
    words = line.split()
    values = [_number(word) for word in words]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        if len(known) < 2:
            raise LabelFault("broken-label-line", repr(line.strip()[:_SHOWN]))
        raise LabelFault("not-a-number", f"{words[values.index(None)][:_SHOWN]!r} is not a number")
    if not all(map(math.isfinite, known)):
        raise LabelFault("not-finite", line.strip()[:_SHOWN])
    if len(known) != 5 and (len(known) < 7 or len(known) % 2 == 0):
        why = ", as in predictions with confidence" if len(known) == 6 else ""
        raise LabelFault("wrong-field-count", f"{len(known)} fields{why}", fields=len(known))
    number, *rest = known
    if not number.is_integer():
        raise LabelFault("fractional-class", f"class {words[0]}", class_id=number)
    if number < 0:
        raise LabelFault("negative-class", f"class {number:.0f}"[:_SHOWN], class_id=number)
    if number > _MAX_CLASS:
        raise LabelFault("unknown-class", f"class {number:g}", class_id=number)
    if len(rest) == 4:
        x, y, width, height = rest
        return LabelLine(int(number), x, y, width, height)
    xs, ys = rest[0::2], rest[1::2]
    x1, x2, y1, y2 = min(xs), max(xs), min(ys), max(ys)
    return LabelLine(int(number), (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, len(xs))


def begins_with_a_box(path: Path) -> bool:
    """Return whether a text file is a label file, by its first line: lists, licences and READMEs
    lie next to photos too.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            parse_label_line(file.readline(1 << 16))
    except (OSError, LabelFault):
        return False
    return True


def orphan_labels(folder: Path, photos: Iterable[Path], reach: Reach) -> Iterator[Path | Refusal]:
    """Return label files in ``folder`` without a photo of that name in any of the folders
    ``photos``, sorted; and refused names.
    """
    places = list(photos)
    stems = {path.stem for place in places for path in place.iterdir() if path.suffix.lower() != ".txt"}
    names, refused = reach.names(folder)
    for path in (folder / name for name in names if name.endswith(".txt")):
        other = path.stem in stems or path.name in OTHER_TEXTS or path.name.startswith(("README", "LICEN"))
        if not other and (folder not in places or begins_with_a_box(path)):
            yield path
    if folder not in places:
        yield from (found for found in refused if Path(found.name).stem not in stems)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
