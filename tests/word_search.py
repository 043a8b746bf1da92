"""Word search in plain Python: BM25 with phrases, as `ItemReader.matches` should answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fashionrec.store.text_index import terms_of
from fashionrec.store.words import query_phrases


def occurrences(terms: Sequence[str], phrase: Sequence[str]) -> int:
    """Return how often a phrase stands in some terms."""
    return sum(terms[n : n + len(phrase)] == phrase for n in range(len(terms) - len(phrase) + 1)) if phrase else 0


def search(words: Mapping[int, str], query: str) -> dict[int, float]:
    """The items that match a query, from the stored words of each by its number."""
    items = {number: terms_of(text) for number, text in words.items() if text}
    mean = sum(map(len, items.values())) / max(1, len(items))
    scores: dict[int, float] = {}
    for phrase in map(terms_of, query_phrases(query)):
        times = {number: count for number, terms in items.items() if (count := occurrences(terms, phrase))}
        idf = max(1e-6, math.log((len(items) - len(times) + 0.5) / (len(times) + 0.5)))
        for number, count in times.items():
            length = 1.2 * (0.25 + 0.75 * len(items[number]) / mean)
            scores[number] = scores.get(number, 0.0) + idf * count * 2.2 / (count + length)
    return scores
