"""Product values for filters: case-folded texts, numbers as floats, ``like`` patterns."""

from __future__ import annotations

import math
import unicodedata
from typing import Any


def folded(text: str) -> str:
    """Return text normalized for comparison: Unicode case folding, NFKC. Idempotent."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def as_text(value: Any) -> str:
    """Return a value as ``like`` sees it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def as_number(value: Any) -> float | None:
    """Return a value, or the number that a text reads as; None if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    try:
        number = float(value) if isinstance(value, str) and len(value) < 40 and "_" not in value else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def like(pattern: str, text: str) -> bool:
    """Return whether text matches a pattern of ``%`` and ``_``.

    It takes at most the product of their lengths in steps.
    """
    p = t = 0
    star, resume = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "%":
            star, resume = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("_", text[t]):
            p += 1
            t += 1
        elif star >= 0:  # let the last % match one more character
            p, resume = star + 1, resume + 1
            t = resume
        else:
            return False
    return all(rest == "%" for rest in pattern[p:])
