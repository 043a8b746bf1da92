"""The inspection of one photo and its label file, without the other photos. Runs in any process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashionrec.common.documents import DocumentError, read_bytes
from fashionrec.config import ImagesConfig
from fashionrec.dataset.audit.boxes import BoxRules, GoodBox, check_boxes
from fashionrec.dataset.audit.lines import LabelBox, Problem, read_lines
from fashionrec.dataset.prepare.similar import NO_HASH, photo_hash
from fashionrec.errors import ImageError
from fashionrec.labels.label_lines import MAX_LABEL_BYTES, TooManyBoxes
from fashionrec.photos.decoding import Lost, in_processes
from fashionrec.photos.images import Photo, read_photo

#: Kinds of finding by the reason of an ImageError; any other is unreadable-image.
_REASONS = {
    "empty": "empty-file",
    "not-an-image": "not-an-image",
    "damaged": "truncated",
    "too-large": "too-large-image",
    "too-many-pixels": "too-large-image",
    "missing": "missing-image",
}
#: Pillow's names of formats by file suffix, for the suffixes that are checked.
_FORMATS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **dict.fromkeys((".png", ".apng"), ("PNG",)),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **{".webp": ("WEBP",), ".avif": ("AVIF",), ".gif": ("GIF",), ".bmp": ("BMP", "DIB")},
}
_NO_SIZE = (1000, 1000)  # assumed for an unreadable photo, so that its boxes are checked too


@dataclass(frozen=True)
class Rules:
    """The rules and limits that a photo is checked against."""

    names: Mapping[int, str]
    boxes: BoxRules
    min_pixels: int
    limits: ImagesConfig


@dataclass(frozen=True)
class Inspected:
    """An inspected photo.

    If it is unreadable, ``size`` (upright, pixels) is None and ``sha256`` empty.
    """

    size: tuple[int, int] | None = None
    sha256: str = ""
    phash: bytes = NO_HASH
    boxes: tuple[GoodBox, ...] = ()
    problems: tuple[Problem, ...] = ()


Job = tuple[Path, "Path | None", Rules]
#: A runner of jobs like :func:`fashionrec.photos.decoding.in_processes`.
Run = Callable[..., Iterator[tuple[Any, Any]]]


def inspect_all(jobs: Iterable[Job], *, timeout: float, workers: int, run: Run = in_processes) -> Iterator[Inspected]:
    """Inspect each photo, in order. One worker is this process; 0 means a process per core."""
    if workers == 1:
        yield from map(inspect, jobs)
        return
    for path, outcome in run(inspect, ((job[0], job) for job in jobs), timeout=timeout, workers=workers):
        if isinstance(outcome, Lost):
            error = outcome.error(path.name, timeout)
            outcome = Inspected(problems=(Problem("unreadable-image", str(error), numbers={"reason": error.reason}),))
        yield outcome


def inspect(job: Job) -> Inspected:
    """Decode one photo, read its labels, and check both against the rules."""
    path, labels, rules = job
    problems: list[Problem] = []
    photo: Photo | None = None
    phash = NO_HASH
    try:
        photo = read_photo(path, rules.limits)
    except ImageError as error:
        text = str(error).replace(str(path), path.name)
        problems.append(Problem(_REASONS.get(error.reason, "unreadable-image"), text, numbers={"reason": error.reason}))
    else:
        phash = photo_hash(photo.pixels)
        problems += _check_photo(path, photo, phash, rules)
    raw: list[LabelBox] = []
    if labels is not None:
        try:
            data = read_bytes(labels, MAX_LABEL_BYTES)
            raw, malformed = read_lines(data, rules.names)
            problems += malformed
        except (DocumentError, TooManyBoxes) as error:
            problems.append(Problem("too-many-boxes", f"{labels.name}: {error}"))
        except OSError as error:
            problems.append(Problem("label-encoding", f"{labels.name} cannot be read: {error.strerror}"))
        else:
            if not data.strip():
                problems.append(Problem("empty-label", f"{labels.name} is empty"))
    size = (photo.width, photo.height) if photo else None
    boxes, box_problems = check_boxes(raw, size or _NO_SIZE, rules.names, rules.boxes)
    return Inspected(
        size=size,
        sha256=photo.sha256 if photo else "",
        phash=phash,
        boxes=tuple(boxes),
        problems=(*problems, *box_problems),
    )


def _check_photo(path: Path, photo: Photo, phash: bytes, rules: Rules) -> Iterator[Problem]:
    size = f"{photo.width} x {photo.height} pixels"
    if min(photo.width, photo.height) < rules.min_pixels:
        yield Problem("tiny-picture", size, numbers={"width": photo.width, "height": photo.height})
    if phash == NO_HASH:
        yield Problem("flat-picture", f"{size} of one colour")
    stored = photo.stored
    assert stored is not None  # the photo was decoded here
    if stored.mode != "RGB":
        yield Problem("not-rgb", f"{stored.format}, mode {stored.mode}", numbers={"mode": stored.mode})
    if stored.orientation != 1:
        text = f"EXIF orientation {stored.orientation}: {stored.width} x {stored.height} as stored, {size} upright"
        yield Problem("exif-turned", text, numbers={"orientation": stored.orientation})
    expected = _FORMATS.get(path.suffix.lower())
    if expected and stored.format not in expected:
        text = f"{path.suffix}, but the file is {stored.format}"
        yield Problem("wrong-suffix", text, numbers={"format": stored.format})
