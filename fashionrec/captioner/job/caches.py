"""The two caption files: the catalogue's own, and the project's, which all catalogues share.

Paid captions are recorded in the project's file first. The catalogue's file holds the same records,
so that a copied catalogue is complete. Captions that come with an untrusted catalogue serve that
catalogue only; :mod:`fashionrec.captioner.job.imports` is the only way into the project's file.
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
from fashionrec.captioner.spool import Spool, SpooledAnswer, read_signed
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
GROUP = 256  # outcomes per transaction
_OWN_INTERVAL = 2.0  # seconds between writes to the catalogue's file: the project's already has all

Entry = tuple[str, "str | None", Box, "Outcome"]


def project_cache(config: Config) -> Path:
    """Return the path of the file that records every paid caption, for all catalogues.

    ``captioner.cache`` is the user's setting and may be a symbolic link. The default lies in a
    folder that may have been copied with a link in it: :class:`CatalogueError`.
    """
    if config.captioner.cache:
        return Path(config.captioner.cache)
    folder = Folder(config.project.data, "data folder", CatalogueError)
    for suffix in ("-journal", "-wal", "-shm"):  # before the catalogue's own file is created
        folder.path(CACHE + suffix)
    return folder.path(CACHE)


class Caches:
    """The recorded outcomes, used by one thread; ``own`` is None for photos in no catalogue."""

    def __init__(
        self, own: Path | None, project: Path | None, *, write: bool = True, ledger: Ledger | None = None
    ) -> None:
        """Open the files. Without ``write`` no file is created.

        Args:
            own: The catalogue's file.
            project: The project's file; None for captions that are valid in one catalogue only.
            write: Open for writing.
            ledger: Knows which catalogue files this user's runs wrote. The project's file takes
                over the records of those only.
        """
        self.ledger = ledger or Ledger()
        self._before: tuple[int, int] | None = None  # size and mtime of a file that this user wrote
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
                    self.project.take_over(self.own, shared_captioners())  # the project's file is new or another one
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
            with suppress(WriteError):  # the file is then treated as untrusted
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
        """Return the recorded outcome of a garment, preferably a description.

        See :meth:`CaptionCache.find`. Outcomes whose state is in ``again`` count as missing.
        """
        best: Outcome | None = None
        for cache in self._all():
            outcome = cache.find(*place, captioner, model=model, since=since)
            if outcome is not None and (best is None or outcome.state == "done"):
                best = outcome
            if best is not None and best.state == "done":
                return best
        return None if best is not None and best.state in again else best

    def photos(self) -> Iterator[str]:
        """Yield the photos (SHA-256) recorded in either file, sorted."""
        return (photo for photo, _ in groupby(merge(*(cache.photos() for cache in self._all()))))

    def put(self, entries: Sequence[Entry]) -> None:
        """Record outcomes in both files, the project's first."""
        for cache in self._all():
            cache.put_many(entries)

    def complete(self, entries: Iterable[Entry]) -> None:
        """Copy outcomes that only the project's file had into the catalogue's own."""
        if self.own is not None:
            find = self.own.find
            self.own.put_many([entry for entry in entries if find(*entry[:3], entry[3].captioner) != entry[3]])

    def recover(self, captioner: Captioner, spool: Path) -> int:
        """Read and record the answers that a killed run of this user left; return their number.

        Raises :class:`CatalogueError`, before anything is recorded, for answers from another user's
        run.
        """
        if any(not own for _, own in read_signed(spool, self.ledger)):
            raise CatalogueError(
                f"{spool} has answers that were not written by your runs: they are not used",
                hint=f"`fashionrec caption --import-captions {shell_word(spool.parent)}` imports the valid ones;"
                " or remove the file",
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
    """Records answers: each as it arrives, then its outcome, group by group."""

    def __init__(
        self, caches: Caches, captioner: Captioner, place: Callable[[Job], Place], spool: Path | None = None
    ) -> None:
        """Open the spool file, in which answers are written before they are read.

        Answers of a killed process must have been recovered before: :meth:`Caches.recover`.
        """
        self._caches, self._captioner, self._place = caches, captioner, place
        self._spool = None if spool is None else Spool(spool, caches.ledger)
        self._own: list[Entry] = []
        self._own_at = time.monotonic()

    def arrived(self, job: Job, body: str, seconds: float) -> None:
        """Append an answer to the spool. Called by the threads that send requests."""
        if self._spool is not None:
            self._spool.append(SpooledAnswer(self._place(job), self._captioner.model, body, seconds))

    def take(self, group: Sequence[Described]) -> None:
        """Record the outcomes of a group."""
        entries = [(*self._place(described.job), described.outcome) for described in group]
        if self._caches.project is not None:
            self._caches.project.put_many(entries)
        if self._spool is not None:
            self._spool.recorded(sum(described.arrived for described in group))
        self._own += entries
        if self._caches.project is None or time.monotonic() - self._own_at > _OWN_INTERVAL:
            self._write_own()

    def finish(self) -> None:
        """Record the remaining outcomes and close the spool."""
        self._write_own()
        if self._spool is not None:
            self._spool.close()

    def _write_own(self) -> None:
        if self._caches.own is not None:
            self._caches.own.put_many(self._own)
        self._own, self._own_at = [], time.monotonic()


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
