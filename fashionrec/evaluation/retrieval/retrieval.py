"""Evaluate how well a catalogue finds the product in a photo: recall, MRR and nDCG over
products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.text import plural
from fashionrec.errors import DataError, ImageError
from fashionrec.evaluation.retrieval.calibration import Judged
from fashionrec.garments import choose_product
from fashionrec.photos.images import read_thumbnail
from fashionrec.search.embedded import EmbeddedQuery
from fashionrec.search.query import Query
from fashionrec.search.search import search
from fashionrec.types import category_of

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.garments import PhotoGarments
    from fashionrec.search.result import GarmentAnswer
    from fashionrec.types import Garment

#: Depth of the ranking; beyond it the reciprocal rank counts as 0.
DEPTH = 100
#: Options of every query: sold-out products count like any other.
DEEP: Mapping[str, Any] = {"k": DEPTH, "hide_unavailable": False, "min_score": -1.0}
_BATCH = 8
#: Queries per batch, whose answers are in memory together.
_ASKED = 32


@dataclass(frozen=True)
class PhotoQuery:
    """A photo of a known product; ``class_name`` says which garment of the photo, if known."""

    path: Path
    product_id: str
    class_name: str | None = None


@dataclass
class RetrievalScores:
    """Means over queries. ``ranks`` holds each query's rank of the right product (1 is best; None:
    not in the first 100).
    """

    ranks: list[int | None] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "queries": len(self.ranks),
            "recall_at_1": recall_at_k(self.ranks, 1),
            "recall_at_5": recall_at_k(self.ranks, 5),
            "recall_at_10": recall_at_k(self.ranks, 10),
            "mrr": mean_reciprocal_rank(self.ranks),
            "ndcg_at_10": ndcg_at_k(self.ranks, 10),
        }


def recall_at_k(ranks: Sequence[int | None], k: int) -> float:
    """Return the share of queries whose right product is among the first ``k``."""
    return _mean([1.0 if rank is not None and rank <= k else 0.0 for rank in ranks])


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float:
    """Return the mean of 1/rank, 0 if the product was not found (Voorhees, TREC-8, 1999)."""
    return _mean([0.0 if rank is None else 1.0 / rank for rank in ranks])


def ndcg_at_k(ranks: Sequence[int | None], k: int) -> float:
    """Return nDCG with one relevant product: 1/log2(rank+1) within the first ``k`` (Järvelin and
    Kekäläinen, 2002).
    """
    return _mean([1.0 / math.log2(rank + 1) if rank is not None and rank <= k else 0.0 for rank in ranks])


def evaluate_search(
    catalogue: Catalogue,
    queries: Sequence[PhotoQuery],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Run every query twice: by crop (the garment that the detector finds) and by the whole photo.

    With a known class, the query is the garment that a build would take for such a product,
    otherwise every garment, each product with its best score. If none fits, the whole photo is used
    and counted under ``crop_fallbacks``. Sold-out products count like any other. Queries whose
    product is not in the catalogue are skipped and counted. ``calibration`` says how often a hit
    with some cosine is the product (:class:`calibration.Judged`). Raises :class:`DataError` if no
    query can be used.
    """
    known = catalogue.items.product_ids()
    asked = [query for query in queries if query.product_id in known]
    if not asked:
        raise DataError(
            f"none of the products of {plural(len(queries), 'query', 'queries')} is in {catalogue.root}",
            hint="the column product_id must use the catalogue's ids",
        )
    scores = {"crop": RetrievalScores(), "whole": RetrievalScores()}
    by_class: dict[str, RetrievalScores] = {}
    failures: list[dict[str, str]] = []
    fallbacks, judged = 0, Judged()
    finder = catalogue.finder
    for start in range(0, len(asked), _BATCH):
        batch = find_queries(catalogue, asked[start : start + _BATCH], failures)
        if batch:
            chosen = [choose_product(found.garments, query.class_name) for query, found in batch]
            garments: list[Garment] = []
            crops: list[Image.Image] = []
            for (_, found), fitting in zip(batch, chosen, strict=True):
                garments += [*fitting, *found.whole().garments]
                crops += finder.cut(found, fitting) + finder.cut(found.whole())
            questions = list(map(EmbeddedQuery, garments, catalogue.embedder.embed_images(crops)))
            answers_of = ask(catalogue, questions)
            for (query, _), fitting in zip(batch, chosen, strict=True):
                fallbacks += not fitting
                found_for = [next(answers_of).ranking for _ in (*fitting, "whole photo")]
                if len(found_for) <= 2:  # a single garment: others in a photo are not the product
                    judged.add([(one.closeness, one.product_id == query.product_id) for one in found_for[0]])
                answers = [{one.product_id: one.score for one in ranking} for ranking in found_for]
                position = rank_of(query.product_id, answers[:-1] or answers)
                scores["crop"].ranks.append(position)
                scores["whole"].ranks.append(rank_of(query.product_id, answers[-1:]))
                by_class.setdefault(query.class_name or "unknown", RetrievalScores()).ranks.append(position)
        if progress:
            progress(min(start + _BATCH, len(asked)), len(asked))
    if not scores["crop"].ranks:
        raise DataError(f"none of {plural(len(asked), 'query photo')} can be read")
    main = scores["crop"].to_dict()
    return {
        **main,
        "crop": main,
        "whole": scores["whole"].to_dict(),
        "by_class": {name: value.to_dict() for name, value in sorted(by_class.items())},
        "crop_fallbacks": fallbacks,
        "not_in_catalogue": len(queries) - len(asked),
        "failures": failures,
        "catalogue": catalogue.counts,
        "calibration": judged.document(),
    }


