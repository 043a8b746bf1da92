"""Garments whose attributes the products' own data tell: what captions are calibrated on, and measured against."""

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

#: Garments that a calibration is fitted on, at most: a few numbers a class and field need no more.
MOST = 2000


@dataclass(frozen=True)
class Known:
    """A garment that is a product, and the columns of the product that are attributes, as they were written."""

    stored: StoredItem
    values: dict[str, str]


def known_garments(catalogue: Catalogue, vocabulary: Vocabulary, most: int | None = None) -> list[Known]:
    """The products' own garments (not what is worn with them), also those of which nothing is told; at most ``most``."""
    fields = set(vocabulary.fields_of(None))
    if most is None:
        chosen = [stored for stored in catalogue.items.everything() if not stored.worn_with]
    else:
        chosen = catalogue.items.spread(most)
    return [Known(stored, attribute_columns(stored.item.metadata, fields)) for stored in chosen]


def attribute_columns(metadata: Mapping[str, Any], fields: Collection[str]) -> dict[str, str]:
    """The columns of a product that are ``fields`` and say something."""
    return {name: value for name, value in metadata.items() if name in fields and isinstance(value, str) and value}


def vectors_of(catalogue: Catalogue, garments: Sequence[Known]) -> np.ndarray:
    """Their picture vectors, float32 [n, d]."""
    return catalogue.images.fetch([catalogue.images.position(*one.stored.image_at) for one in garments])


@dataclass(frozen=True)
class CatalogueSource:
    """A catalogue as a captioner sees it (:class:`fashionrec.captioner.base.Source`).

    ``fitted_on`` are the garments to learn from; by default products all over the catalogue.
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
        known = self.fitted_on
        if known is None:
            known = known_garments(self.catalogue, self.vocabulary, MOST)
        told = [one for one in known if one.values]
        if not told:
            return None
        return Examples(
            vectors_of(self.catalogue, told),
            [one.stored.item.class_name for one in told],
            [one.values for one in told],
            [one.stored.item.product_id for one in told],
        )
