"""Test what progress looks like in a pipe, and which commands show it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from golden_world import DETECTOR, make_dataset, photo
from test_golden_evaluate import QUERIES

from fashionrec.cli.output import GuardedStream, Output, fail, guard_streams


def test_a_noted_step_is_one_line_and_never_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("epoch") as tick:
        for epoch in (1, 2, 3):
            tick(epoch, 3, f"loss {epoch}.0")
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert [line.split(",")[0] for line in lines] == [
        "epoch 1/3: loss 1.0",
        "epoch 2/3: loss 2.0",
        "epoch 3/3: loss 3.0",
    ]
    assert lines[0].endswith("s left")
    assert not lines[-1].endswith("s left")


def test_fast_steps_without_a_note_are_thinned_out(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("reading", "photos") as tick:
        for done in range(1, 101):
            tick(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("reading 100/100, ")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_a_line_every_five_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with Output().progress("reading", "photos") as tick:
        for seconds, done, note, detail in (
            (4.9, 9, "", ""),
            (5.0, 10, "", "3 lost"),
            (9.9, 11, "", ""),
            (10.0, 20, "", ""),
            (12.0, 21, "half", ""),
            (16.9, 30, "", ""),
            (17.0, 34, "", ""),
            (18.0, 100, "", "4 lost"),
            (18.0, 100, "", ""),
        ):
            clock.now = 1000.0 + seconds
            tick(done, 100, note, detail=detail)
    assert capsys.readouterr().err.splitlines() == [
        "reading 10/100, 2.0 photos/s, 45 s left, 3 lost",
        "reading 20/100, 2.0 photos/s, 40 s left",
        "reading 21/100: half, 1.8 photos/s, 45 s left",
        "reading 34/100, 2.0 photos/s, 33 s left",
        "reading 100/100, 5.6 photos/s, 4 lost",
        "reading 100/100, 5.6 photos/s",
    ]
    with Output().progress("epoch") as tick:
        clock.now += 8
        tick(0, 3, "begins")
        tick(2, 3, "loss 1")
    assert capsys.readouterr().err.splitlines() == ["epoch 0/3: begins", "epoch 2/3: loss 1, 4 s left"]


def test_each_stage_has_a_rate_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with Output().stages() as tell:
        tell("reading", "photos", 0, 8)
        clock.now += 4
        tell("reading", "photos", 8, 8)
        tell("writing", "files", 0, 3)
        clock.now += 1
        tell("writing", "files", 3, 3)
        tell("reading", "photos", 0, 1)
        clock.now += 2
        tell("reading", "photos", 1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "reading 8/8, 2.0 photos/s",
        "writing 3/3, 3.0 files/s",
        "reading 1/1, 0.5 photos/s",
    ]


def test_a_result_is_a_document_or_what_a_person_reads(capsys: pytest.CaptureFixture[str]) -> None:
    for json_wanted, quiet, out, err in (
        (False, False, "one\n\ntwo\nthree\n", "said\nwarning: told\nnext: a\n      b\n"),
        (False, True, "one\n\ntwo\nthree\n", "warning: told\n"),
        (True, False, '{\n  "셔츠": [\n    1\n  ]\n}\n', "said\nwarning: told\n"),
    ):
        output = Output(json=json_wanted, quiet=quiet)

        def human(output: Output = output) -> None:
            output.line("one")
            output.line()
            output.block("two\nthree")

        output.result({"셔츠": [1]}, human)
        output.say("said")
        output.warn("told")
        output.next("a", "b")
        assert capsys.readouterr() == (out, err)
    Output().json_line({"a": [1, 2], "셔츠": None})
    assert capsys.readouterr() == ('{"a": [1, 2], "셔츠": null}\n', "")
    output = Output()
    output.say()
    output.table(("a", "b", "c"), [(1, None, "x"), ("long", 2.5, True)], right=(0, 1))
    assert capsys.readouterr() == ("   a    b  c\n   1       x\nlong  2.5  True\n", "\n")


def test_an_error_is_a_line_with_what_is_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    fail("wrong\nline")
    assert capsys.readouterr() == ("", "error: wrong\\nline\n")
    fail("wrong", "do this", "a\n ^", "Traceback:\n  x\n")
    assert capsys.readouterr() == ("", "Traceback:\n  x\nerror: wrong\na\n ^\nhint: do this\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_and_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that knows no colours and is taken for 80 columns wide; a stage's bar is done before
    the next one begins.
    """
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", table := Terminal())
    monkeypatch.setattr(sys, "stderr", bars := Terminal())
    clock = Clock(monkeypatch)
    output = Output()
    output.table(("name", "n", "link"), [("a [b]", 1, "x" * 70), ("long", 22.5, None)], right=(1,))
    head, line, *rows = [row.rstrip() for row in table.getvalue().splitlines()]
    assert head == "name  ┃    n ┃ link"
    assert line.startswith("━━━━━━╇━━━━━━╇━")
    assert rows == [f"a [b] │    1 │ {'x' * 65}", "      │      │ xxxxx", "long  │ 22.5 │"]
    with output.stages() as tell:
        tell("reading", "photos", 0, 8)
        clock.now += 4
        tell("reading", "photos", 8, 8)
        tell("writing", "files", 0, 3)
        clock.now += 1
        tell("writing", "files", 3, 3)
    with output.progress("epoch") as tick:
        tick(1, 2, "loss [1]", detail="US$ 1")
        tick(2, 2, detail="US$ [2]")
    told = [re.sub("━+", "-", line.rstrip()) for line in bars.getvalue().splitlines() if line.strip()]
    assert told == [
        "reading - 8/8 2.0 photos/s 0:00:00",
        "writing - 3/3 3.0 files/s 0:00:00",
        "epoch 1/2: loss [1]",
        "epoch - 2/2  0:00:00 US$ [2]",
    ]


