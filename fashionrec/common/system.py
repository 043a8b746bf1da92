"""The one place that knows the operating system: what is synced, replaced, linked, locked and silenced, where a user's files lie.

Windows syncs no folder and only what it may write; it neither removes nor replaces what somebody has open, which an
indexer or a virus scanner does for a moment with any new file; and a file's mode says nothing there.
Folders that are not ours are entered through :mod:`fashionrec.common.folder`.
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
#: Seconds after which an entry that somebody has open is tried again, on Windows.
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def has_handles() -> bool:
    """Whether a file can be opened by its folder's handle, and a link refused while doing so; not so on Windows."""
    return os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


def sync_file(file: IO[bytes] | Path) -> None:
    """Force the content of a file to the disk: of one that is open for writing, or of a path."""
    if isinstance(file, Path):
        with file.open("rb" if has_handles() else "r+b") as opened:
            os.fsync(opened.fileno())
        return
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path | str | int | None) -> None:
    """Force the entries of a folder (a path, or its handle where there are such) to the disk, if its file system can."""
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
    """Rename an entry; a file of the new name is replaced. With handles of folders the names are relative to them."""
    retry(lambda: os.replace(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder))


def rename(old: Path, new: Path) -> None:
    """Rename an entry to a name that nothing has (POSIX would replace a file or an empty folder)."""
    retry(lambda: old.rename(new))


def put(temporary: Path, target: Path) -> None:
    """Give a finished file the place of ``target``; its content is on the disk before."""
    sync_file(temporary)
    replace(temporary, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy gets it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        import shutil

        shutil.copyfile(source, target)


def retry(act: Callable[[], object], pauses: Iterable[float] = _PAUSES if WINDOWS else ()) -> None:
    """Do what fails while somebody has an entry open, again after each of the ``pauses`` (seconds); the last error is raised."""
    for pause in pauses:
        try:
            act()
        except PermissionError:
            time.sleep(pause)
        else:
            return
    act()


def has_locks() -> bool:
    """Whether open files can be locked. Not so on Windows, where what somebody has open cannot be removed anyway."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True


def lock(file: IO[bytes], *, shared: bool) -> bool:
    """Hold an open file alone, or ``shared`` with other readers, until it is closed. False where others have it.

    Always True on systems without locks.
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


def silence(descriptor: int) -> None:
    """Discard what is written to a file descriptor from now on, by C libraries too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:  # else it was closed, and is the lowest that was free
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextmanager
def silenced(descriptor: int) -> Iterator[None]:
    """Discard what is written to a file descriptor within; nothing is done where it is closed."""
    try:
        kept = os.dup(descriptor)
    except OSError:
        yield
        return
    try:
        silence(descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def user_cache() -> Path:
    """The user's own folder for what can be computed again. It need not be there, nor be writable."""
    home = Path("~").expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "fashionrec"


def private_folder(path: Path) -> Path | None:
    """Make a folder that nobody else can write to; None where that cannot be had, or where others could have filled it."""
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
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def trim_memory() -> None:
    """Give freed memory back to the system: glibc keeps it, in case that it is asked for again."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak_memory() -> int:
    """The most bytes of memory that this process has held; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, which on Linux begins with the peak of the process that started this one
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        return int(line.split()[1]) * 1024 if line else 0
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
