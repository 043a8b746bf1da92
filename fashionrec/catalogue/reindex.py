"""Another index for a catalogue, of the vectors that it has: nothing is embedded again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.files import dump_json, write_atomic
from fashionrec.config import Config
from fashionrec.models.runs import now
from fashionrec.store import generations
from fashionrec.store.approximate import left_out_rows
from fashionrec.store.index import K, make_index
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.vectors import VECTORS, VectorStore, dtype_of, open_vectors, write_vectors

_BLOCK = 1 << 14
Segments = dict[str, dict[str, Any]]


def reindex_catalogue(
    root: Path, config: Config, *, vectors: str | None = None, log: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Serve a new generation like the one before, with a new index by ``config.index``.

    Vectors stay as they are, unless ``vectors`` says ``float32`` or ``float16``: segments that have others are then written
    anew, and the recall@10 of half floats against what was there is measured. Returns the new index entry with ``generation``
    and ``segments_converted``. Raises :class:`Busy` where another process writes, :class:`CatalogueError` for a damaged
    catalogue, :class:`WriteError` where the disk takes no more; what was served is then served still.
    """
    generations.read_current(root)  # before the lock, which would make the folder
    with generations.writer_lock(root):
        old = generations.read_current(root)
        old.check()
        name, folder = generations.begin(root)
        segments, renamed = _converted(root, name, old.segments, vectors, log)
        if renamed:
            _point(old.items_path, folder / generations.ITEMS, renamed)
        else:
            shutil.copyfile(old.items_path, folder / generations.ITEMS)
        index = make_index(root, name, segments, settings=config.index, previous=None, log=log)
        write_atomic(folder / generations.REPORT, dump_json({"generation": name, "index": index}))
        manifest = {**old.manifest, "created": now(), "made_by": "reindex", "segments": segments, "index": index}
        generations.commit(root, name, manifest)
    return {**index, "generation": name, "segments_converted": len(renamed)}


def _converted(
    root: Path, name: str, segments: Segments, dtype: str | None, log: Callable[[str], None]
) -> tuple[Segments, dict[str, str]]:
    """The table of segments with all vectors as ``dtype``, and the new name of each that was written anew."""
    if dtype is None:
        return segments, {}
    table: Segments = {}
    renamed: dict[str, str] = {}
    for number, (old, entry) in enumerate(sorted(segments.items())):
        path = root / "segments" / old / VECTORS
        opened = open_vectors(path, count=entry["count"], dim=entry["dim"])
        if dtype_of(opened) == dtype:
            table[old] = entry
            continue
        new = f"{name}-{number:03d}-{entry['kind']}"
        inside = generations.folder_of(root)
        folder = inside.make_folder(f"segments/{new}")
        log(f"{old}: {entry['count']:,} vectors to {dtype}")
        write_vectors(folder / VECTORS, _blocks(VectorStore([(old, opened)])), entry["dim"], dtype)
        for file in inside.entries(f"segments/{old}"):
            name_in_segment = file.name.rpartition("/")[2]
            if file.kind == "file" and name_in_segment != VECTORS:
                _share(root / file.name, folder / name_in_segment)
        table[new] = {key: value for key, value in entry.items() if key != "float16_recall_at_10"}
        renamed[old] = new
    if dtype == "float16" and renamed:
        for kind in ("image", "caption"):
            recall = _half_recall(root, segments, table, renamed, kind)
            for new in renamed.values():
                if recall is not None and table[new]["kind"] == kind:
                    table[new]["float16_recall_at_10"] = recall
    return table, renamed


def _half_recall(root: Path, before: Segments, after: Segments, renamed: dict[str, str], kind: str) -> float | None:
    """Of the ten nearest by the vectors as they were, the share that is nearest among those written as half floats."""
    names = [name for name in sorted(before) if before[name]["kind"] == kind and name in renamed]
    if not names:
        return None

    def opened(table: Segments, chosen: list[str]) -> VectorStore:
        paths = [(name, root / "segments" / name / VECTORS, table[name]) for name in chosen]
        return VectorStore([(n, open_vectors(path, count=e["count"], dim=e["dim"])) for n, path, e in paths])

    full, half = opened(before, names), opened(after, [renamed[name] for name in names])
    positions = left_out_rows(len(full), 256)
    if not len(positions):
        positions = np.arange(len(full))
    k = min(K, len(full) - 1)
    if k < 1:
        return 1.0
    questions = full.fetch(positions)
    one, two = full.search(questions, k + 1)[1], half.search(questions, k + 1)[1]
    shares = [
        len(np.intersect1d(a[a != own][:k], b[b != own][:k])) / k for a, b, own in zip(one, two, positions, strict=True)
    ]
    return round(float(np.mean(shares)), 4)


def _blocks(store: VectorStore) -> Iterator[np.ndarray]:
    for start in range(0, len(store), _BLOCK):
        yield store.fetch(np.arange(start, min(start + _BLOCK, len(store))))


def _share(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _point(source: Path, target: Path, renamed: dict[str, str]) -> None:
    """A copy of the items that names segments by their new names. Rows are as they were."""
    writer = ItemWriter(target, source)
    try:
        for garment_no, segment, row, offset, _ in list(writer.places()):
            if segment in renamed:
                writer.move(garment_no, renamed[segment], row, offset)
        for garment_no, segment, row in list(writer.caption_places()):
            if segment in renamed:
                writer.move_caption(garment_no, renamed[segment], row)
        writer.close()
    except BaseException:
        writer.discard()
        raise
