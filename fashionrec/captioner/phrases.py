"""Phrases made of attributes: noun phrases as shops write them.

"A navy striped long-sleeve round-neck T-shirt", "네이비 스트라이프 긴팔 라운드넥 티셔츠".
"""

from __future__ import annotations

from collections.abc import Mapping

from fashionrec.captioner.vocabulary import NONE, UNKNOWN, Value, Vocabulary

#: The order of the words in shop titles, in both languages.
_ORDER = ("pattern_scale", "pattern", "material", "fit", "length", "sleeve", "neckline")
EN, KO = 0, 1


def caption_en(vocabulary: Vocabulary, class_name: str, attributes: Mapping[str, str]) -> str:
    """Return an English phrase: "A navy and white striped short-sleeve top with buttons"."""
    noun, adjectives = _words(vocabulary, class_name, attributes, EN)
    text = with_article(" ".join([*adjectives, noun]))
    closure, graphic = value_of(vocabulary, "closure", attributes), value_of(vocabulary, "graphic", attributes)
    if closure is not None and not _implied(vocabulary, class_name, attributes, "closure"):
        text += f" with {closure.text[EN]}"
    if graphic is not None:
        text += f" {'and' if ' with ' in text else 'with'} {with_article(graphic.text[EN])} print"
    return text[0].upper() + text[1:]


def caption_ko(vocabulary: Vocabulary, class_name: str, attributes: Mapping[str, str]) -> str:
    """Return a Korean noun phrase: "네이비 화이트 스트라이프 반팔 라운드넥 티셔츠"."""
    noun, adjectives = _words(vocabulary, class_name, attributes, KO)
    graphic, closure = value_of(vocabulary, "graphic", attributes), value_of(vocabulary, "closure", attributes)
    if graphic is not None:
        adjectives.append(f"{graphic.text[KO]} 프린트")
    if closure is not None and not _implied(vocabulary, class_name, attributes, "closure"):
        adjectives.append(closure.text[KO])
    return " ".join([*adjectives, noun])


def with_article(phrase: str) -> str:
    """Add "a" or "an" to a phrase, unless its noun is plural ("navy shorts")."""
    last = phrase.rsplit(" ", 1)[-1]
    if last.endswith("s") and not last.endswith("ss"):
        return phrase
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _words(
    vocabulary: Vocabulary, class_name: str, attributes: Mapping[str, str], language: int
) -> tuple[str, list[str]]:
    """Return the noun and the words before it, colour first, without those that repeat the noun."""
    kind = _kind(vocabulary, class_name, attributes)
    noun = kind.text[language] if kind else vocabulary.classes[class_name].text[language]
    color, second = value_of(vocabulary, "color", attributes), value_of(vocabulary, "second_color", attributes)
    words = [color.text[language]] if color else []
    if color and second:
        words.append(("and ", "")[language] + second.text[language])
    for field in _ORDER:
        value = value_of(vocabulary, field, attributes)
        if value is None or value.silent or _implied(vocabulary, class_name, attributes, field):
            continue
        if value.text[language].casefold() not in noun.casefold().split():
            words.append(value.text[language])
    return noun, words


def _kind(vocabulary: Vocabulary, class_name: str, attributes: Mapping[str, str]) -> Value | None:
    """Return the sub-category, or the one that the other attributes imply (a hood and a zip)."""
    given = value_of(vocabulary, "sub_category", attributes)
    if given is not None:
        return given
    kinds = vocabulary.values("sub_category", class_name).values()
    implied = [kind for kind in kinds if kind.implies and kind.implies.items() <= attributes.items()]
    implied = [kind for kind in implied if "material" not in kind.implies]  # cotton trousers need not be chinos
    return max(implied, key=lambda kind: len(kind.implies), default=None)


def _implied(vocabulary: Vocabulary, class_name: str, attributes: Mapping[str, str], field: str) -> bool:
    kind = _kind(vocabulary, class_name, attributes)
    return kind is not None and kind.implies.get(field) == attributes.get(field)


def value_of(vocabulary: Vocabulary, field: str, attributes: Mapping[str, str]) -> Value | None:
    """Return the value of a field; None for unknown, none, and words outside the vocabulary."""
    word = attributes.get(field, "")
    return None if word in ("", UNKNOWN, NONE) else vocabulary.fields[field].values.get(word)
