"""Each reader's whole answer on data sets with every oddity that it knows: photos, boxes, splits,
problems, losses, notes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.dataset.sources import coco, folder, looks_like, read_local, split_spec, voc, yolo
from fashionrec.dataset.sources.coco import mask_corners, unpack_runs
from fashionrec.dataset.sources.layout import copies_of, some, split_of_file, split_of_folders
from fashionrec.errors import DataError


def put(root: Path, *names: str, text: str = "x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def image(root: Path, key: str, *boxes: RawBox, **more: Any) -> SourceImage:
    return SourceImage(key, root / key, boxes, **more)


def lost(key: str, reason: str, message: str) -> dict[str, str]:
    return {"key": key, "reason": reason, "message": message}


def refused(read: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        read()
    return str(caught.value), caught.value.hint


# -- COCO


def instances(path: Path, images: list[Any], annotations: list[Any], categories: list[Any]) -> Path:
    document = {"images": images, "annotations": annotations, "categories": categories}
    return put(path.parent, path.name, text=json.dumps(document)) / path.name


def test_coco_whole(tmp_path: Path) -> None:
    root = put(
        tmp_path / "c", "images/train2017/a.jpg", "images/train2017/deep/b.jpg", "val/d_jpg.rf.1.jpg", "spare/e.jpg",
        "spare/f.jpg",
        "spare/g.jpg", "spare/h.jpg", "train/t.jpg", "annotations/notes.json", text="[1]",
    )  # fmt: skip
    put(tmp_path, "up.jpg", "linked.jpg")
    (root / "train/link.jpg").symlink_to(tmp_path / "linked.jpg")
    (root / "train/other.jpg").symlink_to(tmp_path / "linked.jpg")
    categories = [
        {"id": 0, "name": "clothes", "supercategory": "none"},
        {"id": 1, "name": "top", "supercategory": "clothes"},
    ]
    instances(
        root / "annotations/instances_train2017.json",
        [
            {"id": 1, "file_name": "a.jpg", "width": 40, "height": "30"},
            {"id": "2", "file_name": "deep\\b.jpg", "width": 0, "height": 30},
            {"id": 3, "file_name": "gone.jpg", "width": 4},
            {"id": 4, "file_name": "link.jpg"},
            {"id": 5, "file_name": "../up.jpg"},
            {"id": 6, "file_name": "t.jpg", "width": 5, "height": -1},
            {"file_name": "no id"},
        ],
        [
            {"id": 10, "image_id": 1, "category_id": 1, "bbox": [1, "2", 3, 4.5]},
            {"id": 11, "image_id": 1, "category_id": 9, "bbox": [], "segmentation": [[5, 6, 9, 6, 9, 8], [1, 2, 3, 4]]},
            {"id": 12, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 13, "image_id": 1, "category_id": 1, "iscrowd": "1"},
            {"image_id": 2, "category_id": 1, "bbox": [1, 2, 3]},
            {"id": 14, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 1e999]},
            {"id": 15, "image_id": 2, "segmentation": {"size": [4, 3], "counts": [5, 2, 5]}},
            {"id": 16, "image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]},
            {"id": 17, "image_id": 98, "category_id": 1},
            {"id": 18, "category_id": 1},
            5,
        ],
        [*categories, {"id": 2}, {"name": "no id"}, 7],
    )  # fmt: skip
    instances(
        root / "annotations/instances_val.json",
        [
            {"id": 1, "file_name": "d_jpg.rf.1.jpg"},
            {"id": 2, "file_name": "../images/train2017/a.jpg", "width": 8, "height": 8},
        ],
        [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}, {"id": 2, "image_id": 2, "category_id": 1}],
        [{"id": 1, "name": "bag"}, {"id": 3, "name": "top"}],
    )
    instances(root / "annotations/captions_val.json", [], [], [])
    source = coco.read(root, "coco:c")
    assert source == Source(
        "coco:c",
        (
            image(
                root, "images/train2017/a.jpg", RawBox("top", 1, 2, 4, 6.5), RawBox("#9", 1, 2, 9, 8), RawBox("bag", 0, 0, 1, 1),
                split="train", size=(40, 30), problems=("annotation 2 has no valid box or mask",),
            ),
            image(
                root, "images/train2017/deep/b.jpg", RawBox("#None", 1, 1, 2, 3), split="train",
                problems=(
                    "annotation ? has no valid box or mask",
                    "annotation 14 has no valid box or mask",
                ),
            ),
            image(root, "train/t.jpg", split="train"),
            image(root, "val/d_jpg.rf.1.jpg", split="valid", group="d_jpg"),
        ),
        names=("top", "#2", "bag"),
        failed=(
            lost("gone.jpg", "missing", "listed in instances_train2017.json, but missing"),
            lost("link.jpg", "link", "listed in instances_train2017.json; train/link.jpg is a link, which is not followed"),
            lost("../up.jpg", "outside", "listed in instances_train2017.json, but outside the dataset's folder"),
            lost("train/other.jpg", "link", "is a link, which is not followed"),
        ),
        notes=(
            "skipped files of other COCO tasks: captions_val.json",
            "2 crowd annotations skipped (iscrowd)",
            "2 annotations skipped: the file does not list the image",
            "3 records without an id skipped (images or annotations)",
            "1 repeated photo found; the boxes are merged",
            "4 photos skipped, in no annotation file: spare/e.jpg, spare/f.jpg, spare/g.jpg, ...",
        ),
    )  # fmt: skip
    one = coco.read(root / "annotations/instances_val.json", "one")
    assert [photo.key for photo in one.images] == ["val/d_jpg.rf.1.jpg", "images/train2017/a.jpg"]
    assert one.notes == ()
    followed = coco.read(root, "coco:c", follow_links=True)
    assert "train/link.jpg" in [photo.key for photo in followed.images]


@pytest.mark.parametrize(
    ("stem", "split", "place"),
    [
        *(
            ("val", "valid", place)
            for place in (
                "val/x/p.jpg",
                "images/val/x/p.jpg",
                "validation/x/p.jpg",
                "valid/images/x/p.jpg",
                "images/x/p.jpg",
            )
        ),
        ("train2017", "train", "train/x/p.jpg"),
        ("test2017", "test", "test/x/p.jpg"),
    ],
)
def test_where_the_photos_of_an_instances_file_may_be(tmp_path: Path, stem: str, split: str, place: str) -> None:
    for above in ("", "annotations/"):
        root = put(tmp_path / (above or "beside"), place, "decoy/x/p.jpg")
        file = tmp_path / (above or "beside") / above / f"instances_{stem}.json"
        instances(file, [{"id": 1, "file_name": "x/p.jpg"}], [], [])
        (photo,) = coco.read(root, "c").images
        assert (photo.key, photo.split) == (place, split)


def test_a_coco_laid_out_in_a_way_of_its_own_goes_by_names(tmp_path: Path) -> None:
    root = put(tmp_path, "testing_set/p/a.jpg", "q/b.jpg", "r/b.jpg")
    path = instances(root / "labels.json", [{"id": n, "file_name": f"there/{n}.jpg"} for n in "ab"], [], [])
    source = coco.read(root, "c")
    assert [(photo.key, photo.split) for photo in source.images] == [("testing_set/p/a.jpg", "test")]
    assert source.failed == (lost("there/b.jpg", "missing", "listed in labels.json, but missing"),)
    assert coco.read(path, "c").notes == ()
    (root / "testing_set/p/a.jpg").unlink()
    told = f"none of the photos listed in {root} exists (2 listed)"
    assert refused(lambda: coco.read(root, "c")) == (
        told,
        "give the folder that contains the photos and the annotations",
    )


def test_what_is_no_coco(tmp_path: Path) -> None:
    root = put(tmp_path / "d", "a.jpg")
    put(root, "b.json", text='{"images": [], "categories": {}}')
    hint = "give a folder with a JSON file that has images, annotations and categories"
    assert refused(lambda: coco.read(root, "c")) == (f"no COCO annotations at {root}", hint)
    put(root, "b.json", text="{")
    told, hint = refused(lambda: coco.read(root, "c"))
    assert told.startswith(f"{root}/b.json is damaged: ")
    assert hint == "download it again, or move it away if it is not part of the dataset"
    (root / "b.json").rename(tmp_path / "b.json")
    (root / "b.json").symlink_to(tmp_path / "b.json")
    assert refused(lambda: coco.read(root, "c"))[0] == f"{root}: b.json is a link, which is not followed"


def packed(runs: list[int]) -> str:
    """COCO's own way to pack run lengths (cocoapi, rleToString)."""
    text = ""
    for n, run in enumerate(runs):
        value = run - (runs[n - 2] if n > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
    return text


@pytest.mark.parametrize(
    ("runs", "height", "corners"),
    [
        ([5, 2, 5], 4, (1, 1, 2, 3)), ([0, 12], 4, (0, 0, 3, 4)), ([3, 2, 7], 4, (0, 0, 2, 4)), ([4, 1, 3, 1, 3], 4,
        (1, 0, 3, 1)),
        ([11, 1], 4, (2, 3, 3, 4)), ([12], 4, None), ([5, 0, 7], 4, None), ([5, 1, 0, 1, 5], 4, (1, 1, 2, 3)),
        ([100, 40, 3000, 7, 1, 1000, 12], 50, (2, 0, 83, 50)), ([33, 2, 65, 1, 999], 50, (0, 0, 3, 35)),
    ],
)  # fmt: skip
def test_masks_as_runs(runs: list[int], height: int, corners: tuple[float, ...] | None) -> None:
    mask = {"size": [height, 3], "counts": runs}
    assert unpack_runs(packed(runs)) == runs
    assert mask_corners(mask) == mask_corners(mask | {"counts": packed(runs)}) == corners


def test_masks_as_polygons() -> None:
    assert mask_corners([[5, 6, 9.5, 6, 9, 8], [1, 7, 2, 7]]) == (1, 6, 9.5, 8)
    assert mask_corners([5, 6, 9, "8"]) == (5, 6, 9, 8)
    for nothing in ([], [[]], None, "x", 5, [[5]]):
        assert mask_corners(nothing) is None


# -- Pascal VOC


def xml(*objects: str, name: str = "", size: str = "") -> str:
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def thing(name: str, box: tuple[Any, ...], more: str = "") -> str:
    edges = "".join(
        f"<{edge}> {value} </{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name> {name} </name>{more}<bndbox>{edges}</bndbox></object>"


def test_voc_whole(tmp_path: Path) -> None:
    root = tmp_path / "v"
    put(
        root,
        *(
            f"JPEGImages/{name}"
            for name in ("a.jpg", "a.png", "b.jpg", "c.jpg", "d.jpg", "f.jpg", "g.jpg", "h.jpg", "sub/i.rf.0.jpg")
        ),
    )
    put(root, "val/photos/k.jpg", "test/l.jpg", "test/m.jpg")
    size = "<size><width>40.0</width><height>30</height></size>"
    polygon = "<object><name>bag</name><polygon><x1>3</x1><y1>4</y1><x2>9</x2><y2>1</y2></polygon></object>"
    put(
        root, "Annotations/a.xml",
        text=xml(
            thing("top", (1, 1, 40, 30), "<difficult>1</difficult>"), thing("", (1, 1, 2, 2)), thing("top", (1, "x",
            2, 2)), polygon,
            thing("top", (5, 5, 1, "inf")), "<object><name>x</name></object>", thing("Top", (2.5, 3, 4, 5),
            "<difficult>0</difficult>"),
            name="a.png", size=size,
        ),
    )  # fmt: skip
    put(
        root,
        "Annotations/b.xml",
        text=xml(name="folder\\other.jpg", size="<size><width>0</width><height>3</height></size>"),
    )
    put(root, "Annotations/c.xml", text="<annotation")
    put(root, "Annotations/d.xml", text="<feed/>")
    put(root, "Annotations/e.xml", text=xml(name="gone.jpg"))
    put(root, "Annotations/sub/i.rf.0.xml", text=xml(thing("dress", (1, 1, 2, 2))))
    put(root, "Annotations/z.xml", text=xml(name="b.jpg"))
    put(root, "val/xml/k.xml", text=xml(name="k.jpg"))
    put(tmp_path, "f.xml", "q.jpg", text=xml())
    (root / "Annotations/f.xml").symlink_to(tmp_path / "f.xml")
    (root / "JPEGImages/q.jpg").symlink_to(tmp_path / "q.jpg")
    put(root, "Annotations/q.xml", text=xml(name="q.jpg"))
    put(root, "ImageSets/Main/train.txt", text="\ufeffa\nb -1\nsub/i.rf.0\ng\nnowhere\n\n")
    put(root, "ImageSets/Main/val.txt", text="a  1\nh\n")
    put(root, "ImageSets/Main/top_train.txt", "ImageSets/Layout/test.txt", "sets/Main/test.txt", text="x\n")
    source = voc.read(root, "voc:v")
    assert source == Source(
        "voc:v",
        (
            image(
                root, "JPEGImages/a.png", RawBox("top", 0, 0, 40, 30), RawBox("bag", 2, 0, 9, 4), RawBox("Top", 1.5, 2, 4, 5),
                split="train", size=(40, 30),
                problems=(
                    "object 2 has no name", "object 3 has no valid box",
                    "object 5 has no valid box",
                    "object 6 has no valid box",
                ),
            ),
            image(root, "JPEGImages/b.jpg", split="train"),
            image(root, "JPEGImages/sub/i.rf.0.jpg", RawBox("dress", 0, 0, 2, 2), split="train", group="i"),
            image(root, "val/photos/k.jpg", split="valid"),
            image(root, "JPEGImages/a.jpg", labelled=False, split="train"),
            image(root, "JPEGImages/d.jpg", labelled=False),
            image(root, "JPEGImages/g.jpg", labelled=False, split="train"),
            image(root, "JPEGImages/h.jpg", labelled=False, split="valid"),
            image(root, "test/l.jpg", labelled=False, split="test"),
            image(root, "test/m.jpg", labelled=False, split="test"),
        ),
        names=("Top", "bag", "dress", "top"),
        failed=(
            lost("JPEGImages/f.jpg", "link", "f.xml is a link, which is not followed"),
            lost("JPEGImages/c.jpg", "broken-label-file", "c.xml: unclosed token: line 1, column 0"),
            lost("Annotations/e.xml", "orphan-label", "it names 'gone.jpg', which does not exist"),
            lost("Annotations/nowhere", "missing", "listed in ImageSets, but missing"),
            lost("JPEGImages/q.jpg", "link", "is a link, which is not followed"),
        ),
        notes=(
            "1 photo listed in two splits; the first counts: a",
            "1 XML file skipped: not VOC annotations",
            "1 XML file skipped: another one belongs to the same photo",
            "1 XML file with the name of another photo inside; the file's own name counts",
            "1 difficult object kept",
        ),
    )  # fmt: skip
    assert voc.read(root, "v", follow_links=True).failed[0]["key"] == "JPEGImages/c.jpg"


@pytest.mark.parametrize(
    ("box", "x1", "y1"),
    [
        ((0, 1, 9, 9), 0, 1),
        ((1, 0.5, 9, 9), 1, 0.5),
        ((1, 1, 9, 9), 0, 0),
        ((-1, 1, 9, 9), -2, 0),
        ((5, 5, 0, 0), 4, 4),
    ],
)
def test_edges_of_voc_count_from_one_unless_one_begins_before(
    tmp_path: Path, box: tuple[float, ...], x1: float, y1: float
) -> None:
    root = put(tmp_path, "a.jpg")
    put(root, "a.xml", text=xml(thing("top", box)))
    source = voc.read(root, "v")
    assert source.images[0].boxes == (RawBox("top", x1, y1, *box[2:]),)
    counted_from_0 = "boxes start at 0, so corners are edges counted from 0, not pixels counted from 1 as in VOC"
    assert source.notes == ((counted_from_0,) if (x1, y1) == box[:2] else ())


@pytest.mark.parametrize(
    ("annotation", "photo"),
    [
        ("x/a.xml", "x/a.jpg"), ("Annotations/a.xml", "JPEGImages/a.jpg"), ("xmls/a.xml", "images/a.jpg"),
        ("labels/a.xml", "imgs/a.jpg"),
        ("annotation/sub/a.xml", "Image/SUB/a.jpg"), ("xml/a.xml", "photos/a.jpg"), ("p/annotations/a.xml", "p/a.jpg"),
        ("annotations/a.xml", "a.jpg"),
    ],
)  # fmt: skip
def test_the_photo_of_a_voc_file(tmp_path: Path, annotation: str, photo: str) -> None:
    root = put(tmp_path, photo, "decoy/a.jpg")
    put(root, annotation, text=xml(name="a.jpg"))
    labelled = [found.key for found in voc.read(root, "v").images if found.labelled]
    assert labelled == [photo]


def test_a_voc_laid_out_in_a_way_of_its_own_goes_by_names(tmp_path: Path) -> None:
    root = put(tmp_path, "deep/within/a.jpg", "one/b.jpg", "two/b.jpg")
    put(root, "x.xml", text=xml(name="C:\\photos\\a.jpg"))
    put(root, "y.xml", text=xml(name="b.jpg"))
    source = voc.read(root, "v")
    assert [found.key for found in source.images if found.labelled] == ["deep/within/a.jpg"]
    assert source.failed == (lost("y.xml", "orphan-label", "it names 'b.jpg', which does not exist"),)


def test_a_voc_file_goes_by_its_own_name_before_the_one_in_it(tmp_path: Path) -> None:
    root = put(tmp_path, "JPEGImages/a.jpg", "b.jpg")
    put(root, "Annotations/a.xml", text=xml(name="b.jpg"))
    put(root, "Annotations/c.xml", text=xml(name="dir\\b.jpg"))
    source = voc.read(root, "v")
    assert [photo.key for photo in source.images] == ["JPEGImages/a.jpg", "b.jpg"]
    assert all(photo.labelled for photo in source.images)


def test_voc_lists_of_photos_without_annotations(tmp_path: Path) -> None:
    """A list means the photos of the folders that belong to it, and is read though a name of it is
    not UTF-8.
    """
    root = put(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg", "misc/c.jpg")
    put(root, "Annotations/a.xml", text=xml())
    put(root, "ImageSets/Main/test.txt")
    (root / "ImageSets/Main/test.txt").write_bytes(b"a\nb\nc\nd\xff\n")
    source = voc.read(root, "v")
    assert [(photo.key, photo.labelled, photo.split) for photo in source.images] == [
        ("JPEGImages/a.jpg", True, "test"), ("JPEGImages/b.jpg", False, "test"), ("misc/c.jpg", False, None),
    ]  # fmt: skip
    assert [row["key"] for row in source.failed] == ["Annotations/c", "Annotations/d\ufffd"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "encoding"),
        ("<!DOCTYPE a><annotation/>", "it has a document type or entities (DTDForbidden)"),
        ("", "no element found"),
    ],
)
def test_voc_files_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"encoding|element|document type") as caught:
        voc.parse_voc(text.encode())
    assert message in str(caught.value)


