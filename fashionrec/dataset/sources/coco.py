"""COCO: instances JSON files, in ``annotations/`` or next to the photos of their split.

Read with the standard library: only four keys of the format are needed, and each annotation is
reduced to its box as soon as it is parsed, so the masks of a large file are never all in memory.
(pycocotools keeps every annotation in three indexes, prints, and fails on malformed ones.)
https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fashionrec.common.reach import Reach, Refusal, refusals_error
from fashionrec.common.text import plural
from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.dataset.sources.layout import (
    Photos,
    copies_of,
    count_notes,
    failure,
    key_of,
    posix,
    refusals,
    some,
    split_of_file,
    split_of_folders,
)
from fashionrec.errors import DataError

#: Prefixes of the files of COCO's other tasks, which describe the photos of the instances files
#: again.
OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")

_Corners = tuple[float, float, float, float]

#: Per counter: the noun, and the rest of its note.
_NOTES = {
    "crowds": ("crowd annotation", "skipped (iscrowd)"),
    "orphans": ("annotation", "skipped: the file does not list the image"),
    "malformed": ("record", "without an id skipped (images or annotations)"),
    "repeated": ("repeated photo", "found; the boxes are merged"),
}


class _Image(NamedTuple):
    id: str
    name: str
    size: tuple[int, int] | None


class _Annotation(NamedTuple):
    id: str
    image: str
    category: str
    corners: _Corners | None  # None: missing or invalid
    crowd: bool


class _Document(NamedTuple):
    path: Path
    images: list[_Image]
    annotations: list[_Annotation]
    categories: dict[str, str]
    malformed: int


def read(where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """Read a folder with one or more instances files, or one such file.

    Boxes are ``x, y, width, height`` in pixels from the upper left corner; a missing box is
    computed from the mask. Crowds are not garments: they are skipped and counted. A photo in
    several files has the boxes of all. Photos in no file are skipped, as nobody said whether they
    show garments. Links and special files are in ``failed``.

    Raises:
        DataError: There are no annotations, a file is damaged, or no listed photo exists.
    """
    root = where
    if where.is_file():
        root = where.parent.parent if where.parent.name.lower() == "annotations" else where.parent
    refused: list[Refusal] = []
    reach = Reach(root, follow_links)
    documents, notes = _documents(where, reach, refused)
    photos = _Photos(reach, refused)
    images: dict[str, SourceImage] = {}
    failed: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    for document in documents:
        boxes = _boxes_by_image(document, counts)
        split = split_of_file(document.path.stem) or split_of_folders(document.path.relative_to(root).parts[:-1])
        folders = _folders_for(document.path, root)
        paths = [photos.find(image.name, folders) for image in document.images]
        if not any(paths):  # an unknown layout: match by file name, if only one photo has it
            paths = [photos.alone(image.name) for image in document.images]
        for image, path in zip(document.images, paths, strict=True):
            image_boxes, problems = boxes.pop(image.id, ((), ()))
            if path is None:
                failed.append(photos.missing_row(image.name, document.path.name))
                continue
            key = key_of(path, root)
            photo_split = split or split_of_folders(PurePosixPath(key).parts[:-1])
            photo = SourceImage(
                key, path, tuple(image_boxes), True, photo_split, copies_of(path.name), image.size, tuple(problems)
            )
            if key in images:
                counts["repeated"] += 1
                photo = _merge(images[key], photo)
            images[key] = photo
        counts["malformed"] += document.malformed
        counts["orphans"] += sum(len(image_boxes) + len(problems) for image_boxes, problems in boxes.values())
    if not images and refused:
        raise refusals_error(where, refused)
    if not images:
        raise DataError(
            f"none of the photos listed in {where} exists ({len(failed):,} listed)",
            hint="give the folder that contains the photos and the annotations",
        )
    failed += refusals(refusal for refusal in refused if refusal.name.rpartition("/")[2] not in photos.reported)
    notes += count_notes(counts, _NOTES)
    unlisted = [key for key in photos.paths if key not in images] if where.is_dir() else []
    if unlisted:
        notes.append(f"{plural(len(unlisted), 'photo')} skipped, in no annotation file: {some(unlisted)}")
    names = tuple(dict.fromkeys(name for document in documents for name in document.categories.values()))
    return Source(label, tuple(images.values()), names=names, failed=tuple(failed), notes=tuple(notes))


def mask_corners(mask: Any) -> _Corners | None:
    """Return the bounding box of a mask in pixels, None if the mask is empty.

    A mask is polygons, or run lengths as a list or as COCO's packed text.
    """
    if isinstance(mask, Mapping):
        return _corners_of_runs(mask)
    if not isinstance(mask, list) or not mask:
        return None
    values = [float(value) for part in mask for value in (part if isinstance(part, list) else [part])]
    xs, ys = values[0::2], values[1::2]
    return (min(xs), min(ys), max(xs), max(ys)) if ys else None


def unpack_runs(text: str) -> list[int]:
    """Decode run lengths from COCO's packed text.

    Each character has five bits; from the fourth run on, the value is the difference to the run
    before the previous one.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _corners_of_runs(mask: Mapping[str, Any]) -> _Corners | None:
    """Return the bounding box of run lengths: background and mask in turn, column by column."""
    counts, height = mask["counts"], int(mask["size"][0])
    runs = unpack_runs(counts) if isinstance(counts, str) else [int(run) for run in counts]
    at, left, top, right, bottom = 0, math.inf, math.inf, -1, -1
    for number, run in enumerate(runs):
        if number % 2 and run > 0:
            (first, upper), (last, lower) = divmod(at, height), divmod(at + run - 1, height)
            if first != last:
                upper, lower = 0, height - 1
            left, right = min(left, first), max(right, last)
            top, bottom = min(top, upper), max(bottom, lower)
        at += run
    return (left, top, right + 1.0, bottom + 1.0) if right >= 0 else None


