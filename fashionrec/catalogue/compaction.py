"""Compaction: copy the vectors and thumbnails in use from many segments into one of each kind.

Segments are immutable: removed items stay in their segment, and each build adds one. A build
compacts if it pays off; `catalogue compact` does it on request. Nothing is embedded again, and
items keep their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fashionrec.common.batches import batched
from fashionrec.store.assemble import SegmentWriter
from fashionrec.store.manifest import SegmentEntry
from fashionrec.store.thumbnails import Thumbnails
from fashionrec.store.vectors import dtype_of, open_store
from fashionrec.store.writer import GenerationWriter

_BATCH = 1024
Segments = Mapping[str, SegmentEntry]


def should_compact(segments: Segments, used: dict[str, int], *, most: int, dead: float) -> bool:
    """Return whether there are more than ``most`` segments of a kind, or more than a share ``dead``
    of their rows is unused.
    """
    for kind in {entry.kind for entry in segments.values()}:
        names = [name for name, entry in segments.items() if entry.kind == kind]
        rows = sum(segments[name].count for name in names)
        if len(names) > most or (rows and 1 - sum(used.get(name, 0) for name in names) / rows > dead):
            return True
    return False


def compact_segments(writer: GenerationWriter) -> None:
    """Write one segment of each kind with the rows in use, and redirect the items to it.

    float16 is kept if all vectors have it. Raises :class:`CatalogueError` if a segment's content
    has changed.
    """
    if writer.previous:
        writer.previous.check(contents=True, below="segments/")
    images, root = list(writer.items.places()), writer.root
    if images:
        segment = _begin(writer, "image")
        vectors = _vectors(root, writer.segments, "image", [(place[1], place[2]) for place in images])
        with Thumbnails(root) as thumbnails:
            for (garment_no, source, _, offset, size), vector in zip(images, vectors, strict=True):
                row, begin = segment.add(vector, thumbnails.read(source, offset, size))
                writer.items.move(garment_no, segment.name, row, begin)
    texts = list(writer.items.caption_places())
    if texts:
        segment = _begin(writer, "caption")
        vectors = _vectors(root, writer.segments, "caption", [(place[1], place[2]) for place in texts])
        for (garment_no, _, _), vector in zip(texts, vectors, strict=True):
            row, _ = segment.add(vector, b"")
            writer.items.move_caption(garment_no, segment.name, row)


def _vectors(root: Path, segments: Segments, kind: str, places: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    store = open_store(root, segments, kind)
    for part in batched(places, _BATCH):
        for vector in store.fetch([store.position(*place) for place in part]):
            yield vector.tobytes()


def _begin(writer: GenerationWriter, kind: str) -> SegmentWriter:
    """Begin a segment for all vectors of a kind, of a type that fits each of them."""
    store = open_store(writer.root, writer.segments, kind)
    dtype = "float16" if {dtype_of(opened) for opened in store.indexes} == {"float16"} else "float32"
    embedder = next(entry.embedder for entry in writer.segments.values() if entry.kind == kind)
    return writer.new_segment(kind, embedder, store.dim, dtype=dtype, suffix=f"{kind}s")
