"""Evaluate text search with descriptions of known products, English and Korean: full text, encoder,
and both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fashionrec.common.text import plural
from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.calibration import Judged
from fashionrec.evaluation.retrieval.retrieval import DEEP, RetrievalScores, ask
from fashionrec.search.query import Query
from fashionrec.search.search import search
from fashionrec.search.words import Words

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.embedded import EmbeddedQuery
    from fashionrec.search.result import GarmentAnswer

#: Columns of a table with texts about its product.
TEXT_COLUMNS = ("text", "caption_en", "caption_ko")
#: Weights of the words to try.
WEIGHTS = tuple(n / 10 for n in range(1, 10))
_OPTIONS: Mapping[str, Any] = {"caption": "none", "diversity": 0.0}
_HANGUL = re.compile(r"[\uac00-\ud7a3]")


@dataclass(frozen=True)
class TextQuery:
    """A text, and the products that it describes: all with the same description."""

    text: str
    products: frozenset[str]

    @property
    def language(self) -> str:
        return "Korean" if _HANGUL.search(self.text) else "English"


@dataclass(frozen=True)
class _Question:
    """An embedded query, and its answer with the catalogue's settings."""

    query: TextQuery
    embedded: EmbeddedQuery
    answer: GarmentAnswer


def texts_from(rows: Iterable[Any]) -> list[TextQuery]:
    """Parse texts from a table with ``product_id`` and any of :data:`TEXT_COLUMNS`;
    each text once.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        for column in TEXT_COLUMNS:
            text = str(row.metadata.get(column) or "").strip()
            if text:
                found.setdefault(text, set()).add(row.product_id)
    return [TextQuery(text, frozenset(products)) for text, products in found.items()]


def compare_texts(
    catalogue: Catalogue, queries: Sequence[TextQuery], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Compute recall and other metrics of each way per language; right is any product that the text
    describes.

    ``ways`` has the scores; ``lexical_weight`` is the best one of each language on every second
    query, judged on the others; ``verbatim`` is the share of queries that their product's data
    contains word for word, which full-text search cannot miss; ``calibration`` as in
    :class:`Judged`, for the encoder's cosines. Raises :class:`DataError` if no text can be used.
    """
    known = catalogue.items.product_ids()
    asked = [query for query in queries if query.products & known]
    if not asked:
        raise DataError(
            f"none of {plural(len(queries), 'text')} describes a product of {catalogue.root}",
            hint=f"the table needs product_id and one of the columns {', '.join(TEXT_COLUMNS)}",
        )
    catalogue.items.keep_keys()
    judged = Judged()
    document: dict[str, Any] = {"ways": {}, "lexical_weight": {}, "weights": {}, "verbatim": {}, "not_understood": {}}
    done = 0
    for language in ("English", "Korean"):
        questions: list[_Question] = []
        for query in asked:
            if query.language == language:
                questions.append(_question(catalogue, query))
                done += 1
                if progress:
                    progress(done, len(asked))
        if not questions:
            continue
        ways = {
            "words": _by_words(catalogue, questions),
            "pictures": _by_pictures(catalogue, questions, judged),
            "both": _scores(questions, [question.answer for question in questions]),
            "both, by ranks": _both(catalogue, questions, fusion="rrf"),
        }
        tuning, judging = questions[::2], questions[1::2] or questions
        tried = {weight: _both(catalogue, tuning, lexical_weight=weight).to_dict()["mrr"] for weight in WEIGHTS}
        best = max(WEIGHTS, key=lambda weight: tried[weight])
        ways["both, tuned (judged half)"] = _both(catalogue, judging, lexical_weight=best)
        document["ways"] |= {f"{language}, {name}": scores.to_dict() for name, scores in ways.items()}
        document["lexical_weight"][language] = best
        document["weights"][language] = {str(weight): value for weight, value in tried.items()}
        document["verbatim"][language] = sum(_holds(catalogue, one.query) for one in questions) / len(questions)
        document["not_understood"][language] = sum(one.embedded.vector is None for one in questions)
    document["calibration"] = judged.document()
    return document


def _question(catalogue: Catalogue, query: TextQuery) -> _Question:
    answer = search(catalogue, Query(text=Words(query.text, 1.0), **DEEP, **_OPTIONS), read_items=False)
    (result,) = answer.results
    return _Question(query, result.queries[0], result.garments[0])


def _by_words(catalogue: Catalogue, questions: Sequence[_Question]) -> RetrievalScores:
    """Score by matching words only; a query without matches finds nothing."""
    asked = [one.embedded._replace(vector=None) for one in questions if one.embedded.lexical is not None]
    answers = ask(catalogue, asked, **_OPTIONS)
    return _scores(questions, [None if one.embedded.lexical is None else next(answers) for one in questions], least=0.0)


def _by_pictures(catalogue: Catalogue, questions: Sequence[_Question], judged: Judged) -> RetrievalScores:
    """Score by the encoder only; a query that it cannot read finds nothing. Its hits are added to
    ``judged``.
    """
    asked = [one.embedded._replace(lexical=None) for one in questions if one.embedded.vector is not None]
    rest = ask(catalogue, asked, **_OPTIONS)
    answers = [None if one.embedded.vector is None else next(rest) for one in questions]
    for question, answer in zip(questions, answers, strict=True):
        if answer is not None:
            judged.add([(one.closeness, one.product_id in question.query.products) for one in answer.ranking])
    return _scores(questions, answers)


def _both(catalogue: Catalogue, questions: Sequence[_Question], **options: Any) -> RetrievalScores:
    asked = [question.embedded for question in questions]
    return _scores(questions, ask(catalogue, asked, **_OPTIONS, **options))


def _scores(
    questions: Iterable[_Question], answers: Iterable[GarmentAnswer | None], least: float = -math.inf
) -> RetrievalScores:
    """Return the rank of each query's first right product that scores more than ``least``."""
    scores = RetrievalScores()
    for question, answer in zip(questions, answers, strict=True):
        ranking = () if answer is None else answer.ranking
        right = (one.rank for one in ranking if one.score > least and one.product_id in question.query.products)
        scores.ranks.append(next(right, None))
    return scores


def _holds(catalogue: Catalogue, query: TextQuery) -> bool:
    return any(
        query.text in map(str, stored.item.metadata.values())
        for product in query.products
        for stored in catalogue.items.of_product(product)[:1]
    )