def _documents(where: Path, reach: Reach, refused: list[Refusal]) -> tuple[list[_Document], list[str]]:
    paths = [where] if where.is_file() else list(reach.files(where, refused, (".json",)))
    other_tasks = [path for path in paths if path.name.startswith(OTHER_TASKS) and path != where]
    documents = [document for path in paths if path not in other_tasks and (document := _parse(path))]
    if not documents and refused:
        raise refusals_error(where, refused)
    if not documents:
        raise DataError(
            f"no COCO annotations at {where}",
            hint="give a folder with a JSON file that has images, annotations and categories",
        )
    names = some([path.name for path in other_tasks])
    return documents, [f"skipped files of other COCO tasks: {names}"] if other_tasks else []


def _parse(path: Path) -> _Document | None:
    try:
        with path.open(encoding="utf-8-sig") as file:
            document = json.load(file, object_hook=_reduce)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged: {error}", hint="download it again, or move it away if it is not part of the dataset"
        ) from None
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in ("images", "categories")):
        return None
    categories = {}
    for row in document["categories"]:
        if isinstance(row, dict) and "id" in row:
            categories[str(row["id"])] = str(row.get("name") or f"#{row['id']}")
    listed, annotated = document["images"], document.get("annotations") or []
    images = [row for row in listed if isinstance(row, _Image)]
    annotations = [row for row in annotated if isinstance(row, _Annotation)]
    parents = {str(row.get("supercategory")) for row in document["categories"] if isinstance(row, dict)}
    used = {annotation.category for annotation in annotations}
    for number, name in list(categories.items()):
        if name in parents and number not in used and number == "0":  # added by Roboflow: the project's name
            del categories[number]
    malformed = len(listed) - len(images) + len(annotated) - len(annotations)
    return _Document(path, images, annotations, categories, malformed)


def _reduce(row: dict[str, Any]) -> Any:
    """Reduce an image or annotation to the needed values; called for every object
    during parsing.
    """
    if "image_id" in row and ("bbox" in row or "segmentation" in row or "category_id" in row):
        return _Annotation(
            str(row.get("id", "?")),
            str(row["image_id"]),
            str(row.get("category_id")),
            _corners(row),
            row.get("iscrowd") in (1, "1"),
        )
    if "file_name" in row and "id" in row:
        return _Image(str(row["id"]), str(row["file_name"]), _size(row))
    return row


def _corners(row: Mapping[str, Any]) -> _Corners | None:
    try:
        if row.get("bbox"):
            x, y, width, height = map(float, row["bbox"])
            corners: _Corners | None = (x, y, x + width, y + height)
        else:
            corners = mask_corners(row.get("segmentation"))
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError):
        return None
    return corners if corners and all(map(math.isfinite, corners)) else None


def _size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        width, height = int(row["width"]), int(row["height"])
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _boxes_by_image(document: _Document, counts: Counter[str]) -> dict[str, tuple[list[RawBox], list[str]]]:
    by_image: dict[str, tuple[list[RawBox], list[str]]] = {}
    for annotation in document.annotations:
        if annotation.crowd:
            counts["crowds"] += 1
            continue
        boxes, problems = by_image.setdefault(annotation.image, ([], []))
        if annotation.corners is None:
            problems.append(f"annotation {annotation.id} has no valid box or mask")
        else:
            name = document.categories.get(annotation.category, f"#{annotation.category}")
            boxes.append(RawBox(name, *annotation.corners))
    return by_image


class _Photos(Photos):
    """Photos by their ``file_name``;

    ``reported`` are names of refused photos that have a failed row.
    """

    def __init__(self, reach: Reach, refused: list[Refusal]) -> None:
        super().__init__(reach, refused)
        self.reported: set[str] = set()

    def find(self, name: str, folders: Sequence[str]) -> Path | None:
        """Return the photo with this ``file_name`` below one of the folders."""
        for folder in folders:
            key = os.path.normpath(PurePosixPath(folder, posix(name))).replace(os.sep, "/")
            if key in self.paths:
                return self.paths[key]
        return None

    def missing_row(self, name: str, document: str) -> dict[str, str]:
        """Return the failure row of a ``file_name`` without a readable photo."""
        plain = posix(name)
        refused = self.refused.get(plain.name)
        if refused:
            self.reported.add(plain.name)
            return failure(name, refused.reason, f"listed in {document}; {refused}")
        if self.reach.is_outside(self.reach.root / plain):
            return failure(name, "outside", f"listed in {document}, but outside the dataset's folder")
        return failure(name, "missing", f"listed in {document}, but missing")


def _folders_for(document: Path, root: Path) -> list[str]:
    """Return folders where the photos of an annotation file may be, the likeliest first.

    They are next to the file, or in a folder with the name of its split.
    """
    parent = document.parent
    words = [document.stem.rpartition("_")[2], document.stem.removeprefix("instances_")]
    split = split_of_file(document.stem)
    words += {"train": ["train"], "valid": ["val", "valid", "validation"], "test": ["test"]}.get(split or "", [])
    folders = [parent]
    for base in (parent, parent.parent, root):
        for word in words:
            folders += [base / word, base / word / "images", base / "images" / word]
        folders += [base / "images", base]
    return list(dict.fromkeys(key_of(folder, root) for folder in folders))


def _merge(first: SourceImage, second: SourceImage) -> SourceImage:
    return replace(
        first,
        boxes=first.boxes + second.boxes,
        split=first.split or second.split,
        size=first.size or second.size,
        problems=first.problems + second.problems,
    )
