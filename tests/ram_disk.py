"""Temporary folders of tests lie in memory where there is room.

What the package writes it makes durable (``fsync``, file by file), and a suite of thousands of
tests would wait for the disk a good part of its time. ``--basetemp FOLDER`` puts them elsewhere,
and keeps them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
PREFIX = "fashionrec-tests-"
#: The suite's files take 2 GB; the rest is for the tests themselves.
NEEDED = 8 << 30


def available_bytes() -> int:
    """Return what may be written to `MEMORY`: 0 where there is no such folder."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
        return min(available, shutil.disk_usage(MEMORY).free) if os.access(MEMORY, os.W_OK) else 0
    except (OSError, StopIteration, ValueError):
        return 0


def remove_leftovers() -> None:
    """Remove the folders of test runs that were killed."""
    for folder in MEMORY.glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(folder.name.removeprefix(PREFIX).split("-")[0]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another user's
            continue


@pytest.hookimpl(tryfirst=True)  # before pytest chooses its folder
def pytest_configure(config: pytest.Config) -> None:
    """Choose the folder. Workers of xdist are told theirs by the process that starts them."""
    if config.option.basetemp is None and available_bytes() >= NEEDED:
        remove_leftovers()
        folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY)
        config.option.basetemp = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
