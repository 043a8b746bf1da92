"""Words as the question: the encoder's text tower against the pictures, and the words against captions and titles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fashionrec.errors import UsageError
from fashionrec.search.answer import Answer
from fashionrec.search.ranking import rank
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: How many items the words alone may bring in.
LEXICAL_LIMIT = 500


def search_text(catalogue: Catalogue, text: str, settings: QueryConfig) -> Answer:
    """What fits a description, English or Korean. Raises :class:`UsageError` for an empty one.

    The score is ``(1 - w) * cosine(text, picture) + w * words``, with ``w`` the setting ``lexical_weight`` and
    ``words`` the item's bm25 relevance over the best one's, 0..1; where no item matches a word it is the cosine alone.
    """
    if not text.strip():
        raise UsageError("the text is empty", hint='for example --text "a red striped dress"')
    answer = Answer(photo=None, width=None, height=None, text=text)
    with answer.timed("load"):
        embedder = catalogue.embedder
        catalogue.images  # noqa: B018  (opened here, so that its time is counted as loading)
    with answer.timed("embed"):
        vector = embedder.embed_texts([text])[0]
        cut = embedder.count_cut([text])[0]
        if cut:
            answer.notes.append(f"the encoder reads no more than its limit: the last {cut} tokens were cut")
    with answer.timed("search"):
        matches = catalogue.items.text_search(text, LEXICAL_LIMIT)
        best = max((score for _, score in matches), default=0.0)
        lexical = {number: score / best for number, score in matches} if best > 0 else None
        garment = Garment(0, None, None, Box(0, 0, 0, 0), whole_photo=False)
        text_query = vector if settings.caption != "none" else None
        answer.garments.append(rank(catalogue, garment, vector, settings, text_query=text_query, lexical=lexical))
    return answer
