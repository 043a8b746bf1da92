"""Korean words and what stands behind them."""

from __future__ import annotations

#: Particles behind a noun that a search of stored words looks past.
PARTICLES = ("으로", "에서", "와", "과", "은", "는", "이", "가", "을", "를", "의", "로", "도", "만", "에")
#: With what else stands behind a noun in a question, the longest first.
ENDINGS = tuple(
    sorted((*PARTICLES, *"랑 이랑 하고 부터 까지 처럼 같은 보다 한 인 있는 없는 들 용".split()), key=len, reverse=True)
)


def without_ending(word: str, endings: tuple[str, ...]) -> str:
    """Take the first of ``endings`` from a word, where two syllables are left of it."""
    for ending in endings:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            return word[: -len(ending)]
    return word
