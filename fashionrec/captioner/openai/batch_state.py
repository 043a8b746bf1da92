"""The state of batches in one SQLite file; a process may end or be killed at any moment.

::

    request   waiting ─▶ sent (in a part) ─▶ answered      sent ─▶ waiting: no answer, or expired
    part      written ─▶ uploading ─▶ uploaded ─▶ creating ─▶ submitted ─▶ ended ─▶ collected

``uploading`` and ``creating`` are recorded before the request to the server: a process that finds
them looks up whether it arrived.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fashionrec.captioner.cache import Place, same_box
from fashionrec.captioner.ledger import TOKEN
from fashionrec.captioner.sqlite_file import SqliteFile
from fashionrec.common.sqlite import UntrustedFile, open_foreign
from fashionrec.errors import CatalogueError
from fashionrec.types import Box

APPLICATION_ID = 0x46524342  # "FRCB"
SCHEMA_VERSION = 1
#: The states of an unfinished part.
OPEN = ("written", "uploading", "uploaded", "creating", "submitted", "ended")
#: The states of a part that has not been submitted, or may not have been.
UNSENT = ("written", "uploading", "uploaded", "creating")
_MAX_TEXT = 2000  # characters of any text in it
_MAX_COUNT = 1 << 40
_REOPEN_AFTER = 100_000  # new rows

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE requests (
  custom_id TEXT PRIMARY KEY, photo_sha256 TEXT NOT NULL, class_name TEXT NOT NULL,
  x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  state TEXT NOT NULL, part INTEGER, attempts INTEGER NOT NULL
);
CREATE INDEX requests_by_photo ON requests (photo_sha256, class_name);
CREATE INDEX requests_by_state ON requests (state);
CREATE INDEX requests_by_part ON requests (part);
CREATE TABLE parts (
  part INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, server TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL,
  requests INTEGER NOT NULL, bytes INTEGER NOT NULL, created_at TEXT NOT NULL, file_id TEXT, batch_id TEXT,
  output_file_id TEXT, error_file_id TEXT, status TEXT, completed INTEGER, error TEXT
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class Part:
    """One batch, from its file to its answers.

    ``token`` identifies it on the server; ``status`` is the server's.
    """

    part: int
    token: str
    server: str
    model: str
    state: str
    requests: int
    bytes: int
    created_at: str
    file_id: str | None
    batch_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    status: str | None
    completed: int | None
    error: str | None


def custom_id(place: Place) -> str:
    """Return the id of a garment's request: a hash of the garment, to match answers by."""
    text = "|".join([place.photo_sha256, place.class_name or "", *(repr(float(value)) for value in place.box)])
    return "g-" + hashlib.sha256(text.encode()).hexdigest()[:40]


