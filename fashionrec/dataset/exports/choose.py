"""Which photos are worth a person's time: those a detector is least sure of, or whose labels it disagrees with.

Both scores count doubtful boxes, so they can be compared and added:

- uncertainty: each box counts ``(1 - |2c - 1|)²`` of its confidence ``c``: 1 at one half, next to nothing near 0 and 1. It is
  the 1-vs-2 margin of garment against no garment, summed over the photo (Brust, Käding and Denzler, "Active Learning for
  Deep Object Detection", VISAPP 2019, whose margin is between classes).
- disagreement: each confident box that no label of its class overlaps counts its confidence; each label that no box of
  its class overlaps counts 1.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fashionrec.errors import DataError, ImageError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.labels.label_lines import label_path, read_labels
from fashionrec.photos.images import Photo, find_photos, read_photo
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import ImagesConfig

#: Photos that belong to no split.
UNLABELLED = "unlabelled"
SAME_PLACE = 0.5  # boxes that overlap (IoU) by this much are of one garment, as in mAP50
_RESERVE = 4  # how many times more are kept than are wanted, for near-duplicates to drop out

Strategy = Literal["auto", "uncertain", "disagree"]
Detect = Callable[["Sequence[Image.Image]"], Sequence[Sequence[Garment]]]


@dataclass(frozen=True)
class Candidate:
    """A photo of a dataset. ``labels`` are class names and relative boxes (0..1); None where it has no label file."""

    key: str
    path: Path
    split: str | None
    labels: tuple[tuple[str, Box], ...] | None


@dataclass(frozen=True)
class Chosen:
    """A photo worth labelling. ``garments`` are in pixels of the upright photo, whose ``size`` is width and height."""

    key: str
    path: Path
    split: str | None
    sha256: str
    size: tuple[int, int]
    score: float
    reason: str
    garments: tuple[Garment, ...]


def candidates(dataset: Path) -> Iterator[Candidate]:
    """All photos of a dataset folder, ``unlabelled/`` among them, keyed by their path within it. Raises :class:`DataError`."""
    data = read_data_yaml(dataset)
    root = data.path.parent
    for split in data.splits:
        for path in data.images(split):
            labelled = label_path(path).is_file()
            labels = tuple(
                (data.names.get(int(number), f"#{int(number)}"), Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2))
                for number, x, y, w, h in (read_labels(path) if labelled else ())
            )
            yield Candidate(_key(path, root), path, split, labels if labelled else None)
    for path in find_photos(root / UNLABELLED):
        yield Candidate(_key(path, root), path, None, None)


def choose(
    dataset: Path,
    detect: Detect,
    limit: int,
    *,
    limits: ImagesConfig,
    strategy: Strategy = "auto",
    confident: float = 0.6,
    near_duplicates: int = -1,
    skip: AbstractSet[str] = frozenset(),
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Chosen], list[dict[str, str]]]:
    """At most ``limit`` photos, the most doubtful first; and the photos that could not be read, with their reason.

    ``auto`` asks for uncertainty where a photo has no labels, and for disagreement where it has some; ``uncertain`` takes
    every photo by the first, ``disagree`` the labelled ones by the second. Photos that score nothing are never chosen.
    ``detect`` gives the garments of RGB photos (:meth:`Detector.detect`) and should let confidences far below one half
    through. ``skip`` are sha256 of photos that are done with. A photo that looks like one already chosen (perceptual
    hashes that differ by no more than ``near_duplicates`` bits; -1: only the same bytes) is passed over. The order does
    not depend on the machine. Raises :class:`DataError`.
    """
    if strategy == "disagree":
        wanted = [one for one in candidates(dataset) if one.labels is not None]
    else:
        wanted = list(candidates(dataset))
    if not wanted:
        raise DataError(f"{dataset} has no photos to choose from", hint="disagree needs labels")
    failed: list[dict[str, str]] = []
    scored = _scored(wanted, detect, limits, strategy, confident, skip, batch, failed, progress)
    best = heapq.nsmallest(_RESERVE * limit, scored, key=lambda one: (-one.score, one.key))
    return _distinct(best, limit, near_duplicates, limits), failed


def uncertainty(garments: Sequence[Garment]) -> float:
    """How many boxes' worth of doubt there is in a photo's detections, 0 or more."""
    return sum((1 - abs(2 * garment.confidence - 1)) ** 2 for garment in garments if garment.confidence is not None)


def disagreement(
    garments: Sequence[Garment], labels: Sequence[tuple[str, Box]], size: tuple[int, int], confident: float
) -> tuple[float, int, int]:
    """The score, the confident boxes that no label agrees with, and the labels that no box agrees with.

    A box agrees with at most one label and a label with one box: the most confident box comes first. ``size`` is the
    photo's width and height, which the labels are relative to.
    """
    width, height = size
    free = [(name, Box(b.x1 * width, b.y1 * height, b.x2 * width, b.y2 * height)) for name, b in labels]
    alone = []
    for garment in sorted(garments, key=lambda one: -(one.confidence or 0)):
        same = [n for n, (name, box) in enumerate(free) if name == garment.class_name and _same(box, garment.box)]
        if same:
            free.pop(max(same, key=lambda n: free[n][1].iou(garment.box)))
        elif (garment.confidence or 0) >= confident:
            alone.append(garment.confidence or 0)
    return sum(alone) + len(free), len(alone), len(free)


def _scored(
    wanted: Sequence[Candidate],
    detect: Detect,
    limits: ImagesConfig,
    strategy: Strategy,
    confident: float,
    skip: AbstractSet[str],
    batch: int,
    failed: list[dict[str, str]],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Chosen]:
    done, waiting = 0, iter(wanted)
    while part := list(islice(waiting, batch)):
        photos: list[tuple[Candidate, Photo]] = []
        for one in part:
            try:
                photo = read_photo(one.path, limits)
            except ImageError as error:
                failed.append({"key": one.key, "reason": error.reason})
                continue
            if photo.sha256 not in skip:
                photos.append((one, photo))
        found = detect([photo.pixels for _, photo in photos]) if photos else []
        for (one, photo), garments in zip(photos, found, strict=True):
            size = (photo.width, photo.height)
            score, reason = _score(one, garments, size, strategy, confident)
            if score > 0:
                yield Chosen(one.key, one.path, one.split, photo.sha256, size, score, reason, tuple(garments))
        done += len(part)
        if progress:
            progress(done, len(wanted))


def _score(
    one: Candidate, garments: Sequence[Garment], size: tuple[int, int], strategy: Strategy, confident: float
) -> tuple[float, str]:
    if one.labels is None or strategy == "uncertain":
        score = uncertainty(garments)
        return score, f"unsure of {score:.2f} boxes"
    score, alone, missed = disagreement(garments, one.labels, size, confident)
    return score, f"{alone} boxes without a label, {missed} labels without a box"


def _distinct(best: Sequence[Chosen], limit: int, bits: int, limits: ImagesConfig) -> list[Chosen]:
    from fashionrec.dataset.prepare.similar import photo_hash

    kept: list[Chosen] = []
    hashes: list[int] = []
    seen = set()
    for one in best:
        if len(kept) == limit:
            break
        if one.sha256 in seen:
            continue
        if bits >= 0:
            look = int.from_bytes(photo_hash(read_photo(one.path, limits).pixels), "big")
            if any((look ^ other).bit_count() <= bits for other in hashes):
                continue
            hashes.append(look)
        seen.add(one.sha256)
        kept.append(one)
    return kept


def _same(one: Box, other: Box) -> bool:
    return one.iou(other) >= SAME_PLACE


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
