"""The garment lexicon (``configs/attributes.yaml``) applied to search texts.

It translates Korean to English and finds the classes and attributes that a text names.
FashionCLIP's text tower knows English only, so Korean texts are translated here. Words that the
lexicon does not know are reported; word search still uses them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from fashionrec.captioner.vocabulary import NONE, Vocabulary, load_vocabulary
from fashionrec.common.korean import ENDINGS, without_ending

_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_PIECE = re.compile(r"[\uac00-\ud7a3]+|[^\W_]+(?:[-'][^\W_]+)*|[^\w\s]|_", re.UNICODE)
_AND = frozenset({"과", "와", "랑", "이랑", "하고", "및", "그리고"})
#: Words without meaning next to a value: "체크 패턴 스커트" is a checked skirt.
_FILLERS = frozenset(
    "패턴 무늬 컬러 색 색상 스타일 느낌 디자인 제품 상품 옷 것 추천 찾아줘 보여줘 좀 의류 패션".split()
)


class ParsedText(NamedTuple):
    """A search text as the lexicon reads it.

    ``english`` is the text for the encoder, ``is_translation`` whether it differs from the input;
    ``classes`` and ``attributes`` (by field) are those named in the text, in order; ``unknown`` are
    the Korean words missing from the lexicon.
    """

    english: str
    is_translation: bool
    classes: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    unknown: tuple[str, ...]


class _Meaning(NamedTuple):
    english: str
    classes: tuple[str, ...] = ()
    attribute: tuple[str, str] | None = None


def parse_text(text: str) -> ParsedText:
    """Find the classes and attributes in a search text, and translate its Korean words.

    A text without Korean is returned unchanged.
    """
    normalized = unicodedata.normalize("NFKC", text)
    forms = _forms()
    words: list[str] = []
    unknown: list[str] = []
    meanings: list[_Meaning] = []
    pieces = _PIECE.findall(normalized)
    n = 0
    while n < len(pieces):
        piece = pieces[n]
        if _HANGUL.match(piece):
            consumed, new_meanings, unread = _korean(pieces, n, forms)
            for meaning in new_meanings:
                if _is_second_colour(meaning, meanings) and words[-1:] == [meanings[-1].english]:
                    words.append("and")
                meanings.append(meaning)
                words.append(meaning.english)
            if unread:
                unknown.append(unread)
            if _ends_with_and(pieces, n, consumed, forms):
                words.append("and")
            n += consumed
            continue
        consumed, match = _english(pieces, n, forms)
        if match is not None:
            meanings.append(match)
        mixed = match is not None and _HANGUL.search(piece)  # H라인
        words.append(match.english if match is not None and mixed else " ".join(pieces[n : n + consumed]))
        n += consumed
    classes = dict.fromkeys(name for meaning in meanings for name in meaning.classes)
    attributes: dict[str, tuple[str, ...]] = {}
    for meaning in meanings:
        if meaning.attribute is not None:
            field, value = meaning.attribute
            attributes[field] = tuple(dict.fromkeys((*attributes.get(field, ()), value)))
    korean = bool(_HANGUL.search(normalized))
    english = " ".join(_without_stray_and(words)) if korean else text
    return ParsedText(english, korean, tuple(classes), attributes, tuple(unknown))


def _korean(pieces: list[str], n: int, forms: dict[str, _Meaning]) -> tuple[int, list[_Meaning], str]:
    """Return the number of pieces read, their meanings, and the part without a known meaning."""
    for count in (3, 2, 1):  # a value may be written in several words: 데님 팬츠
        run = pieces[n : n + count]
        if len(run) == count > 1 and all(map(_HANGUL.match, run)):
            joined = "".join(run)
            for form in (joined, without_ending(joined, ENDINGS)):
                if form in forms:
                    return count, [forms[form]], ""
    meanings, unread = _compound(pieces[n], forms)
    return 1, meanings, unread


def _compound(word: str, forms: dict[str, _Meaning]) -> tuple[list[_Meaning], str]:
    """Split a Korean word into values (체크스커트), without its particles and fillers."""
    if word in _FILLERS or word in _AND:
        return [], ""
    meanings: list[_Meaning] = []
    unread = ""
    at = 0
    while at < len(word):
        for size in range(len(word) - at, 0, -1):
            part = word[at : at + size]
            if part in forms and (size > 1 or (at == 0 and _only_particles(word[1:]))):
                meanings.append(forms[part])
                at += size
                break
            if meanings and part in _FILLERS:
                at += size
                break
        else:
            tail = word[at:]
            if meanings and _only_particles(tail):
                break
            unread += word[at]
            at += 1
    if unread and not meanings:
        stem = without_ending(word, ENDINGS)
        return ([forms[stem]], "") if stem in forms else ([], "" if stem in _FILLERS else stem)
    return meanings, unread


def _is_second_colour(meaning: _Meaning, before: list[_Meaning]) -> bool:
    """Return whether a colour follows another one: 핑크 오렌지 is pink and orange."""
    return bool(before and all(m.attribute and m.attribute[0] == "color" for m in (meaning, before[-1])))


def _only_particles(tail: str) -> bool:
    while tail:
        particle = next((ending for ending in ENDINGS if tail.startswith(ending)), None)
        if particle is None:
            return False
        tail = tail[len(particle) :]
    return True


def _ends_with_and(pieces: list[str], n: int, consumed: int, forms: dict[str, _Meaning]) -> bool:
    """Return whether the pieces end in a Korean word or particle for "and"."""
    last = pieces[n + consumed - 1]
    if last in _AND:
        return True
    return last not in forms and any(last.endswith(particle) and len(last) > len(particle) + 1 for particle in _AND)


def _english(pieces: list[str], n: int, forms: dict[str, _Meaning]) -> tuple[int, _Meaning | None]:
    for count in (3, 2, 1):
        run = pieces[n : n + count]
        if len(run) == count and not any(map(_HANGUL.match, run)):
            for words in (" ".join(run), "".join(run)):
                folded = words.casefold()
                for word in (folded, *_singulars(folded), without_ending(folded, ENDINGS)):
                    if word in forms:
                        return count, forms[word]
    return 1, None


def _singulars(word: str) -> list[str]:
    """Return the possible singulars of a word: dresses, bodies, hoodies, skirts."""
    endings = (("sses", "ss"), ("ies", "y"), ("s", ""))
    return [
        word[: -len(ending)] + replacement for ending, replacement in endings if word.endswith(ending) and len(word) > 3
    ]


def _without_stray_and(words: list[str]) -> list[str]:
    cleaned: list[str] = []
    for word in words:
        if word == "and" and (not cleaned or cleaned[-1] == "and"):
            continue
        cleaned.append(word)
    while cleaned and cleaned[-1] == "and":
        cleaned.pop()
    return cleaned


def _korean_nouns(vocabulary: Vocabulary) -> list[tuple[str, str, str]]:
    """Return the Korean words for garments, each with its class and its English word."""
    return [
        (word, name, noun.text[0])
        for name, noun in vocabulary.classes.items()
        for word in (noun.text[1], *noun.also)
        if _HANGUL.search(word)
    ]


def _with_noun(word: str, meaning: _Meaning, nouns: Sequence[tuple[str, str, str]]) -> _Meaning:
    """Add the class if a value's word ends in the noun of a garment (와이드팬츠)."""
    for ending, name, english in nouns:
        if word.endswith(ending) and len(word) > len(ending):
            return _Meaning(f"{meaning.english} {english}", (name,), meaning.attribute)
    return meaning


@cache
def _forms() -> dict[str, _Meaning]:
    """Return the meaning of every word of the lexicon; the first one if it has several.

    Words are case-folded, Korean ones without spaces.
    """
    vocabulary = load_vocabulary()
    nouns = _korean_nouns(vocabulary)
    forms: dict[str, _Meaning] = {}

    def add(word: str, meaning: _Meaning) -> None:
        word = unicodedata.normalize("NFKC", word).casefold()
        if _HANGUL.search(word):
            word = word.replace(" ", "")
        forms.setdefault(word, meaning)

    for name, noun in vocabulary.classes.items():
        for word in (name, *noun.text, *noun.also):
            add(word, _Meaning(noun.text[0], (name,)))
    for field, spec in vocabulary.fields.items():
        for name, value in spec.values.items():
            if name == NONE:
                continue
            classes = value.classes if field == "sub_category" else ()
            meaning = _Meaning(value.text[0], classes, (field, name))
            for word in (name, name.replace("-", " "), value.ko, *value.text, *value.also):
                add(word, meaning if classes else _with_noun(word, meaning, nouns))
    return forms
