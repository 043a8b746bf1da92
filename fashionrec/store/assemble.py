"""Parts of a new generation: the segment of its new vectors, its bundles, stable item ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from fashionrec.errors import CatalogueError, ModelError
from fashionrec.models.bundle import Bundle
from fashionrec.store.content import GarmentRow, PhotoRow
from fashionrec.store.generations import THUMBNAILS, folder_of
from fashionrec.store.journal import FoundPhoto
from fashionrec.store.manifest import BundleEntry, SegmentEntry
from fashionrec.store.vectors import VECTORS, write_vectors

_RAW = "vectors.raw"
_BLOCK = 4096  # vectors per read


class SegmentWriter:
    """Streams new vectors and thumbnails to disk as one immutable segment, if there are any."""

    def __init__(self, folder: Path, dim: int, dtype: str = "float32") -> None:
        self.folder, self.dim, self.dtype, self.count = folder, dim, dtype, 0
        self.half_recall: float | None = None
        self._raw: IO[bytes] | None = None
        self._thumbnails: IO[bytes] | None = None
        self._offset = 0

    @property
    def name(self) -> str:
        return self.folder.name

    def add(self, vector: bytes, thumbnail: bytes) -> tuple[int, int]:
        """Add a vector (float32 bytes) and a JPEG; return its row, and the offset of the JPEG."""
        if self._raw is None or self._thumbnails is None:
            folder_of(self.folder.parent.parent).make_folder(f"segments/{self.name}")
            self._raw = (self.folder / _RAW).open("wb")
            self._thumbnails = (self.folder / THUMBNAILS).open("wb")
        if len(vector) != 4 * self.dim:
            raise CatalogueError(f"a vector has {len(vector) // 4} values; the encoder's have {self.dim}")
        self._raw.write(vector)
        self._thumbnails.write(thumbnail)
        row, offset = self.count, self._offset
        self.count += 1
        self._offset += len(thumbnail)
        return row, offset

    def add_photo(self, found: FoundPhoto, build_key: str) -> PhotoRow:
        """Add a photo of the journal; return its stored row."""
        rows = []
        for position, g in enumerate(found.garments):
            row, offset = self.add(g.vector, g.thumbnail)
            place = self.name, row, offset, len(g.thumbnail)
            rows.append(GarmentRow(position, g.class_name, g.confidence, g.box, g.whole_photo, *place))
        return PhotoRow(found.sha256, found.width, found.height, build_key, tuple(rows))

    def close(self) -> None:
        """Finish the segment's files."""
        if self._raw is None or self._thumbnails is None:
            return
        self._thumbnails.close()
        self._raw.close()
        raw = self.folder / _RAW
        with raw.open("rb") as file:
            written = write_vectors(self.folder / VECTORS, _blocks(file, self.dim), self.dim, self.dtype)
        self.half_recall = written.float16_recall_at_10
        raw.unlink()

    def entry(self, kind: str, embedder: str) -> SegmentEntry:
        """Return the segment's manifest entry; ``embedder`` is the fingerprint of the encoder."""
        return SegmentEntry(kind, self.count, self.dim, embedder, self.half_recall)

    def discard(self) -> None:
        """Close the files without finishing them; the next commit removes them."""
        for file in (self._raw, self._thumbnails):
            if file is not None:
                file.close()


def _blocks(file: IO[bytes], dim: int) -> Iterator[np.ndarray]:
    """Yield the raw vectors in a file as blocks of float32 [n, dim]."""
    while (block := np.fromfile(file, np.float32, _BLOCK * dim)).size:
        yield block.reshape(-1, dim)


def store_bundle(root: Path, bundle: Bundle) -> BundleEntry:
    """Copy a bundle into a catalogue unless it exists; return its entry in the manifest.

    Raises:
        CatalogueError: A damaged bundle has its name.
    """
    relative = f"bundles/{bundle.kind}-{bundle.fingerprint[:16]}"
    folder = folder_of(root)
    folder.make_folder("bundles", exist_ok=True)
    target = folder.path(relative, "folder")
    if target.exists():
        try:
            there = Bundle.open(target, bundle.kind).fingerprint
        except ModelError:  # the manifest must not vouch for what a kill or a fault left
            there = ""
        if there != bundle.fingerprint:
            raise CatalogueError(f"{target} is damaged", hint="delete that folder and build again")
    else:
        bundle.copy_to(target)
    return BundleEntry(relative, bundle.name, bundle.fingerprint)


def item_id(product_id: str, photo: str, garment: GarmentRow) -> str:
    """Return a stable id of 16 hex digits for a product, photo content and garment."""
    box = ",".join(str(round(value)) for value in garment.box)
    text = "\x1f".join([product_id, photo, garment.class_name or "", box])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
