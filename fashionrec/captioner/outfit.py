"""One phrase for all garments of a photo: "화이트 셔츠와 체크 패턴 스커트", "A white shirt and a checked skirt".

It is made of the garments' attributes, whichever captioner gave them: garments are described one by
one, so that each is paid for once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fashionrec.captioner.phrases import EN, KO, value_of, with_article
from fashionrec.captioner.vocabulary import Vocabulary, load_vocabulary

#: The order of the garments in the phrase: top to bottom.
_ORDER = ("top", "dress", "skirt", "skirt&pants", "pants")
#: Letters and digits whose Korean names end in a consonant.
_CONSONANT_ENDINGS = frozenset("lmnrLMNR013678")


class Outfit(NamedTuple):
    """An outfit in both languages."""

    en: str
    ko: str


def outfit(garments: Sequence[Mapping[str, str]], vocabulary: Vocabulary | None = None) -> Outfit | None:
    """Describe an outfit by the attributes of its garments (with ``category``), in any order.

    Returns None for fewer than two garments.
    """
    words = vocabulary or load_vocabulary()
    valid = [garment for garment in garments if garment.get("category") in words.classes]
    if len(valid) < 2:
        return None
    valid.sort(key=lambda garment: _ORDER.index(garment["category"]))
    english = [with_article(_phrase(words, garment, EN)) for garment in valid]
    korean = [_phrase(words, garment, KO) for garment in valid]
    text = f"{', '.join(english[:-1])} and {english[-1]}"
    first_korean = ", ".join(korean[:-1])
    return Outfit(text[0].upper() + text[1:], f"{with_and(first_korean)} {korean[-1]}")


def with_and(word: str) -> str:
    """Add the Korean particle for "and" to a word: 과 after a consonant, 와 after a vowel."""
    last = word.rstrip(")\"'」』 ")[-1:]
    if "가" <= last <= "힣":
        ends_in_consonant = (ord(last) - ord("가")) % 28 != 0
    else:
        ends_in_consonant = last in _CONSONANT_ENDINGS
    return word + ("과" if ends_in_consonant else "와")


def _phrase(words: Vocabulary, garment: Mapping[str, str], language: int) -> str:
    """Return colour, pattern and noun, as short as a shop title."""
    kind = value_of(words, "sub_category", garment)
    noun = kind.text[language] if kind else words.classes[garment["category"]].text[language]
    parts = []
    color, pattern = value_of(words, "color", garment), value_of(words, "pattern", garment)
    if color is not None:
        parts.append(color.text[language])
    if pattern is not None and pattern.name != "plain" and not pattern.silent:
        text = pattern.text[language]
        parts.append(f"{text} 패턴" if language == KO and "배색" not in text else text)
    return " ".join([*parts, noun])
