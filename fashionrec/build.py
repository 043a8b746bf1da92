"""The pipeline that fills a catalogue: read, detect, crop, embed, journal; then one new generation, switched in whole.

What a photo gives depends on its content and on the models and settings alone, so unchanged photos are taken over from
the generation before, and photos that a killed build had finished from its journal.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.assemble import SegmentWriter, assign_roles, item_id
from fashionrec.build_report import BuildReport, measure_index
from fashionrec.bundle import Bundle
from fashionrec.config import Config
from fashionrec.decoding import decode_all
from fashionrec.errors import CatalogueError, DataError, ImageError, ModelError, Refused, UsageError
from fashionrec.files import dump_json, fingerprint, write_atomic
from fashionrec.images import Photo, crop_garment, encode_jpeg, photo_digest
from fashionrec.runs import installed_versions, now
from fashionrec.store import generations
from fashionrec.store.items import ItemReader, ItemWriter, PhotoRow, product_words
from fashionrec.store.journal import FoundGarment, FoundPhoto, Journal
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from fashionrec.dataset.products import ProductRow
    from fashionrec.detector.detect import Detector
    from fashionrec.embedder.embed import Embedder

#: Called with photos done and photos in all, after each batch.
Progress = Callable[[int, int], None]


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
) -> BuildReport:
    """Make the catalogue at ``root`` hold exactly ``rows``; a new one, or the next generation of one that is there.

    Raises :class:`Busy` if another process is writing it, :class:`Refused` if more than ``max_delete`` of the products
    would go (nothing is then changed), :class:`DataError` if no photo at all could be used.
    """
    if root.exists() and not generations.is_catalogue(root) and _holds_other_things(root):
        raise CatalogueError(f"{root} is not empty and not a catalogue", hint="choose another --index, or empty it")
    new = not root.exists()
    try:
        with generations.writer_lock(root):
            return _Build(rows, root, detector_bundle, embedder_bundle, config, source, max_delete, progress).run()
    except UsageError:
        if new:  # wrong input: nothing worth resuming was begun
            shutil.rmtree(root, ignore_errors=True)
        raise


class _Build:
    def __init__(
        self,
        rows: Sequence[ProductRow],
        root: Path,
        detector_bundle: Bundle | None,
        embedder_bundle: Bundle,
        config: Config,
        source: str,
        max_delete: float | None,
        progress: Progress | None,
    ) -> None:
        self.rows, self.root, self.config, self.source = rows, root, config, source
        self.detector_bundle, self.embedder_bundle = detector_bundle, embedder_bundle
        self.max_delete = config.build.max_delete if max_delete is None else max_delete
        self.progress = progress or (lambda done, total: None)
        self.report = BuildReport(rows=len(rows))
        self.settings = {
            "detect": detector_bundle is not None,
            "conf": config.detector.conf,
            "iou": config.detector.iou,
            "max_garments": config.detector.max_garments,
            "whole_photo": config.build.whole_photo,
            "thumbnail": config.build.thumbnail,
            "crop": config.crop.model_dump(),
        }
        models = [None if detector_bundle is None else detector_bundle.fingerprint, embedder_bundle.fingerprint]
        self.build_key = fingerprint({"settings": self.settings, "models": models})
        self.previous = generations.read_current(root) if generations.is_catalogue(root) else None
        self.old_items = ItemReader(self.previous.items_path) if self.previous else None

    def run(self) -> BuildReport:
        start = time.perf_counter()
        journal = Journal(self.root / "work" / "journal.sqlite", self.build_key)
        try:
            digests = self._hash_photos()
            self._guard_deletions(digests)
            self._process(digests, journal)
            generation = self._write_generation(digests, journal, start)
        finally:
            journal.close()
            if self.old_items:
                self.old_items.close()
        (self.root / "work" / "journal.sqlite").unlink(missing_ok=True)
        self.report.generation = generation.name
        return self.report

    def _hash_photos(self) -> dict[Path, str]:
        """Content hash of each photo that can be read; the others become failures, one per row."""
        start = time.perf_counter()
        paths = list(dict.fromkeys(row.path for row in self.rows))
        limit = self.config.images.max_bytes
        with ThreadPoolExecutor(4) as pool:
            digests = dict(zip(paths, pool.map(lambda path: photo_digest(path, limit), paths), strict=True))
        for row in self.rows:
            outcome = digests[row.path]
            if isinstance(outcome, ImageError):
                self._fail(row, outcome)
        self.report.seconds["read"] += time.perf_counter() - start
        return {path: digest for path, digest in digests.items() if isinstance(digest, str)}

    def _guard_deletions(self, digests: dict[Path, str]) -> None:
        if self.old_items is None:
            return
        before = self.old_items.product_ids()
        after = {row.product_id for row in self.rows if row.path in digests}
        gone = before - after
        self.report.added, self.report.removed = len(after - before), len(gone)
        if before and len(gone) / len(before) > self.max_delete:
            raise Refused(
                f"this build would remove {len(gone)} of {len(before)} products from {self.root}; nothing was changed",
                hint="if that is meant, say --max-delete 1.0",
            )

    def _process(self, digests: dict[Path, str], journal: Journal) -> None:
        """Detect and embed what is neither in the generation before nor in the journal."""
        first_path: dict[str, Path] = {}
        for path, digest in digests.items():
            first_path.setdefault(digest, path)
        self.report.photos = len(first_path)
        todo = []
        for digest, path in first_path.items():
            if self._old_photo(digest) is not None:
                self.report.reused += 1
            elif journal.has(digest):
                self.report.resumed += 1
            else:
                todo.append((digest, path))
        done = len(first_path) - len(todo)
        self.progress(done, len(first_path))
        if not todo:
            return
        detector, embedder = self._open_models()
        decoded = decode_all(todo, self.config.images, timeout=self.config.build.photo_timeout)
        finished: list[FoundPhoto] = []
        bad: dict[str, ImageError] = {}
        while batch := self._read_batch(decoded):
            good = []
            for digest, outcome in batch:
                if isinstance(outcome, ImageError):
                    bad[digest] = outcome
                else:
                    good.append((digest, outcome))
            finished += self._find(good, detector, embedder)
            done += len(batch)
            if len(finished) >= self.config.build.checkpoint:
                journal.put(finished)
                finished = []
            self.progress(done, len(first_path))
        journal.put(finished)
        self.report.embedded = len(todo) - len(bad)
        for row in self.rows:
            known = digests.get(row.path)
            if known is not None and known in bad:
                self._fail(row, bad[known])
        for path in [path for path, digest in digests.items() if digest in bad]:
            del digests[path]

    def _read_batch(self, decoded: Iterator[tuple[str, Photo | ImageError]]) -> list[tuple[str, Photo | ImageError]]:
        start = time.perf_counter()
        batch = list(islice(decoded, self.config.detector.batch))
        self.report.seconds["read"] += time.perf_counter() - start
        return batch

    def _open_models(self) -> tuple[Detector | None, Embedder]:
        from fashionrec.detector.detect import Detector
        from fashionrec.embedder.embed import Embedder

        threads, device = self.config.project.threads, self.config.project.device
        embedder = Embedder(self.embedder_bundle, threads=threads, device=device)
        if self.detector_bundle is None:
            return None, embedder
        found = self.config.detector
        detector = Detector(
            self.detector_bundle,
            conf=found.conf,
            iou=found.iou,
            max_garments=found.max_garments,
            threads=threads,
            device=device,
        )
        return detector, embedder

    def _find(
        self, photos: Sequence[tuple[str, Photo]], detector: Detector | None, embedder: Embedder
    ) -> list[FoundPhoto]:
        if not photos:
            return []
        start = time.perf_counter()
        found = detector.detect([photo.pixels for _, photo in photos]) if detector else [[] for _ in photos]
        self.report.seconds["detect"] += time.perf_counter() - start
        start = time.perf_counter()
        garments: list[list[Garment]] = []
        crops = []
        for (_, photo), seen in zip(photos, found, strict=True):
            if not seen and (self.config.build.whole_photo or detector is None):
                seen = [Garment(0, None, None, Box(0, 0, photo.width, photo.height), whole_photo=True)]
            garments.append(seen)
            crops += [crop_garment(photo.pixels, garment.box, self.config.crop) for garment in seen]
        vectors = iter(embedder.embed_images(crops, batch=self.config.embedder.batch))
        pictures = iter(crops)
        result = []
        for (digest, photo), seen in zip(photos, garments, strict=True):
            result.append(
                FoundPhoto(
                    digest,
                    photo.width,
                    photo.height,
                    tuple(
                        FoundGarment(
                            g.class_name,
                            g.confidence,
                            Box(*(round(float(v), 2) for v in g.box)),
                            g.whole_photo,
                            np.asarray(next(vectors), np.float32).tobytes(),
                            encode_jpeg(next(pictures), self.config.build.thumbnail),
                        )
                        for g in seen
                    ),
                )
            )
        self.report.seconds["embed"] += time.perf_counter() - start
        return result

    def _old_photo(self, digest: str) -> PhotoRow | None:
        photo = self.old_items.photo(digest) if self.old_items else None
        return photo if photo is not None and photo.build_key == self.build_key else None

    def _write_generation(self, digests: dict[Path, str], journal: Journal, start: float) -> generations.Generation:
        begin = time.perf_counter()
        if not digests:
            reasons = Counter(failure["reason"] for failure in self.report.failures)
            raise DataError(
                f"none of the {len(self.rows)} photos can be used ({', '.join(f'{n} {why}' for why, n in reasons.items())})"
            )
        name = generations.next_name(self.root)
        folder = self.root / "generations" / name
        folder.mkdir(parents=True)
        segment = SegmentWriter(self.root / "segments" / f"{name}-image", self._dim(journal, digests))
        writer = ItemWriter(folder / generations.ITEMS)
        used = self._write_items(writer, segment, journal, digests)
        writer.close()
        segments = self._segments(segment, used)
        bundles = self._store_bundles()
        files = [path for sub in segments for path in (self.root / "segments" / sub).iterdir()]
        files += [path for entry in bundles.values() for path in (self.root / entry["path"]).iterdir()]
        files.append(folder / generations.ITEMS)
        reader = ItemReader(folder / generations.ITEMS)
        counts = reader.counts()
        reader.close()
        self.report.garments, self.report.items, self.report.products = (
            counts["garments"],
            counts["items"],
            counts["products"],
        )
        self.report.index = measure_index(self.root, segments)
        self.report.seconds["write"] += time.perf_counter() - begin
        self.report.total_seconds = time.perf_counter() - start
        write_atomic(folder / generations.REPORT, dump_json({**self.report.to_dict(), "generation": name}))
        files.append(folder / generations.REPORT)
        manifest = {
            "created": now(),
            "versions": installed_versions(),
            "photos_from": self.source,
            "bundles": bundles,
            "segments": segments,
            "counts": counts,
            "settings": {**self.settings, "build_key": self.build_key},
            "index": self.report.index,
        }
        return generations.commit(self.root, name, manifest, files)

    def _write_items(
        self, writer: ItemWriter, segment: SegmentWriter, journal: Journal, digests: dict[Path, str]
    ) -> set[str]:
        """Photos, garments, entries and items; returns the older segments that are still used."""
        used: set[str] = set()
        numbers: dict[str, tuple[PhotoRow, list[int]]] = {}
        rows_seen: set[tuple[str, str]] = set()
        for row in self.rows:
            digest = digests.get(row.path)
            if digest is None:
                continue
            if (row.image, row.product_id) in rows_seen:
                self.report.duplicate_rows += 1
                continue
            rows_seen.add((row.image, row.product_id))
            if digest not in numbers:
                photo = self._old_photo(digest) or segment.add(journal.get(digest), self.build_key)
                numbers[digest] = (photo, writer.add_photo(photo))
                self._take_captions(writer, photo, numbers[digest][1], used)
                used |= {g.segment for g in photo.garments}
                if all(g.whole_photo for g in photo.garments):
                    self.report.without_detection += 1
            photo, garment_numbers = numbers[digest]
            entry = writer.add_entry(row.image, row.product_id, digest, row.metadata)
            roles = assign_roles(photo.garments, row.metadata, self.config.build.category_columns)
            for garment, number, worn_with in zip(photo.garments, garment_numbers, roles, strict=True):
                text = "" if worn_with else self._words(row, photo, garment.position)
                writer.add_item(
                    item_id(row.product_id, digest, garment), entry, number, row.product_id, worn_with, text
                )
        segment.close()
        return used - {segment.name}

    def _take_captions(self, writer: ItemWriter, photo: PhotoRow, numbers: list[int], used: set[str]) -> None:
        """Captions made for the generation before are kept as long as their garment is the same."""
        if self.old_items is None:
            return
        for garment, number in zip(photo.garments, numbers, strict=True):
            if self._old_photo(photo.sha256) and (caption := self.old_items.caption(photo.sha256, garment.position)):
                writer.add_caption(number, caption)
                if caption.segment:
                    used.add(caption.segment)

    def _words(self, row: ProductRow, photo: PhotoRow, position: int) -> str:
        caption = self.old_items.caption(photo.sha256, position) if self.old_items else None
        texts = (caption.caption_en, caption.caption_ko) if caption else ()
        return product_words(row.metadata, *texts)

    def _dim(self, journal: Journal, digests: dict[Path, str]) -> int:
        for digest in digests.values():
            if (found := journal.get(digest)) is not None and found.garments:
                return len(found.garments[0].vector) // 4
        if self.previous is not None:
            return int(next(iter(self.previous.segments.values()), {"dim": 1})["dim"])
        raise DataError("no garment was found in any photo", hint="set build.whole_photo=true, or lower detector.conf")

    def _segments(self, segment: SegmentWriter, used: set[str]) -> dict[str, Any]:
        old = self.previous.segments if self.previous else {}
        segments = {name: old[name] for name in sorted(used)}
        if segment.count:
            entry = {"kind": "image", "count": segment.count, "dim": segment.dim}
            segments[segment.name] = {**entry, "embedder": self.embedder_bundle.fingerprint}
        return segments

    def _store_bundles(self) -> dict[str, dict[str, str]]:
        stored = {}
        for bundle in (self.detector_bundle, self.embedder_bundle):
            if bundle is None:
                continue
            relative = f"bundles/{bundle.kind}-{bundle.fingerprint[:16]}"
            target = self.root / relative
            if target.exists():
                try:
                    Bundle.open(target, bundle.kind)
                except ModelError:  # what a kill or a fault left there is not what the manifest will vouch for
                    raise CatalogueError(f"{target} is damaged", hint="remove that folder and build again") from None
            else:
                bundle.copy_to(target)
            stored[bundle.kind] = {"path": relative, "name": bundle.name, "fingerprint": bundle.fingerprint}
        return stored

    def _fail(self, row: ProductRow, error: ImageError) -> None:
        self.report.failures.append(
            {"image": row.image, "product_id": row.product_id, "reason": error.reason, "message": str(error)}
        )


def _holds_other_things(root: Path) -> bool:
    """Whether a folder holds anything that an unfinished build of ours has not put there."""
    ours = {".lock", "work", "generations", "segments", "bundles"}
    return not root.is_dir() or any(path.name not in ours for path in root.iterdir())
