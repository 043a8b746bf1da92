"""Test what is decided about Roboflow without asking it: what was done to pixels, a copy that is
kept, what would be sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashionrec.config import Config, load_config
from fashionrec.dataset.exports.choose import Chosen, candidates, choose
from fashionrec.dataset.roboflow.api import Client, api_host, parse_project, reason_of
from fashionrec.dataset.roboflow.applied import applied, from_metadata, from_readme
from fashionrec.dataset.roboflow.upload import Outgoing, Plan, Report, batch_name, label_lines, plan, uploaded
from fashionrec.dataset.roboflow.upload_journal import journal_path, open_journal, read_journal, remember
from fashionrec.dataset.sources.roboflow import damage, parse_version
from fashionrec.errors import ConfigError, DataError
from fashionrec.photos.images import encode_jpeg
from fashionrec.types import Box, Garment

# -- what was done to the pixels


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"auto-orient": {"enabled": False}, "resize": True}, {}, {"resize": {"width": None, "height": None, "mode": "other"}}),
        ({"resize": {"width": 640, "height": "48x", "format": "Stretch to"}}, {}, {"resize": {"width": 640,
        "height": None, "mode": "stretch"}}),
        ({"resize": {"width": -1, "height": 1.5, "format": "Fill (with center crop) in"}}, {},
        {"resize": {"width": None, "height": None, "mode": "fill"}}),
        ({"resize": {"width": 8, "height": "9", "format": "Fit within"}}, {}, {"resize": {"width": 8, "height": 9,
        "mode": "fit"}}),
        ({"contrast": {"type": "Adaptive Equalization"}}, {}, {"equalize": {"kind": "adaptive"}}),
        ({"contrast": {"type": "Histogram Equalization"}}, {}, {"equalize": {"kind": "histogram"}}),
        ({"contrast": {"type": "Contrast Stretching"}}, {}, {"equalize": {"kind": "stretching"}}),
        ({"contrast": True}, {}, {"equalize": {"kind": "other"}}),
        ({"tile": {"rows": 2}, "grayscale": True, "blur": False, "odd": 5}, {}, {"other": ["grayscale", "tile"]}),
        (dict.fromkeys(("filter-null", "filter-tag", "filter-tags", "filtertags", "remap"), True), {}, {}),
        ({}, {"image": {"versions": "3"}, "rotate": {"degrees": 5}, "flip": True}, {"augment": {"copies": 3,
        "steps": ["flip", "rotate"]}}),
        ({}, {"flip": True}, {"augment": {"copies": 1, "steps": ["flip"]}}),
        ({}, {"image": {"versions": 3}}, {}),
        ({}, {"image": {"versions": 0}, "flip": True}, {"augment": {"copies": 1, "steps": ["flip"]}}),
        ([], "odd", {}),
    ],
)  # fmt: skip
def test_what_metadata_say(before: Any, after: Any, found: dict[str, Any]) -> None:
    assert from_metadata(before, after) == {"upright": False} | found
    assert from_metadata({"auto-orient": True}, None) == {"upright": True}


WORDS = """\
The following pre-processing was applied to each image:
* Auto-orientation of pixel data (with EXIF-orientation stripping)
* Resize to 416x320 (Fit (black edges))
* Auto-contrast via contrast stretching
* Grayscale (CRT phosphor)

The following augmentation was applied to create 3 versions of each source image:
* 50% probability of horizontal flip

