"""From a query vector to hits: nearest garments, softly the same class, in stock, one hit per product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.search.answer import GarmentAnswer
from fashionrec.store.items import StoredItem
from fashionrec.types import Garment, Hit

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: Values of a product's `availability` that mean it cannot be bought now (Google's and schema.org's words).
UNAVAILABLE = frozenset({"out_of_stock", "out of stock", "outofstock", "sold_out", "sold out", "discontinued", "품절"})


def rank(
    catalogue: Catalogue,
    garment: Garment,
    image_query: np.ndarray,
    settings: QueryConfig,
    *,
    text_query: np.ndarray | None = None,
    lexical: Mapping[int, float] | None = None,
) -> GarmentAnswer:
    """The ``settings.k`` best products for one garment or text.

    ``image_query`` (float32 [d], unit length) is compared with the garments' image vectors. With ``text_query`` the
    captions' vectors are compared too and mixed in with ``caption_weight``; with ``lexical`` (item number to relevance
    0..1) matching words are mixed in with ``lexical_weight``. Scores stay cosines or mixes of them with 0..1. The search
    widens until k products are found or the catalogue is exhausted, so filters never shorten an answer needlessly.
    """
    total = len(catalogue.images)
    want = min(total, max(64, settings.k * 8))
    while True:
        candidates = _candidates(catalogue, image_query, text_query, lexical, settings, want)
        scored = [(score - _class_penalty(garment, stored, settings), stored) for score, stored in candidates]
        best = _one_per_product(scored, settings)
        if len(best) >= settings.k or want >= total:
            break
        want = min(total, want * 8)
    best = best[: settings.k]
    hits = tuple(Hit(n, float(score), stored.item) for n, (score, stored) in enumerate(best, start=1))
    return GarmentAnswer(garment, hits, tuple(stored for _, stored in best))


def _candidates(
    catalogue: Catalogue,
    image_query: np.ndarray,
    text_query: np.ndarray | None,
    lexical: Mapping[int, float] | None,
    settings: QueryConfig,
    want: int,
) -> list[tuple[float, StoredItem]]:
    """Scored items: those near by image, by caption or by words, each with its whole score."""
    scores, positions = catalogue.images.search(image_query[None], want)
    cosine = {catalogue.images.locate(int(p)): float(s) for s, p in zip(scores[0], positions[0], strict=True)}
    found = {stored.item_no: stored for items in catalogue.items.at_rows(cosine).values() for stored in items}
    if lexical:
        missing = [number for number in lexical if number not in found]
        found |= catalogue.items.by_numbers(missing)
    items = list(found.values())
    absent = [stored.image_at for stored in items if stored.image_at not in cosine]
    if absent:
        vectors = catalogue.images.fetch([catalogue.images.position(*place) for place in absent])
        cosine |= dict(zip(absent, map(float, vectors @ image_query), strict=True))
    result = {stored.item_no: cosine[stored.image_at] for stored in items}
    if text_query is not None and len(catalogue.captions):
        weight = settings.caption_weight
        described = [stored for stored in items if stored.caption_at is not None]
        places = [catalogue.captions.position(*stored.caption_at) for stored in described if stored.caption_at]
        similar = catalogue.captions.fetch(places) @ text_query
        for stored, value in zip(described, similar, strict=True):
            result[stored.item_no] = (1 - weight) * result[stored.item_no] + weight * float(value)
    if lexical is not None:
        weight = settings.lexical_weight
        for number in result:
            result[number] = (1 - weight) * result[number] + weight * lexical.get(number, 0.0)
    return [(result[number], stored) for number, stored in found.items()]


def _class_penalty(garment: Garment, stored: StoredItem, settings: QueryConfig) -> float:
    other = garment.class_name is not None and stored.item.class_name not in (None, garment.class_name)
    return settings.same_class if other else 0.0


def _one_per_product(scored: list[tuple[float, StoredItem]], settings: QueryConfig) -> list[tuple[float, StoredItem]]:
    best: dict[str, tuple[float, StoredItem]] = {}
    for score, stored in sorted(scored, key=_order):
        if stored.worn_with or score < settings.min_score or stored.item.product_id in best:
            continue
        if settings.hide_unavailable and is_unavailable(stored):
            continue
        best[stored.item.product_id] = (score, stored)
    return list(best.values())


def is_unavailable(stored: StoredItem) -> bool:
    """Whether the product's own data says that it cannot be bought now."""
    return str(stored.item.metadata.get("availability", "")).strip().lower() in UNAVAILABLE


_order: Callable[[tuple[float, StoredItem]], tuple[float, int]] = lambda pair: (-pair[0], pair[1].item_no)  # noqa: E731
