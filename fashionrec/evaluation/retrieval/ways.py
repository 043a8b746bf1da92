"""Ways of asking the same queries, in one table: whole photo against crop, pictures against captions, and both mixed.

The weight of the mix is chosen on every second query and judged on the others, so that its figure is not that of its choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.retrieval import Query, RetrievalScores, choose_product, read_queries, whole_photo

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.photo import Describe

#: Weights of the caption that are tried.
WEIGHTS = tuple(n / 10 for n in range(11))
_BATCH = 16


@dataclass
class Gallery:
    """Vectors of every item that can be returned: pictures [n, d], captions [n, d] (zeros where there is none), and whose each
    is: ``products`` [n] are numbers, by ``names``."""

    products: np.ndarray
    images: np.ndarray
    captions: np.ndarray
    described: np.ndarray
    names: dict[str, int]

    def rank(self, product: str, scores: np.ndarray) -> int | None:
        """The rank of a product, each product having its best item's score; None where it has no item.

        What scores as much as it counts as better: captions that say the same of all find nothing.
        """
        best = np.full(len(self.names), -np.inf)
        np.maximum.at(best, self.products, scores)
        own = best[self.names[product]] if product in self.names else -np.inf
        return None if own == -np.inf else int((best >= own).sum())


def compare_ways(
    catalogue: Catalogue,
    queries: Sequence[Query],
    describe: Describe,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Recall and its kin of each way, over queries whose product is in the catalogue.

    ``describe`` captions the queries' crops, as ``query --caption`` does. Captions are compared where the catalogue has them.
    The document has ``ways`` (name to scores), ``caption_weight`` (the best one) and ``weights`` (the MRR of each that was tried,
    on the tuning half). Raises :class:`DataError` where none can be asked.
    """
    gallery = _gallery(catalogue)
    asked = [query for query in queries if query.product_id in gallery.names]
    if not asked:
        raise DataError(f"none of the {len(queries)} queries' products is in {catalogue.root}")
    failures: list[dict[str, str]] = []
    scored: list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]] = []
    for start in range(0, len(asked), _BATCH):
        batch, photos = read_queries(catalogue, asked[start : start + _BATCH], failures)
        if photos:
            seen = catalogue.detector.detect([p.pixels for p in photos]) if catalogue.detector else [[] for _ in photos]
            whole = [whole_photo(photo) for photo in photos]
            chosen = [
                (choose_product(found, query.class_name) or [everything])[0]
                for query, found, everything in zip(batch, seen, whole, strict=True)
            ]
            crops = [photo.crop(garment.box, catalogue.crop) for photo, garment in zip(photos, chosen, strict=True)]
            photos_whole = [
                photo.crop(garment.box, catalogue.crop) for photo, garment in zip(photos, whole, strict=True)
            ]
            vectors = catalogue.embedder.embed_images([*crops, *photos_whole])
            cut, uncut = vectors[: len(crops)], vectors[len(crops) :]
            said = describe(crops, cut, [garment.class_name for garment in chosen])
            for n, query in enumerate(batch):
                words = said[n]
                text = None if words is None else catalogue.embedder.embed_texts([words[1]])[0]
                scored.append((query.product_id, cut[n], uncut[n], text))
        if progress:
            progress(min(start + _BATCH, len(asked)), len(asked))
    if not scored:
        raise DataError(f"none of the {len(asked)} query photos can be read")
    ways = {"whole photo, picture": RetrievalScores(), "crop, picture": RetrievalScores()}
    if gallery.described.any():
        ways["crop, caption"] = RetrievalScores()
    for product, crop, whole_vector, text in scored:
        ways["whole photo, picture"].ranks.append(gallery.rank(product, gallery.images @ whole_vector))
        ways["crop, picture"].ranks.append(gallery.rank(product, gallery.images @ crop))
        if "crop, caption" in ways:
            ways["crop, caption"].ranks.append(
                None if text is None else gallery.rank(product, _captions(gallery, text))
            )
    document: dict[str, Any] = {"ways": {}, "caption_weight": None, "weights": {}, "failures": failures}
    if "crop, caption" in ways:
        tuned, judged = scored[::2], scored[1::2] or scored
        mrr = {weight: _mixed(gallery, tuned, weight).to_dict()["mrr"] for weight in WEIGHTS}
        best = max(WEIGHTS, key=lambda weight: (mrr[weight], -weight))
        ways["crop, both (judged half)"] = _mixed(gallery, judged, best)
        ways["crop, picture (judged half)"] = _mixed(gallery, judged, 0.0)
        document |= {"caption_weight": best, "weights": {str(weight): value for weight, value in mrr.items()}}
    document["ways"] = {name: scores.to_dict() for name, scores in ways.items()}
    return document


def _mixed(
    gallery: Gallery, scored: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]], weight: float
) -> RetrievalScores:
    scores = RetrievalScores()
    for product, crop, _, text in scored:
        mixed = gallery.images @ crop
        if text is not None:
            described = (1 - weight) * mixed + weight * (gallery.captions @ text)
            mixed = np.where(gallery.described, described, mixed)
        scores.ranks.append(gallery.rank(product, mixed))
    return scores


def _captions(gallery: Gallery, text: np.ndarray) -> np.ndarray:
    return np.where(gallery.described, gallery.captions @ text, -np.inf)


def _gallery(catalogue: Catalogue) -> Gallery:
    items = [stored for stored in catalogue.items.everything() if not stored.worn_with]
    names = {name: n for n, name in enumerate(dict.fromkeys(stored.item.product_id for stored in items))}
    images = catalogue.images.fetch([catalogue.images.position(*stored.image_at) for stored in items])
    described = np.array([stored.caption_at is not None for stored in items])
    captions = np.zeros_like(images)
    places = [catalogue.captions.position(*stored.caption_at) for stored in items if stored.caption_at is not None]
    if places:
        captions[described] = catalogue.captions.fetch(places)
    products = np.array([names[stored.item.product_id] for stored in items], np.int64)
    return Gallery(products, images, captions, described, names)
