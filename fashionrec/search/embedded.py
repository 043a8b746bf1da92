"""A question as the encoder embedded it: what is ranked, and what can be asked again with other settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.types import Garment


class Lexical(NamedTuple):
    """What full-text search found: the ``numbers`` of every item that holds a word, in order, and their ``relevance`` (0..1);
    those ``first`` in it, which it brings in; and how many are to be looked for by vector at least."""

    numbers: np.ndarray
    relevance: np.ndarray
    first: Sequence[int]
    look_for: int = 0

    def relevance_of(self, numbers: Sequence[int]) -> dict[int, float]:
        """The relevance of some items by number, 0 where they hold no word."""
        import numpy as np

        at = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        found = np.where(self.numbers[at] == numbers, self.relevance[at], 0.0)
        return dict(zip(numbers, found.tolist(), strict=True))


class EmbeddedQuery(NamedTuple):
    """One garment or text, ready to be compared with a catalogue's vectors.

    Attributes:
        garment: What hits are found for; those of its class are preferred.
        vector: float32 [d], unit length, compared with the garments' image vectors; None where matching words alone decide.
        caption: float32 [d], unit length, compared with the captions' vectors; None where captions are not compared.
        lexical: Items that hold words of the text.
        classes: Classes preferred beside the garment's own.
        by_text: The vector is of the text tower, which an index of pictures may not serve.
        without: Products that are left out.
    """

    garment: Garment
    vector: np.ndarray | None
    caption: np.ndarray | None = None
    lexical: Lexical | None = None
    classes: Collection[str] = ()
    by_text: bool = False
    without: Collection[str] = ()
