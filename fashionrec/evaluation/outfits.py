"""How well `--goes-with` names what was really worn: looks that the catalogue has not seen, against what is popular."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.errors import DataError, UsageError
from fashionrec.evaluation.retrieval import RetrievalScores
from fashionrec.search.outfits import OTHER_HALF, goes_with
from fashionrec.search.photo import search_photo

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue

DEPTH = 50


@dataclass(frozen=True)
class Look:
    """A photo of several products worn together: product id to class."""

    path: Path
    products: dict[str, str]


def looks_from(rows: Sequence[Any], columns: Sequence[str]) -> list[Look]:
    """Looks from the rows of a table: ``image``, ``product_id``, a category in one of ``columns``; a photo has several rows."""
    from fashionrec.types import resolve_class

    found: dict[Path, dict[str, str]] = {}
    for row in rows:
        names = (resolve_class(str(row.metadata.get(column, ""))) for column in columns)
        name = next((name for name in names if name), None)
        if name:
            found.setdefault(row.path, {})[row.product_id] = name
    return [Look(path, products) for path, products in found.items() if len(products) > 1]


def evaluate_outfits(
    catalogue: Catalogue, looks: Sequence[Look], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Each garment of a look is asked what goes with it; right is any product of the look that is of the other half.

    ``popularity`` recommends to all the products of the other half that are in most of the catalogue's photos of several
    garments. Both know only the catalogue. Raises :class:`DataError` where no look can be asked.
    """
    known = catalogue.items.product_ids()
    settings = catalogue.config.query.model_copy(update={"k": DEPTH, "hide_unavailable": False})
    popular = _popular(catalogue)
    ours, baseline = RetrievalScores(), RetrievalScores()
    skipped = 0
    for done, look in enumerate(looks, start=1):
        for name in sorted(set(look.products.values())):
            right = {p for p, other in look.products.items() if other in OTHER_HALF[name] and p in known}
            if not right:
                continue
            try:
                answer = search_photo(catalogue, look.path, settings.model_copy(update={"garment": name, "k": 1}))
            except UsageError:  # the detector does not see it, or the photo cannot be read
                skipped += 1
                continue
            found = goes_with(catalogue, answer, settings)
            ranks = [hit.rank for one in found for hit in one.hits if hit.item.product_id in right]
            ours.ranks.append(min(ranks, default=None))
            order = [product for product in popular.get(name, []) if product not in look.products or product in right]
            baseline.ranks.append(min((order.index(p) + 1 for p in right if p in order[:DEPTH]), default=None))
        if progress:
            progress(done, len(looks))
    if not ours.ranks:
        raise DataError(
            f"none of the {len(looks)} looks can be asked",
            hint="a look has several rows: one image, several product_id of the catalogue, and their category",
        )
    return {"goes_with": ours.to_dict(), "popularity": baseline.to_dict(), "looks": len(looks), "not_seen": skipped}


def _popular(catalogue: Catalogue) -> dict[str, list[str]]:
    """For each class the products of the other half, those in most photos of several garments first."""
    several = set(catalogue.outfits.photos)
    counts: Counter[str] = Counter()
    classes: dict[str, str] = {}
    for stored in catalogue.items.everything():
        if not stored.worn_with and stored.item.class_name:
            classes[stored.item.product_id] = stored.item.class_name
            counts[stored.item.product_id] += stored.photo in several
    order = sorted(counts, key=lambda product: (-counts[product], product))
    return {
        name: [product for product in order if classes[product] in partners] for name, partners in OTHER_HALF.items()
    }
