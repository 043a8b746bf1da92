"""Small types shared by all modules, without logic; imports only the standard library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Class names by id. The ids are fixed: labels, models and catalogues depend on them.
CLASS_NAMES: tuple[str, ...] = ("dress", "pants", "skirt&pants", "skirt", "top")

#: Aliases of classes that are awkward on a command line (``&`` is special to shells).
CLASS_ALIASES: dict[str, str] = {"culottes": "skirt&pants", "skirt-pants": "skirt&pants", "skirt_pants": "skirt&pants"}

_BY_ID = {str(n): name for n, name in enumerate(CLASS_NAMES)}


class Box(NamedTuple):
    """A box in pixels of the upright photo.

    ``x1, y1`` is the inclusive corner, ``x2, y2`` the exclusive one.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    def clip(self, width: float, height: float) -> Box:
        """Return the part of the box inside a photo of that size, in pixels."""
        return Box(
            min(max(self.x1, 0.0), width),
            min(max(self.y1, 0.0), height),
            min(max(self.x2, 0.0), width),
            min(max(self.y2, 0.0), height),
        )

    def iou(self, other: Box) -> float:
        """Return the intersection over union, 0..1 (0 if both are empty)."""
        w = min(self.x2, other.x2) - max(self.x1, other.x1)
        h = min(self.y2, other.y2) - max(self.y1, other.y1)
        inter = max(0.0, w) * max(0.0, h)
        union = self.area + other.area - inter
        return inter / union if union > 0 else 0.0


@dataclass(frozen=True)
class Garment:
    """A garment in a photo.

    ``index`` counts from 0 within the photo; ``class_name`` is None if the whole photo stands for
    the garment (``whole_photo``) because nothing was detected.
    """

    index: int
    class_name: str | None
    confidence: float | None
    box: Box
    whole_photo: bool = False
    caption: str | None = None

    @property
    def name(self) -> str:
        """Its display name: the class, or what the query was."""
        if self.class_name is not None:
            return self.class_name
        if self.whole_photo:
            return "whole photo"
        return "the box" if self.box.area > 0 else "words"


@dataclass(frozen=True)
class Item:
    """A searchable garment of a catalogue.

    ``attributes`` come from captions, ``metadata`` from the product table.
    """

    item_id: str
    product_id: str
    image: str
    class_name: str | None
    box: Box
    confidence: float | None = None
    caption: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


class _HitFields:
    """Common fields of hits."""

    parts: dict[str, float]
    cosine: float | None

    @property
    def closeness(self) -> float:
        """The cosine minus the penalty of another class; ``match`` is calibrated on it."""
        return (self.cosine or 0.0) + self.parts.get("class", 0.0)


@dataclass(frozen=True)
class RankedProduct(_HitFields):
    """A hit before its item is read.

    ``item_no`` is the row id of the item; the other fields are those of :class:`Hit`.
    """

    rank: int
    score: float
    product_id: str
    item_no: int
    parts: dict[str, float] = field(default_factory=dict)
    cosine: float | None = None
    match: int | None = None

    def of(self, item: Item) -> Hit:
        """Return the hit with its item."""
        return Hit(self.rank, self.score, item, self.parts, self.cosine, self.match)


@dataclass(frozen=True)
class Hit(_HitFields):
    """A search result.

    ``rank`` counts from 1, ``score`` is the sorting key, and ``parts`` are its summands (``image``,
    ``caption``, ``words``, ``class``). ``cosine`` is the image's similarity to the query (-1..1;
    None without a query vector), and ``match`` the measured chance (0..100) that it is the same
    product (None if not measured).
    """

    rank: int
    score: float
    item: Item
    parts: dict[str, float] = field(default_factory=dict)
    cosine: float | None = None
    match: int | None = None


def resolve_class(word: str) -> str | None:
    """Return the class for a name, an alias, or an id ("4"); None if there is none."""
    word = word.strip().lower()
    number = word.lstrip("0") or word[-1:]  # "04" means 4
    word = _BY_ID.get(number) or CLASS_ALIASES.get(word, word)
    return word if word in CLASS_NAMES else None


def category_of(metadata: Mapping[str, Any], columns: Iterable[str]) -> str | None:
    """Return the class that a product's data names, in the first of the columns that names one."""
    return next((name for column in columns if (name := resolve_class(str(metadata.get(column, ""))))), None)