def ask(catalogue: Catalogue, questions: Sequence[EmbeddedQuery], **options: Any) -> Iterator[GarmentAnswer]:
    """Rank each query as it is served, :data:`DEPTH` products deep, without reading items.

    ``options`` are those of :class:`Query`.
    """
    catalogue.items.keep_keys()
    for start in range(0, len(questions), _ASKED):
        query = Query(embedded=questions[start : start + _ASKED], **{**DEEP, **options})
        yield from search(catalogue, query, read_items=False).garments


def histogram_baseline(
    catalogue: Catalogue,
    queries: Sequence[PhotoQuery],
    *,
    bins: int = 4,
) -> dict[str, Any]:
    """Rank the same queries by colour only: RGB histograms (``bins`` per channel) of the same
    crops, by intersection.

    (Swain and Ballard, IJCV 1991.) A baseline that a useful encoder must beat.
    """
    products: list[str] = []
    gallery: list[np.ndarray] = []
    for stored in catalogue.items.everything():
        if not stored.worn_with:
            products.append(stored.item.product_id)
            gallery.append(colour_histogram(read_thumbnail(catalogue.thumbnail(stored)), bins))
    matrix = np.stack(gallery)
    scores = RetrievalScores()
    known = set(products)
    asked = [query for query in queries if query.product_id in known]
    finder = catalogue.finder
    for start in range(0, len(asked), _BATCH):
        for query, found in find_queries(catalogue, asked[start : start + _BATCH], []):
            chosen = choose_product(found.garments, query.class_name)[:1]
            (crop,) = finder.cut(found, chosen) or finder.cut(found.whole())
            histogram = colour_histogram(crop, bins)
            similar = np.minimum(matrix, histogram).sum(axis=1)
            best: dict[str, float] = {}
            for product, score in zip(products, similar, strict=True):
                best[product] = max(best.get(product, 0.0), float(score))
            scores.ranks.append(rank_of(query.product_id, [best]))
    return scores.to_dict()


def colour_histogram(pixels: Image.Image, bins: int) -> np.ndarray:
    """Return float64 [bins**3], summing to 1, of the image at 64 x 64; pure white (padding) is
    skipped.
    """
    values = np.asarray(pixels.resize((64, 64)), dtype=np.int64).reshape(-1, 3)
    values = values[(values < 250).any(axis=1)]
    cells = (values * bins) // 256
    counts = np.bincount((cells[:, 0] * bins + cells[:, 1]) * bins + cells[:, 2], minlength=bins**3)
    result: np.ndarray = counts / max(1, counts.sum())
    return result


def queries_from(rows: Sequence[Any], category_columns: Sequence[str]) -> list[PhotoQuery]:
    """Parse queries from a table with ``image`` and ``product_id`` (see
    :mod:`fashionrec.products.tables`).
    """
    return [PhotoQuery(row.path, row.product_id, category_of(row.metadata, category_columns)) for row in rows]


def find_queries(
    catalogue: Catalogue, queries: Sequence[PhotoQuery], failures: list[dict[str, str]], *, whole: bool = False
) -> list[tuple[PhotoQuery, PhotoGarments]]:
    """Return the queries with a readable photo, with its garments; add the others to ``failures``.

    ``whole`` is that of :meth:`GarmentFinder.find`.
    """
    batch = []
    photos = catalogue.finder.find([query.path for query in queries], whole=whole)
    for query, found in zip(queries, photos, strict=True):
        if isinstance(found, ImageError):
            failures.append({"image": str(query.path), "reason": found.reason, "message": str(found)})
        else:
            batch.append((query, found))
    return batch


def rank_of(product_id: str, answers: Sequence[dict[str, float]]) -> int | None:
    """Return the rank of a product when several answers are merged by each product's best score;
    None if in none of them.

    Ties count as better: an encoder that finds everything alike finds nothing.
    """
    best: dict[str, float] = {}
    for answer in answers:
        for product, score in answer.items():
            best[product] = max(best.get(product, -math.inf), score)
    if product_id not in best:
        return None
    own = best[product_id]
    return sum(score >= own for score in best.values())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
