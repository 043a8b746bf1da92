"""The journal of uploads to a Roboflow project: ``STORE/WORKSPACE/PROJECT/uploads.jsonl``.

Each step of each photo is a line with ``sha256`` of the photo's file, ``key``, ``batch``, ``image``
(Roboflow's id, or null) and ``state``: ``uploaded`` or ``duplicate`` once the server has the photo,
``done`` once it has its boxes too. The last line of a photo counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fashionrec.common.documents import parse_json
from fashionrec.common.files import locked
from fashionrec.common.folder import Folder
from fashionrec.common.text import json_text
from fashionrec.dataset.roboflow.api import parse_project
from fashionrec.errors import DataError


def journal_path(store: Path, target: str) -> Path:
    """Return the path of a project's journal. Raises :class:`DataError` for an invalid target."""
    workspace, project = parse_project(target)
    return store / workspace / project / "uploads.jsonl"


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last entry per photo, by sha256; empty if there is no journal.

    An incomplete last line, left by a kill, is ignored. Raises :class:`DataError` for a damaged
    line.
    """
    folder, name = _inside(path)
    if not folder.root.exists() or folder.kind(name) is None:
        return {}
    entries = {}
    lines = folder.read(name).decode("utf-8").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = parse_json(line)
            entries[str(entry["sha256"])] = {
                **entry,
                "batch": entry["batch"],
                "image": entry["image"],
                "state": entry["state"],
            }
        except (ValueError, LookupError, TypeError):
            raise DataError(
                f"{path}, line {number} is damaged", hint="remove that line, or remove the file to start over"
            ) from None
    return entries


def remember(path: Path, entry: dict[str, Any]) -> None:
    """Append an entry; it is on disk when this returns."""
    folder, name = _inside(path)
    folder.append(name, f"{json_text(entry, stored=True)}\n".encode())


@contextmanager
def open_journal(journal: Path, target: str) -> Iterator[None]:
    """Lock a project's journal for writing.

    Raises :class:`Busy` at once if another process uses it.
    """
    folder, name = _inside(journal)
    folder.root.mkdir(parents=True, exist_ok=True)
    parent = name.rpartition("/")[0]
    folder.make_folder(parent, exist_ok=True)
    with locked(journal.with_name(".uploads.lock"), f"is uploading to {target}"):
        _drop_torn_line(folder, name)
        yield


def _inside(journal: Path) -> tuple[Folder, str]:
    """Return the store, and the name of a journal in it; it refuses symbolic links on the way."""
    return Folder(journal.parents[2], "the folder of uploads"), "/".join(journal.parts[-3:])


def _drop_torn_line(folder: Folder, name: str) -> None:
    """Remove an incomplete last line, left by a kill, before the next one is appended."""
    if folder.kind(name) is None:
        return
    with folder.open(name, "r+b") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
