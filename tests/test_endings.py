"""Test how commands end: 0 done, 1 failed, 2 refused before any work, 3 a limit or gate, 75 busy,
130 interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from conftest import TINY, Result, two_halves
from typer.testing import CliRunner

from fashionrec.cli.session import Command, Context
from fashionrec.common.files import locked
from fashionrec.errors import (
    Busy,
    CaptionError,
    CatalogueError,
    ConfigError,
    DataError,
    FashionrecError,
    ImageError,
    MissingExtra,
    ModelError,
    Refused,
    UsageError,
    WriteError,
)
from fashionrec.store.generations import writer_lock

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


def ended(error: BaseException | None, *words: str) -> Result:
    """Return how a command ends that raises an error after its first line."""
    app = typer.Typer(pretty_exceptions_enable=False)

    def work(context: Context) -> None:
        context.session.out.line("began")
        if error is not None:
            raise error

    app.command("work", cls=Command)(work)
    done = CliRunner().invoke(app, list(words))
    return Result(done.exit_code, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (FashionrecError("x"), 1),
        (CaptionError("x"), 1),
        (WriteError("x"), 1),
        (UsageError("x"), 2),
        (ConfigError("x"), 2),
        (DataError("x"), 2),
        (ImageError("x"), 2),
        (ModelError("x"), 2),
        (CatalogueError("x"), 2),
        (MissingExtra("x"), 2),
        (Refused("x"), 3),
        (Busy("x"), 75),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_each_kind_of_error_has_its_code(error: FashionrecError | None, code: int) -> None:
    done = ended(error)
    assert (done.code, done.out) == (code, "began\n")
    assert done.err == ("error: x\n" if code else "")


def test_an_error_is_told_with_what_it_is_about_and_a_hint() -> None:
    error = UsageError("two\nlines", hint="do\nthis")
    error.shown = "a b\n  ^"
    done = ended(error)
    assert done.err == "error: two lines\na b\n  ^\nhint: do this\n"
    told = ended(error, "--debug")
    assert told.code == 2
    assert told.err.startswith("Traceback")
    assert told.err.endswith(done.err)


def test_ends_that_are_no_errors_of_ours() -> None:
    assert ended(KeyboardInterrupt()) == Result(130, "began\n", "error: interrupted\n")
    bug = ended(ZeroDivisionError("planted  \n twice"))
    assert bug.code == 1
    assert bug.err == "error: ZeroDivisionError: planted twice\nhint: this is a bug; --debug shows where\n"
    long = ended(ZeroDivisionError("x" * 301))
    assert long.err.splitlines()[0] == f"error: ZeroDivisionError: {'x' * 300}"
    assert ended(typer.Exit(7)).code == 7
    assert ended(SystemExit(5)).code == 5
    assert ended(typer.BadParameter("no such thing")).code == 2
    name = os.fsdecode(b"caf\xe9")
    odd = ended(UnicodeEncodeError("utf-8", name, 3, 4, "surrogates not allowed"))
    assert odd.code == 1
    assert odd.err == f"error: {name!r} is not UTF-8, which a library requires here\nhint: rename the file or folder\n"
    honest = ended(UnicodeEncodeError("ascii", "café", 3, 4, "ordinal not in range"))
    assert (honest.code, "this is a bug" in honest.err) == (1, True)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise")
@pytest.mark.parametrize("words", [("config", "show", "--json"), ("query", "photos/green.jpg", "--index", "catalogue")])
def test_a_reader_that_has_gone_is_no_error(catalogue: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Like production: `| head` ends: the command is done as far as anybody wanted to know."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fashionrec", *words, "-q"],
            cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def files(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(".lock")
    }


def test_writers_of_one_catalogue_wait_for_each_other_and_readers_do_not(
    cli: Cli, catalogue: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"product_id": "green.jpg", "price": 1}))
    assert cli("catalogue", "update", "t.jsonl", "--index", catalogue).code == 0
    before = files(catalogue)
    writes = (
        ("build-index", photos, "--index", catalogue, *MODELS),
        ("catalogue", "add", photos / "green.jpg", "--index", catalogue),
        ("catalogue", "remove", "green.jpg", "--index", catalogue),
        ("catalogue", "update", "t.jsonl", "--index", catalogue),
        ("catalogue", "rollback", catalogue),
        ("catalogue", "reindex", catalogue),
        ("catalogue", "compact", catalogue),
    )
    reads = (
        ("catalogue", "list", tmp_path),
        ("catalogue", "show", catalogue),
        ("catalogue", "verify", catalogue),
        ("catalogue", "export", "e", "--index", catalogue),
        ("query", photos / "green.jpg", "--index", catalogue),
        ("doctor", catalogue),
    )
    with writer_lock(catalogue):
        found = {words[:2]: cli(*words) for words in (*writes, *reads)}
    codes = {name: done.code for name, done in found.items()}
    assert codes == {words[:2]: 75 for words in writes} | {words[:2]: 0 for words in reads}
    for words in writes:
        assert "another process is writing" in found[words[:2]].err
        assert "hint: wait for it to end, then try again" in found[words[:2]].err
    assert files(catalogue) == before
    with locked(catalogue / ".captions.lock", "is captioning"):
        assert cli("caption", "--index", catalogue, "--captioner", "local").code == 75
    with locked(tmp_path / ".d.lock", "is making d"):
        assert cli("fetch-dataset", "folder:photos", "--out", "d").code == 75
    assert not (tmp_path / "d").exists()
    assert cli("fetch-dataset", "folder:photos", "--out", "d").code == 0


def test_what_is_refused_before_any_work(cli: Cli, catalogue: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "ids.txt").write_text("\n  \n")
    (tmp_path / "noid.jsonl").write_text(json.dumps({"price": 1}))
    (tmp_path / "other.csv").write_text("product_id,price\nnobody,3\n")
    before = files(tmp_path)
    told = {
        ("catalogue", "show", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "verify", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "rollback", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "reindex", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "compact", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "export", "e", "--index", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "add", "photos", "--index", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "remove", "a", "--index", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "update", "other.csv", "--index", "nowhere"): "no catalogue at nowhere",
        ("catalogue", "remove", "--index", "catalogue"): "no product given",
        ("catalogue", "remove", "--index", "catalogue", "--file", "ids.txt"): "no product given",
        ("catalogue", "remove", "--index", "catalogue", "--file", "none.txt"): "no such file or folder: none.txt",
        (
            "catalogue",
            "remove",
            "--index",
            "catalogue",
            "--file",
            "photos/green.jpg",
        ): "photos/green.jpg cannot be read",
        ("catalogue", "remove", "--index", "catalogue", "--file", "none.csv"): "none.csv",
        ("catalogue", "remove", "nobody", "--index", "catalogue"): "none of 1 product exists in catalogue",
        (
            "catalogue",
            "remove",
            *sorted(path.name for path in photos.iterdir()),
            "--index",
            "catalogue",
        ): "remove everything",
        ("catalogue", "update", "noid.jsonl", "--index", "catalogue"): "a record has no product_id",
        ("catalogue", "update", "other.csv", "--index", "catalogue"): "none of 1 product exists in catalogue",
        ("catalogue", "update", "none.csv", "--index", "catalogue"): "none.csv",
        ("catalogue", "add", "empty", "--index", "catalogue"): "no photos in empty",
        ("catalogue", "rollback", "catalogue"): "has no predecessor",
        ("catalogue", "rollback", "catalogue", "--to", "000009"): "generation 000009 does not exist",
        ("catalogue", "export", "photos", "--index", "catalogue"): "photos",
        ("catalogue", "import", "photos", "--index", "new"): "photos",
        ("catalogue", "import", "nowhere", "--index", "new"): "nowhere",
        ("catalogue", "reindex", "catalogue", "--index-type", "magic"): "index.type",
        ("catalogue", "show", "catalogue", "--product", "nobody"): "has no product 'nobody'",
        ("query", "--text", "red", "--index", "a", "--index", "b", "--index", "c"): "at most two catalogues",
        (
            "query",
            "--text",
            "red",
            "--html",
            "a.html",
            "--xlsx",
            "no/a.xlsx",
            "--index",
            "catalogue",
        ): "no such folder: no",
        ("query", "--text", "red:-1", "--index", "catalogue"): "at least one positive text or photo",
        ("query", "--text", "red", "--box", "1,2,3,4", "--index", "catalogue"): "--box needs a photo",
        ("query", "photos/green.jpg", "--like", "green.jpg", "--index", "catalogue"): "cannot be combined with a photo",
        (
            "query",
            "--text",
            "red",
            "--no-caption",
            "--captioner",
            "local",
            "--index",
            "catalogue",
        ): "cannot be combined",
        ("runs", "show", "nothing"): "nothing",
        ("runs", "promote", "nothing"): "nothing",
        ("runs", "demote", "nothing"): "nothing",
        ("runs", "compare", "a", "b"): "a",
        ("dataset", "audit", "nowhere"): "nowhere",
        ("dataset", "export", "nowhere", "--to", "coco", "--out", "o"): "nowhere",
        ("doctor", "nowhere"): "nowhere",
        ("doctor", "photos", "--index", "catalogue"): "a folder or --index, not both",
        ("config", "show", "--set", "query.k=0"): "query.k",
    }
    wrong = {}
    for words, said in told.items():
        done = cli(*words)
        lines = done.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if done.code != 2 or done.out or len(errors) != 1 or said not in errors[0] or "Traceback" in done.err:
            wrong[words] = (done.code, done.out, done.err)
    assert wrong == {}
    assert files(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_ids_may_stand_in_a_file_one_a_line_or_in_a_table(cli: Cli, catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("  green.jpg \r\n\n   \nnobody\n")
    done = cli("catalogue", "remove", "grey.jpg", "--index", catalogue, "--file", "ids.txt", "--json")
    assert done.code == 0, done.err
    assert (done.document["products"], done.document["unknown"]) == (4, ["nobody"])
    (tmp_path / "ids.csv").write_text("price,product_id\n3,red-blue.jpg\n4,\n5,white-blue.jpg\n")
    done = cli("catalogue", "remove", "--index", catalogue, "--file", "ids.csv", "--json")
    assert (done.document["products"], done.document["unknown"]) == (2, [])


def test_limits_and_gates_end_with_3_and_keep_what_was_done(cli: Cli, catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    two_halves(tmp_path / "more" / "new.jpg", "red", "black")
    (tmp_path / "more" / "broken.jpg").write_bytes(b"no")
    limit = "build.max_failures=0.4"  # of the rows that are added, not of all
    done = cli("catalogue", "add", "more", "--index", catalogue, "--json", "--set", limit)
    assert (done.code, done.document["failed"], done.document["refused"]) == (3, 1, True)
    assert "1 of 2 rows failed, more than build.max_failures allows; the catalogue was changed without them" in done.err
    assert cli("catalogue", "show", catalogue, "--json").document["counts"]["products"] == 7
    again = cli("catalogue", "add", "more", "--index", catalogue, "--json", "--set", "build.max_failures=0.5")
    assert (again.code, again.document["failed"], again.document["refused"]) == (0, 1, False)
    shutil.rmtree(tmp_path / "photos")
    (tmp_path / "photos").mkdir()
    two_halves(tmp_path / "photos" / "one.jpg", "red", "black")
    guarded = cli("build-index", "photos", "--index", catalogue)
    assert guarded.code == 3
    assert cli("catalogue", "show", catalogue, "--json").document["counts"]["products"] == 7
    assert cli("build-index", "photos", "--index", catalogue, "--max-delete", "1").code == 0
    assert cli("catalogue", "show", catalogue, "--json").document["counts"]["products"] == 1
