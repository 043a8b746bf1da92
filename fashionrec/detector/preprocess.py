"""Preprocess photos for the detector as in training: letterbox or stretch to a square, RGB, 0..1,
and normalize if the network was trained so.

Resizing equals OpenCV's INTER_LINEAR to the bit (``fashionrec.detector.resize``): a detector is
served what it was trained on. Each photo is resized on its own, so results do not depend on the
rest of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashionrec.detector.resize import resize_linear


class Letterbox(NamedTuple):
    """Placement of a photo of ``width`` x ``height`` in the square: scaled by ``scale``, then
    shifted by ``left, top``.
    """

    scale: float
    left: int
    top: int
    width: int
    height: int

    def restore(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes float32 [n, 4] (xyxy) from pixels of the square to pixels of the photo, clipped
        to it.
        """
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        result: np.ndarray = np.clip((boxes - offset) / np.float32(self.scale), 0, limit)
        return result


def letterboxed(width: int, height: int, side: int, multiple: int = 0) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size a photo is resized to, and that of its canvas: a square, or with ``multiple``
    at most the next multiples.
    """
    scale = side / max(width, height)
    if not multiple:
        return (min(math.ceil(width * scale), side), min(math.ceil(height * scale), side)), (side, side)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    wide, high = (min(-(-length // multiple) * multiple, side) for length in small)
    return small, (wide, high)


def letterbox(photo: Image.Image, side: int, pad: int = 114, multiple: int = 0) -> tuple[np.ndarray, Letterbox]:
    """Letterbox a photo: return uint8 [side, side, 3] and its placement. The aspect ratio is kept;
    the rest is grey.

    In a square the shorter side is rounded up, as in ultralytics' datasets for training and `val`.
    With ``multiple`` (32) it is padded to a multiple only and rounded to the nearest, as in its
    `predict`.
    """
    scale = side / max(photo.width, photo.height)
    (width, height), (wide, high) = letterboxed(photo.width, photo.height, side, multiple)
    small = resize_linear(np.asarray(photo), width, height)
    left, top = round((wide - width) / 2 - 0.1), round((high - height) / 2 - 0.1)
    square = np.full((high, wide, 3), pad, np.uint8)
    square[top : top + height, left : left + width] = small
    return square, Letterbox(scale, left, top, photo.width, photo.height)


class Stretched(NamedTuple):
    """Placement of a photo of ``width`` x ``height`` stretched to the square of ``side``."""

    side: int
    width: int
    height: int

    def restore(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes float32 [n, 4] (xyxy) from pixels of the square to pixels of the photo, clipped
        to it.
        """
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        result: np.ndarray = np.clip(boxes * (limit / np.float32(self.side)), 0, limit)
        return result


def stretch(photo: Image.Image, side: int) -> tuple[np.ndarray, Stretched]:
    """Stretch a photo: return uint8 [side, side, 3] and its placement. The photo fills the square,
    as in RT-DETR's training.
    """
    return resize_linear(np.asarray(photo), side, side), Stretched(side, photo.width, photo.height)


def batch_input(
    squares: Sequence[np.ndarray],
    scale: float,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> np.ndarray:
    """Convert uint8 squares to float32 [n, 3, side, side]: scaled, minus ``mean`` and divided by
    ``std`` per channel, if given.
    """
    stacked = np.stack(squares).transpose(0, 3, 1, 2)
    values = np.ascontiguousarray(stacked, dtype=np.float32) * np.float32(scale)
    if mean is not None:
        values -= np.array(mean, np.float32)[:, None, None]
    if std is not None:
        values /= np.array(std, np.float32)[:, None, None]
    return values
