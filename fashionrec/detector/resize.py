"""Bilinear resizing to the bit as OpenCV's ``INTER_LINEAR`` does it for 8-bit pixels: what detectors are trained on.

It samples two neighbours a side and does not smooth, in integers of 11 fractional bits. The serving plane has no OpenCV, and
another resizer's grey levels, one off here and there, move boxes by parts of a pixel and so their crops by one.
"""

from __future__ import annotations

import numpy as np

_BITS = 11
_ROWS = 64  # at a time: they stay in the processor's cache


def resize_linear(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, channels] of uint8 [any, any, channels]."""
    high, wide, channels = pixels.shape
    if (wide, high) == (width, height):
        return np.array(pixels)
    if (wide, high) == (2 * width, 2 * height):  # OpenCV takes the mean of each four then
        whole = pixels.astype(np.uint16)
        four = whole[0::2, 0::2] + whole[0::2, 1::2] + whole[1::2, 0::2] + whole[1::2, 1::2]
        return ((four + 2) >> 2).astype(np.uint8)
    left, right, of_left, of_right = _neighbours(wide, width, pinned=True)
    above, below, of_above, of_below = _neighbours(high, height, pinned=False)
    needed, places = np.unique(np.concatenate([above, below]), return_inverse=True)
    lines = _across(pixels.reshape(high, wide * channels), needed, (left, right), (of_left, of_right), channels)
    out = np.empty((height, width * channels), np.uint8)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        upper = lines[places[:height][rows]]
        upper *= of_above[rows, None]
        upper >>= 16
        lower = lines[places[height:][rows]]
        lower *= of_below[rows, None]
        lower >>= 16
        upper += lower
        upper += 2
        upper >>= 2
        out[rows] = upper
    return out.reshape(height, width, channels)


def _across(
    flat: np.ndarray,
    needed: np.ndarray,
    neighbours: tuple[np.ndarray, np.ndarray],
    weights: tuple[np.ndarray, np.ndarray],
    channels: int,
) -> np.ndarray:
    """The needed rows at their new width, int32 with 7 fractional bits. float32 holds the products of 19 bits exactly."""
    left, right = ((side[:, None] * channels + np.arange(channels)).ravel() for side in neighbours)
    of_left, of_right = (np.repeat(weight, channels).astype(np.float32) for weight in weights)
    lines = np.empty((len(needed), len(left)), np.int32)
    for start in range(0, len(needed), _ROWS):
        rows = flat[needed[start : start + _ROWS]].astype(np.float32)
        values = rows[:, left]
        values *= of_left
        others = rows[:, right]
        others *= of_right
        values += others
        part = lines[start : start + _ROWS]
        part[:] = values
        part >>= 4
    return lines


def _neighbours(old: int, new: int, *, pinned: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each new place its two neighbours among the old, and their weights (int32, 2048 = all).

    Beyond the first and the last the nearest counts twice; with ``pinned`` once, wholly (OpenCV does so across, and not down).
    """
    at = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.intp)
    part = at - first.astype(np.float32)
    if pinned:
        part[(first < 0) | (first >= old - 1)] = 0
    scale = np.float32(1 << _BITS)
    weights = np.rint((np.float32(1) - part) * scale), np.rint(part * scale)
    return (
        np.clip(first, 0, old - 1),
        np.clip(first + 1, 0, old - 1),
        weights[0].astype(np.int32),
        weights[1].astype(np.int32),
    )
