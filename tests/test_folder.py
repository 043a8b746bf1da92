"""Nothing outside a folder is read, written, listed or removed through it, whatever lies in it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from systems import posix_only

from fashionrec.common import system
from fashionrec.common.folder import TEMPORARY, Folder
from fashionrec.errors import CatalogueError, DataError


def without_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as on Windows: no handle of a folder opens a file, no flag keeps a link from being
    followed.
    """
    plain = os.open

    def follows(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return plain(path, flags & ~getattr(os, "O_NOFOLLOW", 0), mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", follows)


@pytest.fixture(params=["handles", "paths"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside one that must not be touched; with directory handles and, as on Windows,
    without.
    """
    if request.param == "paths":
        without_handles(monkeypatch)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("canary")
    (tmp_path / "inside" / "a").mkdir(parents=True)
    (tmp_path / "inside" / "a" / "file").write_bytes(b"content")
    return tmp_path / "inside"


def _outside_is_whole(place: Path) -> None:
    outside = place.parent / "outside"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "canary"


def test_reads_writes_lists_and_removes(place: Path) -> None:
    folder = Folder(place)
    assert folder.read("a/file") == b"content"
    folder.write("a/new", "text")
    folder.append("a/new", b" and more")
    assert (place / "a" / "new").read_bytes() == b"text and more"
    made = folder.make_folder("b/c/d")
    assert made == place / "b" / "c" / "d"
    assert made.is_dir()
    with pytest.raises(FileExistsError):
        folder.make_folder("b/c/d")
    folder.make_folder("b/c/d", exist_ok=True)
    assert [entry.name for entry in folder.entries("a")] == ["a/file", "a/new"]
    assert {entry.name for entry in folder.walk()} == {"a", "a/file", "a/new", "b", "b/c", "b/c/d"}
    folder.rename("a/new", "a/file")
    assert folder.read("a/file") == b"text and more"
    folder.remove("b")
    folder.remove("b")
    assert not (place / "b").exists()
    assert folder.path("a/missing") == place / "a" / "missing"
    folder.check()
    with folder.open("a/file", "r+b") as file:
        file.write(b"TEXT")
    assert folder.read("a/file") == b"TEXT and more"
    with pytest.raises(FileNotFoundError):
        folder.open("a/missing")
    with pytest.raises(FileExistsError):
        folder.open("a/file", "xb")


def test_a_folder_reached_through_a_link_is_used(place: Path) -> None:
    link = place.parent / "link"
    link.symlink_to(place)
    folder = Folder(link)
    folder.check()
    folder.write("a/file", "new")
    assert (place / "a" / "file").read_text() == "new"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../outside/secret",
        "a/../../outside",
        "/etc/passwd",
        "a//file",
        ".",
        "a\0",
        "a" * 256,
        "a/" * 2048 + "a",
    ],
)
def test_only_names_inside_are_names(place: Path, name: str) -> None:
    folder = Folder(place)
    for act in (folder.open, folder.path, folder.remove, folder.make_folder, lambda n: folder.write(n, "x")):
        with pytest.raises(DataError, match="not a name inside"):
            act(name)
    _outside_is_whole(place)


@pytest.mark.parametrize("target", ["../../outside", "absolute", "../../outside/missing", "link"])
def test_a_linked_folder_is_never_entered(place: Path, target: str) -> None:
    (place / "a" / "link").symlink_to(place.parent / "outside" if target == "absolute" else target)
    folder = Folder(place, "catalogue", CatalogueError)
    acts = {
        "open": lambda: folder.open("a/link/secret"),
        "read": lambda: folder.read("a/link/secret"),
        "write": lambda: folder.write("a/link/secret", "gone"),
        "append": lambda: folder.append("a/link/secret", b"gone"),
        "create": lambda: folder.open("a/link/new", "xb"),
        "list": lambda: folder.entries("a/link"),
        "make": lambda: folder.make_folder("a/link/new"),
        "path": lambda: folder.path("a/link"),
        "path within": lambda: folder.path("a/link/secret"),
        "rename from": lambda: folder.rename("a/link/secret", "a/mine"),
        "rename to": lambda: folder.rename("a/file", "a/link/secret"),
        "remove": lambda: folder.remove("a/link/secret"),
        "check": folder.check,
    }
    for what, act in acts.items():
        with pytest.raises(CatalogueError, match=r"catalogue .*: a/link is a link") as caught:
            act()
        assert caught.value.hint, what
        _outside_is_whole(place)
    folder.remove("a/link")
    assert not (place / "a" / "link").is_symlink()
    _outside_is_whole(place)


def test_a_linked_file_is_never_opened_and_is_replaced_by_a_write(place: Path) -> None:
    (place / "link").symlink_to("../outside/secret")
    folder = Folder(place)
    for mode in ("rb", "r+b", "ab"):
        with pytest.raises(DataError, match=r"link is a link \(to \.\./outside/secret\)"):
            folder.open("link", mode)
    with pytest.raises(FileExistsError):
        folder.open("link", "xb")
    folder.write("link", "mine")
    _outside_is_whole(place)
    assert not (place / "link").is_symlink()
    assert (place / "link").read_text() == "mine"


def test_removing_a_folder_does_not_follow_what_is_in_it(place: Path) -> None:
    (place / "a" / "deep").mkdir()
    (place / "a" / "deep" / "link").symlink_to("../../../outside")
    Folder(place).remove("a")
    _outside_is_whole(place)
    assert not (place / "a").exists()


@posix_only("named pipes")
def test_special_files_are_refused_without_waiting(place: Path) -> None:
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(place / "socket"))
        for name in ("pipe", "socket"):
            for mode in ("rb", "r+b", "ab"):
                with pytest.raises(DataError, match=f"{name} is neither a file nor a folder"):
                    Folder(place).open(name, mode)
            with pytest.raises(DataError, match=f"{name} is neither"):
                Folder(place).path(name)
    with pytest.raises(DataError, match="pipe is neither"):
        Folder(place).check()


def test_a_folder_in_the_place_of_a_file_and_a_file_in_that_of_a_folder(place: Path) -> None:
    folder = Folder(place)
    for act in (lambda: folder.open("a"), lambda: folder.write("a", "x"), lambda: folder.append("a", b"x")):
        with pytest.raises(DataError, match="a is a folder, not a file"):
            act()
    for act in (
        lambda: folder.open("a/file/x"),
        lambda: folder.entries("a/file"),
        lambda: folder.make_folder("a/file/x"),
    ):
        with pytest.raises(DataError, match="a/file is a file, not a folder"):
            act()
    assert [path.name for path in place.iterdir()] == ["a"], "no temporary is left"


@posix_only("handles of folders")
def test_a_file_or_a_folder_is_synced_as_the_system_can(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows syncs what it may write, and no folder; a file that is only to be read is synced
    where it can be.
    """
    import fcntl

    synced: list[tuple[int, bool]] = []

    def fsync(file: int) -> None:
        writable = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        synced.append((os.fstat(file).st_ino, writable))

    monkeypatch.setattr(os, "fsync", fsync)
    handles = system.has_handles()
    for name in ("a/file", "a", ""):
        Folder(place).sync(name)
    nodes = [(place / name).stat().st_ino for name in ("a/file", "a", "")]
    assert synced == ([(node, False) for node in nodes] if handles else [(nodes[0], True)])


def test_what_cannot_be_removed_is_an_error_unless_that_is_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        for name in ("a/file", "a"):
            Folder(place).remove(name, ignore_errors=True)
            with pytest.raises(PermissionError):
                Folder(place).remove(name)
    assert (place / "a" / "file").read_bytes() == b"content"


def test_a_planted_temporary_is_not_followed(place: Path) -> None:
    for number in (os.getpid(), 1, 2):
        (place / f".file.{number}.tmp").symlink_to("../outside/secret")
    Folder(place).write("file", "mine")
    _outside_is_whole(place)
    assert all(TEMPORARY.match(path.name) for path in place.iterdir() if path.name.endswith(".tmp"))


def test_a_file_with_another_name_is_not_appended_to(place: Path) -> None:
    os.link(place.parent / "outside" / "secret", place / "log")
    Folder(place).append("log", b" and mine")
    _outside_is_whole(place)
    assert (place / "log").read_text() == "canary and mine"


def test_what_cannot_be_written_leaves_the_old_content(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*names: object, **handles: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        Folder(place).write("a/file", "new")
    assert (place / "a" / "file").read_bytes() == b"content"
    assert [path.name for path in (place / "a").iterdir()] == ["file"]


def test_folders_without_end_are_refused(place: Path) -> None:
    deep = place
    for _ in range(80):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(DataError, match="nested too deeply"):
        Folder(place).check()
