"""Labels that a trained detector contradicts, ordered by confidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from PIL import Image

from fashionrec.config import ImagesConfig
from fashionrec.dataset.audit.findings import Finding, Mark
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Entry
from fashionrec.errors import ImageError
from fashionrec.photos.images import read_photo
from fashionrec.types import Box, Garment, resolve_class

#: Detects garments in upright photos with a threshold far below ``sure``: a label without even such
#: a detection counts as unseen.
Detections = Callable[[Sequence[Image.Image]], list[list[Garment]]]

#: IoU from which a detection and a label mean the same garment, as in mAP50.
SAME = 0.5


def disagreements(
    entries: Sequence[Entry],
    inspected: Sequence[Inspected],
    names: dict[int, str],
    detections: Detections,
    sure: float,
    limits: ImagesConfig,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Return garments without a label or with another class, and labels without a detection.

    ``sure`` is the confidence that a detection needs to contradict a label. Labels of unknown
    classes are not compared.
    """
    findings: list[Finding] = []
    readable = iter([n for n, photo in enumerate(inspected) if photo.size])
    total = sum(1 for photo in inspected if photo.size)
    done = 0
    while numbers := list(islice(readable, batch)):
        photos = []
        for n in numbers:
            try:
                photos.append((n, read_photo(entries[n].path, limits).pixels))
            except ImageError:  # it could be read when it was inspected
                continue
        for (n, pixels), garments in zip(photos, detections([pixels for _, pixels in photos]), strict=True):
            findings += _compare(entries[n], inspected[n], names, garments, pixels.size, sure)
        done += len(numbers)
        if progress:
            progress(done, total)
    return sorted(
        findings, key=lambda finding: -float(finding.numbers.get("confidence", finding.numbers.get("share", 0)))
    )


def _compare(
    entry: Entry,
    photo: Inspected,
    names: dict[int, str],
    garments: Sequence[Garment],
    size: tuple[int, int],
    sure: float,
) -> Iterator[Finding]:
    labels = [(resolve_class(names[good.class_id]), good.box) for good in photo.boxes]
    detected = [(garment, _normalized(garment.box, size)) for garment in garments if not garment.whole_photo]
    for garment, box in detected:
        confidence = float(garment.confidence or 0.0)
        if confidence < sure:
            continue
        overlaps = [(box.iou(other), n) for n, (_, other) in enumerate(labels) if box.iou(other) >= SAME]
        if any(labels[n][0] == garment.class_name for _, n in overlaps):
            continue
        figures: dict[str, Any] = {"confidence": round(confidence, 4), "detected": garment.class_name}
        mark = Mark(0, f"{garment.class_name} {confidence:.2f}", *box)
        if not overlaps:
            text = f"{garment.class_name}, {100 * confidence:.0f} % confidence"
            yield Finding("missing-label", text, entry.split, (entry.key,), numbers=figures, marks=(mark,))
            continue
        good = photo.boxes[max(overlaps)[1]]
        label = names[good.class_id]
        text = f"labelled {label}; {garment.class_name}, {100 * confidence:.0f} % confidence"
        yield Finding(
            "class-disagreement",
            text,
            entry.split,
            (entry.key,),
            good.number,
            good.line,
            numbers={**figures, "labelled": label},
            marks=(mark, Mark(0, f"label: {label}", *good.box)),
        )
    for n, (name, box) in enumerate(labels):
        if name is not None and not any(box.iou(other) >= SAME for _, other in detected):
            text = f"{name}, {100 * box.area:.1f} % of the photo"
            yield Finding(
                "unseen-label",
                text,
                entry.split,
                (entry.key,),
                photo.boxes[n].number,
                photo.boxes[n].line,
                numbers={"labelled": name, "share": round(box.area, 6)},
                marks=(Mark(0, f"label: {name}", *box),),
            )


def _normalized(box: Box, size: tuple[int, int]) -> Box:
    return Box(box.x1 / size[0], box.y1 / size[1], box.x2 / size[0], box.y2 / size[1])
