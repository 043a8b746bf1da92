"""Recommend outfits from catalogue photos that show several garments together.

Garments like the query are looked for among those worn with others; what their wearers wear on the
other half of the body is recommended, or similar products. This needs photos with two or more
garments, and knows no more about fashion than those photos do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fashionrec.search.ranking import unavailable
from fashionrec.search.result import GarmentAnswer, QueryResult
from fashionrec.types import Garment, RankedProduct

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.store.rows import ItemKey

#: Classes of the other half of the body, per class. A dress goes with what is worn over it.
OTHER_HALF = {
    "top": ("pants", "skirt", "skirt&pants"),
    "pants": ("top",),
    "skirt": ("top",),
    "skirt&pants": ("top",),
    "dress": ("top",),
}


def goes_with(catalogue: Catalogue, answer: QueryResult, settings: QueryConfig) -> list[GarmentAnswer]:
    """Return the ``settings.k`` best companion products for each garment of a result.

    A product's score, 0..1, is the share of wearers who wear it: each is weighted by how similar
    its garment is to the query, and counts for a product by how similar what it wears is. So what
    many wear ranks before what one wears. Adds notes if nothing can be recommended.
    """
    results = []
    for query in answer.queries:
        garment, vector = query.garment, query.vector
        if garment.class_name is None or vector is None:
            answer.notes.append("outfits can only be recommended for detected garments")
            continue
        recommended = recommend(catalogue, garment, vector, settings)
        if not recommended.hits:
            partners = " or ".join(OTHER_HALF[garment.class_name])
            answer.notes.append(f"no photo of the catalogue shows {partners} worn with a {garment.class_name}")
        results.append(recommended)
    return results


class Outfits:
    """Garments of photos that show several: their vector positions, and what is worn together."""

    def __init__(self, catalogue: Catalogue) -> None:
        rows = catalogue.items.worn_together()
        self.photos = [row[0] for row in rows]
        self.classes = np.array([row[1] or "" for row in rows], dtype=object)
        self.positions = np.array([catalogue.images.position(row[2], row[3]) for row in rows], np.int64)
        self.number = {int(position): n for n, position in enumerate(self.positions)}
        self.of_photo: dict[str, list[int]] = {}
        for n, photo in enumerate(self.photos):
            self.of_photo.setdefault(photo, []).append(n)

    def wearers(self, class_name: str, partners: tuple[str, ...]) -> np.ndarray:
        """Return positions of garments of a class that are worn with one of ``partners``."""
        chosen = [
            int(self.positions[n])
            for members in self.of_photo.values()
            for n in members
            if self.classes[n] == class_name and any(self.classes[m] in partners for m in members if m != n)
        ]
        return np.array(chosen, np.int64)

    def worn_with(self, position: int, partners: tuple[str, ...]) -> list[int]:
        """Return positions of what is worn with a garment."""
        n = self.number[position]
        return [int(self.positions[m]) for m in self.of_photo[self.photos[n]] if m != n and self.classes[m] in partners]


def recommend(catalogue: Catalogue, garment: Garment, vector: np.ndarray, settings: QueryConfig) -> GarmentAnswer:
    """Recommend companions of one garment of a known class, with their items; ``vector`` (float32
    [d]) is its image vector.
    """
    return rank_companions(catalogue, garment, vector, settings).with_items(catalogue.items)


def rank_companions(catalogue: Catalogue, garment: Garment, vector: np.ndarray, settings: QueryConfig) -> GarmentAnswer:
    """Rank companions of one garment without reading items."""
    assert garment.class_name is not None
    outfits, how = catalogue.memoize(Outfits), settings.goes_with
    partners = OTHER_HALF[garment.class_name]
    allowed = outfits.wearers(garment.class_name, partners)
    nothing = GarmentAnswer(garment, (), ())
    if not len(allowed):
        return nothing
    scores, positions = catalogue.images.search(vector[None], min(how.wearers, len(allowed)), allowed=allowed)
    weights = np.exp((scores[0] - scores[0].max()) / how.wearer)
    partner_mask = _of_classes(catalogue, partners)
    worn = [outfits.worn_with(int(position), partners) for position in positions[0]]
    companions = sorted({one for members in worn for one in members})
    if not companions or not partner_mask.any():
        return nothing
    row = {position: n for n, position in enumerate(companions)}
    vectors = catalogue.images.fetch(companions)
    near, places = catalogue.images.search(vectors, min(how.lookalikes, int(partner_mask.sum())), allowed=partner_mask)
    located = catalogue.images.locate(places.ravel())
    items = _items_at(catalogue, set(located), settings)
    best: dict[str, tuple[float, int]] = {}
    total: dict[str, np.ndarray] = {}
    for n, members in enumerate(worn):
        for companion in members:
            first = row[companion] * places.shape[1]
            for score, place in zip(near[row[companion]], located[first : first + places.shape[1]], strict=True):
                for key in items.get(place, []):
                    product = key.product_id
                    by_wearer = total.setdefault(product, np.zeros(len(worn)))
                    by_wearer[n] = max(by_wearer[n], float(np.exp((min(float(score), 1.0) - 1) / how.worn)))
                    if product not in best or score > best[product][0]:
                        best[product] = float(score), key.item_no
    ranked = sorted(
        ((float(weights @ by_wearer / weights.sum()), product) for product, by_wearer in total.items()),
        key=lambda pair: (-pair[0], pair[1]),
    )[: settings.k]
    ranking = [RankedProduct(n, score, name, best[name][1]) for n, (score, name) in enumerate(ranked, start=1)]
    return GarmentAnswer(garment, (), (), tuple(ranking))


def _items_at(
    catalogue: Catalogue, places: set[tuple[str, int]], settings: QueryConfig
) -> dict[tuple[str, int], list[ItemKey]]:
    """Return the products' own items at some image vectors that may be shown."""
    own = [key for key in catalogue.items.keys_at_rows(places) if not key.worn_with]
    sold_out = unavailable(catalogue.items, [key.item_no for key in own]) if settings.hide_unavailable else ()
    found: dict[tuple[str, int], list[ItemKey]] = {}
    for key in own:
        if key.item_no not in sold_out:
            found.setdefault(key.image_at, []).append(key)
    return found


def _of_classes(catalogue: Catalogue, classes: tuple[str, ...]) -> np.ndarray:
    mask = np.zeros(len(catalogue.images), bool)
    places = [catalogue.images.position(*place) for place in catalogue.items.places_of_classes(classes)]
    mask[places] = True
    return mask
