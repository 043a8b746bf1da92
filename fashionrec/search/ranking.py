"""From a query vector to hits: nearest garments, softly the same class, what a filter keeps, in stock, one hit per product."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.search.fusion import Signal, fusion_of
from fashionrec.search.result import GarmentAnswer
from fashionrec.store.items import StoredItem
from fashionrec.types import Hit

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.search.embedded import EmbeddedQuery, Lexical
    from fashionrec.search.filters.columns import Columns
    from fashionrec.search.result import QueryResult

#: Values of a product's `availability` that mean it cannot be bought now (Google's and schema.org's words).
UNAVAILABLE = frozenset({"out_of_stock", "out of stock", "outofstock", "sold_out", "sold out", "discontinued", "품절"})
#: Columns that say from when on a product can be bought, as an ISO date.
RELEASE_COLUMNS = ("availability_date", "release_date", "available_from")
#: Of how many hits for each asked for diversity chooses.
_POOL = 5


@dataclass
class _Candidate:
    """An item, its picture's cosine, its score and what that is made of."""

    stored: StoredItem
    cosine: float
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        return sum(self.parts.values())


def rank(catalogue: Catalogue, query: EmbeddedQuery, settings: QueryConfig) -> GarmentAnswer:
    """The ``settings.k`` best products for one garment or text.

    Captions are mixed in with ``caption_weight`` and matching words with ``lexical_weight``, as far as ``query`` has them.
    Scores stay cosines or mixes of them with 0..1, or with ``fusion: rrf`` are made of ranks
    (:mod:`fashionrec.search.fusion`); ``parts`` of a hit are the summands. ``settings.where`` is applied within the search,
    which widens until k products are found or the catalogue is exhausted.
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
        best = _one_per_product(found, settings, query.without)
        if len(best) >= wanted or want >= total:
            break
        want = min(total, want * 8)
    chosen = _diverse(catalogue, best, settings) if settings.diversity else best[: settings.k]
    match = catalogue.measured.match_of("text" if query.by_text else "photo")
    has_cosine = bool(image_query.any())
    hits = []
    for n, one in enumerate(chosen, start=1):
        parts = {name: float(part) for name, part in one.parts.items()}
        hit = Hit(n, float(one.score), one.stored.item, parts, one.cosine if has_cosine else None)
        hits.append(replace(hit, match=match(hit.closeness)) if match and has_cosine else hit)
    return GarmentAnswer(garment, tuple(hits), tuple(one.stored for one in chosen))


def rank_all(
    catalogue: Catalogue, queries: Iterable[EmbeddedQuery], settings: QueryConfig, result: QueryResult
) -> None:
    """Add what each query finds to a result, with the query and the time it takes."""
    with result.timed("search"):
        for query in queries:
            result.queries.append(query)
            result.garments.append(rank(catalogue, query, settings))


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
    """Scored items: those near by image, by caption or by words, each with its whole score; garments of another class than
    those ``preferred`` are penalised."""
    scores, positions = catalogue.images.search(image_query[None], want, exact=exact, allowed=allowed)
    cosine = dict(zip(catalogue.images.locate(positions[0]), scores[0].tolist(), strict=True))
    found = {stored.item_no: stored for items in catalogue.items.at_rows(cosine).values() for stored in items}
    if lexical:
        missing = [number for number in lexical.first if number not in found]
        found |= catalogue.items.by_numbers(missing)
    if settings.where:
        kept = _columns(catalogue).kept(settings.where, list(found))
        found = {number: stored for number, stored in found.items() if number in kept}
    items = list(found.values())
    absent = [stored.image_at for stored in items if stored.image_at not in cosine]
    if absent:
        vectors = catalogue.images.fetch([catalogue.images.position(*place) for place in absent])
        cosine |= dict(zip(absent, map(float, vectors @ image_query), strict=True))
    captions: dict[int, float] = {}
    if text_query is not None and len(catalogue.captions):
        described = [stored for stored in items if stored.caption_at is not None]
        places = [catalogue.captions.position(*stored.caption_at) for stored in described if stored.caption_at]
        similar = catalogue.captions.fetch(places) @ text_query
        captions = {stored.item_no: float(value) for stored, value in zip(described, similar, strict=True)}
    candidates = [_Candidate(stored, cosine[stored.image_at]) for stored in items]
    _weigh(candidates, captions, lexical, settings, preferred)
    return candidates


def _weigh(
    candidates: list[_Candidate],
    captions: Mapping[int, float],
    lexical: Lexical | None,
    settings: QueryConfig,
    preferred: Collection[str],
) -> None:
    """Give each its score: of its picture, what its caption and its words say beside it, and its class."""
    words = settings.lexical_weight if lexical is not None else 0.0
    signals: dict[str, Signal] = {}
    if captions:
        signals["caption"] = (1 - words) * settings.caption_weight, captions
    if lexical is not None:
        relevance = {one.stored.item_no: lexical.relevance.get(one.stored.item_no, 0.0) for one in candidates}
        signals["words"] = words, relevance
    penalised = {
        one.stored.item_no for one in candidates if preferred and one.stored.item.class_name not in (None, *preferred)
    }
    fuse = fusion_of(settings.fusion if signals else "weighted")  # a picture alone keeps its cosine
    images = {one.stored.item_no: one.cosine for one in candidates}
    parts = fuse(images, 1 - words, signals, penalised, settings.same_class)
    for one in candidates:
        one.parts = parts[one.stored.item_no]


def _one_per_product(candidates: list[_Candidate], settings: QueryConfig, without: Collection[str]) -> list[_Candidate]:
    best: dict[str, _Candidate] = {}
    today = datetime.date.today().isoformat()
    for candidate in sorted(candidates, key=lambda one: (-one.score, one.stored.item_no)):
        stored = candidate.stored
        product = stored.item.product_id
        if stored.worn_with or candidate.score < settings.min_score or product in best or product in without:
            continue
        if settings.hide_unavailable and is_unavailable(stored, today):
            continue
        best[product] = candidate
    return list(best.values())


def _diverse(catalogue: Catalogue, pool: list[_Candidate], settings: QueryConfig) -> list[_Candidate]:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): each next hit is near to the question and, by
    ``settings.diversity``, far from those chosen before it."""
    pool = pool[: settings.k * _POOL]
    if not pool:
        return []
    vectors = catalogue.images.fetch([catalogue.images.position(*one.stored.image_at) for one in pool])
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


def is_unavailable(stored: StoredItem, today: str | None = None) -> bool:
    """Whether the product's own data says that it cannot be bought now: sold out, or not released before ``today``."""
    metadata = stored.item.metadata
    if str(metadata.get("availability", "")).strip().lower() in UNAVAILABLE:
        return True
    today = today or datetime.date.today().isoformat()
    for column in RELEASE_COLUMNS:
        released = str(metadata.get(column, ""))[:10]
        if len(released) == 10 and released[4] == released[7] == "-" and released > today:
            return True
    return False
