"""The garments of a catalogue as captions see them, and the plan: what is there, what is known, what is to be asked."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fashionrec.captioner.cache import Place, same_box
from fashionrec.common.batches import batched
from fashionrec.errors import ImageError, UsageError
from fashionrec.photos.images import least_side, read_photo, read_thumbnail
from fashionrec.types import resolve_class

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.job.caches import Caches
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.photos.images import Photo
    from fashionrec.store.items import StoredItem
    from fashionrec.types import Box

_TOGETHER = 64  # items read together


def place_of(stored: StoredItem) -> Place:
    """The garment that an item is, as captions know it."""
    return Place(stored.photo, stored.item.class_name, stored.item.box)


@dataclass(frozen=True)
class Recaption:
    """What is asked anew, and since when: ``all``, or classes, products and items by their names."""

    what: str
    since: str | None = None

    @classmethod
    def parse(cls, text: str) -> Recaption:
        """Of words with commas between them. Raises :class:`UsageError` where there are none."""
        words = sorted({word.strip() for word in text.split(",") if word.strip()})
        if not words:
            raise UsageError(
                "--recaption names nothing", hint="--recaption all, or classes, products or items: top,P123"
            )
        return cls("all" if "all" in words else ",".join(words))

    def check(self, catalogue: Catalogue) -> None:
        """Raises :class:`UsageError` for a name that means nothing in this catalogue."""
        self._find(catalogue, strict=True)

    def numbers(self, catalogue: Catalogue) -> frozenset[int] | None:
        """The garments named, by number; None for all. What has gone meanwhile is left out."""
        return self._find(catalogue, strict=False)

    def _find(self, catalogue: Catalogue, *, strict: bool) -> frozenset[int] | None:
        if self.what == "all":
            return None
        words = set(self.what.split(","))
        classes = {name for word in words if (name := resolve_class(word)) is not None}
        unused = {word for word in words if resolve_class(word) is None}
        found = set()
        for stored in catalogue.items.everything():
            item = stored.item
            named = {item.item_id, item.product_id} & words
            if named or item.class_name in classes:
                found.add(stored.garment_no)
                unused -= named
        if unused and strict:
            raise UsageError(
                f"{min(unused)!r} is no class, product or item of {catalogue.root}",
                hint="--recaption all, or classes, products or items: top,P123",
            )
        return frozenset(found)


@dataclass
class Plan:
    """``todo`` are the numbers of the items whose garments are to be asked, of ``missing`` that might be; ``kept`` have a
    caption in the catalogue; ``reused`` are known from a cache, with their ``states``."""

    todo: array[int] = field(default_factory=lambda: array("q"))
    missing: int = 0
    kept: int = 0
    reused: int = 0
    states: Counter[str] = field(default_factory=Counter)


def garments(catalogue: Catalogue, numbers: Iterable[int]) -> Iterator[StoredItem]:
    """The items of some numbers, in that order, a few in memory at a time."""
    for part in batched(numbers, _TOGETHER):
        found = catalogue.items.by_numbers(part)
        yield from (found[number] for number in part)


def make_plan(
    catalogue: Catalogue,
    caches: Caches,
    captioner: Captioner,
    *,
    again: Collection[str] = (),
    recaption: Recaption | None = None,
    limit: int | None = None,
    under_way: Callable[[Place], bool] = lambda place: False,
) -> Plan:
    """What a run of a captioner has to do. ``again`` are states that are asked again; what is ``under_way`` is not asked.

    Captions by others are replaced as :meth:`Captioner.keeps` says. Of garments that overlap so much that they are one
    (IoU >= 0.9, same class), one is asked.
    """
    plan = Plan()
    anew = recaption.numbers(catalogue) if recaption is not None else frozenset()
    asked: dict[tuple[str, str | None], list[Box]] = {}
    for garment in catalogue.items.garments():
        fresh = anew is None or garment.garment_no in anew
        if not fresh and captioner.keeps(garment.captioner):
            plan.kept += 1
            continue
        place = Place(garment.photo, garment.class_name, garment.box)
        since = recaption.since if fresh and recaption is not None else None
        known = None
        if not fresh or since is not None:
            known = caches.find(place, captioner.name, model=captioner.only_model, again=again, since=since)
        if known is not None:
            plan.reused += 1
            plan.states[known.state] += 1
            continue
        if not garment.alone:
            boxes = asked.setdefault(place[:2], [])
            if any(same_box(box, place.box) for box in boxes):
                continue
            boxes.append(place.box)
        if under_way(place):
            continue
        plan.missing += 1
        if limit is None or len(plan.todo) < limit:
            plan.todo.append(garment.item_no)
    return plan


class Pictures:
    """Garments' pictures for a captioner: cut from the photo where it is still at hand and unchanged, else the thumbnail."""

    def __init__(self, catalogue: Catalogue, side: int) -> None:
        """``side`` is the long side of what is made of a picture: a large photo is not decoded whole for it."""
        self._catalogue, self._side = catalogue, side
        self._last: tuple[str, Photo] | None = None
        # no border around it: a captioner looks at pictures of any shape, and what is not sent is not paid for
        self._crop = catalogue.crop.model_copy(update={"square": False})

    def __call__(self, stored: StoredItem) -> Image.Image:
        photo = self._photo(stored)
        if photo is not None:
            return photo.crop(stored.item.box, self._crop)
        return read_thumbnail(self._catalogue.thumbnail(stored))

    def _photo(self, stored: StoredItem) -> Photo | None:
        """The photo that a garment is in, with enough pixels of it; None where it is gone or another one by now."""
        last = self._last  # the garments of one photo follow each other
        box, crop = stored.item.box, self._catalogue.crop
        if last is not None and last[0] == stored.photo and last[1].shows(box, crop, self._side):
            return last[1]
        path = Path(stored.base) / stored.item.image
        limits = self._catalogue.config.images
        try:
            photo = read_photo(path, limits, least_side(self._side))
            if photo.sha256 != stored.photo:
                return None
            if not photo.shows(box, crop, self._side):
                photo = read_photo(path, limits)
        except ImageError:
            return None
        self._last = stored.photo, photo
        return photo
