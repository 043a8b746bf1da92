"""Staging folders, caches and journals with links in them: refused by name, before anything is
written or removed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from foreign import SECRET, Cli, every_plant, put, refused, state
from test_cli_dataset import make_yolo, picture

from fashionrec.dataset.roboflow.upload_journal import open_journal, remember
from fashionrec.dataset.sources.roboflow import damage
from fashionrec.errors import DataError
from tests.faulty_server import FaultyServer, body


def staged(cli: Cli, tmp_path: Path) -> tuple[str, ...]:
    """A command that was refused after it had prepared photos, which lie in ``data/.n.staging``;
    returns its words.
    """
    make_yolo(tmp_path / "src", 6)
    words = ("fetch-dataset", "yolo:src", "--out", "data/n", "--counts", "9,9,9")
    assert cli(*words).code == 2
    assert (tmp_path / "data/.n.staging/request").is_file()
    return words


@every_plant
@pytest.mark.parametrize(
    "name",
    ["", "request", "photos", "photos/00", "photos/00/x.json", "whole", "copies", ".archive-abcdefgh", "unknown"],
)
def test_a_link_in_a_staging_folder_is_refused(name: str, plant: str, cli: Cli, tmp_path: Path, outside: Path) -> None:
    words = staged(cli, tmp_path)
    staging = tmp_path / "data/.n.staging"
    put(staging / name if name else staging, plant, outside)
    before = state(tmp_path / "data")
    for counts in ("9,9,9", "4,1,1"):  # the same request, and another
        refused(cli(*words[:-1], counts), name or ".n.staging")
        assert state(tmp_path / "data") == before


@every_plant
def test_a_lock_that_is_a_link_is_refused(plant: str, cli: Cli, tmp_path: Path, outside: Path) -> None:
    make_yolo(tmp_path / "src", 6)
    put(tmp_path / "data/.n.lock", plant, outside)
    refused(cli("fetch-dataset", "yolo:src", "--out", "data/n"), ".n.lock")


def test_only_what_was_made_is_removed_from_a_staging_folder(cli: Cli, tmp_path: Path, outside: Path) -> None:
    words = staged(cli, tmp_path)
    mine = tmp_path / "data/.n.staging/thesis.txt"
    mine.write_text("years of work")
    assert cli(*words[:-1], "4,1,1").code == 0
    assert mine.read_text() == "years of work"
    assert sorted(path.name for path in mine.parent.iterdir()) == ["thesis.txt"]
    (tmp_path / "data/.m.staging/photos").mkdir(parents=True)
    (tmp_path / "data/.m.staging/photos/holiday.jpg").write_bytes(picture(5))
    refused(cli("fetch-dataset", "yolo:src", "--out", "data/m"), "its file 'request' is missing")
    assert (tmp_path / "data/.m.staging/photos/holiday.jpg").is_file()


def test_a_file_in_the_place_of_a_folder_is_refused(cli: Cli, tmp_path: Path, outside: Path) -> None:
    words = staged(cli, tmp_path)
    staging = tmp_path / "data/.n.staging"
    photo = next(path for path in staging.rglob("*.json")).relative_to(staging).as_posix()
    for name in ("photos", "whole", "photos/00", "request", photo):
        path = staging / name
        kept = path.rename(tmp_path / "kept") if path.exists() else None
        path.mkdir() if path.suffix or name == "request" else path.write_text("nothing")
        before = state(staging)
        refused(cli(*words[:-1], "4,1,1"), name)
        assert state(staging) == before
        path.rmdir() if path.is_dir() else path.unlink()
        if kept:
            kept.rename(path)


def test_the_data_folder_may_be_a_link_itself(cli: Cli, tmp_path: Path) -> None:
    make_yolo(tmp_path / "src", 6)
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "data").symlink_to("big-disk")
    assert cli("fetch-dataset", "yolo:src", "--out", "data/n", "--counts", "4,1,1").code == 0
    assert (tmp_path / "big-disk/n/data.yaml").is_file()
    (tmp_path / "big-disk/m").symlink_to("n")
    refused(cli("fetch-dataset", "yolo:src", "--out", "data/m"), "is a symbolic link")
    refused(cli("dataset", "export", "data/n", "--to", "coco", "--out", "data/m"), "is a symbolic link")


@every_plant
@pytest.mark.parametrize("name", ["", "journal.jsonl", "partial", "photos", "photos/ab", ".lock"])
def test_a_link_in_the_photos_kept_of_a_feed_is_refused(
    name: str, plant: str, cli: Cli, tmp_path: Path, outside: Path
) -> None:
    with FaultyServer({"/a.jpg": body(picture(1))}) as server:
        (tmp_path / "feed.jsonl").write_text(json.dumps({"id": 1, "image": server.url("/a.jpg")}) + "\n")
        put(tmp_path / "data/feeds/feed.jsonl" / name, plant, outside)
        allow = ("--set", "feed.allow_private=true", "--set", "feed.robots=false")
        refused(cli("fetch-dataset", "feed:feed.jsonl", "--out", "d", *allow), name or "feed.jsonl")


@every_plant
def test_a_link_among_what_is_kept_of_roboflow_is_refused(plant: str, tmp_path: Path, outside: Path) -> None:
    put(tmp_path / "store/3/train/images/a.jpg", plant, outside)
    digest = hashlib.sha256(SECRET).hexdigest()
    names = ["train/images/a.jpg", "../../outside/secret.jpg", str(outside / "secret.jpg")]
    marker = {"layout": 1, "roboflow": {}, "files": {name: [len(SECRET), 0, digest] for name in names}}
    (tmp_path / "store/3/version.json").write_text(json.dumps(marker))
    with pytest.raises(DataError, match=r"a\.jpg"):
        damage(tmp_path / "store/3")
    (tmp_path / "store/3/train/images/a.jpg").unlink()
    (tmp_path / "store/3/train/images/a.jpg").write_bytes(b"x")
    assert "3 of 3 files missing or changed" in str(damage(tmp_path / "store/3"))


@every_plant
@pytest.mark.parametrize(
    "name", ["team", "team/garments", "team/garments/uploads.jsonl", "team/garments/.uploads.lock"]
)
def test_a_journal_of_uploads_that_is_a_link_is_refused(name: str, plant: str, tmp_path: Path, outside: Path) -> None:
    put(tmp_path / "store" / name, plant, outside)
    journal = tmp_path / "store/team/garments/uploads.jsonl"
    with pytest.raises(DataError, match=Path(name).name), open_journal(journal, "team/garments"):
        remember(journal, {"sha256": "a", "key": "k", "batch": "b", "image": None, "state": "done"})
