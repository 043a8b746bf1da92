"""What may stand on a query's standard input: a photo, or the names of photos, one a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import pytest
from conftest import Result

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
        assert "the photo is not an image that can be read" in refused.stderr, refused.stderr
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