def test_a_voc_file_of_more_than_32_mebibytes_is_refused(tmp_path: Path) -> None:
    root = put(tmp_path, "v/a.jpg", "v/b.jpg") / "v"
    (root / "a.xml").write_text(xml(thing("top", (1, 1, 2, 2)), name="a.jpg"))
    (root / "b.xml").write_text(xml(thing("top", (1, 1, 2, 2)), name="b.jpg"))
    os.truncate(root / "b.xml", (32 << 20) + 1)
    source = voc.read(root, "v")
    assert source.failed == (lost("b.jpg", "broken-label-file", "b.xml: larger than 32 MiB"),)
    assert [image.key for image in source.images] == ["a.jpg"]


def test_what_is_no_voc(tmp_path: Path) -> None:
    root = put(tmp_path, "d/a.jpg") / "d"
    hint = "give a folder with XML files that contain <annotation>"
    assert refused(lambda: voc.read(root, "v")) == (f"no VOC annotations at {root}", hint)
    assert refused(lambda: voc.read(root / "a.jpg", "v")) == (
        f"{root}/a.jpg is not a folder", "voc:PATH needs a folder, or an archive of one",
    )  # fmt: skip
    (root / "b.jpg").symlink_to(root / "a.jpg")
    assert refused(lambda: voc.read(root, "v"))[0] == f"{root}: b.jpg is a link, which is not followed"


