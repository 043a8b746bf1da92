"""A dataset of ours in the formats of others: COCO and Pascal VOC. Both read back, by our readers, within half a pixel.

COCO, as COCO itself is laid out (pycocotools, torchvision, ultralytics, CVAT and Datumaro read it so)::

    OUT/annotations/instances_{train,val,test}.json    OUT/images/{train,val,test}/*

VOC, as the VOC devkit has it::

    OUT/Annotations/*.xml    OUT/JPEGImages/*    OUT/ImageSets/Main/{train,val,test}.txt
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.etree import ElementTree

from fashionrec.config import ImagesConfig
from fashionrec.dataset.prepare.whole import whole_or_not
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import YoloData, read_data_yaml
from fashionrec.labels.label_lines import read_labels
from fashionrec.photos.images import read_photo

#: Our splits as COCO and VOC call them.
SPLITS = {"train": "train", "valid": "val", "test": "test"}
#: A corner this close to a whole pixel is one: labels with six decimals move a corner by up to 0.006 pixels in 8,000.
WHOLE = 0.02

Progress = Callable[[int, int], None]


class _Photo(NamedTuple):
    path: Path
    name: str  # in the export, with suffix
    width: int
    height: int


class _Corners(NamedTuple):
    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float


def export_coco(dataset: Path, out: Path, limits: ImagesConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Write a dataset folder as COCO; category ids count from 1. Returns the path and the counts of images and boxes.

    Boxes are clipped to their picture, in pixels with four decimals. ``out`` appears whole or not at all. Raises
    :class:`DataError` for a dataset that is none, or where ``out`` holds something.
    """
    data = read_data_yaml(dataset)
    names = _names(data)
    categories = [{"id": n + 1, "name": name, "supercategory": "garment"} for n, name in names.items()]
    counts: Counter[str] = Counter()
    with whole_or_not(out) as folder:
        (folder / "annotations").mkdir()
        for split, photos in _copied(data, lambda split: folder / "images" / SPLITS[split], limits, progress):
            counts[split] = len(photos)
            with (folder / "annotations" / f"instances_{SPLITS[split]}.json").open("w", encoding="utf-8") as file:
                head = {"info": {"description": dataset.resolve().name}, "licenses": [], "categories": categories}
                file.write(json.dumps(head)[:-1])
                _write_rows(file, "images", _coco_images(photos))
                _write_rows(file, "annotations", _coco_annotations(photos, names, counts))
                file.write("}\n")
    return {"path": str(out), "counts": dict(counts)}


