"""Pixel operations before detection: resizing and adaptive equalization.

A dataset prepared this way records it (``pixels`` in its dataset.json); its runs and bundles pass
it on, and a detector applies the same operations to every photo, with this code. So training and
serving do not differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

RESIZES = ("none", "fit", "letterbox", "stretch")
PAD = 114  # grey of ultralytics' letterbox


class PixelSpec(NamedTuple):
    """Pixel operations.

    ``resize``: none, fit (long side down to ``imgsz``), letterbox or stretch (a square of ``imgsz``
    pixels); ``equalize``: contrast limit of CLAHE, 0 = none, over ``tiles`` x ``tiles`` parts of
    the image.
    """

    resize: str = "none"
    imgsz: int = 640
    equalize: float = 0.0
    tiles: int = 8

    @property
    def changes_nothing(self) -> bool:
        return self.resize == "none" and not self.equalize

    def to_dict(self) -> dict[str, Any]:
        """Return the document for dataset.json, run.json or a bundle: only relevant values, so that
        equal operations are equal documents.
        """
        document: dict[str, Any] = {}
        if self.resize != "none":
            document |= {"resize": self.resize, "imgsz": self.imgsz}
        if self.equalize:
            document |= {"equalize": self.equalize, "tiles": self.tiles}
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any] | None) -> PixelSpec:
        """Parse the result of ``to_dict``. Raises ValueError for operations unknown to this
        version.
        """
        try:
            spec = cls(**(document or {}))
        except TypeError:
            spec = None
        if spec is None or spec.resize not in RESIZES:
            raise ValueError(f"unknown pixel operations {dict(document or {})}")
        return spec


class Placement(NamedTuple):
    """Placement of a photo of ``width`` x ``height`` pixels in the prepared image: scaled, then
    shifted.
    """

    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    left: int = 0
    top: int = 0

    def forward(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] (xyxy) from pixels of the photo to pixels of the prepared image."""
        scale = np.array([self.scale_x, self.scale_y] * 2)
        result: np.ndarray = np.asarray(boxes) * scale + np.array([self.left, self.top] * 2)
        return result

    def restore(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes back, clipped to the photo; float32."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.left, self.top] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        result: np.ndarray = np.clip((np.asarray(boxes, np.float32) - offset) / scale, 0, limit)
        return result


def placement(width: int, height: int, spec: PixelSpec) -> tuple[Placement, tuple[int, int], tuple[int, int]]:
    """Return the placement of a photo of that size, the size it is resized to, and that of the
    prepared image.
    """
    side = spec.imgsz
    if spec.resize == "none" or (spec.resize == "fit" and max(width, height) <= side):
        return Placement(width, height), (width, height), (width, height)
    if spec.resize == "stretch":
        return Placement(width, height, side / width, side / height), (side, side), (side, side)
    scale = min(side / width, side / height)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = ((side - small[0]) // 2, (side - small[1]) // 2) if spec.resize == "letterbox" else (0, 0)
    whole = (side, side) if spec.resize == "letterbox" else small
    return Placement(width, height, small[0] / width, small[1] / height, left, top), small, whole


def prepare_pixels(photo: Image.Image, spec: PixelSpec) -> tuple[Image.Image, Placement]:
    """Return the prepared image (RGB) and the photo's placement in it.

    Resized first, then equalized, then padded.
    """
    placed, small, whole = placement(photo.width, photo.height, spec)
    picture = photo if photo.size == small else photo.resize(small, Image.Resampling.BICUBIC)
    if spec.equalize:
        picture = equalize(picture, spec.equalize, spec.tiles)
    if whole != small:
        square = Image.new("RGB", whole, (PAD,) * 3)
        square.paste(picture, (placed.left, placed.top))
        picture = square
    return picture, placed


def equalize(photo: Image.Image, limit: float, tiles: int = 8) -> Image.Image:
    """Apply contrast-limited adaptive histogram equalization to an RGB photo's lightness (Y of
    YCbCr), keeping colour.

    ``limit`` is the maximum of a histogram bin as a multiple of the mean. Source: K. Zuiderveld,
    Graphics Gems IV, 1994.
    """
    luma, blue, red = photo.convert("YCbCr").split()
    flat = Image.fromarray(clahe(np.asarray(luma), limit, tiles))
    return Image.merge("YCbCr", (flat, blue, red)).convert("RGB")


def clahe(grey: np.ndarray, limit: float, tiles: int) -> np.ndarray:
    """Equalize uint8 [height, width] like OpenCV's ``createCLAHE(limit, (tiles, tiles))``, without
    OpenCV.
    """
    height, width = grey.shape
    pad_y = pad_x = 0
    if height % tiles or width % tiles:  # OpenCV then pads both sides, even one that fits, by a whole `tiles`
        pad_y, pad_x = tiles - height % tiles, tiles - width % tiles
    mode = "reflect" if height > pad_y and width > pad_x else "edge"
    padded = np.pad(grey, ((0, pad_y), (0, pad_x)), mode=mode) if pad_x or pad_y else grey  # type: ignore[call-overload]
    tile_h, tile_w = padded.shape[0] // tiles, padded.shape[1] // tiles
    area = tile_h * tile_w
    blocks = padded.reshape(tiles, tile_h, tiles, tile_w).transpose(0, 2, 1, 3).reshape(tiles * tiles, area)
    offsets = np.arange(tiles * tiles, dtype=np.int64)[:, None] * 256
    histogram = np.bincount((blocks + offsets).ravel(), minlength=tiles * tiles * 256).reshape(-1, 256)
    histogram = _clip_histogram(histogram, max(int(limit * area / 256), 1))
    table = np.rint(np.cumsum(histogram, axis=1) * np.float32(255.0 / area)).clip(0, 255).astype(np.float32)
    return _between_tiles(grey, table.reshape(tiles, tiles, 256), tile_h, tile_w)


def _clip_histogram(histogram: np.ndarray, limit: int) -> np.ndarray:
    """Spread the excess of bins above the limit evenly over all; the remainder goes to every k-th
    bin.
    """
    excess = np.maximum(histogram - limit, 0).sum(axis=1)
    clipped = np.minimum(histogram, limit) + (excess // 256)[:, None]
    for row, rest in zip(clipped, excess % 256, strict=True):
        if rest:
            row[np.arange(rest) * max(256 // int(rest), 1)] += 1
    result: np.ndarray = clipped
    return result


def _between_tiles(grey: np.ndarray, table: np.ndarray, tile_h: int, tile_w: int) -> np.ndarray:
    """Interpolate each pixel between the tables of the four tiles around it, weighted by the
    distance of their centres.
    """
    tiles = table.shape[0]

    def neighbours(length: int, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = np.arange(length, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
        first = np.floor(position).astype(np.int64)
        share = (position - first).astype(np.float32)
        return first.clip(0, tiles - 1), (first + 1).clip(0, tiles - 1), share

    y1, y2, share_y = neighbours(grey.shape[0], tile_h)
    x1, x2, share_x = neighbours(grey.shape[1], tile_w)
    flat = table.reshape(-1)
    value = grey.astype(np.int64)

    def look(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        result: np.ndarray = flat[(rows[:, None] * tiles + columns[None, :]) * 256 + value]
        return result

    upper = look(y1, x1) * (1 - share_x) + look(y1, x2) * share_x
    lower = look(y2, x1) * (1 - share_x) + look(y2, x2) * share_x
    mixed = upper * (1 - share_y)[:, None] + lower * share_y[:, None]
    result: np.ndarray = np.rint(mixed).clip(0, 255).astype(np.uint8)
    return result
