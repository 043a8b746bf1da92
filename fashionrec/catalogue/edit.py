"""Change a catalogue in place: add, remove or update rows, and leave all others unchanged.

Each function makes one new generation through the same build as `build-index`, with the models and
settings of the catalogue, so that new items are searched like the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.catalogue.build.build import Edit, Progress, edit_catalogue
from fashionrec.catalogue.build.changes import read_entry
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.catalogue.compaction import compact_segments
from fashionrec.common.text import plural
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError
from fashionrec.store import generations
from fashionrec.store.content import EntryRow
from fashionrec.store.generations import Generation
from fashionrec.store.items import ItemReader
from fashionrec.store.writer import next_generation

if TYPE_CHECKING:
    from fashionrec.products.tables import ProductRow


def add_products(
    root: Path, rows: Sequence[ProductRow], config: Config, *, source: str, progress: Progress | None = None
) -> BuildReport:
    """Add rows to a catalogue; an existing row with the same image and product is replaced."""
    named = {(row.image, row.product_id) for row in rows}

    def change(items: ItemReader) -> Edit:
        there = items.entries_of({row.product_id for row in rows})
        return Edit(rows, [entry for entry in there if (entry.image, entry.product_id) in named])

    return edit_catalogue(root, change, config=partial(as_built, config=config), source=source, progress=progress)


def remove_products(root: Path, product_ids: Iterable[str], config: Config) -> tuple[BuildReport, list[str]]:
    """Remove products with all their rows. Returns the report, and the ids that are not in the
    catalogue.

    Raises :class:`DataError` if none of them exists, or none would be left.
    """
    wanted = set(product_ids)
    known: set[str] = set()

    def change(items: ItemReader) -> Edit:
        there = items.entries_of(wanted)
        known.update(entry.product_id for entry in there)
        if not known:
            raise DataError(
                f"none of {plural(len(wanted), 'product')} exists in {root}",
                hint="fashionrec catalogue show --product ID",
            )
        if len(there) == items.count("entries"):
            raise DataError(f"this would remove everything from {root}", hint="delete the folder instead")
        return Edit((), there)

    report = edit_catalogue(root, change, config=partial(as_built, config=config))
    return report, sorted(wanted - known)


def update_products(root: Path, records: Sequence[Mapping[str, Any]], config: Config) -> tuple[BuildReport, list[str]]:
    """Update product data: ``records`` have a ``product_id`` and the columns to change; others
    stay.

    A record with an ``image`` changes only that row. A value of None removes the column. No photo
    is read. Returns the report, and the ids that are not in the catalogue. Raises
    :class:`DataError` for a record without an id, or if no product exists.
    """
    changes: dict[tuple[str, str | None], dict[str, Any]] = {}
    for record in records:
        values = dict(record)
        product, image = values.pop("product_id", None), values.pop("image", None)
        if product is None or not str(product).strip():
            raise DataError("a record has no product_id", hint="the table needs a column product_id")
        changes.setdefault((str(product).strip(), str(image).strip() if image else None), {}).update(values)
    used: set[tuple[str, str | None]] = set()

    def change(items: ItemReader) -> Edit:
        there = items.entries_of({product for product, _ in changes})
        rows: list[EntryRow] = []
        for entry in map(read_entry, there):
            metadata = dict(entry.metadata)
            for key in ((entry.product_id, None), (entry.product_id, entry.image)):
                if key in changes:
                    used.add(key)
                    metadata.update(changes[key])
            rows.append(replace(entry, metadata={name: value for name, value in metadata.items() if value is not None}))
        if not used:
            products = {product for product, _ in changes}
            if there:
                raise DataError(
                    f"the products exist in {root}, but none with the image that its record names",
                    hint="remove the column image to change all photos of a product",
                )
            raise DataError(
                f"none of {plural(len(products), 'product')} exists in {root}",
                hint="fashionrec catalogue show --product ID",
            )
        return Edit(rows, there)

    report = edit_catalogue(root, change, config=partial(as_built, config=config))
    return report, sorted({product for product, _ in changes.keys() - used})


def compact_catalogue(root: Path, config: Config) -> dict[str, int]:
    """Remove unused data and merge files of vectors. No item changes.

    Returns ``bytes_before``, ``bytes_after`` (of the served generation), ``segments_before``,
    ``segments_after``.
    """
    with next_generation(root, config.index) as writer:
        old = writer.previous
        assert old is not None
        compact_segments(writer)
        writer.finish_items(shrink=True)
        new = writer.commit("compact", {"generation": writer.name, "compacted": True})
    return {
        "bytes_before": old.manifest.size,
        "bytes_after": new.manifest.size,
        "segments_before": len(old.manifest.segments),
        "segments_after": len(new.manifest.segments),
    }


def entries(root: Path) -> Iterable[EntryRow]:
    """Return every row of the served generation."""
    served = generations.read_current(root)
    reader = ItemReader(served.items_path, served.changes_path)
    try:
        yield from reader.entries()
    finally:
        reader.close()


def as_built(generation: Generation, config: Config) -> Config:
    """Return the settings with those that a catalogue was built with."""
    made = generation.manifest.settings
    if missing := [name for name in made.missing if name != "build_key"]:
        what = ", ".join(missing)
        raise CatalogueError(f"the manifest of {generation.root} lacks a build setting ({what})")
    return made.update(config)
