"""An embedded query, which can be ranked, and searched again with other settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.types import Garment


class Lexical(NamedTuple):
    """Results of full-text search.

    ``numbers`` of every item with a matching word, ascending, and their ``relevance`` (0..1); those
    ``first`` in relevance, which become candidates; and the minimum number of candidates by vector.
    """

    numbers: np.ndarray
    relevance: np.ndarray
    first: Sequence[int]
    look_for: int = 0

    def relevance_of(self, numbers: Sequence[int]) -> dict[int, float]:
        """Return the relevance of some items by number, 0 without a matching word."""
        import numpy as np

        at = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        found = np.where(self.numbers[at] == numbers, self.relevance[at], 0.0)
        return dict(zip(numbers, found.tolist(), strict=True))


class EmbeddedQuery(NamedTuple):
    """One garment or text, ready to compare with a catalogue's vectors.

    Attributes:
        garment: The query garment; hits of its class are preferred.
        vector: float32 [d], unit length, compared with image vectors; None if only matching words
            count.
        caption: float32 [d], unit length, compared with caption vectors; None without captions.
        lexical: Items with words of the text.
        classes: Preferred classes besides the garment's own.
        by_text: The vector comes from the text encoder, for which an index of images may not work.
        without: Excluded products.
    """

    garment: Garment
    vector: np.ndarray | None
    caption: np.ndarray | None = None
    lexical: Lexical | None = None
    classes: Collection[str] = ()
    by_text: bool = False
    without: Collection[str] = ()
