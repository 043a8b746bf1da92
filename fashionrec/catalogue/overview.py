"""Describe catalogues as documents: all in a folder, one of them, or one product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.outfit import outfit
from fashionrec.captioner.vocabulary import vocabulary_of
from fashionrec.errors import CatalogueError, DataError
from fashionrec.store.generations import Generation, is_catalogue, list_generations, read_current

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.store.items import StoredItem


def list_catalogues(folder: Path) -> list[dict[str, Any]]:
    """Describe the catalogues that a folder is or contains; a damaged one has an ``error``."""
    return [_describe_folder(path) for path in [folder, *sorted(folder.glob("*"))] if is_catalogue(path)]


def describe_catalogue(catalogue: Catalogue) -> dict[str, Any]:
    """Describe the served generation, and list all generations."""
    stored = catalogue.generation.manifest.to_dict()
    keys = ("generation", "created", "photos_from", "counts", "index", "bundles", "settings", "versions")
    return {
        "path": str(catalogue.root),
        **{key: stored[key] for key in keys},
        "bytes": catalogue.generation.manifest.size,
        "generations": [_describe_generation(one, catalogue.generation) for one in list_generations(catalogue.root)],
    }


def describe_product(catalogue: Catalogue, product: str) -> dict[str, Any]:
    """Describe a product, its items, and what is worn together in photos with several garments.

    Raises :class:`DataError` if the catalogue has no such product.
    """
    items = catalogue.items.of_product(product)
    if not items:
        raise DataError(f"{catalogue.root} has no product {product!r}", hint="ids are those of the column product_id")
    shown: dict[str, list[dict[str, Any]]] = {}
    for stored in items:
        shown.setdefault(stored.item.image, []).append(stored.item.attributes)
    vocabulary = vocabulary_of(catalogue.config.captioner)
    outfits = {image: outfit(garments, vocabulary) for image, garments in shown.items()}
    return {
        "product_id": product,
        "metadata": items[0].item.metadata,
        "outfits": {image: worn._asdict() for image, worn in outfits.items() if worn is not None},
        "items": [_describe_item(stored) for stored in items],
    }


def _describe_folder(path: Path) -> dict[str, Any]:
    try:
        current = read_current(path)
    except CatalogueError as error:
        return {"path": str(path), "error": str(error)}
    manifest = current.manifest
    return {
        "path": str(path),
        "generation": current.name,
        "created": manifest.created,
        "counts": dict(manifest.counts),
        "models": {kind: entry.name for kind, entry in manifest.bundles.items()},
        "index": manifest.index.kind if manifest.index else None,
        "bytes": manifest.size,
    }


def _describe_generation(one: Generation, served: Generation) -> dict[str, Any]:
    return {
        "name": one.name,
        "created": one.manifest.created,
        "made_by": one.manifest.made_by,
        "products": one.manifest.counts.get("products"),
        "served": "served" if one.name == served.name else "",
    }


def _describe_item(stored: StoredItem) -> dict[str, Any]:
    return {
        "item_id": stored.item.item_id,
        "image": stored.item.image,
        "class_name": stored.item.class_name,
        "confidence": stored.item.confidence,
        "box": list(stored.item.box),
        "whole_photo": stored.whole_photo,
        "worn_with": stored.worn_with,
        "captions": stored.captions,
        "attributes": stored.item.attributes,
    }