The following transformations were applied to the bounding boxes of each image:
* Random rotation of between -5 and +5 degrees
"""
SAID = {
    "upright": True,
    "resize": {"width": 416, "height": 320, "mode": "letterbox"},
    "equalize": {"kind": "stretching"},
    "augment": {
        "copies": 3,
        "steps": ["50% probability of horizontal flip", "Random rotation of between -5 and +5 degrees"],
    },
    "other": ["Grayscale (CRT phosphor)"],
}


def test_what_the_words_of_an_export_say(tmp_path: Path) -> None:
    assert from_readme(tmp_path) == {"upright": False}
    for name in ("README.roboflow.txt", "README.dataset.txt"):
        (tmp_path / name).write_bytes(WORDS.replace("\n", "\r\n").encode() + b"\xff")
        assert from_readme(tmp_path) == SAID
        assert applied(None, None, tmp_path) == SAID
        (tmp_path / name).unlink()
    (tmp_path / "README.dataset.txt").write_text(WORDS.split("\n\n")[2])
    assert from_readme(tmp_path) == {"upright": False, "augment": {"copies": 1, "steps": SAID["augment"]["steps"][1:]}}
    (tmp_path / "README.dataset.txt").write_text(WORDS)
    both = applied({"tile": True, "resize": {"width": 5, "height": 5, "format": "Stretch"}}, {"flip": True}, tmp_path)
    assert both == SAID | {
        "resize": {"width": 5, "height": 5, "mode": "stretch"},
        "augment": {"copies": 1, "steps": ["flip"]},
        "other": ["Grayscale (CRT phosphor)", "tile"],
    }
    assert applied({"auto-orient": True}, None) == {"upright": True}


# -- a version that is kept


def test_names_of_versions_and_projects() -> None:
    assert parse_version("/my-team/g.a_1/03/") == ("my-team", "g.a_1", 3)
    assert parse_project("my-team/garments") == ("my-team", "garments")
    for wrong in ("team/garments", "team/garments/x", "team/garments/²", "team/garments/-1", ""):
        with pytest.raises(DataError) as caught:
            parse_version(wrong)
        told = f"{wrong!r} is not WORKSPACE/PROJECT/VERSION"
        assert (str(caught.value), caught.value.hint) == (told, "for example roboflow:my-team/garments/3")
    for wrong in ("team", "a/b/c", "a/", "-a/b", "a/b c", ".a/b"):
        with pytest.raises(DataError) as caught:
            parse_project(wrong)
        assert str(caught.value) == f"{wrong!r} is not WORKSPACE/PROJECT"
        assert caught.value.hint == "for example my-team/garments, from the project's URL"


def test_what_is_wrong_with_a_copy_that_is_kept(tmp_path: Path) -> None:
    files = {}
    for name, data in (("data.yaml", b"names"), ("train/images/a.jpg", b"aa"), ("train/labels/a.txt", b"0")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files[name] = [len(data), path.stat().st_mtime_ns, hashlib.sha256(data).hexdigest()]
    marker: dict[str, Any] = {"layout": 1, "version": "a/b/3", "roboflow": {}, "images": 1, "files": files}

    def found(**changes: Any) -> str | None:
        (tmp_path / "version.json").write_text(json.dumps(marker | changes))
        return damage(tmp_path)

    assert found() is None
    assert found(layout=2) == found(roboflow=[]) == found(files={}) == "it was stored by another version of fashionrec"
    assert found(files=5) == found(files={"a": [1]}) == "it is incomplete"
    (tmp_path / "version.json").write_text("{")
    assert damage(tmp_path) == "it is incomplete"
    (tmp_path / "version.json").unlink()
    assert damage(tmp_path) == "it is incomplete"
    for name in ("notes.md", "version.txt.bak"):
        (tmp_path / name).write_text("x")
    assert found() is None
    for name in ("train/images/c.PNG", "b.yml", "a.txt"):
        (tmp_path / name).write_text("x")
    assert found() == "3 files added, such as a.txt"
    for name in ("train/images/c.PNG", "b.yml", "a.txt"):
        (tmp_path / name).unlink()
    photo = tmp_path / "train/images/a.jpg"
    os.utime(photo, ns=(5, 5))  # another time, and the same bytes
    assert found() is None
    photo.write_bytes(b"ab")
    assert found() == "1 of 3 files missing or changed, such as train/images/a.jpg"
    os.utime(photo, ns=(5, files["train/images/a.jpg"][1]))  # taken for what it was
    assert found() is None
    photo.write_bytes(b"a")
    os.utime(photo, ns=(5, files["train/images/a.jpg"][1]))
    (tmp_path / "data.yaml").unlink()
    assert found() == "2 of 3 files missing or changed, such as data.yaml"
    (tmp_path / "data.yaml").symlink_to(photo)
    with pytest.raises(DataError, match=r"data\.yaml"):
        damage(tmp_path)


# -- what would be sent


@pytest.mark.parametrize(
    ("named", "model", "name"),
    [
        (None, "runs/train/week 3/best.pt", "fashionrec 2026-05-03 runs-train-week-3-best.pt"),
        ("", "셔츠", "fashionrec 2026-05-03 model"), (None, "//", "fashionrec 2026-05-03 model"), ("여름 셔츠", "x", "여름 셔츠"),
        ("x" * 100, "x", "x" * 100),
    ],
)  # fmt: skip
def test_names_of_batches(named: str | None, model: str, name: str) -> None:
    assert batch_name(named, model, date(2026, 5, 3)) == name


@pytest.mark.parametrize("named", ["x" * 101, " ", *(f"a{char}b" for char in "&#?%+=/\\\x00\x1f")])
def test_names_that_no_batch_has(named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        batch_name(named, "m", date.min)
    assert str(caught.value) == f"invalid batch name {named[:100]!r}"
    assert caught.value.hint == "use letters, digits, spaces, - and _"


def garment(name: str | None, confidence: float | None, box: Box, **more: Any) -> Garment:
    return Garment(0, name, confidence, box, **more)


def test_boxes_as_lines() -> None:
    garments = [
        garment("top", 0.3, Box(10, 10, 30, 20)), garment("dress", 0.9, Box(-10, 0, 50, 25)), garment("top", 0.29,
        Box(0, 0, 9, 9)),
        garment(None, None, Box(0, 0, 100, 50), whole_photo=True), garment("skirt", 0.9, Box(100, 0, 120, 9)),
        garment("top", None, Box(0, 0, 9, 9)),
        garment("pants", 0.9, Box(0, 0, 9, 9), whole_photo=True),
    ]  # fmt: skip
    names, lines = label_lines(garments, (100, 50), 0.3)
    assert names == ("dress", "skirt", "top")
    assert lines == ("2 0.200000 0.300000 0.200000 0.200000", "0 0.250000 0.250000 0.500000 0.500000")
    assert label_lines(garments[5:6], (100, 50), 0.0)[1] == ("0 0.045000 0.090000 0.090000 0.180000",)


def test_a_plan_keeps_to_the_limit_of_its_batch(tmp_path: Path) -> None:
    pytest.importorskip("roboflow")
    config = load_config(env={}, sets=["roboflow.limit=3", "roboflow.api_url=http://127.0.0.1:9"]).config
    chosen = []
    for n in range(7):
        path = tmp_path / f"{n}.png"
        Image.new("RGB", (100, 50), (n, 0, 0)).save(path)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        boxes = (garment("top", 0.9, Box(10, 10, 30, 20)), garment("top", 0.2, Box(0, 0, 9, 9)))
        chosen.append(
            Chosen(f"k/{n}.png", path, ("valid", "unlabelled", None)[n % 3], sha, (100, 50), 1.0, "why", boxes)
        )
    chosen[2].path.write_bytes(chosen[3].path.read_bytes())  # changed since
    chosen[4].path.write_bytes(b"")
    journal = journal_path(tmp_path, "a/b")
    with open_journal(journal, "a/b"):
        for n, batch, state in ((0, "mine", "done"), (1, "mine", "uploaded"), (6, "other", "done")):
            remember(journal, {"sha256": chosen[n].sha256, "key": "k", "batch": batch, "image": None, "state": state})
    made = plan(chosen, "a/b", tmp_path, config, batch="mine", conf=0.5)
    assert (made.target, made.host, made.batch) == ("a/b", "127.0.0.1:9", "mine")
    assert [(one.key, one.split, one.boxes, one.names) for one in made.photos] == [
        ("k/1.png", "train", ("0 0.200000 0.300000 0.200000 0.200000",), ("top",)),
        ("k/3.png", "valid", ("0 0.200000 0.300000 0.200000 0.200000",), ("top",)),
    ]
    assert made.left_out == {"uploaded before": 2, "changed": 1, "over the limit": 2}
    assert (made.boxes, made.bytes) == (2, sum(one.bytes for one in made.photos))
    sent = encode_jpeg(Image.new("RGB", (100, 50), (1, 0, 0)), 100, 95)
    assert made.photos[0].bytes == len(sent)
    assert uploaded(tmp_path, "a/b") == {chosen[0].sha256, chosen[6].sha256}
    assert plan(chosen[4:5], "a/b", tmp_path, config, batch="new", conf=0.5).left_out == {"empty": 1}
    row = {"key": "k", "boxes": 1, "reason": ""}
    report = Report(made, tuple(row | {"state": state} for state in ("failed", "uploaded", "failed")))
    assert list(report.counts.items()) == [("uploaded", 1), ("duplicate", 0), ("failed", 2)]
    with pytest.raises(DataError, match="is not WORKSPACE/PROJECT"):
        plan([], "a", tmp_path, config, batch="mine", conf=0.5)
    with pytest.raises(ConfigError, match="invalid batch name"):
        plan([], "a/b", tmp_path, config, batch="a&b", conf=0.5)
    empty = Plan("a/b", "h", "b", (Outgoing("k", tmp_path, "train", "s", 7, ("x", "y"), ()),) * 2, {})
    assert (empty.bytes, empty.boxes) == (14, 4)


def test_a_journal_that_is_damaged(tmp_path: Path) -> None:
    journal = journal_path(tmp_path, "a/b")
    assert journal == tmp_path / "a" / "b" / "uploads.jsonl"
    journal.parent.mkdir(parents=True)
    entry = {"sha256": "s", "key": "k", "batch": "m", "image": None, "state": "done", "more": 1}
    for key in ("sha256", "batch", "image", "state"):
        short = {name: value for name, value in entry.items() if name != key}
        journal.write_text(f"{json.dumps(entry)}\n{json.dumps(short)}\n")
        with pytest.raises(DataError) as caught:
            read_journal(journal)
        assert str(caught.value) == f"{journal}, line 2 is damaged"
        assert caught.value.hint == "remove that line, or remove the file to start over"
    journal.write_text(f"{json.dumps(entry)}\n{{")
    assert read_journal(journal) == {"s": entry}
    with open_journal(journal, "a/b"):
        assert journal.read_text() == f"{json.dumps(entry)}\n"
    journal.write_text("{")
    with open_journal(journal, "a/b"):
        assert journal.read_text() == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"error": {"message": "No such\\n project"}}', "No such project"), ('{"message": "Bad key K3Y"}', "Bad key ***"),
        ('{"error": "", "message": "x"}', "x"), ('{"detail": 1}', '{"detail": 1}'),
        ("see https://h/x?api_key=K3Y now", "see (address) now"),
        ("", "ValueError"), ("x" * 201, "x" * 200), ('"plain"', "plain"),
    ],
)  # fmt: skip
def test_what_a_server_says_in_an_error(text: str, told: str) -> None:
    assert reason_of(ValueError(text), "K3Y") == told


# -- the photos that are chosen


def test_candidates_of_a_data_set(tmp_path: Path, config: Config) -> None:
    for name in ("train/images/a.png", "train/images/b.png", "valid/images/c.png", "unlabelled/images/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(tmp_path / name)
    for name, text in (("train/labels/a.txt", "1 .5 .5 .5 1\n7 .25 .5 .5 .5\n"), ("valid/labels/c.txt", "")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [top, pants]\n")
    labels = (("pants", Box(0.25, 0, 0.75, 1)), ("#7", Box(0, 0.25, 0.5, 0.75)))
    assert [(one.key, one.path, one.split, one.labels) for one in candidates(tmp_path)] == [
        ("train/images/a.png", tmp_path / "train/images/a.png", "train", labels),
        ("train/images/b.png", tmp_path / "train/images/b.png", "train", None),
        ("valid/images/c.png", tmp_path / "valid/images/c.png", "valid", ()),
        ("unlabelled/images/d.png", tmp_path / "unlabelled/images/d.png", None, None),
    ]
    seen: list[int] = []

    def detect(photos: Any) -> list[list[Garment]]:
        seen.append(len(photos))
        return [[garment("pants", 0.6, Box(10, 0, 30, 20)), garment("top", 0.6, Box(0, 0, 4, 4))] for _ in photos]

    (only,), failed = choose(tmp_path, detect, 9, limits=config.images)
    assert (seen, failed) == ([4], [])
    # all four are the same bytes: c has nothing that agrees; a has the top alone, and #7 without a
    # box
    assert (only.key, only.score, only.reason) == (
        "train/images/a.png",
        1.6,
        "1 box without a label, 1 label without a box",
    )
    (by_doubt,), _ = choose(tmp_path, detect, 9, limits=config.images, strategy="uncertain")
    assert (by_doubt.key, round(by_doubt.score, 2), by_doubt.reason) == (
        "train/images/a.png",
        1.28,
        "uncertainty 1.28",
    )
    for gone in ("train", "valid"):
        shutil.rmtree(tmp_path / gone / "labels")
    with pytest.raises(DataError) as caught:
        choose(tmp_path, detect, 9, limits=config.images, strategy="disagree")
    assert (str(caught.value), caught.value.hint) == (
        f"{tmp_path} has no photos to choose from",
        "the strategy disagree needs labelled photos",
    )


# -- the connection


def test_a_client_shows_its_host_and_neither_key_nor_package() -> None:
    client = Client("api.roboflow.com", "secret", "package", "adapter", "session", 5.0)
    assert repr(client) == "Client(host='api.roboflow.com', timeout=5.0)"


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], str]]:
    """Set the variable API_URL, or take it away, as before the package was imported; returns the
    package's address then.
    """
    package = pytest.importorskip("roboflow.config")

    def put(url: str | None) -> str:
        monkeypatch.delenv("API_URL", raising=False)
        if url is not None:
            monkeypatch.setenv("API_URL", url)
        package.refresh_region_urls()
        return str(package.API_URL)

    yield put
    put(None)


@pytest.mark.parametrize("before", [None, "https://other.test"])
def test_the_address_of_the_settings_holds_for_one_use(
    before: str | None, variable: Callable[[str | None], str]
) -> None:
    own = variable(before)
    config = load_config(sets=["roboflow.api_url=http://127.0.0.1:9/"], env={}).config
    assert api_host(config.roboflow) == "127.0.0.1:9"
    assert os.environ.get("API_URL") == before
    assert own == sys.modules["roboflow.config"].API_URL


@pytest.mark.parametrize("host", ["api.roboflow.com", "app.roboflow-eu.com", "roboflow.one", "a.b.roboflow.eu"])
@pytest.mark.parametrize("more", ["", ".evil.test", "x"])
def test_which_hosts_are_roboflows(host: str, more: str, variable: Callable[[str | None], str]) -> None:
    variable(f"https://{host}{more}")
    if not more:
        assert api_host(load_config(env={}).config.roboflow) == host
        return
    with pytest.raises(ConfigError) as caught:
        api_host(load_config(env={}).config.roboflow)
    assert f"names {host}{more}, which is not a Roboflow host" in str(caught.value)
    assert caught.value.hint == "remove it; set roboflow.api_url to use a proxy of your own"
