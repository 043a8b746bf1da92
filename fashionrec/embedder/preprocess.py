"""Preprocess images for the encoder exactly as its transformers processor does with Pillow.

The bundle's spec defines it (:class:`ImageSpec`). An export is only accepted if this agrees with
the Pillow backend within 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fashionrec.embedder.spec import ImageSpec

_MAX_RESIZED = 32 << 20  # pixels; an image of 1 x 600 at an edge of 224 has fewer


def pixel_values(images: Sequence[Image.Image], spec: ImageSpec) -> np.ndarray:
    """Return float32 [n, 3, height, width] of RGB images of any size."""
    return normalized(encoder_view(images, spec), spec)


def encoder_view(images: Sequence[Image.Image], spec: ImageSpec) -> list[Image.Image]:
    """Resize RGB images of any size to the encoder's input, and centre-crop if the spec says so."""
    (height, width), resample = spec.crop, Image.Resampling[spec.resample.upper()]
    if spec.resize == "squash":
        return [_resize(image, (width, height), resample) for image in images]
    return [_crop(image, spec.shortest_edge, height, width, resample) for image in images]


def normalized(pictures: Sequence[Image.Image], spec: ImageSpec) -> np.ndarray:
    """Normalize resized images to float32 [n, 3, height, width]. Each of the 256 values of a
    channel is computed once.
    """
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
    """Resize the short side to ``edge`` and the long one in proportion, rounded down; then
    centre-crop.
    """
    middle = _middle(image, edge, height, width)
    short, long = sorted(middle.size)
    other = int(edge * long / short)
    size = (edge, other) if middle.width <= middle.height else (other, edge)
    return _centre_crop(_resize(middle, size, resample), height, width)


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, resample)


def _middle(image: Image.Image, edge: int, height: int, width: int) -> Image.Image:
    """Cut the middle of a very long image: resized as a whole, one of 1 x 60,000 pixels would take
    12 GB, only to be cropped.
    """
    short, long = sorted(image.size)
    kept = max(_MAX_RESIZED // edge, 2 * max(height, width)) * short // edge + 1
    if edge * (edge * long // short) <= _MAX_RESIZED or long <= kept:
        return image
    kept += (long - kept) % 2  # an even remainder, otherwise the middle is half a pixel off
    start = (long - kept) // 2
    wide = image.width >= image.height
    return image.crop((start, 0, start + kept, short) if wide else (0, start, short, start + kept))


def _centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """Centre-crop to ``height`` x ``width``; smaller images are centred on black."""
    if image.width >= width and image.height >= height:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)))
    canvas.paste(image, (-((image.width - canvas.width) // 2), -((image.height - canvas.height) // 2)))
    return _centre_crop(canvas, height, width)
