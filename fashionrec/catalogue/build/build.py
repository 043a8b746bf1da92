"""Build catalogues: hash, detect, crop, embed, journal; then commit one new generation atomically.

The result for a photo depends only on its content, the models and the settings. So unchanged photos
are taken from the previous generation, photos that a killed build had finished from its journal,
and crops that another detector cuts identically keep their vectors.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fashionrec.catalogue.build.changes import RowChanges, RowWriter, Wanted, find_changes
from fashionrec.catalogue.build.crops import KnownCrops
from fashionrec.catalogue.build.report import BuildReport, write_report
from fashionrec.catalogue.build.work import Recipe, work_on
from fashionrec.catalogue.compaction import compact_segments, should_compact
from fashionrec.common.batches import batched
from fashionrec.common.folder import TEMPORARY, Folder
from fashionrec.common.reach import HINT, Reach
from fashionrec.common.text import encodable, plural
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError, ImageError, Refused, UsageError
from fashionrec.models.bundle import Bundle
from fashionrec.models.runs import installed_versions
from fashionrec.photos.images import photo_digest
from fashionrec.store import generations
from fashionrec.store.content import EntryRow, EntryText, PhotoRow
from fashionrec.store.items import ItemReader
from fashionrec.store.journal import Journal
from fashionrec.store.seen import SeenFiles, file_state
from fashionrec.store.writer import GenerationWriter

if TYPE_CHECKING:
    from fashionrec.products.tables import ProductRow


#: Files whose hashes are looked up, computed and recorded at a time.
_AT_ONCE = 512
#: Recorded file hashes per row: those of removed rows are deleted once they are a tenth of all.
_MOST_SEEN = 1.1


class Progress(Protocol):
    """Callback with photos done and the total, after each batch; ``detail`` has garments and
    failures so far.
    """

    def __call__(self, done: int, total: int, *, detail: str = "") -> None: ...


class Edit(NamedTuple):
    """New rows for a catalogue: ``rows``, in addition to all that are not ``replaced``.

    Rows of the catalogue itself (:class:`EntryRow`) are kept without reading their photos.
    """

    rows: Sequence[ProductRow | EntryRow]
    replaced: Sequence[EntryText]


def build_catalogue(
    rows: Sequence[ProductRow],
    root: Path,
    *,
    detector_bundle: Bundle | None,
    embedder_bundle: Bundle,
    config: Config,
    source: str,
    max_delete: float | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> BuildReport:
    """Make the catalogue at ``root`` contain exactly ``rows``, as a new catalogue or a new
    generation.

    Without differences there is no new generation. Raises :class:`Busy` if another process is
    writing, :class:`Refused` if more than ``max_delete`` of the products would be removed,
    :class:`DataError` if no photo is usable; nothing is changed then.
    """
    if root.exists() and not generations.is_catalogue(root) and _holds_other_things(root):
        raise CatalogueError(
            f"{root} is not empty and not a catalogue", hint="choose another --index, or empty this folder"
        )
    new, recipe = not os.path.lexists(root), Recipe(detector_bundle, embedder_bundle, config)
    try:
        with generations.writer_lock(root):
            return _Build(Edit(rows, ()), root, recipe, source, max_delete, progress, log, whole=True).run()
    except UsageError:
        if new:  # invalid input: nothing worth resuming was begun
            Folder(root.parent).remove(root.name, ignore_errors=True)
        raise


def edit_catalogue(
    root: Path,
    change: Callable[[ItemReader], Edit],
    *,
    config: Callable[[generations.Generation], Config],
    source: str | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Make the next generation of a catalogue with some rows replaced and all others unchanged.

    ``change`` selects them from the served items; only they are read. ``config`` has the settings
    of the generation. Without differences there is no new one. Raises like :func:`build_catalogue`,
    but any share of the products may be removed.
    """
    generations.read_current(root)  # before the lock, which would create the folder
    with generations.writer_lock(root):
        current = generations.read_current(root)
        detector, encoder = current.bundle_path("detector"), current.bundle_path("embedder")
        if encoder is None:
            raise CatalogueError(f"catalogue {root} has no embedder")
        found = Bundle.open(detector, "detector") if detector else None
        recipe = Recipe(found, Bundle.open(encoder, "embedder"), config(current))
        with closing(ItemReader(current.items_path, current.changes_path)) as items:
            edit = change(items)
        source = current.manifest.photos_from if source is None else source
        return _Build(edit, root, recipe, source, 1.0, progress, lambda text: None, whole=False).run()


