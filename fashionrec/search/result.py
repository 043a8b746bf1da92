"""The result for one photo, text or list: garments with their hits, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.errors import CatalogueError
from fashionrec.store.items import ItemReader, StoredItem
from fashionrec.store.rows import AGAIN
from fashionrec.types import Box, Garment, Hit, RankedProduct

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.photos.images import PhotoSource
    from fashionrec.search.embedded import EmbeddedQuery

STAGES = ("load", "detect", "caption", "embed", "search")


@dataclass(frozen=True)
class GarmentAnswer:
    """A query garment with its hits. ``stored`` has the stored item of each hit, for thumbnails.

    ``ranking`` is what was found before items were read; merged lists have none.
    """

    garment: Garment
    hits: tuple[Hit, ...]
    stored: tuple[StoredItem, ...]
    ranking: tuple[RankedProduct, ...] = ()

    def with_items(self, items: ItemReader) -> GarmentAnswer:
        """Return a copy with the hits of its ranking. Raises :class:`CatalogueError` for a missing
        item.
        """
        if not self.ranking:
            return self
        found = items.by_numbers([one.item_no for one in self.ranking])
        try:
            stored = tuple(found[one.item_no] for one in self.ranking)
        except KeyError as error:
            raise CatalogueError(f"catalogue is damaged: item {error} is incomplete", hint=AGAIN) from None
        hits = tuple(one.of(has.item) for one, has in zip(self.ranking, stored, strict=True))
        return replace(self, hits=hits, stored=stored)


@dataclass
class QueryResult:
    """The result for one photo or text.

    ``photo`` is its name as given (None for a text query), ``width`` and ``height`` are of the
    upright photo in pixels, ``notes`` are messages for the user, ``classes`` the classes named in a
    text, ``source`` the photo as given, ``queries`` the embedded queries of the garments,
    ``outfit`` one sentence (``en``, ``ko``) for captioned garments, and ``goes_with`` the
    recommendations, if requested.
    """

    photo: str | None
    width: int | None
    height: int | None
    garments: list[GarmentAnswer] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    text: str | None = None
    notes: list[str] = field(default_factory=list)
    seen: list[Garment] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    source: PhotoSource | None = None
    queries: list[EmbeddedQuery] = field(default_factory=list)
    outfit: dict[str, str] | None = None
    goes_with: list[GarmentAnswer] | None = None

    @property
    def title(self) -> str:
        """Its display name: the photo's name, or the text."""
        return Path(self.photo).name if self.photo else self.text or "the photo"

    @property
    def vectors(self) -> list[np.ndarray]:
        """The query vectors (float32 [d]) of the garments."""
        return [query.vector for query in self.queries if query.vector is not None]

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage, in milliseconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings_ms[stage] += (time.perf_counter() - start) * 1000

    def read_items(self, items: ItemReader) -> None:
        """Read the items of the rankings and make hits of them."""
        with self.timed("search"):
            self.garments = [one.with_items(items) for one in self.garments]

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the document of ``fashionrec query --json``; ``explain`` adds the parts of each
        score, and notes.
        """
        document: dict[str, Any] = {
            "photo": self.photo,
            "width": self.width,
            "height": self.height,
            "garments": [garment_document(found, explain) for found in self.garments],
            "timings_ms": {stage: round(self.timings_ms[stage], 2) for stage in STAGES},
        }
        if self.text is not None:
            document["text"] = self.text
        if self.outfit is not None:
            document["outfit"] = dict(self.outfit)
        if explain:
            document["notes"] = list(self.notes)
        if self.goes_with is not None:
            document["goes_with"] = [garment_document(found, explain) for found in self.goes_with]
        return document


def garment_document(found: GarmentAnswer, explain: bool = False) -> dict[str, Any]:
    """Return the document of one garment with its hits."""
    garment = found.garment
    return {
        "index": garment.index,
        "class_name": garment.class_name,
        "confidence": None if garment.confidence is None else round(garment.confidence, 4),
        "box": _box(garment.box),
        "whole_photo": garment.whole_photo,
        "caption": garment.caption,
        "hits": [_hit(hit, explain) for hit in found.hits],
    }


def _hit(hit: Hit, explain: bool) -> dict[str, Any]:
    item = hit.item
    document = {
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "cosine": None if hit.cosine is None else round(hit.cosine, 6),
        "match": hit.match,
        "item_id": item.item_id,
        "product_id": item.product_id,
        "image": item.image,
        "class_name": item.class_name,
        "box": _box(item.box),
        "caption": item.caption,
        "attributes": item.attributes,
        "metadata": item.metadata,
    }
    if explain:
        document["parts"] = {name: round(value, 6) for name, value in hit.parts.items()}
    return document


def _box(box: Box) -> list[float]:
    return [round(float(value), 2) for value in box]
