"""How well words find a product: texts that describe known products, English and Korean, by full-text search, by the encoder, and
by both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.calibration import Judged
from fashionrec.evaluation.retrieval.retrieval import DEPTH, RetrievalScores
from fashionrec.search.text import Asked, matching_words, named_classes, rank_words
from fashionrec.search.words import Words, text_vector

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: Columns of a table that hold texts about its product.
TEXT_COLUMNS = ("text", "caption_en", "caption_ko")
#: Weights of the words that are tried.
WEIGHTS = tuple(n / 10 for n in range(1, 10))
_HANGUL = re.compile(r"[\uac00-\ud7a3]")


@dataclass(frozen=True)
class TextQuery:
    """A text, and the products that it describes: all of those that are described so."""

    text: str
    products: frozenset[str]

    @property
    def language(self) -> str:
        return "Korean" if _HANGUL.search(self.text) else "English"


def texts_from(rows: Iterable[Any]) -> list[TextQuery]:
    """Texts from the rows of a table with ``product_id`` and any of :data:`TEXT_COLUMNS`; each text once."""
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
    """Recall and its kin of each way, for each language; found is any product that the text describes.

    ``ways`` has the scores; ``lexical_weight`` is the best one of each language on every second query, which the other queries
    judge; ``verbatim`` is the share of queries that their product's own data holds word for word, which full-text search can but
    find; ``calibration`` as of :class:`Judged`, of the encoder's cosines. Raises :class:`DataError` where none can be asked.
    """
    known = catalogue.items.product_ids()
    asked = [query for query in queries if query.products & known]
    if not asked:
        raise DataError(
            f"none of the {len(queries)} texts is about a product of {catalogue.root}",
            hint=f"the table needs product_id, and a column {' or '.join(TEXT_COLUMNS)}",
        )
    settings = catalogue.config.query.model_copy(
        update={"k": DEPTH, "hide_unavailable": False, "min_score": -1.0, "caption": "none", "diversity": 0.0}
    )
    judged = Judged()
    document: dict[str, Any] = {"ways": {}, "lexical_weight": {}, "weights": {}, "verbatim": {}, "not_understood": {}}
    done = 0
    for language in ("English", "Korean"):
        ready: list[tuple[TextQuery, Asked]] = []
        for query in asked:
            if query.language == language:
                ready.append((query, ask(catalogue, query.text)))
                done += 1
                if progress:
                    progress(done, len(asked))
        if not ready:
            continue
        ways = {
            "words": _measure(catalogue, ready, settings.model_copy(update={"lexical_weight": 1.0}), words_alone=True),
            "pictures": _measure(catalogue, ready, settings, pictures_alone=True, judged=judged),
            "both": _measure(catalogue, ready, settings),
            "both, by ranks": _measure(catalogue, ready, settings.model_copy(update={"fusion": "rrf"})),
        }
        tuning, judging = ready[::2], ready[1::2] or ready
        tried = {
            weight: _measure(catalogue, tuning, settings.model_copy(update={"lexical_weight": weight})).to_dict()["mrr"]
            for weight in WEIGHTS
        }
        best = max(WEIGHTS, key=lambda weight: tried[weight])
        ways["both, tuned (judged half)"] = _measure(
            catalogue, judging, settings.model_copy(update={"lexical_weight": best})
        )
        document["ways"] |= {f"{language}, {name}": scores.to_dict() for name, scores in ways.items()}
        document["lexical_weight"][language] = best
        document["weights"][language] = {str(weight): value for weight, value in tried.items()}
        document["verbatim"][language] = sum(_holds(catalogue, query) for query, _ in ready) / len(ready)
        document["not_understood"][language] = sum(wanted.vector is None for _, wanted in ready)
    document["calibration"] = judged.document()
    return document


def ask(catalogue: Catalogue, text: str) -> Asked:
    """What a text asks of a catalogue."""
    words = [Words(text, 1.0)]
    return Asked(text_vector(words, catalogue.embedder), matching_words(catalogue, words), named_classes(words))


def _measure(
    catalogue: Catalogue,
    ready: Sequence[tuple[TextQuery, Asked]],
    settings: QueryConfig,
    *,
    words_alone: bool = False,
    pictures_alone: bool = False,
    judged: Judged | None = None,
) -> RetrievalScores:
    scores = RetrievalScores()
    for query, asked in ready:
        if (words_alone and asked.lexical is None) or (pictures_alone and asked.vector is None):
            scores.ranks.append(None)
            continue
        if words_alone:
            asked = Asked(None, asked.lexical, asked.classes)
        if pictures_alone:
            asked = Asked(asked.vector, None, asked.classes)
        hits = rank_words(catalogue, asked, settings).hits
        if words_alone:
            hits = tuple(hit for hit in hits if hit.score > 0)  # the others hold none of the words
        scores.ranks.append(next((hit.rank for hit in hits if hit.item.product_id in query.products), None))
        if judged is not None:
            judged.add([(hit.closeness, hit.item.product_id in query.products) for hit in hits])
    return scores


def _holds(catalogue: Catalogue, query: TextQuery) -> bool:
    return any(
        query.text in map(str, stored.item.metadata.values())
        for product in query.products
        for stored in catalogue.items.of_product(product)[:1]
    )
