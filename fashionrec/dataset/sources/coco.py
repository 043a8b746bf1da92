"""COCO: instances JSON files, in ``annotations/`` or beside the photos of their split.

Read with the standard library: what is needed of the format is four keys, and each annotation can be reduced to its box as
soon as it is parsed, so that the masks of a large file are never held. (pycocotools keeps every annotation whole in three
indexes, prints, and trips over broken ones.) https://cocodataset.org/#format-data
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
from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.dataset.sources.layout import (
    Photos,
    copies_of,
    counted,
    failure,
    key_of,
    posix,
    refusals,
    some,
    split_of_file,
    split_of_folders,
)
from fashionrec.errors import DataError

#: Files of COCO's other tasks, by the beginning of their names: they describe the photos of the instances files once more.
OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")

_Corners = tuple[float, float, float, float]

#: Notes of what was counted.
_COUNTED = {
    "crowds": "annotations are crowds (iscrowd) and were left out",
    "orphans": "annotations are of an image that their file does not list",
    "malformed": "images or annotations lack an id, and were not read",
    "twice": "photos are listed more than once; their boxes are joined",
}


class _Image(NamedTuple):
    id: str
    name: str
    size: tuple[int, int] | None


class _Annotation(NamedTuple):
    id: str
    image: str
    category: str
    corners: _Corners | None  # None: it has no box that can be understood
    crowd: bool


class _Document(NamedTuple):
    path: Path
    images: list[_Image]
    annotations: list[_Annotation]
    categories: dict[str, str]
    malformed: int


def read(where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """A folder with one or more instances files, or one such file. Raises :class:`DataError`.

    Boxes are ``x, y, width, height`` in pixels from the upper left corner; one that is missing is taken from the mask. Crowds
    are no garments: they are left out and counted. A photo in several files has the boxes of all. Photos in no file are left
    out, for nobody said whether they show garments. Links and special files are in ``failed``.
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
        places = [photos.find(image.name, folders) for image in document.images]
        if not any(places):  # laid out in a way of its own: then names alone decide, where only one photo has each
            places = [photos.alone(image.name) for image in document.images]
        for image, path in zip(document.images, places, strict=True):
            found, problems = boxes.pop(image.id, ((), ()))
            if path is None:
                failed.append(photos.lost(image.name, document.path.name))
                continue
            key = key_of(path, root)
            own = split or split_of_folders(PurePosixPath(key).parts[:-1])
            new = SourceImage(key, path, tuple(found), True, own, copies_of(path.name), image.size, tuple(problems))
            if key in images:
                counts["twice"] += 1
                new = _joined(images[key], new)
            images[key] = new
        counts["malformed"] += document.malformed
        counts["orphans"] += sum(len(found) + len(problems) for found, problems in boxes.values())
    if not images and refused:
        raise refusals_error(where, refused)
    if not images:
        raise DataError(
            f"{where} describes {len(failed)} photos, and none of them is there",
            hint="give the folder that holds the photos and the annotations",
        )
    failed += refusals(one for one in refused if one.name.rpartition("/")[2] not in photos.told)
    notes += counted(counts, _COUNTED)
    unlisted = [key for key in photos.paths if key not in images] if where.is_dir() else []
    if unlisted:
        notes.append(f"{len(unlisted)} photos are in none of the annotation files and were left out: {some(unlisted)}")
    names = tuple(dict.fromkeys(name for document in documents for name in document.categories.values()))
    return Source(label, tuple(images.values()), names=names, failed=tuple(failed), notes=tuple(notes))


def mask_corners(mask: Any) -> _Corners | None:
    """The box around a mask in pixels: polygons, or run lengths as a list or as COCO's packed text; None for an empty one."""
    if isinstance(mask, Mapping):
        return _corners_of_runs(mask)
    if not isinstance(mask, list) or not mask:
        return None
    values = [float(value) for part in mask for value in (part if isinstance(part, list) else [part])]
    xs, ys = values[0::2], values[1::2]
    return (min(xs), min(ys), max(xs), max(ys)) if ys else None


