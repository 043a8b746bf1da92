"""Words for full-text search, so that SQLite's FTS5 finds Korean too."""

from __future__ import annotations

import re

from fashionrec.common.korean import PARTICLES, without_ending

_WORD = re.compile(r"\w+")
_HANGUL = re.compile(r"[\uac00-\ud7a3]+")


def searchable(text: str) -> str:
    """Text as it is stored for full-text search: Hangul runs as overlapping syllable pairs, other words as they are.

    FTS5's own tokenizers miss a Korean word with its particle (셔츠와) or find no two-syllable word at all; pairs asked
    for as a phrase find both.
    """
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _HANGUL.search(word):
            words += _pairs(word)
        else:
            words.append(word)
    return " ".join(words)


def match_expression(query: str) -> str:
    """The FTS5 expression that finds any word of a query; empty where it has none."""
    terms = []
    for word in _WORD.findall(query.lower()):
        terms.append('"' + " ".join(_pairs(word) if _HANGUL.search(word) else [word]) + '"')
        stem = without_ending(word, PARTICLES) if _HANGUL.fullmatch(word) else word
        if stem != word:
            terms.append('"' + " ".join(_pairs(stem)) + '"')
    return " OR ".join(dict.fromkeys(terms))


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
