"""The staging folder of fetch-dataset: whose it is, what is taken up of it, what is left of it; and
what decides a data set.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashionrec.common.files import fingerprint
from fashionrec.config import Config, load_config
from fashionrec.dataset.fetch import fetch_dataset
from fashionrec.errors import DataError


def settings(*sets: str) -> Config:
    return load_config(sets=["dataset.workers=1", *sets], env={}).config


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for n in range(2):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / "photos" / f"{n}.png")
    return tmp_path / "photos"


def fetch(tmp_path: Path, *specs: str, sets: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    return fetch_dataset(specs, tmp_path / "out", settings(*sets), store=tmp_path / "store", **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave(tmp_path: Path, *entries: str) -> Path:
    """A staging folder as an earlier call left it; a name that ends in / is a folder."""
    staging = tmp_path / ".out.staging"
    for entry in entries:
        path = staging / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_text("x")
    return staging


def test_a_request_is_its_sources_and_the_settings_that_decide_what_it_holds(photos: Path, tmp_path: Path) -> None:
    ticks: list[tuple[Any, ...]] = []
    document = fetch(tmp_path, f"folder:{photos}", progress=lambda *at: ticks.append(at))
    assert ticks == [("preparing", "photos", 1, 2), ("preparing", "photos", 2, 2)]
    assert document["path"] == str(tmp_path / "out")
    written = json.loads((tmp_path / "out/dataset.json").read_text())
    assert written == {key: value for key, value in document.items() if key != "path"}
    assert (written["source"], written["counts"]["unlabelled"]) == ("folder:photos", 2)
    config = settings()
    decides = {"dataset": config.dataset.model_dump(exclude={"workers"}), "images": config.images.model_dump()}
    assert written["request"] == fingerprint({"specs": [f"folder:{photos}"], "settings": decides})
    assert names(tmp_path) == [".out.lock", "out", "photos"]
    assert names(tmp_path / "out") == [
        "annotations.csv",
        "annotations.parquet",
        "dataset.json",
        "history.jsonl",
        "problems.csv",
        "unlabelled",
    ]
    feed = tmp_path / "feed.csv"
    feed.write_text("id,image\n7,photos/0.png\n")
    document = fetch_dataset([f"feed:{feed}"], tmp_path / "shop", settings(), store=tmp_path / "store")
    assert document["request"] == fingerprint(
        {"specs": [f"feed:{feed}"], "settings": decides | {"feed": config.feed.model_dump()}}
    )


def test_an_archive_is_named_by_its_file_and_its_links_are_not_followed(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for path in photos.iterdir():
            archive.write(path, f"shop/{path.name}")
    document = fetch(tmp_path, f"folder:{tmp_path / 'shop.zip'}", sets=("dataset.follow_links=true",))
    assert (document["source"], document["counts"]["unlabelled"]) == ("folder:shop.zip", 2)
    (photos / "2.png").symlink_to(photos / "1.png")
    linked = fetch_dataset([f"folder:{photos}"], tmp_path / "linked", settings(), store=tmp_path)
    assert linked["dropped"] == {"link": 1}
    followed = fetch_dataset(
        [f"folder:{photos}"], tmp_path / "followed", settings("dataset.follow_links=true"), store=tmp_path
    )
    assert (followed["dropped"], followed["counts"]["unlabelled"]) == ({}, 3)


@pytest.mark.parametrize("entry", ["mine.txt", "photos/", "photos/ab/x.jpg", "whole/"])
def test_a_folder_without_a_request_is_nobodys(entry: str, photos: Path, tmp_path: Path) -> None:
    staging = leave(tmp_path, entry)
    before = sorted(path.relative_to(staging) for path in staging.rglob("*"))
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, f"folder:{photos}")
    assert str(caught.value) == f"{staging} is not a staging folder of fetch-dataset: its file 'request' is missing"
    assert caught.value.hint == "remove it, or choose another --out"
    assert sorted(path.relative_to(staging) for path in staging.rglob("*")) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "entry",
    ["request/", "photos", "photos/ab", "photos/ab/x/", "copies", "whole", "world0", ".archive-x", "feed0.begun/"],
)
def test_what_is_of_another_kind_than_ours_is_refused_by_name(entry: str, photos: Path, tmp_path: Path) -> None:
    staging = leave(tmp_path, *{"request", entry} if entry != "request/" else [entry])
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, f"folder:{photos}")
    assert entry.rstrip("/") in str(caught.value)
    assert staging.is_dir()
    assert not (tmp_path / "out").exists()


def test_a_staging_folder_that_is_a_link_or_a_file_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.staging").write_text("x")
    with pytest.raises(DataError, match=r"\.out\.staging"):
        fetch(tmp_path, f"folder:{photos}")
    (tmp_path / ".out.staging").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.staging").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"\.out\.staging"):
        fetch(tmp_path, f"folder:{photos}")
    assert names(tmp_path / "elsewhere") == []


def test_what_another_request_left_goes_but_its_photos_and_what_is_not_ours(photos: Path, tmp_path: Path) -> None:
    staging = leave(
        tmp_path,
        "request",
        "photos/ab/x.jpg",
        "copies/x.jpg",
        "whole/x",
        "world0/x",
        ".archive-q/x",
        "feed0.begun",
        "mine.txt",
        "other/x",
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos in"):
        fetch(tmp_path, f"folder:{tmp_path / 'empty'}")
    assert names(staging) == ["mine.txt", "other", "photos", "request"]
    assert (staging / "photos/ab/x.jpg").is_file()
    assert (staging / "request").read_text() != "x"
    fetch(tmp_path, f"folder:{photos}")
    assert names(staging) == ["mine.txt", "other"]  # ours are gone, and what is not ours stays
    assert (tmp_path / "out/dataset.json").is_file()


def test_wrong_use_leaves_nothing_where_no_photo_was_prepared(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fetch(tmp_path, f"voc:{photos}")
    assert names(tmp_path) == ["photos"]
    (photos / "classes.txt").write_text("hat\n")
    for n in range(2):
        (photos / f"{n}.txt").write_text("0 .5 .5 1 1\n")
    with pytest.raises(DataError, match="class 'hat'"):
        fetch(tmp_path, f"yolo:{photos}", sets=("dataset.unknown_class=fail",))
    assert names(tmp_path / ".out.staging") == ["photos", "request"]
    assert fetch(tmp_path, f"yolo:{photos}")["kept"] == {"no-box": 2}
    assert names(tmp_path) == [".out.lock", "out", "photos"]


def test_a_finished_data_set_is_taken_for_what_was_asked_while_its_staging_is_there(
    photos: Path, tmp_path: Path
) -> None:
    first = fetch(tmp_path, f"folder:{photos}")
    moment = (tmp_path / "out/dataset.json").stat().st_mtime_ns
    for sets in ((), ("dataset.seed=1",)):
        leave(tmp_path, "request", "photos/ab/x.jpg")
        if not sets:
            assert fetch(tmp_path, f"folder:{photos}") == first
            assert names(tmp_path) == [".out.lock", "out", "photos"]
        else:
            with pytest.raises(DataError, match="is not an empty folder"):
                fetch(tmp_path, f"folder:{photos}", sets=sets)
            assert (tmp_path / ".out.staging/photos/ab/x.jpg").is_file()
    assert (tmp_path / "out/dataset.json").stat().st_mtime_ns == moment
    with pytest.raises(DataError, match="unknown source"):
        fetch(tmp_path, "nothing")
