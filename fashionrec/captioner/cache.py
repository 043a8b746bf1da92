"""``captions.sqlite``: every outcome, so that nothing is requested and paid for twice.

A caption belongs to the photo's content, the class and the box: it is found for any box that
overlaps by IoU >= 0.9, whichever detector made the box and whichever model the caption. A write is
on disk when :meth:`CaptionCache.put` returns.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import Description, InvalidAnswer, check_texts
from fashionrec.captioner.sqlite_file import SqliteFile
from fashionrec.common.sqlite import UntrustedFile, open_foreign
from fashionrec.errors import CatalogueError
from fashionrec.types import CLASS_NAMES, Box

APPLICATION_ID = 0x46524350  # "FRCP"
SCHEMA_VERSION = 1
_SAME_BOX = 0.9  # least IoU of two boxes that show the same garment

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS outcomes (
  photo_sha256 TEXT NOT NULL, class_name TEXT NOT NULL, captioner TEXT NOT NULL, model TEXT NOT NULL,
  x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
  state TEXT NOT NULL, retryable INTEGER NOT NULL, record TEXT, raw TEXT, error TEXT,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, seconds REAL NOT NULL, created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS outcomes_by_garment ON outcomes (photo_sha256, class_name, captioner);
CREATE INDEX IF NOT EXISTS outcomes_by_state ON outcomes (state);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
#: Tables that readers do not need: unfinished recaptions, and files whose outcomes were merged.
_WRITER_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS recaptions (what TEXT PRIMARY KEY, since TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS taken_over (file TEXT PRIMARY KEY);
COMMIT;
"""
_COLUMNS = (
    "photo_sha256, class_name, captioner, model, x1, y1, x2, y2, state, retryable, record, raw, error,"
    " input_tokens, output_tokens, seconds, created_at"
)
_MAX_BYTES = 4 << 20  # of a record; a typical one has 3 KB
_MAX_COUNT = 1 << 40
_SHA256 = re.compile("[0-9a-f]{64}", re.ASCII)


class Place(NamedTuple):
    """The key of a garment: the photo's content, the class and the box."""

    photo_sha256: str
    class_name: str | None
    box: Box


@dataclass(frozen=True)
class Recorded:
    """A recorded outcome and its garment."""

    place: Place
    outcome: Outcome
    created_at: str


def same_box(first: Box, second: Box) -> bool:
    """Return whether two boxes of one class in a photo show the same garment."""
    return first == second or first.iou(second) >= _SAME_BOX


def is_place(photo_sha256: object, class_name: object, box: Sequence[object]) -> bool:
    """Return whether these values are the key of a garment as our detector makes it."""
    return (
        isinstance(photo_sha256, str)
        and _SHA256.fullmatch(photo_sha256) is not None
        and (class_name is None or class_name in CLASS_NAMES)
        and len(box) == 4
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in box)
    )


