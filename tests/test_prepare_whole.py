"""Test what is prepared of sources in memory, document by document; and the steps that decide of
it, by hand.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from systems import posix_only

from fashionrec.config import Config, load_config
from fashionrec.dataset.prepare.assign import assign_groups, assign_splits
from fashionrec.dataset.prepare.augment import Change, change_labels, draw_change, rotate_box
from fashionrec.dataset.prepare.prepare import done_before, prepare
from fashionrec.dataset.prepare.rules import Frame, Label, class_map, clean_boxes
from fashionrec.dataset.prepare.split import counts_of
from fashionrec.dataset.prepare.stage import Staged
from fashionrec.dataset.prepare.table import TableImage, write_data_yaml, write_table
from fashionrec.dataset.prepare.whole import whole_or_not
from fashionrec.dataset.prepare.write import Record, name_files
from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.errors import DataError
from fashionrec.types import Box

HOW_TO_MAP = "(or =null to drop it), or --set dataset.unknown_class=drop"


def settings(*sets: str) -> Config:
    return load_config(sets=["dataset.workers=1", *sets], env={}).config


def photo(path: Path, seed: int, size: tuple[int, int] = (40, 20), **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    picture.convert(how.pop("mode", "RGB")).save(path, **how)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(tmp_path: Path, *sources: Source, sets: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    (tmp_path / "out").mkdir()
    (tmp_path / "staging").mkdir()
    return prepare(sources, tmp_path / "out", tmp_path / "staging", settings(*sets), **options)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def two_sources(tmp_path: Path) -> tuple[Source, Source]:
    exif = Image.Exif()
    exif[0x0112] = 6
    a = photo(tmp_path / "s/a.jpg", 1)
    turned = photo(tmp_path / "s/b/turned.jpg", 2, exif=exif)
    grey = photo(tmp_path / "s/A.png", 3, mode="L")
    (tmp_path / "s/broken.jpg").write_bytes(b"x")
    labelled = Source(
        "yolo:s",
        (
            SourceImage("a.jpg", a, (RawBox("Top", 0.25, 0.5, 0.75, 1, True), RawBox("hat", 1, 2, 3, 4)),
            split="train", group="g"),
            SourceImage("b/turned.jpg", turned, (RawBox("skirt", 30, 0, 10, 10), RawBox("shoe", 0, 0, 9, 9)), split="valid"),
            SourceImage("A.png", grey, (RawBox("dress", 0, 0, 20, 10),), split="test", problems=("line 3 is not a box: x",)),
            SourceImage("broken.jpg", tmp_path / "s/broken.jpg", split="train"),
            SourceImage("c.jpg", photo(tmp_path / "s/c.jpg", 4), labelled=False, split="train"),
            SourceImage("d.jpg", photo(tmp_path / "s/d.jpg", 5), split="train"),
        ),
        names=("top",),
        failed=({"key": "gone.jpg", "reason": "missing", "message": "not there"}, {"url": "http://x/y", "reason": "http"}),
        notes=("a note",),
    )  # fmt: skip
    loose = Source(
        "feed:f.csv",
        (SourceImage("7_1.jpg", photo(tmp_path / "f/7.jpg", 6), labelled=False),),
        has_labels=False,
        products={"7_1.jpg": {"product_id": "7", "title": "셔츠"}},
    )
    return labelled, loose


def test_the_whole_of_a_prepared_dataset(tmp_path: Path, two_sources: tuple[Source, Source]) -> None:
    seen: list[tuple[int, int]] = []
    document = make(
        tmp_path, *two_sources, request="me", progress=lambda *at: seen.append(at), sets=("dataset.map={shoe: null}",)
    )
    out = tmp_path / "out"
    assert seen == [(n, 7) for n in range(1, 8)]
    assert json.loads((out / "dataset.json").read_text(encoding="utf-8")) == document
    assert {key: value for key, value in document.items() if key not in ("settings", "fingerprint")} == {
        "format": "fashionrec-dataset",
        "format_version": 1,
        "source": "yolo:s + feed:f.csv",
        "sources": [
            {
                "label": "yolo:s", "photos": 8, "failed": 2, "kept": 5, "boxes": 3, "labelled": True, "already": {},
                "notes": ["a note"],
            },
            {"label": "feed:f.csv", "photos": 1, "failed": 0, "kept": 1, "boxes": 0, "labelled": False,
            "already": {}, "notes": []},
        ],
        "counts": {
            "train": 3, "valid": 1, "test": 1, "dress": 1, "pants": 0, "skirt&pants": 0, "skirt": 1, "top": 1, "unlabelled": 1,
        },
        "copies": 0,
        "dropped": {"broken-line": 1, "class-left-out": 1, "http": 1, "missing": 1, "not-an-image": 1, "unknown-class": 1},
        "fixed": {"exif-turned": 1, "reversed-corners": 1},
        "kept": {"no-box": 1, "no-label-file": 1},
        "pixels": {},
        "augment": {"mode": "fly", "fliplr": 0.5, "flipud": 0.1, "degrees": 10.0},
        "groups": {"photos": 5, "groups": 5, "largest": 1},
        "product_photos": 1,
        "request": "me",
    }  # fmt: skip
    assert document["settings"]["map"] == {"shoe": None}
    assert "workers" not in document["settings"]
    names = {key: f"{name}-{sha(tmp_path / 's' / key)[:8]}" for key, name in (("a.jpg", "a"), ("A.png", "A"))}
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == sorted(
        [
            "annotations.csv", "annotations.parquet", "data.yaml", "dataset.json", "history.jsonl", "problems.csv",
            "products.jsonl",
            "unlabelled/images/7_1.jpg", "valid/images/turned.jpg", "valid/labels/turned.txt",
            f"test/images/{names['A.png']}.jpg", f"test/labels/{names['A.png']}.txt",
            *(f"train/{sub}" for sub in (
                f"images/{names['a.jpg']}.jpg", f"labels/{names['a.jpg']}.txt", "images/c.jpg", "labels/c.txt", "images/d.jpg",
                "labels/d.txt",
            )),
        ]
    )  # fmt: skip
    assert (out / "data.yaml").read_text() == (
        "train: train/images\nval: valid/images\ntest: test/images\nnc: 5\n"
        "names:\n  0: dress\n  1: pants\n  2: skirt&pants\n  3: skirt\n  4: top\n"
    )
    # stored 40 x 20, shown 20 x 40: the box 10, 0, 30, 10 comes to 10, 10, 20, 30
    assert (out / "valid/labels/turned.txt").read_text() == "3 0.750000 0.500000 0.500000 0.500000\n"
    assert (out / "annotations.csv").read_text(encoding="utf-8").splitlines() == [
        "image_id,image_path,width,height,class_id,class_name,bbox_x_center,bbox_y_center,bbox_width,bbox_height",
        f"train/{names['a.jpg']},train/images/{names['a.jpg']}.jpg,40,20,4,top,0.500000,0.750000,0.500000,0.500000",
        "valid/turned,valid/images/turned.jpg,20,40,3,skirt,0.750000,0.500000,0.500000,0.500000",
        f"test/{names['A.png']},test/images/{names['A.png']}.jpg,40,20,0,dress,0.250000,0.250000,0.500000,0.500000",
    ]
    told = (out / "problems.csv").read_text(encoding="utf-8").splitlines()
    assert [line for line in told if "broken.jpg" not in line] == [
        "source,image,problem,action,detail",
        "yolo:s,gone.jpg,missing,dropped,not there",
        "yolo:s,http://x/y,http,dropped,http://x/y",
        "yolo:s,a.jpg,unknown-class,dropped,hat",
        "yolo:s,b/turned.jpg,exif-turned,fixed,orientation 6: boxes turned with the picture",
        'yolo:s,b/turned.jpg,reversed-corners,fixed,"skirt 30, 0, 10, 10 px"',
        'yolo:s,b/turned.jpg,class-left-out,dropped,"shoe, by dataset.map"',
        "yolo:s,A.png,broken-line,dropped,line 3 is not a box: x",
        "yolo:s,c.jpg,no-label-file,kept,",
        "yolo:s,d.jpg,no-box,kept,",
    ]
    steps = [
        ["copied byte for byte"],
        ["turned upright, EXIF orientation 6", "JPEG to JPEG, quality 95"],
        ["L to RGB", "PNG to JPEG, quality 95"],
    ]
    history = lines(out / "history.jsonl")
    assert history[0] == {
        "image": f"train/images/{names['a.jpg']}.jpg", "source": "yolo:s", "key": "a.jpg", "sha256": sha(tmp_path / "s/a.jpg"),
        "already": {}, "steps": steps[0], "group": 0, "boxes": 1,
    }  # fmt: skip
    assert [(row["key"], row["image"].split("/")[0], row["steps"], row["group"], row["boxes"]) for row in history[1:]] == [
        ("b/turned.jpg", "valid", steps[1], 1, 1), ("A.png", "test", steps[2], 2, 1), ("c.jpg", "train", steps[0], 3, 0),
        ("d.jpg", "train", steps[0], 4, 0), ("7_1.jpg", "unlabelled", steps[0], None, 0),
    ]  # fmt: skip
    assert lines(out / "products.jsonl") == [{"image": "unlabelled/images/7_1.jpg", "product_id": "7", "title": "셔츠"}]
    digest = hashlib.sha256()
    for split in ("train", "valid", "test"):
        for path in sorted((out / split / "images").iterdir()):
            digest.update(f"{split}/images/{path.name}".encode() + b"\0" + bytes.fromhex(sha(path)))
            digest.update((out / split / "labels" / f"{path.stem}.txt").read_bytes())
    assert document["fingerprint"] == digest.hexdigest()


def test_rules_that_drop_photos_and_their_words_where_nothing_is_left(
    tmp_path: Path, two_sources: tuple[Source, Source]
) -> None:
    labelled, _ = two_sources
    sets = ("dataset.unknown_class=drop-photo", "dataset.unlabelled=drop", "dataset.empty=drop", "dataset.split=keep")
    document = make(tmp_path, labelled, sets=sets)
    assert (
        document["dropped"]["photo-of-unknown-class"],
        document["dropped"]["no-box"],
        document["dropped"]["no-label-file"],
    ) == (2, 1, 1)
    assert document["counts"]["test"] == 1
    assert (tmp_path / "out/data.yaml").read_text().splitlines()[0] == "test: test/images"
    only = Source("yolo:s", labelled.images[4:], failed=labelled.failed[:1])
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError) as caught:
        make(tmp_path / "again", only, sets=sets)
    assert str(caught.value) == "no usable photo is left in the sources"
    assert caught.value.hint == "dropped: 1 missing, 1 no-label-file, 1 no-box"
    (tmp_path / "third").mkdir()
    with pytest.raises(DataError) as caught:
        make(tmp_path / "third", Source("yolo:s", ()))
    assert caught.value.hint == "the sources are empty"


def test_splits_that_are_kept_or_dealt_out(tmp_path: Path, two_sources: tuple[Source, Source]) -> None:
    labelled, loose = two_sources
    images = (*labelled.images[:3], SourceImage("e.jpg", labelled.images[4].path, labelled=False))
    with pytest.raises(DataError) as caught:
        make(tmp_path, Source("s", images), loose, sets=("dataset.split=keep",))
    assert str(caught.value) == "dataset.split is keep, but there is no split for 1 labelled photo"
    assert caught.value.hint == "--set dataset.split=ratios assigns a new split to every photo"
    (tmp_path / "n").mkdir()
    document = make(tmp_path / "n", Source("s", images), loose, sets=("dataset.counts=[2, 1, 1]",))
    assert [document["counts"][split] for split in ("train", "valid", "test", "unlabelled")] == [2, 1, 1, 1]
    staged = sorted((tmp_path / "n/staging/photos").rglob("*.json"))
    assert {len(json.loads(path.read_text())["phash"]) for path in staged} == {64}
    (tmp_path / "m").mkdir()
    make(tmp_path / "m", labelled, sets=("dataset.split=ratios", "dataset.near_duplicates=-1"))
    assert {json.loads(path.read_text())["phash"] for path in (tmp_path / "m/staging/photos").rglob("*.json")} == {""}


def test_copies_of_the_training_photos(tmp_path: Path, two_sources: tuple[Source, Source]) -> None:
    labelled, _ = two_sources
    sets = ("dataset.augment=copies", "dataset.copies=2", "dataset.fliplr=1", "dataset.flipud=0", "dataset.degrees=0")
    document = make(tmp_path, Source("s", labelled.images[:2]), sets=sets)
    assert (document["copies"], document["counts"]["train"], document["counts"]["top"]) == (2, 3, 3)
    assert document["augment"] == {"mode": "copies", "fliplr": 1.0, "flipud": 0.0, "degrees": 0.0}
    out = tmp_path / "out"
    assert sorted(path.name for path in (out / "train/images").iterdir()) == ["a.jpg", "a_aug1.jpg", "a_aug2.jpg"]
    for name in ("a_aug1", "a_aug2"):
        assert (out / f"train/labels/{name}.txt").read_text() == "4 0.500000 0.750000 0.500000 0.500000\n"
        with Image.open(out / f"train/images/{name}.jpg") as copy, Image.open(out / "train/images/a.jpg") as own:
            difference = np.abs(np.asarray(copy, float) - np.asarray(own, float)[:, ::-1])
        assert difference.mean() < 15
    assert (out / "annotations.csv").read_text().count("_aug") == 4
    (tmp_path / "none").mkdir()
    assert make(tmp_path / "none", Source("s", labelled.images[:2]), sets=("dataset.augment=none",))["augment"] == {
        "mode": "none"
    }


@pytest.mark.parametrize(
    ("already", "pixels"),
    [
        ({}, {}),
        ({"resize": {"width": 416, "height": 416, "mode": "letterbox"}}, {"resize": "letterbox", "imgsz": 416}),
        ({"resize": {"width": 416, "height": 416, "mode": "fill"}}, {}),
        ({"resize": {"width": 416, "height": 417, "mode": "fit"}}, {}),
        ({"equalize": {"kind": "adaptive"}}, {"equalize": 2.0, "tiles": 8}),
        ({"equalize": {"kind": "stretching"}, "resize": None}, {}),
    ],
)  # fmt: skip
def test_what_was_done_before(already: Mapping[str, Any], pixels: dict[str, Any]) -> None:
    assert done_before(already).to_dict() == pixels


def test_pixels_that_were_changed_are_changed_no_more(tmp_path: Path, two_sources: tuple[Source, Source]) -> None:
    labelled, loose = two_sources
    already = {"equalize": {"kind": "adaptive"}, "augment": {"copies": 3}}
    document = make(
        tmp_path, Source("r", labelled.images[:1], already=already), sets=("dataset.resize=stretch", "dataset.imgsz=32")
    )
    assert (document["pixels"], document["augment"]) == ({"equalize": 2.0, "tiles": 8}, {"mode": "done", "by": ["r"]})
    assert lines(tmp_path / "out/history.jsonl")[0]["steps"] == ["copied byte for byte"]
    assert lines(tmp_path / "out/history.jsonl")[0]["already"] == already
    (tmp_path / "n").mkdir()
    with pytest.raises(DataError) as caught:
        make(tmp_path / "n", Source("plain", labelled.images[1:2]), Source("r", labelled.images[:1], already=already))
    assert str(caught.value) == (
        "the photos of r were preprocessed by their source; those of other sources were not, or differently"
    )
    assert caught.value.hint == "prepare them separately, or fetch a version without preprocessing"
    (tmp_path / "m").mkdir()
    here = (
        "dataset.resize=stretch",
        "dataset.imgsz=32",
        "dataset.equalize=3",
        "dataset.equalize_tiles=4",
        "dataset.quality=80",
    )
    document = make(tmp_path / "m", Source("plain", labelled.images[:1]), loose, sets=here)
    assert document["pixels"] == {"resize": "stretch", "imgsz": 32, "equalize": 3.0, "tiles": 4}
    steps = ["stretch 40x20 to 32x32", "equalized, limit 3, 4x4 tiles", "JPEG to JPEG, quality 80"]
    assert [row["steps"] for row in lines(tmp_path / "m/out/history.jsonl")] == [steps, steps]


# -- the steps


def record(
    key: str, *, source: int = 0, group: str | None = None, split: str | None = None, phash: str = "", **more: Any
) -> Record:
    digest = more.pop("sha256", hashlib.sha256(key.encode()).hexdigest())
    labels = tuple(Label(number, Box(0, 0, 1, 1)) for number in more.pop("classes", ()))
    frame = Frame((10, 10), (10, 10))
    staged = Staged(digest, frame, (10, 10), Path(key), digest, ".jpg", True, phash, "JPEG", "RGB")
    return Record(source, key, group, split, staged, labels, True)


def test_what_belongs_together() -> None:
    zero, near, far = "00" * 31 + "01", "00" * 31 + "06", "ff" * 32
    records = [
        record("a", group="g"), record("b", phash=zero), record("c", group="g"), record("d", source=1, group="g"),
        record("e", phash=near), record("f", sha256="00"), record("g", sha256="00"), record("h", phash=far),
        record("i", phash=""),
    ]  # fmt: skip
    assert assign_groups(records, -1) == [0, 1, 0, 2, 3, 4, 4, 5, 6]
    assert assign_groups(records, 2) == [0, 1, 0, 2, 3, 4, 4, 5, 6]
    assert assign_groups(records, 3) == [0, 1, 0, 2, 1, 3, 3, 4, 5]
    assert assign_groups([record("b", phash=zero)], 3) == [0]


def test_splits_that_are_kept_bring_a_group_to_where_most_of_it_is(config: Config) -> None:
    records = [
        record("a", group="g", split="valid"), record("b", group="g", split="train"), record("c", group="g", split="valid"),
        record("d", group="h", split="test"), record("e", group="h", split="train"), record("f", split="test"),
        record("g", source=1, group="g", split="test"),
    ]  # fmt: skip
    groups = [0, 0, 0, 1, 1, 2, 2]
    auto = config.dataset.model_copy(update={"split": "auto"})
    splits, told = assign_splits(records, groups, auto, keep=True)
    assert splits == ["valid", "valid", "valid", "train", "train", "test", "test"]
    assert [(n, tuple(problem)) for n, problem in told] == [
        (1, ("leak", "fixed", "g: from train to valid")), (3, ("leak", "fixed", "h: from test to train")),
    ]  # fmt: skip
    keep = config.dataset.model_copy(update={"split": "keep"})
    splits, told = assign_splits(records, groups, keep, keep=True)
    assert splits == ["valid", "train", "valid", "test", "train", "test", "test"]
    assert [(n, tuple(problem)) for n, problem in told] == [
        *((n, ("leak", "kept", "group 0 is in train, valid")) for n in range(3)),
        *((n, ("leak", "kept", "group 1 is in test, train")) for n in (3, 4)),
    ]
    assert assign_splits([], [], auto, keep=True) == ([], [])
    dealt = config.dataset.model_copy(update={"counts": [3, 2, 2]})
    splits, told = assign_splits(records, [0, 0, 1, 1, 2, 2, 3], dealt, keep=False)
    assert (sorted(splits), told) == (["test"] * 2 + ["train"] * 3 + ["valid"] * 2, [])
    assert len({splits[0], splits[1]}) == len({splits[2], splits[3]}) == len({splits[4], splits[5]}) == 1


def test_names_of_files_that_would_be_one() -> None:
    records = [record(key) for key in ("x/a.jpg", "y/A.png", "b.c.jpg", "x\ny.jpg")] + [
        record("z/a.jpg", sha256=record("x/a.jpg").staged.sha256)
    ]
    first, second = (record(key).staged.sha256[:8] for key in ("x/a.jpg", "y/A.png"))
    name_files(records)
    assert [one.name for one in records] == [f"a-{first}", f"A-{second}", "b.c", "x-y", f"a-{first}-2"]


@pytest.mark.parametrize(
    ("total", "ratios", "counts"),
    [
        (10, (0.7, 0.15, 0.15), [7, 2, 1]), (3, (0.5, 0.25, 0.25), [1, 1, 1]), (2, (0.5, 0.25, 0.25), [1, 1, 0]),
        (7, (1, 0, 0), [7, 0, 0]), (100, (0.333, 0.333, 0.334), [33, 33, 34]), (5, (0.1, 0.1, 0.8), [1, 0, 4]),
        (4, (0.5, 0.25, 0.2500005), [2, 1, 1]),
    ],
)  # fmt: skip
def test_shares_of_photos(total: int, ratios: tuple[float, ...], counts: list[int]) -> None:
    assert counts_of(total, ratios) == counts
    with pytest.raises(DataError) as caught:
        counts_of(total, (0.5, 0.25, 0.250002))
    assert (str(caught.value), caught.value.hint) == (
        "split ratios [0.5, 0.25, 0.250002] add up to 1",
        "they must add up to 1",
    )


def test_the_table_of_a_dataset(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    digest = "ab" * 32
    boxes = ((4, 0.1234564, 0.5, 0.25, 1 / 3), (0, 0.5, 0.5, 1, 1))
    images = [
        TableImage("train", "train/images/images/a.b.jpg", (10, 20), digest, boxes), TableImage("test",
        "test/images/c.png", (3, 4), digest, ()),
    ]  # fmt: skip
    table = write_table(tmp_path, images)
    told = b"train/images/images/a.b.jpg\0" + bytes.fromhex(digest)
    told += (
        b"4 0.123456 0.500000 0.250000 0.333333\n0 0.500000 0.500000 1.000000 1.000000\n"
        + b"test/images/c.png\0"
        + bytes.fromhex(digest)
    )
    assert table == {
        "counts": {"train": 1, "test": 1, "dress": 1, "pants": 0, "skirt&pants": 0, "skirt": 0, "top": 1},
        "fingerprint": hashlib.sha256(told).hexdigest(),
    }
    frame = pandas.read_parquet(tmp_path / "annotations.parquet")
    assert frame.to_dict("split")["data"] == [
        ["train/images/a.b", "train/images/images/a.b.jpg", 10, 20, 4, "top", 0.123456, 0.5, 0.25, 0.333333],
        ["train/images/a.b", "train/images/images/a.b.jpg", 10, 20, 0, "dress", 0.5, 0.5, 1.0, 1.0],
    ]
    assert [str(kind) for kind in frame.dtypes.iloc[[2, 3, 4, 9]]] == [
        "int32",
        "int32",
        "int32",
        "float64",
    ]
    (tmp_path / "empty").mkdir()
    assert write_table(tmp_path / "empty", [])["fingerprint"] == hashlib.sha256().hexdigest()
    assert list(pandas.read_parquet(tmp_path / "empty/annotations.parquet").columns) == list(frame.columns)
    write_data_yaml(tmp_path, ["valid"])
    assert (tmp_path / "data.yaml").read_text().startswith("val: valid/images\nnc: 5\nnames:\n  0: dress\n")


def test_words_for_boxes_and_classes(config: Config) -> None:
    mapped = class_map({" T-Shirt ": "Top", "shoe": None, "hat": "null", "bag": "none", "belt": ""})
    assert mapped == {"t-shirt": "top", "shoe": None, "hat": None, "bag": None, "belt": None}
    with pytest.raises(DataError) as caught:
        class_map({"x": "coat rack"})
    assert str(caught.value) == "x=coat rack: coat rack is not a class"
    assert caught.value.hint == "the classes are dress, pants, skirt&pants, skirt, top"
    boxes = (
        RawBox("Shoe", 0, 0, 9, 9), RawBox("top", 0.125, 0, 1.5, 1, True), RawBox("top", 12345678, 0, 1, 1),
        RawBox("top", 1, 1, 1.25, 8),
        RawBox("top", float("nan"), 0, 1, 1), RawBox("Cap", 0, 0, 9, 9),
    )  # fmt: skip
    picture = SourceImage("a.jpg", Path("a.jpg"), boxes, problems=("line 2",))
    labels, problems = clean_boxes(picture, Frame((40, 20), (40, 20)), config.dataset, mapped)
    assert labels == [Label(4, Box(5, 0, 40, 20)), Label(4, Box(1, 0, 40, 1))]
    assert [tuple(problem) for problem in problems] == [
        ("broken-line", "dropped", "line 2"), ("class-left-out", "dropped", "Shoe, by dataset.map"),
        ("beyond-edge", "fixed", "top 0.125, 0, 1.5, 1: clipped"), ("reversed-corners", "fixed", "top 1.23457e+07, 0, 1, 1 px"),
        ("beyond-edge", "fixed", "top 1.23457e+07, 0, 1, 1 px: clipped"), ("no-area", "dropped", "top 1, 1, 1.25, 8 px"),
        ("not-finite", "dropped", "top nan, 0, 1, 1 px"), ("unknown-class", "dropped", "Cap"),
    ]  # fmt: skip
    strict = config.dataset.model_copy(update={"unknown_class": "fail"})
    odd = SourceImage("a.jpg", Path("a.jpg"), (RawBox("big hat", 0, 0, 9, 9),))
    with pytest.raises(DataError) as caught:
        clean_boxes(odd, Frame((40, 20), (40, 20)), strict, {})
    assert str(caught.value) == "a.jpg has a box of the unknown class 'big hat'"
    assert caught.value.hint == f"--map 'big hat=top' {HOW_TO_MAP}"
    many = SourceImage("a.jpg", Path("a.jpg"), (RawBox("cap", 0, 0, 9, 9),) * 10_001)
    with pytest.raises(DataError, match=r"^a\.jpg has 10,001 boxes; the limit per photo is 10,000$"):
        clean_boxes(many, Frame((40, 20), (40, 20)), config.dataset, {})
    fewer = SourceImage("a.jpg", Path("a.jpg"), many.boxes[1:])
    assert len(clean_boxes(fewer, Frame((40, 20), (40, 20)), config.dataset, {})[1]) == 10_000


def test_changes_by_hand() -> None:
    change = Change(True, True, 90)
    box = Box(14, 10, 34, 20)  # of 100 x 50: mirrored both ways it is 66, 30, 86, 40; a quarter turn about 50, 25
    (label,) = change_labels([Label(3, box)], (100, 50), change)
    assert label.class_id == 3
    assert tuple(label.box) == pytest.approx((55, 0, 65, 9))
    assert tuple(rotate_box(Box(66, 30, 86, 40), (100, 50), 90)) == pytest.approx((55, -11, 65, 9))
    for left, stays in ((68.9, True), (69.1, False)):  # .305 and .295 of it stay in the picture
        turned = change_labels([Label(3, Box(left, 30, left + 20, 40))], (100, 50), Change(degrees=90))
        assert bool(turned) is stays
    assert change_labels([Label(3, box)], (100, 50), Change()) == [Label(3, box)]
    drawn = draw_change(5, "a", fliplr=0.5, flipud=0.5, degrees=10)
    chance = random.Random(int.from_bytes(hashlib.sha256(b"5:a").digest()[:8], "big"))
    expected = chance.random() < 0.5, chance.random() < 0.5, round(chance.uniform(-10, 10), 3)
    assert (drawn.fliplr, drawn.flipud, drawn.degrees) == expected


@posix_only("modes of files")
def test_others_may_read_a_folder_that_is_whole(tmp_path: Path) -> None:
    with whole_or_not(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_a_folder_that_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_or_not(out) as folder:
        assert (folder.parent, folder.name.startswith(".out-")) == (out.parent, True)
        (folder / "a").write_text("x")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    with pytest.raises(DataError) as caught, whole_or_not(out):
        pass
    assert (str(caught.value), caught.value.hint) == (
        f"{out} is not an empty folder",
        "choose another --out, or remove it",
    )
    (out / "a").unlink()
    with pytest.raises(KeyboardInterrupt), whole_or_not(out) as folder:
        raise KeyboardInterrupt
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    with whole_or_not(out) as folder:
        (folder / "b").write_text("x")
    assert [path.name for path in out.iterdir()] == ["b"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is not an empty folder"), whole_or_not(tmp_path / "file"):
        pass
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(DataError) as caught, whole_or_not(tmp_path / "link"):
        pass
    told = f"{tmp_path / 'link'} is a symbolic link"
    assert (str(caught.value), caught.value.hint) == (
        told,
        "choose another --out, or give the folder that it points to",
    )
