"""Test what the package does differently on each operating system, as far as one system can show
it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from systems import posix_only

from fashionrec.common import system


def test_what_somebody_has_open_is_tried_again_and_then_given_up() -> None:
    tries: list[int] = []

    def act() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "it is open")

    system.retry(act, (0, 0, 0))
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(PermissionError, match="it is open"):
        system.retry(act, (0,))
    assert len(tries) == 2


def test_another_error_is_raised_at_once(tmp_path: Path) -> None:
    tries: list[int] = []

    def act() -> None:
        tries.append(1)
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        system.retry(act, (0, 0))
    assert len(tries) == 1


def test_a_finished_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old, new = tmp_path / "a", tmp_path / "a.tmp"
    old.write_text("old")
    new.write_text("new")
    system.put(new, old)
    assert (old.read_text(), new.exists()) == ("new", False)
    system.rename(old, tmp_path / "b")
    system.sync_file(tmp_path / "b")
    system.sync_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@posix_only("handles of folders")
def test_names_are_relative_to_the_handle_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        system.replace("a", "b", old_folder=handle, new_folder=handle)
        system.sync_folder(handle)
    finally:
        os.close(handle)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "a", tmp_path / "a.tmp"
    old.write_text("old")
    new.write_text("new")
    synced: list[tuple[bool, str]] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((os.path.samestat(os.fstat(file), new.stat()), old.read_text()))
    )
    system.put(new, old)
    assert synced == [(True, "old")]


def test_what_was_written_is_in_the_file_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    with (tmp_path / "a").open("wb") as file:
        file.write(b"content")
        system.sync_file(file)
    assert sizes == [7]


@posix_only("handles of folders")
def test_a_folder_is_synced_by_its_path_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        raise OSError(22, "Invalid argument")  # some file systems sync no folder

    monkeypatch.setattr(os, "fsync", fsync)
    free = lowest_free()
    for folder in (tmp_path, str(tmp_path), None):
        system.sync_folder(folder)
    assert synced == [tmp_path.stat().st_ino] * 2
    monkeypatch.setattr(os, "supports_dir_fd", os.supports_dir_fd - {os.open})
    system.sync_folder(tmp_path)
    assert len(synced) == 2
    assert lowest_free() == free


def test_where_files_cannot_be_locked_everybody_has_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert not system.has_locks()
    with (tmp_path / "a").open("wb") as one, (tmp_path / "a").open("rb") as other:
        assert system.lock(one, shared=False)
        assert system.lock(other, shared=False)


@posix_only("locks of open files")
def test_a_file_system_without_locks_gives_everybody_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    asked: list[int] = []

    def refuse(file: object, operation: int) -> None:
        asked.append(operation)
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (tmp_path / "a").open("wb") as file:
        assert system.lock(file, shared=False) is True
        assert system.lock(file, shared=True) is True
    assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB]


def test_cores_are_counted_where_a_process_cannot_ask_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert system.available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, cores in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert system.available_cores() == cores


@pytest.mark.parametrize(
    ("status", "platform", "peak"),
    [
        ("Name: x\nVmHWM:\t  7 kB\nVmRSS: 3 kB\n", "linux", 7 * 1024),
        ("Name: x\n", "linux", 0),
        (None, "linux", 5 * 1024),
        (None, "darwin", 5),
    ],
)
@posix_only("handles of folders")
def test_the_most_memory_is_told_by_whatever_the_system_has(
    status: str | None, platform: str, peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    asked: list[int] = []

    def getrusage(who: int) -> SimpleNamespace:
        asked.append(who)
        return SimpleNamespace(ru_maxrss=5)

    monkeypatch.setattr(Path, "is_file", lambda path: status is not None)
    monkeypatch.setattr(Path, "read_text", lambda path: status)
    monkeypatch.setattr(resource, "getrusage", getrusage)
    monkeypatch.setattr(sys, "platform", platform)
    assert system.peak_memory() == peak
    assert asked == ([resource.RUSAGE_SELF] if status is None else [])
    monkeypatch.setitem(sys.modules, "resource", None)
    assert system.peak_memory() == (0 if status is None else peak)


def test_a_file_that_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        system.sync_file(tmp_path / "none")


def test_a_file_gets_a_second_name_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_text("content")
    system.link(source, tmp_path / "b")
    assert (tmp_path / "b").samefile(source)

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    system.link(source, tmp_path / "c")
    assert not (tmp_path / "c").samefile(source)
    assert (tmp_path / "c").read_text() == "content"


def lowest_free() -> int:
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


def test_a_descriptor_is_silent_within_and_heard_again_afterwards(tmp_path: Path) -> None:
    with (tmp_path / "said").open("wb", buffering=0) as file:
        with system.output_discarded(file.fileno()):
            file.write(b"unheard")
        file.write(b"heard")
        free = lowest_free()
        system.discard_output(file.fileno())
        file.write(b"unheard")
        assert lowest_free() == free
        closed = file.fileno()
    assert (tmp_path / "said").read_bytes() == b"heard"
    with system.output_discarded(closed), pytest.raises(OSError, match="Bad file descriptor"):
        os.write(closed, b"x")
    system.discard_output(closed)
    try:
        assert os.write(closed, b"x") == 1
    finally:
        os.close(closed)
