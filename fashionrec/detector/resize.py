"""Bilinear resizing equal to OpenCV's ``INTER_LINEAR`` for 8-bit pixels to the bit: what detectors
are trained on.

It samples two neighbours per side without smoothing, in integers of 11 fractional bits. The serving
plane has no OpenCV, and another resizer's grey levels, off by one here and there, shift boxes by
fractions of a pixel and thus crops by one.
"""

from __future__ import annotations

import numpy as np

_BITS = 11
_ROWS = 64  # at a time, so that they stay in the processor's cache


def resize_linear(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [any, any, channels] to uint8 [height, width, channels]."""
    high, wide, channels = pixels.shape
    if (wide, high) == (width, height):
        return np.array(pixels)
    if (wide, high) == (2 * width, 2 * height):  # OpenCV averages each four pixels here
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
    """Resize the needed rows in width: int32 with 7 fractional bits. float32 represents the 19-bit
    products exactly.
    """
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
    """Return the two old neighbours of each new position, and their weights (int32, 2048 = all).

    Beyond the first and the last the nearest counts twice; with ``pinned`` once with full weight
    (OpenCV does so in width, not in height).
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
