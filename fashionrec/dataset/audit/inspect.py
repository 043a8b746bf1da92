"""One photo and its label file: what it is, and every fault that can be seen without the others. Runs in any process."""

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

#: Kinds of finding by the reason that read_photo gives; any other is unreadable-image.
_REASONS = {
    "empty": "empty-file",
    "not-an-image": "not-an-image",
    "damaged": "truncated",
    "too-large": "too-large-image",
    "too-many-pixels": "too-large-image",
    "missing": "missing-image",
}
#: What Pillow calls the format of files with a suffix. Only where a wrong one is worth a word.
_FORMATS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **dict.fromkeys((".png", ".apng"), ("PNG",)),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **{".webp": ("WEBP",), ".avif": ("AVIF",), ".gif": ("GIF",), ".bmp": ("BMP", "DIB")},
}
_NO_SIZE = (1000, 1000)  # of a photo that cannot be read, so that its boxes are looked at all the same


@dataclass(frozen=True)
class Rules:
    """What one photo is held against."""

    names: Mapping[int, str]
    boxes: BoxRules
    min_pixels: int
    limits: ImagesConfig


@dataclass(frozen=True)
class Inspected:
    """What one photo is: ``size`` in pixels, upright, None if it cannot be read; ``sha256`` of its file, empty likewise."""

    size: tuple[int, int] | None = None
    sha256: str = ""
    phash: bytes = NO_HASH
    boxes: tuple[GoodBox, ...] = ()
    problems: tuple[Problem, ...] = ()


Job = tuple[Path, "Path | None", Rules]
#: How jobs are run, as :func:`fashionrec.photos.decoding.in_processes` does it.
Run = Callable[..., Iterator[tuple[Any, Any]]]


def inspect_all(jobs: Iterable[Job], *, timeout: float, workers: int, run: Run = in_processes) -> Iterator[Inspected]:
    """Look at each photo, in order. One worker is this process; 0 are as many processes as cores."""
    if workers == 1:
        yield from map(inspect, jobs)
        return
    for path, outcome in run(inspect, ((job[0], job) for job in jobs), timeout=timeout, workers=workers):
        if isinstance(outcome, Lost):
            error = outcome.error(path.name, timeout)
            outcome = Inspected(problems=(Problem("unreadable-image", str(error), numbers={"reason": error.reason}),))
        yield outcome


def inspect(job: Job) -> Inspected:
    """Decode one photo, read its labels, and hold both against the rules."""
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
            raw, broken = read_lines(data, rules.names)
            problems += broken
        except (DocumentError, TooManyBoxes) as error:
            problems.append(Problem("too-many-boxes", f"{labels.name}: {error}"))
        except OSError as error:
            problems.append(Problem("label-encoding", f"{labels.name} cannot be read: {error.strerror}"))
        else:
            if not data.strip():
                problems.append(Problem("empty-label", f"{labels.name} has no line"))
    size = (photo.width, photo.height) if photo else None
    boxes, wrong = check_boxes(raw, size or _NO_SIZE, rules.names, rules.boxes)
    return Inspected(
        size=size,
        sha256=photo.sha256 if photo else "",
        phash=phash,
        boxes=tuple(boxes),
        problems=(*problems, *wrong),
    )


def _check_photo(path: Path, photo: Photo, phash: bytes, rules: Rules) -> Iterator[Problem]:
    size = f"{photo.width} x {photo.height} pixels"
    if min(photo.width, photo.height) < rules.min_pixels:
        yield Problem("tiny-picture", size, numbers={"width": photo.width, "height": photo.height})
    if phash == NO_HASH:
        yield Problem("flat-picture", f"{size} of one colour")
    stored = photo.stored
    assert stored is not None  # it was decoded here
    if stored.mode != "RGB":
        yield Problem("not-rgb", f"{stored.format}, mode {stored.mode}", numbers={"mode": stored.mode})
    if stored.orientation != 1:
        text = f"EXIF orientation {stored.orientation}: {stored.width} x {stored.height} as stored, {size} upright"
        yield Problem("exif-turned", text, numbers={"orientation": stored.orientation})
    expected = _FORMATS.get(path.suffix.lower())
    if expected and stored.format not in expected:
        text = f"{path.suffix}, and the file is {stored.format}"
        yield Problem("wrong-suffix", text, numbers={"format": stored.format})
