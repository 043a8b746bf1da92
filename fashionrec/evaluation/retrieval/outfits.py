"""Evaluate `--goes-with` on outfits that the catalogue has not seen, against recommending what is
popular.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.text import plural
from fashionrec.errors import DataError, UsageError
from fashionrec.evaluation.retrieval.retrieval import RetrievalScores
from fashionrec.search.outfits import OTHER_HALF, Outfits, rank_companions
from fashionrec.search.query import Query
from fashionrec.search.search import search
from fashionrec.types import category_of

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.types import Garment

DEPTH = 50
#: Values to try for the two settings that matter.
WEARER, WORN = (0.1, 0.3, 1.0), (0.003, 0.01, 0.03)


@dataclass(frozen=True)
class Look:
    """A photo of several products worn together: product id to class."""

    path: Path
    products: dict[str, str]


def looks_from(rows: Sequence[Any], columns: Sequence[str]) -> list[Look]:
    """Parse outfits from a table: ``image``, ``product_id``, a category in one of ``columns``;
    several rows per photo.
    """
    found: dict[Path, dict[str, str]] = {}
    for row in rows:
        name = category_of(row.metadata, columns)
        if name:
            found.setdefault(row.path, {})[row.product_id] = name
    return [Look(path, products) for path, products in found.items() if len(products) > 1]


@dataclass(frozen=True)
class _Question:
    """A garment of an outfit, its right answers, and what else the photo shows (which popularity
    may not recommend).
    """

    garment: Garment
    vector: np.ndarray
    right: frozenset[str]
    shown: frozenset[str]


def evaluate_outfits(
    catalogue: Catalogue, looks: Sequence[Look], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Recommend companions for each garment of an outfit; right is any product of the outfit on the
    other half of the body.

    The two settings that matter (``query.goes_with.wearer`` and ``worn``) are chosen on every
    second outfit; the others judge: ``goes_with`` with those chosen, ``as_set`` with the current
    ones, and ``popularity``, which recommends to everybody the products of the other half in most
    of the catalogue's photos with several garments. All know only the catalogue. Raises
    :class:`DataError` if no outfit can be used.
    """
    settings = catalogue.config.query.model_copy(update={"k": DEPTH, "hide_unavailable": False})
    halves: tuple[list[_Question], list[_Question]] = ([], [])
    skipped = 0
    catalogue.items.keep_keys()
    known = catalogue.items.product_ids()
    for number, look in enumerate(looks):
        found, missed = _questions(catalogue, look, known)
        halves[number % 2].extend(found)
        skipped += missed
        if progress:
            progress(number + 1, len(looks))
    tuning, judging = halves
    if not judging:
        raise DataError(
            f"none of {plural(len(looks), 'outfit')} can be used",
            hint="an outfit has several rows: one image, several product_id of the catalogue, and their category",
        )
    tried = {
        (wearer, worn): _scores(catalogue, tuning, _set(settings, wearer, worn)).to_dict()["mrr"]
        for wearer in WEARER
        for worn in WORN
    }
    best = max(tried, key=lambda pair: tried[pair])
    popular, baseline = _popular(catalogue), RetrievalScores()
    for one in judging:
        order = [p for p in popular.get(one.garment.class_name or "", []) if p not in one.shown or p in one.right]
        baseline.ranks.append(min((order.index(p) + 1 for p in one.right if p in order[:DEPTH]), default=None))
    return {
        "goes_with": _scores(catalogue, judging, _set(settings, *best)).to_dict(),
        "as_set": _scores(catalogue, judging, settings).to_dict(),
        "popularity": baseline.to_dict(),
        "chosen": {"wearer": best[0], "worn": best[1]},
        "looks": len(looks),
        "not_seen": skipped,
    }


def _questions(catalogue: Catalogue, look: Look, known: Collection[str]) -> tuple[list[_Question], int]:
    """Return the queries of an outfit about ``known`` products, and how many of its garments the
    detector misses.
    """
    found, missed = [], 0
    for name in sorted(set(look.products.values())):
        right = frozenset(p for p, other in look.products.items() if other in OTHER_HALF[name] and p in known)
        if not right:
            continue
        try:
            query = Query(look.path, garment=name, k=1, hide_unavailable=False, caption="none")
            answer = search(catalogue, query, read_items=False)
        except UsageError:  # the detector misses it, or the photo is unreadable
            missed += 1
            continue
        (result,) = answer.results
        found.append(_Question(result.garments[0].garment, result.vectors[0], right, frozenset(look.products)))
    return found, missed


def _scores(catalogue: Catalogue, questions: Sequence[_Question], settings: QueryConfig) -> RetrievalScores:
    scores = RetrievalScores()
    for one in questions:
        ranking = rank_companions(catalogue, one.garment, one.vector, settings).ranking
        scores.ranks.append(min((found.rank for found in ranking if found.product_id in one.right), default=None))
    return scores


def _set(settings: QueryConfig, wearer: float, worn: float) -> QueryConfig:
    how = settings.goes_with.model_copy(update={"wearer": wearer, "worn": worn})
    return settings.model_copy(update={"goes_with": how})


def _popular(catalogue: Catalogue) -> dict[str, list[str]]:
    """Return for each class the products of the other half, those in most photos with several
    garments first.
    """
    several = set(catalogue.memoize(Outfits).photos)
    counts: Counter[str] = Counter()
    classes: dict[str, str] = {}
    for stored in catalogue.items.everything():
        if not stored.worn_with and stored.item.class_name:
            classes[stored.item.product_id] = stored.item.class_name
            counts[stored.item.product_id] += stored.photo in several
    order = sorted(counts, key=lambda product: (-counts[product], product))
    return {
        name: [product for product in order if classes[product] in partners] for name, partners in OTHER_HALF.items()
    }
