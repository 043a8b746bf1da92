"""The safe file operations of `fashionrec.common.folder` as they would be without their care: one
fault each, to be caught.

Each function is called within the process of a command, before it begins.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import filelock

from fashionrec.common.folder import Entry, Folder
from fashionrec.common.reach import Reach
from fashionrec.store import generations


def unchecked() -> None:
    """Nothing is refused in advance, nor by its kind."""
    Folder.check = lambda self, *_, **__: None  # type: ignore[method-assign]
    Folder.kind = _kind  # type: ignore[method-assign]
    Folder.path = lambda self, name="", *_: self.root / name  # type: ignore[method-assign]


def reads_through_links() -> None:
    unchecked()
    Folder.entries = _entries  # type: ignore[method-assign]
    Folder.open = _open  # type: ignore[method-assign]


def removes_through_links() -> None:
    """Behave as garbage was collected: every entry of the shared folders that nothing refers to."""
    reads_through_links()
    generations.SHARED = dict.fromkeys(generations.SHARED, re.compile(".+"))
    Folder.remove = _remove  # type: ignore[method-assign]


def writes_through_links() -> None:
    """Behave as `write_atomic` was: a temporary that can be guessed, opened with ``w``."""
    unchecked()
    Folder.open = _open  # type: ignore[method-assign]
    Folder.write = _write  # type: ignore[method-assign]
    Folder.append = _append  # type: ignore[method-assign]


def locks_through_links() -> None:
    """Behave as versions of filelock did that open a lock without ``O_NOFOLLOW``, and
    truncate it.
    """
    unchecked()

    class NaiveLock:
        def __init__(self, path: Path, **_: Any) -> None:
            self.path = path

        def acquire(self, **_: Any) -> None:
            with self.path.open("w"):
                pass

        def release(self) -> None:
            pass

    filelock.FileLock = NaiveLock  # type: ignore[assignment,misc]


def follows_links_of_data_sets() -> None:
    real = Reach.__init__

    def init(self: Reach, root: Path, follow_links: bool | None = None) -> None:
        real(self, root, True)

    Reach.__init__ = init  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    "unchecked": unchecked,
    "reads": reads_through_links,
    "removes": removes_through_links,
    "writes": writes_through_links,
    "locks": locks_through_links,
    "follows": follows_links_of_data_sets,
}


def _kind(self: Folder, name: str) -> Any:
    try:
        mode = (self.root / name).stat().st_mode
    except OSError:
        return None
    return "folder" if stat.S_ISDIR(mode) else "file"


def _open(self: Folder, name: str, mode: str = "rb") -> IO[bytes]:
    return (self.root / name).open(mode)  # type: ignore[return-value]


def _entries(self: Folder, name: str = "") -> list[Entry]:
    folder = self.root / name
    if not folder.is_dir():
        return []
    prefix = f"{name}/" if name else ""
    return [
        Entry(prefix + path.name, "folder" if path.is_dir() else "file", path.stat().st_size if path.exists() else 0)
        for path in sorted(folder.iterdir())
    ]


def _remove(self: Folder, name: str, **_: Any) -> None:
    path = Path(os.path.realpath(self.root / name))
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(self: Folder, name: str, data: bytes | str, **_: Any) -> None:
    path = self.root / name
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    temporary.replace(path)


def _append(self: Folder, name: str, data: bytes) -> None:
    with (self.root / name).open("ab") as file:
        file.write(data)
