"""YOLO: a ``data.yaml`` that names classes and splits, or just photos and label files.

The labels of ``.../images/x.jpg`` are in ``.../labels/x.txt`` (the last folder named images counts), or else beside the photo.
Without a yaml, class names come from a ``classes.txt``, and splits from folders' names.
https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from fashionrec.common.reach import Reach, Refusal, refusals_error
from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.dataset.sources.layout import copies_of, failure, key_of, refusals, some, split_of_folders
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import YoloData, read_data_yaml
from fashionrec.labels.label_lines import (
    NAME_FILES,
    LabelFault,
    label_lines,
    label_path,
    orphan_labels,
    parse_label_line,
    read_label_text,
)
from fashionrec.photos.images import SUFFIXES

_Listed = tuple["str | None", Path]  # split, photo


def read(where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """A folder with data.yaml, the yaml itself, or a folder of photos and label files. Raises :class:`DataError`.

    A line that is no box is a problem of its photo. What a list names and is not there, label files without a photo, links,
    special files, and what lies outside the folder, are in ``failed``.
    """
    described = _find_yaml(where, follow_links)
    failed: list[dict[str, str]] = []
    notes: list[str] = []
    refused: list[Refusal] = []
    if described:
        data = read_data_yaml(described, follow_links)
        root, names, reach = described.parent, data.names, data.reach
        listed = list(_listed(data, failed, notes, refused))
    else:
        root, reach = where, Reach(where, follow_links)
        names = _read_names(reach)
        listed = list(_found(reach, refused))
        if not any(_labels_of(path, reach) for _, path in listed):
            if refused:
                raise refusals_error(where, refused)
            raise DataError(
                f"no YOLO dataset at {where}", hint="a folder with data.yaml in it, or with images/ and labels/"
            )
        if not names:
            notes.append("there is no data.yaml and no classes.txt: classes are known by number only")
    if not listed:
        raise refusals_error(where, refused) if refused else DataError(f"{where} names no photos that are there")
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
        notes.append(f"{len(twice)} photos are listed twice; the first split counts: {some(twice)}")
    orphans = []
    for folder, photos in sorted(labels.items()):
        for orphan in orphan_labels(folder, [photos], reach):
            if isinstance(orphan, Refusal):
                refused.append(orphan)
            else:
                orphans.append(key_of(orphan, root))
    if orphans:
        notes.append(f"{len(orphans)} label files have no photo: {some(orphans)}")
        failed += [failure(key, "orphan-label", "there is no photo of its name") for key in orphans]
    failed += refusals(refused)
    return Source(label, tuple(images.values()), names=_in_order(names), failed=tuple(failed), notes=tuple(notes))


def read_boxes(path: Path, names: Mapping[int, str]) -> tuple[tuple[RawBox, ...], tuple[str, ...]]:
    """The boxes of a label file, and a text for each line that is none. A class without a name is ``#7``."""
    boxes, problems = [], []
    for number, line in label_lines(path, read_label_text(path, "utf-8-sig", "replace")):
        try:
            class_id, x, y, width, height, _ = parse_label_line(line)
        except LabelFault as fault:
            problems.append(f"line {number} is not a box: {fault}")
            continue
        name = names.get(class_id, f"#{class_id}")
        boxes.append(RawBox(name, x - width / 2, y - height / 2, x + width / 2, y + height / 2, relative=True))
    return tuple(boxes), tuple(problems)


def _find_yaml(where: Path, follow_links: bool | None) -> Path | None:
    if where.suffix.lower() in (".yaml", ".yml"):
        return where
    if where.is_file():
        raise DataError(f"no YOLO dataset at {where}", hint="a folder with data.yaml in it, or the path of that file")
    reach = Reach(where, follow_links)
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if reach.described(where / name).is_file():
            return where / name
    names = [name for name in reach.names(where)[0] if name.lower().endswith((".yaml", ".yml"))]
    others = [path for path in (where / name for name in names) if _is_described(path, follow_links)]
    return others[0] if len(others) == 1 else None


def _is_described(path: Path, follow_links: bool | None) -> bool:
    try:
        return bool(read_data_yaml(path, follow_links).splits)
    except DataError:
        return False


def _listed(
    data: YoloData, failed: list[dict[str, str]], notes: list[str], refused: list[Refusal]
) -> Iterator[_Listed]:
    """The photos of each split. Raises :class:`DataError` where only what is refused is named by a split."""
    for split, sources in data.splits.items():
        before, photos = len(refused), 0
        refused += data.refused.get(split, ())
        for source in sources:
            if source.is_dir():
                for path in data.reach.files(source, refused, SUFFIXES):
                    photos += 1
                    yield split, path
            elif source.is_file() and source.suffix.lower() == ".txt":
                for _, line in data.lines(source):
                    place = _locate(line, source.parent, data)
                    if isinstance(place, Path):
                        photos += 1
                        yield split, place
                    elif place is not None:
                        refused.append(place)
                    else:
                        key = Path(line).name if Path(line).is_absolute() else line
                        failed.append(failure(key, "missing", f"listed in {source.name}, but not there"))
            else:
                notes.append(f"{data.path.name} names a {split} split that is not there: {source.name}")
        if not photos and len(refused) > before:
            raise refusals_error(f"the {split} split of {data.path}", refused[before:])


def _locate(line: str, beside: Path, data: YoloData) -> Path | Refusal | None:
    """A listed photo. A list that was made elsewhere names folders of that machine: the longest tail that is here counts."""
    root, parts = data.path.parent, Path(line).parts
    tails = (root.joinpath(*parts[n:]) for n in range(1, len(parts)))
    found = data.reach.find(beside / line, root / line, *tails)
    if found is not None:
        return found
    return Refusal(line, "outside") if data.reach.is_outside(beside / line) else None


def _found(reach: Reach, refused: list[Refusal]) -> Iterator[_Listed]:
    photos = list(reach.files(reach.root, refused, SUFFIXES))
    inside = [path for path in photos if "images" in path.relative_to(reach.root).parts[:-1]]
    for path in inside or photos:
        yield split_of_folders(path.relative_to(reach.root).parts[:-1]), path


def _read_names(reach: Reach) -> dict[int, str]:
    for name in NAME_FILES:
        path = reach.described(reach.root / name)
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    return {}


def _labels_of(image: Path, reach: Reach) -> Path | Refusal | None:
    for path in (label_path(image), image.with_suffix(".txt")):
        refused = reach.check(path)
        if refused and refused.reason != "outside":
            return refused
        if refused is None and path.is_file():
            return path
    return None


def _root(root: Path, photos: list[Path]) -> Path:
    """The folder that keys are relative to: the dataset's own, or, where photos lie outside it, the one that holds them all."""
    folders = {os.path.normpath(path.parent.absolute()) for path in photos}
    own = os.path.normpath(root.absolute())
    if all(os.path.commonpath([own, folder]) == own for folder in folders):
        return root
    return Path(os.path.commonpath(sorted(folders)))


def _in_order(names: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(names[number] for number in sorted(names))
