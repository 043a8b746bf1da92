"""Compaction: the vectors and thumbnails that are still in use, out of many segments into one of each kind.

Segments are immutable, so what a nightly build takes away stays in its segment, and each build adds one. A build compacts
by itself where that pays; `catalogue compact` does it when asked. Nothing is embedded again and no item changes its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fashionrec.store.assemble import SegmentWriter
from fashionrec.store.item_writer import ItemWriter
from fashionrec.store.thumbnails import Thumbnails
from fashionrec.store.vectors import dtype_of, open_store

_BATCH = 1024
Segments = dict[str, dict[str, Any]]


def should_compact(segments: Segments, used: dict[str, int], *, most: int, dead: float) -> bool:
    """Whether there are more than ``most`` segments of a kind, or more than a share ``dead`` of their rows is unused."""
    for kind in {entry["kind"] for entry in segments.values()}:
        names = [name for name, entry in segments.items() if entry["kind"] == kind]
        rows = sum(int(segments[name]["count"]) for name in names)
        if len(names) > most or (rows and 1 - sum(used.get(name, 0) for name in names) / rows > dead):
            return True
    return False


def compact_segments(root: Path, name: str, writer: ItemWriter, segments: Segments) -> Segments:
    """Write one segment of each kind with the rows that the items in ``writer`` refer to, and point them there.

    ``name`` is the generation that is being made. Half floats stay half floats where all vectors are. Returns the table of
    segments for its manifest.
    """
    made: Segments = {}
    images = list(writer.places())
    if images:
        segment = SegmentWriter(root / "segments" / f"{name}-images", *_shape(root, segments, "image"))
        vectors = _vectors(root, segments, "image", [(place[1], place[2]) for place in images])
        with Thumbnails(root) as thumbnails:
            for (garment_no, source, _, offset, size), vector in zip(images, vectors, strict=True):
                row, begin = segment.add(vector, thumbnails.read(source, offset, size))
                writer.move(garment_no, segment.name, row, begin)
        segment.close()
        made[segment.name] = _entry(segment, segments, "image")
    texts = list(writer.caption_places())
    if texts:
        segment = SegmentWriter(root / "segments" / f"{name}-captions", *_shape(root, segments, "caption"))
        vectors = _vectors(root, segments, "caption", [(place[1], place[2]) for place in texts])
        for (garment_no, _, _), vector in zip(texts, vectors, strict=True):
            row, _ = segment.add(vector, b"")
            writer.move_caption(garment_no, segment.name, row)
        segment.close()
        made[segment.name] = _entry(segment, segments, "caption")
    return made


def _vectors(root: Path, segments: Segments, kind: str, places: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    store = open_store(root, segments, kind)
    source = iter(places)
    while part := list(islice(source, _BATCH)):
        for vector in store.fetch([store.position(*place) for place in part]):
            yield vector.tobytes()


def _shape(root: Path, segments: Segments, kind: str) -> tuple[int, str]:
    """The length of the vectors of a kind, and the type that holds all of them."""
    store = open_store(root, segments, kind)
    types = {dtype_of(opened) for opened in store.indexes}
    return store.dim, "float16" if types == {"float16"} else "float32"


def _entry(segment: SegmentWriter, segments: Segments, kind: str) -> dict[str, Any]:
    return segment.entry(kind, next(entry["embedder"] for entry in segments.values() if entry["kind"] == kind))
