"""Writers of COCO and VOC: round trips keep every box, and others read what we write."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fashionrec.dataset.exports.formats import export_coco, export_voc
from fashionrec.dataset.source import Source
from fashionrec.dataset.sources import read_local
from fashionrec.errors import DataError, ImageError
from fashionrec.types import CLASS_NAMES
from tests.test_dataset_formats import LIMITS, box, photo, text, voc


class Truth(NamedTuple):
    """One generated photo: its name, size, and boxes as class, x1, y1, x2, y2 in pixels."""

    name: str
    size: tuple[int, int]
    boxes: tuple[tuple[str, float, float, float, float], ...]


LONG = st.integers(1, 8000)
SHORT = st.integers(1, 40)
SIDES = st.tuples(LONG, SHORT) | st.tuples(SHORT, LONG) | st.just((8000, 3)) | st.just((1, 8000))


@st.composite
def worlds(draw: st.DrawFn, digits: int) -> list[Truth]:
    """Photos up to 8,000 pixels a side with boxes inside them, a pixel wide or more, at so many
    decimals.
    """
    photos = []
    for number in range(draw(st.integers(1, 3))):
        size = draw(SIDES)
        boxes = []
        for _ in range(draw(st.integers(0, 5))):
            spans = []
            for side in size:
                step = 10**digits
                low = draw(st.integers(0, (side - 1) * step))
                high = draw(st.integers(low + step, side * step))
                spans.append((low / step, high / step))
            (x1, x2), (y1, y2) = spans
            boxes.append((draw(st.sampled_from(CLASS_NAMES)), x1, y1, x2, y2))
        photos.append(Truth(f"p{number}", size, tuple(boxes)))
    return photos


def write_coco(truth: list[Truth], folder: Path) -> Path:
    """COCO, by a writer of the test's own."""
    names = {name: number for number, name in enumerate(CLASS_NAMES, start=10)}
    document = {
        "images": [
            {"id": n, "file_name": f"{t.name}.png", "width": t.size[0], "height": t.size[1]}
            for n, t in enumerate(truth)
        ],
        "annotations": [
            box(n, [x1, y1, x2 - x1, y2 - y1], names[name])
            for n, t in enumerate(truth)
            for name, x1, y1, x2, y2 in t.boxes
        ],
        "categories": [{"id": number, "name": name} for name, number in names.items()],
    }
    for t in truth:
        photo(folder / "train" / f"{t.name}.png", t.size)
    text(folder / "annotations" / "instances_train.json", json.dumps(document))
    return folder


def write_voc(truth: list[Truth], folder: Path) -> Path:
    """VOC as its devkit has it: pixels from 1, both inclusive."""
    for t in truth:
        photo(folder / "JPEGImages" / f"{t.name}.png", t.size)
        objects = [(name, x1 + 1, y1 + 1, x2, y2) for name, x1, y1, x2, y2 in t.boxes]
        voc(folder / "Annotations" / f"{t.name}.xml", objects, f"{t.name}.png", size=f"{t.size[0]}x{t.size[1]}")
    return folder


def write_ours(source: Source, folder: Path) -> Path:
    """A dataset of ours, its labels with six decimals, in the order of the source."""
    for image in source.images:
        assert image.size is not None
        width, height = image.size
        place = folder / "train" / "images" / image.path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image.path, place)
        lines = ""
        for label, x1, y1, x2, y2, _ in image.boxes:
            x, y, w, h = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            lines += f"{CLASS_NAMES.index(label)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"
        text(folder / "train" / "labels" / f"{image.path.stem}.txt", lines)
    text(folder / "data.yaml", yaml.safe_dump({"train": "train/images", "names": dict(enumerate(CLASS_NAMES))}))
    return folder


