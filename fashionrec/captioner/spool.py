"""Answers as they come, written down before anything is done with them: a kill then loses only what the server still had.

One signed line for each answer: a catalogue travels with what a killed run left in it, and answers
of somebody else's run are not this user's. The file is emptied whenever all of it is recorded; what
a killed process left is read by the next one.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashionrec.captioner.cache import Place, is_place
from fashionrec.captioner.ledger import Ledger
from fashionrec.common.documents import parse_json
from fashionrec.common.folder import Folder
from fashionrec.errors import CatalogueError, WriteError
from fashionrec.types import Box

_LONGEST_LINE = 1 << 20  # bytes; an answer as kept has at most a tenth of that


@dataclass(frozen=True)
class Arrived:
    """An answer as kept (:func:`fashionrec.captioner.openai.wire.essence`), the garment that it is of, the model that gave it."""

    place: Place
    model: str
    body: str
    seconds: float


class Spool:
    """The file, opened by one process. Threads may append to it at once. Raises :class:`WriteError` where the disk refuses."""

    def __init__(self, path: Path, ledger: Ledger | None = None) -> None:
        """``ledger`` signs what is written down; by default that of the user's cache."""
        self.path = path
        self._ledger = ledger or Ledger()
        self._ledger.signature(b"")  # a key that cannot be had is missed now
        try:
            self._file: Any = _folder(path).open(path.name, "ab")
        except OSError as error:
            raise self._refused(error) from None
        self._lock = threading.Lock()
        self._waiting = 0

    def append(self, arrived: Arrived) -> None:
        """Write an answer down; it survives the process from now on. One that comes after the end is left out."""
        photo, class_name, box = arrived.place
        fields = [photo, class_name, list(map(float, box)), arrived.model, arrived.body, arrived.seconds]
        data = json.dumps([*fields, self._ledger.signature(_signed(fields))]).encode() + b"\n"
        with self._lock:
            if self._file is None:  # its number may be another file's by now
                return
            self._waiting += 1
            try:
                while data:
                    data = data[os.write(self._file.fileno(), data) :]
            except OSError as error:
                raise self._refused(error) from None

    def recorded(self, count: int) -> None:
        """So many of those written down are recorded elsewhere: where that is all, the file is emptied."""
        with self._lock:
            self._waiting -= count
            if not self._waiting and self._file is not None:
                os.ftruncate(self._file.fileno(), 0)

    def _refused(self, error: OSError) -> WriteError:
        return WriteError(f"{self.path} cannot be written: {error.strerror}", hint="make room, then run it again")

    def close(self) -> None:
        with self._lock:
            if self._file is None:
                return
            self._file.close()
            self._file = None
            if not self._waiting:
                _folder(self.path).remove(self.path.name)


def read_signed(path: Path, ledger: Ledger | None = None) -> Iterator[tuple[Arrived | None, bool]]:
    """Each answer of a file, None for a line that is none, and whether ``ledger`` has signed it.

    A last line that its writer did not finish is left out. Raises :class:`CatalogueError` for a link.
    """
    try:
        file = _folder(path).open(path.name)
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                if len(line) < _LONGEST_LINE:
                    return
                yield None, False
                while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                    continue
                continue
            fields = _fields(line)
            signed = fields is not None and len(fields) == 7 and ledger is not None
            own = signed and ledger is not None and ledger.is_own(_signed(fields[:6]), fields[6])  # type: ignore[index]
            yield _arrived(fields), own


def _fields(line: bytes) -> list[Any] | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, list) and len(found) in (6, 7) else None


def _arrived(fields: list[Any] | None) -> Arrived | None:
    if fields is None:
        return None
    photo, class_name, box, model, body, seconds = fields[:6]
    if (
        isinstance(box, list)
        and is_place(photo, class_name, box)
        and isinstance(model, str)
        and isinstance(body, str)
        and isinstance(seconds, (int, float))
        and math.isfinite(seconds)
    ):
        return Arrived(Place(photo, class_name, Box(*map(float, box))), model[:200], body, float(seconds))
    return None


def _signed(fields: list[Any]) -> bytes:
    return json.dumps(fields).encode()


def _folder(path: Path) -> Folder:
    return Folder(path.parent, "catalogue", CatalogueError)
