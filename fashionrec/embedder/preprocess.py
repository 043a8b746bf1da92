"""From pictures to the encoder's pixel tensor, exactly as its processor in transformers does it with Pillow.

The bundle's spec says how (:class:`ImageSpec`). An export is only accepted where this agrees with the Pillow
backend within 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fashionrec.embedder.spec import ImageSpec

_MAX_RESIZED = 32 << 20  # pixels; a picture of 1 x 600 at an edge of 224 has fewer


def pixel_values(images: Sequence[Image.Image], spec: ImageSpec) -> np.ndarray:
    """float32 [n, 3, height, width] of RGB pictures of any size."""
    return normalized(seen(images, spec), spec)


def seen(images: Sequence[Image.Image], spec: ImageSpec) -> list[Image.Image]:
    """What the encoder sees of RGB pictures of any size: resized, and the middle cut out where the spec crops."""
    (height, width), resample = spec.crop, Image.Resampling[spec.resample.upper()]
    if spec.resize == "squash":
        return [_resize(image, (width, height), resample) for image in images]
    return [_crop(image, spec.shortest_edge, height, width, resample) for image in images]


def normalized(pictures: Sequence[Image.Image], spec: ImageSpec) -> np.ndarray:
    """float32 [n, 3, height, width] of what the encoder sees. Each of the 256 values of a channel is computed once."""
    height, width = spec.crop
    levels = np.arange(256, dtype=np.float32) * np.float32(spec.scale)
    tables = [(levels - np.float32(mean)) / np.float32(std) for mean, std in zip(spec.mean, spec.std, strict=True)]
    values = np.empty((len(pictures), len(tables), height, width), np.float32)
    for picture, planes in zip(pictures, values, strict=True):
        pixels = np.asarray(picture)
        for channel, table in enumerate(tables):
            np.take(table, pixels[..., channel], out=planes[channel], mode="clip")
    return values


def _crop(image: Image.Image, edge: int, height: int, width: int, resample: Image.Resampling) -> Image.Image:
    """The short side to ``edge``, the long one in proportion, cut to a whole number; then the middle."""
    middle = _middle(image, edge, height, width)
    short, long = sorted(middle.size)
    other = int(edge * long / short)
    size = (edge, other) if middle.width <= middle.height else (other, edge)
    return _centre_crop(_resize(middle, size, resample), height, width)


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, resample)


def _middle(image: Image.Image, edge: int, height: int, width: int) -> Image.Image:
    """The middle of a very long picture: resized whole, one of 1 x 60,000 pixels would take 12 GB, all of it cut off again."""
    short, long = sorted(image.size)
    kept = max(_MAX_RESIZED // edge, 2 * max(height, width)) * short // edge + 1
    if edge * (edge * long // short) <= _MAX_RESIZED or long <= kept:
        return image
    kept += (long - kept) % 2  # as much on either side, or the middle lies half a pixel off
    start = (long - kept) // 2
    wide = image.width >= image.height
    return image.crop((start, 0, start + kept, short) if wide else (0, start, short, start + kept))


def _centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle ``height`` x ``width``; a picture that is smaller is centred on black."""
    if image.width >= width and image.height >= height:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)))
    canvas.paste(image, (-((image.width - canvas.width) // 2), -((image.height - canvas.height) // 2)))
    return _centre_crop(canvas, height, width)
