"""Weighted texts: parsing, translation, and how they shift a query vector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from fashionrec.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.captioner.lexicon import ParsedText
    from fashionrec.config import CaptionerConfig
    from fashionrec.embedder.embed import Embedder
    from fashionrec.search.result import QueryResult

_WEIGHTED = re.compile(r"^(?P<text>.*\S)\s*:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))$", re.DOTALL)
#: A neutral text, subtracted before a text shifts an image vector.
_NEUTRAL = "a photo of clothes"
MOST_WEIGHT = 10.0


@dataclass(frozen=True)
class Words:
    """A text with its weight; negative ones push away.

    ``english`` is its translation, and ``by`` the translator if it is not the garment lexicon.
    """

    text: str
    weight: float
    english: str | None = None
    by: str = "the garment lexicon"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UsageError("empty text", hint='for example --text "a red striped dress"')
        if not 0 < abs(self.weight) <= MOST_WEIGHT:  # NaN fails the comparison
            raise UsageError(
                f"weight {self.weight:g} of {self.text!r} is 0 or outside -{MOST_WEIGHT:g}..{MOST_WEIGHT:g}"
            )

    @cached_property
    def understood(self) -> ParsedText:
        from fashionrec.captioner.lexicon import parse_text

        found = parse_text(self.text)
        return found if self.english is None else found._replace(english=self.english, is_translation=True, unknown=())


def translate_words(words: Sequence[Words], name: str, config: CaptionerConfig) -> list[Words]:
    """Translate texts that are not English with the captioner ``name``, which receives them."""
    from fashionrec.captioner.providers import make_captioner

    captioner = make_captioner(name, config)
    foreign = [n for n, one in enumerate(words) if one.understood.is_translation]
    english = captioner.translate([words[n].text for n in foreign]) if foreign else []
    translated = list(words)
    for n, text in zip(foreign, english, strict=True):
        translated[n] = replace(words[n], english=text, by=f"{captioner.model}, which received it")
    return translated


def parse_words(text: str, weight: float = 1.0) -> Words:
    """Parse ``"floral:-0.4"`` as the text "floral" with weight -0.4; without a number it has
    ``weight``.

    Raises :class:`UsageError` for an empty text, or a weight that is 0 or beyond 10.
    """
    found = _WEIGHTED.match(text.strip())
    if found:
        text, weight = found["text"], float(found["weight"])
    return Words(text.strip(), weight)


def shift_vector(vector: np.ndarray, words: Sequence[Words], embedder: Embedder) -> np.ndarray:
    """Shift an image vector (float32 [d], unit length) towards texts, and away from those with
    negative weight.

    Each text shifts it by its weight times the difference between its embedding and that of a
    generic clothing prompt: images and texts lie in different regions of CLIP's space, and the
    offset between the regions is not part of the query.
    """
    import numpy as np

    asked = [one for one in words if one.understood.english]
    if not asked:
        return vector
    vectors = embedder.embed_texts([_NEUTRAL, *(one.understood.english for one in asked)])
    weights = np.array([one.weight for one in asked], np.float32)
    return _unit(vector + weights @ (vectors[1:] - vectors[0]))


def text_vector(words: Sequence[Words], embedder: Embedder) -> np.ndarray | None:
    """Return the query vector (float32 [d], unit length) of texts; None if none of them reaches the
    encoder.
    """
    import numpy as np

    wanted = [one for one in words if one.weight > 0 and one.understood.english]
    if not wanted:
        return None
    vectors = embedder.embed_texts([one.understood.english for one in wanted])
    base = _unit(np.array([one.weight for one in wanted], np.float32) @ vectors)
    return shift_vector(base, [one for one in words if one.weight < 0], embedder)


def add_translation_notes(answer: QueryResult, words: Sequence[Words]) -> None:
    """Add notes about the translation of Korean texts to a result."""
    for one in words:
        found = one.understood
        if not found.is_translation:
            continue
        if found.english:
            answer.notes.append(f"“{one.text}” was translated to “{found.english}” by {one.by}")
        if found.unknown:
            unknown = ", ".join(found.unknown)
            answer.notes.append(f"words unknown to the lexicon: {unknown}; searched by full text only")


def _unit(vector: np.ndarray) -> np.ndarray:
    import numpy as np

    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 1e-12 else vector, np.float32)
