"""What may be read of a data set: what lies in its own folder, and no link unless the user wants links followed.

A data set names files by lists, by ``data.yaml`` and by what lies in its folders; it may come from somebody else. A name
that leads out of the folder, a link, a pipe or a device is not read: it becomes a :class:`Refusal`, which is counted.

``dataset.follow_links`` lifts this for the data sets that a command names (:func:`following_links`), never for archives.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

from fashionrec.common.folder import is_link
from fashionrec.common.system import WINDOWS
from fashionrec.errors import DataError

Reason = Literal["link", "outside", "special"]

#: What a refusal says after the name of what was refused.
WORDS: dict[Reason, str] = {
    "link": "is a link, which is not followed",
    "outside": "leads out of the data set's folder",
    "special": "is neither a file nor a folder",
}
HINT = "if you trust where it leads: --set dataset.follow_links=true"

_FOLLOW: ContextVar[bool] = ContextVar("follow_links", default=False)


@contextmanager
def following_links(wanted: bool = False) -> Iterator[None]:
    """Whether data sets that are opened meanwhile follow links, where their opener does not say."""
    token = _FOLLOW.set(wanted)
    try:
        yield
    finally:
        _FOLLOW.reset(token)


def follow_links(wanted: bool) -> None:
    """What holds for the rest of the block of :func:`following_links`: a command knows its settings only while it runs."""
    _FOLLOW.set(wanted)


class Refusal(NamedTuple):
    """Something of a data set that is not read. ``name`` is relative to its folder; of ``outside``, as it was written."""

    name: str
    reason: Reason

    def __str__(self) -> str:
        return f"{self.name[:200]} {WORDS[self.reason]}"

    def error(self, where: object) -> DataError:
        """The error where the data set cannot be used without it."""
        return DataError(f"{where}: {self}", hint="" if self.reason == "special" else HINT)


class Reach:
    """The folder of one data set, and what of it may be read.

    The folder itself may be reached through a link. Without ``follow_links``: as the running command has it.
    """

    def __init__(self, root: Path, follow_links: bool | None = None) -> None:
        self.root = root
        self.follow_links = _FOLLOW.get() if follow_links is None else follow_links
        places = dict.fromkeys((_whole(root), os.path.realpath(root)))
        self._roots = [f"{path.rstrip(os.sep)}{os.sep}" for path in places]
        self._folders: dict[str, Refusal | None] = {}

    def inside(self, path: Path) -> Path | None:
        """The same path without ``..``, below the root; None where it leads out. Nothing is opened or asked of the disk."""
        name = self._name(path)
        return None if name is None else self.root / name

    def leads_out(self, path: Path) -> bool:
        """Whether a path leads out of the folder, where that is not allowed."""
        return not self.follow_links and self.inside(path) is None

    def is_outside(self, path: Path) -> bool:
        """Whether a path leads out of the folder, where that is not allowed, to something that is there.

        Another machine's name, of a network drive of Windows, is never asked for: that would show it who we are.
        """
        return self.leads_out(path) and (str(path).startswith(("//", "\\\\")) or os.path.lexists(path))

    def find(self, *candidates: Path) -> Path | Refusal | None:
        """The first of several readings of a name that is there; None where none is.

        Readings that lead out of the folder count only where links are followed.
        """
        for path in candidates:
            place = path if self.follow_links else self.inside(path)
            if place is None:
                continue
            refused = self.check(place)
            if refused or os.path.lexists(place):
                return refused or place
        return None

    def check(self, path: Path) -> Refusal | None:
        """Why a path is not read; None for a file, a folder, or what is missing."""
        if self.follow_links:
            try:
                mode = path.stat().st_mode
            except (OSError, ValueError):
                return None
            return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else Refusal(self.name(path), "special")
        name = self._name(path)
        if name is None:
            return Refusal(str(path), "outside")
        above, _, last = name.rpartition("/")
        return (self._check_folder(above) if above else None) or (self._check_entry(name) if last else None)

    def is_file(self, path: Path) -> bool:
        """Whether a path is a regular file that may be read."""
        return self.check(path) is None and path.is_file()

    def files(self, folder: Path, refused: list[Refusal], suffixes: Collection[str] = ()) -> Iterator[Path]:
        """Regular files at any depth of a folder, sorted, hidden ones left out, of any of ``suffixes`` (lower case).

        Links and special files are added to ``refused``, whatever they are called.
        """
        seen: set[tuple[int, int]] = set()
        folders = [folder]
        while folders:
            here = folders.pop()
            if self.follow_links and not _is_new(here, seen):
                continue  # a link that leads back
            below: list[Path] = []
            for entry in _entries(here):
                found = self._kind(entry)
                if found == "folder":
                    below.append(here / entry.name)
                elif found == "file":
                    if not suffixes or Path(entry.name).suffix.lower() in suffixes:
                        yield here / entry.name
                elif found is not None:
                    refused.append(Refusal(self.name(here / entry.name), found))
            folders += reversed(below)

    def names(self, folder: Path) -> tuple[list[str], list[Refusal]]:
        """Names of the regular files in one folder, sorted and hidden ones left out, and what of it is not read."""
        names, refused = [], []
        for entry in _entries(folder):
            found = self._kind(entry)
            if found == "file":
                names.append(entry.name)
            elif found is not None and found != "folder":
                refused.append(Refusal(self.name(folder / entry.name), found))
        return names, refused

    def described(self, path: Path) -> Path:
        """The path of a file without which the data set means something else. Raises :class:`DataError` if it may not be read."""
        refused = self.check(path)
        if refused:
            raise refused.error(self.root)
        return path

    def name(self, path: Path) -> str:
        """What a message calls a path: relative to the folder, with ``/``."""
        name = self._name(path)
        return os.fspath(path) if name is None else name

    def _name(self, path: Path) -> str | None:
        whole = _whole(path)
        for root in self._roots:
            if whole + os.sep == root:
                return ""
            if whole.startswith(root) and "\0" not in whole:
                return whole[len(root) :].replace(os.sep, "/")
        return None

    def _check_folder(self, name: str) -> Refusal | None:
        """The first part of a folder's way that is no folder of the data set's own; remembered."""
        if name not in self._folders:
            above, _, _ = name.rpartition("/")
            self._folders[name] = (self._check_folder(above) if above else None) or self._check_entry(name)
        return self._folders[name]

    def _check_entry(self, name: str) -> Refusal | None:
        path = self.root / name
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            return None
        if stat.S_ISLNK(mode) or (WINDOWS and is_link(path)):
            return Refusal(name, "link")
        return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else Refusal(name, "special")

    def _kind(self, entry: os.DirEntry[str]) -> Literal["file", "folder"] | Reason | None:
        """What an entry of a folder is; None for one that has gone. A link that leads nowhere is always a link."""
        try:
            if not self.follow_links and (entry.is_symlink() or (WINDOWS and is_link(Path(entry.path)))):
                return "link"
            if entry.is_dir():
                return "folder"
            if entry.is_file():
                return "file"
            return "link" if entry.is_symlink() and not Path(entry.path).exists() else "special"
        except OSError:
            return None


def refusals_error(where: object, refused: Iterable[Refusal]) -> DataError:
    """The error of a data set that is used only whole: how many of what kind, and the first of them by name."""
    found = list(dict.fromkeys(refused))
    if len(found) == 1:
        return found[0].error(where)
    counts = {reason: sum(one.reason == reason for one in found) for reason in WORDS}
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return DataError(f"{where}: {len(found)} names are not read ({told}), as {found[0]}", hint=HINT)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scanned:
            return sorted((entry for entry in scanned if not entry.name.startswith(".")), key=attrgetter("name"))
    except OSError:
        return []


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _whole(path: Path) -> str:
    """The absolute path without ``..``; nothing is asked of the disk."""
    return os.path.normpath(path.absolute())
