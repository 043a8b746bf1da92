"""Garments whose attributes the product data give: calibration and evaluation data of captions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.captioner.base import Examples

if TYPE_CHECKING:
    from fashionrec.captioner.vocabulary import Vocabulary
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.embedder.embed import Embedder
    from fashionrec.store.items import StoredItem

#: Most garments that a calibration is fitted on: it has a few parameters per class and field.
MOST = 2000


@dataclass(frozen=True)
class Known:
    """A product's garment, and those of the product's columns that are attributes, unchanged."""

    stored: StoredItem
    values: dict[str, str]


def known_garments(catalogue: Catalogue, vocabulary: Vocabulary, most: int | None = None) -> list[Known]:
    """Return at most ``most`` garments of products, including those without any attribute.

    Garments that are only worn with a product are skipped.
    """
    fields = set(vocabulary.fields_of(None))
    if most is None:
        items = [stored for stored in catalogue.items.everything() if not stored.worn_with]
    else:
        items = catalogue.items.spread(most)
    return [Known(stored, attribute_columns(stored.item.metadata, fields)) for stored in items]


def attribute_columns(metadata: Mapping[str, Any], fields: Collection[str]) -> dict[str, str]:
    """Return the non-empty columns of a product that are among ``fields``."""
    return {name: value for name, value in metadata.items() if name in fields and isinstance(value, str) and value}


def vectors_of(catalogue: Catalogue, garments: Sequence[Known]) -> np.ndarray:
    """Return the image vectors of garments, float32 [n, d]."""
    return catalogue.images.fetch([catalogue.images.position(*garment.stored.image_at) for garment in garments])


@dataclass(frozen=True)
class CatalogueSource:
    """A catalogue as a captioner's :class:`fashionrec.captioner.base.Source`.

    ``fitted_on`` are the garments to calibrate on; by default a sample of the whole catalogue.
    """

    catalogue: Catalogue
    vocabulary: Vocabulary
    fitted_on: Sequence[Known] | None = None

    @property
    def fingerprint(self) -> str:
        return self.catalogue.embedder_bundle.fingerprint

    @property
    def encoder(self) -> Embedder:
        return self.catalogue.embedder

    def words(self, fields: Sequence[str]) -> Mapping[str, Collection[str]]:
        return self.catalogue.items.words_of(fields)

    def examples(self) -> Examples | None:
        garments = self.fitted_on
        if garments is None:
            garments = known_garments(self.catalogue, self.vocabulary, MOST)
        labeled = [garment for garment in garments if garment.values]
        if not labeled:
            return None
        return Examples(
            vectors_of(self.catalogue, labeled),
            [garment.stored.item.class_name for garment in labeled],
            [garment.values for garment in labeled],
            [garment.stored.item.product_id for garment in labeled],
        )