# -- YOLO and photos alone


def test_yolo_whole(tmp_path: Path) -> None:
    root = put(
        tmp_path / "y", "train/images/a.jpg", "train/images/b_png.rf.77.jpg", "train/images/c.jpg",
        "train/images/e.jpg", "valid/d.jpg",
        "valid/LICENSE.txt",
    )  # fmt: skip
    put(root, "train/labels/a.txt", text="\ufeff1 .5 .5 .2 .4\n\n7 .5 .5 1 1\n0 x\n0 .1 .2 .5 .4 .3 .8\n")
    put(root, "train/labels/b_png.rf.77.txt", text="\n")
    put(
        root, "train/labels/orphan.txt", "train/labels/lost.txt", "valid/d.txt", "valid/notes.txt", text="0 .5 .5 .2 .2"
    )
    put(tmp_path, "up.txt", "up.jpg")
    (root / "train/labels/e.txt").symlink_to(tmp_path / "up.txt")
    (root / "train/labels/f.txt").symlink_to(tmp_path / "up.txt")
    (root / "train/images/z.jpg").symlink_to(tmp_path / "up.jpg")
    put(
        root,
        "list.txt",
        text="valid/d.jpg\ntrain/images/a.jpg\nvalid/none.jpg\n/home/me/x/gone.jpg\n/home/me/y/valid/d.jpg\n",
    )
    put(root, "data.yaml", text="names: {1: bag, 0: top}\ntrain: train/images\nval: list.txt\ntest: nowhere\n")
    source = yolo.read(root, "yolo:y")
    top = RawBox("top", pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.5), pytest.approx(0.8), True)
    assert source == Source(
        "yolo:y",
        (
            image(
                root, "train/images/a.jpg", RawBox("bag", 0.4, 0.3, 0.6, 0.7, True), RawBox("#7", 0, 0, 1, 1, True), top,
                split="train", problems=("line 4 is not a valid box: '0 x'",),
            ),
            image(root, "train/images/b_png.rf.77.jpg", split="train", group="b_png"),
            image(root, "train/images/c.jpg", labelled=False, split="train"),
            image(root, "valid/d.jpg", RawBox("top", 0.4, 0.4, 0.6, 0.6, True), split="valid"),
        ),
        names=("top", "bag"),
        failed=(
            lost("valid/none.jpg", "missing", "listed in list.txt, but missing"),
            lost("gone.jpg", "missing", "listed in list.txt, but missing"),
            lost("train/images/e.jpg", "link", "its label file train/labels/e.txt is a link, which is not followed"),
            *(lost(f"{name}.txt", "orphan-label", "there is no photo with its name") for name in (
                "train/labels/lost", "train/labels/orphan", "valid/notes",
            )),
            lost("train/images/z.jpg", "link", "is a link, which is not followed"),
            lost("train/labels/f.txt", "link", "is a link, which is not followed"),
        ),
        notes=(
            "data.yaml names a test split that does not exist: nowhere",
            "2 photos listed twice; the first split counts: train/images/a.jpg, valid/d.jpg",
            "3 label files without a photo: train/labels/lost.txt, train/labels/orphan.txt, valid/notes.txt",
        ),
    )  # fmt: skip
    assert yolo.read(root / "data.yaml", "yolo:y") == source
    assert not [row for row in yolo.read(root, "y", follow_links=True).failed if row["reason"] == "link"]


