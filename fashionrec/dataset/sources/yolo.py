"""YOLO: a ``data.yaml`` with classes and splits, or just photos and label files.

The labels of ``.../images/x.jpg`` are in ``.../labels/x.txt`` (the last folder named images
counts), or next to the photo. Without a yaml, class names come from a ``classes.txt``, and splits
from folder names. https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from fashionrec.common.reach import Reach, Refusal, refusals_error
from fashionrec.common.text import plural
from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.dataset.sources.layout import copies_of, failure, key_of, refusals, some, split_of_folders
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import YoloData, find_data_yaml, read_data_yaml, read_names
from fashionrec.labels.label_lines import LabelFault, label_path, orphan_labels, parse_labels, read_label_text
from fashionrec.photos.images import SUFFIXES

_Listed = tuple["str | None", Path]  # split, photo


def read(where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """Read a folder with data.yaml, the yaml itself, or a folder of photos and label files. Raises
    :class:`DataError`.

    An invalid line is a problem of its photo. Missing entries of lists, label files without a
    photo, links, special files, and names outside the folder are in ``failed``.
    """
    if where.is_file() and where.suffix.lower() not in (".yaml", ".yml"):
        raise DataError(f"no YOLO dataset at {where}", hint="give a folder with a data.yaml, or the path of that file")
    described = find_data_yaml(where, follow_links)
    failed: list[dict[str, str]] = []
    notes: list[str] = []
    refused: list[Refusal] = []
    if described:
        data = read_data_yaml(described, follow_links)
        root, names, reach = described.parent, data.names, data.reach
        listed = list(_listed(data, failed, notes, refused))
    else:
        root, reach = where, Reach(where, follow_links)
        names = read_names(reach)
        listed = list(_found(reach, refused))
        if not any(_labels_of(path, reach) for _, path in listed):
            if refused:
                raise refusals_error(where, refused)
            raise DataError(
                f"no YOLO dataset at {where}", hint="give a folder with a data.yaml, or with images/ and labels/"
            )
        if not names:
            notes.append("no data.yaml and no classes.txt: classes are only known by number")
    if not listed:
        raise refusals_error(where, refused) if refused else DataError(f"no photo of {where} exists")
    root = _root(root, [path for _, path in listed])
    images: dict[str, SourceImage] = {}
    labels: dict[Path, Path] = {}  # a folder of label files: the folder of its photos
    twice = []
    for split, path in listed:
        key = key_of(path, root)
        if key in images:
            twice.append(key)
            continue
        found = _labels_of(path, reach)
        if isinstance(found, Refusal):
            failed.append(failure(key, found.reason, f"its label file {found}"))
            continue
        if found:
            labels[found.parent] = path.parent
        boxes, problems = read_boxes(found, names) if found else ((), ())
        images[key] = SourceImage(
            key, path, boxes, found is not None, split, group=copies_of(path.name), problems=problems
        )
    if twice:
        notes.append(f"{plural(len(twice), 'photo')} listed twice; the first split counts: {some(twice)}")
    orphans = []
    for folder, photos in sorted(labels.items()):
        for orphan in orphan_labels(folder, [photos], reach):
            if isinstance(orphan, Refusal):
                refused.append(orphan)
            else:
                orphans.append(key_of(orphan, root))
    if orphans:
        notes.append(f"{plural(len(orphans), 'label file')} without a photo: {some(orphans)}")
        failed += [failure(key, "orphan-label", "there is no photo with its name") for key in orphans]
    failed += refusals(refused)
    return Source(label, tuple(images.values()), names=_in_order(names), failed=tuple(failed), notes=tuple(notes))


def read_boxes(path: Path, names: Mapping[int, str]) -> tuple[tuple[RawBox, ...], tuple[str, ...]]:
    """Return the boxes of a label file, and a text for each invalid line.

    A class without a name is ``#7``.
    """
    boxes, problems = [], []
    for number, found in parse_labels(path, read_label_text(path, "utf-8-sig", "replace")):
        if isinstance(found, LabelFault):
            problems.append(f"line {number} is not a valid box: {found}")
        else:
            boxes.append(RawBox(names.get(found.class_id, f"#{found.class_id}"), *found.corners, relative=True))
    return tuple(boxes), tuple(problems)


def _listed(
    data: YoloData, failed: list[dict[str, str]], notes: list[str], refused: list[Refusal]
) -> Iterator[_Listed]:
    """Return the photos of each split.

    Raises :class:`DataError` if a split only names refused files.
    """
    for split in data.splits:
        before, photos = len(refused), 0
        for listed in data.listed(split, moved=True):
            if listed.photo:
                photos += 1
                yield split, listed.photo
            elif listed.refused:
                refused.append(listed.refused)
            elif listed.source:
                key = Path(listed.text).name if Path(listed.text).is_absolute() else listed.text
                failed.append(failure(key, "missing", f"listed in {listed.source.name}, but missing"))
            else:
                notes.append(f"{data.path.name} names a {split} split that does not exist: {listed.path.name}")
        if not photos and len(refused) > before:
            raise refusals_error(f"the {split} split of {data.path}", refused[before:])


def _found(reach: Reach, refused: list[Refusal]) -> Iterator[_Listed]:
    photos = list(reach.files(reach.root, refused, SUFFIXES))
    inside = [path for path in photos if "images" in path.relative_to(reach.root).parts[:-1]]
    for path in inside or photos:
        yield split_of_folders(path.relative_to(reach.root).parts[:-1]), path


def _labels_of(image: Path, reach: Reach) -> Path | Refusal | None:
    for path in (label_path(image), image.with_suffix(".txt")):
        refused = reach.check(path)
        if refused and refused.reason != "outside":
            return refused
        if refused is None and path.is_file():
            return path
    return None


def _root(root: Path, photos: list[Path]) -> Path:
    """Return the folder that keys are relative to: the dataset's own, or the common parent of all
    photos.
    """
    folders = {os.path.normpath(path.parent.absolute()) for path in photos}
    own = os.path.normpath(root.absolute())
    if all(os.path.commonpath([own, folder]) == own for folder in folders):
        return root
    return Path(os.path.commonpath(sorted(folders)))


def _in_order(names: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(names[number] for number in sorted(names))