def unpack_runs(text: str) -> list[int]:
    """Run lengths from COCO's packed text: five bits a letter, and from the fourth run on the difference to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _corners_of_runs(mask: Mapping[str, Any]) -> _Corners | None:
    """Runs of not-mask and mask in turn, down the columns."""
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
    others = [path for path in paths if path.name.startswith(OTHER_TASKS) and path != where]
    found = [document for path in paths if path not in others and (document := _parse(path))]
    if not found and refused:
        raise refusals_error(where, refused)
    if not found:
        raise DataError(
            f"no COCO annotations at {where}",
            hint="a folder with a JSON file of images, annotations and categories in it",
        )
    return found, [f"not read, for they are of another task: {some([p.name for p in others])}"] if others else []


def _parse(path: Path) -> _Document | None:
    try:
        with path.open(encoding="utf-8-sig") as file:
            document = json.load(file, object_hook=_lighter)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged: {error}", hint="fetch it again, or move it away if it is no part of it"
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
        if name in parents and number not in used and number == "0":  # Roboflow's own: the project's name
            del categories[number]
    malformed = len(listed) - len(images) + len(annotated) - len(annotations)
    return _Document(path, images, annotations, categories, malformed)


def _lighter(row: dict[str, Any]) -> Any:
    """Called for every object as it is parsed: images and annotations become what is needed of them."""
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
            found: _Corners | None = (x, y, x + width, y + height)
        else:
            found = mask_corners(row.get("segmentation"))
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError):
        return None
    return found if found and all(map(math.isfinite, found)) else None


def _size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        width, height = int(row["width"]), int(row["height"])
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _boxes_by_image(document: _Document, counts: Counter[str]) -> dict[str, tuple[list[RawBox], list[str]]]:
    found: dict[str, tuple[list[RawBox], list[str]]] = {}
    for annotation in document.annotations:
        if annotation.crowd:
            counts["crowds"] += 1
            continue
        boxes, problems = found.setdefault(annotation.image, ([], []))
        if annotation.corners is None:
            problems.append(f"annotation {annotation.id} has neither a box nor a mask that can be understood")
        else:
            name = document.categories.get(annotation.category, f"#{annotation.category}")
            boxes.append(RawBox(name, *annotation.corners))
    return found


class _Photos(Photos):
    """Photos found by their ``file_name``; ``told`` are the names that may not be read, and that were told of."""

    def __init__(self, reach: Reach, refused: list[Refusal]) -> None:
        super().__init__(reach, refused)
        self.told: set[str] = set()

    def find(self, name: str, folders: Sequence[str]) -> Path | None:
        """The photo of a ``file_name`` below one of the folders."""
        for folder in folders:
            key = os.path.normpath(PurePosixPath(folder, posix(name))).replace(os.sep, "/")
            if key in self.paths:
                return self.paths[key]
        return None

    def lost(self, name: str, document: str) -> dict[str, str]:
        """Why there is no photo of a ``file_name``."""
        plain = posix(name)
        refused = self.refused.get(plain.name)
        if refused:
            self.told.add(plain.name)
            return failure(name, refused.reason, f"listed in {document}; {refused}")
        if self.reach.is_outside(self.reach.root / plain):
            return failure(name, "outside", f"listed in {document}, and not in the data set's folder")
        return failure(name, "missing", f"listed in {document}, but not there")


def _folders_for(document: Path, root: Path) -> list[str]:
    """Where the photos of an annotation file may be, the likeliest first: beside it, or in a folder named like its split."""
    beside = document.parent
    words = [document.stem.rpartition("_")[2], document.stem.removeprefix("instances_")]
    split = split_of_file(document.stem)
    words += {"train": ["train"], "valid": ["val", "valid", "validation"], "test": ["test"]}.get(split or "", [])
    folders = [beside]
    for base in (beside, beside.parent, root):
        for word in words:
            folders += [base / word, base / word / "images", base / "images" / word]
        folders += [base / "images", base]
    return list(dict.fromkeys(key_of(folder, root) for folder in folders))


def _joined(one: SourceImage, other: SourceImage) -> SourceImage:
    return replace(
        one,
        boxes=one.boxes + other.boxes,
        split=one.split or other.split,
        size=one.size or other.size,
        problems=one.problems + other.problems,
    )
