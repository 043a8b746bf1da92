"""The only way to write a catalogue: a new generation, committed completely or not at all.

::

    with next_generation(root, config.index) as writer:  # holds the catalogue's lock
        writer.items.remove_entry(12)  # only differences from the previous generation
        writer.commit("edit", {"generation": writer.name})

If an exception prevents the commit, the generation's files are removed. Those of a killed process
are never served, and removed by a later commit. The switch is :func:`generations.commit`, which
replaces ``catalogue.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.files import dump_json
from fashionrec.common.system import link
from fashionrec.errors import CatalogueError
from fashionrec.models.bundle import Bundle
from fashionrec.models.runs import now
from fashionrec.store import generations
from fashionrec.store.assemble import SegmentWriter, store_bundle
from fashionrec.store.generations import Generation
from fashionrec.store.index import make_index
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.items import ItemReader
from fashionrec.store.manifest import IndexEntry, Manifest, SegmentEntry
from fashionrec.store.vectors import VECTORS, write_vectors

if TYPE_CHECKING:
    from fashionrec.config import IndexConfig


class GenerationWriter:
    """Writes the generation after ``previous`` (None: the first one) of the catalogue at ``root``.

    A context manager; the caller holds the catalogue's lock. It starts with everything in
    ``previous``; ``items`` takes added, changed and removed rows, ``new_segment`` and
    ``write_segment`` take new vectors. :meth:`commit` serves the result; without it nothing
    remains. ``segments`` is the manifest's table of segments.
    """

    def __init__(
        self,
        root: Path,
        settings: IndexConfig,
        previous: Generation | None = None,
        *,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.root, self.settings, self.previous, self.log = root, settings, previous, log
        self.segments: dict[str, SegmentEntry] = dict(previous.manifest.segments) if previous else {}
        self._counts: dict[str, int] | None = None
        self._items: ItemWriter | None = None
        self._index: IndexEntry | None = None
        self._streams: list[tuple[SegmentWriter, str, str]] = []
        self._committing = False

    def __enter__(self) -> GenerationWriter:
        self.name, folder = generations.begin(self.root)
        self.items_path, self._changes_path = folder / generations.ITEMS, folder / generations.CHANGES
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._committing:  # the pointer may name it already: the next commit cleans up
            return
        with suppress(OSError):
            if self._items is not None:
                self._items.discard()
            for stream, _, _ in self._streams:
                stream.discard()
        with suppress(OSError, CatalogueError):
            self._remove()

    @property
    def changes_path(self) -> Path | None:
        """The delta, if there is one."""
        return self._changes_path if self._changes_path.exists() else None

    @property
    def items(self) -> ItemWriter:
        """The items, initially those of the previous generation: only differences are written."""
        if self._items is None:
            self._items = ItemWriter(
                self.items_path,
                self.previous.items_path if self.previous else None,
                changes=self._changes_path,
                changed_before=self.previous.changes_path if self.previous else None,
                check=self._check_items,
            )
        return self._items

    def _check_items(self) -> None:
        """Raise :class:`CatalogueError` if the items of the previous generation have changed."""
        if self.previous:
            self.previous.check(contents=True, below=f"generations/{self.previous.name}/")

    def new_segment(
        self, kind: str, embedder: str, dim: int, *, dtype: str | None = None, suffix: str | None = None
    ) -> SegmentWriter:
        """Begin a segment of ``kind`` ("image" or "caption") that takes vectors one by one.

        ``embedder`` is the encoder's fingerprint. Without vectors, there is no segment.
        """
        folder = self.root / "segments" / f"{self.name}-{suffix or kind}"
        stream = SegmentWriter(folder, dim, dtype or self.settings.vectors)
        self._streams.append((stream, kind, embedder))
        return stream

    def write_segment(
        self,
        suffix: str,
        vectors: np.ndarray | Iterable[np.ndarray],
        entry: SegmentEntry,
        *,
        dtype: str | None = None,
    ) -> str:
        """Write a segment's vectors at once, described by ``entry``; return its name."""
        name = f"{self.name}-{suffix}"
        folder = generations.folder_of(self.root).make_folder(f"segments/{name}")
        written = write_vectors(folder / VECTORS, vectors, entry.dim, dtype or self.settings.vectors)
        self.segments[name] = replace(entry, float16_recall_at_10=written.float16_recall_at_10)
        return name

    def finish_segments(self) -> dict[str, int]:
        """Finish open segments, and drop those that no item refers to.

        Returns how many rows of each are in use.
        """
        while self._streams:
            stream, kind, embedder = self._streams[0]
            stream.close()
            if stream.count:
                self.segments[stream.name] = stream.entry(kind, embedder)
            del self._streams[0]
        used = self.items.segments()
        self.segments = {name: entry for name, entry in self.segments.items() if used.get(name)}
        return used

    def finish_items(self, *, shrink: bool = False) -> dict[str, int]:
        """Finish the segments and items; return their counts. ``shrink`` frees unused space."""
        if self._counts is None and self._items is None and self.previous:
            link(self.previous.items_path, self.items_path)
            if self.previous.changes_path:
                link(self.previous.changes_path, self._changes_path)
            self._counts = dict(self.previous.manifest.counts)
        elif self._counts is None:
            self.finish_segments()
            self.items.close(shrink=shrink)
            with closing(ItemReader(self.items_path, self.changes_path)) as reader:
                self._counts = reader.counts()
        return self._counts

    def make_index(self, *, anew: bool = False) -> IndexEntry:
        """Build the index, or keep the previous one unless ``anew``; return its entry."""
        if self._index is None:
            self.finish_items()
            before = self.previous.manifest.index if self.previous and not anew else None
            self._index = make_index(
                self.root, self.name, self.segments, settings=self.settings, previous=before, log=self.log
            )
        return self._index

    def commit(
        self, made_by: str, report: Mapping[str, Any], *, bundles: Iterable[Bundle] = (), **changed: Any
    ) -> Generation:
        """Finish and serve the generation with one atomic switch, after everything is synced.

        ``changed`` are fields of the manifest that differ from the previous generation. Raises
        ``OSError`` if the disk is full.
        """
        counts, index = self.finish_items(), self.make_index()
        if stored := {bundle.kind: store_bundle(self.root, bundle) for bundle in bundles}:
            changed["bundles"] = stored
        folder = generations.folder_of(self.root)
        folder.write(f"generations/{self.name}/{generations.REPORT}", dump_json(report))
        manifest = replace(
            self.previous.manifest if self.previous else Manifest(),
            **{"created": now(), "made_by": made_by, **changed},
            segments=self.segments,
            counts=counts,
            index=index,
        )
        self._committing = True
        own = (generations.ITEMS, *([generations.CHANGES] if self.changes_path else []), generations.REPORT)
        return generations.commit(self.root, self.name, manifest, own)

    def _remove(self) -> None:
        """Remove what was written, the generation's folder last, because it reserves the name."""
        folder = generations.folder_of(self.root)
        segments = [entry.name for entry in folder.entries("segments")]
        for name in [name for name in segments if name.startswith(f"segments/{self.name}-")]:
            folder.remove(name)
        folder.remove(f"indexes/{self.name}", ignore_errors=True)
        folder.remove(f"generations/{self.name}")


@contextmanager
def next_generation(
    root: Path, settings: IndexConfig, *, log: Callable[[str], None] = lambda text: None
) -> Iterator[GenerationWriter]:
    """Hold the catalogue's lock, with the writer of the next generation.

    Raises:
        Busy: Another process is writing.
        CatalogueError: The catalogue is damaged.
        WriteError: The disk is full or fails; the served generation is unchanged.
    """
    generations.read_current(root)  # before the lock, which would create the folder
    with generations.writer_lock(root):
        served = generations.read_current(root)
        served.check()
        with GenerationWriter(root, settings, served, log=log) as writer:
            yield writer
