"""Search by text: the text encoder against image vectors, and full-text search in captions and
titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.common.text import plural
from fashionrec.search.embedded import EmbeddedQuery, Lexical
from fashionrec.search.ranking import rank_all
from fashionrec.search.result import QueryResult
from fashionrec.search.words import Words, add_translation_notes, text_vector
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: Maximum number of candidates by words only; if more match, as many are looked for by vector.
BROUGHT_IN, LOOKED_FOR = 300, 500


def search_text(catalogue: Catalogue, words: Sequence[Words], settings: QueryConfig) -> QueryResult:
    """Search by a description in English or Korean, or by several with weights.

    The score is ``(1 - w) * cosine(text, image) + w * words``, with ``w`` the setting
    ``lexical_weight`` and ``words`` the item's BM25 relevance divided by the best one's, 0..1.
    Without a matching word it is only the cosine, and if the encoder cannot read the text (Korean
    unknown to the lexicon) only the words. With ``fusion: rrf`` ranks are mixed instead. Classes
    named in the text are preferred.
    """
    shown = ", ".join(one.text if one.weight == 1 else f"{one.text}:{one.weight:g}" for one in words)
    answer = QueryResult(photo=None, width=None, height=None, text=shown)
    with answer.timed("load"):
        catalogue.begin("text")
        catalogue.begin_vectors()
        embedder = catalogue.embedder
        catalogue.images  # noqa: B018  (opened here, so that its time is counted as loading)
    with answer.timed("search"):
        lexical = matching_words(catalogue, words)
    with answer.timed("embed"):
        vector = text_vector(words, embedder)
        add_translation_notes(answer, words)
        cut = max(embedder.count_cut([one.understood.english for one in words]))
        if cut:
            answer.notes.append(f"the text exceeds the encoder's limit: the last {plural(cut, 'token')} were dropped")
    if vector is None:
        answer.notes.append("the encoder was not used: only matching words count")
    answer.classes = named_classes(words)
    query = EmbeddedQuery(
        Garment(0, None, None, Box(0, 0, 0, 0), whole_photo=False),
        vector,
        caption=vector if settings.caption != "none" else None,
        lexical=lexical,
        classes=answer.classes,
        by_text=True,
    )
    rank_all(catalogue, [query], settings, answer)
    return answer


def named_classes(words: Sequence[Words]) -> tuple[str, ...]:
    """Return the garment classes named in texts, in order."""
    return tuple(dict.fromkeys(name for one in words if one.weight > 0 for name in one.understood.classes))


def matching_words(catalogue: Catalogue, words: Sequence[Words]) -> Lexical | None:
    """Return items with words of the texts (original and translated), the best with relevance 1;
    None if there are none.
    """
    texts = [text for one in words if one.weight > 0 for text in (one.text, one.understood.english)]
    numbers, scores = catalogue.items.matches(" ".join(dict.fromkeys(texts)))
    best = scores.max(initial=0.0)
    if best <= 0:
        return None
    least = np.partition(scores, -BROUGHT_IN)[-BROUGHT_IN] if len(scores) > BROUGHT_IN else 0.0
    near = np.flatnonzero(scores >= least)
    first = numbers[near[np.lexsort((numbers[near], -scores[near]))[:BROUGHT_IN]]].tolist()
    return Lexical(numbers, scores / best, first, LOOKED_FOR if len(numbers) > len(first) else 0)
