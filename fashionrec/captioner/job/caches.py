"""The two files of captions: a catalogue's own, and the project's, which all catalogues share.

What is paid for is recorded in the project's first. The catalogue's own holds the same, so that a catalogue is complete in its
folder wherever it is copied. What a catalogue of somebody else brings serves that catalogue alone: it becomes the project's by
:mod:`fashionrec.captioner.job.imports` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.captioner.cache import CaptionCache, Place
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.providers import shared_captioners
from fashionrec.captioner.spool import Arrived, Spool, read_signed
from fashionrec.common.batches import batched
from fashionrec.common.folder import Folder
from fashionrec.common.text import shell_word
from fashionrec.errors import CatalogueError, WriteError
from fashionrec.types import Box

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner, Described, Job
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.config import Config

CACHE = "captions.sqlite"
GROUP = 256  # outcomes recorded together
_OWN_EVERY = 2.0  # seconds between two writes to the catalogue's own file: the project's has everything already

Entry = tuple[str, "str | None", Box, "Outcome"]


def project_cache(config: Config) -> Path:
    """Where every caption that is paid for is recorded, whichever catalogue it is for.

    ``captioner.cache`` is the user's word and may be a link; the usual place is in a folder that may have been copied with
    a link in it: :class:`CatalogueError`.
    """
    if config.captioner.cache:
        return Path(config.captioner.cache)
    folder = Folder(config.project.data, "data folder", CatalogueError)
    for beside in ("-journal", "-wal", "-shm"):  # before the catalogue's own file is made
        folder.path(CACHE + beside)
    return folder.path(CACHE)


class Caches:
    """What is known of garments; ``own`` is None for photos that are in no catalogue. A context manager, for one thread."""

    def __init__(
        self, own: Path | None, project: Path | None, *, write: bool = True, ledger: Ledger | None = None
    ) -> None:
        """``project`` None: outcomes that hold for one catalogue stay there. Not ``write``: no file is made.

        ``ledger`` knows which files this user's runs have written: what is in those only is recorded in the project's, too.
        """
        self.ledger = ledger or Ledger()
        self._before: tuple[int, int] | None = None  # size and time of a file of this user's own
        if own is not None:
            own = Folder(own.parent, "catalogue", CatalogueError).path(own.name)
        if own is not None and project is not None and own.resolve() == project.resolve():
            own = None
        self.own = self.project = None
        if own is not None and (write or own.is_file()):
            if write and project is not None and (not own.exists() or self.ledger.has_written(own)):
                self._before = _state(own)
            self.own = CaptionCache(own)
        try:
            if project is not None and (write or project.is_file()):
                if write:
                    project.parent.mkdir(parents=True, exist_ok=True)
                self.project = CaptionCache(project.resolve(), busy=write)
                if self.own is not None and self._before is not None:
                    self.project.take_over(self.own, shared_captioners())  # the project's was lost, or is another
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Caches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for cache in self._all():
            cache.close()
        if self.own is not None and self._before is not None and _state(self.own.path) != self._before:
            with suppress(WriteError):  # from then on it is as one of somebody else
                self.ledger.wrote(self.own.path)

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

    def photos(self) -> Iterator[str]:
        """The photos (sha256) of which either file has anything, in order."""
        return (photo for photo, _ in groupby(merge(*(cache.photos() for cache in self._all()))))

    def put(self, entries: Sequence[Entry]) -> None:
        """Record outcomes in both files, the project's first."""
        for cache in self._all():
            cache.put_many(entries)

    def complete(self, entries: Iterable[Entry]) -> None:
        """Record in the catalogue's own file what only the project's had."""
        if self.own is not None:
            known = self.own.find
            self.own.put_many([entry for entry in entries if known(*entry[:3], entry[3].captioner) != entry[3]])

    def recover(self, captioner: Captioner, spool: Path) -> int:
        """Read and record the answers that a killed run of this user had written down; returns how many there were.

        Raises :class:`CatalogueError` for answers that somebody else's run has left, before any is recorded.
        """
        if any(not own for _, own in read_signed(spool, self.ledger)):
            raise CatalogueError(
                f"{spool} holds answers that no run of yours has written down: they are not used",
                hint=f"`fashionrec caption --import-captions {shell_word(spool.parent)}` takes those that pass the checks"
                " of a server's answer; or remove the file",
            )
        count = 0
        read = captioner.read_answer
        for part in batched((arrived for arrived, _ in read_signed(spool, self.ledger) if arrived is not None), GROUP):
            self.put([(*a.place, read(a.body, a.place.class_name, model=a.model, seconds=a.seconds)) for a in part])
            count += len(part)
        Folder(spool.parent, "catalogue", CatalogueError).remove(spool.name)
        return count

    def _all(self) -> list[CaptionCache]:
        return [cache for cache in (self.project, self.own) if cache is not None]


class Recorder:
    """Records what comes: each answer written down when it arrives, then, group by group, what it says."""

    def __init__(
        self, caches: Caches, captioner: Captioner, place: Callable[[Job], Place], spool: Path | None = None
    ) -> None:
        """``spool`` is where answers are written down; a killed process's must have been read: see :meth:`Caches.recover`."""
        self._caches, self._captioner, self._place = caches, captioner, place
        self._spool = None if spool is None else Spool(spool, caches.ledger)
        self._own: list[Entry] = []
        self._own_at = time.monotonic()

    def arrived(self, job: Job, body: str, seconds: float) -> None:
        """Write an answer down. Called by the threads that ask."""
        if self._spool is not None:
            self._spool.append(Arrived(self._place(job), self._captioner.model, body, seconds))

    def take(self, group: Sequence[Described]) -> None:
        """Record a group's outcomes."""
        entries = [(*self._place(one.job), one.outcome) for one in group]
        if self._caches.project is not None:
            self._caches.project.put_many(entries)
        if self._spool is not None:
            self._spool.recorded(sum(one.arrived for one in group))
        self._own += entries
        if self._caches.project is None or time.monotonic() - self._own_at > _OWN_EVERY:
            self._write_own()

    def finish(self) -> None:
        """Record what is not recorded yet."""
        self._write_own()
        if self._spool is not None:
            self._spool.close()

    def _write_own(self) -> None:
        if self._caches.own is not None:
            self._caches.own.put_many(self._own)
        self._own, self._own_at = [], time.monotonic()


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
