"""Everything that depends on the operating system: sync, replace, link, lock, user folders.

Windows cannot sync folders, and only syncs writable files; it neither removes nor replaces open
files, which an indexer or a virus scanner holds for a moment after creation; and a file's mode
means nothing there. Untrusted folders are entered through :mod:`fashionrec.common.folder`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

WINDOWS = os.name == "nt"
#: Seconds before operations on open entries are retried on Windows.
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def has_handles() -> bool:
    """Return whether files can be opened by a handle of their folder without following links.

    Not on Windows.
    """
    return os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


def sync_file(file: IO[bytes] | Path) -> None:
    """Sync the content of a file to disk, given as an open writable file or a path."""
    if isinstance(file, Path):
        with file.open("rb" if has_handles() else "r+b") as opened:
            os.fsync(opened.fileno())
        return
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path | str | int | None) -> None:
    """Sync the entries of a folder (a path, or a handle) to disk, if its file system can."""
    if isinstance(folder, int):
        with suppress(OSError):
            os.fsync(folder)
    elif folder is not None and has_handles():
        handle = os.open(folder, os.O_RDONLY)
        try:
            sync_folder(handle)
        finally:
            os.close(handle)


def replace(old: str | Path, new: str | Path, *, old_folder: int | None = None, new_folder: int | None = None) -> None:
    """Rename an entry, replacing an existing file.

    With handles of folders the names are relative to them.
    """
    retry(lambda: os.replace(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder))


def rename(old: Path, new: Path) -> None:
    """Rename an entry to an unused name (POSIX would replace a file or an empty folder)."""
    retry(lambda: old.rename(new))


def put(temporary: Path, target: Path) -> None:
    """Replace ``target`` by a finished file, after syncing its content."""
    sync_file(temporary)
    replace(temporary, target)


def link(source: Path, target: Path) -> None:
    """Create a hard link to a file, or a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        import shutil

        shutil.copyfile(source, target)


def retry(act: Callable[[], object], pauses: Iterable[float] = _PAUSES if WINDOWS else ()) -> None:
    """Retry an operation that fails while somebody has an entry open.

    It is repeated after each of the ``pauses`` (seconds); the last error is raised.
    """
    for pause in pauses:
        try:
            act()
        except PermissionError:
            time.sleep(pause)
        else:
            return
    act()


def has_locks() -> bool:
    """Return whether open files can be locked.

    Not on Windows, where open files cannot be removed anyway.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True


def lock(file: IO[bytes], *, shared: bool) -> bool:
    """Lock an open file exclusively, or ``shared`` with other readers, until it is closed.

    Return False if others hold it; always True on systems without locks.
    """
    if not has_locks():
        return True
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def discard_output(descriptor: int) -> None:
    """Discard everything written to a file descriptor from now on, also by C libraries."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:  # otherwise it was closed, and is the lowest free one
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextmanager
def output_discarded(descriptor: int) -> Iterator[None]:
    """Discard everything written to a file descriptor within a block, unless it is closed."""
    try:
        kept = os.dup(descriptor)
    except OSError:
        yield
        return
    try:
        discard_output(descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def user_cache() -> Path:
    """Return the user's cache folder. It may not exist or be read-only."""
    home = Path("~").expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "fashionrec"


def private_folder(path: Path) -> Path | None:
    """Create a folder that nobody else can write to; return its path.

    None if that is impossible, or others could have filled it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        state = path.lstat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o022):
        return None
    return path if not path.is_symlink() and os.access(path, os.W_OK) else None


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def trim_memory() -> None:
    """Return freed memory to the system, which glibc would keep for reuse."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak_memory() -> int:
    """Return the peak memory of this process in bytes; 0 if the system does not provide it."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, which on Linux begins with the peak of the parent process
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        return int(line.split()[1]) * 1024 if line else 0
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
