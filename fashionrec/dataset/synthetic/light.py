"""From paint to photo: shadow, light, white balance, lens blur, grain and JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from fashionrec.dataset.synthetic.canvas import SUPERSAMPLE, Canvas


def expose(canvas: Canvas, behind: Image.Image, rng: np.random.Generator, harsh: float) -> Image.Image:
    """The photo, RGB, of the painted things before a background of the photo's size.

    ``harsh`` 0..1 is how far light and colour stray (0.35 for a studio, 1 for the street at night).
    """
    size = (canvas.width, canvas.height)
    paint = np.asarray(canvas.colors.reduce(SUPERSAMPLE), dtype=np.float32)
    small = canvas.cover.reduce(SUPERSAMPLE)
    cover = np.asarray(small, dtype=np.float32)[..., None] * np.float32(1 / 255)
    field = _shadow(small, rng)[..., None] * (1 - cover)
    rgb = paint + np.asarray(behind, dtype=np.float32) * field
    rgb *= _light_field(size, rng, harsh)[..., None]
    warmth, tint = rng.normal(0, 0.085 * harsh), rng.normal(0, 0.03 * harsh)
    gain = float(np.exp(rng.normal(0.07 - 0.06 * harsh, 0.19 * harsh)))
    rgb *= np.array([1 + warmth, 1 + tint, 1 - warmth], dtype=np.float32) * np.float32(gain)
    contrast = np.float32(rng.uniform(1 - 0.16 * harsh, 1 + 0.10 * harsh))
    rgb = (rgb - 128) * contrast + np.float32(128 + rng.uniform(-6, 12) * harsh)
    rgb += _grain(size, rng) * np.float32(rng.uniform(1.0, 2.0 + 4.0 * harsh))
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    blur = float(rng.uniform(-0.6, 0.35 + 0.6 * harsh))
    return image.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.25 else image


def jpeg(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The photo as a JPEG file of a shop's or a phone's quality."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=int(rng.integers(74, 93)))
    return sink.getvalue()


def _shadow(cover: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Return the light on the background, float32 [h, w]: a soft shadow next to the foreground."""
    width, height = cover.size
    tiny = cover.reduce(4).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.9, 3.0))))
    dx, dy = rng.uniform(-9, 9), rng.uniform(0, 9)
    moved = tiny.transform(tiny.size, Image.Transform.AFFINE, (1, 0, -dx / 4, 0, 1, -dy / 4))
    full = moved.resize((width, height), Image.Resampling.BILINEAR)
    return 1 - np.float32(rng.uniform(0.12, 0.42) / 255) * np.asarray(full, dtype=np.float32)


def _light_field(size: tuple[int, int], rng: np.random.Generator, harsh: float) -> np.ndarray:
    """Brightness over the picture, float32 [h, w]: a slope from the light's side, and darker
    corners.
    """
    width, height = size
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    a, slope = rng.uniform(0, 6.28), np.float32(rng.uniform(0, 0.05 + 0.17 * harsh))
    corners = np.float32(rng.uniform(0, 0.05 + 0.12 * harsh))
    field = 1 + slope * (np.float32(np.cos(a)) * x + np.float32(np.sin(a)) * y) - corners * (x * x + y * y)
    if rng.random() < 0.3 * harsh:
        # A shadow's edge across the picture: a window, a tree, somebody who stands in the light.
        b, offset = rng.uniform(0, 6.28), rng.uniform(-0.6, 0.6)
        edge = np.clip((np.float32(np.cos(b)) * x + np.float32(np.sin(b)) * y + np.float32(offset)) * 6, 0, 1)
        field = field * (1 - np.float32(rng.uniform(0.15, 0.35)) * edge)
    return field


_TILE = 128


def _grain(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Film grain of unit deviation, float32 [h, w, 1]; one small tile repeats, which
    nobody sees.
    """
    tile = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
    rows, columns = -(-size[1] // _TILE), -(-size[0] // _TILE)
    return np.tile(tile, (rows, columns))[: size[1], : size[0], None]