def parsed_coco(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what is in an exported COCO, by the test's own eyes."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for path in (folder / "annotations").glob("*.json"):
        document = json.loads(path.read_text())
        names = {row["id"]: row["name"] for row in document["categories"]}
        files = {row["id"]: row["file_name"] for row in document["images"]}
        found |= {Path(name).stem: [] for name in files.values()}
        for row in document["annotations"]:
            x, y, w, h = row["bbox"]
            assert row["area"] == pytest.approx(w * h, abs=1e-3)
            found[Path(files[row["image_id"]]).stem].append((names[row["category_id"]], x, y, x + w, y + h))
    return found


def parsed_voc(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what is in an exported VOC, as edges from 0."""
    found = {}
    for path in (folder / "Annotations").glob("*.xml"):
        rows = []
        for item in ElementTree.parse(path).getroot().findall("object"):
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{mark}", "")) for mark in ("xmin", "ymin", "xmax", "ymax"))
            rows.append((item.findtext("name"), x1 - 1, y1 - 1, x2, y2))
        found[path.stem] = rows
    return found


def farthest(truth: list[Truth], found: dict[str, list[tuple[Any, ...]]]) -> float:
    """The largest difference of an edge in pixels; classes, photos and order must be the same."""
    assert {t.name: [b[0] for b in t.boxes] for t in truth} == {
        name: [b[0] for b in rows] for name, rows in found.items()
    }
    return max(
        (
            abs(a - b)
            for t in truth
            for one, other in zip(t.boxes, found[t.name], strict=True)
            for a, b in zip(one[1:], other[1:], strict=True)
        ),
        default=0.0,
    )


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


Read = Callable[[str, Path, str], Source]
Export = Callable[..., Any]


def through_coco(truth: list[Truth], read: Read = read_local, export: Export = export_coco) -> float:
    with scratch() as work:
        source = read("coco", write_coco(truth, work / "in"), "l")
        export(write_ours(source, work / "ours"), work / "out", LIMITS)
        again = read("coco", work / "out", "l")
        assert {i.path.stem: i.size for i in again.images} == {t.name: t.size for t in truth}
        assert farthest(truth, {i.path.stem: [tuple(b[:5]) for b in i.boxes] for i in again.images}) <= 0.5
        return farthest(truth, parsed_coco(work / "out"))


def through_voc(truth: list[Truth], read: Read = read_local, export: Export = export_voc) -> float:
    with scratch() as work:
        source = read("voc", write_voc(truth, work / "in"), "l")
        export(write_ours(source, work / "ours"), work / "out", LIMITS)
        again = read("voc", work / "out", "l")
        assert {i.path.stem: i.size for i in again.images} == {t.name: t.size for t in truth}
        assert farthest(truth, {i.path.stem: [tuple(b[:5]) for b in i.boxes] for i in again.images}) <= 0.5
        return farthest(truth, parsed_voc(work / "out"))


ROUNDS = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@ROUNDS
@given(worlds(digits=2))
def test_coco_to_yolo_and_back_keeps_every_box(truth: list[Truth]) -> None:
    """Six decimals move an edge by 0.75 millionths of a side: 0.006 pixels in 8,000.

    The bar is half a pixel.
    """
    assert through_coco(truth) <= 0.75e-6 * 8000 + 1e-4


@ROUNDS
@given(worlds(digits=0))
def test_voc_to_yolo_and_back_keeps_every_box(truth: list[Truth]) -> None:
    """Whole pixels come out as the same whole pixels."""
    assert through_voc(truth) == 0


@ROUNDS
@given(worlds(digits=1))
def test_voc_with_fractions_too(truth: list[Truth]) -> None:
    assert through_voc(truth) <= 0.75e-6 * 8000 + 0.02


WORLD = [
    Truth("p0", (8000, 30), (("skirt&pants", 13, 4, 7777, 29), ("top", 0, 0, 8000, 30))),
    Truth("p1", (30, 20), ()),
]


def off_by_one(dx: float) -> Read:
    """A reader with a planted fault: boxes a pixel narrower, or wider."""
    import dataclasses

    def moved(kind: str, where: Path, label: str) -> Source:
        source = read_local(kind, where, label)
        images = [dataclasses.replace(i, boxes=tuple(b._replace(x1=b.x1 + dx) for b in i.boxes)) for i in source.images]
        return dataclasses.replace(source, images=tuple(images))

    return moved


def spoilt(export: Export, files: str, change: Callable[[str], str], *, before: bool = False) -> Export:
    """An exporter with a planted fault: in what it reads (``before``) or in what it writes."""

    def wrong(ours: Path, out: Path, *rest: Any) -> Any:
        if before:
            spoil(ours, files, change)
        done = export(ours, out, *rest)
        if not before:
            spoil(out, files, change)
        return done

    return wrong


def spoil(folder: Path, files: str, change: Callable[[str], str]) -> None:
    for path in folder.rglob(files):
        path.write_text(change(path.read_text()))


def corner_from_zero(xml: str) -> str:
    return re.sub(r"<([xy]m[inax]+)>(\d+)<", lambda found: f"<{found[1]}>{int(found[2]) - 1}<", xml)


def box_cut_off(document: str) -> str:
    """Pixels cut off to whole ones, and from 1."""
    found = json.loads(document)
    for row in found["annotations"]:
        row["bbox"] = [float(int(value)) + 1 for value in row["bbox"]]
        row["area"] = row["bbox"][2] * row["bbox"][3]
    return json.dumps(found)


def swapped(labels: str) -> str:
    """Labels whose x and y are exchanged."""
    rows = [line.split() for line in labels.splitlines()]
    return "".join(" ".join(row[n] for n in (0, 2, 1, 4, 3)) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("through", "fault"),
    [
        (through_voc, {"read": off_by_one(1)}),
        (through_voc, {"read": off_by_one(-1)}),
        (through_voc, {"export": spoilt(export_voc, "*.xml", corner_from_zero)}),
        (through_voc, {"export": spoilt(export_voc, "labels/*.txt", swapped, before=True)}),
        (through_coco, {"read": off_by_one(1)}),
        (through_coco, {"export": spoilt(export_coco, "instances_*.json", box_cut_off)}),
        (through_coco, {"export": spoilt(export_coco, "labels/*.txt", swapped, before=True)}),
    ],
)
def test_the_round_trips_catch_a_planted_fault(through: Callable[..., float], fault: dict[str, Any]) -> None:
    assert through(WORLD) <= 0.5
    try:
        caught = through(WORLD, **fault) > 0.5
    except AssertionError:
        caught = True
    assert caught


def ours(root: Path, splits: tuple[str, ...] = ("train", "valid", "test"), names: Any = CLASS_NAMES) -> Path:
    """A dataset of ours with two photos in each split, the first with two boxes."""
    for split in splits:
        for name, lines in (("a", "2 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.5 0.5\n"), ("b", "")):
            photo(root / split / "images" / f"{name}.png", (40, 20))
            text(root / split / "labels" / f"{name}.txt", lines)
    keys = {"valid": "val"}
    text(root / "data.yaml", yaml.safe_dump({**{keys.get(s, s): f"{s}/images" for s in splits}, "names": list(names)}))
    return root


def test_coco_as_others_expect_it(tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    document = export_coco(
        ours(tmp_path / "ds"), tmp_path / "out", LIMITS, lambda done, total: ticks.append((done, total))
    )
    assert document == {"path": str(tmp_path / "out"), "counts": {"train": 2, "valid": 2, "test": 2, "boxes": 6}}
    assert ticks == [(n, 6) for n in range(1, 7)]
    made = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    splits = ("test", "train", "val")
    assert made == [f"annotations/instances_{s}.json" for s in splits] + [
        f"images/{s}/{n}.png" for s in splits for n in "ab"
    ]
    train = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert train["categories"][2] == {"id": 3, "name": "skirt&pants", "supercategory": "garment"}
    assert train["images"] == [
        {"id": n, "file_name": f"{f}.png", "width": 40, "height": 20} for n, f in ((1, "a"), (2, "b"))
    ]
    first = {
        "id": 1,
        "image_id": 1,
        "category_id": 3,
        "bbox": [10.0, 5.0, 20.0, 10.0],
        "area": 200.0,
        "iscrowd": 0,
        "segmentation": [],
    }
    assert train["annotations"][0] == first
    assert train["annotations"][1]["bbox"] == [0.0, 0.0, 20.0, 10.0]
    again = read_local("coco", tmp_path / "out", "l")
    assert Counter(image.split for image in again.images) == {"train": 2, "valid": 2, "test": 2}
    assert again.notes == ()


def test_coco_is_read_by_pycocotools_and_torchvision(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    datasets = pytest.importorskip("torchvision.datasets")
    export_coco(ours(tmp_path / "ds"), tmp_path / "out", LIMITS)
    loaded = datasets.CocoDetection(
        tmp_path / "out/images/train", str(tmp_path / "out/annotations/instances_train.json")
    )
    assert len(loaded) == 2
    image, rows = loaded[0]
    assert (image.size, [row["bbox"] for row in rows]) == ((40, 20), [[10, 5, 20, 10], [0, 0, 20, 10]])


def test_coco_is_read_by_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converter = pytest.importorskip("ultralytics.data.converter")
    export_coco(ours(tmp_path / "ds", ("train",)), tmp_path / "out", LIMITS)
    monkeypatch.chdir(tmp_path)
    converter.convert_coco(str(tmp_path / "out/annotations"), str(tmp_path / "back"), cls91to80=False)
    assert [line.split() for line in (tmp_path / "back/labels/train/a.txt").read_text().splitlines()] == [
        ["2", "0.5", "0.5", "0.5", "0.5"],
        ["0", "0.25", "0.25", "0.5", "0.5"],
    ]


def test_voc_as_others_expect_it(tmp_path: Path) -> None:
    root = ours(tmp_path / "ds", ("train", "valid"))
    photo(root / "train" / "images" / "my shop\u00e9.jpg", (40, 20))
    document = export_voc(root, tmp_path / "out", LIMITS)
    assert document["counts"] == {"train": 3, "valid": 2, "boxes": 4}
    sets = tmp_path / "out" / "ImageSets" / "Main"
    assert (sets / "train.txt").read_text(encoding="utf-8") == "a\nb\nmy_shop\u00e9\n"
    assert (sets / "val.txt").read_text() == "valid_a\nvalid_b\n"  # photos of one name: none is lost
    assert (tmp_path / "out/Annotations/b.xml").is_file()
    raw = (tmp_path / "out" / "Annotations" / "valid_a.xml").read_text()
    assert "<name>skirt&amp;pants</name>" in raw
    tree = ElementTree.fromstring(raw)
    assert tree.findtext("filename") == "valid_a.png"
    assert [tree.findtext(f"size/{name}") for name in ("width", "height", "depth")] == ["40", "20", "3"]
    assert [[e.text for e in b] for b in tree.iter("bndbox")] == [["11", "6", "30", "15"], ["1", "1", "20", "10"]]
    again = read_local("voc", tmp_path / "out", "l")
    assert Counter(image.split for image in again.images) == {"train": 3, "valid": 2}
    assert (again.notes, again.failed) == ((), ())


def test_voc_a_box_narrower_than_a_pixel_stays_within_half_a_pixel(tmp_path: Path) -> None:
    root = ours(tmp_path / "ds", ("train",))
    text(root / "train/labels/a.txt", "0 0.9999 0.5 0.0001 0.5\n0 0.5 0.0001 0.5 0.0002\n1 0.5 0.5 0.01 0.5\n")
    export_voc(root, tmp_path / "out", LIMITS)
    for found, (x1, x2) in zip(
        parsed_voc(tmp_path / "out")["a"], ((39.994, 39.998), (10, 30), (19.8, 20.2)), strict=True
    ):
        assert found[3] - found[1] >= 0.999
        assert found[4] - found[2] >= 0.999
        assert (abs(found[1] - x1) <= 0.5 or found[1] == 39, abs(found[3] - x2) <= 0.5) == (True, True)


@pytest.mark.parametrize("export", [export_coco, export_voc])
def test_an_export_is_whole_or_not_there(export: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    text(tmp_path / "full" / "mine.txt", "kept")
    with pytest.raises(DataError, match="not an empty folder"):
        export(ours(tmp_path / "ds"), tmp_path / "full", LIMITS)
    assert (tmp_path / "full" / "mine.txt").read_text() == "kept"
    for plant, error in (
        (lambda: text(tmp_path / "ds/test/labels/b.txt", "0 1 2"), DataError),
        (lambda: text(tmp_path / "ds/test/labels/b.txt", "9 .5 .5 1 1"), DataError),
        (lambda: text(tmp_path / "ds/test/images/b.png", "no image"), ImageError),
        (lambda: text(tmp_path / "ds/data.yaml", 'names: ["a\\x01"]\ntrain: train/images'), DataError),
        (lambda: text(tmp_path / "ds/data.yaml", "names: [top]"), DataError),
    ):
        plant()
        with pytest.raises(error):
            export(tmp_path / "ds", tmp_path / "out", LIMITS)
        assert {path.name for path in tmp_path.iterdir()} == {"ds", "full"}
