"""From pictures to the encoder's pixel tensor, exactly as its processor in transformers does it with Pillow.

The bundle's spec says how: ``{"shortest_edge": 224, "resample": "bicubic", "crop": [224, 224], "scale": 1/255, "mean": [...],
"std": [...]}``. An export is only accepted where this agrees with the Pillow backend within 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fashionrec.errors import ModelError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def pixel_values(images: Sequence[Image.Image], spec: dict[str, Any]) -> np.ndarray:
    """float32 [n, 3, height, width] of RGB pictures of any size. Raises :class:`ModelError` for an unknown spec."""
    try:
        height, width = (int(side) for side in spec["crop"])
        mean = np.asarray(spec["mean"], np.float32).reshape(3, 1, 1)
        std = np.asarray(spec["std"], np.float32).reshape(3, 1, 1)
        scale = np.float32(spec["scale"])
        resample = RESAMPLING[spec["resample"]]
        edge = int(spec["shortest_edge"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the encoder's preprocessing is not understood ({error!r})", hint="export it again") from None
    values = np.empty((len(images), 3, height, width), np.float32)
    for n, image in enumerate(images):
        cut = _centre_crop(_resize(image, edge, resample), height, width)
        pixels = np.asarray(cut, np.float32).transpose(2, 0, 1)
        values[n] = (pixels * scale - mean) / std
    return values


def _resize(image: Image.Image, edge: int, resample: Image.Resampling) -> Image.Image:
    """The short side to ``edge``, the long one in proportion, cut to a whole number."""
    short, long = sorted(image.size)
    other = int(edge * long / short)
    size = (edge, other) if image.width <= image.height else (other, edge)
    return image if image.size == size else image.resize(size, resample)


def _centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle ``height`` x ``width``; a picture that is smaller is centred on black."""
    if image.width >= width and image.height >= height:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)))
    canvas.paste(image, (-((image.width - canvas.width) // 2), -((image.height - canvas.height) // 2)))
    return _centre_crop(canvas, height, width)
