"""Turn the items of one generation into those of the next, writing only differences.

An unchanged entry (a row of the product table) costs nothing; an entry with new data keeps its
items; an entry with a new photo gets new ones. Photos that are no longer shown are removed with
their garments and captions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fashionrec.garments import assign_roles
from fashionrec.store.assemble import item_id
from fashionrec.store.content import CaptionRow, EntryRow, EntryText, GarmentRow, PhotoRow
from fashionrec.store.item_writer import ItemWriter, product_words
from fashionrec.store.items import ItemReader
from fashionrec.store.rows import parse_table

#: IoU from which two boxes of one class in one photo are the same garment, which keeps its caption.
SAME_GARMENT = 0.9


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row of the next generation. ``photo`` is the sha256 of its content; ``image`` is a path
    below ``base``.
    """

    image: str
    base: str
    product_id: str
    photo: str
    metadata: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.image, self.product_id


@dataclass(frozen=True)
class RowChanges:
    """Differences between the rows of two generations.

    A row with another photo, or newly processed, is both ``removed`` and ``added``; ``replaced``
    counts these.
    """

    added: Sequence[Wanted] = ()
    changed: Sequence[tuple[EntryRow, Wanted]] = ()
    removed: Sequence[EntryRow] = ()
    replaced: int = 0
    kept: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def counts(self) -> dict[str, int]:
        return {
            "added": len(self.added) - self.replaced,
            "changed": len(self.changed),
            "replaced": self.replaced,
            "removed": len(self.removed) - self.replaced,
            "kept": self.kept,
            "photos_removed": 0,
        }


def find_changes(
    before: Iterable[EntryText], wanted: Mapping[tuple[str, str], Wanted], kept: Collection[str]
) -> RowChanges:
    """Compare the rows of a generation with those ``wanted``, by image and product.

    ``kept`` are the photos whose stored results are reused. Unchanged rows are compared as text and
    not kept in memory.
    """
    left = dict(wanted)
    changed: dict[tuple[str, str], tuple[EntryRow, Wanted]] = {}
    replaced: dict[tuple[str, str], EntryRow] = {}
    gone: list[EntryRow] = []
    same = 0
    for old in before:
        key = old.image, old.product_id
        row = left.pop(key, None)
        if row is None:
            gone.append(read_entry(old))
        elif old.photo != row.photo or row.photo not in kept:
            replaced[key] = read_entry(old)
        elif old.base == row.base and (old.metadata == _text(row.metadata) or read_entry(old).metadata == row.metadata):
            same += 1
        else:
            changed[key] = read_entry(old), row
    return RowChanges(
        [row for key, row in wanted.items() if key in left or key in replaced],
        [changed[key] for key in wanted if key in changed],
        [*(replaced[key] for key in wanted if key in replaced), *gone],
        len(replaced),
        same,
    )


def read_entry(stored: EntryText) -> EntryRow:
    """Parse the data of a row of the product table."""
    return EntryRow(*stored[:-1], parse_table(stored.metadata))


#: Serializes the data of a row as :mod:`fashionrec.store.item_writer` does.
_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class RowWriter:
    """Writes changes relative to ``before`` (None = nothing), of which ``writer`` has a copy.

    ``kept`` are the photos whose stored results are reused; for others, ``new_photo`` returns the
    result with vectors and thumbnails written. ``same_encoder`` says that existing caption vectors
    stay comparable.
    """

    writer: ItemWriter
    before: ItemReader | None
    kept: set[str]
    new_photo: Callable[[str], PhotoRow]
    category_columns: Sequence[str]
    same_encoder: bool
    _photos: dict[str, tuple[tuple[GarmentRow, ...], list[int], dict[int, CaptionRow]]] = field(default_factory=dict)

    def apply(self, changes: RowChanges) -> int:
        """Write the changes; return how many photos were removed because no row shows them."""
        for old, row in changes.changed:
            self._change(old, row)
        for entry in changes.removed:
            self.writer.remove_entry(entry.entry_no)
        for row in changes.added:
            self._add(row)
        for product_id, photo in {(entry.product_id, entry.photo) for entry in changes.removed}:
            self._restore(product_id, photo)
        return self.writer.remove_photos_without_entries()

    def _change(self, old: EntryRow, row: Wanted) -> None:
        self.writer.change_entry(old.entry_no, row.base, row.metadata)
        if product_words(old.metadata) == product_words(row.metadata):
            columns = self.category_columns
            if [old.metadata.get(c) for c in columns] == [row.metadata.get(c) for c in columns]:
                return  # a price, a stock count: nothing that decides which garment is the product, or how it is found
        self.writer.remove_items(old.entry_no)
        self._add_items(old.entry_no, row.product_id, row.photo, row.metadata)

    def _add(self, row: Wanted) -> None:
        self._photo(row.photo)  # before the entry that refers to it
        entry_no = self.writer.add_entry(row.image, row.base, row.product_id, row.photo, row.metadata)
        self._add_items(entry_no, row.product_id, row.photo, row.metadata)

    def _restore(self, product_id: str, photo: str) -> None:
        """Add items of a product and photo again: another entry of both may have left them without
        items.
        """
        for entry_no, metadata in self.writer.entries_of(product_id, photo):
            self._add_items(entry_no, product_id, photo, metadata)

    def _add_items(self, entry_no: int, product_id: str, photo: str, metadata: dict[str, Any]) -> None:
        garments, numbers, captions = self._photo(photo)
        roles = assign_roles(garments, metadata, self.category_columns)
        for garment, number, worn_with in zip(garments, numbers, roles, strict=True):
            caption = captions.get(garment.position)
            texts = (caption.searched,) if caption else ()
            words = "" if worn_with else product_words(metadata, *texts)
            self.writer.add_item(item_id(product_id, photo, garment), entry_no, number, product_id, worn_with, words)

    def _photo(self, sha256: str) -> tuple[tuple[GarmentRow, ...], list[int], dict[int, CaptionRow]]:
        """Return a photo's garments, their numbers, and their captions by position; write them
        first if new.
        """
        if sha256 in self._photos:
            return self._photos[sha256]
        old = self.before.photo(sha256) if self.before else None
        captions = self.before.captions(sha256) if self.before and old else {}
        if old is not None and sha256 in self.kept:
            known = old.garments, self.writer.garment_numbers(sha256), captions
        else:
            self.writer.remove_photo(sha256)
            photo = self.new_photo(sha256)
            numbers = self.writer.add_photo(photo)
            carried = self._carried(old, photo, captions) if old else {}
            for position, caption in carried.items():
                self.writer.add_caption(numbers[position], caption)
            known = photo.garments, numbers, carried
        self._photos[sha256] = known
        return known

    def _carried(self, old: PhotoRow, new: PhotoRow, captions: dict[int, CaptionRow]) -> dict[int, CaptionRow]:
        """Return captions of garments that were found again: same class, nearly the same box."""
        if not self.same_encoder:
            return {}
        carried: dict[int, CaptionRow] = {}
        for garment in old.garments:
            if garment.position not in captions:
                continue
            fitting = [
                (garment.box.iou(again.box), -again.position)
                for again in new.garments
                if again.class_name == garment.class_name and again.position not in carried
            ]
            best = max(fitting, default=(0.0, 0))
            if best[0] >= SAME_GARMENT:
                carried[-best[1]] = captions[garment.position]
        return carried
