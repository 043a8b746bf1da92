"""The file rules of Windows, imposed on a process on Linux and on those that it starts.

With this folder on ``PYTHONPATH`` and ``WINDOWS_RULES`` naming an empty folder, where each such
process signs itself in:

- the modules that only POSIX has cannot be imported by the package, and ``os`` lacks what it has
  there alone;
- what one of these processes has open or mapped cannot be removed, renamed or replaced, nor a
  folder above it renamed;
- renaming onto what exists fails, and so does replacing a folder;
- folders cannot be opened as files, and what was opened to be read cannot be synced;
- some names are not allowed (``a:b``, ``aux.txt``), and modes are not kept;
- processes are spawned, not forked.

https://learn.microsoft.com/windows/win32/fileio/naming-a-file and the pages of `os` in Python's
documentation say so.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import inspect
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIGNED_IN = os.environ["WINDOWS_RULES"]
POSIX_MODULES = {"fcntl", "grp", "posix", "pwd", "readline", "resource", "syslog", "termios"}
POSIX_NAMES = (
    "O_DIRECTORY O_NOFOLLOW fork forkpty getegid geteuid getgid getloadavg getuid killpg mkfifo nice posix_fadvise "
    "posix_fallocate sched_getaffinity sched_setaffinity setsid"
).split()
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')

_O_NOFOLLOW = os.O_NOFOLLOW
_import, _open, _os_open = builtins.__import__, builtins.open, os.open
_fsync, _mkdir, _remove, _rename, _replace = os.fsync, os.mkdir, os.remove, os.rename, os.replace


def _import_as_there(name: str, importer: Any = None, *rest: Any, **more: Any) -> Any:
    by = (importer or {}).get("__name__") or ""
    if name in POSIX_MODULES and by.partition(".")[0] in ("fashionrec", "__mp_main__"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return _import(name, importer, *rest, **more)


# -- what is open


def _used() -> set[tuple[int, int]]:
    """Device and number of each file that a process that signed in has open or mapped."""
    found = set()
    for process in os.listdir(SIGNED_IN):
        try:
            for path in (*_handles(process), *_mapped(process)):
                try:
                    seen = os.stat(path)
                except OSError:
                    continue
                if stat.S_ISREG(seen.st_mode):
                    found.add((seen.st_dev, seen.st_ino))
        except OSError:  # it ended meanwhile
            continue
    return found


def _handles(process: str) -> list[str]:
    return [f"/proc/{process}/fd/{number}" for number in os.listdir(f"/proc/{process}/fd")]


def _mapped(process: str) -> Iterator[str]:
    with _open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            name = line.rstrip("\n").partition("/")[2]
            if name and ".so" not in name:
                yield "/" + name


def _check_unused(path: Any) -> None:
    if isinstance(path, int) or os.path.islink(path):
        return
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    used = _used() if files else set()
    for file in files:
        try:
            seen = os.lstat(file)
        except OSError:
            continue
        if (seen.st_dev, seen.st_ino) in used:
            raise PermissionError(errno.EACCES, "it is being used by another process (WinError 32)", os.fspath(path))


def _remove_unused(path: Any, *, dir_fd: int | None = None) -> None:
    _check_unused(path)
    _remove(path, dir_fd=dir_fd)


def _rename_unused(source: Any, target: Any, **more: Any) -> None:
    if os.path.lexists(target) and not (os.path.exists(source) and os.path.samefile(source, target)):
        raise FileExistsError(
            errno.EEXIST, "it exists already (WinError 183)", os.fspath(source), None, os.fspath(target)
        )
    _check_name(target)
    _check_unused(source)
    _rename(source, target, **more)


def _replace_unused(source: Any, target: Any, **more: Any) -> None:
    if os.path.isdir(source) and os.path.lexists(target):
        raise PermissionError(errno.EACCES, "access is denied (WinError 5)", os.fspath(source), None, os.fspath(target))
    _check_name(target)
    _check_unused(source)
    _check_unused(target)
    _replace(source, target, **more)


# -- names, folders, handles


def _check_name(path: Any) -> None:
    if isinstance(path, int):
        return
    text = os.fsdecode(path)
    name = text.rstrip("/").rpartition("/")[2]
    if _FORBIDDEN.search(name) or _DEVICE.fullmatch(name):
        raise OSError(errno.EINVAL, "the name is not allowed (WinError 123)", text)


def _check_no_folder(path: Any) -> None:
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(errno.EACCES, "access is denied (WinError 5)", os.fspath(path))


def _os_open_file(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    _check_no_folder(path)
    if flags & os.O_CREAT:
        _check_name(path)
    frame = inspect.currentframe()
    caller = frame.f_back.f_globals.get("__name__", "") if frame and frame.f_back else ""
    if caller.partition(".")[0] == "filelock":  # there it follows no link by other means, which it does not take here
        flags |= _O_NOFOLLOW
    return _os_open(path, flags, mode, dir_fd=dir_fd)


def _open_file(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
    if more.get("opener") is None:
        _check_no_folder(file)
        if set(mode) & set("wax"):
            _check_name(file)
    return _open(file, mode, *rest, **more)


def _make_folder(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    _check_name(path)
    _mkdir(path, mode, dir_fd=dir_fd)


def _sync_written(handle: Any) -> None:
    number = handle if isinstance(handle, int) else handle.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    _fsync(number)


def _keep_mode(path: Any, mode: int, **more: Any) -> None:
    """Only whether a file may be written is kept there."""


def impose() -> None:
    Path(SIGNED_IN, str(os.getpid())).touch()
    os.supports_dir_fd.clear()  # nothing takes the handle of a folder there, which shutil notes when it is imported
    import multiprocessing
    import tempfile  # before `os.unlink` is another: the system itself removes a temporary file once nobody has it open

    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # type: ignore[assignment]
    multiprocessing.set_start_method("spawn", force=True)
    os.environ.setdefault("USERNAME", "user")  # always set there; who asks for the user's name would need `os.getuid`
    for name in POSIX_NAMES:
        if hasattr(os, name):
            delattr(os, name)
    builtins.__import__ = _import_as_there  # type: ignore[assignment]
    builtins.open = io.open = _open_file  # type: ignore[assignment]
    os.open, os.mkdir, os.fsync, os.chmod = _os_open_file, _make_folder, _sync_written, _keep_mode  # type: ignore[assignment]
    os.remove = os.unlink = _remove_unused  # type: ignore[assignment]
    os.rename, os.replace = _rename_unused, _replace_unused  # type: ignore[assignment]


impose()
