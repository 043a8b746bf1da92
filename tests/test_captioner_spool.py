"""Answers written down as they arrive."""

from __future__ import annotations

import threading
from pathlib import Path

from captioners import read_spool

from fashionrec.captioner.cache import Place
from fashionrec.captioner.spool import Arrived, Spool
from fashionrec.types import Box


def arrived(n: int) -> Arrived:
    return Arrived(Place(f"{n:064x}", None if n % 2 else "top", Box(0, 0, n, 9.5)), "gpt-4o", f'{{"답": {n}}}', 0.25)


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
    """A thread that still waits for its server when all stops must not write into a file that took the number."""
    spool = Spool(tmp_path / "s")
    spool.close()
    with (tmp_path / "other").open("wb") as other:
        spool.append(arrived(0))
        spool.recorded(0)
        assert other.tell() == 0
    assert (tmp_path / "other").read_bytes() == b""
    spool.close()


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
