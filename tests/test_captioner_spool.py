"""Answers written down as they arrive."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from captioners import read_spool

from fashionrec.captioner.cache import Place
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.spool import Spool, SpooledAnswer, read_signed
from fashionrec.errors import WriteError
from fashionrec.types import Box


def arrived(n: int) -> SpooledAnswer:
    return SpooledAnswer(
        Place(f"{n:064x}", None if n % 2 else "top", Box(0, 0, n, 9.5)), "gpt-4o", f'{{"답": {n}}}', 0.25
    )


def test_what_is_written_down_is_read_by_the_next(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for n in range(3):
        spool.append(arrived(n))
    assert read_spool(spool.path) == [arrived(n) for n in range(3)]  # while it is open: a kill closes nothing
    assert read_spool(tmp_path / "none") == []


def test_a_line_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for n in range(3):
        spool.append(arrived(n))
    whole = spool.path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[-1])):
        spool.path.write_bytes(whole[:-cut])
        assert read_spool(spool.path) == [arrived(0), arrived(1)]


def test_it_is_emptied_when_all_is_recorded_and_gone_at_the_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append(arrived(0))
    spool.append(arrived(1))
    spool.recorded(1)
    assert len(read_spool(spool.path)) == 2
    spool.recorded(1)
    assert spool.path.stat().st_size == 0
    spool.append(arrived(2))
    assert read_spool(spool.path) == [arrived(2)]
    spool.recorded(1)
    spool.close()
    assert not spool.path.exists()


def test_what_was_not_recorded_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append(arrived(0))
    spool.close()
    assert read_spool(spool.path) == [arrived(0)]


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    """A thread that still waits for its server when all stops must not write into a file that took
    the number.
    """
    spool = Spool(tmp_path / "s")
    spool.close()
    with (tmp_path / "other").open("wb") as other:
        spool.append(arrived(0))
        spool.recorded(0)
        assert other.tell() == 0
    assert (tmp_path / "other").read_bytes() == b""
    spool.close()


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    ledger = Ledger()
    spool = Spool(tmp_path / "s", ledger)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(WriteError) as caught:
            spool.append(arrived(0))
        patched.setattr(os, "open", full)
        with pytest.raises(WriteError) as refused:
            Spool(tmp_path / "other", ledger)
    for error, name in ((caught.value, "s"), (refused.value, "other")):
        assert str(error) == f"{tmp_path / name} cannot be written: No space left on device"
        assert error.hint == "free disk space, then run it again"


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    threads = [
        threading.Thread(target=lambda part=part: [spool.append(arrived(part * 50 + n)) for n in range(50)])
        for part in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.place.box.x2 for one in read_spool(spool.path)) == list(range(400))


def test_lines_that_are_no_answers_are_told_and_those_of_others_are_not_ones_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append(arrived(0))
    spool.close()
    own = json.loads(spool.path.read_bytes())
    assert own[:6] == [f"{0:064x}", "top", [0.0, 0.0, 0.0, 9.5], "gpt-4o", '{"답": 0}', 0.25]
    wrong: list[Any] = [
        own[:5], [*own, 1], {"a": 1}, "text", [own[0][:9], *own[1:]], [own[0], "hat", *own[2:]], [*own[:2], [0, 0, 1], *own[3:]],
        [*own[:2], 3, *own[3:]], [*own[:3], 3, *own[4:]], [*own[:4], None, *own[5:]], [*own[:5], "long", own[6]],
        [*own[:5], float("inf"), own[6]],
    ]  # fmt: skip
    changed: list[Any] = [own[:6], [*own[:6], "0" * 64], [*own[:6], None], [*own[:3], "m" * 300, *own[4:]]]
    lines = [json.dumps(line) for line in (*wrong, *changed, own)]
    spool.path.write_text("\n".join([*lines, "x" * (1 << 20), "no JSON", ""]), encoding="utf-8")
    found = list(read_signed(spool.path, Ledger()))
    named = SpooledAnswer(arrived(0).place, "m" * 200, arrived(0).body, 0.25)
    assert found[: len(wrong)] == [(None, False)] * len(wrong)
    answers = [(arrived(0), False)] * 3 + [(named, False), (arrived(0), True)]
    assert found[len(wrong) :] == [*answers, (None, False), (None, False)]
    assert [own for _, own in read_signed(spool.path)] == [False] * len(found)  # nobody has asked whose they are