def test_yolo_without_a_yaml(tmp_path: Path) -> None:
    root = put(tmp_path, "set/val/images/a.jpg", "set/train-2/images/b.jpg", "cover.jpg")
    put(root, "set/val/labels/a.txt", text="1 .5 .5 1 1\n")
    source = yolo.read(root, "y")
    assert source.images == (
        image(root, "set/train-2/images/b.jpg", labelled=False, split="train"),
        image(root, "set/val/images/a.jpg", RawBox("#1", 0, 0, 1, 1, True), split="valid"),
    )
    assert source.names == ()
    assert source.notes == ("no data.yaml and no classes.txt: classes are only known by number",)
    put(root, "classes.txt", text="top\nbag\n")
    named = yolo.read(root, "y")
    assert (named.images[1].boxes[0].label, named.names, named.notes) == ("bag", ("top", "bag"), ())
    (root / "set/val/labels/a.txt").unlink()
    hint = "give a folder with a data.yaml, or with images/ and labels/"
    assert refused(lambda: yolo.read(root, "y")) == (f"no YOLO dataset at {root}", hint)
    (root / "l.jpg").symlink_to(root / "cover.jpg")
    assert refused(lambda: yolo.read(root, "y"))[0] == f"{root}: l.jpg is a link, which is not followed"
    assert refused(lambda: yolo.read(root / "cover.jpg", "y")) == (
        f"no YOLO dataset at {root}/cover.jpg", "give a folder with a data.yaml, or the path of that file",
    )  # fmt: skip
    put(root, "data.yaml", text="names: [top]\ntrain: none\n")
    assert refused(lambda: yolo.read(root, "y"))[0] == f"no photo of {root} exists"
    put(root, "list.txt", text=f"{tmp_path.parent}\n")
    put(root, "data.yaml", text="names: [top]\ntrain: list.txt\nval: set/val/images\n")
    told = f"the train split of {root}/data.yaml: {tmp_path.parent} leads out of the dataset's folder"
    assert refused(lambda: yolo.read(root, "y"))[0] == told


