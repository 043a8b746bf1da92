"""COCO and VOC of one small data set, file by file: names that collide, boxes at the edges, what is
refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from fashionrec.config import Config
from fashionrec.dataset.exports.formats import export_coco, export_voc
from fashionrec.errors import DataError


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Photos of 40 x 20 pixels; one name is in three splits, and another one is what a collision
    would be called.
    """
    root = tmp_path / "ours"
    photos = {
        "train/images/a.png": "1 .5 .5 .5 .5\n", "train/images/test_a.png": "", "train/images/valid_A.png": "",
        "valid/images/A.png": "0 .0125 .025 .05 .1\n0 .9875 1 .01 .02\n",
        "test/images/a.png": "0 .5 .5 .333333 .333333\n1 .3 .3 .000001 .1\n",
        "test/images/odd name.png": "",
    }  # fmt: skip
    for name, labels in photos.items():
        label = root / name.replace("images", "labels").replace(".png", ".txt")
        for path in (root / name, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / name)
        label.write_text(labels)
    (root / "data.yaml").write_text(
        "names: {1: bag, 0: top}\ntrain: train/images\nval: valid/images\ntest: test/images\n"
    )
    return root


def test_coco_file_by_file(dataset: Path, tmp_path: Path, config: Config) -> None:
    out, ticks = tmp_path / "coco", []
    done = export_coco(dataset, out, config.images, lambda *at: ticks.append(at))
    assert done == {"path": str(out), "counts": {"train": 3, "boxes": 5, "valid": 1, "test": 2}}
    assert ticks == [(n, 6) for n in range(1, 7)]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "annotations/instances_test.json", "annotations/instances_train.json", "annotations/instances_val.json",
        "images/test/a.png",
        "images/test/odd_name.png", "images/train/a.png", "images/train/test_a.png", "images/train/valid_A.png",
        "images/val/A.png",
    ]  # fmt: skip
    assert (out / "images/val/A.png").read_bytes() == (dataset / "valid/images/A.png").read_bytes()
    head = {
        "info": {"description": "ours"},
        "licenses": [],
        "categories": [
            {"id": 1, "name": "top", "supercategory": "garment"},
            {"id": 2, "name": "bag", "supercategory": "garment"},
        ],
    }

    def box(number: int, image: int, category: int, corners: list[float], area: float) -> dict[str, Any]:
        told = {"id": number, "image_id": image, "category_id": category, "bbox": corners, "area": area}
        return told | {"iscrowd": 0, "segmentation": []}

    def picture(number: int, name: str) -> dict[str, Any]:
        return {"id": number, "file_name": name, "width": 40, "height": 20}

    documents = {
        split: json.loads((out / f"annotations/instances_{split}.json").read_text())
        for split in ("train", "val", "test")
    }
    assert documents == {
        "train": head | {
            "images": [picture(1, "a.png"), picture(2, "test_a.png"), picture(3, "valid_A.png")],
            "annotations": [box(1, 1, 2, [10.0, 5.0, 20.0, 10.0], 200.0)],
        },
        "val": head | {
            "images": [picture(1, "A.png")],
            # the first begins before the left edge and above the upper one; the second ends below
            "annotations": [box(1, 1, 1, [0.0, 0.0, 1.5, 1.5], 2.25), box(2, 1, 1, [39.3, 19.8, 0.4, 0.2], 0.08)],
        },
        "test": head | {
            "images": [picture(1, "a.png"), picture(2, "odd_name.png")],
            "annotations": [
                box(1, 1, 1, [13.3333, 6.6667, 13.3333, 6.6667], 88.8891), box(2, 1, 2, [12.0, 5.0, 0.0, 2.0], 0.0),
            ],
        },
    }  # fmt: skip
    assert [list(document) for document in documents.values()] == [
        ["info", "licenses", "categories", "images", "annotations"]
    ] * 3


def test_voc_file_by_file(dataset: Path, tmp_path: Path, config: Config) -> None:
    out, ticks = tmp_path / "voc", []
    done = export_voc(dataset, out, config.images, lambda *at: ticks.append(at))
    assert done == {"path": str(out), "counts": {"train": 3, "boxes": 5, "valid": 1, "test": 2}}
    assert ticks == [(n, 6) for n in range(1, 7)]
    names = {"train": ["a", "test_a", "valid_A"], "val": ["valid_A_2"], "test": ["test_a_2", "odd_name"]}
    for split, listed in names.items():
        assert (out / f"ImageSets/Main/{split}.txt").read_text().split() == listed
    everything = sorted(name for listed in names.values() for name in listed)
    assert sorted(path.name for path in (out / "JPEGImages").iterdir()) == sorted(f"{name}.png" for name in everything)
    assert sorted(path.name for path in (out / "Annotations").iterdir()) == sorted(f"{name}.xml" for name in everything)

    def read(name: str) -> dict[str, Any]:
        root = ElementTree.parse(out / "Annotations" / f"{name}.xml").getroot()
        plain = {one.tag: one.text for one in root if not len(one)}
        size = {one.tag: one.text for one in root.iterfind("size/*")}
        objects = [
            [one.text for one in found if not len(one)] + [edge.text for edge in found.iterfind("bndbox/*")]
            for found in root.iterfind("object")
        ]
        tags = [[one.tag for one in found.iter()] for found in root.iterfind("object")]
        return {"plain": plain, "size": size, "objects": objects, "tags": tags, "root": root.tag}

    tags = ["object", "name", "pose", "truncated", "difficult", "bndbox", "xmin", "ymin", "xmax", "ymax"]
    whole = {"size": {"width": "40", "height": "20", "depth": "3"}, "root": "annotation"}
    label = ["Unspecified", "0", "0"]
    assert read("a") == whole | {
        "plain": {"folder": "JPEGImages", "filename": "a.png", "segmented": "0"},
        "objects": [["bag", *label, "11", "6", "30", "15"]],
        "tags": [tags],
    }
    # what is narrower than a pixel becomes one, its middle kept, within the picture
    assert read("valid_A_2")["objects"] == [
        ["top", *label, "1", "1", "1.50", "1.50"],
        ["top", *label, "40", "20", "40", "20"],
    ]
    assert read("test_a_2")["objects"] == [
        ["top", *label, "14.33", "7.67", "26.67", "13.33"],
        ["bag", *label, "12.50", "6", "12.50", "7"],
    ]
    assert read("odd_name")["objects"] == []


def test_what_cannot_be_exported(dataset: Path, tmp_path: Path, config: Config) -> None:
    for text, message in (
        ("names: [top, bag]\n", "has no splits"),
        ('names: [top, "a\\tb"]\ntrain: train/images\n', "has a class name that cannot be exported: 'a\\tb'"),
        ('names: [top, " "]\ntrain: train/images\n', "has a class name that cannot be exported: ' '"),
        ("names: [top]\ntrain: train/images\n", "has a box of class 1, which data.yaml does not name"),
    ):
        (dataset / "data.yaml").write_text(text)
        for export in (export_coco, export_voc):
            with pytest.raises(DataError) as caught:
                export(dataset, tmp_path / "out", config.images)
            assert str(caught.value).endswith(message)
            assert caught.value.hint == (
                "create a dataset with `fashionrec fetch-dataset`" if "splits" in message else ""
            )
            assert not (tmp_path / "out").exists()