def export_voc(dataset: Path, out: Path, limits: ImagesConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Write a dataset folder as Pascal VOC. Returns the path and the counts of images and boxes.

    Corners count pixels from 1, both inclusive (``xmin = x1 + 1``, ``xmax = x2``), with two decimals where they are not whole.
    A box narrower than a pixel becomes one pixel wide, its middle kept. Photos of one name get names of their own. ``out``
    appears whole or not at all. Raises :class:`DataError` for a dataset that is none, or where ``out`` holds something.
    """
    data = read_data_yaml(dataset)
    names = _names(data)
    counts: Counter[str] = Counter()
    with whole_or_not(out) as folder:
        sets = folder / "ImageSets" / "Main"
        for part in (folder / "Annotations", sets):
            part.mkdir(parents=True)
        for split, photos in _copied(data, lambda _: folder / "JPEGImages", limits, progress):
            counts[split] = len(photos)
            for photo in photos:
                boxes = list(_boxes(photo, names))
                counts["boxes"] += len(boxes)
                tree = _voc_tree(photo, boxes, names)
                place = folder / "Annotations" / f"{Path(photo.name).stem}.xml"
                ElementTree.ElementTree(tree).write(place, encoding="utf-8")
            lines = "".join(f"{Path(photo.name).stem}\n" for photo in photos)
            (sets / f"{SPLITS[split]}.txt").write_text(lines, encoding="utf-8")
    return {"path": str(out), "counts": dict(counts)}


def _copied(
    data: YoloData, place: Callable[[str], Path], limits: ImagesConfig, progress: Progress | None
) -> Iterator[tuple[str, list[_Photo]]]:
    """For each split its photos, copied; no two in one folder have the same name up to the suffix, or but for case."""
    listed = {split: data.images(split) for split in data.splits}
    done, total = 0, sum(map(len, listed.values()))
    taken: set[tuple[Path, str]] = set()
    for split, paths in listed.items():
        folder = place(split)
        folder.mkdir(parents=True, exist_ok=True)
        photos = []
        for path in paths:
            read = read_photo(path, limits)
            stem = _free(_plain(path.stem), split, lambda stem: (folder, stem.casefold()) in taken)  # noqa: B023
            taken.add((folder, stem.casefold()))
            photos.append(_Photo(path, stem + path.suffix, read.width, read.height))
            shutil.copyfile(path, folder / photos[-1].name)
            done += 1
            if progress:
                progress(done, total)
        yield split, photos


def _plain(stem: str) -> str:
    """A name that a list of names and an XML file can hold."""
    readable = stem.encode("utf-8", errors="replace").decode()
    return re.sub(r"[\s\x00-\x1f\x7f\ufffe\uffff]", "_", readable)


def _free(stem: str, split: str, is_taken: Callable[[str], bool]) -> str:
    if not is_taken(stem):
        return stem
    wanted, number = f"{split}_{stem}", 1
    while is_taken(wanted):
        number += 1
        wanted = f"{split}_{stem}_{number}"
    return wanted


def _names(data: YoloData) -> dict[int, str]:
    if not data.splits:
        raise DataError(f"{data.path} has no splits", hint="make a dataset with `fashionrec fetch-dataset`")
    odd = [name for name in data.names.values() if not name.isprintable() or not name.strip()]
    if odd:
        raise DataError(f"{data.path} has a class name that other formats cannot hold: {odd[0]!r}")
    return dict(sorted(data.names.items()))


def _boxes(photo: _Photo, names: dict[int, str]) -> Iterator[_Corners]:
    """The photo's boxes in pixels, inside the picture. Raises :class:`DataError` for a class without a name."""
    for number, x, y, width, height in read_labels(photo.path).tolist():
        if int(number) not in names:
            raise DataError(f"{photo.path} has a box of class {int(number)}, which data.yaml does not name")
        yield _Corners(
            int(number),
            max(0.0, (x - width / 2) * photo.width),
            max(0.0, (y - height / 2) * photo.height),
            min(float(photo.width), (x + width / 2) * photo.width),
            min(float(photo.height), (y + height / 2) * photo.height),
        )


def _write_rows(file: IO[str], key: str, rows: Iterable[dict[str, Any]]) -> None:
    """A list of a JSON document, a row a line, none of it held."""
    file.write(f', "{key}": [')
    for n, row in enumerate(rows):
        file.write(("," if n else "") + "\n" + json.dumps(row))
    file.write("]")


def _coco_images(photos: list[_Photo]) -> Iterator[dict[str, Any]]:
    for number, photo in enumerate(photos, start=1):
        yield {"id": number, "file_name": photo.name, "width": photo.width, "height": photo.height}


def _coco_annotations(photos: list[_Photo], names: dict[int, str], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, photo in enumerate(photos, start=1):
        for box in _boxes(photo, names):
            number += 1
            counts["boxes"] += 1
            x, y, width, height = (round(value, 4) for value in (box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1))
            yield {
                "id": number,
                "image_id": image,
                "category_id": box.class_id + 1,
                "bbox": [x, y, width, height],
                "area": round(width * height, 4),
                "iscrowd": 0,
                "segmentation": [],
            }


def _voc_tree(photo: _Photo, boxes: list[_Corners], names: dict[int, str]) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _add(root, folder="JPEGImages", filename=photo.name)
    _add(ElementTree.SubElement(root, "size"), width=photo.width, height=photo.height, depth=3)
    _add(root, segmented=0)
    for box in boxes:
        found = ElementTree.SubElement(root, "object")
        _add(found, name=names[box.class_id], pose="Unspecified", truncated=0, difficult=0)
        x1, x2 = _at_least_a_pixel(box.x1, box.x2, photo.width)
        y1, y2 = _at_least_a_pixel(box.y1, box.y2, photo.height)
        corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        _add(ElementTree.SubElement(found, "bndbox"), **{name: _corner(value) for name, value in corners.items()})
    ElementTree.indent(root)
    return root


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


def _at_least_a_pixel(low: float, high: float, side: int) -> tuple[float, float]:
    if high - low >= 1:
        return low, high
    start = min(max(0.0, (low + high - 1) / 2), side - 1.0)
    return start, start + 1


def _corner(value: float) -> str:
    return str(round(value)) if abs(value - round(value)) <= WHOLE else f"{value:.2f}"