def test_keys_are_relative_to_the_folder_that_holds_all_photos(tmp_path: Path) -> None:
    put(tmp_path / "garments", "images/train/a.jpg", "labels/train/a.txt", "images/val/b.jpg", text="0 .5 .5 1 1")
    put(
        tmp_path / "settings",
        "data.yaml",
        text="path: ../garments\nnames: [top]\ntrain: images/train\nval: images/val\n",
    )
    source = yolo.read(tmp_path / "settings", "y")
    assert [(photo.key, photo.split) for photo in source.images] == [("train/a.jpg", "train"), ("val/b.jpg", "valid")]
    put(tmp_path / "garments", "data.yaml", text="names: [top]\ntrain: images/train\n")
    assert [photo.key for photo in yolo.read(tmp_path / "garments", "y").images] == ["images/train/a.jpg"]


def test_photos_alone(tmp_path: Path) -> None:
    root = put(tmp_path, "d/sub/b_jpg.rf.1.jpg", "d/a.PNG", "d/notes.txt") / "d"
    photos = (image(root, "a.PNG", labelled=False), image(root, "sub/b_jpg.rf.1.jpg", labelled=False, group="b_jpg"))
    (root / "l.jpg").symlink_to(root / "a.PNG")
    assert folder.read(root, "f") == Source(
        "f", photos, has_labels=False, failed=(lost("l.jpg", "link", "is a link, which is not followed"),)
    )
    assert len(folder.read(root, "f", follow_links=True).images) == 3
    assert refused(lambda: folder.read(root / "a.PNG", "f")) == (
        f"{root}/a.PNG is not a folder", "folder:PATH needs a folder of photos, or an archive of one",
    )  # fmt: skip
    put(tmp_path, "e/x.txt")
    assert refused(lambda: folder.read(tmp_path / "e", "f"))[0] == f"no photos in {tmp_path}/e"


