"""Reuse vectors of identical crops: another detector or threshold often cuts a garment the same
way.
"""

from __future__ import annotations

import threading

from fashionrec.catalogue.build.pipeline import Rectangle
from fashionrec.photos.images import crop_rectangle
from fashionrec.store.generations import Generation
from fashionrec.store.items import ItemReader
from fashionrec.store.manifest import CatalogueSettings
from fashionrec.store.thumbnails import Thumbnails
from fashionrec.store.vectors import open_store


class KnownCrops:
    """Crops of a generation, by photo and rectangle. Empty if it used another encoder or other
    crops.

    Thread-safe. ``found`` counts the reused crops.
    """

    def __init__(
        self, generation: Generation | None, items: ItemReader | None, settings: CatalogueSettings, encoder: str
    ) -> None:
        self.found = 0
        self._items: ItemReader | None = None
        self._lock, self._is_checked = threading.Lock(), False
        if generation is None or items is None:
            return
        before = generation.manifest.settings
        if before.crop is None or any(
            getattr(before, key) != getattr(settings, key) for key in ("crop", "thumbnail", "scaled_decoding")
        ):
            return
        if generation.manifest.bundles["embedder"].fingerprint != encoder:
            return
        self._items, self._generation = items, generation
        self._crop, self._key = before.crop, before.build_key
        self._vectors = open_store(generation.root, generation.manifest.segments, "image")

    def find(self, photo: str, rectangle: Rectangle) -> tuple[bytes, bytes] | None:
        """Return vector (float32 bytes) and thumbnail (JPEG bytes) of a crop of a photo (sha256);
        None if it is new.
        """
        if self._items is None:
            return None
        stored = self._items.photo(photo)
        if stored is None or stored.build_key != self._key:
            return None
        for garment in stored.garments:
            if crop_rectangle(stored.width, stored.height, garment.box, self._crop) == rectangle:
                self._check()
                vector = self._vectors.fetch([self._vectors.position(garment.segment, garment.row)])[0]
                with Thumbnails(self._generation.root) as thumbnails:
                    thumbnail = thumbnails.read(garment.segment, garment.thumb_offset, garment.thumb_size)
                self.found += 1
                return vector.tobytes(), thumbnail
        return None

    def _check(self) -> None:
        """Check that the vectors are those that were written. Raises :class:`CatalogueError`."""
        with self._lock:
            if not self._is_checked:
                self._generation.check(contents=True, below="segments/")
                self._is_checked = True
