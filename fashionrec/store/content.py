"""Stored rows of photos, garments, captions and products, as builds need them.

Queries never import this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fashionrec.types import Box


@dataclass(frozen=True)
class GarmentRow:
    """A stored garment: its place in the photo, and where its vector and thumbnail are."""

    position: int
    class_name: str | None
    confidence: float | None
    box: Box
    whole_photo: bool
    segment: str
    row: int
    thumb_offset: int
    thumb_size: int


@dataclass(frozen=True)
class PhotoRow:
    """A stored photo with its garments.

    ``build_key`` is the fingerprint of the models and settings that found them.
    """

    sha256: str
    width: int
    height: int
    build_key: str
    garments: tuple[GarmentRow, ...]


@dataclass(frozen=True)
class CaptionRow:
    """A stored caption; ``segment`` and ``row`` locate its vector.

    ``words`` is the text for full-text search; if empty, the two captions.
    """

    caption_en: str
    caption_ko: str
    attributes: dict[str, str]
    embedding_text: str
    captioner: str
    segment: str | None = None
    row: int | None = None
    words: str = ""

    @property
    def searched(self) -> str:
        """The text for full-text search."""
        return self.words or f"{self.caption_en} {self.caption_ko}"


@dataclass(frozen=True, slots=True)
class EntryRow:
    """A stored row of the product table.

    ``image`` is a path below ``base``; ``photo`` is the sha256 of its content.
    """

    entry_no: int
    image: str
    base: str
    product_id: str
    photo: str
    metadata: dict[str, Any]


class EntryText(NamedTuple):
    """A stored row of the product table with ``metadata`` as JSON text, since parsing is slow."""

    entry_no: int
    image: str
    base: str
    product_id: str
    photo: str
    metadata: str
