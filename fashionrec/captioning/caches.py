"""The two files of captions: a catalogue's own, and the project's, which all catalogues share.

What is paid for is recorded in the project's first, its answer as it came before anything is checked. The catalogue's own holds
the same, so that a catalogue is complete in its folder wherever it is copied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from fashionrec.captioner.cache import CaptionCache, Place, Unread
from fashionrec.types import Box

if TYPE_CHECKING:
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.captioner.remote import Came, OpenAICaptioner
    from fashionrec.config import Config

CACHE = "captions.sqlite"
_OWN_EVERY = 2.0  # seconds between two writes to the catalogue's own file: the project's has everything already

Entry = tuple[str, "str | None", Box, "Outcome"]


def project_cache(config: Config) -> Path:
    """Where every caption that is paid for is recorded, whichever catalogue it is for."""
    return Path(config.captioner.cache or Path(config.project.data) / CACHE)


class Caches:
    """What is known of garments; ``own`` is None for photos that are in no catalogue. A context manager, for one thread."""

    def __init__(self, own: Path | None, project: Path | None, *, write: bool = True) -> None:
        """``project`` None: the local captioner's outcomes stay where they are made. Not ``write``: no file is made."""
        if own is not None and project is not None and own.resolve() == project.resolve():
            own = None
        self.own = self.project = None
        if own is not None and (write or own.is_file()):
            self.own = CaptionCache(own)
        try:
            if project is not None and (write or project.is_file()):
                if write:
                    project.parent.mkdir(parents=True, exist_ok=True)
                self.project = CaptionCache(project, busy=write)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Caches:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for cache in self._all():
            cache.close()

    def find(
        self,
        place: Place,
        captioner: str,
        *,
        model: str | None = None,
        again: Collection[str] = (),
        since: str | None = None,
    ) -> Outcome | None:
        """What is known of a garment: a description from either file, else another outcome; see :meth:`CaptionCache.find`."""
        found: Outcome | None = None
        for cache in self._all():
            known = cache.find(*place, captioner, model=model, since=since)
            if known is not None and (found is None or known.state == "done"):
                found = known
            if found is not None and found.state == "done":
                return found
        return None if found is not None and found.state in again else found

    def put(self, entries: Sequence[Entry]) -> None:
        """Record outcomes in both files, the project's first."""
        if entries:
            for cache in self._all():
                cache.put_many(entries)

    def complete(self, entries: Iterable[Entry]) -> None:
        """Record in the catalogue's own file what only the project's had."""
        if self.own is not None:
            missing = [entry for entry in entries if self.own.find(*entry[:3], entry[3].captioner) != entry[3]]
            if missing:
                self.own.put_many(missing)

    def recover(self, remote: OpenAICaptioner) -> int:
        """Read the answers that a killed process had kept and not read; returns how many there were."""
        unread = self.project.unread() if self.project else []
        for start in range(0, len(unread), 256):
            part = unread[start : start + 256]
            self.put(
                [
                    (*kept.place, remote.read_body(kept.body, kept.place.class_name, kept.seconds, model=kept.model))
                    for kept in part
                ]
            )
        return len(unread)

    def _all(self) -> list[CaptionCache]:
        return [cache for cache in (self.project, self.own) if cache is not None]


class Recorder:
    """Records what comes, group by group: the answers of a group and the outcomes of the one before in one transaction."""

    def __init__(self, caches: Caches, remote: OpenAICaptioner, place: Callable[[Came], Place]) -> None:
        self._caches, self._remote, self._place = caches, remote, place
        self._pending: list[Entry] = []
        self._own: list[Entry] = []
        self._own_at = time.monotonic()

    def take(self, group: Sequence[Came]) -> list[tuple[Came, Outcome]]:
        """Keep a group's answers as they came, then read them. Returns their outcomes."""
        assert self._caches.project is not None
        answers = [
            Unread(self._place(came), self._remote.config.model, came.body, came.seconds)
            for came in group
            if came.body is not None
        ]
        self._caches.project.put_many(self._pending, answers)
        self._pending = []
        outcomes = [(came, self._remote.read(came)) for came in group]
        self._pending = [(*self._place(came), outcome) for came, outcome in outcomes]
        self._own += self._pending
        if time.monotonic() - self._own_at > _OWN_EVERY:
            self._write_own()
        return outcomes

    def finish(self) -> None:
        """Record what is not recorded yet."""
        if self._pending and self._caches.project is not None:
            self._caches.project.put_many(self._pending)
            self._pending = []
        self._write_own()

    def _write_own(self) -> None:
        if self._caches.own is not None and self._own:
            self._caches.own.put_many(self._own)
        self._own, self._own_at = [], time.monotonic()
