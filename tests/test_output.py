"""What progress looks like in a pipe."""

from __future__ import annotations

import pytest

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
