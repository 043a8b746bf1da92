"""What a Roboflow project has been sent: ``STORE/WORKSPACE/PROJECT/uploads.jsonl``, a line for each step of each photo.

A line has ``sha256`` of the photo's file, ``key``, ``batch``, ``image`` (Roboflow's id, or null) and ``state``: ``uploaded`` or
``duplicate`` once the server has the photo, ``done`` once it has its boxes too. The last line of a photo counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fashionrec.common.documents import parse_json
from fashionrec.dataset.roboflow_api import parse_project
from fashionrec.errors import DataError
from fashionrec.files import locked


def journal_path(store: Path, target: str) -> Path:
    """Where the journal of a project (WORKSPACE/PROJECT) lies. Raises :class:`DataError` for a target that is none."""
    workspace, project = parse_project(target)
    return store / workspace / project / "uploads.jsonl"


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """What is known of each photo, by sha256; nothing where there is no journal. Raises :class:`DataError` for a damaged one.

    A last line that a kill has cut off is no line.
    """
    if not path.is_file():
        return {}
    found = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = parse_json(line)
            found[str(entry["sha256"])] = {
                **entry,
                "batch": entry["batch"],
                "image": entry["image"],
                "state": entry["state"],
            }
        except (ValueError, LookupError, TypeError):
            raise DataError(
                f"{path}, line {number} is damaged", hint="remove that line, or the file to start anew"
            ) from None
    return found


def remember(path: Path, entry: dict[str, Any]) -> None:
    """Add what is known of a photo now; it is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def open_journal(journal: Path, target: str) -> Iterator[None]:
    """Hold a project's journal for writing. Raises :class:`Busy` at once if another process does."""
    with locked(journal.with_name(".uploads.lock"), f"is uploading to {target}"):
        _drop_torn_line(journal)
        yield


def _drop_torn_line(journal: Path) -> None:
    """A kill in the middle of a line: without this the next line would be glued to it."""
    if journal.is_file() and (data := journal.read_bytes()) and not data.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
