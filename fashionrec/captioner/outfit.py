"""One sentence for all garments of a photo: "화이트 셔츠와 체크 패턴 스커트", "A white shirt and a checked skirt".

Made from the garments' attributes, whoever told them: what one photo shows is asked garment by garment, and paid for once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fashionrec.captioner.phrases import EN, KO, value_of, with_article
from fashionrec.captioner.vocabulary import Vocabulary, load_vocabulary

#: In the order in which a person is described: from above.
_FROM_ABOVE = ("top", "dress", "skirt", "skirt&pants", "pants")
#: Letters and digits whose Korean names end in a consonant.
_CLOSED = frozenset("lmnrLMNR013678")


class Outfit(NamedTuple):
    """What is worn together, in both languages."""

    en: str
    ko: str


def outfit(garments: Sequence[Mapping[str, str]], vocabulary: Vocabulary | None = None) -> Outfit | None:
    """The outfit of garments by their attributes (with ``category``), in any order; None where there are fewer than two."""
    words = vocabulary or load_vocabulary()
    told = [garment for garment in garments if garment.get("category") in words.classes]
    if len(told) < 2:
        return None
    told.sort(key=lambda garment: _FROM_ABOVE.index(garment["category"]))
    english = [with_article(_phrase(words, garment, EN)) for garment in told]
    korean = [_phrase(words, garment, KO) for garment in told]
    text = f"{', '.join(english[:-1])} and {english[-1]}"
    before = ", ".join(korean[:-1])
    return Outfit(text[0].upper() + text[1:], f"{with_and(before)} {korean[-1]}")


def with_and(word: str) -> str:
    """A Korean word with the particle that says "and": 과 after a consonant, 와 after a vowel."""
    last = word.rstrip(")\"'」』 ")[-1:]
    if "가" <= last <= "힣":
        closed = (ord(last) - ord("가")) % 28 != 0
    else:
        closed = last in _CLOSED
    return word + ("과" if closed else "와")


def _phrase(words: Vocabulary, garment: Mapping[str, str], language: int) -> str:
    """Colour, pattern and what it is, as short as a shop's title."""
    kind = value_of(words, "sub_category", garment)
    noun = kind.text[language] if kind else words.classes[garment["category"]].text[language]
    said = []
    color, pattern = value_of(words, "color", garment), value_of(words, "pattern", garment)
    if color is not None:
        said.append(color.text[language])
    if pattern is not None and pattern.name != "plain" and not pattern.silent:
        text = pattern.text[language]
        said.append(f"{text} 패턴" if language == KO and "배색" not in text else text)
    return " ".join([*said, noun])
