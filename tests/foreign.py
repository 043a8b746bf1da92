"""Things that somebody else may have put into a folder, and a folder outside of it that must be
found again as it was.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from systems import posix_only
from test_cli_dataset import make_yolo, picture

from tests.conftest import Result

Cli = Callable[..., Result]
Plant = Callable[[Path, Path], None]

SECRET = picture(99)


def _pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


PLANTS: dict[str, Plant] = {
    "file": lambda path, outside: path.symlink_to(outside / "secret.jpg"),
    "relative": lambda path, outside: path.symlink_to(os.path.relpath(outside / "secret.jpg", path.parent)),
    "folder": lambda path, outside: path.symlink_to(outside),
    "missing": lambda path, outside: path.symlink_to(outside / "not-there"),
    "loop": lambda path, outside: path.symlink_to(path.name),
    "pipe": _pipe,
    "socket": _socket,
}
_NEEDED = {"pipe": "named pipes", "socket": "sockets with names"}
every_plant = pytest.mark.parametrize(
    "plant", [pytest.param(name, marks=posix_only(_NEEDED.get(name, "links"))) for name in PLANTS]
)


def untouched(tmp_path: Path) -> Iterator[Path]:
    """A folder of somebody's own, as it must be found again.

    Nothing of it may get anywhere else, either.
    """
    folder = tmp_path / "outside"
    make_yolo(folder / "train-set", 2)
    (folder / "secret.jpg").write_bytes(SECRET)
    (folder / "sub").mkdir()
    (folder / "sub/secret.jpg").write_bytes(SECRET)
    (folder / "secret.txt").write_text("0 0.5 0.5 0.123454321 0.321\n")
    (folder / "data.yaml").write_text("train: .\nnames: [dress]\n")
    before = state(folder)
    yield folder
    assert state(folder) == before
    others = [path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)]
    copies = [path for path in others if path.is_file() and not path.is_symlink() and path.read_bytes() == SECRET]
    assert not copies
    told = [path for path in others if path.suffix in (".csv", ".txt", ".json") and not path.is_symlink()]
    assert not [path for path in told if path.is_file() and "0.123454321" in path.read_text(errors="replace")]


def state(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        link = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115
        found[path.relative_to(folder).as_posix()] = (path.lstat().st_mode, content, link)
    return found


def refused(done: Result, name: str) -> None:
    """Exit 2, and one line of error with the name of what was refused."""
    assert done.code == 2, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.err
    assert name in errors[0]


def put(path: Path, plant: str, outside: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    PLANTS[plant](path, outside)


def archive(**members: bytes) -> bytes:
    """A zip archive; ``__`` in a name stands for a slash, ``_dot_`` for a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()
