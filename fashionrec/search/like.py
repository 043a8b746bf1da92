"""Search by items of the catalogue: similar to some, unlike others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.config import nearest
from fashionrec.errors import UsageError
from fashionrec.search.embedded import EmbeddedQuery
from fashionrec.search.ranking import rank_all
from fashionrec.search.result import QueryResult
from fashionrec.search.words import Words, add_translation_notes, shift_vector
from fashionrec.store.items import StoredItem
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: Weight of unwanted items relative to wanted ones (Rocchio's weights, SMART 1971: .75 and .25).
_AWAY = 1 / 3


def search_like(
    catalogue: Catalogue,
    like: Sequence[str],
    settings: QueryConfig,
    *,
    unlike: Sequence[str] = (),
    words: Sequence[Words] = (),
) -> QueryResult:
    """Search for items similar to some (by item or product id) and unlike others, excluding these
    products.

    The query vector is Rocchio's: the mean of the wanted items minus a third of the mean of the
    unwanted, shifted by ``words``. Raises :class:`UsageError` for unknown ids.
    """
    answer = QueryResult(photo=None, width=None, height=None, text=_title(like, unlike, words))
    with answer.timed("load"):
        wanted = [stored for one in like for stored in _find(catalogue, one)]
        others = [stored for one in unlike for stored in _find(catalogue, one)]
        catalogue.images  # noqa: B018  (opened here, so that its time is counted as loading)
        embedder = catalogue.embedder if words else None
    with answer.timed("embed"):
        vector = _mean(catalogue, wanted)
        if others:
            vector = vector - _AWAY * _mean(catalogue, others)
            vector = np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
        if embedder is not None:
            vector = shift_vector(vector, words, embedder)
            add_translation_notes(answer, words)
    classes = {stored.item.class_name for stored in wanted}
    garment = Garment(0, wanted[0].item.class_name if len(classes) == 1 else None, None, Box(0, 0, 0, 0))
    query = EmbeddedQuery(
        garment,
        vector,
        classes=[name for name in classes if name],
        without={stored.item.product_id for stored in (*wanted, *others)},
    )
    rank_all(catalogue, [query], settings, answer)
    return answer


def _find(catalogue: Catalogue, name: str) -> list[StoredItem]:
    found = catalogue.items.by_item_ids([name]) or catalogue.items.of_product(name)
    found = [stored for stored in found if not stored.worn_with] or found
    if not found:
        hint = nearest(name, sorted(catalogue.items.product_ids())[:50_000])
        raise UsageError(f"{catalogue.root} has no item or product {name!r}", hint=hint)
    return found


def _mean(catalogue: Catalogue, items: Sequence[StoredItem]) -> np.ndarray:
    """Return the mean of the items' vectors, with each product counting once, normalized to unit
    length.
    """
    vectors = catalogue.images.fetch([catalogue.images.position(*stored.image_at) for stored in items])
    products = [stored.item.product_id for stored in items]
    weights = np.array([1 / products.count(product) for product in products], np.float32)
    mean = weights @ vectors
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _title(like: Sequence[str], unlike: Sequence[str], words: Sequence[Words]) -> str:
    parts = [f"like {', '.join(like)}"]
    if unlike:
        parts.append(f"not like {', '.join(unlike)}")
    parts += [one.text if one.weight > 0 else f"not {one.text}" for one in words]
    return "; ".join(parts)
