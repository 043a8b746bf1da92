"""Rank products for a query vector: nearest garments, a bonus for the same class, filters,
availability, one hit per product.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.common.batches import batched
from fashionrec.search.fusion import Signal, fusion_of
from fashionrec.search.result import GarmentAnswer
from fashionrec.types import RankedProduct

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.search.embedded import EmbeddedQuery, Lexical
    from fashionrec.search.filters.columns import Columns
    from fashionrec.search.result import QueryResult
    from fashionrec.store.items import ItemReader, StoredItem
    from fashionrec.store.rows import ItemKey

#: Values of `availability` that mean unavailable (Google's and schema.org's words).
UNAVAILABLE = frozenset({"out_of_stock", "out of stock", "outofstock", "sold_out", "sold out", "discontinued", "품절"})
#: Columns with the ISO date of a product's release.
RELEASE_COLUMNS = ("availability_date", "release_date", "available_from")
#: Hits per result from which diversity chooses.
_POOL = 5


@dataclass
class _Candidate:
    """An item with its image cosine, its score and the parts of the score."""

    key: ItemKey
    cosine: float
    parts: dict[str, float] = field(default_factory=dict)
    score: float = 0.0


def rank_products(catalogue: Catalogue, query: EmbeddedQuery, settings: QueryConfig) -> GarmentAnswer:
    """Return the ``settings.k`` best products for one garment or text, without reading items.

    Captions are mixed in with ``caption_weight`` and matching words with ``lexical_weight``, if
    ``query`` has them. Scores are cosines or their mixes with 0..1, or with ``fusion: rrf`` made of
    ranks (:mod:`fashionrec.search.fusion`); ``parts`` of a hit are the summands. ``settings.where``
    is applied within the search, which widens until k products are found or the catalogue is
    exhausted.
    """
    garment, lexical, image_query = query.garment, query.lexical, query.vector
    if image_query is None:
        settings = settings.model_copy(update={"lexical_weight": 1.0})
        image_query = np.zeros(catalogue.embedder.dim, np.float32)
    allowed = _columns(catalogue).allowed(settings.where)[1] if settings.where else None
    total = len(catalogue.images) if allowed is None else int(allowed.sum())
    preferred = {*query.classes, *([garment.class_name] if garment.class_name else [])}
    wanted = settings.k * (_POOL if settings.diversity else 1)
    want = min(total, max(64, wanted * 8, lexical.look_for if lexical else 0))
    exact = query.by_text and not catalogue.images.serves_text
    while True:
        found = _candidates(catalogue, image_query, query.caption, lexical, settings, want, allowed, exact, preferred)
        best = _one_per_product(catalogue.items, found, settings, query.without, wanted)
        if len(best) >= wanted or want >= total:
            break
        want = min(total, want * 8)
    chosen = _diverse(catalogue, best, settings) if settings.diversity else best
    has_cosine = bool(image_query.any())
    match = catalogue.measured.match_of("text" if query.by_text else "photo") if has_cosine else None
    ranking = []
    for n, one in enumerate(chosen, start=1):
        parts = {name: float(part) for name, part in one.parts.items()}
        cosine = one.cosine if has_cosine else None
        ranked = RankedProduct(n, float(one.score), one.key.product_id, one.key.item_no, parts, cosine)
        ranking.append(replace(ranked, match=match(ranked.closeness)) if match else ranked)
    return GarmentAnswer(garment, (), (), tuple(ranking))


def rank_all(
    catalogue: Catalogue, queries: Iterable[EmbeddedQuery], settings: QueryConfig, result: QueryResult
) -> None:
    """Add the ranking of each query to a result, with the query and its time."""
    with result.timed("search"):
        for query in queries:
            result.queries.append(query)
            result.garments.append(rank_products(catalogue, query, settings))


def _columns(catalogue: Catalogue) -> Columns:
    from fashionrec.search.filters.columns import Columns

    return catalogue.memoize(Columns.of)


def _candidates(
    catalogue: Catalogue,
    image_query: np.ndarray,
    text_query: np.ndarray | None,
    lexical: Lexical | None,
    settings: QueryConfig,
    want: int,
    allowed: np.ndarray | None,
    exact: bool,
    preferred: Collection[str],
) -> list[_Candidate]:
    """Return scored items: candidates by image, caption or words, each with its full score, minus a
    penalty for classes other than ``preferred``.
    """
    scores, positions = catalogue.images.search(image_query[None], want, exact=exact, allowed=allowed)
    cosine = dict(zip(catalogue.images.locate(positions[0]), scores[0].tolist(), strict=True))
    found = {key.item_no: key for key in catalogue.items.keys_at_rows(cosine)}
    if lexical:
        missing = [number for number in lexical.first if number not in found]
        found |= {key.item_no: key for key in catalogue.items.keys_by_numbers(missing)}
    if settings.where:
        kept = _columns(catalogue).kept(settings.where, list(found))
        found = {number: key for number, key in found.items() if number in kept}
    items = list(found.values())
    absent = [key.image_at for key in items if key.image_at not in cosine]
    if absent:
        vectors = catalogue.images.fetch([catalogue.images.position(*place) for place in absent])
        cosine |= dict(zip(absent, map(float, vectors @ image_query), strict=True))
    captions: dict[int, float] = {}
    if text_query is not None and len(catalogue.captions):
        described = [key for key in items if key.caption_at is not None]
        places = [catalogue.captions.position(*key.caption_at) for key in described if key.caption_at]
        similar = catalogue.captions.fetch(places) @ text_query
        captions = {key.item_no: float(value) for key, value in zip(described, similar, strict=True)}
    candidates = [_Candidate(key, cosine[key.image_at]) for key in items]
    _weigh(candidates, captions, lexical, settings, preferred)
    return candidates


def _weigh(
    candidates: list[_Candidate],
    captions: Mapping[int, float],
    lexical: Lexical | None,
    settings: QueryConfig,
    preferred: Collection[str],
) -> None:
    """Compute the score of each candidate from image, caption, words and class."""
    words = settings.lexical_weight if lexical is not None else 0.0
    signals: dict[str, Signal] = {}
    if captions:
        signals["caption"] = (1 - words) * settings.caption_weight, captions
    if lexical is not None:
        signals["words"] = words, lexical.relevance_of([one.key.item_no for one in candidates])
    kept = {None, *preferred}
    penalised = {one.key.item_no for one in candidates if one.key.class_name not in kept} if preferred else set()
    fuse = fusion_of(settings.fusion if signals else "weighted")  # an image alone keeps its cosine
    images = {one.key.item_no: one.cosine for one in candidates}
    parts = fuse(images, 1 - words, signals, penalised, settings.same_class)
    for one in candidates:
        one.parts = parts[one.key.item_no]
        one.score = sum(one.parts.values())


def _one_per_product(
    items: ItemReader, candidates: list[_Candidate], settings: QueryConfig, without: Collection[str], wanted: int
) -> list[_Candidate]:
    """Return the best item of each product that may be shown, at most ``wanted``; availability is
    read for these only.
    """
    best: dict[str, _Candidate] = {}
    order = sorted(candidates, key=lambda one: (-one.score, one.key.item_no))
    shown = [one for one in order if not one.key.worn_with and one.score >= settings.min_score]
    for part in batched((one for one in shown if one.key.product_id not in without), wanted):
        sold_out = unavailable(items, [one.key.item_no for one in part]) if settings.hide_unavailable else ()
        for one in part:
            if one.key.item_no not in sold_out and len(best) < wanted:
                best.setdefault(one.key.product_id, one)
        if len(best) == wanted:
            break
    return list(best.values())


def _diverse(catalogue: Catalogue, pool: list[_Candidate], settings: QueryConfig) -> list[_Candidate]:
    """Choose diverse hits by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each next hit is near to the query and, by ``settings.diversity``, far from those chosen before
    it.
    """
    if not pool:
        return []
    vectors = catalogue.images.fetch([catalogue.images.position(*one.key.image_at) for one in pool])
    relevance = np.array([one.score for one in pool])
    nearest = np.full(len(pool), -1.0)
    chosen: list[int] = []
    while len(chosen) < min(settings.k, len(pool)):
        value = (1 - settings.diversity) * relevance - (settings.diversity * nearest if chosen else 0.0)
        value[chosen] = -np.inf
        best = int(np.argmax(value))
        chosen.append(best)
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return [pool[n] for n in chosen]


def unavailable(items: ItemReader, numbers: Sequence[int]) -> set[int]:
    """Return those of some items, by number, that are unavailable."""
    today = datetime.date.today().isoformat()
    return {number for number, stored in items.by_numbers(numbers).items() if is_unavailable(stored, today)}


def is_unavailable(stored: StoredItem, today: str | None = None) -> bool:
    """Return whether a product's data says it is unavailable: sold out, or not released before
    ``today``.
    """
    metadata = stored.item.metadata
    if str(metadata.get("availability", "")).strip().lower() in UNAVAILABLE:
        return True
    today = today or datetime.date.today().isoformat()
    for column in RELEASE_COLUMNS:
        released = str(metadata.get(column, ""))[:10]
        if len(released) == 10 and released[4] == released[7] == "-" and released > today:
            return True
    return False
