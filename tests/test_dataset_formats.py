"""Readers of YOLO, COCO, VOC and plain folders: what each says of planted datasets."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fashionrec.config import Config, load_config
from fashionrec.dataset.archives import open_archive
from fashionrec.dataset.exports.formats import export_coco, export_voc
from fashionrec.dataset.source import Source, SourceImage
from fashionrec.dataset.sources import KINDS, looks_like, read_local, split_spec
from fashionrec.dataset.sources import voc as voc_reader
from fashionrec.dataset.sources.coco import mask_corners, unpack_runs
from fashionrec.errors import DataError

LIMITS = load_config(env={}).config.images


def photo(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("1" if path.suffix == ".png" else "RGB", size).save(path)
    return path


def text(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def by_key(source: Source) -> dict[str, SourceImage]:
    found = {image.key: image for image in source.images}
    assert len(found) == len(source.images)
    return found


def corners(image: SourceImage) -> list[tuple[Any, ...]]:
    return [(box.label, *(round(value, 6) for value in box[1:5])) for box in image.boxes]


def reasons(source: Source) -> dict[str, str]:
    return {row["key"]: row["reason"] for row in source.failed}


def messages(source: Source) -> dict[str, str]:
    return {row["key"]: row["message"] for row in source.failed}


# --- what a source is called
# ---------------------------------------------------------------------------------------------------


def test_a_source_is_a_kind_and_the_rest() -> None:
    assert split_spec("coco:C:/data:1.zip") == ("coco", "C:/data:1.zip")
    assert split_spec("synthetic") == ("synthetic", "")
    assert {split_spec(f"{kind}:x")[0] for kind in KINDS if kind != "synthetic"} == set(KINDS) - {"synthetic"}
    for wrong in ("", "coco", "coco:", "synthetic:9", "kitti:x", "data"):
        with pytest.raises(DataError) as caught:
            split_spec(wrong)
        assert caught.value.hint


def test_a_path_alone_is_told_what_it_looks_like(tmp_path: Path) -> None:
    yolo(tmp_path / "y", {"train/images/a.jpg": "0 .5 .5 1 1"})
    with pytest.raises(DataError) as caught:
        split_spec(str(tmp_path / "y"))
    assert caught.value.hint == f"yolo:{tmp_path / 'y'}"


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc", "folder"])
def test_a_folder_of_another_format_is_recognized(kind: str, tmp_path: Path) -> None:
    yolo(tmp_path / "yolo", {"train/images/a.jpg": "0 .5 .5 1 1"})
    coco(tmp_path / "coco" / "annotations" / "train.json", images=[(1, "a.jpg")], photos=tmp_path / "coco" / "images")
    voc(tmp_path / "voc" / "Annotations" / "a.xml", [("top", 1, 1, 8, 6)])
    photo(tmp_path / "voc" / "JPEGImages" / "a.jpg")
    photo(tmp_path / "folder" / "a.jpg")
    (tmp_path / "nothing").mkdir()
    assert looks_like(tmp_path / kind) == kind
    for other in ("yolo", "coco", "voc"):
        if other != kind:
            with pytest.raises(DataError) as caught:
                read_local(other, tmp_path / kind, "x")
            assert f"{kind}:" in caught.value.hint or kind == "folder"
    for where in (tmp_path / "none", tmp_path / "nothing"):
        with pytest.raises(DataError) as caught:
            read_local(kind, where, "x")
        assert "\n" not in str(caught.value)


# --- YOLO
# ---------------------------------------------------------------------------------------------------


def yolo(root: Path, labels: dict[str, str | None], names: Any = ("top", "pants"), **document: Any) -> Path:
    """Photos, their label files (None: no file), and a data.yaml."""
    for name, content in labels.items():
        path = photo(root / name)
        if content is not None:
            text(Path(str(path.with_suffix(".txt")).replace("/images/", "/labels/")), content)
    if names is not None:
        splits = {
            "val" if s == "valid" else s: f"{s}/images" for s in ("train", "valid", "test") if (root / s).is_dir()
        }
        text(
            root / "data.yaml",
            yaml.safe_dump({**splits, "names": names if isinstance(names, dict) else list(names), **document}),
        )
    return root


def test_yolo_boxes_polygons_and_lines_that_are_none(tmp_path: Path) -> None:
    lines = [
        "0 0.5 0.5 0.4 0.2",
        "",
        "7 0.5 0.5 1 1",
        "1 0.1 0.2 0.5 0.2 0.3 0.9",
        "top 0.5 0.5 1 1",
        "0 0.5 0.5 1",
        "0 nan 0.5 1 1",
        "0 inf 0.5 1 1",
        "-1 .5 .5 1 1",
        "1.5 .5 .5 1 1",
        "0 0.5 0.5 1 1 0.9",
    ]
    root = yolo(tmp_path, {"train/images/a.jpg": "\ufeff" + "\r\n".join(lines)})
    image = by_key(read_local("yolo", root, "l"))["train/images/a.jpg"]
    assert corners(image) == [("top", 0.3, 0.4, 0.7, 0.6), ("#7", 0.0, 0.0, 1.0, 1.0), ("pants", 0.1, 0.2, 0.5, 0.9)]
    assert all(box.relative for box in image.boxes)
    assert [problem.split()[1] for problem in image.problems] == ["5", "6", "7", "8", "9", "10", "11"]
    assert image.problems[0] == "line 5 is not a valid box: 'top' is not a number"


def test_yolo_label_files_that_are_no_text(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"train/images/a.jpg": "x"})
    (root / "train/labels/a.txt").write_bytes(b"\xff\xfe\x00\x9f")
    assert len(by_key(read_local("yolo", root, "l"))["train/images/a.jpg"].problems) == 1


def test_yolo_photos_without_a_label_file_and_without_a_box(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"train/images/a.jpg": "", "valid/images/b.jpg": None, "test/images/c.jpg": "0 .5 .5 1 1"})
    source = read_local("yolo", root, "l")
    assert {key: (i.labelled, i.split, len(i.boxes)) for key, i in by_key(source).items()} == {
        "train/images/a.jpg": (True, "train", 0),
        "valid/images/b.jpg": (False, "valid", 0),
        "test/images/c.jpg": (True, "test", 1),
    }
    assert (source.names, source.label, source.has_labels, source.failed) == (("top", "pants"), "l", True, ())


def test_yolo_what_is_listed_and_not_there_and_what_has_no_photo(tmp_path: Path) -> None:
    root = yolo(
        tmp_path, {"images/a.jpg": "0 .5 .5 1 1", "images/b.jpg": "1 .5 .5 1 1"}, train="train.txt", test="gone"
    )
    text(
        root / "train.txt", "./images/a.jpg\n/elsewhere/of/him/images/b.jpg\nimages\\a.jpg\nimages/c.jpg\n/his/d.jpg\n"
    )
    text(root / "labels" / "lost.txt", "0 .5 .5 1 1")
    text(root / "labels" / "classes.txt", "top")
    source = read_local("yolo", root, "l")
    assert sorted(by_key(source)) == ["images/a.jpg", "images/b.jpg"]
    assert {image.split for image in source.images} == {"train"}
    assert reasons(source) == {"images/c.jpg": "missing", "d.jpg": "missing", "labels/lost.txt": "orphan-label"}
    assert messages(source)["d.jpg"] == "listed in train.txt, but missing"
    assert source.notes == (
        "data.yaml names a test split that does not exist: gone",
        "1 photo listed twice; the first split counts: images/a.jpg",
        "1 label file without a photo: labels/lost.txt",
    )


def test_yolo_a_photo_that_a_list_leaves_out_is_no_lost_label(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"images/a.jpg": "0 .5 .5 1 1", "images/b.jpg": "1 .5 .5 1 1"}, train="train.txt")
    text(root / "train.txt", "images/a.jpg\n")
    assert read_local("yolo", root, "l").failed == ()


def test_yolo_copies_of_one_photo_are_one_group(tmp_path: Path) -> None:
    names = ["a_jpg.rf.0f1e.jpg", "a_jpg.rf.77aa.jpg", "b.rf.c_png.rf.1234.jpg", "c.jpg", ".rf.jpg"]
    root = yolo(tmp_path, {f"train/images/{name}": "" for name in names})
    groups = {image.path.name: image.group for image in read_local("yolo", root, "l").images}
    assert groups == {names[0]: "a_jpg", names[1]: "a_jpg", names[2]: "b.rf.c_png", names[3]: None}


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (("images/train/a.jpg", "labels/train/a.txt", "classes.txt"), "train"),
        (("val/images/a.jpg", "val/labels/a.txt", "classes.txt"), "valid"),
        (("images/a.jpg", "labels/a.txt", "labels/classes.txt"), None),
        (("test/a.jpg", "test/a.txt", "obj.names"), "test"),
        (("images/x/images/a.jpg", "images/x/labels/a.txt", "classes.txt"), None),
        (("images/a.jpg", "images/a.txt", "classes.txt"), None),
    ],
)
def test_yolo_without_a_yaml(files: tuple[str, str, str], split: str | None, tmp_path: Path) -> None:
    photo(tmp_path / files[0])
    text(tmp_path / files[1], "1 .5 .5 1 1")
    text(tmp_path / files[2], "top\nskirt&pants\n")
    source = read_local("yolo", tmp_path, "l")
    (image,) = source.images
    assert (image.key, image.split, image.labelled) == (files[0], split, True)
    assert (image.boxes[0].label, source.names) == ("skirt&pants", ("top", "skirt&pants"))
    assert source.failed == ()


def test_yolo_without_names_and_other_photos_around(tmp_path: Path) -> None:
    photo(tmp_path / "plots" / "curve.png")
    photo(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", "1 .5 .5 1 1")
    source = read_local("yolo", tmp_path, "l")
    assert [image.key for image in source.images] == ["images/a.jpg"]
    assert source.images[0].boxes[0].label == "#1"
    assert "only known by number" in source.notes[0]


def test_yolo_by_its_yaml_wherever_that_is(tmp_path: Path) -> None:
    yolo(tmp_path / "ds", {"train/images/a.jpg": "5 .5 .5 1 1"}, names={5: "dress"})
    here = read_local("yolo", tmp_path / "ds" / "data.yaml", "l")
    assert [(image.key, image.boxes[0].label) for image in here.images] == [("train/images/a.jpg", "dress")]
    (tmp_path / "cfg").mkdir()
    text(tmp_path / "cfg" / "mine.yaml", yaml.safe_dump({"path": "../ds", "train": "train/images", "names": ["top"]}))
    away = read_local("yolo", tmp_path / "cfg" / "mine.yaml", "l")
    assert [image.key for image in away.images] == ["a.jpg"]  # relative to what holds all photos: no machine's path
    assert len(read_local("yolo", tmp_path / "cfg", "l").images) == 1  # the only yaml there


@pytest.mark.parametrize("names", [None, 7, {"a": "b"}])
def test_yolo_names_that_make_no_sense(names: Any, tmp_path: Path) -> None:
    root = yolo(tmp_path, {"train/images/a.jpg": ""})
    text(root / "data.yaml", yaml.safe_dump({"train": "train/images", "names": names}))
    with pytest.raises(DataError, match="not a YOLO dataset"):
        read_local("yolo", root, "l")


# --- COCO
# ---------------------------------------------------------------------------------------------------

CATEGORIES = ((3, "top"), (9, "skirt&pants"))


def coco(
    path: Path,
    images: list[tuple[Any, str]],
    annotations: list[dict[str, Any]] | None = None,
    photos: Path | None = None,
    categories: Any = CATEGORIES,
) -> Path:
    document = {
        "images": [{"id": n, "file_name": name, "width": 80, "height": 60} for n, name in images],
        "annotations": annotations or [],
        "categories": [{"id": n, "name": name} for n, name in categories],
    }
    if photos:
        for _, name in images:
            photo(photos / name)
    text(path, json.dumps(document))
    return path


def box(image: Any, bbox: Any, category: Any = 3, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "bbox": bbox, **more}


@pytest.mark.parametrize(
    ("file", "name", "at", "split"),
    [
        ("annotations/instances_train2017.json", "a.jpg", "train2017/a.jpg", "train"),
        ("annotations/instances_val2017.json", "a.jpg", "images/val2017/a.jpg", "valid"),
        ("annotations/instances_test.json", "a.jpg", "images/test/a.jpg", "test"),
        ("annotations/train.json", "a.jpg", "images/a.jpg", "train"),
        ("annotations/train.json", "sub/a.jpg", "train/images/sub/a.jpg", "train"),
        ("valid/_annotations.coco.json", "a.jpg", "valid/a.jpg", "valid"),
        ("result.json", "images/a.jpg", "images/a.jpg", None),
        ("result.json", "images\\a.jpg", "images/a.jpg", None),
        ("all.json", "test/a.jpg", "test/a.jpg", "test"),
        ("annotations/val.json", "../images/a.jpg", "images/a.jpg", "valid"),
        ("annotations/trainval.json", "/content/x/a.jpg", "deep/er/a.jpg", None),
        ("ds/annotations/instances_val.json", "a.jpg", "ds/val/a.jpg", "valid"),
    ],
)
def test_coco_where_photos_are_and_of_which_split(
    file: str, name: str, at: str, split: str | None, tmp_path: Path
) -> None:
    photo(tmp_path / at)
    coco(tmp_path / file, [(1, name)], [box(1, [1, 2, 3.5, 4])])
    source = read_local("coco", tmp_path, "l")
    (image,) = source.images
    assert (image.key, image.split, image.size) == (at, split, (80, 60))
    assert corners(image) == [("top", 1, 2, 4.5, 6)]
    assert not image.boxes[0].relative
    assert source.names == ("top", "skirt&pants")
    if name != "/content/x/a.jpg":  # by its file alone: keys are relative to the folder of its photos and annotations
        alone = read_local("coco", tmp_path / file, "l")
        assert at.endswith(alone.images[0].key)


def test_coco_oddities_each(tmp_path: Path) -> None:
    rows = [
        box(1, [1, 2, 3, 4]),
        box(1, [1, 2, 3, 4], iscrowd=1),
        box(1, [1, 2, 3, 4], 77),
        box(1, None, segmentation=[[10, 20, 30, 25, 12.5, 40], [5, 21, 6, 22]]),
        box(1, [], segmentation={"size": [4, 3], "counts": [5, 2, 5]}),
        box("2", ["1", "2", "3", "4"], "9"),
        box(2, [1, 2, 3]),
        box(2, [1, 2, float("nan"), 4]),
        box(2, None),
        box(99, [1, 2, 3, 4]),
        {"id": 5, "bbox": [1, 2, 3, 4]},
    ]
    coco(
        tmp_path / "train" / "_annotations.coco.json",
        [(1, "a.jpg"), (2, "b.jpg"), (3, "c.jpg")],
        rows,
        tmp_path / "train",
    )
    (tmp_path / "train" / "c.jpg").unlink()
    photo(tmp_path / "train" / "unlisted.jpg")
    photo(tmp_path / "valid" / "c.jpg")  # another photo of that name
    source = read_local("coco", tmp_path, "l")
    images = by_key(source)
    assert corners(images["train/a.jpg"]) == [
        ("top", 1, 2, 4, 6),
        ("#77", 1, 2, 4, 6),
        ("top", 5, 20, 30, 40),
        ("top", 1, 1, 2, 3),
    ]
    assert corners(images["train/b.jpg"]) == [("skirt&pants", 1, 2, 4, 6)]
    assert len(images["train/b.jpg"].problems) == 3
    assert reasons(source) == {"c.jpg": "missing"}
    assert messages(source) == {"c.jpg": "listed in _annotations.coco.json, but missing"}
    assert source.notes == (
        "1 crowd annotation skipped (iscrowd)",
        "1 annotation skipped: the file does not list the image",
        "1 record without an id skipped (images or annotations)",
        "2 photos skipped, in no annotation file: train/unlisted.jpg, valid/c.jpg",
    )


def test_coco_several_files_and_one_photo_in_two(tmp_path: Path) -> None:
    coco(tmp_path / "annotations/tops.json", [(1, "a.jpg")], [box(1, [1, 1, 2, 2])], tmp_path / "images")
    more = [box(7, [2, 2, 3, 3], 0)]
    coco(tmp_path / "annotations/train.json", [(7, "a.jpg"), (8, "b.jpg")], more, tmp_path / "images", [(0, "dress")])
    text(tmp_path / "annotations/captions_train2017.json", "{broken")
    text(tmp_path / "package.json", '{"images": 3}')
    source = read_local("coco", tmp_path, "l")
    assert corners(by_key(source)["images/a.jpg"]) == [("top", 1, 1, 3, 3), ("dress", 2, 2, 5, 5)]
    assert {image.key: image.split for image in source.images} == {"images/a.jpg": "train", "images/b.jpg": "train"}
    assert source.names == ("top", "skirt&pants", "dress")
    assert "repeated photo" in source.notes[1]
    assert "other COCO tasks: captions_train2017.json" in source.notes[0]


def test_coco_as_roboflow_writes_it(tmp_path: Path) -> None:
    document = {
        "images": [{"id": n, "file_name": f"a_jpg.rf.{n}.jpg", "width": 8, "height": 6} for n in range(2)],
        "annotations": [box(0, [0, 0, 8, 6], 1)],
        "categories": [
            {"id": 0, "name": "garments", "supercategory": "none"},
            {"id": 1, "name": "top", "supercategory": "garments"},
        ],
    }
    text(tmp_path / "test" / "_annotations.coco.json", json.dumps(document))
    for n in range(2):
        photo(tmp_path / "test" / f"a_jpg.rf.{n}.jpg")
    source = read_local("coco", tmp_path, "l")
    assert source.names == ("top",)
    assert [(image.group, image.split, image.labelled) for image in source.images] == [("a_jpg", "test", True)] * 2


@pytest.mark.parametrize(
    ("number", "parent", "used"), [(0, "garments", True), (5, "garments", False), (0, "clothes", False)]
)
def test_coco_only_roboflows_own_category_is_left_out(number: int, parent: str, used: bool, tmp_path: Path) -> None:
    """Vary which has the number 0, is the parent of the others, and of which there is no box."""
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [box(1, [0, 0, 8, 6], number if used else 1)],
        "categories": [{"id": number, "name": "garments"}, {"id": 1, "name": "top", "supercategory": parent}],
    }
    text(tmp_path / "_annotations.coco.json", json.dumps(document))
    photo(tmp_path / "a.jpg")
    assert read_local("coco", tmp_path, "l").names == ("garments", "top")


@pytest.mark.parametrize("task", ["captions", "person_keypoints", "panoptic", "stuff", "image_info"])
def test_coco_files_of_other_tasks_are_read_only_where_they_are_named(task: str, tmp_path: Path) -> None:
    coco(tmp_path / "instances_train.json", [(1, "a.jpg")], [box(1, [1, 2, 3, 4])], tmp_path)
    other = coco(tmp_path / f"{task}_train.json", [(1, "a.jpg")], [box(1, [5, 5, 1, 1])])
    source = read_local("coco", tmp_path, "l")
    assert corners(source.images[0]) == [("top", 1, 2, 4, 6)]
    assert f"other COCO tasks: {task}_train.json" in source.notes[0]
    assert corners(read_local("coco", other, "l").images[0]) == [("top", 5, 5, 6, 6)]


def test_coco_what_is_written_otherwise(tmp_path: Path) -> None:
    sizes = [{"width": 80, "height": 0}, {"width": 0, "height": 60}, {"width": "80", "height": "60"}, {"width": 80}]
    rows = [
        box(0, [1, 2, 3, 4], iscrowd="1"),
        box(0, [1, 2, 3, 4], 4, iscrowd=0),
        box(1, None, segmentation=[[7]]),
        box(1, None, segmentation=[]),
        box(9, [1, 2]),
    ]
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", **size} for n, size in enumerate(sizes)] + [{"id": 4}],
        "annotations": rows,
        "categories": [{"id": 4}],
    }
    text(tmp_path / "x.json", json.dumps(document))
    for n in range(4):
        photo(tmp_path / f"{n}.jpg")
    source = read_local("coco", tmp_path, "l")
    images = by_key(source)
    assert [images[f"{n}.jpg"].size for n in range(4)] == [None, None, (80, 60), None]
    assert corners(images["0.jpg"]) == [("#4", 1, 2, 4, 6)]
    assert len(images["1.jpg"].problems) == 2
    assert source.notes == (
        "1 crowd annotation skipped (iscrowd)",
        "1 annotation skipped: the file does not list the image",
        "1 record without an id skipped (images or annotations)",
    )


def test_coco_of_photos_of_one_name_the_one_nearest_to_its_file_is_meant(tmp_path: Path) -> None:
    coco(tmp_path / "annotations" / "instances_train.json", [(1, "a.jpg")])
    for folder in ("images", "train"):
        photo(tmp_path / folder / "a.jpg")
    assert [image.key for image in read_local("coco", tmp_path, "l").images] == ["train/a.jpg"]
    coco(tmp_path / "annotations" / "instances_train.json", [(1, "/content/x/a.jpg")])
    with pytest.raises(DataError, match=r"none of the photos listed in .* exists \(1 listed\)"):
        read_local("coco", tmp_path, "l")


def test_coco_a_photo_in_two_files_has_what_either_says(tmp_path: Path) -> None:
    bare = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [box(1, [1])], "categories": []}
    text(tmp_path / "one.json", json.dumps(bare))
    coco(tmp_path / "test.json", [(1, "a.jpg")], [box(1, [2])], tmp_path)
    (image,) = read_local("coco", tmp_path, "l").images
    assert (image.size, image.split, len(image.problems)) == ((80, 60), "test", 2)
    (tmp_path / "test.json").rename(tmp_path / "all_test.json")
    (image,) = read_local("coco", tmp_path, "l").images
    assert (image.size, image.split, len(image.problems)) == ((80, 60), "test", 2)


def test_coco_damaged(tmp_path: Path) -> None:
    path = coco(tmp_path / "train.json", [(1, "a.jpg")], photos=tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"train\.json is damaged"):
        read_local("coco", tmp_path, "l")
    coco(path, [(1, "gone.jpg")])
    with pytest.raises(DataError, match="none of the photos listed"):
        read_local("coco", tmp_path, "l")


def test_a_mask_of_run_lengths_by_hand() -> None:
    # 4 x 3 pixels, down the columns: pixels 5 and 6 are rows 1 and 2 of column 1
    assert mask_corners({"size": [4, 3], "counts": [5, 2, 5]}) == (1, 1, 2, 3)
    # from row 3 of column 0 to row 0 of column 1: a run over a column's end fills the height
    assert mask_corners({"size": [4, 3], "counts": [3, 2, 7]}) == (0, 0, 2, 4)
    assert mask_corners({"size": [4, 3], "counts": [12]}) is None
    assert mask_corners([[7]]) is None
    assert unpack_runs("52203") == [5, 2, 2, 2, 5]  # the fourth run as its difference to the second, and so on


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=9))
def test_a_mask_of_run_lengths_has_the_box_of_its_pixels(columns: list[list[bool]]) -> None:
    flat = [pixel for column in columns for pixel in column]
    runs, at, value = [], 0, False
    while at < len(flat):
        end = next((n for n in range(at, len(flat)) if flat[n] != value), len(flat))
        runs.append(end - at)
        at, value = end, not value
    filled = [(x, y) for x, column in enumerate(columns) for y, pixel in enumerate(column) if pixel]
    found = mask_corners({"size": [7, len(columns)], "counts": runs})
    # by runs a box may be taller than its pixels (COCO's own rule), never narrower
    if not filled:
        assert found is None
    else:
        assert found is not None
        xs, ys = zip(*filled, strict=True)
        assert (found[0], found[2]) == (min(xs), max(xs) + 1)
        assert found[1] <= min(ys)
        assert found[3] >= max(ys) + 1


def test_masks_agree_with_pycocotools() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    import numpy as np

    chance = np.random.default_rng(0)
    for _ in range(50):
        pixels = np.asfortranarray(chance.random((int(chance.integers(1, 40)), int(chance.integers(1, 40)))) < 0.1)
        packed = mask_api.encode(pixels.astype(np.uint8))
        x, y, width, height = mask_api.toBbox(packed).tolist()
        found = mask_corners({"size": list(pixels.shape), "counts": packed["counts"].decode()})
        assert found == ((x, y, x + width, y + height) if pixels.any() else None)


# --- VOC
# ---------------------------------------------------------------------------------------------------


def voc(
    path: Path, objects: list[tuple[Any, ...]], filename: str | None = None, extra: str = "", size: str = "80x60"
) -> Path:
    parts = []
    for name, *values in objects:
        marks = zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True)
        inner = "".join(f"<{mark}>{value}</{mark}>" for mark, value in marks)
        safe = name.replace("&", "&amp;")
        parts.append(f"<object><name>{safe}</name><difficult>1</difficult><bndbox>{inner}</bndbox></object>")
    width, height = size.split("x")
    named = f"<filename>{filename or path.stem + '.jpg'}</filename>"
    sized = f"<size><width>{width}</width><height>{height}</height></size>"
    return text(path, f"<annotation>{named}{sized}{''.join(parts)}{extra}</annotation>")


def test_voc_counts_pixels_from_one_both_inclusive(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", (80, 60))
    voc(tmp_path / "a.xml", [("skirt&pants", 1, 1, 80, 60), ("top", 11, 21, 11, 21), ("top", "5.5", 6, "7.25", 8)])
    image = by_key(read_local("voc", tmp_path, "l"))["a.jpg"]
    assert corners(image) == [("skirt&pants", 0, 0, 80, 60), ("top", 10, 20, 11, 21), ("top", 4.5, 5, 7.25, 8)]
    assert image.size == (80, 60)


def test_voc_that_begins_at_zero_counts_edges_from_zero(tmp_path: Path) -> None:
    for name, values in (("a", (0, 0, 80, 60)), ("b", (10, 20, 30, 40))):
        photo(tmp_path / f"{name}.jpg")
        voc(tmp_path / f"{name}.xml", [("top", *values)])
    source = read_local("voc", tmp_path, "l")
    assert {key: corners(image) for key, image in by_key(source).items()} == {
        "a.jpg": [("top", 0, 0, 80, 60)],
        "b.jpg": [("top", 10, 20, 30, 40)],
    }
    assert "boxes start at 0" in source.notes[0]


def test_voc_below_zero_is_outside_and_says_nothing_of_the_origin(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", [("top", -3, 5, 9, 9)])
    assert corners(read_local("voc", tmp_path, "l").images[0]) == [("top", -4, 4, 9, 9)]


@pytest.mark.parametrize(
    ("xml", "at", "split"),
    [
        ("Annotations/a.xml", "JPEGImages/a.jpg", None),
        ("VOCdevkit/VOC2012/Annotations/sub/a.xml", "VOCdevkit/VOC2012/JPEGImages/sub/a.jpg", None),
        ("train/a.xml", "train/a.jpg", "train"),
        ("annotations/a.xml", "images/a.jpg", None),
        ("val/annotations/a.xml", "val/images/a.jpg", "valid"),
        ("annotations/test/a.xml", "images/test/a.jpg", "test"),
        ("annotations/a.xml", "test/deep/a.jpg", "test"),
    ],
)
def test_voc_where_photos_are_and_of_which_split(xml: str, at: str, split: str | None, tmp_path: Path) -> None:
    photo(tmp_path / at)
    voc(tmp_path / xml, [("top", 2, 3, 4, 5)])
    (image,) = read_local("voc", tmp_path, "l").images
    assert (image.key, image.split, image.labelled) == (at, split, True)


@pytest.mark.parametrize(
    ("labels", "photos"),
    [
        ("Annotations", "JPEGImages"),
        ("annotation", "images"),
        ("xmls", "image"),
        ("xml", "imgs"),
        ("labels", "photos"),
        ("Annotations", ""),
    ],
)
def test_voc_folders_that_belong_together(labels: str, photos: str, tmp_path: Path) -> None:
    for folder in ("x", "y"):  # so that no photo is known by its name alone
        photo(tmp_path / folder / photos / "a.jpg")
        voc(tmp_path / folder / labels / "a.xml", [(folder, 2, 3, 4, 5)])
    images = by_key(read_local("voc", tmp_path, "l"))
    assert {key: image.boxes[0].label for key, image in images.items()} == {
        f"{folder}/{photos}/a.jpg".replace("//", "/"): folder for folder in ("x", "y")
    }


def test_voc_image_sets(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "my photo", "d"):
        photo(tmp_path / "JPEGImages" / f"{name}.jpg")
        if name != "d":
            voc(tmp_path / "Annotations" / f"{name}.xml", [("top", 2, 3, 4, 5)])
    main = tmp_path / "ImageSets" / "Main"
    text(main / "train.txt", "a\nmy photo\n")
    text(main / "val.txt", "b  1\na\n")
    text(main / "test.txt", "d\nnever\n")
    text(main / "trainval.txt", "a\nb\n")
    text(main / "top_test.txt", "c -1\n")
    source = read_local("voc", tmp_path, "l")
    assert {key.split("/")[1]: (image.split, image.labelled) for key, image in by_key(source).items()} == {
        "a.jpg": ("train", True),
        "my photo.jpg": ("train", True),
        "b.jpg": ("valid", True),
        "c.jpg": (None, True),
        "d.jpg": ("test", False),
    }
    assert reasons(source) == {"Annotations/never": "missing"}
    assert source.notes[0] == "1 photo listed in two splits; the first counts: a"


def test_voc_oddities_each(tmp_path: Path) -> None:
    polygon = "<object><name>dress</name><polygon><x1>4</x1><y1>5</y1><x2>9</x2><y2>2</y2><x3>3</x3><y3>8</y3></polygon></object>"
    part = "<object><name>top</name><part><name>hand</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    nameless = "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>"
    for name in ("a", "b", "broken", "nolabel", "a_jpg.rf.12"):
        photo(tmp_path / f"{name}.jpg")
    photo(tmp_path / "b.png")
    voc(
        tmp_path / "a.xml",
        [("top", 2, 3, 4, 5), ("top", 2, "x", 4, "inf")],
        "IMG_77.jpg",
        polygon + part + nameless,
        "0x0",
    )
    voc(tmp_path / "b.xml", [], "b.png")
    voc(tmp_path / "a_jpg.rf.12.xml", [])
    voc(tmp_path / "lost.xml", [("top", 2, 3, 4, 5)])
    text(tmp_path / "broken.xml", "<annotation><object>")
    text(tmp_path / "project.xml", "<project/>")
    text(tmp_path / ".idea" / "hidden.xml", "<annotation>")
    source = read_local("voc", tmp_path, "l")
    images = by_key(source)
    assert corners(images["a.jpg"]) == [("top", 1, 2, 4, 5), ("dress", 2, 1, 9, 8)]
    assert images["a.jpg"].problems == (
        "object 2 has no valid box",
        "object 4 has no valid box",
        "object 5 has no name",
    )
    assert images["a.jpg"].size is None
    assert (images["b.png"].labelled, images["b.png"].boxes) == (True, ())
    assert {key for key, image in images.items() if not image.labelled} == {"nolabel.jpg", "b.jpg"}
    assert images["a_jpg.rf.12.jpg"].group == "a_jpg"
    assert "broken.jpg" not in images
    assert reasons(source) == {"broken.jpg": "broken-label-file", "lost.xml": "orphan-label"}
    assert "does not exist" in messages(source)["lost.xml"]
    assert source.names == ("dress", "top")
    assert source.notes == (
        "1 XML file skipped: not VOC annotations",
        "1 XML file with the name of another photo inside; the file's own name counts",
        "1 difficult object kept",
    )


@pytest.mark.parametrize(("corner", "edge"), [((0, 5), 0), ((5, 0), 0), ((0.5, 5), 0), ((1, 5), 1), ((5, 1), 1)])
def test_voc_one_edge_before_one_says_where_counting_begins(
    corner: tuple[float, float], edge: int, tmp_path: Path
) -> None:
    photo(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", [("top", *corner, 9, 9)])
    assert corners(read_local("voc", tmp_path, "l").images[0]) == [("top", corner[0] - edge, corner[1] - edge, 9, 9)]


def test_voc_files_that_are_none_or_come_second_do_not_end_the_reading(tmp_path: Path) -> None:
    text(tmp_path / "a.xml", "<project/>")
    text(tmp_path / "b.xml", "<annotation>")
    voc(tmp_path / "c.xml", [("top", 2, 3, 4, 5)], "lost.jpg")
    photo(tmp_path / "d.jpg")
    voc(tmp_path / "d.xml", [("top", 2, 3, 4, 5)])
    voc(tmp_path / "e.xml", [("dress", 2, 3, 4, 5)], "d.jpg")
    photo(tmp_path / "f.jpg")
    voc(tmp_path / "f.xml", [("pants", 2, 3, 4, 5)])
    source = read_local("voc", tmp_path, "l")
    assert {key: [found.label for found in image.boxes] for key, image in by_key(source).items()} == {
        "d.jpg": ["top"],
        "f.jpg": ["pants"],
    }
    assert reasons(source) == {"b.xml": "broken-label-file", "c.xml": "orphan-label"}
    assert source.notes == (
        "1 XML file skipped: not VOC annotations",
        "1 XML file skipped: another one belongs to the same photo",
        "2 difficult objects kept",
    )


def test_voc_takes_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.xml "):
        read_local("voc", voc(tmp_path / "a.xml", []), "l")


def test_voc_a_photo_whose_annotation_is_a_link_is_not_known_to_be_empty(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "voc" / f"{name}.jpg")
    (tmp_path / "voc" / "a.xml").symlink_to(voc(tmp_path / "outside.xml", [("top", 2, 3, 4, 5)]))
    voc(tmp_path / "voc" / "b.xml", [("top", 2, 3, 4, 5)])
    source = read_local("voc", tmp_path / "voc", "l")
    assert list(by_key(source)) == ["b.jpg"]
    assert reasons(source) == {"a.jpg": "link"}


def test_voc_a_photo_elsewhere_of_the_same_name_is_not_taken(tmp_path: Path) -> None:
    voc(tmp_path / "train" / "a.xml", [("top", 2, 3, 4, 5)])
    photo(tmp_path / "valid" / "a.jpg")
    voc(tmp_path / "valid" / "a.xml", [("pants", 2, 3, 4, 5)])
    source = read_local("voc", tmp_path, "l")
    assert [(image.key, image.boxes[0].label) for image in source.images] == [("valid/a.jpg", "pants")]
    assert "train/a.xml" in reasons(source)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://localhost:1/x.dtd">',
    ],
)
def test_voc_entities_are_refused(doctype: str) -> None:
    with pytest.raises(ValueError, match="document type or entities"):
        voc_reader.parse_voc(f"{doctype}<annotation/>".encode())


# --- folders
# ---------------------------------------------------------------------------------------------------


def test_a_folder_of_photos(tmp_path: Path) -> None:
    for name in ("b.jpg", "deep/er/a.PNG", ".hidden/c.jpg", "x_jpg.rf.9.jpg"):
        photo(tmp_path / name)
    text(tmp_path / "notes.txt", "0 .5 .5 1 1")
    source = read_local("folder", tmp_path, "l")
    assert not source.has_labels
    assert {image.key: (image.labelled, image.group) for image in source.images} == {
        "b.jpg": (False, None),
        "deep/er/a.PNG": (False, None),
        "x_jpg.rf.9.jpg": (False, "x_jpg"),
    }
    with pytest.raises(DataError, match="not a folder"):
        read_local("folder", tmp_path / "b.jpg", "l")


def test_keys_are_the_same_from_an_archive_as_from_its_folder(tmp_path: Path, config: Config) -> None:
    voc(tmp_path / "ds" / "Annotations" / "a.xml", [("top", 2, 3, 4, 5)])
    photo(tmp_path / "ds" / "JPEGImages" / "a.jpg")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "ds")
    here = read_local("voc", tmp_path / "ds", "l")
    with open_archive(tmp_path / "packed.zip", tmp_path / "work", config.dataset) as folder:
        there = read_local("voc", folder, "l")
        assert there.images[0].path.is_file()
    assert [(i.key, i.boxes) for i in there.images] == [(i.key, i.boxes) for i in here.images]


# --- real data
# ---------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    folder = os.environ.get("FASHIONREC_REALDATA")
    if not folder:
        pytest.skip("FASHIONREC_REALDATA names no folder")
    return Path(folder) / name


@pytest.mark.realdata
def test_real_street_photos_are_counted_right(tmp_path: Path) -> None:
    root = real("ccp-yolo")
    source = read_local("yolo", root, "ccp")
    names = yaml.safe_load((root / "data.yaml").read_text())["names"]
    boxes: Counter[tuple[str | None, str]] = Counter()
    photos: Counter[str | None] = Counter()
    for path in sorted(root.glob("labels/*/*.txt")):
        for line in path.read_text().splitlines():
            boxes[path.parent.name, names[int(line.split()[0])]] += 1
    for path in root.glob("images/*/*"):
        photos[path.parent.name] += 1
    assert Counter(image.split for image in source.images) == photos
    assert Counter((image.split, b.label) for image in source.images for b in image.boxes) == boxes
    assert sum(photos.values()) > 700
    assert not any(image.problems for image in source.images)
    assert source.failed == ()
    for export, kind in ((export_coco, "coco"), (export_voc, "voc")):
        counts = export(root, tmp_path / kind, LIMITS)["counts"]
        again = read_local(kind, tmp_path / kind, "x")
        assert counts == {**photos, "boxes": sum(boxes.values())}
        assert Counter((image.split, b.label) for image in again.images for b in image.boxes) == boxes
        sizes = {image.path.stem: image.size or (0, 0) for image in again.images}
        far = [
            abs(value * sizes[image.path.stem][n % 2] - other[1 + n])
            for image, same in zip(sorted(source.images, key=by_stem), sorted(again.images, key=by_stem), strict=True)
            for b, other in zip(image.boxes, same.boxes, strict=True)
            for n, value in enumerate(b[1:5])
        ]
        assert max(far) <= 0.5


def by_stem(image: SourceImage) -> tuple[str, str]:
    return image.split or "", image.path.stem


@pytest.mark.realdata
def test_real_phone_photos_are_counted_right() -> None:
    root = real("clothes-cc0")
    source = read_local("folder", root, "clothes")
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        listed = {row["path"] for row in csv.DictReader(file)}
    assert {image.key for image in source.images} == listed
    assert len(source.images) == len(listed) > 2000
    assert not source.has_labels
    assert not any(image.boxes or image.labelled for image in source.images)
