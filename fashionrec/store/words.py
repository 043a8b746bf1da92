"""Split text into words for full-text search, so that Korean is found too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fashionrec.common.korean import PARTICLES, without_ending

_WORD = re.compile(r"\w+")
_HANGUL = re.compile(r"[\uac00-\ud7a3]+")


def searchable(text: str) -> str:
    """Return text as it is indexed: Hangul runs as overlapping syllable pairs.

    Other words are unchanged. Whole words miss a Korean word with its particle (셔츠와), trigrams find
    no word of two syllables; pairs searched as a phrase find both.
    """
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _HANGUL.search(word):
            words += _pairs(word)
        else:
            words.append(word)
    return " ".join(words)


def query_phrases(query: str) -> list[str]:
    """Return the phrases of a query, any of which matches: indexed words, separated by spaces."""
    phrases = []
    for word in _WORD.findall(query.lower()):
        phrases.append(" ".join(_pairs(word) if _HANGUL.search(word) else [word]))
        stem = without_ending(word, PARTICLES) if _HANGUL.fullmatch(word) else word
        if stem != word:
            phrases.append(" ".join(_pairs(stem)))
    return list(dict.fromkeys(phrases))


def match_expression(phrases: Iterable[str]) -> str:
    """Return the FTS5 expression that matches any of some phrases; empty if there are none."""
    return " OR ".join(f'"{phrase}"' for phrase in phrases)


def single_syllables(query: str) -> list[str]:
    """Return the Korean words of a query with one syllable, or possibly one plus a particle.

    The index only has pairs that contain them.
    """
    found = []
    for word in _WORD.findall(query.lower()):
        if _HANGUL.fullmatch(word):
            stems = {word, *(word.removesuffix(one) for one in PARTICLES if word.endswith(one))}
            found += [stem for stem in stems if len(stem) == 1]
    return list(dict.fromkeys(found))


def _pairs(word: str) -> list[str]:
    return [word] if len(word) < 2 else [word[i : i + 2] for i in range(len(word) - 1)]
