"""Answers as they come, written down before anything is done with them: a kill then loses only what the server still had.

A file beside the catalogue's captions, one line for each answer. It is emptied whenever all of it is recorded, and read by the
next process where one was killed in between. Its lines survive the process as soon as they are written; what is recorded survives
a power cut, too.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from fashionrec.captioner.cache import Place
from fashionrec.errors import WriteError
from fashionrec.types import Box


@dataclass(frozen=True)
class Arrived:
    """An answer as kept (:func:`fashionrec.captioner.wire.essence`), the garment that it is of, the model that gave it."""

    place: Place
    model: str
    body: str
    seconds: float


class Spool:
    """The file, opened by one process. Threads may append to it at once. Raises :class:`WriteError` where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        binary = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | binary
        try:
            self._file: int | None = os.open(path, flags, 0o644)
        except OSError as error:
            raise self._refused(error) from None
        self._lock = threading.Lock()
        self._waiting = 0

    def append(self, arrived: Arrived) -> None:
        """Write an answer down; it survives the process from now on. One that comes after the end is left out."""
        photo, class_name, box = arrived.place
        line = json.dumps([photo, class_name, list(map(float, box)), arrived.model, arrived.body, arrived.seconds])
        data = line.encode() + b"\n"
        with self._lock:
            if self._file is None:  # its number may be another file's by now
                return
            self._waiting += 1
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError as error:
                raise self._refused(error) from None

    def recorded(self, count: int) -> None:
        """So many of those written down are recorded elsewhere: where that is all, the file is emptied."""
        with self._lock:
            self._waiting -= count
            if not self._waiting and self._file is not None:
                os.ftruncate(self._file, 0)

    def _refused(self, error: OSError) -> WriteError:
        return WriteError(f"{self.path} cannot be written: {error.strerror}", hint="make room, then run it again")

    def close(self) -> None:
        with self._lock:
            if self._file is None:
                return
            os.close(self._file)
            self._file = None
            if not self._waiting:
                self.path.unlink(missing_ok=True)


def read_spool(path: Path) -> list[Arrived]:
    """The answers that a killed process has left; a last line that it did not finish is left out."""
    found = []
    if path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                photo, class_name, box, model, body, seconds = json.loads(line if line.endswith(b"\n") else b"")
            except ValueError:
                continue
            found.append(Arrived(Place(photo, class_name, Box(*box)), model, body, seconds))
    return found
