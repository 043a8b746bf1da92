"""Words of a search, understood by the garment lexicon (``configs/attributes.yaml``): Korean into English, and the class named.

FashionCLIP's text tower knows English only. A Korean text reaches it through here; what the lexicon does not know is told, and is
still searched for as words.
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
#: Words that say nothing by themselves beside a value: "체크 패턴 스커트" is a checked skirt.
_FILLERS = frozenset(
    "패턴 무늬 컬러 색 색상 스타일 느낌 디자인 제품 상품 옷 것 추천 찾아줘 보여줘 좀 의류 패션".split()
)


class Understood(NamedTuple):
    """A text as the lexicon reads it.

    ``english`` is what the encoder is asked, ``translated`` whether it is not the text itself;
    ``classes`` and ``attributes`` (by field) are what is named, in order, ``unknown`` the Korean words
    that the lexicon does not know.
    """

    english: str
    translated: bool
    classes: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    unknown: tuple[str, ...]


class _Meaning(NamedTuple):
    english: str
    classes: tuple[str, ...] = ()
    attribute: tuple[str, str] | None = None


def understand(text: str) -> Understood:
    """What a search text says of garments. A text without Korean is left as it is; classes and values are found in it too."""
    plain = unicodedata.normalize("NFKC", text)
    forms = _forms()
    said: list[str] = []
    unknown: list[str] = []
    meanings: list[_Meaning] = []
    pieces = _PIECE.findall(plain)
    n = 0
    while n < len(pieces):
        piece = pieces[n]
        if _HANGUL.match(piece):
            taken, found, rest = _korean(pieces, n, forms)
            for meaning in found:
                if _of_two_colours(meaning, meanings) and said[-1:] == [meanings[-1].english]:
                    said.append("and")
                meanings.append(meaning)
                said.append(meaning.english)
            if rest:
                unknown.append(rest)
            if _joins(pieces, n, taken, forms):
                said.append("and")
            n += taken
            continue
        taken, known = _english(pieces, n, forms)
        if known is not None:
            meanings.append(known)
        mixed = known is not None and _HANGUL.search(piece)  # H라인
        said.append(known.english if known is not None and mixed else " ".join(pieces[n : n + taken]))
        n += taken
    classes = dict.fromkeys(name for meaning in meanings for name in meaning.classes)
    attributes: dict[str, tuple[str, ...]] = {}
    for meaning in meanings:
        if meaning.attribute is not None:
            field, value = meaning.attribute
            attributes[field] = tuple(dict.fromkeys((*attributes.get(field, ()), value)))
    korean = bool(_HANGUL.search(plain))
    english = " ".join(_without_stray_and(said)) if korean else text
    return Understood(english, korean, tuple(classes), attributes, tuple(unknown))


def _korean(pieces: list[str], n: int, forms: dict[str, _Meaning]) -> tuple[int, list[_Meaning], str]:
    """How many pieces are read, what they mean, and what of them means nothing that is known."""
    for more in (3, 2, 1):  # a value may be written in several words: 데님 팬츠
        run = pieces[n : n + more]
        if len(run) == more > 1 and all(map(_HANGUL.match, run)):
            whole = "".join(run)
            for end in (whole, without_ending(whole, ENDINGS)):
                if end in forms:
                    return more, [forms[end]], ""
    found, rest = _compound(pieces[n], forms)
    return 1, found, rest


def _compound(word: str, forms: dict[str, _Meaning]) -> tuple[list[_Meaning], str]:
    """A Korean word as values one after another (체크스커트), its particles and fillers left out."""
    if word in _FILLERS or word in _AND:
        return [], ""
    found: list[_Meaning] = []
    rest = ""
    at = 0
    while at < len(word):
        for size in range(len(word) - at, 0, -1):
            part = word[at : at + size]
            if part in forms and (size > 1 or (at == 0 and _only_particles(word[1:]))):
                found.append(forms[part])
                at += size
                break
            if found and part in _FILLERS:
                at += size
                break
        else:
            tail = word[at:]
            if found and _only_particles(tail):
                break
            rest += word[at]
            at += 1
    if rest and not found:
        stem = without_ending(word, ENDINGS)
        return ([forms[stem]], "") if stem in forms else ([], "" if stem in _FILLERS else stem)
    return found, rest


def _of_two_colours(meaning: _Meaning, before: list[_Meaning]) -> bool:
    """Whether a colour stands behind another: 핑크 오렌지 is pink and orange."""
    return bool(before and all(one.attribute and one.attribute[0] == "color" for one in (meaning, before[-1])))


def _only_particles(tail: str) -> bool:
    while tail:
        particle = next((one for one in ENDINGS if tail.startswith(one)), None)
        if particle is None:
            return False
        tail = tail[len(particle) :]
    return True


def _joins(pieces: list[str], n: int, taken: int, forms: dict[str, _Meaning]) -> bool:
    """Whether what was read says "and" to what follows."""
    last = pieces[n + taken - 1]
    if last in _AND:
        return True
    return last not in forms and any(last.endswith(one) and len(last) > len(one) + 1 for one in _AND)


def _english(pieces: list[str], n: int, forms: dict[str, _Meaning]) -> tuple[int, _Meaning | None]:
    for more in (3, 2, 1):
        run = pieces[n : n + more]
        if len(run) == more and not any(map(_HANGUL.match, run)):
            for words in (" ".join(run), "".join(run)):
                folded = words.casefold()
                for word in (folded, *_singulars(folded), without_ending(folded, ENDINGS)):
                    if word in forms:
                        return more, forms[word]
    return 1, None


def _singulars(word: str) -> list[str]:
    """What a word may be the plural of: dresses, bodies, hoodies, skirts."""
    endings = (("sses", "ss"), ("ies", "y"), ("s", ""))
    return [word[: -len(end)] + instead for end, instead in endings if word.endswith(end) and len(word) > 3]


def _without_stray_and(said: list[str]) -> list[str]:
    kept: list[str] = []
    for word in said:
        if word == "and" and (not kept or kept[-1] == "and"):
            continue
        kept.append(word)
    while kept and kept[-1] == "and":
        kept.pop()
    return kept


def _korean_nouns(vocabulary: Vocabulary) -> list[tuple[str, str, str]]:
    """The Korean words for garments, each with its class and its English word."""
    return [
        (word, name, noun.text[0])
        for name, noun in vocabulary.classes.items()
        for word in (noun.text[1], *noun.also)
        if _HANGUL.search(word)
    ]


def _with_noun(word: str, meaning: _Meaning, nouns: Sequence[tuple[str, str, str]]) -> _Meaning:
    """A value's word that ends in a garment (와이드팬츠) names the garment too."""
    for ending, name, english in nouns:
        if word.endswith(ending) and len(word) > len(ending):
            return _Meaning(f"{meaning.english} {english}", (name,), meaning.attribute)
    return meaning


@cache
def _forms() -> dict[str, _Meaning]:
    """Every word of the lexicon, folded (Korean without spaces), and what it means; of several meanings the first."""
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
