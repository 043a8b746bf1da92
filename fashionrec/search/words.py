"""Words beside a photo, and weighted words: what the encoder is asked, and how they move a vector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from fashionrec.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.captioner.lexicon import Understood
    from fashionrec.config import CaptionerConfig
    from fashionrec.embedder.embed import Embedder
    from fashionrec.search.result import QueryResult

_WEIGHTED = re.compile(r"^(?P<text>.*\S)\s*:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))$", re.DOTALL)
#: What a text says by being one at all: it is taken off before a text moves a picture's vector.
_NEUTRAL = "a photo of clothes"
MOST_WEIGHT = 10.0


@dataclass(frozen=True)
class Words:
    """A text with its weight; below 0 it is what is not wanted. ``english`` is its translation, and ``by`` who made that, where
    it is not the garment lexicon's."""

    text: str
    weight: float
    english: str | None = None
    by: str = "the garment lexicon"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UsageError("the text is empty", hint='for example --text "a red striped dress"')
        if not 0 < abs(self.weight) <= MOST_WEIGHT:  # a number that is none (nan) is not
            raise UsageError(f"the weight {self.weight:g} of {self.text!r} is 0 or beyond {MOST_WEIGHT:g}")

    @cached_property
    def understood(self) -> Understood:
        from fashionrec.captioner.lexicon import understand

        found = understand(self.text)
        return found if self.english is None else found._replace(english=self.english, translated=True, unknown=())


def translate_words(words: Sequence[Words], name: str, config: CaptionerConfig) -> list[Words]:
    """Have texts that are not English translated by the captioner ``name``, which is sent them; the others stay as they are."""
    from fashionrec.captioner.providers import make_captioner

    captioner = make_captioner(name, config)
    foreign = [n for n, one in enumerate(words) if one.understood.translated]
    english = captioner.translate([words[n].text for n in foreign]) if foreign else []
    translated = list(words)
    for n, text in zip(foreign, english, strict=True):
        translated[n] = replace(words[n], english=text, by=f"{captioner.model}, which was sent it")
    return translated


def parse_words(text: str, weight: float = 1.0) -> Words:
    """``"floral:-0.4"`` is the text "floral" with the weight -0.4; without a number it has ``weight``.

    Raises :class:`UsageError` for an empty text, or a weight that is 0 or beyond 10.
    """
    found = _WEIGHTED.match(text.strip())
    if found:
        text, weight = found["text"], float(found["weight"])
    return Words(text.strip(), weight)


def moved(vector: np.ndarray, words: Sequence[Words], embedder: Embedder) -> np.ndarray:
    """A picture's vector (float32 [d], unit length) moved towards words and away from those of negative weight.

    Each text moves it by its weight times what sets it apart from a text of clothes as such: pictures and texts lie in
    different parts of CLIP's space, and the way between those parts is not what was asked for.
    """
    import numpy as np

    asked = [one for one in words if one.understood.english]
    if not asked:
        return vector
    vectors = embedder.embed_texts([_NEUTRAL, *(one.understood.english for one in asked)])
    weights = np.array([one.weight for one in asked], np.float32)
    return _unit(vector + weights @ (vectors[1:] - vectors[0]))


def text_vector(words: Sequence[Words], embedder: Embedder) -> np.ndarray | None:
    """The vector (float32 [d], unit length) that words alone ask with; None where none of them reaches the encoder."""
    import numpy as np

    wanted = [one for one in words if one.weight > 0 and one.understood.english]
    if not wanted:
        return None
    vectors = embedder.embed_texts([one.understood.english for one in wanted])
    base = _unit(np.array([one.weight for one in wanted], np.float32) @ vectors)
    return moved(base, [one for one in words if one.weight < 0], embedder)


def tell(answer: QueryResult, words: Sequence[Words]) -> None:
    """Which way Korean texts went, as notes of the answer."""
    for one in words:
        found = one.understood
        if not found.translated:
            continue
        if found.english:
            answer.notes.append(f"“{one.text}” was read as “{found.english}”, by {one.by}")
        if found.unknown:
            unknown = ", ".join(found.unknown)
            answer.notes.append(f"the lexicon does not know {unknown}: searched for as words only")


def _unit(vector: np.ndarray) -> np.ndarray:
    import numpy as np

    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 1e-12 else vector, np.float32)
