"""Build another index over the vectors of a catalogue; nothing is embedded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.system import link
from fashionrec.common.text import plural
from fashionrec.config import Config
from fashionrec.store import generations
from fashionrec.store.approximate import held_out_rows
from fashionrec.store.index import K
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.manifest import SegmentEntry
from fashionrec.store.vectors import VECTORS, VectorStore, dtype_of, open_vectors
from fashionrec.store.writer import GenerationWriter, next_generation

_BLOCK = 1 << 14
Segments = Mapping[str, SegmentEntry]


def reindex_catalogue(
    root: Path, config: Config, *, vectors: str | None = None, log: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Serve a new generation like the previous one, with a new index by ``config.index``.

    With ``vectors`` (``float32`` or ``float16``) segments of the other type are rewritten, and the
    recall@10 of float16 is measured. Returns the new index entry with ``generation`` and
    ``segments_converted``. Raises like :func:`fashionrec.store.writer.next_generation`.
    """
    with next_generation(root, config.index, log=log) as writer:
        converted = _convert_vectors(writer, vectors) if vectors else 0
        index = writer.make_index(anew=True)
        writer.commit("reindex", {"generation": writer.name, "index": index.to_dict()})
    return {**index.to_dict(), "generation": writer.name, "segments_converted": converted}


def _convert_vectors(writer: GenerationWriter, dtype: str) -> int:
    """Rewrite every segment whose vectors have another type; return how many there were."""
    before, root = dict(writer.segments), writer.root
    renamed: dict[str, str] = {}
    for number, (old, entry) in enumerate(sorted(before.items())):
        opened = open_vectors(root / "segments" / old / VECTORS, count=entry.count, dim=entry.dim)
        if dtype_of(opened) == dtype:
            continue
        if writer.previous:
            writer.previous.check(contents=True, below=f"segments/{old}/")
        writer.log(f"{old}: {plural(entry.count, 'vector')} to {dtype}")
        blocks = _blocks(VectorStore([(old, opened)]))
        new = writer.write_segment(f"{number:03d}-{entry.kind}", blocks, entry, dtype=dtype)
        for file in generations.folder_of(root).entries(f"segments/{old}"):
            name = file.name.rpartition("/")[2]
            if file.kind == "file" and name != VECTORS:
                link(root / file.name, root / "segments" / new / name)
        renamed[old] = new
    for kind in ("image", "caption") if dtype == "float16" else ():
        recall = _half_recall(root, before, writer.segments, renamed, kind)
        for old, new in renamed.items():
            if recall is not None and before[old].kind == kind:
                writer.segments[new] = replace(writer.segments[new], float16_recall_at_10=recall)
    if renamed:
        _rename_segments(writer.items, renamed)
    return len(renamed)


def _half_recall(root: Path, before: Segments, after: Segments, renamed: dict[str, str], kind: str) -> float | None:
    """Return the share of the ten nearest neighbours that float16 vectors preserve."""
    names = [name for name in sorted(before) if before[name].kind == kind and name in renamed]
    if not names:
        return None

    def open_segments(table: Segments, chosen: list[str]) -> VectorStore:
        paths = [(name, root / "segments" / name / VECTORS, table[name]) for name in chosen]
        return VectorStore([(n, open_vectors(path, count=e.count, dim=e.dim)) for n, path, e in paths])

    full, half = open_segments(before, names), open_segments(after, [renamed[name] for name in names])
    positions = held_out_rows(len(full), 256)
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


def _rename_segments(items: ItemWriter, renamed: dict[str, str]) -> None:
    """Refer to segments by their new names. Rows are unchanged."""
    for garment_no, segment, row, offset, _ in list(items.places()):
        if segment in renamed:
            items.move(garment_no, renamed[segment], row, offset)
    for garment_no, segment, row in list(items.caption_places()):
        if segment in renamed:
            items.move_caption(garment_no, renamed[segment], row)