def test_what_others_write_beside_a_bar_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal with colours: nothing in it is markup, the name of a picture, or a number to be
    coloured.
    """
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", bars := Terminal())
    text = "12 of [bold]34[/bold] :smile: None 'x' https://a.test"
    with Output().progress("epoch") as tick:
        sys.stderr.write(text)
        sys.stderr.flush()  # a line that is not ended
        sys.stderr.write(f"\n{text}\n")
        tick(1, 1, text)
    assert bars.getvalue().count(text) == 3


def test_cells_of_a_csv_begin_no_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, shown in ((io.StringIO(), "a\nb"), (Terminal(), "a\\nb")):
        monkeypatch.setattr(sys, "stdout", stream)
        Output().csv(lambda clean: clean("a\nb"))
        assert stream.getvalue() == shown


@pytest.mark.parametrize(
    ("encoding", "shown", "document"),
    [
        ("utf-8", "셔츠 é\n", '{"셔츠": "é"}\n'),
        ("UTF_16-le", "셔츠 é\n", '{"셔츠": "é"}\n'),
        ("latin-1", r"\uc154\uce20 é" + "\n", r'{"\uc154\uce20": "\u00e9"}' + "\n"),
    ],
)
def test_what_a_stream_cannot_encode_is_escaped(
    encoding: str, shown: str, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(print_it: Callable[[Output], Any]) -> str:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
        monkeypatch.setattr(sys, "stdout", stream)
        print_it(Output())
        stream.flush()
        return raw.getvalue().decode(encoding)

    assert written(lambda output: output.line("셔츠 é")) == shown
    assert written(lambda output: output.json_line({"셔츠": "é"})) == document
    assert json.loads(document) == {"셔츠": "é"}


def test_a_guarded_stream_is_a_stream(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w", encoding="latin-1", errors="replace", newline="") as file:
        stream = GuardedStream(file)
        assert stream.write("a\x1b[2J\nb") == 7
        assert (stream.encoding, stream.errors, stream.writable(), stream.isatty()) == (
            "latin-1",
            "replace",
            True,
            False,
        )
        assert stream.fileno() == file.fileno()
        stream.flush()
        assert (tmp_path / "file").read_bytes() == rb"a\x1b[2J" + b"\nb"
    stream.flush()  # when Python ends, the stream below may be closed
    assert GuardedStream(Terminal()).isatty()


def test_streams_that_somebody_else_put_there_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", before := io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    mine = io.StringIO()
    with guard_streams():
        assert isinstance(sys.stdout, GuardedStream)
        assert sys.stderr is None
        sys.stdout.write("x\x07\n")
        sys.stderr = mine
    assert (sys.stdout, sys.stderr, before.getvalue()) == (before, mine, "x\\x07\n")
    with guard_streams():
        sys.stdout = mine
    assert (sys.stdout, sys.stderr) == (mine, mine)


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(quiet=True).progress("epoch") as tick:
        tick(1, 1, "loss 1.0")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "last", "hint"),
    [
        (
            "evaluate --queries asked.csv --index catalogue",
            "asking 2/2, _ queries/s",
            "query PHOTO --index catalogue --html answer.html",
        ),
        (
            "evaluate --queries asked.csv --ways --index catalogue",
            "asking 2/2, _ queries/s",
            "caption --index catalogue",
        ),
        (
            "evaluate --texts asked.csv --index catalogue",
            "asking 2/2, _ texts/s",
            'query --text "..." --index catalogue',
        ),
        (
            "evaluate --outfits looks.csv --index catalogue",
            "asking 2/2, _ looks/s",
            "query PHOTO --goes-with --index catalogue",
        ),
        (
            "evaluate --weights W --data ours/data.yaml",
            "evaluating 5/5, _ photos/s",
            "evaluate --weights W --data ours/data.yaml --split test --html evaluation.html",
        ),
        (
            "evaluate --weights W --data ours/data.yaml --html x.html",
            "evaluating 5/5, _ photos/s",
            "build-index PHOTOS --detector W",
        ),
        ("dataset audit ours", "looking 11/11, _ photos/s", "dataset audit ours --html audit.html"),
        (
            "dataset export ours --to voc --out voc",
            "writing 11/11, _ photos/s",
            "fetch-dataset voc:voc --out DIR   (and back)",
        ),
        (
            "catalogue add asked/look.bmp --index catalogue",
            "adding 12/12, _ photos/s, 3 garments, 0 failed",
            "query PHOTO --index catalogue",
        ),
    ],
)
def test_commands_end_with_all_that_is_done_and_what_comes_next(
    words: str, last: str, hint: str, cli: Callable[..., Result], own_world: Path
) -> None:
    rows = "image,product_id,category,text\nasked/look.bmp,T2,top,red shirt\nasked/look.bmp,P1,pants,blue pants\n"
    (own_world / "asked.csv").write_text(rows)
    looks = (("a", "T1", "top"), ("a", "P1", "pants"), ("b", "T4", "top"), ("b", "P3", "pants"))
    lines = [f"looks/{look}.bmp,{product},{name}\n" for look, product, name in looks]
    (own_world / "looks.csv").write_text("image,product_id,category\n" + "".join(lines))
    photo(own_world / "looks" / "a.bmp", {"a": "red/rose", "d": "navy/blue"})
    photo(own_world / "looks" / "b.bmp", {"b": "rose", "d": "blue/sky"}, (120, 160))
    (own_world / "W").symlink_to(DETECTOR)
    make_dataset(own_world / "ours")
    done = cli(*words.split())
    assert done.code == 0, done.err
    told = re.sub(r"\b[\d.]+(?= \w+/s)", "_", done.err).splitlines()
    assert last in told
    assert f"next: fashionrec {hint}" in told


def test_what_was_measured_and_cannot_be_kept_is_warned_of(
    cli: Callable[..., Result], own_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(source: str, target: str, *, replace: Callable[..., None] = os.replace, **folders: int | None) -> None:
        if Path(target).name == "measured.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target, **folders)

    monkeypatch.setattr(os, "replace", replace)
    (own_world / "asked.csv").write_text(QUERIES, encoding="utf-8")
    done = cli("evaluate", "--queries", "asked.csv", "--index", "catalogue")
    assert done.code == 0, done.err
    assert "warning: results cannot be stored in catalogue: No space left on device" in done.err.splitlines()


def test_a_long_text_is_repeated_in_part(cli: Callable[..., Result], world: Path) -> None:
    for text, repeated in (("a" * 60, "a" * 60), ("a" * 61, "a" * 59 + "…")):
        done = cli("query", "--text", text, "--index", "catalogue")
        assert done.code == 0, done.err
        assert re.search(rf"^next: fashionrec query --text '?{repeated}'? --index catalogue ", done.err, re.MULTILINE)
