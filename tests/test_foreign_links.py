"""Data sets of somebody else: nothing outside of their folder is read, whatever lies in it and
whatever they name.

Each test plants something, uses the data set as a user would, and compares what lies around it
before and after.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from pathlib import Path

import pytest
from foreign import Cli, every_plant, put, refused
from systems import posix_only
from test_cli_dataset import NAMES, make_yolo, picture

from tests.conftest import TINY


def problems(folder: Path) -> list[tuple[str, str]]:
    with (folder / "problems.csv").open(encoding="utf-8", newline="") as file:
        return [(row["image"], row["problem"]) for row in csv.DictReader(file)]


@every_plant
def test_a_photo_or_a_label_that_is_a_link_is_counted_and_not_read(
    plant: str, cli: Cli, tmp_path: Path, outside: Path
) -> None:
    reason = "special" if plant in ("pipe", "socket") else "link"
    make_yolo(tmp_path / "src", 12)
    put(tmp_path / "src/train/images/p3.jpg", plant, outside)
    put(tmp_path / "src/train/labels/p5.txt", plant, outside)
    put(tmp_path / "src/train/labels/lost.txt", plant, outside)
    put(tmp_path / "src/train/images/more", plant, outside)
    done = cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "6,2,2", "--json")
    assert done.code == 0, done.err
    assert done.document["dropped"] == {reason: 4}
    assert sorted(problems(tmp_path / "d")) == [
        ("train/images/more", reason),
        ("train/images/p3.jpg", reason),
        ("train/images/p5.jpg", reason),
        ("train/labels/lost.txt", reason),
    ]
    for command in (
        ("evaluate", "--weights", TINY / "detector", "--data", "src/data.yaml", "--set", "evaluate.split=train"),
        ("dataset", "export", "src", "--to", "coco", "--out", "coco"),
        ("dataset", "export", "src", "--to", "voc", "--out", "voc"),
    ):
        refused(cli(*command), "train/images/more")
    audit = cli("dataset", "audit", "src", "--json", "--html", "a.html")
    kind = {"link": "link", "special": "special-file"}[reason]
    found = [finding for finding in audit.document["findings"] if finding["kind"] == kind]
    assert sorted(finding["images"][0] for finding in found) == [
        "train/images/more",
        "train/images/p3.jpg",
        "train/labels/lost.txt",
        "train/labels/p5.txt",
    ]
    assert not (tmp_path / "coco").exists()


@pytest.mark.parametrize("name", ["data.yaml", "train", "train/images", "train/labels", "classes.txt"])
@pytest.mark.parametrize("target", ["folder", "file", pytest.param("pipe", marks=posix_only("named pipes"))])
def test_a_data_set_whose_parts_are_links_is_refused(
    name: str, target: str, cli: Cli, tmp_path: Path, outside: Path
) -> None:
    make_yolo(tmp_path / "src", 4)
    if name == "classes.txt":
        (tmp_path / "src/data.yaml").unlink()
    put(tmp_path / "src" / name, target, outside)
    done = cli("fetch-dataset", "yolo:src", "--out", "d")
    if name == "train/labels":  # photos whose labels nobody may read are not photos without a garment
        assert done.code == 2
        assert "dropped: 4 " in done.err
    else:
        refused(done, name)
    assert not (tmp_path / "d").exists()
    if name == "data.yaml":
        for words in (("dataset", "audit", "src"), ("dataset", "audit", "src/data.yaml")):
            refused(cli(*words), "data.yaml")
        refused(cli("fetch-dataset", "yolo:src/data.yaml", "--out", "d"), "data.yaml")
        (outside / "dataset.json").write_text("{")  # whoever reads it says that it is broken
        for words in (("evaluate", "--weights"), ("compare", "--out", "t", "--models")):
            done = cli(*words, TINY / "detector", "--data", "src/data.yaml")
            refused(done, "data.yaml")
            assert "data.yaml/" not in done.err
        (outside / "dataset.json").unlink()


@pytest.mark.parametrize(
    "yaml",
    [
        "train: {outside}\n",
        "path: {outside}\ntrain: sub\n",
        "train: ../outside\n",
        "path: ..\ntrain: outside\n",
        "path: ../outside\ntrain: sub\n",
        "train: train/../../outside\n",
        "train: [train/images, {outside}/secret.jpg]\nval: ../../outside\n",
        "train: list.txt\n",
        "train: {outside}/list.txt\n",
    ],
)
def test_names_that_lead_out_of_a_data_set_are_not_read(yaml: str, cli: Cli, tmp_path: Path, outside: Path) -> None:
    make_yolo(tmp_path / "src", 4)
    (tmp_path / "src/list.txt").write_text(f"{outside}/secret.jpg\n../outside/secret.jpg\n")
    (tmp_path / "src/data.yaml").write_text(yaml.format(outside=outside) + "names: " + json.dumps(list(NAMES)))
    for n, source in enumerate(("yolo:src", "yolo:src/data.yaml")):
        done = cli("fetch-dataset", source, "--out", f"d{n}", "--set", "dataset.ratios=[1,0,0]")
        assert done.code == 2, (done.out, done.err)
        assert not (tmp_path / f"d{n}").exists()
    for command in (
        ("evaluate", "--weights", TINY / "detector", "--data", "src/data.yaml", "--set", "evaluate.split=train"),
        ("dataset", "export", "src", "--to", "coco", "--out", "coco"),
    ):
        assert cli(*command).code == 2
    cli("dataset", "audit", "src", "--html", "a.html")


def test_a_list_that_leads_out_is_counted_line_by_line(cli: Cli, tmp_path: Path, outside: Path) -> None:
    make_yolo(tmp_path / "src", 6)
    inside = "".join(f"train/images/p{n}.jpg\n" for n in range(6))
    (tmp_path / "src/train/images/link.jpg").symlink_to(outside / "secret.jpg")
    (tmp_path / "src/list.txt").write_text(f"{inside}{outside}/secret.jpg\ntrain/images/link.jpg\ngone.jpg\n")
    (tmp_path / "src/data.yaml").write_text("train: list.txt\nnames: " + json.dumps(list(NAMES)))
    done = cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "4,1,1", "--json")
    assert done.code == 0, done.err
    assert done.document["dropped"] == {"link": 1, "missing": 1, "outside": 1}
    kinds = cli("dataset", "audit", "src", "--json").document["counts_by_kind"]
    assert {kind: kinds[kind] for kind in ("link", "missing-image", "outside-dataset")} == {
        "link": 1,
        "missing-image": 1,
        "outside-dataset": 1,
    }


def test_links_are_followed_where_the_setting_says_so(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "disk/big", 10)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/data.yaml").symlink_to(tmp_path / "disk/big/data.yaml")
    (tmp_path / "src/train").symlink_to("../disk/big/train")
    (tmp_path / "src/train/images/back").symlink_to("..")  # a loop
    follow = ("--set", "dataset.follow_links=true")
    refused(cli("fetch-dataset", "yolo:src", "--out", "d"), "data.yaml")
    assert cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "6,2,2", *follow).code == 0
    assert len(list((tmp_path / "d").glob("*/images/*.jpg"))) == 10
    (tmp_path / "src/data.yaml").unlink()
    (tmp_path / "src/data.yaml").write_text(
        f"path: {tmp_path}/disk/big\ntrain: train/images\nnames: {json.dumps(list(NAMES))}\n"
    )
    (tmp_path / "src/train").unlink()
    evaluate = ("evaluate", "--weights", TINY / "detector", "--data", "src/data.yaml", "--set", "evaluate.split=train")
    (tmp_path / "disk/big/train/images/back").unlink()
    refused(cli(*evaluate), "leads out")
    assert cli(*evaluate, *follow).code == 0
    assert cli("dataset", "export", "src", "--to", "voc", "--out", "voc", *follow).code == 0
    (tmp_path / "named").symlink_to("disk/big")  # reached through a link by the user
    assert cli("fetch-dataset", "yolo:named", "--out", "e", "--counts", "6,2,2").code == 0


def test_an_archive_never_leads_out_whatever_the_setting(cli: Cli, tmp_path: Path, outside: Path) -> None:
    make_yolo(tmp_path / "src", 4)
    (tmp_path / "src/data.yaml").write_text(f"train: list.txt\nval: {outside}\nnames: {json.dumps(list(NAMES))}\n")
    (tmp_path / "src/list.txt").write_text(f"train/images/p0.jpg\n{outside}/secret.jpg\n")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "src", "src")
    for more in ((), ("--set", "dataset.follow_links=true")):
        done = cli("fetch-dataset", "yolo:a.tar", "--out", "d", *more)
        refused(done, "outside")
        assert not (tmp_path / "d").exists()


def test_exports_of_roboflow_and_a_yaml_beside_its_data_set_are_read_as_ever(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "src", 10)
    names = "names: " + json.dumps(list(NAMES))
    (tmp_path / "src/data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\n{names}\n")
    assert cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "6,2,2").code == 0
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg/mine.yaml").write_text(f"path: ../src\ntrain: train/images\n{names}\n")
    assert cli("fetch-dataset", "yolo:cfg/mine.yaml", "--out", "e", "--counts", "6,2,2").code == 0
    (tmp_path / "src/data.yaml").write_text(f"path: {tmp_path}/src\ntrain: {tmp_path}/src/train/images\n{names}\n")
    assert cli("fetch-dataset", "yolo:src", "--out", "f", "--counts", "6,2,2").code == 0


@every_plant
def test_coco_voc_and_folders_count_links_too(plant: str, cli: Cli, tmp_path: Path, outside: Path) -> None:
    reason = "special" if plant in ("pipe", "socket") else "link"
    make_yolo(tmp_path / "src", 10)
    assert cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "6,2,2").code == 0
    for form in ("coco", "voc"):
        assert cli("dataset", "export", "d", "--to", form, "--out", form).code == 0
    photo = next((tmp_path / "coco/images/train").iterdir())
    put(photo, plant, outside)
    put(tmp_path / "coco/annotations/more.json", plant, outside)
    done = cli("fetch-dataset", "coco:coco", "--out", "from-coco", "--counts", "5,2,2", "--json")
    assert done.code == 0, done.err
    assert done.document["dropped"] == {reason: 2}
    xml = sorted((tmp_path / "voc/Annotations").iterdir())
    put(xml[0], plant, outside)
    put(tmp_path / f"voc/JPEGImages/{xml[1].stem}.jpg", plant, outside)
    put(tmp_path / "voc/ImageSets/Main/trainval.txt", plant, outside)
    done = cli("fetch-dataset", "voc:voc", "--out", "from-voc", "--set", "dataset.split=ratios", "--json")
    assert done.code == 0, done.err
    assert done.document["dropped"] == {reason: 3}
    (tmp_path / "photos/sub").mkdir(parents=True)
    (tmp_path / "photos/a.jpg").write_bytes(picture(1))
    put(tmp_path / "photos/sub/b.jpg", plant, outside)
    put(tmp_path / "photos/more", plant, outside)
    done = cli("fetch-dataset", "folder:photos", "--out", "from-folder", "--json")
    assert done.document["dropped"] == {reason: 2}


@posix_only("links", "named pipes")
def test_coco_names_and_feeds_do_not_lead_out(cli: Cli, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.jpg").write_bytes(picture(1))
    names = ["a.jpg", str(outside / "secret.jpg"), "../outside/secret.jpg"]
    document = {
        "images": [{"id": n, "file_name": name, "width": 128, "height": 96} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 50, 50]} for n in range(3)],
        "categories": [{"id": 1, "name": "top"}],
    }
    (tmp_path / "c/_annotations.coco.json").write_text(json.dumps(document))
    done = cli("fetch-dataset", "coco:c", "--out", "d", "--set", "dataset.ratios=[1,0,0]", "--json")
    assert done.document["dropped"] == {"outside": 2}
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/a.jpg").write_bytes(picture(1))
    os.mkfifo(tmp_path / "shop/pipe.jpg")
    (tmp_path / "shop/link.jpg").symlink_to(outside / "secret.jpg")
    (tmp_path / "shop/near.jpg").symlink_to("a.jpg")
    rows = [{"id": n, "image": name} for n, name in enumerate(["a.jpg", "link.jpg", "near.jpg", "pipe.jpg"])]
    (tmp_path / "shop/feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("fetch-dataset", "feed:shop/feed.jsonl", "--out", "e", "--json", "--set", "feed.max_failures=0.75")
    assert done.code == 0, "no more than may fail"
    assert done.document["dropped"] == {"link": 1, "outside": 1, "special": 1}