class _Build:
    def __init__(
        self,
        edit: Edit,
        root: Path,
        recipe: Recipe,
        source: str,
        max_delete: float | None,
        progress: Progress | None,
        log: Callable[[str], None],
        *,
        whole: bool,
    ) -> None:
        """Prepare a build. ``whole``: the rows replace everything in the catalogue."""
        self.rows, self.replaced, self.whole = edit.rows, edit.replaced, whole
        #: Rows with the paths of their photos; "" for rows of the catalogue itself.
        self.located = [(row, "" if isinstance(row, EntryRow) else row.location) for row in self.rows]
        self.root, self.recipe, self.source = root, recipe, source
        self.config = config = recipe.config
        self.max_delete = config.build.max_delete if max_delete is None else max_delete
        self.progress: Progress = progress or _silent
        self.log = log
        self.report = BuildReport(rows=len(self.rows))
        self.start = time.perf_counter()
        self.previous = generations.read_current(root) if generations.is_catalogue(root) else None
        if self.previous:
            self.previous.check()  # its data will be reused
        self.old_items = ItemReader(self.previous.items_path, self.previous.changes_path) if self.previous else None
        self.stay = 0 if whole or self.old_items is None else self.old_items.count("entries") - len(self.replaced)
        self.report.rows += self.stay

    def run(self) -> BuildReport:
        work = generations.folder_of(self.root)
        work.make_folder("work", exist_ok=True)
        journal = Journal(work.path("work/journal.sqlite", "file"), self.recipe.key)
        try:
            paths = self._hash_photos()
            kept = self._kept(paths)
            found = self._process(paths, kept, journal)
            wanted = self._wanted(found)
            self._write_generation(wanted, kept, journal)
        finally:
            journal.close()
            if self.old_items:
                self.old_items.close()
        write_report(self.root, self.report.to_dict())
        work.remove("work/journal.sqlite")
        self._forget_files()
        return self.report

    def _hash_photos(self) -> dict[str, str]:
        """Return the content hash of each readable photo by path; unreadable ones become failures,
        one per row.
        """
        start = time.perf_counter()
        seen = SeenFiles(generations.folder_of(self.root).path("work/seen.sqlite", "file"))
        digests: dict[str, str] = {}
        bad: dict[str, ImageError] = {}
        with ThreadPoolExecutor(4) as pool:
            for part in batched(dict.fromkeys(location for _, location in self.located if location), _AT_ONCE):
                refused = self._refused(part)
                bad |= refused
                part = [location for location in part if location not in refused]
                known = {} if self.config.build.rehash else seen.digests(part)
                new = [location for location in part if location not in known]
                states = {location: file_state(location) for location in new}
                hashed = dict(zip(new, pool.map(self._digest, new), strict=True))
                made = {location: digest for location, digest in hashed.items() if isinstance(digest, str)}
                bad |= {location: error for location, error in hashed.items() if isinstance(error, ImageError)}
                seen.put({at: (*state, made[at]) for at, state in states.items() if state and at in made})
                self.report.hashed += len(made)
                digests |= known | made
        seen.close()
        for row, location in self.located if bad else ():
            if location in bad:
                self._fail(row, bad[location])
        self.report.seconds["hash"] += time.perf_counter() - start
        return digests

    def _forget_files(self) -> None:
        """Delete recorded hashes of files without rows, if there are more than a few."""
        with closing(SeenFiles(generations.folder_of(self.root).path("work/seen.sqlite", "file"))) as seen:
            if seen.holds_more_than(_MOST_SEEN * self.report.rows):
                with suppress(sqlite3.Error):  # a full disk: the next build does it
                    seen.keep_only(self._locations())

    def _locations(self) -> Iterator[str]:
        """Yield the photo paths of all rows, including unchanged ones."""
        if self.whole:
            yield from (location for _, location in self.located)
            return
        served = generations.read_current(self.root)
        with closing(ItemReader(served.items_path, served.changes_path)) as items:
            for row in items.entry_texts():
                yield str(Path(row.base, row.image))

    def _refused(self, locations: Iterable[str]) -> dict[str, ImageError]:
        """Return an error for each link in a folder of photos; a table's rows may name any file."""
        folder = Path(self.source)
        if not folder.is_dir():
            return {}
        reach = Reach(folder)
        return {
            location: ImageError(str(refused), reason=refused.reason, hint=HINT)
            for location in locations
            if (refused := reach.check(Path(location))) is not None and refused.reason == "link"
        }

    def _digest(self, location: str) -> str | ImageError:
        if encodable(location) != location:
            return ImageError(f"{location} has a name that is not UTF-8", reason="name")
        return photo_digest(Path(location), self.config.images.max_bytes)

    def _wanted(self, paths: dict[str, str]) -> dict[tuple[str, str], Wanted]:
        """Return the rows of the next generation: each image of each product once, if its photo is
        usable.
        """
        wanted: dict[tuple[str, str], Wanted] = {}
        base = self.base
        for row, location in self.located:
            if isinstance(row, EntryRow):
                one = Wanted(row.image, row.base, row.product_id, row.photo, row.metadata)
            elif digest := paths.get(location):
                one = Wanted(row.image, base, row.product_id, digest, row.metadata)
            else:
                continue
            if one.key in wanted:
                self.report.duplicate_rows += 1
            else:
                wanted[one.key] = one
        return wanted

    @property
    def base(self) -> str:
        """The folder that the rows' image paths are relative to."""
        source = Path(self.source)
        return str(source if source.is_dir() else source.parent)

    def _guard_deletions(self, paths: dict[str, str]) -> None:
        if self.old_items is None:
            return
        after = {row.product_id for row, location in self.located if not location or location in paths}
        if self.whole:
            before = self.old_items.product_ids()
        else:
            taken = Counter(entry.product_id for entry in self.replaced)
            rows_of = self.old_items.entries_by("product_id", {*taken, *(row.product_id for row in self.rows)})
            before = set(rows_of)
            after |= {product for product, count in rows_of.items() if count > taken[product]}
        gone = before - after
        self.report.added, self.report.removed = len(after - before), len(gone)
        if before and len(gone) / len(before) > self.max_delete:
            failures = self.report.failures
            why = (
                f"{plural(len(failures), 'row')} without a usable photo, first: {failures[0]['message']}; "
                if failures
                else ""
            )
            raise Refused(
                f"this build would remove {len(gone)} of {plural(len(before), 'product')} from {self.root}; nothing was changed",
                hint=f"{why}if this is intended, add --max-delete 1.0",
            )

    def _kept(self, paths: dict[str, str]) -> set[str]:
        """Return the photos whose stored results are reused: same models and settings, or rows that
        stay.
        """
        if self.old_items is None:
            return set()
        photos = {*paths.values(), *(row.photo for row in self.rows if isinstance(row, EntryRow))}
        made_by, staying = self.old_items.build_keys(photos), self._staying(photos)
        return {photo for photo, key in made_by.items() if key == self.recipe.key or photo in staying}

    def _staying(self, photos: Collection[str]) -> set[str]:
        """Return those photos that are shown by rows which are not replaced, or which
        stay unread.
        """
        if self.whole or self.old_items is None:
            return set()
        taken = Counter(entry.photo for entry in self.replaced)
        back = {row.photo for row in self.rows if isinstance(row, EntryRow)}
        rows_of = self.old_items.entries_by("photo", photos)
        return {photo for photo, count in rows_of.items() if photo in back or count > taken[photo]}

    def _process(self, paths: dict[str, str], kept: set[str], journal: Journal) -> dict[str, str]:
        """Detect and embed photos that are neither reused nor in the journal; return the usable
        ones.
        """
        self._guard_deletions(paths)
        first_path: dict[str, str] = {}
        for path, digest in paths.items():
            first_path.setdefault(digest, path)
        todo = []
        for digest, path in first_path.items():
            if digest in kept:
                self.report.reused += 1
            elif journal.has(digest):
                self.report.resumed += 1
            else:
                todo.append((digest, path))
        others = self._photos_beside(first_path.keys())
        self.report.reused += others
        self.report.photos = total = len(first_path) + others
        bad = self._find(todo, journal, total) if todo else {}
        for row, location in self.located if bad else ():
            if (known := paths.get(location)) in bad:
                self._fail(row, bad[known])
        self.report.embedded = len(todo) - len(bad)
        if not bad:
            return paths
        usable = {path: digest for path, digest in paths.items() if digest not in bad}
        self._guard_deletions(usable)  # a hashed file may turn out not to be an image
        return usable

    def _photos_beside(self, hashed: Collection[str]) -> int:
        """Return how many photos of unchanged rows are not among those ``hashed``."""
        if self.whole or self.old_items is None:
            return 0
        taken = {entry.photo for entry in self.replaced}
        staying = self._staying({*taken, *hashed})
        return self.old_items.count("photos") - len(taken - staying) - len(staying.intersection(hashed))

    def _find(self, todo: Sequence[tuple[str, str]], journal: Journal, total: int) -> dict[str, ImageError]:
        """Process photos and write the results into the journal; return the unusable ones."""
        before, failed = total - len(todo), len(self.report.failures)

        def progress(done: int, garments: int, bad: int) -> None:
            self.progress(before + done, total, detail=f"{plural(garments, 'garment')}, {bad + failed} failed")

        self.progress(before, total)
        crops = KnownCrops(self.previous, self.old_items, self.recipe.settings, self.recipe.embedder.fingerprint)
        photos = [(digest, Path(path)) for digest, path in todo]
        bad = work_on(
            photos, self.recipe, journal, known=crops.find, seconds=self.report.seconds, progress=progress, log=self.log
        )
        self.report.crops_reused = crops.found
        return bad

    def _write_generation(self, wanted: dict[tuple[str, str], Wanted], kept: set[str], journal: Journal) -> None:
        begin = time.perf_counter()
        if not wanted and not self.stay:
            reasons = Counter(failure["reason"] for failure in self.report.failures)
            raise DataError(
                f"none of {plural(len(self.rows), 'photo')} is usable ({', '.join(f'{n} {why}' for why, n in reasons.items())})"
            )
        before = self.old_items.entry_texts() if self.whole and self.old_items else self.replaced
        changes = find_changes(before, wanted, kept)
        self.report.entries = changes.counts()
        self.report.entries["kept"] += self.stay
        if self.previous and not changes and self._as_before():
            self._keep_previous(begin)
            return
        with GenerationWriter(self.root, self.config.index, self.previous, log=self.log) as writer:
            self.report.entries["photos_removed"] = self._write_rows(writer, changes, kept, journal)
            used, limits = writer.finish_segments(), self.config.build
            if should_compact(writer.segments, used, most=limits.max_segments, dead=limits.max_dead):
                compact_segments(writer)
                self.report.compacted = True
            self._count(writer.finish_items(shrink=self.report.compacted), writer.items_path, writer.changes_path)
            if not self.report.garments:
                raise DataError(
                    "no garment was found in any photo", hint="set build.whole_photo=true, or lower detector.conf"
                )
            self.report.seconds["write"] += time.perf_counter() - begin
            begin = time.perf_counter()
            self.report.index = writer.make_index()
            self.report.seconds["index"] += time.perf_counter() - begin
            self.report.total_seconds = time.perf_counter() - self.start
            self.report.generation = writer.name
            if self.old_items:
                self.old_items.close()  # the commit may remove another name of its file
            writer.commit(
                "build",
                self.report.to_dict(),
                bundles=self._bundles(),
                versions=installed_versions(),
                photos_from=self.source,
                settings=self.recipe.settings,
            )

    def _bundles(self) -> list[Bundle]:
        return [bundle for bundle in (self.recipe.detector, self.recipe.embedder) if bundle is not None]

    def _as_before(self) -> bool:
        """Return whether the served generation was made by the same models and settings."""
        assert self.previous is not None
        index = self.previous.manifest.index
        models = {kind: entry.fingerprint for kind, entry in self.previous.manifest.bundles.items()}
        return (
            models == {bundle.kind: bundle.fingerprint for bundle in self._bundles()}
            and self.previous.manifest.settings.build_key == self.recipe.key
            and index is not None
            and index.settings == self.config.index.model_dump()
        )

    def _keep_previous(self, begin: float) -> None:
        """Keep the served generation: an equal new one would replace one that could be rolled back
        to.

        Only leftovers of a killed process are removed: after a rollback, the generation served
        before stays available until the next change.
        """
        assert self.previous is not None
        assert self.old_items is not None
        generations.tidy(self.root, whole=False)
        self._count(self.old_items.counts(), self.previous.items_path, self.previous.changes_path)
        self.report.unchanged, self.report.generation = True, self.previous.name
        self.report.index = self.previous.manifest.index
        self.report.seconds["write"] += time.perf_counter() - begin
        self.report.total_seconds = time.perf_counter() - self.start

    def _count(self, counts: dict[str, int], items: Path, changes: Path | None) -> None:
        with closing(ItemReader(items, changes)) as reader:
            self.report.without_detection = reader.photos_without_detection()
        self.report.garments, self.report.items = counts["garments"], counts["items"]
        self.report.products = counts["products"]

    def _write_rows(self, writer: GenerationWriter, changes: RowChanges, kept: set[str], journal: Journal) -> int:
        """Write photos, garments, entries and items; return how many photos are no longer shown."""
        encoder = self.recipe.embedder
        segment = writer.new_segment("image", encoder.fingerprint, int(encoder.spec["dim"]))

        def new_photo(digest: str) -> PhotoRow:
            found = journal.get(digest)
            if found is None:
                raise CatalogueError(f"photo {digest[:12]} is neither in the catalogue nor in the journal")
            return segment.add_photo(found, self.recipe.key)

        before = self.previous.manifest.bundles["embedder"].fingerprint if self.previous else None
        rows = RowWriter(
            writer.items,
            self.old_items,
            kept,
            new_photo,
            self.config.build.category_columns,
            same_encoder=before == encoder.fingerprint,
        )
        return rows.apply(changes)

    def _fail(self, row: ProductRow | EntryRow, error: ImageError) -> None:
        """Record a row whose photo is unusable; the build continues without it."""
        self.report.failures.append(
            {"image": row.image, "product_id": row.product_id, "reason": error.reason, "message": str(error)}
        )


def _silent(done: int, total: int, *, detail: str = "") -> None:
    """Show no progress."""


def _holds_other_things(root: Path) -> bool:
    """Return whether a folder contains anything that an unfinished build of ours has
    not created.
    """
    ours = {".lock", "work", "generations", "segments", "indexes", "bundles"}
    if not root.is_dir():
        return True
    begun = f".{generations.POINTER}."
    return any(
        path.name not in ours and not (path.name.startswith(begun) and TEMPORARY.match(path.name))
        for path in root.iterdir()
    )
