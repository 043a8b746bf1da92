"""Things that an adversary puts in the place of a file or folder."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adversary.home import SECRET, remove


@dataclass(frozen=True)
class Plant:
    """``put`` is given the path to plant at and the home; nothing is at the path any more, and the
    folder above it is there.

    ``refused`` says that a folder with such a thing in it is refused by name, whatever the thing is
    called.
    """

    name: str
    put: Callable[[Path, Path], None]
    refused: bool = True
    twin: bool = False


def _link(target: str, *, relative: bool = False) -> Callable[[Path, Path], None]:
    def put(path: Path, home: Path) -> None:
        there = home / target
        path.symlink_to(os.path.relpath(there, path.parent) if relative else there)

    return put


def _loop(path: Path, home: Path) -> None:
    path.symlink_to(path.name)


def _pipe(path: Path, home: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, home: Path) -> None:
    # its address may be at most 107 bytes, so it is bound by its name alone
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _folder(path: Path, home: Path) -> None:
    path.mkdir()
    (path / "inside.txt").write_bytes(b"nothing")


def _file(path: Path, home: Path) -> None:
    path.write_bytes(b"nothing")


PLANTS = (
    Plant("link to a file", _link(".ssh/id_ed25519")),
    Plant("relative link to a file", _link(".bashrc", relative=True)),
    Plant("link to its own copy", _link("elsewhere/twin"), twin=True),
    Plant("link to a folder", _link("work/other-project/catalogue/generations/000001")),
    Plant("relative link to a folder", _link("Documents", relative=True)),
    Plant("link to the home", _link(".", relative=True)),
    Plant("dangling link", _link("elsewhere/not-there")),
    Plant("loop", _loop),
    Plant("pipe", _pipe),
    Plant("socket", _socket),
    Plant("folder for a file", _folder, refused=False),
    Plant("file for a folder", _file, refused=False),
)


def plant(what: Plant, path: Path, home: Path) -> None:
    """Put a plant at a path; what was there lies in the home, as its twin, where the plant is a
    link to that.
    """
    (home / "elsewhere").mkdir(exist_ok=True)
    twin = home / "elsewhere" / "twin"
    path.parent.mkdir(parents=True, exist_ok=True)
    if what.twin:
        if path.is_dir():
            shutil.copytree(path, twin, symlinks=True)
            (twin / "more").mkdir()
            (twin / "more" / "canary").write_bytes(SECRET)
        elif path.is_file():
            shutil.copy2(path, twin)
        else:
            twin.write_bytes(SECRET)
    remove(path)
    what.put(path, home)


def uproot(home: Path) -> None:
    """Take away what :func:`plant` left in the home."""
    if (home / "elsewhere").exists():
        shutil.rmtree(home / "elsewhere")


def fits(what: Plant, kind: str) -> bool:
    """Return whether a plant says something new of a place:

    ``kind`` is file, folder, or new (nothing is there).
    """
    return not (
        (what.name == "folder for a file" and kind == "folder") or (what.name == "file for a folder" and kind == "file")
    )
