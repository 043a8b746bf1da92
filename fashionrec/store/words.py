"""Words for full-text search, cut so that Korean is found too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fashionrec.common.korean import PARTICLES, without_ending

_WORD = re.compile(r"\w+")
_HANGUL = re.compile(r"[\uac00-\ud7a3]+")


def searchable(text: str) -> str:
    """Text as it is stored for full-text search: Hangul runs as overlapping syllable pairs, other words as they are.

    Whole words miss a Korean word with its particle (셔츠와), three letters at a time find no two-syllable word at all; pairs
    asked for as a phrase find both.
    """
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _HANGUL.search(word):
            words += _pairs(word)
        else:
            words.append(word)
    return " ".join(words)


def query_phrases(query: str) -> list[str]:
    """The phrases of which any finds an item: words as they are stored, with spaces between those of one."""
    phrases = []
    for word in _WORD.findall(query.lower()):
        phrases.append(" ".join(_pairs(word) if _HANGUL.search(word) else [word]))
        stem = without_ending(word, PARTICLES) if _HANGUL.fullmatch(word) else word
        if stem != word:
            phrases.append(" ".join(_pairs(stem)))
    return list(dict.fromkeys(phrases))


def match_expression(phrases: Iterable[str]) -> str:
    """The FTS5 expression that finds any of some phrases; empty where there are none."""
    return " OR ".join(f'"{phrase}"' for phrase in phrases)


def single_syllables(query: str) -> list[str]:
    """The Korean words of a query that are one syllable long, or may be one with a particle: stored pairs only hold them."""
    found = []
    for word in _WORD.findall(query.lower()):
        if _HANGUL.fullmatch(word):
            stems = {word, *(word.removesuffix(one) for one in PARTICLES if word.endswith(one))}
            found += [stem for stem in stems if len(stem) == 1]
    return list(dict.fromkeys(found))


def _pairs(word: str) -> list[str]:
    return [word] if len(word) < 2 else [word[i : i + 2] for i in range(len(word) - 1)]
