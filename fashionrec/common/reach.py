"""Rules for reading a dataset: files in its own folder, and links only if the user allows it.

A dataset names files by lists, by ``data.yaml`` and by its folders; it may be untrusted. A name
that leads out of the folder, a link, a pipe or a device is not read: it becomes a :class:`Refusal`,
which is counted.

``dataset.follow_links`` lifts this for datasets named by a command (:func:`following_links`), never
for archives.
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
from fashionrec.common.text import plural
from fashionrec.errors import DataError

Reason = Literal["link", "outside", "special"]

#: Texts of refusals, after the name.
WORDS: dict[Reason, str] = {
    "link": "is a link, which is not followed",
    "outside": "leads out of the dataset's folder",
    "special": "is neither a file nor a folder",
}
HINT = "if you trust its target: --set dataset.follow_links=true"

_FOLLOW: ContextVar[bool] = ContextVar("follow_links", default=False)


@contextmanager
def following_links(wanted: bool = False) -> Iterator[None]:
    """Set whether datasets opened meanwhile follow links by default."""
    token = _FOLLOW.set(wanted)
    try:
        yield
    finally:
        _FOLLOW.reset(token)


def follow_links(wanted: bool) -> None:
    """Set the default for the rest of the block of :func:`following_links`.

    A command knows its settings only while it runs.
    """
    _FOLLOW.set(wanted)


class Refusal(NamedTuple):
    """An entry of a dataset that is not read.

    ``name`` is relative to its folder; for ``outside``, as written.
    """

    name: str
    reason: Reason

    def __str__(self) -> str:
        return f"{self.name[:200]} {WORDS[self.reason]}"

    def error(self, where: object) -> DataError:
        """Return the error to raise if the dataset cannot be used without it."""
        return DataError(f"{where}: {self}", hint="" if self.reason == "special" else HINT)


class Reach:
    """The folder of one dataset, and the rules for reading it.

    The folder itself may be reached through a link. The default of ``follow_links`` is that of the
    running command.
    """

    def __init__(self, root: Path, follow_links: bool | None = None) -> None:
        self.root = root
        self.follow_links = _FOLLOW.get() if follow_links is None else follow_links
        places = dict.fromkeys((_whole(root), os.path.realpath(root)))
        self._roots = [f"{path.rstrip(os.sep)}{os.sep}" for path in places]
        self._folders: dict[str, Refusal | None] = {}

    def inside(self, path: Path) -> Path | None:
        """Return the path without ``..`` below the root, or None if it leads out.

        The disk is not accessed.
        """
        name = self._name(path)
        return None if name is None else self.root / name

    def leads_out(self, path: Path) -> bool:
        """Return whether a path leads out of the folder, and that is not allowed."""
        return not self.follow_links and self.inside(path) is None

    def is_outside(self, path: Path) -> bool:
        """Return whether a path leads to something outside the folder that may not be read.

        A network path of Windows is never accessed: that would reveal the user's identity.
        """
        return self.leads_out(path) and (str(path).startswith(("//", "\\\\")) or os.path.lexists(path))

    def find(self, *candidates: Path) -> Path | Refusal | None:
        """Return the first of several interpretations of a name that exists; None if none does.

        Those that lead out of the folder only count if links are followed.
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
        """Return why a path is not read; None for a file, a folder, or a missing path."""
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
        """Return whether a path is a regular file that may be read."""
        return self.check(path) is None and path.is_file()

    def files(self, folder: Path, refused: list[Refusal], suffixes: Collection[str] = ()) -> Iterator[Path]:
        """Yield regular files at any depth of a folder, sorted, without hidden ones.

        ``suffixes`` (lower case) limits them. Links and special files are added to ``refused``,
        whatever their suffix.
        """
        seen: set[tuple[int, int]] = set()
        folders = [folder]
        while folders:
            here = folders.pop()
            if self.follow_links and not _is_new(here, seen):
                continue  # a link to a parent folder
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
        """Return the names of regular files in one folder, and the refused ones.

        They are sorted, without hidden ones.
        """
        names, refused = [], []
        for entry in _entries(folder):
            found = self._kind(entry)
            if found == "file":
                names.append(entry.name)
            elif found is not None and found != "folder":
                refused.append(Refusal(self.name(folder / entry.name), found))
        return names, refused

    def described(self, path: Path) -> Path:
        """Return the path of a file that the dataset needs.

        Raises :class:`DataError` if it may not be read.
        """
        refused = self.check(path)
        if refused:
            raise refused.error(self.root)
        return path

    def name(self, path: Path) -> str:
        """Return a path for messages: relative to the folder, with ``/``."""
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
        """Return the first part of a path that is not a folder of the dataset's own; cached."""
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
        """Return the kind of a folder's entry (a broken link is a link); None if it is gone."""
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
    """Return the error for refusals in a dataset that can only be used as a whole.

    It gives the number of each kind, and the first names.
    """
    found = list(dict.fromkeys(refused))
    if len(found) == 1:
        return found[0].error(where)
    counts = {reason: sum(one.reason == reason for one in found) for reason in WORDS}
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return DataError(f"{where}: {plural(len(found), 'name')} cannot be read ({told}), such as {found[0]}", hint=HINT)


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
    """Return the absolute path without ``..``, without accessing the disk."""
    return os.path.normpath(path.absolute())
