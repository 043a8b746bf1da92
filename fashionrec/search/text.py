"""Words as the question: the encoder's text tower against the pictures, and the words against captions and titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.search.answer import Answer
from fashionrec.search.ranking import rank
from fashionrec.search.words import Words, parse_words, tell, text_vector
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: How many items the words alone may bring in.
LEXICAL_LIMIT = 500


def search_text(catalogue: Catalogue, text: str | Sequence[Words], settings: QueryConfig) -> Answer:
    """What fits a description, English or Korean, or several with weights. Raises :class:`UsageError` for an empty one.

    The score is ``(1 - w) * cosine(text, picture) + w * words``, with ``w`` the setting ``lexical_weight`` and
    ``words`` the item's bm25 relevance over the best one's, 0..1; where no item matches a word it is the cosine alone, and
    where the encoder cannot be asked (Korean that the lexicon does not know) it is the words alone. Garments of a class that
    the text names are preferred.
    """
    words = [parse_words(text)] if isinstance(text, str) else list(text)
    shown = ", ".join(one.text if one.weight == 1 else f"{one.text}:{one.weight:g}" for one in words)
    answer = Answer(photo=None, width=None, height=None, text=shown)
    with answer.timed("load"):
        catalogue.begin("text")
        embedder = catalogue.embedder
        catalogue.images  # noqa: B018  (opened here, so that its time is counted as loading)
    with answer.timed("embed"):
        vector = text_vector(words, embedder)
        tell(answer, words)
        cut = max(embedder.count_cut([one.understood.english for one in words]))
        if cut:
            answer.notes.append(f"the encoder reads no more than its limit: the last {cut} tokens were cut")
    with answer.timed("search"):
        lexical = matching_words(catalogue, words)
        answer.classes = tuple(
            dict.fromkeys(name for one in words if one.weight > 0 for name in one.understood.classes)
        )
        if vector is None:
            answer.notes.append("the encoder was not asked: the words alone decide")
            settings = settings.model_copy(update={"lexical_weight": 1.0})
            vector = np.zeros(embedder.dim, np.float32)
        garment = Garment(0, None, None, Box(0, 0, 0, 0), whole_photo=False)
        text_query = vector if settings.caption != "none" else None
        found = rank(
            catalogue,
            garment,
            vector,
            settings,
            text_query=text_query,
            lexical=lexical,
            by_text=True,
            classes=answer.classes,
        )
        answer.garments.append(found)
    return answer


def matching_words(catalogue: Catalogue, words: Sequence[Words]) -> dict[int, float] | None:
    """Items that hold words of the texts (as they are, and as they were translated): number to relevance, the best 1."""
    asked = " ".join(f"{one.text} {one.understood.english}" for one in words if one.weight > 0)
    matches = catalogue.items.text_search(asked, LEXICAL_LIMIT)
    best = max((score for _, score in matches), default=0.0)
    return {number: score / best for number, score in matches} if best > 0 else None
