"""A home with canaries around a project, and what tells whether anybody looked at them.

The canaries are compared before and after (content, mode, time, inode), and watched by inotify in
between: that sees every process and every library that opens a file in C, which Python's audit hook
does not.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

#: Stands in every canary, so that a copy of one is found wherever it goes.
SECRET = b"CANARY-7f3a9c51e2"

_OPEN, _ACCESS, _MODIFY, _ATTRIB, _CLOSE_WRITE = 0x20, 0x1, 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
CHANGES = _CREATE | _DELETE | _MODIFY | _MOVED_FROM | _MOVED_TO
_TOUCHED = CHANGES | _OPEN | _ACCESS | _ATTRIB | _CLOSE_WRITE
_ISDIR, _OVERFLOW, _DONT_FOLLOW, _NONBLOCK = 0x40000000, 0x4000, 0x2000000, 0o4000
_NAMES = {
    _OPEN: "opened",
    _ACCESS: "read",
    _MODIFY: "written",
    _ATTRIB: "changed",
    _CLOSE_WRITE: "written",
    _MOVED_FROM: "moved away",
    _MOVED_TO: "moved here",
    _CREATE: "created",
    _DELETE: "removed",
}


def make_home(home: Path, photo: Path) -> Path:
    """Fill ``home`` with what people keep there; returns the folder of the project, empty."""
    for name in (".bashrc", ".profile", ".env", ".ssh/config", ".aws/credentials", "Documents/plan.txt"):
        _write(home / name, b"# " + SECRET + b" of " + name.encode() + b"\n")
    _write(home / ".ssh/id_ed25519", b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + SECRET * 40 + b"\n")
    (home / ".ssh/id_ed25519").chmod(0o600)
    _write(home / "Documents/private.jpg", photo.read_bytes() + SECRET)
    _write(home / "Documents/taxes/2025.txt", SECRET)
    _write(home / "work/other-project/notes.txt", SECRET)
    (home / ".cache").mkdir()
    project = home / "work" / "project"
    project.mkdir(parents=True)
    return project


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def walk(folder: Path, leave_out: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Everything below a folder, links not followed."""
    yield from (Path(entry.path) for entry in _entries(str(folder), {str(path) for path in leave_out}))


def _entries(folder: str, leave_out: set[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.path not in leave_out:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path, leave_out)


State = dict[str, tuple[object, ...]]


def canary_state(home: Path, ours: tuple[Path, ...]) -> State:
    """Return what is at every path of the home that is none of ``ours``, by content."""
    state: State = {}
    for entry in _entries(str(home), {str(path) for path in ours}):
        status = entry.stat(follow_symlinks=False)
        name = os.path.relpath(entry.path, home)
        state[name] = (status.st_mode, status.st_ino)
        if entry.is_file(follow_symlinks=False):
            digest = hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()
            state[name] += (status.st_mtime_ns, status.st_size, digest)
    return state


def tree_state(folder: Path) -> State:
    """Return what is at every path of a folder.

    The time of change of a file's inode moves whatever is done to the file.
    """
    state: State = {}
    cut = len(str(folder)) + 1
    for entry in _entries(str(folder), set()):
        status = entry.stat(follow_symlinks=False)
        state[entry.path[cut:]] = (status.st_mode, status.st_ino)
        if not entry.is_dir(follow_symlinks=False):
            state[entry.path[cut:]] += (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return state


def differences(before: State, after: State) -> list[str]:
    gone = [f"{name} has gone" for name in before if name not in after]
    new = [f"{name} is new" for name in after if name not in before]
    changed = [f"{name} has changed" for name in before if name in after and before[name] != after[name]]
    return gone + new + changed


def remove(path: Path) -> None:
    """Remove whatever is at a path, without following a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Watch:
    """Record of what happens to the folders of a tree (those below ``leave_out`` not), seen by
    inotify: a context manager.
    """

    def __init__(self, folder: Path, leave_out: tuple[Path, ...] = (), mask: int = _TOUCHED) -> None:
        self._folder, self._leave_out, self._mask = folder, leave_out, mask
        self._folders: dict[int, Path] = {}
        self._handle = -1

    def __enter__(self) -> Watch:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(_NONBLOCK)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        folders = [self._folder, *walk(self._folder, self._leave_out)]
        for path in folders:
            if path.is_dir() and not path.is_symlink():
                number = libc.inotify_add_watch(self._handle, os.fsencode(path), self._mask | _DONT_FOLLOW)
                if number < 0:
                    raise OSError(ctypes.get_errno(), f"inotify_add_watch {path}")
                self._folders[number] = path
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def events(self) -> list[tuple[Path, str]]:
        """Return what happened so far: a path, and what was done to it."""
        found: dict[tuple[Path, str], None] = {}
        while True:
            try:
                data = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                return list(found)
            at = 0
            while at < len(data):
                number, mask, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + size].rstrip(b"\0")
                at += 16 + size
                if mask & _OVERFLOW:
                    found[self._folder, "too many events"] = None
                    continue
                path = self._folders.get(number, self._folder) / os.fsdecode(name)
                if path in self._leave_out or mask & self._mask == 0:
                    continue
                for bit, word in _NAMES.items():
                    if mask & bit:
                        found[path, word] = None


def supported() -> bool:
    """Return whether this system has inotify and fork."""
    return hasattr(os, "fork") and hasattr(ctypes.CDLL(None), "inotify_init1")
