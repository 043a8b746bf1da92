"""fetch-dataset, from any source to a dataset folder: what is in it, that it is complete, and that
a kill costs nothing.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from systems import posix_only

from fashionrec.config import Config, load_config
from fashionrec.dataset.fetch import fetch_dataset
from fashionrec.errors import Busy, DataError

NAMES = ("dress", "pants", "skirt&pants", "skirt", "top")


def photo(seed: int, size: tuple[int, int] = (128, 96)) -> Image.Image:
    """A picture like no other."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def make_yolo(
    root: Path, count: int, *, names: tuple[str, ...] = NAMES, seed: int = 0, size: tuple[int, int] = (128, 96)
) -> Path:
    """A dataset of one box per photo, all in train, classes in turn."""
    for sub in ("images", "labels"):
        (root / "train" / sub).mkdir(parents=True)
    for n in range(count):
        photo(seed * 10_000 + n, size).save(root / f"train/images/p{n:04d}.jpg", quality=92)
        (root / f"train/labels/p{n:04d}.txt").write_text(f"{n % len(names)} 0.5 0.5 0.4 0.6\n")
    (root / "data.yaml").write_text("train: train/images\nnames: " + json.dumps(list(names)) + "\n")
    return root


def settings(*sets: str) -> Config:
    return load_config(sets=["dataset.workers=1", *sets], env={}).config