class BatchState(SqliteFile):
    """The state file, opened by one process. Changes are on disk when a method returns."""

    again = "restore it from a backup, or move the folder away (answers not collected yet are then lost)"

    def __init__(self, path: Path, *, write: bool = True) -> None:
        """Open or create the file.

        Raises :class:`CatalogueError` if it is damaged or not a batch state.
        """
        self.path = path
        self._open(write=write)

    def _open(self, *, write: bool) -> None:
        path = self.path
        try:
            with self._guard():
                self._db = open_foreign(path, _SCHEMA, mode="rwc" if write else "ro", timeout=30.0)
        except UntrustedFile as error:
            raise CatalogueError(f"{path} is not a state of caption batches of this version: {error}") from None
        try:
            with self._guard():
                if write and not self._db.execute("SELECT 1 FROM sqlite_master").fetchall():
                    self._db.executescript(_SCHEMA)
                marks = [
                    self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
                ]
                if marks != [APPLICATION_ID, SCHEMA_VERSION]:
                    raise CatalogueError(f"{path} is not a state of caption batches of this version")
                self._db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            self._db.close()
            raise

    def add(self, places: Iterable[Place]) -> list[str]:
        """Add requests for garments; return their ids, including those that were waiting already.

        A garment whose request is sent, with nearly the same box, is skipped.
        """
        ids: list[str] = []
        with self._transaction():
            for place in places:
                rows = self._db.execute(
                    "SELECT * FROM requests WHERE photo_sha256 = ? AND class_name = ? AND state != 'answered'",
                    (place.photo_sha256, place.class_name or ""),
                ).fetchall()
                box = Box(*map(float, place.box))
                existing = [(row[0], row[7], self._place(row).box) for row in rows]
                matches = [(name, state) for name, state, existing_box in existing if same_box(existing_box, box)]
                if matches:
                    ids += [name for name, state in matches[:1] if state == "waiting"]
                    continue
                values = (custom_id(place), place.photo_sha256, place.class_name or "", *box)
                self._db.execute(
                    "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', NULL, 0)", values
                )
                ids.append(values[0])
        if len(ids) > _REOPEN_AFTER:  # the time limit of a statement depends on the file size at opening
            self._db.close()
            self._open(write=True)
        return ids

    def waiting(self) -> Iterator[tuple[str, Place]]:
        """Yield the requests that are in no part, oldest first. Concurrent changes are not seen."""
        last = 0
        sql = "SELECT rowid, * FROM requests WHERE state = 'waiting' AND rowid > ? ORDER BY rowid LIMIT 1000"
        while True:
            with self._guard():
                rows = self._db.execute(sql, (last,)).fetchall()
            if not rows:
                return
            for row in rows:
                last = row[0]
                yield row[1], self._place(row[1:])

    def unanswered(self) -> list[tuple[str, str, Place]]:
        """Return the ids, states and garments of the requests that are waiting or sent."""
        sql = "SELECT * FROM requests WHERE state != 'answered' ORDER BY rowid"
        with self._guard():
            return [(row[0], str(row[7]), self._place(row)) for row in self._db.execute(sql)]

    def drop(self, ids: Iterable[str]) -> None:
        """Delete requests whose garments no longer exist."""
        with self._transaction():
            self._db.executemany("DELETE FROM requests WHERE custom_id = ?", [(name,) for name in ids])

    def write_part(self, token: str, server: str, model: str, ids: Sequence[str], size: int) -> int:
        """Record a part whose file is on disk, with its requests. Returns its number."""
        with self._transaction():
            values = (token, server, model, len(ids), size, datetime.now(UTC).isoformat(timespec="seconds"))
            cursor = self._db.execute(
                "INSERT INTO parts (token, server, model, state, requests, bytes, created_at)"
                " VALUES (?, ?, ?, 'written', ?, ?, ?)",
                values,
            )
            part = int(cursor.lastrowid or 0)
            self._db.executemany(
                "UPDATE requests SET state = 'sent', part = ?, attempts = attempts + 1 WHERE custom_id = ?",
                [(part, name) for name in ids],
            )
        return part

    def change(self, part: int, state: str, **values: Any) -> Part:
        """Change the state and some fields of a part; return it."""
        names = ", ".join(f"{name} = ?" for name in ("state", *values))
        with self._transaction():
            self._db.execute(f"UPDATE parts SET {names} WHERE part = ?", (state, *values.values(), part))
        return self.part(part)

    def release(self, part: int) -> None:
        """Discard a part that never reached the server; its requests wait again."""
        with self._transaction():
            self._db.execute(
                "UPDATE requests SET state = 'waiting', part = NULL, attempts = attempts - 1"
                " WHERE part = ? AND state = 'sent'",
                (part,),
            )
            self._db.execute("UPDATE parts SET state = 'released' WHERE part = ?", (part,))

    def answered(self, ids: Iterable[str]) -> None:
        """Mark requests as answered."""
        with self._transaction():
            self._db.executemany(
                "UPDATE requests SET state = 'answered' WHERE custom_id = ?", [(name,) for name in ids]
            )

    def collected(self, part: int, attempts: int) -> int:
        """Mark a part as collected, and return the number of its unanswered requests.

        These wait again.
        """
        with self._transaction():
            requeued = self._db.execute(
                "UPDATE requests SET state = 'waiting', part = NULL WHERE part = ? AND state = 'sent' AND attempts < ?",
                (part, attempts),
            ).rowcount
            self._db.execute("UPDATE parts SET state = 'collected' WHERE part = ?", (part,))
        return int(requeued)

    def sent_in(self, part: int, at_least: int = 0) -> list[tuple[str, Place]]:
        """Return the unanswered requests of a part that were sent at least ``at_least`` times."""
        sql = "SELECT * FROM requests WHERE part = ? AND state = 'sent' AND attempts >= ? ORDER BY rowid"
        with self._guard():
            return [(row[0], self._place(row)) for row in self._db.execute(sql, (part, at_least))]

    def find(self, ids: Sequence[str]) -> dict[str, tuple[Place, str]]:
        """Return the garments and states of up to some hundreds of requests, by id."""
        sql = f"SELECT * FROM requests WHERE custom_id IN ({', '.join('?' * len(ids))})"
        with self._guard():
            return {row[0]: (self._place(row), str(row[7])) for row in self._db.execute(sql, tuple(ids))}

    def part(self, number: int) -> Part:
        with self._guard():
            return self._part(self._db.execute("SELECT * FROM parts WHERE part = ?", (number,)).fetchone())

    def parts(self, states: Sequence[str] = OPEN) -> list[Part]:
        """Return the parts in some states, oldest first."""
        sql = f"SELECT * FROM parts WHERE state IN ({', '.join('?' * len(states))}) ORDER BY part"
        with self._guard():
            return [self._part(row) for row in self._db.execute(sql, tuple(states))]

    def counts(self) -> dict[str, int]:
        """Return the number of requests that are ``waiting``, ``sent`` and ``answered``."""
        with self._guard():
            rows = self._db.execute("SELECT state, count(*) FROM requests GROUP BY state").fetchall()
        return {"waiting": 0, "sent": 0, "answered": 0} | {str(state): int(count) for state, count in rows}

    def _place(self, row: Sequence[Any]) -> Place:
        """Return the garment of a row of ``requests``, checked against the row's id."""
        name, photo, class_name, *box = row[:7]
        if isinstance(photo, str) and isinstance(class_name, str) and all(map(_is_number, box)):
            place = Place(photo, class_name or None, Box(*map(float, box)))
            if custom_id(place) == name:
                return place
        raise self._damaged(f"the id of request {ascii(name)[:60]} does not match its garment")

    def _part(self, row: Sequence[Any]) -> Part:
        part = Part(*row)
        texts = (part.server, part.model, part.state, part.created_at, part.status or "", part.error or "")
        counts = (part.part, part.requests, part.bytes, part.completed or 0)
        ids = (part.file_id, part.batch_id, part.output_file_id, part.error_file_id)
        if (
            isinstance(part.token, str)
            and TOKEN.fullmatch(part.token)
            and all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts)
            and all(type(count) is int and 0 <= count < _MAX_COUNT for count in counts)
            and all(name is None or isinstance(name, str) for name in ids)
        ):
            return part
        raise self._damaged(f"part {ascii(part.part)[:40]} is invalid")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
