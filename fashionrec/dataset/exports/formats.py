"""Export of a dataset as COCO or Pascal VOC. Our readers restore both within half a pixel.

COCO, in the layout of COCO itself (read by pycocotools, torchvision, ultralytics, CVAT and
Datumaro)::

    OUT/annotations/instances_{train,val,test}.json    OUT/images/{train,val,test}/*

VOC, in the layout of the VOC devkit::

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

#: Our splits by their COCO and VOC names.
SPLITS = {"train": "train", "valid": "val", "test": "test"}
#: Rounding tolerance of corners in pixels: six decimals shift a corner by up to 0.006 in 8,000.
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
    """Write a dataset as COCO; category ids start at 1.

    Return the path and the counts of images and boxes.

    Boxes are clipped to their picture, in pixels with four decimals. ``out`` appears complete or
    not at all. Raises :class:`DataError` for an invalid dataset, or if ``out`` is not empty.
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
    """Write a dataset as Pascal VOC. Return the path and the counts of images and boxes.

    Corners count pixels from 1, both inclusive (``xmin = x1 + 1``, ``xmax = x2``), with two
    decimals unless they are integers. A box narrower than a pixel is widened to one pixel around
    its centre. Photos with equal names are renamed. ``out`` appears complete or not at all. Raises
    :class:`DataError` for an invalid dataset, or if ``out`` is not empty.
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
                path = folder / "Annotations" / f"{Path(photo.name).stem}.xml"
                ElementTree.ElementTree(tree).write(path, encoding="utf-8")
            lines = "".join(f"{Path(photo.name).stem}\n" for photo in photos)
            (sets / f"{SPLITS[split]}.txt").write_text(lines, encoding="utf-8")
    return {"path": str(out), "counts": dict(counts)}


def _copied(
    data: YoloData, folder_of: Callable[[str], Path], limits: ImagesConfig, progress: Progress | None
) -> Iterator[tuple[str, list[_Photo]]]:
    """Copy the photos and yield them per split.

    Names in one folder differ without suffix and case.
    """
    listed = {split: data.images(split) for split in data.splits}
    done, total = 0, sum(map(len, listed.values()))
    used: set[tuple[Path, str]] = set()
    for split, paths in listed.items():
        folder = folder_of(split)
        folder.mkdir(parents=True, exist_ok=True)
        photos = []
        for path in paths:
            decoded = read_photo(path, limits)
            stem = _unique(_safe_stem(path.stem), split, lambda stem: (folder, stem.casefold()) in used)  # noqa: B023
            used.add((folder, stem.casefold()))
            photos.append(_Photo(path, stem + path.suffix, decoded.width, decoded.height))
            shutil.copyfile(path, folder / photos[-1].name)
            done += 1
            if progress:
                progress(done, total)
        yield split, photos


def _safe_stem(stem: str) -> str:
    """Return a name that is valid in a list of names and in XML."""
    text = stem.encode("utf-8", errors="replace").decode()
    return re.sub(r"[\s\x00-\x1f\x7f\ufffe\uffff]", "_", text)


def _unique(stem: str, split: str, is_used: Callable[[str], bool]) -> str:
    if not is_used(stem):
        return stem
    name, number = f"{split}_{stem}", 1
    while is_used(name):
        number += 1
        name = f"{split}_{stem}_{number}"
    return name


def _names(data: YoloData) -> dict[int, str]:
    if not data.splits:
        raise DataError(f"{data.path} has no splits", hint="create a dataset with `fashionrec fetch-dataset`")
    invalid = [name for name in data.names.values() if not name.isprintable() or not name.strip()]
    if invalid:
        raise DataError(f"{data.path} has a class name that cannot be exported: {invalid[0]!r}")
    return dict(sorted(data.names.items()))


def _boxes(photo: _Photo, names: dict[int, str]) -> Iterator[_Corners]:
    """Yield the photo's boxes in pixels, clipped.

    Raises :class:`DataError` for a class without a name.
    """
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
    """Stream a list into a JSON document, one row per line."""
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
        element = ElementTree.SubElement(root, "object")
        _add(element, name=names[box.class_id], pose="Unspecified", truncated=0, difficult=0)
        x1, x2 = _widen_to_pixel(box.x1, box.x2, photo.width)
        y1, y2 = _widen_to_pixel(box.y1, box.y2, photo.height)
        corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        _add(ElementTree.SubElement(element, "bndbox"), **{name: _corner(value) for name, value in corners.items()})
    ElementTree.indent(root)
    return root


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


def _widen_to_pixel(low: float, high: float, side: int) -> tuple[float, float]:
    if high - low >= 1:
        return low, high
    start = min(max(0.0, (low + high - 1) / 2), side - 1.0)
    return start, start + 1


def _corner(value: float) -> str:
    return str(round(value)) if abs(value - round(value)) <= WHOLE else f"{value:.2f}"
