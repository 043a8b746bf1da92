"""The second time: folders that are there already, empty or not, and an encoder that was exported
before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result
from PIL import Image

from fashionrec.dataset.synthetic.world import WorldSettings, draw_world
from fashionrec.errors import DataError

Cli = Callable[..., Result]


@pytest.fixture
def dataset(cli: Cli, tmp_path: Path) -> Path:
    for sub in ("images", "labels"):
        (tmp_path / "src" / "train" / sub).mkdir(parents=True)
    for n in range(5):
        photo = Image.effect_noise((96, 64), 90 + n).convert("RGB")
        photo.save(tmp_path / f"src/train/images/p{n}.png")
        (tmp_path / f"src/train/labels/p{n}.txt").write_text(f"{n % 2} 0.5 0.5 0.4 0.6\n")
    (tmp_path / "src/data.yaml").write_text("train: train/images\nnames: [dress, top]\n")
    done = cli("fetch-dataset", "yolo:src", "--out", "d", "--counts", "3,1,1")
    assert done.code == 0, done.err
    return tmp_path / "d"


COMMANDS = (
    ("fetch-dataset", "yolo:src", "--counts", "3,1,1"),
    ("dataset", "export", "d", "--to", "coco"),
    ("dataset", "export", "d", "--to", "voc"),
)


def test_an_empty_folder_is_taken_and_one_with_something_in_it_is_not(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        new = tmp_path / f"{command[0]}-{command[-1]}"
        new.mkdir()
        done = cli(*command, "--out", new.name)
        assert done.code == 0, done.err
        assert list(new.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "of-mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = [path for path in sorted(tmp_path.rglob("*")) if path.suffix != ".lock"]
    for command in COMMANDS:
        for taken in ("full", "file", f"{command[0]}-{command[-1]}"):
            assert cli(*command, "--out", taken).code == 2
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix != ".lock"] == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_world_is_drawn_into_an_empty_folder_and_over_no_file(tmp_path: Path) -> None:
    settings = WorldSettings(images=3, products=0, size=96, workers=1)
    (tmp_path / "w").mkdir()
    draw_world(tmp_path / "w", settings)
    assert (tmp_path / "w" / "data.yaml").is_file()
    (tmp_path / "file").write_text("mine")
    for taken in ("w", "file"):
        with pytest.raises(DataError, match="not an empty folder"):
            draw_world(tmp_path / taken, settings)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_encoder_named_by_its_hub_id_is_exported_once_and_then_opened(cli: Cli, photos: Path) -> None:
    kept = Path("elsewhere") / "bundles" / "some--clip"
    shutil.copytree(TINY / "embedder", kept)
    words = ("--detector", "none", "--set", "project.data=elsewhere", "--json")
    done = cli("build-index", photos, "--index", "c", "--embedder", "some/clip", *words)
    assert done.code == 0, done.err
    assert "embedder: some/clip" in done.err
    assert "exporting" not in done.err
    # the settings' own name, which is not said on the command line
    done = cli("build-index", photos, "--index", "d", "--set", "embedder.source=some/clip", *words)
    assert done.code == 0, done.err
    assert "embedder: some/clip (embedder.source)" in done.err
    # one that is damaged is told, not exported anew
    (kept / "image.onnx").write_bytes(b"x")
    done = cli("build-index", photos, "--index", "e", "--embedder", "some/clip", *words)
    assert done.code != 0
    assert "exporting" not in done.err


def test_a_bundle_is_not_written_over_what_is_none(cli: Cli, tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "of-mine.txt").write_text("mine")
    for name in ("empty", "full"):
        done = cli("export", TINY / "embedder", "--out", name)
        assert done.code == 2
        assert "is not a bundle" in done.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["of-mine.txt"]


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        ("--csv folder", "folder is a folder", "name a file: --csv folder/answer.csv"),
        ("--xlsx folder", "folder is a folder", "name a file: --xlsx folder/answer.xlsx"),
        ("--html folder", "folder is a folder", "name a file: --html folder/answer.html"),
        ("--html nowhere/x.html", "no such folder: nowhere", ""),
        ("--html photo.jpg", "photo.jpg is one of the query photos", "choose another file for --html"),
        ("--save-crops photo.jpg", "not a folder: photo.jpg", "--save-crops takes a folder"),
        (
            "--index other --csv x.csv",
            "two catalogues can only be compared as text, --json or --html",
            "query one of them for other outputs",
        ),
        (
            "--index other --jsonl",
            "two catalogues can only be compared as text, --json or --html",
            "query one of them for other outputs",
        ),
    ],
)
def test_a_query_that_could_not_write_its_answer_is_refused(
    words: str,
    says: str,
    hint: str,
    photos: Path,
    catalogue: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    shutil.copyfile(photos / "green.jpg", "photo.jpg")
    before = Path("photo.jpg").read_bytes()
    done = cli("query", "photo.jpg", "--index", catalogue, *words.split())
    assert (done.code, done.err.splitlines()) == (2, [f"error: {says}", *([f"hint: {hint}"] if hint else [])])
    assert Path("photo.jpg").read_bytes() == before


def test_an_answer_of_before_is_replaced_though_a_photo_is_gone(photos: Path, catalogue: Path, cli: Cli) -> None:
    Path("a.csv").write_text("of before")
    done = cli("query", photos / "green.jpg", "gone.jpg", "--index", catalogue, "--csv", "a.csv")
    assert (done.code, "gone.jpg" in done.err) == (0, True)
    assert Path("a.csv").read_text(encoding="utf-8-sig").startswith("question,")


def test_a_merged_answer_says_which_photos_it_is_without(photos: Path, catalogue: Path, cli: Cli) -> None:
    done = cli("query", photos / "green.jpg", photos / "none.jpg", "--merge", "--index", catalogue, "--json")
    assert [one["reason"] for one in done.document["failures"]] == ["missing"]
    assert "none.jpg" in done.err


def test_a_photo_that_is_missing_is_what_is_told_where_the_page_exists(
    catalogue: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "a.html").touch()
    done = cli("query", tmp_path / "none.jpg", "--index", catalogue, "--html", tmp_path / "a.html")
    assert (done.code, done.err.splitlines()[0]) == (2, f"error: no such photo: {tmp_path / 'none.jpg'}")