def fetch(out: Path, *specs: str, sets: tuple[str, ...] = ()) -> dict[str, Any]:
    return fetch_dataset(specs, out, settings(*sets), store=out.parent / "store")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tree(root: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_folder_and_its_documents(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 40)
    document = fetch(tmp_path / "out", f"yolo:{source}", sets=("dataset.split=ratios",))
    assert document["counts"] == {
        "train": 28, "valid": 6, "test": 6, "dress": 8, "pants": 8, "skirt&pants": 8, "skirt": 8, "top": 8,
    }  # fmt: skip
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "annotations.csv", "annotations.parquet", "data.yaml", "dataset.json", "history.jsonl", "problems.csv",
        "test", "train", "valid",
    ]  # fmt: skip
    table = rows(out / "annotations.csv")
    assert list(table[0]) == [
        "image_id", "image_path", "width", "height", "class_id", "class_name",
        "bbox_x_center", "bbox_y_center", "bbox_width", "bbox_height",
    ]  # fmt: skip
    assert len(table) == 40
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(out / "annotations.parquet")
    assert frame.astype(str).to_dict("records") == pandas.read_csv(out / "annotations.csv").astype(str).to_dict(
        "records"
    )
    # every split has its share of every class, and nothing is twice
    split_of = {path.stem: path.parts[-3] for path in out.rglob("images/*.jpg")}
    assert len(split_of) == 40
    for split in ("valid", "test"):
        assert {row["class_name"] for row in table if row["image_id"].startswith(split)} == set(NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {"src", "out", ".out.lock"}
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert all(line["steps"] == ["copied byte for byte"] for line in history)


def test_photos_that_need_not_change_are_the_same_bytes_and_others_say_what_was_done(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 2, size=(200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(5, (200, 100)).save(source / "train/images/turned.jpg", exif=exif)
    (source / "train/labels/turned.txt").write_text("4 0.25 0.5 0.1 0.2\n")
    photo(6, (200, 100)).convert("CMYK").save(source / "train/images/press.jpg")
    (source / "train/labels/press.txt").write_text("4 0.25 0.5 0.1 0.2\n")
    fetch(tmp_path / "out", f"yolo:{source}")
    assert (tmp_path / "out/train/images/p0000.jpg").read_bytes() == (source / "train/images/p0000.jpg").read_bytes()
    with Image.open(tmp_path / "out/train/images/turned.jpg") as turned:
        assert turned.size == (100, 200)
        assert turned.getexif().get(0x0112) is None
    assert (tmp_path / "out/train/labels/turned.txt").read_text() == "4 0.500000 0.250000 0.200000 0.100000\n"
    with Image.open(tmp_path / "out/train/images/press.jpg") as press:
        assert press.mode == "RGB"
    history = {json.loads(line)["key"]: json.loads(line)["steps"] for line in (tmp_path / "out/history.jsonl").open()}
    assert history["train/images/turned.jpg"] == ["turned upright, EXIF orientation 6", "JPEG to JPEG, quality 95"]
    assert history["train/images/press.jpg"] == ["CMYK to RGB", "JPEG to JPEG, quality 95"]


@pytest.mark.parametrize(
    ("mode", "size", "line"),
    [
        ("fit", (100, 50), "4 0.500000 0.500000 0.400000 0.600000"),
        ("stretch", (100, 100), "4 0.500000 0.500000 0.400000 0.600000"),
        ("letterbox", (100, 100), "4 0.500000 0.500000 0.400000 0.300000"),
    ],
)
def test_resized_with_their_boxes_and_told_to_whoever_trains(
    tmp_path: Path, mode: str, size: tuple[int, int], line: str
) -> None:
    source = make_yolo(tmp_path / "src", 1, names=("top",), size=(400, 200))
    sets = (f"dataset.resize={mode}", "dataset.imgsz=100", "dataset.equalize=2")
    document = fetch(tmp_path / "out", f"yolo:{source}", sets=sets)
    with Image.open(tmp_path / "out/train/images/p0000.jpg") as picture:
        assert picture.size == size
    assert (tmp_path / "out/train/labels/p0000.txt").read_text() == line + "\n"
    assert document["pixels"] == {"resize": mode, "imgsz": 100, "equalize": 2.0, "tiles": 8}


def test_what_a_source_did_to_its_pixels_is_not_done_again(tmp_path: Path) -> None:
    from fashionrec.dataset.prepare.prepare import done_before

    stretched = {
        "upright": True,
        "resize": {"width": 640, "height": 640, "mode": "stretch"},
        "equalize": {"kind": "adaptive"},
    }
    assert done_before(stretched).to_dict() == {"resize": "stretch", "imgsz": 640, "equalize": 2.0, "tiles": 8}
    assert done_before({"resize": {"width": 640, "height": 480, "mode": "stretch"}}).changes_nothing
    assert done_before({"upright": True}).changes_nothing


def test_several_sources_are_merged_and_names_stay_apart(tmp_path: Path) -> None:
    first = make_yolo(tmp_path / "a", 5)
    second = make_yolo(tmp_path / "b", 5, names=("t-shirt", "hat"), seed=1)
    for n in range(3):
        photo(900 + n).save(tmp_path / f"loose{n}.jpg")
    (tmp_path / "loose").mkdir()
    for n in range(3):
        (tmp_path / f"loose{n}.jpg").rename(tmp_path / f"loose/p{n:04d}.jpg")
    document = fetch(
        tmp_path / "out",
        f"yolo:{first}",
        f"yolo:{second}",
        f"folder:{tmp_path / 'loose'}",
        sets=("dataset.map={t-shirt: top}",),
    )
    assert document["counts"]["train"] == 10
    assert document["counts"]["unlabelled"] == 3
    assert document["counts"]["top"] == 1 + 3
    assert document["dropped"] == {"unknown-class": 2}
    assert document["kept"] == {"no-box": 2}
    assert [source["kept"] for source in document["sources"]] == [5, 5, 3]
    problems = rows(tmp_path / "out/problems.csv")
    assert [(row["source"], row["problem"], row["detail"]) for row in problems if row["action"] == "dropped"] == [
        ("yolo:b", "unknown-class", "hat"),
        ("yolo:b", "unknown-class", "hat"),
    ]


def test_photos_without_labels_and_without_boxes_by_rule(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 4)
    (source / "train/labels/p0000.txt").unlink()
    (source / "train/labels/p0001.txt").write_text("")
    kept = fetch(tmp_path / "kept", f"yolo:{source}")
    assert kept["counts"]["train"] == 4
    assert kept["kept"] == {"no-box": 1, "no-label-file": 1}
    dropped = fetch(tmp_path / "dropped", f"yolo:{source}", sets=("dataset.unlabelled=drop", "dataset.empty=drop"))
    assert dropped["counts"]["train"] == 2
    assert dropped["dropped"] == {"no-box": 1, "no-label-file": 1}


def test_photos_that_belong_together_are_on_one_side(tmp_path: Path) -> None:
    """Copies of one photo by Roboflow's names, equal files, and near-duplicates; the planted fault
    is a split without groups.
    """
    source = make_yolo(tmp_path / "src", 60)
    families = []
    for n in range(12):
        original = Image.open(source / f"train/images/p{n:04d}.jpg")
        small = source / f"train/images/small{n}.jpg"
        original.resize((96, 72), Image.Resampling.LANCZOS).save(small, quality=85)
        copy = source / f"train/images/copy{n}.jpg"
        copy.write_bytes((source / f"train/images/p{n:04d}.jpg").read_bytes())
        families.append([f"p{n:04d}", f"small{n}", f"copy{n}"])
        for name in (small, copy):
            (source / f"train/labels/{name.stem}.txt").write_text("0 0.5 0.5 0.4 0.6\n")
    for n in range(6):
        for k in range(3):
            name = f"shirt{n}_jpg.rf.{n}{k}"
            photo(5000 + 10 * n + k).save(source / f"train/images/{name}.jpg")
            (source / f"train/labels/{name}.txt").write_text("4 0.5 0.5 0.4 0.6\n")
        families.append([f"shirt{n}_jpg.rf.{n}{k}" for k in range(3)])

    def sides(out: Path) -> list[set[str]]:
        split_of = {path.stem: path.parts[-3] for path in out.rglob("images/*.jpg")}
        return [{split_of[name] for name in family} for family in families]

    fetch(tmp_path / "out", f"yolo:{source}", sets=("dataset.counts=[60, 22, 20]",))
    assert all(len(side) == 1 for side in sides(tmp_path / "out"))
    loose = make_yolo(tmp_path / "loose", 0)
    for n, path in enumerate(sorted((source / "train/images").iterdir())):
        (loose / f"train/images/{path.stem.replace('.rf.', '-')}.jpg").write_bytes(path.read_bytes() + bytes([n]))
        (loose / f"train/labels/{path.stem.replace('.rf.', '-')}.txt").write_text("0 0.5 0.5 0.4 0.6\n")
    fetch(tmp_path / "apart", f"yolo:{loose}", sets=("dataset.counts=[60, 22, 20]", "dataset.near_duplicates=-1"))
    families = [[name.replace(".rf.", "-") for name in family] for family in families]
    assert any(len(side) > 1 for side in sides(tmp_path / "apart"))


def test_a_split_that_is_there_is_kept_and_its_leaks_are_told(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 6)
    (source / "valid").mkdir()
    for sub in ("images", "labels"):
        (source / "valid" / sub).mkdir()
        for n in (4, 5):
            suffix = "jpg" if sub == "images" else "txt"
            (source / f"train/{sub}/p{n:04d}.{suffix}").rename(source / f"valid/{sub}/p{n:04d}.{suffix}")
    (source / "valid/images/twin.jpg").write_bytes((source / "train/images/p0000.jpg").read_bytes())
    (source / "valid/labels/twin.txt").write_text("0 0.5 0.5 0.4 0.6\n")
    (source / "data.yaml").write_text(
        "train: train/images\nval: valid/images\nnames: " + json.dumps(list(NAMES)) + "\n"
    )
    document = fetch(tmp_path / "out", f"yolo:{source}")
    assert {split: document["counts"][split] for split in ("train", "valid")} == {"train": 4, "valid": 3}
    assert document["kept"] == {"leak": 2}


def test_copies_of_an_earlier_augmentation_are_brought_to_one_side(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 3)
    for sub, suffix in (("images", "jpg"), ("labels", "txt")):
        (source / "valid" / sub).mkdir(parents=True)
        for split, name, n in (("train", "a", 0), ("train", "b", 1), ("valid", "c", 2)):
            target = source / split / sub / f"coat_jpg.rf.{name}.{suffix}"
            (source / f"train/{sub}/p{n:04d}.{suffix}").rename(target)
    photo(77).save(source / "valid/images/other.jpg")
    (source / "valid/labels/other.txt").write_text("0 0.5 0.5 0.4 0.6\n")
    (source / "data.yaml").write_text(
        "train: train/images\nval: valid/images\nnames: " + json.dumps(list(NAMES)) + "\n"
    )
    document = fetch(tmp_path / "out", f"yolo:{source}")
    assert {split: document["counts"][split] for split in ("train", "valid")} == {"train": 3, "valid": 1}
    assert document["fixed"] == {"leak": 1}


def test_augmented_copies_are_for_training_only_and_recorded(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 10)
    sets = ("dataset.counts=[6, 2, 2]", "dataset.augment=copies", "dataset.copies=2")
    document = fetch(tmp_path / "out", f"yolo:{source}", sets=sets)
    assert {split: document["counts"][split] for split in ("train", "valid", "test")} == {
        "train": 18,
        "valid": 2,
        "test": 2,
    }
    assert document["copies"] == 12
    assert document["augment"]["mode"] == "copies"
    for copy in (tmp_path / "out/train/images").glob("*_aug*.jpg"):
        assert (tmp_path / f"out/train/labels/{copy.stem}.txt").is_file()


def test_nothing_is_left_of_a_failure_and_nothing_is_overwritten(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "src", 4, names=("hat", "shoe"))
    with pytest.raises(DataError):
        fetch(tmp_path / "out", f"yolo:{source}", sets=("dataset.unknown_class=fail",))
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        fetch(tmp_path / "out", f"yolo:{source}")
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


def test_a_second_maker_of_one_dataset_is_told_to_wait(tmp_path: Path) -> None:
    from filelock import FileLock

    source = make_yolo(tmp_path / "src", 2)
    with FileLock(tmp_path / ".out.lock"), pytest.raises(Busy):
        fetch(tmp_path / "out", f"yolo:{source}")


def command(source: Path, out: Path) -> list[str]:
    sets = ("dataset.counts=[28, 6, 6]", "dataset.resize=letterbox", "dataset.imgsz=96", "dataset.equalize=2")
    sets += ("dataset.augment=copies", "dataset.workers=2")
    flags = [part for setting in sets for part in ("--set", setting)]
    return [sys.executable, "-m", "fashionrec", "fetch-dataset", f"yolo:{source}", "--out", str(out), "-q", *flags]


def killed_and_resumed(tmp_path: Path, moments: Callable[[float], list[float]]) -> None:
    source = make_yolo(tmp_path / "src", 40, size=(320, 240))
    start = time.monotonic()
    subprocess.run(command(source, tmp_path / "calm"), check=True)
    whole = time.monotonic() - start
    expected = tree(tmp_path / "calm")
    killed = 0
    planned = moments(whole)
    for n, moment in enumerate([*planned, whole / 4, whole / 8]):
        if n >= len(planned) and killed:
            break  # the later moments are for a machine that has become faster since
        out = tmp_path / f"out{n}"
        process = subprocess.Popen(command(source, out), start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        if (out / "dataset.json").is_file() and not (tmp_path / f".out{n}.staging").exists():
            assert tree(out) == expected
            continue
        subprocess.run(command(source, out), check=True)
        assert tree(out) == expected, f"killed after {moment:.2f} s"
        assert not (tmp_path / f".out{n}.staging").exists()
    assert killed


@posix_only("process groups")
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, lambda whole: [whole * share for share in (0.5, 0.8)])


@posix_only("process groups")
@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_killed_at_any_of_fifty_moments(tmp_path: Path) -> None:
    chance = random.Random(0)
    killed_and_resumed(tmp_path, lambda whole: [chance.uniform(0.1, 1.02) * whole for _ in range(50)])


def test_what_was_prepared_before_a_kill_is_not_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The staged pictures of a killed call are taken up: files whose content is spoilt are the only
    ones made anew.
    """
    source = make_yolo(tmp_path / "src", 8, size=(320, 240))
    sets = ("dataset.resize=letterbox", "dataset.imgsz=96")
    fetch(tmp_path / "calm", f"yolo:{source}", sets=sets)
    import shutil

    class Stop(Exception):
        pass

    def stop(name: str, *_: object) -> None:
        """The first thing that is done once all pictures are staged is to look for pyarrow, for the
        table.
        """
        if name == "pyarrow":
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", stop)
        with pytest.raises(Stop):
            fetch(tmp_path / "out", f"yolo:{source}", sets=sets)
    staged = sorted((tmp_path / ".out.staging/photos").rglob("*.jpg"))
    assert len(staged) == 8
    staged[0].write_bytes(b"torn")
    times = {path: path.stat().st_mtime_ns for path in staged}
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / ".out.staging/photos", kept)

    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", stop)
        with pytest.raises(Stop):
            fetch(tmp_path / "out", f"yolo:{source}", sets=sets)
    again = {path: path.stat().st_mtime_ns for path in staged}
    assert [path for path in staged if again[path] != times[path]] == [staged[0]]
    fetch(tmp_path / "out", f"yolo:{source}", sets=sets)
    assert tree(tmp_path / "out") == tree(tmp_path / "calm")


def counted(root: Path) -> dict[str, int]:
    """Photos per split and boxes per class, counted without any code of ours."""
    found: dict[str, int] = {}
    for split in ("train", "valid", "test"):
        photos = [path for path in (root / split / "images").glob("*") if path.is_file()]
        if photos:
            found[split] = len(photos)
        for path in photos:
            for line in (root / split / "labels" / f"{path.stem}.txt").read_text().splitlines():
                name = NAMES[int(line.split()[0])]
                found[name] = found.get(name, 0) + 1
    return found


def test_counts_of_a_drawn_world_equal_an_independent_count(tmp_path: Path) -> None:
    sets = ("synthetic.images=40", "synthetic.products=4", "synthetic.outfits=2", "synthetic.size=128")
    document = fetch(tmp_path / "world", "synthetic", sets=sets)
    assert counted(tmp_path / "world") == {key: count for key, count in document["counts"].items() if count}
    assert (tmp_path / "world/catalogue/products.csv").is_file()
    again = fetch(tmp_path / "again", f"yolo:{tmp_path / 'world'}", sets=("dataset.counts=[30, 6, 4]",))
    assert again["counts"] == {**document["counts"], "train": 30, "valid": 6, "test": 4}
    assert counted(tmp_path / "again") == {key: count for key, count in again["counts"].items() if count}


def real(name: str) -> Path:
    folder = Path(os.environ.get("FASHIONREC_REALDATA", "")) / name
    if not os.environ.get("FASHIONREC_REALDATA") or not folder.is_dir():
        pytest.skip(f"needs {name} in the folder named by FASHIONREC_REALDATA")
    return folder


@pytest.mark.realdata
def test_counts_of_real_photos_equal_an_independent_count(tmp_path: Path) -> None:
    source = real("ccp-yolo")
    boxes = [line.split()[0] for path in source.rglob("labels/**/*.txt") for line in path.read_text().splitlines()]
    photos = [path for path in (source / "images").rglob("*") if path.suffix == ".jpg"]
    document = fetch(tmp_path / "ccp", f"yolo:{source}")
    assert sum(document["counts"].get(split, 0) for split in ("train", "valid", "test")) == len(photos)
    assert sum(document["counts"][name] for name in NAMES) == len(boxes)
    assert not document["dropped"]
    assert counted(tmp_path / "ccp") == {key: count for key, count in document["counts"].items() if count}
    loose = real("clothes-cc0")
    document = fetch(tmp_path / "cc0", f"folder:{loose}")
    files = [path for path in loose.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    assert document["counts"]["unlabelled"] == len(files)
    assert len(list((tmp_path / "cc0/unlabelled/images").iterdir())) == len(files)
