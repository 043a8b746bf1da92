"""Labelled photos for the plain training loop: letterboxed by the serving code, then augmented.

Augmentations are ultralytics' own, under its names
(https://docs.ultralytics.com/usage/cfg/#augmentation-settings): flips, rotation, shift and scale by
one affine transform of the square, and hue, saturation and value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fashionrec.config import ImagesConfig
from fashionrec.detector.preprocess import letterbox
from fashionrec.labels.label_lines import read_labels
from fashionrec.photos.images import read_photo

_LEAST_SIDE = 2.0  # minimum side of a box in pixels
_LEAST_SEEN = 0.1  # share of a box that must stay visible, as in ultralytics


@dataclass(frozen=True)
class Variation:
    """Strength of the augmentations: fractions, and degrees in both directions. All 0 = none."""

    fliplr: float = 0.0
    flipud: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0


class LabelledPhotos:
    """A torch dataset. An item is uint8 [side, side, 3], boxes float32 [n, 4] (xyxy pixels of the
    square), and class numbers int64 [n].

    It is the same for a seed, an epoch and a photo, in any loader process.
    """

    def __init__(
        self, images: Sequence[Path], side: int, pad: int, variation: Variation, seed: int, limits: ImagesConfig
    ) -> None:
        self.images, self.side, self.pad, self.variation, self.seed = images, side, pad, variation, seed
        self.epoch = 0
        self._limits = limits

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = self.images[n]
        photo = read_photo(path, self._limits).pixels
        square, placed = letterbox(photo, self.side, self.pad)
        labels = read_labels(path)
        centre = labels[:, 1:3] * [photo.width, photo.height]
        half = labels[:, 3:5] * [photo.width, photo.height] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) * placed.scale
        boxes += [placed.left, placed.top] * 2
        if self.variation != Variation():
            rng = np.random.default_rng((self.seed, self.epoch, n))
            width, height = round(photo.width * placed.scale), round(photo.height * placed.scale)
            inside = square[placed.top : placed.top + height, placed.left : placed.left + width]
            inside[:] = recolour(inside, self.variation, rng)
            matrix = drawn(self.variation, self.side, rng)
            square, boxes = warp(square, matrix, self.pad), transform_boxes(boxes, matrix)
        clipped = np.clip(boxes, 0, self.side)
        sides = clipped[:, 2:] - clipped[:, :2]
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        kept = (sides > _LEAST_SIDE).all(axis=1) & (sides.prod(axis=1) > _LEAST_SEEN * area)
        return square, clipped[kept].astype(np.float32), labels[kept, 0].astype(np.int64)


def drawn(variation: Variation, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a random affine matrix float64 [3, 3] from pixels of the square to pixels of the
    augmented square.
    """
    angle = math.radians(rng.uniform(-1, 1) * variation.degrees)
    size = 1 + rng.uniform(-1, 1) * variation.scale
    x, y = side / 2 + rng.uniform(-1, 1, 2) * variation.translate * side
    flip_x = -1 if rng.random() < variation.fliplr else 1
    flip_y = -1 if rng.random() < variation.flipud else 1
    cos, sin = size * math.cos(angle), size * math.sin(angle)
    turn = np.array([[cos * flip_x, -sin * flip_y, x], [sin * flip_x, cos * flip_y, y], [0, 0, 1]])
    return np.asarray(turn @ np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1]]))


def warp(square: np.ndarray, matrix: np.ndarray, pad: int) -> np.ndarray:
    """Apply an affine matrix to the square; pixels from outside are grey."""
    side = len(square)
    back = np.linalg.inv(matrix)[:2].ravel()
    picture = Image.fromarray(square)
    varied = picture.transform(
        (side, side), Image.Transform.AFFINE, tuple(back), Image.Resampling.BILINEAR, fillcolor=(pad,) * 3
    )
    return np.array(varied)


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply an affine matrix to boxes [n, 4] (xyxy): return the boxes around the results."""
    corners = np.stack([boxes[:, [0, 1]], boxes[:, [2, 1]], boxes[:, [2, 3]], boxes[:, [0, 3]]], axis=1)
    there = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([there.min(axis=1), there.max(axis=1)], axis=1)


def recolour(pixels: np.ndarray, variation: Variation, rng: np.random.Generator) -> np.ndarray:
    """Shift hue and scale saturation and value of uint8 RGB by up to the given fractions."""
    hue, saturation, value = rng.uniform(-1, 1, 3) * [variation.hsv_h, variation.hsv_s, variation.hsv_v]
    if not (hue or saturation or value):
        return pixels
    hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue * 256) % 256
    hsv[..., 1:] = np.clip(hsv[..., 1:] * [1 + saturation, 1 + value], 0, 255)
    return np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB"))
