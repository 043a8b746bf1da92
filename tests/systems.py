"""Requirements that a test has of the operating system and only POSIX has: it is skipped, with the
reason, where it is not there.

What is asked is the system itself, not its name: other systems, file systems and accounts lack some
of it too.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from fashionrec.common import system


def _with_file(act: Callable[[Path], bool]) -> bool:
    """Return whether ``act`` does with a new file what POSIX does; no where the system refuses."""
    with tempfile.TemporaryDirectory() as folder, suppress(OSError, NotImplementedError, AttributeError):
        file = Path(folder, "file")
        file.touch()
        return act(file)
    return False


def _keeps_modes(file: Path) -> bool:
    file.chmod(0o640)
    return file.stat().st_mode & 0o777 == 0o640


def _takes_any_name(file: Path) -> bool:
    file.with_name("a\n?").touch()
    return True


def _makes_links(file: Path) -> bool:
    link = file.with_name("link")
    link.symlink_to(file)
    return link.is_symlink()


def _syncs_folders(file: Path) -> bool:
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


_OFFERED: dict[str, Callable[[], bool]] = {
    "fork": lambda: hasattr(os, "fork"),
    "named pipes": lambda: hasattr(os, "mkfifo"),
    "sockets with names": lambda: hasattr(socket, "AF_UNIX"),
    "modes of files": lambda: _with_file(_keeps_modes),
    "names of any characters": lambda: _with_file(_takes_any_name),
    "links": lambda: _with_file(_makes_links),
    "folders that can be synced": lambda: _with_file(_syncs_folders),
    "locks of open files": system.has_locks,
    "handles of folders": lambda: os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY"),
    "removal of open files": lambda: os.name == "posix",
    "signals": lambda: os.name == "posix",
    "process groups": lambda: hasattr(os, "killpg"),
}


@cache
def _is_offered(name: str) -> bool:
    return _OFFERED[name]()


def posix_only(*needed: str) -> pytest.MarkDecorator:
    """Mark a test that needs what POSIX offers, by the words of ``_OFFERED``."""
    missing = [name for name in needed if not _is_offered(name)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing or needed)}, which only POSIX has")
