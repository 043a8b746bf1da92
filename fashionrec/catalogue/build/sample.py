"""Sample the photos to index, to test converted models on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.errors import ImageError
from fashionrec.garments import FinderSettings, GarmentFinder

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import Config
    from fashionrec.models.bundle import Bundle
    from fashionrec.products.tables import ProductRow


@dataclass(frozen=True)
class Crops:
    """Crops with the product that each is known to show, and the photo it comes from."""

    pictures: list[Image.Image] = field(default_factory=list)
    products: list[str | None] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)


class Sample:
    """Photos of some rows, decoded once: products with several photos first, in turn."""

    def __init__(self, rows: Sequence[ProductRow], detector: Bundle | None, embedder: Bundle, config: Config) -> None:
        self.rows, self.config = rows, config
        self._detector, self._embedder = detector, embedder

    def chosen(self) -> list[ProductRow]:
        wanted = self.config.build.convert_photos
        by_product: dict[str, list[ProductRow]] = {}
        for row in self.rows:
            by_product.setdefault(row.product_id, []).append(row)
        several = [rows[:3] for rows in by_product.values() if len(rows) > 1]
        single = [rows[:1] for rows in by_product.values() if len(rows) == 1]
        found: list[ProductRow] = []
        for group in (several, single):
            left = wanted - len(found)
            step = max(1, sum(map(len, group)) // max(1, left))
            for rows in group[::step]:
                found += rows
        return found[:wanted]

    def paths(self) -> list[Path]:
        return list(dict.fromkeys(row.path for row in self.chosen()))

    @cached_property
    def crops(self) -> Crops:
        """Garments of the sample, cropped as in a build. A product's photo shows it in its most
        confident garment.
        """
        from fashionrec.embedder.embed import Embedder

        config, project = self.config, self.config.project
        settings = FinderSettings.of_build(config, Embedder(self._embedder).side)
        finder = GarmentFinder.open(self._detector, settings, threads=project.threads, device=project.device)
        crops = Crops()
        jobs = ((row, row.path) for row in self.chosen())
        for row, found in finder.find_all(jobs, timeout=config.build.photo_timeout, workers=config.build.workers):
            if isinstance(found, ImageError):
                continue
            pictures = finder.cut(found)
            crops.pictures.extend(pictures)
            crops.products.extend(None if n else row.product_id for n in range(len(pictures)))
            crops.photos.extend([str(row.path)] * len(pictures))
        return crops
