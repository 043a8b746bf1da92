"""Test what every command shares: its settings, the catalogue that is meant, and the words of its
line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fashionrec.cli.output import Output
from fashionrec.cli.session import Session, one_or_none
from fashionrec.common.reach import Reach, following_links
from fashionrec.errors import CatalogueError, ConfigError
from fashionrec.store.generations import POINTER


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASHIONREC_INDEX", raising=False)


def test_words_become_settings_of_a_section(tmp_path: Path) -> None:
    (tmp_path / "a=b").write_text("")
    session = Session(sets=["train.epochs=1"])
    assert session.config.train.epochs == 1
    words = ["epochs=7", "best.pt", "query.k=3", "a=b", "=x", "x-y=1", "lr0=0.5", "warmup_epochs=2"]
    assert session.assign("train", words) == ["best.pt", "a=b", "=x", "x-y=1"]
    assert session.sets == ["train.epochs=1", "train.epochs=7", "query.k=3", "train.lr0=0.5", "train.warmup_epochs=2"]
    assert (session.config.train.epochs, session.config.query.k) == (7, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (0.25, "0.25"),
        (True, "true"),
        ("a b", "a b"),
        ("7", "'7'"),
        ("a: b", "'a: b'"),
        ([1, 2, 3], "[1, 2, 3]"),
        ({"t-shirt": "top", "shoe": None}, "{shoe: null, t-shirt: top}"),
    ],
)
def test_flags_become_settings(value: Any, text: str) -> None:
    session = Session(sets=["other.key=1"])
    session.override("section", {"key": value, "not_given": None})
    assert session.sets == ["other.key=1", f"section.key={text}"]


def test_flags_win_over_what_was_set_before() -> None:
    session = Session(sets=["query.k=3"])
    assert session.config.query.k == 3
    session.override("query", {"k": 9, "garment": None})
    assert session.config.query.k == 9
    assert session.config is session.config, "read once"


def test_what_a_command_suggests_gives_way_to_what_was_set() -> None:
    session = Session(sets=["query.k=3"])
    assert session.config.query.min_score != 0.5
    session.suggest(["query.k=9", "query.min_score=0.5"])
    assert (session.config.query.k, session.config.query.min_score) == (3, 0.5)


def test_where_a_setting_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("query: {k: 7}\ntrain: {model: a.pt}\n")
    monkeypatch.setenv("FASHIONREC_QUERY__MIN_SCORE", "0.5")
    session = Session(["mine.yaml"], ["train.epochs=2"])
    known = ("query.k", "train.model", "query.min_score", "train.epochs", "query.garment")
    assert [session.is_set(name) for name in known] == [True, True, True, True, False]
    assert [session.is_on_line(name) for name in known] == [False, False, False, True, False]


def test_a_file_of_a_shipped_name_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo.yaml").write_text("query: {k: 7}\n")
    session = Session(["demo", "demo", "./demo.yaml"], out=Output())
    assert session.config.query.k == 7
    session.override("query", {"k": 8})
    assert session.config.query.k == 8
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "--config demo means the shipped demo.yaml; the file in this folder is ./demo.yaml",
    ]


def test_links_are_followed_where_the_settings_say_so(tmp_path: Path) -> None:
    with following_links():
        assert not Reach(tmp_path).follow_links
        assert Session(sets=["dataset.follow_links=true"]).config.dataset.follow_links
        assert Reach(tmp_path).follow_links


def test_folders_are_those_of_the_settings() -> None:
    session = Session(sets=["project.data=d", "project.runs=r"])
    assert (session.data, session.runs) == (Path("d"), Path("r"))


def pointer(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / POINTER).write_text("{}")
    return path


def test_which_catalogue_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> str:
        return capsys.readouterr().err

    session = Session(out=Output())
    with pytest.raises(CatalogueError) as none:
        session.find_catalogue(None)
    assert str(none.value) == "no catalogue given, and none in data"
    assert none.value.hint == "name its folder with --index, or create one with `fashionrec build-index PHOTOS`"
    (tmp_path / "data" / "other").mkdir(parents=True)
    pointer(tmp_path / "data" / "b")
    assert session.find_catalogue(None) == Path("data/b")
    assert told() == "catalogue: data/b (the only one in data)\n"
    pointer(tmp_path / "data" / "a")
    pointer(tmp_path / "data" / "c")
    with pytest.raises(CatalogueError) as several:
        session.find_catalogue(None)
    assert str(several.value) == "found 3 catalogues: data/a, data/b, data/c"
    assert several.value.hint == "choose one, for example data/a"
    assert session.find_catalogue("x/y") == Path("x/y")
    assert told() == "", "it stands on the line"
    monkeypatch.setenv("FASHIONREC_INDEX", "mine")
    assert Session(out=Output()).find_catalogue(None) == Path("mine")
    assert told() == "catalogue: mine (environment FASHIONREC_INDEX)\n"
    assert Session(sets=["query.index=its"], out=Output()).find_catalogue(None) == Path("its")
    assert told() == "catalogue: its (--set query.index=its)\n"


def test_one_word_at_most_is_left() -> None:
    assert one_or_none([], "the weights") is None
    assert one_or_none(["best.pt"], "the weights") == "best.pt"
    with pytest.raises(ConfigError) as error:
        one_or_none(["best.pt", "last.pt", "x"], "the weights")
    assert str(error.value) == "unexpected argument 'last.pt'"
    assert error.value.hint == "expected the weights, then key=value settings"
