"""Histograms of the sizes, shapes and positions of boxes, and of the sizes of photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fashionrec.dataset.audit.inspect import Inspected

_GRID = 12
#: Edges of bins: square root of a box's fraction of the photo's area; width over height; pixels.
SIDES = tuple(round(n / 20, 2) for n in range(21))
ASPECTS = tuple(2.0 ** (n / 2) for n in range(-8, 9))
PIXELS = (0, 64, 128, 256, 384, 512, 640, 800, 1024, 1280, 1600, 2048, 4096, 1 << 30)


@dataclass(frozen=True)
class Shapes:
    """Histograms of usable boxes (``sides``, ``aspects``) and photos (``pixels``: the long side).

    ``places`` counts box centres on a 12 x 12 grid over the photo, rows from the top. ``quantiles``
    are the 5th, 50th and 95th percentiles of a box's fraction of its photo's area, and of its width
    over height.
    """

    sides: tuple[int, ...]
    aspects: tuple[int, ...]
    pixels: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    quantiles: dict[str, tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "side": {"edges": list(SIDES), "counts": list(self.sides)},
            "aspect": {"edges": [round(value, 4) for value in ASPECTS], "counts": list(self.aspects)},
            "photo_pixels": {"edges": list(PIXELS[:-1]), "counts": list(self.pixels)},
            "centres": [list(row) for row in self.places],
            "quantiles": {name: list(values) for name, values in self.quantiles.items()},
        }


def measure(inspected: Sequence[Inspected]) -> Shapes:
    """Return the histograms of all boxes of readable photos.

    Values beyond the edges count in the outer bins.
    """
    boxes = np.array([good.box for photo in inspected if photo.size for good in photo.boxes]).reshape(-1, 4)
    sizes = np.array([photo.size for photo in inspected if photo.size for _ in photo.boxes]).reshape(-1, 2)
    photos = np.array([photo.size for photo in inspected if photo.size]).reshape(-1, 2)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height
    aspect = (width * sizes[:, 0]) / (height * sizes[:, 1])
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    places = np.histogram2d(y, x, bins=_GRID, range=((0, 1), (0, 1)))[0].astype(int)
    return Shapes(
        sides=_histogram(np.sqrt(area), SIDES),
        aspects=_histogram(aspect, ASPECTS),
        pixels=_histogram(photos.max(axis=1), PIXELS),
        places=tuple(tuple(int(value) for value in row) for row in places),
        quantiles={"area": _quantiles(area), "aspect": _quantiles(aspect)},
    )


def _histogram(values: np.ndarray, edges: Sequence[float]) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=np.array(edges, dtype=float))
    return tuple(int(value) for value in counts)


def _quantiles(values: np.ndarray) -> tuple[float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return round(float(low), 4), round(float(middle), 4), round(float(high), 4)