class CaptionCache(SqliteFile):
    """The file of captions, with one writer and any number of readers. Not shared by threads."""

    again = "restore it from a backup, or move it away to start again (the paid captions in it are then lost)"

    def __init__(self, path: Path, *, busy: bool = False, write: bool = True, wait: float = 30.0) -> None:
        """Open the file. Raises :class:`CatalogueError` if it is damaged or not a caption file.

        Nothing in the file is trusted: its texts are checked as they are read.

        Args:
            path: The file; created if missing.
            busy: Use a write-ahead log, for many writes per second. It lies next to the file until
                that is closed.
            write: False leaves the file unchanged.
            wait: Seconds to wait for another writer.
        """
        self.path = path
        try:
            with self._guard():
                self._db = open_foreign(
                    path, _SCHEMA + _WRITER_SCHEMA, mode="rwc" if write else "ro", timeout=wait, max_value=_MAX_BYTES
                )
        except UntrustedFile as error:
            raise CatalogueError(f"{path} is not a caption file: {error}", hint=self.again) from None
        try:
            with self._guard():
                self._check(write=write)
                self._log = False
                self._db.execute("PRAGMA synchronous = FULL")
                tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if write and not {"recaptions", "taken_over"} <= tables:
                    self._db.executescript(_WRITER_SCHEMA)
                self._log = busy and self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
        except BaseException:
            self._db.close()
            raise

    def find(
        self,
        photo_sha256: str,
        class_name: str | None,
        box: Box,
        captioner: str,
        *,
        model: str | None = None,
        since: str | None = None,
    ) -> Outcome | None:
        """Return a captioner's newest description of a garment, else its newest other outcome.

        ``model`` limits the search to one model, ``since`` to outcomes recorded from that time on
        (as :meth:`recaption` returns it).
        """
        best: Outcome | None = None
        with self._guard():
            matches = self._matches(Place(photo_sha256, class_name, box), captioner)
        for _, recorded in matches:
            outcome = recorded.outcome
            if model not in (None, outcome.model) or (since is not None and recorded.created_at < since):
                continue
            if outcome.state == "done" or best is None or best.state != "done":
                best = outcome
        return best

    def put(self, photo_sha256: str, class_name: str | None, box: Box, outcome: Outcome) -> None:
        """Record an outcome durably. See :meth:`put_many`."""
        self.put_many([(photo_sha256, class_name, box, outcome)])

    def put_many(self, entries: Iterable[tuple[str, str | None, Box, Outcome]]) -> None:
        """Record outcomes in one transaction.

        A later outcome for a garment replaces any that is not a description; only a description by
        the same model for the same box replaces a description.
        """
        with self._transaction():
            for photo_sha256, class_name, box, outcome in entries:
                self._put(Place(photo_sha256, class_name, Box(*map(float, box))), outcome)

    def take_over(self, other: CaptionCache, captioners: Iterable[str]) -> int:
        """Copy the outcomes of some captioners that only another file has, once per file.

        Returns their number.
        """
        file = str(other.path.resolve())
        with self._guard():
            if self._db.execute("SELECT 1 FROM taken_over WHERE file = ?", (file,)).fetchone():
                return 0
        count = 0
        for captioner in captioners:
            for group in other.everything(captioner):
                new = [
                    (*recorded.place, recorded.outcome)
                    for recorded in group
                    if self.find(*recorded.place, captioner) is None
                ]
                self.put_many(new)
                count += len(new)
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO taken_over VALUES (?)", (file,))
        return count

    def everything(self, captioner: str) -> Iterator[list[Recorded]]:
        """Yield all outcomes of a captioner in groups, oldest first."""
        for rows in self._groups(captioner):
            yield [self._recorded(row[1:]) for row in rows]

    def rows(self, captioner: str) -> Iterator[dict[str, Any]]:
        """Yield the records of a captioner by column, unchecked."""
        names = [name.strip() for name in _COLUMNS.split(",")]
        for rows in self._groups(captioner):
            for row in rows:
                yield dict(zip(names, row[1:], strict=True))

    def photos(self) -> Iterator[str]:
        """Yield the photos (SHA-256) that have any record, sorted."""
        last = ""
        sql = (
            "SELECT DISTINCT photo_sha256 FROM outcomes WHERE photo_sha256 > ? AND typeof(photo_sha256) = 'text'"
            " ORDER BY photo_sha256 LIMIT 500"
        )
        while True:
            with self._guard():
                rows = self._db.execute(sql, (last,)).fetchall()
            if not rows:
                return
            yield from (row[0] for row in rows)
            last = rows[-1][0]

    def _groups(self, captioner: str) -> Iterator[list[tuple[Any, ...]]]:
        last = 0
        sql = f"SELECT rowid, {_COLUMNS} FROM outcomes WHERE captioner = ? AND rowid > ? ORDER BY rowid LIMIT 500"
        while True:
            with self._guard():
                rows = self._db.execute(sql, (captioner, last)).fetchall()
            if not rows:
                return
            yield rows
            last = rows[-1][0]

    def recaption(self, what: str) -> str:
        """Begin to recaption ``what``, and return the time at which that began.

        An unfinished recaption keeps its earlier time.
        """
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO recaptions VALUES (?, ?)", (what, _now()))
            row = self._db.execute("SELECT since FROM recaptions WHERE what = ?", (what,)).fetchone()
        return str(row[0])

    def recaptions(self) -> dict[str, str]:
        """Return the unfinished recaptions and when each began."""
        with self._guard():
            return dict(self._db.execute("SELECT what, since FROM recaptions ORDER BY since").fetchall())

    def recaptioned(self, what: str) -> None:
        """Mark the recaption of ``what`` as finished."""
        with self._transaction():
            self._db.execute("DELETE FROM recaptions WHERE what = ?", (what,))

    def mean_usage(self, captioner: str, model: str, last: int = 2000) -> tuple[int, float, float]:
        """Return the mean tokens of a model's last answers: the sample size, input and output."""
        sql = (
            "SELECT count(*), avg(input_tokens), avg(output_tokens) FROM (SELECT input_tokens, output_tokens FROM outcomes"
            " WHERE captioner = ? AND model = ? AND input_tokens > 0 ORDER BY rowid DESC LIMIT ?)"
        )
        with self._guard():
            count, inputs, outputs = self._db.execute(sql, (captioner, model, last)).fetchone()
        return int(count), float(inputs or 0), float(outputs or 0)

    def close(self) -> None:
        if self._log:
            with suppress(sqlite3.Error):  # with other readers, the last one to close removes the log
                self._db.execute("PRAGMA journal_mode = DELETE")
        super().close()

    def _put(self, place: Place, outcome: Outcome) -> None:
        for rowid, recorded in self._matches(place, outcome.captioner):
            is_same = recorded.place.box == place.box and recorded.outcome.model == outcome.model
            if recorded.outcome.state != "done" or (is_same and outcome.state == "done"):
                self._db.execute("DELETE FROM outcomes WHERE rowid = ?", (rowid,))
            elif is_same:
                return  # a failure does not replace a paid caption
        description = outcome.description
        values = (
            place.photo_sha256, place.class_name or "", outcome.captioner, outcome.model, *place.box,
            outcome.state, int(outcome.retryable), description.model_dump_json() if description else None,
            outcome.raw, outcome.error, outcome.usage.get("input_tokens", 0), outcome.usage.get("output_tokens", 0),
            outcome.seconds, _now(),
        )  # fmt: skip
        self._db.execute(f"INSERT INTO outcomes ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)

    def _matches(self, place: Place, captioner: str) -> list[tuple[int, Recorded]]:
        """Return a captioner's recorded outcomes for the same garment, oldest first."""
        rows = self._db.execute(
            f"SELECT rowid, {_COLUMNS} FROM outcomes"
            " WHERE photo_sha256 = ? AND class_name = ? AND captioner = ? ORDER BY rowid",
            (place.photo_sha256, place.class_name or "", captioner),
        ).fetchall()
        records = [(int(row[0]), self._recorded(row[1:])) for row in rows]
        return [(rowid, recorded) for rowid, recorded in records if same_box(recorded.place.box, place.box)]

    def _recorded(self, row: tuple[Any, ...]) -> Recorded:
        (photo, class_name, captioner, model, x1, y1, x2, y2, state, retryable, record, raw, error,
         input_tokens, output_tokens, seconds, created_at) = row  # fmt: skip
        texts, counts = (photo, class_name, captioner, model, created_at), (input_tokens, output_tokens)
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(text is None or isinstance(text, str) for text in (record, raw, error))
            or not all(type(count) is int and 0 <= count < _MAX_COUNT for count in counts)
            or not all(
                isinstance(number, (int, float)) and math.isfinite(number) for number in (x1, y1, x2, y2, seconds)
            )
        ):
            raise self._damaged("it has an invalid record")
        description = None
        try:
            if record is not None:
                description = Description.model_validate_json(record)
                check_texts(description)
        except InvalidAnswer as invalid:  # cannot come from a checked answer, so it is never shown
            state, description, error = "invalid", None, str(invalid)
        except ValueError:
            raise self._damaged("it has an invalid record") from None
        try:
            outcome = Outcome(
                state=state,
                captioner=captioner,
                model=model,
                description=description,
                raw=raw,
                usage={"input_tokens": input_tokens, "output_tokens": output_tokens},
                error=error,
                retryable=bool(retryable),
                seconds=seconds,
            )
        except ValueError:
            raise self._damaged("it has an invalid record") from None
        return Recorded(Place(photo, class_name or None, Box(x1, y1, x2, y2)), outcome, created_at)

    def _check(self, *, write: bool) -> None:
        application, version = self._file_ids()
        if (
            write
            and (application, version) == (0, 0)
            and not self._db.execute("SELECT 1 FROM sqlite_master").fetchall()
        ):
            self._create()
            application, version = self._file_ids()
        if application != APPLICATION_ID:
            raise CatalogueError(f"{self.path} is not a caption file", hint=self.again)
        if version != SCHEMA_VERSION:
            raise CatalogueError(
                f"{self.path} has schema {version}; this fashionrec reads {SCHEMA_VERSION}", hint=self.again
            )
        self._db.execute(f"SELECT {_COLUMNS} FROM outcomes LIMIT 1").fetchall()

    def _file_ids(self) -> tuple[int, int]:
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        return int(application), int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
