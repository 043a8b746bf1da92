"""A spool of answers, written before anything else: a kill loses only unfinished requests.

Each answer is one signed line: a copied catalogue may contain a spool, and answers from another
user's run are not trusted. The file is truncated whenever all of it is recorded; the next run reads
what a killed process left.
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

_MAX_LINE = 1 << 20  # bytes; a stored answer has at most a tenth of that


@dataclass(frozen=True)
class SpooledAnswer:
    """A stored answer, its garment and the model that gave it.

    ``body`` is made by :func:`fashionrec.captioner.openai.wire.stored_answer`.
    """

    place: Place
    model: str
    body: str
    seconds: float


class Spool:
    """A spool file, opened by one process; its threads may append concurrently.

    Raises :class:`WriteError` if the disk is full or fails.
    """

    def __init__(self, path: Path, ledger: Ledger | None = None) -> None:
        """Open the file; ``ledger`` signs the answers, by default that of the user's cache."""
        self.path = path
        self._ledger = ledger or Ledger()
        self._ledger.signature(b"")  # fail now if there is no key
        try:
            self._file: Any = _folder(path).open(path.name, "ab")
        except OSError as error:
            raise self._write_error(error) from None
        self._lock = threading.Lock()
        self._unrecorded = 0

    def append(self, arrived: SpooledAnswer) -> None:
        """Append an answer; from then on it survives the process. Ignored after :meth:`close`."""
        photo, class_name, box = arrived.place
        fields = [photo, class_name, list(map(float, box)), arrived.model, arrived.body, arrived.seconds]
        data = json.dumps([*fields, self._ledger.signature(_signed_bytes(fields))]).encode() + b"\n"
        with self._lock:
            if self._file is None:  # its file descriptor may belong to another file
                return
            self._unrecorded += 1
            try:
                while data:
                    data = data[os.write(self._file.fileno(), data) :]
            except OSError as error:
                raise self._write_error(error) from None

    def recorded(self, count: int) -> None:
        """Count answers as recorded elsewhere; once all of them are, truncate the file."""
        with self._lock:
            self._unrecorded -= count
            if not self._unrecorded and self._file is not None:
                os.ftruncate(self._file.fileno(), 0)

    def _write_error(self, error: OSError) -> WriteError:
        return WriteError(f"{self.path} cannot be written: {error.strerror}", hint="free disk space, then run it again")

    def close(self) -> None:
        with self._lock:
            if self._file is None:
                return
            self._file.close()
            self._file = None
            if not self._unrecorded:
                _folder(self.path).remove(self.path.name)


def read_signed(path: Path, ledger: Ledger | None = None) -> Iterator[tuple[SpooledAnswer | None, bool]]:
    """Yield each answer of a file (None for an invalid line), and whether ``ledger`` signed it.

    An unfinished last line is skipped. Raises :class:`CatalogueError` for a symbolic link.
    """
    try:
        file = _folder(path).open(path.name)
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(_MAX_LINE):
            if not line.endswith(b"\n"):
                if len(line) < _MAX_LINE:
                    return
                yield None, False
                while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                    continue
                continue
            fields = _fields(line)
            has_signature = fields is not None and len(fields) == 7 and ledger is not None
            is_own = has_signature and ledger is not None and ledger.is_own(_signed_bytes(fields[:6]), fields[6])  # type: ignore[index]
            yield _arrived(fields), is_own


def _fields(line: bytes) -> list[Any] | None:
    try:
        fields = parse_json(line)
    except ValueError:
        return None
    return fields if isinstance(fields, list) and len(fields) in (6, 7) else None


def _arrived(fields: list[Any] | None) -> SpooledAnswer | None:
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
        return SpooledAnswer(Place(photo, class_name, Box(*map(float, box))), model[:200], body, float(seconds))
    return None


def _signed_bytes(fields: list[Any]) -> bytes:
    return json.dumps(fields).encode()


def _folder(path: Path) -> Folder:
    return Folder(path.parent, "catalogue", CatalogueError)
