"""What progress looks like in a pipe, and which commands show it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from golden_world import DETECTOR, make_dataset, photo

from fashionrec.cli.output import Output


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


def test_a_long_text_is_repeated_in_part(cli: Callable[..., Result], world: Path) -> None:
    for text, repeated in (("a" * 60, "a" * 60), ("a" * 61, "a" * 59 + "…")):
        done = cli("query", "--text", text, "--index", "catalogue")
        assert done.code == 0, done.err
        assert re.search(rf"^next: fashionrec query --text '?{repeated}'? --index catalogue ", done.err, re.MULTILINE)
