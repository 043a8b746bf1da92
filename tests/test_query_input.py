"""Test what may stand on a query's standard input: a photo, or the names of photos, one a line."""

from __future__ import annotations

import gc
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import pytest
from conftest import Result

from fashionrec.search import BATCH
from fashionrec.search.result import QueryResult

Cli = Callable[..., Result]


def ask(given: bytes, *words: str) -> Any:
    return command_line.invoke(["query", *words, "--index", "catalogue", "--json", "-k", "1"], given)


def best(document: Any) -> list[str]:
    return [answer["garments"][0]["hits"][0]["product_id"] for answer in document["answers"]]


def test_names_may_hold_spaces_and_lines_may_end_as_on_windows(cli: Cli, catalogue: Path, photos: Path) -> None:
    shutil.copy(photos / "green.jpg", "my green one.jpg")
    shutil.copy(photos / "white-blue.jpg", "초록 b.jpg")
    done = ask("my green one.jpg\r\n\r\n   \n\t초록 b.jpg  \n".encode(), "-")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [answer["photo"] for answer in document["answers"]] == ["my green one.jpg", "초록 b.jpg"]
    assert best(document) == ["green.jpg", "white-blue.jpg"]
    assert document["failures"] == []


def test_one_name_is_one_question(cli: Cli, catalogue: Path, photos: Path) -> None:
    shutil.copy(photos / "green.jpg", "a b.jpg")
    document = json.loads(ask(b"a b.jpg\n", "-").stdout)
    assert document["photo"] == "a b.jpg"


def test_names_on_standard_input_stand_among_the_others(cli: Cli, catalogue: Path, photos: Path) -> None:
    done = ask(b"photos/green.jpg\nphotos/grey.jpg\n", "photos/red-white.jpg", "-", "photos/white-blue.jpg")
    document = json.loads(done.stdout)
    assert best(document) == ["red-white.jpg", "green.jpg", "grey.jpg", "white-blue.jpg"]


def test_a_photo_itself_and_a_file_that_is_neither(cli: Cli, catalogue: Path, photos: Path) -> None:
    done = ask((photos / "green.jpg").read_bytes(), "-")
    assert json.loads(done.stdout)["garments"][0]["hits"][0]["product_id"] == "green.jpg"
    assert json.loads(done.stdout)["photo"] is None
    for given in (b"a.jpg\n\0", b"x" * 5000):  # UTF-8, but no names
        refused = ask(given, "-")
        assert refused.exit_code == 2, refused.stdout
        assert "the photo is not a readable image" in refused.stderr, refused.stderr
    assert ask(b"x" * 4095, "-").exit_code == 2
    assert ask(b"", "-").exit_code == 2
    assert ask(b"", "-").stderr.splitlines() == [
        "error: standard input is empty",
        "hint: cat photo.jpg | fashionrec query -",
    ]


@pytest.mark.parametrize("given", [b"\n", b"  \r\n\n"])
def test_lines_without_a_name_are_no_photo(cli: Cli, catalogue: Path, given: bytes) -> None:
    done = ask(given, "-")
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("more", "kept"), [([], False), (["--csv", "hits.csv"], True), (["--html", "a.html"], True)])
def test_lines_of_a_folder_keep_no_answer_of_before(
    more: list[str], kept: bool, cli: Cli, catalogue: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * BATCH
    for n in range(count):
        shutil.copy(photos / "green.jpg", f"asked-{n:02}.jpg")
    alive = []

    class Lines(io.StringIO):
        def write(self, text: str) -> int:
            if (
                text.startswith("{") and f"asked-{count - 1}" in text
            ):  # the last one: a look at all objects takes a while
                alive.append(sum(type(one) is QueryResult for one in gc.get_objects()))
            return super().write(text)

    shown = Lines()
    monkeypatch.setattr(sys, "stdout", shown)
    words = ["query", *map(str, sorted(Path().glob("asked-*.jpg"))), "--index", "catalogue", "-k", "1", "--jsonl"]
    command_line.whole().main([*words, *more], standalone_mode=False)
    lines = [json.loads(line) for line in shown.getvalue().splitlines()]
    assert [line["photo"] for line in lines] == [f"asked-{n:02}.jpg" for n in range(count)]
    assert (len(alive), alive[0] > 2 * BATCH) == (1, kept)


def test_of_two_photos_the_one_that_cannot_be_read_is_named(cli: Cli, catalogue: Path, photos: Path) -> None:
    Path("broken.jpg").write_bytes(b"no photo")
    done = cli("query", "photos/green.jpg", "broken.jpg", "--index", "catalogue", "-k", 1, "--jsonl")
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "broken.jpg" in done.err
    alone = cli("query", "broken.jpg", "--index", "catalogue")
    assert (alone.code, alone.err.count("broken.jpg")) == (2, 1)
