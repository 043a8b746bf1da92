"""Ways of asking the same queries, in one table: whole photo against crop, pictures against captions, and both fused.

Each is ranked by the search that serves, with its fusion and its preference of a class. The weight of captions is chosen on every
second query and judged on the others, so that its figure is not that of its choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.retrieval import DEPTH, PhotoQuery, RetrievalScores, find_queries, rank_of
from fashionrec.garments import choose_product
from fashionrec.search.ranking import rank

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.captioner.job.photos import Describe
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.types import Garment

#: Weights of the caption that are tried.
WEIGHTS = tuple(n / 10 for n in range(11))
_BATCH = 16


@dataclass(frozen=True)
class _Question:
    """A query with what it can be asked with: vectors (float32 [d]) of its garment, its whole photo and its caption."""

    product_id: str
    garment: Garment
    crop: np.ndarray
    whole: Garment
    photo: np.ndarray
    caption: np.ndarray | None


def compare_ways(
    catalogue: Catalogue,
    queries: Sequence[PhotoQuery],
    describe: Describe,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Recall and its kin of each way, over queries whose product is in the catalogue.

    ``describe`` captions the queries' crops, as ``query --caption`` does. Captions are compared where the catalogue has them;
    by caption alone what is near by picture is ranked, as far as it has one. A product beyond the first 100 counts as missed.
    The document has ``ways`` (name to scores), ``caption_weight`` (the best one) and ``weights`` (the MRR of each that was tried,
    on the tuning half). Raises :class:`DataError` where none can be asked.
    """
    known = catalogue.items.product_ids()
    asked = [query for query in queries if query.product_id in known]
    if not asked:
        raise DataError(f"none of the {len(queries)} queries' products is in {catalogue.root}")
    failures: list[dict[str, str]] = []
    questions: list[_Question] = []
    finder = catalogue.finder
    for start in range(0, len(asked), _BATCH):
        # read whole, as `query --caption` reads them
        batch = find_queries(catalogue, asked[start : start + _BATCH], failures, whole=True)
        if batch:
            chosen = [
                (choose_product(found.garments, query.class_name) or found.whole().garments)[0]
                for query, found in batch
            ]
            whole = [found.whole().garments[0] for _, found in batch]
            crops = [crop for (_, found), one in zip(batch, chosen, strict=True) for crop in finder.cut(found, [one])]
            photos_whole = [crop for _, found in batch for crop in finder.cut(found.whole())]
            vectors = catalogue.embedder.embed_images([*crops, *photos_whole])
            cut, uncut = vectors[: len(crops)], vectors[len(crops) :]
            said = describe(crops, cut, [garment.class_name for garment in chosen])
            for n, (query, _) in enumerate(batch):
                words = said[n]
                text = None if words is None else catalogue.embedder.embed_texts([words[1]])[0]
                questions.append(_Question(query.product_id, chosen[n], cut[n], whole[n], uncut[n], text))
        if progress:
            progress(min(start + _BATCH, len(asked)), len(asked))
    if not questions:
        raise DataError(f"none of the {len(asked)} query photos can be read")
    settings = catalogue.config.query.model_copy(
        update={"k": DEPTH, "hide_unavailable": False, "min_score": -1.0, "diversity": 0.0}
    )
    ways = {
        "whole photo, picture": _scores(catalogue, questions, settings, crop=False),
        "crop, picture": _scores(catalogue, questions, settings),
    }
    document: dict[str, Any] = {"ways": {}, "caption_weight": None, "weights": {}, "failures": failures}
    if len(catalogue.captions):
        ways["crop, caption"] = _scores(catalogue, questions, settings, 1.0, described=True)
        tuning, judging = questions[::2], questions[1::2] or questions
        mrr = {weight: _scores(catalogue, tuning, settings, weight).to_dict()["mrr"] for weight in WEIGHTS}
        best = max(WEIGHTS, key=lambda weight: (mrr[weight], -weight))
        ways["crop, both (judged half)"] = _scores(catalogue, judging, settings, best)
        ways["crop, picture (judged half)"] = _scores(catalogue, judging, settings)
        document |= {"caption_weight": best, "weights": {str(weight): value for weight, value in mrr.items()}}
    document["ways"] = {name: scores.to_dict() for name, scores in ways.items()}
    return document


def _scores(
    catalogue: Catalogue,
    questions: Sequence[_Question],
    settings: QueryConfig,
    weight: float | None = None,
    *,
    crop: bool = True,
    described: bool = False,
) -> RetrievalScores:
    """Scores of one way: by picture, or with a ``weight`` of captions too; ``described`` counts only items that have one."""
    scores = RetrievalScores()
    if weight is not None:
        settings = settings.model_copy(update={"caption_weight": weight})
    for one in questions:
        garment, vector = (one.garment, one.crop) if crop else (one.whole, one.photo)
        hits = rank(catalogue, garment, vector, settings, text_query=None if weight is None else one.caption).hits
        if described:
            hits = tuple(hit for hit in hits if "caption" in hit.parts)
        scores.ranks.append(rank_of(one.product_id, [{hit.item.product_id: hit.score for hit in hits}]))
    return scores
