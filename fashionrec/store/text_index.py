"""Full-text search over parts of the items: an inverted index with positions, and BM25.

The words of a part's items are concatenated with one free position between two items, so that
phrases are runs of positions and never cross items. BM25 runs over all parts: Robertson and
Zaragoza, "The Probabilistic Relevance Framework", 2009, with the constants of SQLite's FTS5.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fashionrec.store.packed import POSTINGS_PIECE, Ask, narrow, read_arrays, read_slice
from fashionrec.store.rows import DamagedRow

OWNER = "words"
_EDGE = b"\xff"
_K1, _B, _LEAST_IDF = 1.2, 0.75, 1e-6
Phrase = tuple[str, ...]


def terms_of(words: str) -> list[str]:
    """Return the terms of words as made by :func:`searchable`."""
    return [_term(word) for word in words.replace("_", " ").split()]


@lru_cache(maxsize=1 << 16)
def _term(word: str) -> str:
    """Return a word without Latin accents, and with one form of letters that have several."""
    return word if word.isascii() else "".join(map(_letter, word))


def _letter(letter: str) -> str:
    other = letter.casefold()
    letter = other if len(other) == 1 else letter
    apart = unicodedata.normalize("NFD", letter)
    return apart[0] if len(apart) == 2 and apart[0].isascii() else letter


class _Codes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return len(self) - 1


def index_words(words: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the index of a part from the words of each of its items."""
    codes = _Codes()
    given: list[int] = []
    lengths: list[int] = []
    for text in words:
        before = len(given)
        given.extend(map(codes.__getitem__, text.replace("_", " ").split()))
        lengths.append(len(given) - before)
    terms = _Codes()
    term_of = np.array([terms[_term(word)] for word in codes], np.int64)
    found = term_of[np.array(given, np.int64)] if given else np.zeros(0, np.int64)
    counts = np.bincount(found, minlength=len(terms))
    size = np.array(lengths, np.int64)
    places = np.arange(len(found)) + np.repeat(np.arange(len(size)), size)
    joined = _EDGE + _EDGE.join(map(str.encode, terms)) + _EDGE if terms else b""
    return {
        "lengths": narrow(size),
        "terms": np.frombuffer(joined, np.uint8),
        "counts": narrow(counts),
        "positions": places[np.argsort(found, kind="stable")].astype(np.uint32),
    }


class WordPart:
    """The index of one part, read lazily. Raises :class:`DamagedRow` for invalid data."""

    def __init__(self, ask: Ask, part: int, live: np.ndarray) -> None:
        """Open the index; ``live`` says which of its items are not overridden."""
        self._ask, self._part, self._live = ask, part, live
        arrays = read_arrays(ask, OWNER, part, ("lengths", "terms", "counts"))
        if any(array.dtype.kind not in "ui" for array in arrays.values()) or len(arrays["lengths"]) != len(live):
            raise DamagedRow("the words of a part do not match its items")
        self.lengths = arrays["lengths"].astype(np.int64)
        #: Start of each item, and the end of the last.
        self.begins = np.concatenate([[0], np.cumsum(self.lengths + 1)])
        self.lengths[~live] = 0
        self._terms = arrays["terms"].tobytes() or _EDGE
        self._edges = np.flatnonzero(arrays["terms"] == 0xFF)
        self._first = np.concatenate([[0], np.cumsum(arrays["counts"].astype(np.int64))])
        sound = (self.lengths >= 0).all() and (np.diff(self._first) >= 0).all()
        if not sound or len(self._first) != max(1, len(self._edges)):
            raise DamagedRow("the words of a part are inconsistent")

    def hits(self, phrase: Phrase) -> tuple[np.ndarray, np.ndarray]:
        """Return the items that contain a phrase, and how often each does."""
        runs = [self._run(term) for term in phrase]
        if not runs or any(start == stop for start, stop in runs):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        found = self._positions(*runs[0])
        for n, run in enumerate(runs[1:], 1):
            found = found[np.isin(found + n, self._positions(*run), assume_unique=True)]
        items = np.searchsorted(self.begins, found, side="right") - 1
        return np.unique(items[self._live[items]], return_counts=True)

    def terms_with(self, pieces: Sequence[str]) -> list[tuple[str, int]]:
        """Return the terms that contain one of some pieces, and how many items have each."""
        wanted = [piece.encode(errors="surrogatepass") for piece in pieces]
        found = [term for term in self._terms[1:-1].split(_EDGE) if any(piece in term for piece in wanted)]
        return [(term.decode(), len(self.hits((term.decode(),))[0])) for term in found]

    def _run(self, term: str) -> tuple[int, int]:
        at = self._terms.find(_EDGE + term.encode(errors="surrogatepass") + _EDGE)
        if at < 0:
            return 0, 0
        n = int(np.searchsorted(self._edges, at))
        return int(self._first[n]), int(self._first[n + 1])

    def _positions(self, start: int, stop: int) -> np.ndarray:
        found = read_slice(self._ask, OWNER, self._part, "positions", start, stop, POSTINGS_PIECE)
        if found.dtype.kind not in "ui" or (
            len(found) and not 0 <= int(found.min()) <= int(found.max()) < self.begins[-1]
        ):
            raise DamagedRow("a word lies beyond the items")
        return found.astype(np.int64)


class Matches(NamedTuple):
    """Items with a matching word and their relevance: numbers int64 ascending, scores float64."""

    numbers: np.ndarray
    scores: np.ndarray


def bm25(parts: Sequence[tuple[np.ndarray, WordPart]], phrases: Sequence[Phrase]) -> Matches:
    """Score the items that contain one of some phrases.

    ``parts`` are the item numbers and the index of each part.
    """
    rows = sum(int(np.count_nonzero(part.lengths)) for _, part in parts)
    words = sum(int(part.lengths.sum()) for _, part in parts)
    hits = [[part.hits(phrase) for _, part in parts] for phrase in phrases]
    scores = [np.zeros(len(numbers)) for numbers, _ in parts]
    held = [np.zeros(len(numbers), bool) for numbers, _ in parts]
    for found in hits:
        frequency = sum(len(items) for items, _ in found)
        idf = max(np.log((rows - frequency + 0.5) / (frequency + 0.5)) if rows > frequency - 0.5 else 0.0, _LEAST_IDF)
        for n, (items, times) in enumerate(found):
            length = parts[n][1].lengths[items]
            held[n][items] = True
            scores[n][items] += idf * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * length * rows / max(words, 1)))
    if not parts:
        return Matches(np.zeros(0, np.int64), np.zeros(0))
    numbers = np.concatenate([own[kept] for (own, _), kept in zip(parts, held, strict=True)])
    return Matches(numbers, np.concatenate([own[kept] for own, kept in zip(scores, held, strict=True)]))
