"""Folders that are published complete or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fashionrec.common.folder import is_link
from fashionrec.common.system import rename
from fashionrec.errors import DataError


@contextmanager
def whole_or_not(out: Path) -> Iterator[Path]:
    """Yield a folder to fill that becomes ``out`` on success and is removed otherwise.

    Raises :class:`DataError` if ``out`` is not empty or is a symbolic link.
    """
    must_be_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def must_be_free(out: Path) -> None:
    """Raise :class:`DataError` unless ``out`` is missing or an empty folder."""
    if is_link(out):
        raise DataError(f"{out} is a symbolic link", hint="choose another --out, or give the folder that it points to")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder", hint="choose another --out, or remove it")
