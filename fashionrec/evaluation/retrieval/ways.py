"""Compare ways to query in one table: whole photo or crop, images or captions, and both fused.

Each is ranked by the search that serves, with its fusion and class penalty. The caption weight is
chosen on every second query and judged on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fashionrec.common.text import plural
from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.retrieval import PhotoQuery, RetrievalScores, ask, find_queries, rank_of
from fashionrec.garments import choose_product
from fashionrec.search.embedded import EmbeddedQuery

if TYPE_CHECKING:
    from fashionrec.captioner.job.photos import Describe
    from fashionrec.catalogue.catalogue import Catalogue

#: Caption weights to try.
WEIGHTS = tuple(n / 10 for n in range(11))
_BATCH = 16


@dataclass(frozen=True)
class _Question:
    """A query in its forms: whole photo, garment, and garment with its caption."""

    product_id: str
    whole: EmbeddedQuery
    crop: EmbeddedQuery
    described: EmbeddedQuery


def compare_ways(
    catalogue: Catalogue,
    queries: Sequence[PhotoQuery],
    describe: Describe,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compute recall and other metrics of each way, over queries whose product is in the catalogue.

    ``describe`` captions the queries' crops, as ``query --caption`` does. Captions are compared if
    the catalogue has them; by caption only, the candidates by image are ranked if they have one. A
    product beyond the first 100 counts as missed. The document has ``ways`` (name to scores),
    ``caption_weight`` (the best one) and ``weights`` (the MRR of each that was tried, on the tuning
    half). Raises :class:`DataError` if no query can be used.
    """
    known = catalogue.items.product_ids()
    asked = [query for query in queries if query.product_id in known]
    if not asked:
        raise DataError(f"none of the products of {plural(len(queries), 'query', 'queries')} is in {catalogue.root}")
    failures: list[dict[str, str]] = []
    questions: list[_Question] = []
    finder = catalogue.finder
    for start in range(0, len(asked), _BATCH):
        # at full resolution, as `query --caption` reads them
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
                questions.append(
                    _Question(
                        query.product_id,
                        EmbeddedQuery(whole[n], uncut[n]),
                        EmbeddedQuery(chosen[n], cut[n]),
                        EmbeddedQuery(chosen[n], cut[n], caption=text),
                    )
                )
        if progress:
            progress(min(start + _BATCH, len(asked)), len(asked))
    if not questions:
        raise DataError(f"none of {plural(len(asked), 'query photo')} can be read")
    ways = {
        "whole photo, picture": _scores(catalogue, questions, [question.whole for question in questions]),
        "crop, picture": _scores(catalogue, questions),
    }
    document: dict[str, Any] = {"ways": {}, "caption_weight": None, "weights": {}, "failures": failures}
    if len(catalogue.captions):
        ways["crop, caption"] = _scores(catalogue, questions, weight=1.0, only_described=True)
        tuning, judging = questions[::2], questions[1::2] or questions
        mrr = {weight: _scores(catalogue, tuning, weight=weight).to_dict()["mrr"] for weight in WEIGHTS}
        best = max(WEIGHTS, key=lambda weight: (mrr[weight], -weight))
        ways["crop, both (judged half)"] = _scores(catalogue, judging, weight=best)
        ways["crop, picture (judged half)"] = _scores(catalogue, judging)
        document |= {"caption_weight": best, "weights": {str(weight): value for weight, value in mrr.items()}}
    document["ways"] = {name: scores.to_dict() for name, scores in ways.items()}
    return document


def _scores(
    catalogue: Catalogue,
    questions: Sequence[_Question],
    asked: Sequence[EmbeddedQuery] | None = None,
    *,
    weight: float | None = None,
    only_described: bool = False,
) -> RetrievalScores:
    """Score one way: by image (of the crop, or of ``asked``), or with a ``weight`` of captions too;
    ``only_described`` counts only items with a caption.
    """
    if asked is None:
        asked = [question.crop if weight is None else question.described for question in questions]
    options = {} if weight is None else {"caption_weight": weight}
    scores = RetrievalScores()
    answers = ask(catalogue, asked, diversity=0.0, **options)
    for question, answer in zip(questions, answers, strict=True):
        best = {one.product_id: one.score for one in answer.ranking if "caption" in one.parts or not only_described}
        scores.ranks.append(rank_of(question.product_id, [best]))
    return scores
