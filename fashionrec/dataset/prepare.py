"""From a YOLO dataset that is already there to one of ours: five pinned classes, readable photos, a table, a fingerprint.

::

    DATASET/
      data.yaml  train|valid|test/{images,labels}
      annotations.csv    one row per box, ten columns
      dataset.json       source, settings, counts, fingerprint
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from fashionrec.config import ImagesConfig
from fashionrec.errors import DataError, ImageError
from fashionrec.files import dump_json, write_atomic
from fashionrec.images import read_photo
from fashionrec.types import CLASS_NAMES, resolve_class
from fashionrec.yolo_data import read_data_yaml, read_labels

COLUMNS = (
    "image_id",
    "image_path",
    "width",
    "height",
    "class_id",
    "class_name",
    "bbox_x_center",
    "bbox_y_center",
    "bbox_width",
    "bbox_height",
)
SPLITS = ("train", "valid", "test")


def prepare_yolo(
    source: Path,
    out: Path,
    *,
    label: str,
    limits: ImagesConfig,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Copy a YOLO dataset (a folder with data.yaml, or the yaml itself) into ``out``, its classes renumbered by name.

    Photos that cannot be read, boxes of other classes, outside the picture or of no area are dropped and counted. The copy
    appears whole or not at all. Raises :class:`DataError` if the source is no YOLO dataset, has none of the five classes,
    or ``out`` holds something already. ``label`` is what the dataset says of its origin.
    """
    data_yaml = source / "data.yaml" if source.is_dir() else source
    if not data_yaml.is_file():
        raise DataError(f"no YOLO dataset at {source}", hint="a folder with data.yaml in it, or the path of that file")
    data = read_data_yaml(data_yaml)
    classes = {number: resolve_class(name) for number, name in _names(data.names).items()}
    if not any(classes.values()):
        raise DataError(
            f"{data_yaml} has none of the classes {', '.join(CLASS_NAMES)}",
            hint=f"it has {', '.join(map(str, _names(data.names).values()))}",
        )
    dropped: Counter[str] = Counter()
    with whole_or_not(out) as temporary:
        photos = [(split, image) for split in SPLITS if split in data.splits for image in data.images(split)]
        for done, (split, image) in enumerate(photos, start=1):
            _copy_photo(image, temporary / split, classes, limits, dropped)
            if progress:
                progress(done, len(photos))
        present = [split for split in SPLITS if (temporary / split / "images").is_dir()]
        write_data_yaml(temporary, present)
        document = describe_dataset(temporary, source=label, settings={}, dropped=dict(dropped))
    return {**document, "path": str(out)}


@contextmanager
def whole_or_not(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` when all went well and is gone otherwise.

    Raises :class:`DataError` if ``out`` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder", hint="choose another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_data_yaml(folder: Path, splits: list[str]) -> None:
    """The data.yaml of a dataset of ours. It has no ``path``: splits are relative to the file."""
    keys = {"train": "train", "valid": "val", "test": "test"}
    document: dict[str, Any] = {keys[split]: f"{split}/images" for split in splits}
    document |= {"nc": len(CLASS_NAMES), "names": dict(enumerate(CLASS_NAMES))}
    write_atomic(folder / "data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def describe_dataset(
    folder: Path, *, source: str, settings: dict[str, Any], dropped: dict[str, int] | None = None
) -> dict[str, Any]:
    """Write ``annotations.csv`` and ``dataset.json`` of a dataset folder; returns what the latter holds, and the path."""
    counts: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    digest = hashlib.sha256()
    data = read_data_yaml(folder / "data.yaml")
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in SPLITS:
            for image in data.images(split) if split in data.splits else ():
                relative = image.relative_to(folder.resolve() if image.is_absolute() else folder).as_posix()
                counts[split] += 1
                digest.update(relative.encode() + b"\0" + hashlib.sha256(image.read_bytes()).digest())
                with Image.open(image) as opened:
                    width, height = opened.size
                for number, *box in read_labels(image):
                    name = CLASS_NAMES[int(number)]
                    boxes[name] += 1
                    digest.update(f"{int(number)} {' '.join(f'{value:.6f}' for value in box)}\n".encode())
                    row = [f"{split}/{image.stem}", relative, width, height, int(number), name]
                    writer.writerow([*row, *(f"{value:.6f}" for value in box)])
    document = {
        "source": source,
        "settings": settings,
        "counts": {
            **{split: counts[split] for split in SPLITS if counts[split]},
            **{name: boxes[name] for name in CLASS_NAMES},
        },
        "dropped": dropped or {},
        "fingerprint": digest.hexdigest(),
    }
    write_atomic(folder / "dataset.json", dump_json(document))
    return {"path": str(folder), **document}


def _copy_photo(
    image: Path, target: Path, classes: dict[int, str | None], limits: ImagesConfig, dropped: Counter[str]
) -> None:
    try:
        read_photo(image, limits)
    except ImageError as error:
        dropped[f"photos: {error.reason}"] += 1
        return
    lines = []
    seen = set()
    for number, *box in read_labels(image):
        name = classes.get(int(number))
        if name is None:
            dropped["boxes: not one of the five classes"] += 1
            continue
        x1, y1 = max(0.0, box[0] - box[2] / 2), max(0.0, box[1] - box[3] / 2)
        x2, y2 = min(1.0, box[0] + box[2] / 2), min(1.0, box[1] + box[3] / 2)
        if x2 - x1 <= 0 or y2 - y1 <= 0:
            dropped["boxes: outside the picture or of no area"] += 1
            continue
        line = f"{CLASS_NAMES.index(name)} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}"
        if line in seen:
            dropped["boxes: repeated"] += 1
            continue
        seen.add(line)
        lines.append(line)
    for sub in ("images", "labels"):
        (target / sub).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, target / "images" / image.name)
    (target / "labels" / f"{image.stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _names(names: Any) -> dict[int, str]:
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}
