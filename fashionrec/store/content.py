"""What builds store of photos, garments, captions and products. Queries have no use for it, nor import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fashionrec.types import Box


@dataclass(frozen=True)
class GarmentRow:
    """A garment as stored: where it is in its photo, and where its vector and thumbnail are."""

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
    """A photo's content as stored, with its garments. ``build_key`` names the models and settings that found them."""

    sha256: str
    width: int
    height: int
    build_key: str
    garments: tuple[GarmentRow, ...]


@dataclass(frozen=True)
class CaptionRow:
    """A garment's caption as stored; ``segment`` and ``row`` say where the vector of its text is, ``words`` what word search
    finds it by: the two captions, where it is empty."""

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
        """What word search finds it by."""
        return self.words or f"{self.caption_en} {self.caption_ko}"


@dataclass(frozen=True, slots=True)
class EntryRow:
    """A row of the product table as stored. ``image`` is a path below ``base``; ``photo`` is the sha256 of its content."""

    entry_no: int
    image: str
    base: str
    product_id: str
    photo: str
    metadata: dict[str, Any]


class EntryText(NamedTuple):
    """A row of the product table as it lies in the file: ``metadata`` is a JSON text, which is slow to read."""

    entry_no: int
    image: str
    base: str
    product_id: str
    photo: str
    metadata: str
