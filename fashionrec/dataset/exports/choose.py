"""Active learning: the photos that a detector is least certain of, or whose labels it contradicts.

Both scores are sums over doubtful boxes, so they can be compared and added:

- uncertainty: each box counts ``(1 - |2c - 1|)²`` of its confidence ``c``: 1 at one half, almost
  nothing near 0 and 1. It is the 1-vs-2 margin of garment against background, summed over the photo
  (Brust, Käding and Denzler, "Active Learning for Deep Object Detection", VISAPP 2019, whose margin
  is between classes).
- disagreement: each confident box without an overlapping label of its class counts its confidence;
  each label without an overlapping box of its class counts 1.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fashionrec.common.text import plural
from fashionrec.errors import DataError, ImageError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.labels.label_lines import label_path, read_labels
from fashionrec.photos.images import Photo, find_photos, read_photo
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import ImagesConfig

#: Name of the folder of photos without a split.
UNLABELLED = "unlabelled"
SAME_PLACE = 0.5  # IoU from which two boxes show the same garment, as in mAP50
_RESERVE = 4  # candidates per requested photo, because near-duplicates are skipped

Strategy = Literal["auto", "uncertain", "disagree"]
Detect = Callable[["Sequence[Image.Image]"], Sequence[Sequence[Garment]]]


@dataclass(frozen=True)
class Candidate:
    """A photo of a dataset.

    ``labels`` are class names and relative boxes (0..1), None without a label file.
    """

    key: str
    path: Path
    split: str | None
    labels: tuple[tuple[str, Box], ...] | None


@dataclass(frozen=True)
class Chosen:
    """A photo to label.

    ``garments`` are in pixels of the upright photo; ``size`` is its width and height.
    """

    key: str
    path: Path
    split: str | None
    sha256: str
    size: tuple[int, int]
    score: float
    reason: str
    garments: tuple[Garment, ...]


def candidates(dataset: Path) -> Iterator[Candidate]:
    """Yield all photos of a dataset, including ``unlabelled/``, keyed by relative path.

    Raises :class:`DataError`.
    """
    data = read_data_yaml(dataset)
    root = data.path.parent
    for split in data.splits:
        for path in data.images(split):
            is_labelled = label_path(path).is_file()
            labels = tuple(
                (data.names.get(int(number), f"#{int(number)}"), Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2))
                for number, x, y, w, h in (read_labels(path) if is_labelled else ())
            )
            yield Candidate(_key(path, root), path, split, labels if is_labelled else None)
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
    """Return at most ``limit`` photos, the most doubtful first, and the unreadable photos.

    The order does not depend on the machine. Photos with a score of 0 are never chosen.

    Args: detect: Returns the garments of RGB photos (:meth:`Detector.detect`); it should keep
        confidences far below one half. strategy: ``auto`` scores photos without labels by
        uncertainty and others by disagreement; ``uncertain`` scores every photo by uncertainty,
        ``disagree`` labelled ones by disagreement. near_duplicates: Skip a photo whose perceptual
        hash differs from that of a chosen one by at most this many bits; -1 skips only identical
        files. skip: sha256 of photos to ignore.

    Raises:
        DataError: The dataset is invalid or has no such photos.
    """
    if strategy == "disagree":
        pool = [candidate for candidate in candidates(dataset) if candidate.labels is not None]
    else:
        pool = list(candidates(dataset))
    if not pool:
        raise DataError(f"{dataset} has no photos to choose from", hint="the strategy disagree needs labelled photos")
    failed: list[dict[str, str]] = []
    scored = _scored(pool, detect, limits, strategy, confident, skip, batch, failed, progress)
    best = heapq.nsmallest(_RESERVE * limit, scored, key=lambda chosen: (-chosen.score, chosen.key))
    return _distinct(best, limit, near_duplicates, limits), failed


def uncertainty(garments: Sequence[Garment]) -> float:
    """Return the sum of the uncertainties of a photo's detections, 0 or more."""
    return sum((1 - abs(2 * garment.confidence - 1)) ** 2 for garment in garments if garment.confidence is not None)


def disagreement(
    garments: Sequence[Garment], labels: Sequence[tuple[str, Box]], size: tuple[int, int], confident: float
) -> tuple[float, int, int]:
    """Return the score, the number of confident boxes without a label, and of labels without a box.

    Each label matches at most one box, the most confident first. ``size`` is the photo's width and
    height, which the labels are relative to.
    """
    width, height = size
    unmatched = [(name, Box(b.x1 * width, b.y1 * height, b.x2 * width, b.y2 * height)) for name, b in labels]
    unlabelled = []
    for garment in sorted(garments, key=lambda garment: -(garment.confidence or 0)):
        matches = [
            n for n, (name, box) in enumerate(unmatched) if name == garment.class_name and _overlaps(box, garment.box)
        ]
        if matches:
            unmatched.pop(max(matches, key=lambda n: unmatched[n][1].iou(garment.box)))
        elif (garment.confidence or 0) >= confident:
            unlabelled.append(garment.confidence or 0)
    return sum(unlabelled) + len(unmatched), len(unlabelled), len(unmatched)


def _scored(
    pool: Sequence[Candidate],
    detect: Detect,
    limits: ImagesConfig,
    strategy: Strategy,
    confident: float,
    skip: AbstractSet[str],
    batch: int,
    failed: list[dict[str, str]],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Chosen]:
    done, remaining = 0, iter(pool)
    while part := list(islice(remaining, batch)):
        photos: list[tuple[Candidate, Photo]] = []
        for candidate in part:
            try:
                photo = read_photo(candidate.path, limits)
            except ImageError as error:
                failed.append({"key": candidate.key, "reason": error.reason})
                continue
            if photo.sha256 not in skip:
                photos.append((candidate, photo))
        detections = detect([photo.pixels for _, photo in photos]) if photos else []
        for (candidate, photo), garments in zip(photos, detections, strict=True):
            size = (photo.width, photo.height)
            score, reason = _score(candidate, garments, size, strategy, confident)
            if score > 0:
                yield Chosen(
                    candidate.key, candidate.path, candidate.split, photo.sha256, size, score, reason, tuple(garments)
                )
        done += len(part)
        if progress:
            progress(done, len(pool))


def _score(
    candidate: Candidate, garments: Sequence[Garment], size: tuple[int, int], strategy: Strategy, confident: float
) -> tuple[float, str]:
    if candidate.labels is None or strategy == "uncertain":
        score = uncertainty(garments)
        return score, f"uncertainty {score:.2f}"
    score, unlabelled, missed = disagreement(garments, candidate.labels, size, confident)
    boxes = plural(unlabelled, "box", "boxes")
    return score, f"{boxes} without a label, {plural(missed, 'label')} without a box"


def _distinct(best: Sequence[Chosen], limit: int, bits: int, limits: ImagesConfig) -> list[Chosen]:
    from fashionrec.dataset.prepare.similar import photo_hash

    distinct: list[Chosen] = []
    hashes: list[int] = []
    digests = set()
    for chosen in best:
        if len(distinct) == limit:
            break
        if chosen.sha256 in digests:
            continue
        if bits >= 0:
            phash = int.from_bytes(photo_hash(read_photo(chosen.path, limits).pixels), "big")
            if any((phash ^ other).bit_count() <= bits for other in hashes):
                continue
            hashes.append(phash)
        digests.add(chosen.sha256)
        distinct.append(chosen)
    return distinct


def _overlaps(first: Box, second: Box) -> bool:
    return first.iou(second) >= SAME_PLACE


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
