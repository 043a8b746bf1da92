"""The garments of a catalogue as captions see them, and the plan: what is there, what is known, what is to be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fashionrec.captioner.cache import Place, same_box
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


@dataclass(frozen=True)
class Garment:
    """A garment of the served generation. ``captioner`` made the caption that it has there; None: it has none."""

    number: int
    place: Place
    stored: StoredItem
    captioner: str | None


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
    """``todo`` are to be asked, of ``missing`` that might be; ``kept`` have a caption in the catalogue; ``reused`` are known
    from a cache, with their ``states``."""

    todo: list[Garment] = field(default_factory=list)
    missing: int = 0
    kept: int = 0
    reused: int = 0
    states: Counter[str] = field(default_factory=Counter)


def garments(catalogue: Catalogue) -> Iterator[Garment]:
    """Every garment that is, or is worn with, a product; each once, in order."""
    captioners = catalogue.items.captioners()
    seen = set()
    for stored in catalogue.items.everything():
        if stored.garment_no not in seen:
            seen.add(stored.garment_no)
            place = Place(stored.photo, stored.item.class_name, stored.item.box)
            yield Garment(stored.garment_no, place, stored, captioners.get(stored.garment_no))


def make_plan(
    catalogue: Catalogue,
    caches: Caches,
    captioner: Captioner,
    *,
    again: Collection[str] = (),
    recaption: Recaption | None = None,
    limit: int | None = None,
) -> Plan:
    """What a run of a captioner has to do. ``again`` are states that are asked again.

    Captions by others are replaced as :meth:`Captioner.keeps` says. Of garments that overlap so much that they are one
    (IoU >= 0.9, same class), one is asked.
    """
    plan = Plan()
    anew = recaption.numbers(catalogue) if recaption is not None else frozenset()
    asked: dict[tuple[str, str | None], list[Box]] = {}
    for garment in garments(catalogue):
        fresh = anew is None or garment.number in anew
        if not fresh and captioner.keeps(garment.captioner):
            plan.kept += 1
            continue
        since = recaption.since if fresh and recaption is not None else None
        known = None
        if not fresh or since is not None:
            known = caches.find(garment.place, captioner.name, model=captioner.only_model, again=again, since=since)
        if known is not None:
            plan.reused += 1
            plan.states[known.state] += 1
            continue
        boxes = asked.setdefault(garment.place[:2], [])
        if any(same_box(box, garment.place.box) for box in boxes):
            continue
        boxes.append(garment.place.box)
        plan.missing += 1
        if limit is None or len(plan.todo) < limit:
            plan.todo.append(garment)
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
