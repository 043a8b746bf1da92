"""Everything that a catalogue can be asked, in one value that is checked when it is made."""

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

#: Options that have a setting of the same name in the section ``query``, which stands in where they are None.
OPTIONS = (
    *("k", "garment", "where", "min_score", "diversity", "same_class", "caption", "caption_weight", "lexical_weight"),
    *("words_weight", "fusion", "hide_unavailable"),
)


_IDS = "the id of an item or a product"


@dataclass(frozen=True, eq=False)  # arrays are not equal or unequal as a whole
class Query:
    """What is asked of a catalogue: photos, words, photos and words, or items; and how it is to be answered.

    Args:
        photos: a path, the bytes of an image file, a PIL image, or an array (uint8 [height, width, 3], RGB); or a list of
            them, which are answered each, or as one with ``merge``.
        text: words, alone or beside photos or items: ``"in red"``, ``"floral:-0.4"`` (a weight within -10..10; below 0 it is
            not wanted), or :class:`Words`; one or several.
        like, unlike: item or product ids of the catalogue that the answer should look like, and should not.
        box: the garment by hand: ``x1, y1, x2, y2`` in pixels of the upright photo, as numbers or as one text.
        goes_with: also recommend what is worn with each garment.
        merge: one list for all photos and words, by reciprocal rank fusion.
        k: products for each garment, 1 at least.
        garment: which garment of a photo: ``all``, a class, or its number from 0.
        where: a filter, ``"price < 50000 and brand in ('A', 'B')"``.
        min_score: least score of a hit.
        diversity: 0 (the nearest hits) .. 1 (as different from each other as can be).
        same_class: the penalty of another class than the garment's, in cosine, 0 at least.
        caption: who describes the garments of photos, so that captions are compared too: ``none``, ``local`` ...
        caption_weight, lexical_weight: 0..1, the weights of captions, and of matching words in a text query.
        words_weight: the weight of words beside a photo or items that have none of their own.
        fusion: how pictures, captions and words make one score, by name: ``weighted``, ``rrf`` ...
        hide_unavailable: leave out products that are sold out or not released yet.
        embedded: what the encoder embedded before (``queries`` of a result), asked again by other options.

    The options from ``k`` on are None where the setting of that name (section ``query``) decides. Raises :class:`UsageError`
    for what cannot be asked, with the option in backticks.
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
        """The photos, as they were given."""
        if self.photos is None:
            return ()
        return self.photos if isinstance(self.photos, tuple) else (self.photos,)

    @property
    def is_single(self) -> bool:
        """Whether one result answers it: it names no list of photos, or wants them merged."""
        return self.merge or not isinstance(self.photos, tuple)

    @property
    def is_short(self) -> bool:
        """Whether models that are open at once are worth more than those that answer faster."""
        return len(self.sources) <= BATCH

    @property
    def words(self) -> list[Words]:
        """The texts with their weights."""
        beside = (self.sources or self.like) and not self.merge
        weight = 1.0 if self.words_weight is None or not beside else self.words_weight
        texts = cast("tuple[str | Words, ...]", self.text)
        return [parse_words(text, weight) if isinstance(text, str) else text for text in texts]

    def settings(self, settings: QueryConfig) -> QueryConfig:
        """The settings that answer it: its own options before those of ``settings``."""
        own = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        return settings.model_copy(update=own)

    def complete(self, settings: QueryConfig) -> Query:
        """The same with every option told, by the settings that answer it, and its texts with their weights."""
        query = copy(self)  # what the settings have was checked when they were read
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
            raise UsageError("`embedded` is asked alone", hint="photos, `text` and `like` are embedded themselves")
        if not (photos or words or self.like or self.unlike or self.embedded):
            raise UsageError(
                "give a photo or `text`, or `like`", hint='fashionrec query photo.jpg, or `text` "a red dress"'
            )
        if photos and (self.like or self.unlike):
            raise UsageError("`like` and `unlike` are asked without a photo")
        if self.unlike and not self.like:
            raise UsageError("`unlike` needs `like`")
        if self.box and not photos:
            raise UsageError("`box` needs a photo")
        if self.merge and any(one.weight < 0 for one in words):
            raise UsageError("`merge` takes lists of what is wanted", hint="without `merge` words lead a photo away")
        if words and not photos and not self.like and all(one.weight < 0 for one in words):
            raise UsageError("there is nothing that is wanted, only what is not", hint='add `text` "..."')
        if self.merge and self.goes_with:
            raise UsageError("`goes_with` is asked of one garment, not of `merge`")
        if self.goes_with and not (photos or self.like or self.embedded):
            raise UsageError("`goes_with` needs a photo or `like`", hint="what is worn with it is known of garments")


def resolve_garment(which: str) -> str | int | None:
    """The garment meant: None for ``all``, its number, or a class name. Raises :class:`UsageError` for what is none."""
    if which == "all":
        return None
    if which.isdecimal() and len(which) < 10:
        return int(which)
    name = resolve_class(which)
    if name is None:
        raise UsageError(f"no garment is called {which!r}", hint=f"one of {', '.join(CLASS_NAMES)}, a number, or all")
    return name


def _several(name: str, what: str, given: Any) -> tuple[str | Words, ...]:
    """One or several texts as several; ``Words`` only where ``what`` is words."""
    kinds = (str, Words) if what == "words" else str
    several = tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (given,)
    for text in several:
        if not isinstance(text, kinds):
            raise UsageError(f"`{name}` should be {what}, not {text!r}")
    return several


def check_option(name: str, value: Any) -> Any:
    """A value as the setting ``query.NAME`` takes it. Raises :class:`UsageError`."""
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
        raise UsageError(f"{given!r} is not a box", hint="`box` x1,y1,x2,y2 in pixels of the upright photo")
    return Box(*values)
