"""Parts of a new generation: the segment that holds its new vectors, stable item ids, and which garment is the product."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.store.generations import THUMBNAILS
from fashionrec.store.items import GarmentRow, PhotoRow
from fashionrec.store.journal import FoundPhoto
from fashionrec.store.vectors import VECTORS, write_vectors
from fashionrec.types import Garment, resolve_class

#: Classes worn on the same half of the body: what a detector takes for one another.
_HALVES = {
    "top": {"top"},
    "pants": {"pants", "skirt&pants", "skirt"},
    "skirt": {"skirt", "skirt&pants", "pants"},
    "skirt&pants": {"skirt&pants", "skirt", "pants"},
    "dress": {"dress"},
}


class SegmentWriter:
    """Collects new vectors and thumbnails and writes them as one immutable segment. No segment where there are none."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim, self.count = folder, dim, 0
        self._vectors: list[bytes] = []
        self._thumbnails: Any = None
        self._offset = 0

    @property
    def name(self) -> str:
        return self.folder.name

    def add(self, found: FoundPhoto | None, build_key: str) -> PhotoRow:
        """Take in a photo of the journal; returns it as it is stored."""
        if found is None:
            raise KeyError("a photo that was just processed is not in the journal")
        if self._thumbnails is None:
            self.folder.mkdir(parents=True)
            self._thumbnails = (self.folder / THUMBNAILS).open("wb")
        rows = []
        for position, g in enumerate(found.garments):
            self._vectors.append(g.vector)
            self._thumbnails.write(g.thumbnail)
            rows.append(
                GarmentRow(
                    position=position,
                    class_name=g.class_name,
                    confidence=g.confidence,
                    box=g.box,
                    whole_photo=g.whole_photo,
                    segment=self.name,
                    row=self.count,
                    thumb_offset=self._offset,
                    thumb_size=len(g.thumbnail),
                )
            )
            self._offset += len(g.thumbnail)
            self.count += 1
        return PhotoRow(found.sha256, found.width, found.height, build_key, tuple(rows))

    def close(self) -> None:
        """Write the segment's files."""
        if self._thumbnails is None:
            return
        self._thumbnails.close()
        vectors = np.frombuffer(b"".join(self._vectors), np.float32).reshape(-1, self.dim)
        write_vectors(self.folder / VECTORS, vectors)
        self._vectors = []


def item_id(product_id: str, photo: str, garment: GarmentRow) -> str:
    """A stable id: the same product, photo content and garment always have the same one. 16 hex digits."""
    box = ",".join(str(round(value)) for value in garment.box)
    text = "\x1f".join([product_id, photo, garment.class_name or "", box])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def assign_roles(
    garments: Sequence[GarmentRow], metadata: dict[str, Any], category_columns: Iterable[str]
) -> list[bool]:
    """For each garment of a product's photo: is it only worn with the product (True), or the product itself (False)?

    Where the product's row names its category, the most confident garment of that class is the product; failing that, the
    only garment, or the most confident one worn on the same half of the body. Where no category is known, or none of the
    garments can be it, all of them stand for the product.
    """
    wanted = next((name for column in category_columns if (name := resolve_class(str(metadata.get(column, ""))))), None)
    if wanted is None:
        return [False] * len(garments)
    product = product_garment(garments, wanted)
    return [False] * len(garments) if product is None else [n != product for n in range(len(garments))]


def product_garment(garments: Sequence[GarmentRow | Garment], wanted: str) -> int | None:
    """Which garment of a photo is the product, known to be of class ``wanted``: the most confident one of that class;
    failing that the only one, or the most confident one worn on the same half of the body, which is what a detector takes
    for it. None where none of them can be it."""
    if len(garments) == 1:
        return 0
    for classes in ({wanted}, _HALVES[wanted]):
        fitting = [n for n, garment in enumerate(garments) if garment.class_name in classes]
        if fitting:
            return max(fitting, key=lambda n: garments[n].confidence or 0.0)
    return None
