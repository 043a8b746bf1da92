"""The garments of a catalogue, and the plan of a caption run: which of them need a request."""

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

_ITEMS_PER_READ = 64


def place_of(stored: StoredItem) -> Place:
    """Return the key under which captions know the garment of an item."""
    return Place(stored.photo, stored.item.class_name, stored.item.box)


@dataclass(frozen=True)
class Recaption:
    """Garments to caption again and since when: ``all``, or class, product and item names."""

    what: str
    since: str | None = None

    @classmethod
    def parse(cls, text: str) -> Recaption:
        """Parse names separated by commas. Raises :class:`UsageError` if there are none."""
        words = sorted({word.strip() for word in text.split(",") if word.strip()})
        if not words:
            raise UsageError(
                "--recaption is empty", hint="give --recaption all, or classes, products or items: top,P123"
            )
        return cls("all" if "all" in words else ",".join(words))

    def check(self, catalogue: Catalogue) -> None:
        """Raise :class:`UsageError` for a name that the catalogue does not have."""
        self._find(catalogue, strict=True)

    def numbers(self, catalogue: Catalogue) -> frozenset[int] | None:
        """Return the numbers of the garments to caption again; None for all.

        Unknown names are ignored.
        """
        return self._find(catalogue, strict=False)

    def _find(self, catalogue: Catalogue, *, strict: bool) -> frozenset[int] | None:
        if self.what == "all":
            return None
        words = set(self.what.split(","))
        classes = {name for word in words if (name := resolve_class(word)) is not None}
        unused = {word for word in words if resolve_class(word) is None}
        numbers = set()
        for stored in catalogue.items.everything():
            item = stored.item
            matches = {item.item_id, item.product_id} & words
            if matches or item.class_name in classes:
                numbers.add(stored.garment_no)
                unused -= matches
        if unused and strict:
            raise UsageError(
                f"--recaption: {catalogue.root} has no class, product or item {min(unused)!r}",
                hint="give --recaption all, or classes, products or items: top,P123",
            )
        return frozenset(numbers)


@dataclass
class Plan:
    """The work of a caption run.

    ``todo`` are the item numbers of the garments to request, out of ``missing`` that have no
    caption; ``kept`` have one in the catalogue; ``reused`` are recorded in a cache, with their
    ``states``.
    """

    todo: array[int] = field(default_factory=lambda: array("q"))
    missing: int = 0
    captioned: int = 0
    reused: int = 0
    states: Counter[str] = field(default_factory=Counter)


def garments(catalogue: Catalogue, numbers: Iterable[int]) -> Iterator[StoredItem]:
    """Yield the items with some numbers, in that order, with few in memory at a time."""
    for part in batched(numbers, _ITEMS_PER_READ):
        items = catalogue.items.by_numbers(part)
        yield from (items[number] for number in part)


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
    """Plan a run of a captioner.

    Outcomes whose state is in ``again`` are requested again; garments that are ``under_way`` are
    not. Captions by other captioners are replaced as :meth:`Captioner.keeps` says. Of boxes that
    show the same garment (IoU >= 0.9, same class), one is requested.
    """
    plan = Plan()
    recaptioned_numbers = recaption.numbers(catalogue) if recaption is not None else frozenset()
    requested_boxes: dict[tuple[str, str | None], list[Box]] = {}
    for garment in catalogue.items.garments():
        is_recaptioned = recaptioned_numbers is None or garment.garment_no in recaptioned_numbers
        if not is_recaptioned and captioner.keeps(garment.captioner):
            plan.captioned += 1
            continue
        place = Place(garment.photo, garment.class_name, garment.box)
        since = recaption.since if is_recaptioned and recaption is not None else None
        outcome = None
        if not is_recaptioned or since is not None:
            outcome = caches.find(place, captioner.name, model=captioner.only_model, again=again, since=since)
        if outcome is not None:
            plan.reused += 1
            plan.states[outcome.state] += 1
            continue
        if not garment.alone:
            boxes = requested_boxes.setdefault(place[:2], [])
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
    """Crops of garments for a captioner: from the photo if it is unchanged, else the thumbnail."""

    def __init__(self, catalogue: Catalogue, side: int) -> None:
        """Set the long ``side`` of the crops in pixels; large photos are decoded smaller."""
        self._catalogue, self._side = catalogue, side
        self._last: tuple[str, Photo] | None = None
        # no border: a captioner takes images of any shape, and padding would be paid for
        self._crop = catalogue.crop.model_copy(update={"square": False})

    def __call__(self, stored: StoredItem) -> Image.Image:
        photo = self._photo(stored)
        if photo is not None:
            return photo.crop(stored.item.box, self._crop)
        return read_thumbnail(self._catalogue.thumbnail(stored))

    def _photo(self, stored: StoredItem) -> Photo | None:
        """Return the photo of a garment, large enough; None if it is missing or has changed."""
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
