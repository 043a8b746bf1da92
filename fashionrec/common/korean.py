"""Korean words and their particles."""

from __future__ import annotations

#: Particles after a noun that a word search ignores.
PARTICLES = ("으로", "에서", "와", "과", "은", "는", "이", "가", "을", "를", "의", "로", "도", "만", "에")
#: The same plus other endings of nouns in queries, longest first.
ENDINGS = tuple(
    sorted((*PARTICLES, *"랑 이랑 하고 부터 까지 처럼 같은 보다 한 인 있는 없는 들 용".split()), key=len, reverse=True)
)


def without_ending(word: str, endings: tuple[str, ...]) -> str:
    """Strip the first matching one of ``endings`` from a word, if two syllables remain."""
    for ending in endings:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            return word[: -len(ending)]
    return word