# -- names, and what a folder seems to be


@pytest.mark.parametrize(
    ("way", "split"),
    [
        ("train", "train"), ("Training", "train"), ("val", "valid"), ("VALID", "valid"), ("validation", "valid"),
        ("test", "test"),
        ("testing", "test"), ("train2017", "train"), ("val_images", "valid"), ("test-set", "test"), ("train/val", "valid"),
        ("val/x", "valid"), ("train_set/photos", "train"), ("test-data", "test"), ("testdata", None), ("train_label",
        "train"), ("test_annotations", "test"),
        ("training_photo", "train"), ("test_imgs", "test"), ("trains", None), ("train_x", None), ("x_train", None),
        ("2017", None), ("", None),
    ],
)  # fmt: skip
def test_the_split_that_folders_name(way: str, split: str | None) -> None:
    assert split_of_folders(way.split("/")) == split


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("instances_val2017", "valid"), ("TRAIN", "train"), ("my-testing-set", "test"), ("train_val", None),
        ("val_validation", "valid"),
        ("trainer", None), ("labels", None),
    ],
)  # fmt: skip
def test_the_split_that_a_file_names(stem: str, split: str | None) -> None:
    assert split_of_file(stem) == split


def test_names_of_copies_and_of_many() -> None:
    assert [copies_of(name) for name in ("a_jpg.rf.0f3e.jpg", "a.rf.1.rf.2.jpg", ".rf.1.jpg", "a.jpg", "arf.1.jpg")] == [
        "a_jpg", "a.rf.1", None, None, None,
    ]  # fmt: skip
    assert [some(list("abcd"[:n])) for n in range(5)] == ["", "a", "a, b", "a, b, c", "a, b, c, ..."]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"data.yaml": "x: 1\n  names: [a]"}, "yolo"), ({"a.yml": "names : x"}, "yolo"), ({"a.yaml": "unnames: x"}, None),
        ({"a.json": '{"images": [], "categories": []}'}, "coco"), ({"a.json": '"annotations" "images"'}, "coco"),
        ({"a.JSON": '{"images": []}', "b.jpg": "x"}, "folder"), ({"a.xml": "<annotation><size/>"}, "voc"),
        ({"a.xml": "<annotation><object/>"}, "voc"), ({"a.xml": "<annotation/>"}, None), ({"a.xml": "<object/><size/>"}, None),
        ({"a.jpg": "x", "b.txt": "0 .5 .5 1 1"}, "yolo"), ({"b.txt": "0 .5 .5 1 1"}, None), ({"a.jpg": "x",
        "b.txt": "words"}, "folder"),
        ({"a.txt": "names: x"}, None), ({}, None), ({"a.json": f'"images" {" " * 70_000}{" " * 70_000} "categories"'}, "coco"),
        ({"a.json": f'"images" {" " * 70_000} "categories" {" " * 70_000}'}, None),
    ],
)  # fmt: skip
def test_what_a_folder_looks_like(tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
    for name, text in files.items():
        put(tmp_path, name, text=text)
    assert looks_like(tmp_path) == kind
    if len(files) == 1:
        (name,) = files
        assert looks_like(tmp_path / name) == (None if name.endswith((".txt", ".jpg")) else kind)
        (tmp_path / "link").symlink_to(tmp_path / name)
        assert looks_like(tmp_path / "link") is None


def test_the_words_for_a_source(tmp_path: Path) -> None:
    assert split_spec("coco:a:b") == ("coco", "a:b")
    assert split_spec("synthetic") == ("synthetic", "")
    kinds = "synthetic, yolo:PATH, coco:PATH, voc:PATH, folder:PATH, feed:FILE, or roboflow:WORKSPACE/PROJECT/VERSION"
    assert refused(lambda: split_spec("")) == ("unknown source ''", kinds)
    assert refused(lambda: split_spec("gone/x")) == ("unknown source 'gone/x'", kinds)
    root = put(tmp_path / "my photos", "a.jpg")
    assert refused(lambda: split_spec(str(root))) == (f"unknown source {str(root)!r}", f"'folder:{root}'")
    assert refused(lambda: split_spec("voc:")) == ("invalid source 'voc:'", "voc:...")
    assert refused(lambda: split_spec("synthetic:x")) == (
        "invalid source 'synthetic:x'",
        "synthetic takes no path",
    )
    assert refused(lambda: read_local("voc", tmp_path / "none", "v")) == (
        f"no such file or folder: {tmp_path}/none",
        "check the path",
    )
    assert refused(lambda: read_local("voc", root, "v"))[1] == "give a folder with XML files that contain <annotation>"
    put(root, "a.txt", text="0 .5 .5 1 1")
    assert refused(lambda: read_local("voc", root, "v")) == (
        f"no VOC annotations at {root}", f"this looks like YOLO: 'yolo:{root}'",
    )  # fmt: skip
    assert read_local("folder", root, "f").label == "f"
    (root / "l.jpg").symlink_to(root / "a.jpg")
    assert [len(read_local("folder", root, "f", follow_links=follow).images) for follow in (True, False)] == [2, 1]
    assert os.path.lexists(root / "l.jpg")
