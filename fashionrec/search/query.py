"""Everything that can be asked of a catalogue, in one validated value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fashionrec.config import QueryConfig
from fashionrec.config.sections import Invalid, checked
from fashionrec.errors import UsageError
from fashionrec.search import BATCH
from fashionrec.search.words import Words, parse_words
from fashionrec.types import CLASS_NAMES, Box, resolve_class

if TYPE_CHECKING:
    from fashionrec.photos.images import PhotoSource
    from fashionrec.search.embedded import EmbeddedQuery

#: Options with a setting of the same name in the section ``query``, which is used if they are None.
OPTIONS = (
    *("k", "garment", "where", "min_score", "diversity", "same_class", "caption", "caption_weight", "lexical_weight"),
    *("words_weight", "fusion", "hide_unavailable"),
)


_IDS = "the id of an item or a product"


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Query:
    """A query: photos, texts, photos with texts, or items; and its options.

    Args:
        photos: a path, the bytes of an image file, a PIL image, or an array (uint8 [height, width,
            3], RGB); or a list of them, which are answered one by one, or together with ``merge``.
        text: one or several texts, alone or with photos or items: ``"in red"``, ``"floral:-0.4"``
            (weights from -10 to 10; negative ones push away), or :class:`Words`.
        like, unlike: item or product ids that hits should, or should not, resemble.
        box: a garment drawn by hand: ``x1, y1, x2, y2`` in pixels of the upright photo, as numbers
            or one text.
        goes_with: also recommend what is worn with each garment.
        merge: one list for all photos and texts, by reciprocal rank fusion.
        k: hits per garment, at least 1.
        garment: which garment of a photo: ``all``, a class, or its number from 0.
        where: a filter, ``"price < 50000 and brand in ('A', 'B')"``.
        min_score: lowest score of a hit.
        diversity: 0 (the nearest hits) to 1 (as different from each other as possible).
        same_class: penalty of classes other than the garment's, in cosine, at least 0.
        caption: who captions the garments of photos, so that captions are compared too: ``none``,
            ``local`` ...
        caption_weight, lexical_weight: 0..1, the weights of captions, and of matching words in a
            text query.
        words_weight: the weight of texts with a photo or items that have none of their own.
        fusion: name of the fusion formula: ``weighted``, ``rrf`` ...
        hide_unavailable: exclude products that are sold out or not released yet.
        embedded: embedded queries (``queries`` of a result), to search again with other options.

    Options from ``k`` on that are None come from the settings (section ``query``). Raises
    :class:`UsageError` for invalid queries, with the option in backticks.
    """

    photos: PhotoSource | Sequence[PhotoSource] | None = field(default=None, repr=False)
    text: str | Words | Sequence[str | Words] = ()
    like: str | Sequence[str] = ()
    unlike: str | Sequence[str] = ()
    box: Box | Sequence[float] | str | None = None
    goes_with: bool = False
    merge: bool = False
    k: int | None = None
    garment: str | int | None = None
    where: str | None = None
    min_score: float | None = None
    diversity: float | None = None
    same_class: float | None = None
    caption: str | None = None
    caption_weight: float | None = None
    lexical_weight: float | None = None
    words_weight: float | None = None
    fusion: str | None = None
    hide_unavailable: bool | None = None
    embedded: Sequence[EmbeddedQuery] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.photos, list):
            self._set("photos", tuple(self.photos))
        for name, what in (("text", "words"), ("like", _IDS), ("unlike", _IDS)):
            self._set(name, _several(name, what, getattr(self, name)))
        self._set("box", _box(self.box))
        for name in OPTIONS:
            if getattr(self, name) is not None:
                self._set(name, check_option(name, getattr(self, name)))
        self._check_question()
        if self.garment is not None:
            resolve_garment(str(self.garment))
        if self.where is not None:
            from fashionrec.search.filters.where import parse_where

            parse_where(self.where)

    @property
    def sources(self) -> tuple[PhotoSource, ...]:
        """The photos, as given."""
        if self.photos is None:
            return ()
        return self.photos if isinstance(self.photos, tuple) else (self.photos,)

    @property
    def is_single(self) -> bool:
        """True if it has a single result: no list of photos, or merged ones."""
        return self.merge or not isinstance(self.photos, tuple)

    @property
    def is_short(self) -> bool:
        """True if models that open fast are better than models that run fast."""
        return len(self.sources) <= BATCH

    @property
    def words(self) -> list[Words]:
        """The texts with their weights."""
        beside = (self.sources or self.like) and not self.merge
        weight = 1.0 if self.words_weight is None or not beside else self.words_weight
        texts = cast("tuple[str | Words, ...]", self.text)
        return [parse_words(text, weight) if isinstance(text, str) else text for text in texts]

    def settings(self, settings: QueryConfig) -> QueryConfig:
        """Return the settings that apply: its own options over those of ``settings``."""
        own = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        return settings.model_copy(update=own)

    def complete(self, settings: QueryConfig) -> Query:
        """Return the query with every option filled in from the settings, and its texts with
        weights.
        """
        query = copy(self)  # the settings were validated when they were read
        for name in OPTIONS:
            query._set(name, getattr(settings, name))
        query._set("text", tuple(query.words))
        return query

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_question(self) -> None:
        for source in self.sources:
            # Pillow's images and arrays, without importing either
            if not (isinstance(source, (str, os.PathLike, bytes)) or hasattr(type(source), "__array_interface__")):
                raise UsageError(
                    f"a photo is {type(source).__name__}", hint="give a path, bytes, a PIL image or an array"
                )
        photos, words = bool(self.sources), self.words
        if self.embedded and (photos or words or self.like or self.unlike):
            raise UsageError(
                "`embedded` cannot be combined with other inputs",
                hint="photos, `text` and `like` are embedded by the search itself",
            )
        if not (photos or words or self.like or self.unlike or self.embedded):
            raise UsageError(
                "give a photo, `text` or `like`", hint='fashionrec query photo.jpg, or `text` "a red dress"'
            )
        if photos and (self.like or self.unlike):
            raise UsageError("`like` and `unlike` cannot be combined with a photo")
        if self.unlike and not self.like:
            raise UsageError("`unlike` needs `like`")
        if self.box and not photos:
            raise UsageError("`box` needs a photo")
        if self.merge and any(one.weight < 0 for one in words):
            raise UsageError(
                "`merge` needs at least one positive list", hint="without `merge`, negative texts push a photo away"
            )
        if words and not photos and not self.like and all(one.weight < 0 for one in words):
            raise UsageError("give at least one positive text or photo", hint='add `text` "..."')
        if self.merge and self.goes_with:
            raise UsageError("`goes_with` needs single garments, not `merge`")
        if self.goes_with and not (photos or self.like or self.embedded):
            raise UsageError("`goes_with` needs a photo or `like`", hint="outfits are known for garments")


def resolve_garment(which: str) -> str | int | None:
    """Resolve a garment: None for ``all``, its number, or a class name. Raises
    :class:`UsageError`.
    """
    if which == "all":
        return None
    if which.isdecimal() and len(which) < 10:
        return int(which)
    name = resolve_class(which)
    if name is None:
        raise UsageError(f"unknown garment {which!r}", hint=f"one of {', '.join(CLASS_NAMES)}, a number, or all")
    return name


def _several(name: str, what: str, given: Any) -> tuple[str | Words, ...]:
    """Return one or several texts as a tuple; ``Words`` are only allowed for texts."""
    kinds = (str, Words) if what == "words" else str
    several = tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (given,)
    for text in several:
        if not isinstance(text, kinds):
            raise UsageError(f"`{name}` should be {what}, not {text!r}")
    return several


def check_option(name: str, value: Any) -> Any:
    """Validate a value as the setting ``query.NAME``. Raises :class:`UsageError`."""
    try:
        found = checked(QueryConfig.model_fields()[name], value)
    except Invalid as wrong:
        raise UsageError(f"`{name}` {wrong.message}, not {wrong.value!r}") from None
    if found != found:
        raise UsageError(f"`{name}` should be a number, not {value!r}")
    return found


def _box(given: Box | Sequence[float] | str | None) -> Box | None:
    if given is None:
        return None
    parts = given.replace(" ", "").split(",") if isinstance(given, str) else given
    try:
        values = [float(part) for part in parts]
    except (TypeError, ValueError):
        values = []
    if len(values) != 4 or not all(abs(value) < 1e9 for value in values):
        raise UsageError(
            f"`box` needs 4 numbers: X1,Y1,X2,Y2; got {given!r}",
            hint="pixels of the upright photo, as in 40,60,310,480",
        )
    return Box(*values)
