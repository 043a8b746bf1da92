"""Test what one run writes down and the next one reads: downloads, uploads, and the parts of
batches that this user planned.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fashionrec.captioner.ledger import Ledger, PlannedPart
from fashionrec.dataset.feed.photo_cache import Fetched, open_cache
from fashionrec.dataset.roboflow.upload_journal import journal_path, open_journal, read_journal, remember
from fashionrec.errors import DataError

URL, OTHER = "https://shop.example/a.jpg", "https://shop.example/b.jpg"


def keep(folder: Path, url: str, data: bytes, **fields: Any) -> Fetched:
    with open_cache(folder) as cache:
        part = cache.part(3)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        about = {"final_url": url, "etag": None, "last_modified": None, **fields}
        return cache.keep(part, ".jpg", url, sha256=hashlib.sha256(data).hexdigest(), size=len(data), **about)


def known(folder: Path, url: str) -> Fetched | None:
    with open_cache(folder) as cache:
        return cache.known(url)


def test_a_photo_that_was_fetched_is_known_as_long_as_it_is_whole(tmp_path: Path) -> None:
    first = keep(tmp_path, URL, b"one photo", etag='"1"', last_modified="yesterday", final_url=OTHER)
    again = known(tmp_path, URL)
    assert again is not None
    assert (again.how, again.path, again.size) == ("kept", first.path, 9)
    assert (again.final_url, again.etag, again.last_modified) == (OTHER, '"1"', "yesterday")
    assert first.how != "kept"
    assert known(tmp_path, OTHER) is None
    for damaged in (b"one phot", b"two photo"):
        first.path.write_bytes(damaged)
        assert known(tmp_path, URL) is None
    first.path.unlink()
    assert known(tmp_path, URL) is None


def test_the_last_whole_line_of_a_url_counts_and_the_journal_is_tidied(tmp_path: Path) -> None:
    keep(tmp_path, URL, b"old")
    new = keep(tmp_path, URL, b"newer")
    keep(tmp_path, OTHER, b"other")
    (journal,) = tmp_path.glob("*.jsonl")
    whole = [json.loads(line) for line in journal.read_text().splitlines()]
    bad = [
        {**whole[0], "size": "9"},
        {**whole[0], "sha256": whole[0]["sha256"][:63]},
        {**whole[0], "sha256": "../" + whole[0]["sha256"][3:]},
        {**whole[0], "suffix": "/x"},
        {key: value for key, value in whole[0].items() if key != "etag"},
    ]
    journal.write_text(journal.read_text() + "".join(json.dumps(line) + "\n" for line in bad) + '{"url": "torn')
    again = known(tmp_path, URL)
    assert again is not None
    assert again.path == new.path
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [(line["url"], line["size"]) for line in lines] == [(URL, 5), (OTHER, 5)]
    before = journal.stat().st_mtime_ns, journal.stat().st_ino
    assert known(tmp_path, OTHER) is not None
    assert (journal.stat().st_mtime_ns, journal.stat().st_ino) == before  # a tidy one is left as it is


def test_what_a_killed_run_left_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "12.part").write_bytes(b"half a photo")
    (partial / "mine.txt").write_text("mine")
    with open_cache(tmp_path):
        assert [path.name for path in partial.iterdir()] == ["mine.txt"]
        (partial / "0.part").write_bytes(b"x")
    assert [path.name for path in partial.iterdir()] == ["mine.txt"]


def test_an_upload_is_remembered_by_its_newest_line_and_a_torn_one_is_none(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "team/garments")
    assert path == tmp_path / "team" / "garments" / "uploads.jsonl"
    assert read_journal(path) == {}
    entry = {"sha256": "a" * 64, "batch": "b", "image": None, "state": "asked"}
    with open_journal(path, "team/garments"):
        remember(path, entry)
        remember(path, {**entry, "sha256": "b" * 64})
        remember(path, {**entry, "state": "done", "image": "7"})
    assert {name[0]: (one["state"], one["image"]) for name, one in read_journal(path).items()} == {
        "a": ("done", "7"),
        "b": ("asked", None),
    }
    path.write_bytes(path.read_bytes() + b'{"sha256": "cc')
    assert len(read_journal(path)) == 2
    with open_journal(path, "team/garments"):  # else the next line would be glued to it
        remember(path, {**entry, "sha256": "c" * 64})
    assert sorted(name[0] for name in read_journal(path)) == ["a", "b", "c"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"sha256": "d"}', *lines[1:]]) + "\n")
    with pytest.raises(DataError, match="line 2 is damaged"):
        read_journal(path)


def part(token: str, **changes: Any) -> PlannedPart:
    values = {"sha256": "0" * 64, "bytes": 10, "requests": 2, "model": "m", "server": "s", "folder": "f", **changes}
    return PlannedPart(token, **values)


def test_a_planned_part_is_found_changed_and_forgotten_by_its_token(tmp_path: Path) -> None:
    one, two = "1" * 32, "2" * 32
    Ledger(tmp_path).record(part(one))
    Ledger(tmp_path).record(part(two, requests=5))
    ledger = Ledger(tmp_path)  # of another process
    ledger.update(one, file_id="file-1", sent=True)
    ledger.update("3" * 32, sent=True)
    assert ledger.find(one) == part(one, file_id="file-1", sent=True)
    assert ledger.find(two) == part(two, requests=5)
    assert ledger.find("3" * 32) is None
    assert ledger.find("../key") is None
    recorded = ledger.folder / f"{one}.part.json"
    (ledger.folder / f"{'4' * 32}.part.json").write_bytes(recorded.read_bytes())
    assert ledger.find("4" * 32) is None  # it says that it is another
    recorded.write_text(recorded.read_text().replace('"sent"', '"set"'))
    assert ledger.find(one) is None
    ledger.forget(two)
    assert ledger.find(two) is None


def test_what_is_planned_is_planned_for_a_folder_and_replaced(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    ledger = Ledger(tmp_path / "cache")
    assert ledger.planned(here) == set()
    ledger.plan(here, ["b", "a"])
    ledger.plan(there, ["c"])
    ledger.plan(here, ["a", "d"])
    assert Ledger(tmp_path / "cache").planned(here) == {"a", "d"}
    assert ledger.planned(there) == {"c"}
    ledger.plan(here, [])
    assert ledger.planned(here) == set()
    assert ledger.planned(there) == {"c"}


def test_a_file_is_this_users_own_as_long_as_it_is_as_it_was_left(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "cache")
    file, other = tmp_path / "captions.sqlite", tmp_path / "other.sqlite"
    file.write_bytes(b"ours")
    other.write_bytes(b"ours")
    assert not ledger.has_written(file)
    ledger.wrote(file)
    assert Ledger(tmp_path / "cache").has_written(file)
    assert not ledger.has_written(other)
    file.write_bytes(b"somebody's")
    assert not ledger.has_written(file)
    signed = ledger.signature(b"data")
    assert Ledger(tmp_path / "cache").is_own(b"data", signed)
    assert not ledger.is_own(b"date", signed)
    assert not ledger.is_own(b"data", "0" * 64)
    assert not ledger.is_own(b"data", None)
    assert not Ledger(tmp_path / "cache of another").is_own(b"data", signed)
