"""Cloth: for each point of the garment (centimetres) which colour of its small palette
lies there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fashionrec.dataset.synthetic.attributes import COLORS, PATTERN_PERIODS, Product

Grid = np.ndarray
_Cloth = Callable[[Grid, Grid, float, np.ndarray], np.ndarray]


def palette(product: Product) -> np.ndarray:
    """The colours that a pattern index points to, float32 [4, 3] in 0..255: first, second, their
    mix, an accent.
    """
    first = np.array(COLORS[product.color], dtype=np.float32)
    second = first if product.second_color == "none" else np.array(COLORS[product.second_color], dtype=np.float32)
    accent = np.array((250, 214, 90), dtype=np.float32)
    if min(np.abs(accent - first).sum(), np.abs(accent - second).sum()) < 120:
        accent = np.array((250, 246, 240), dtype=np.float32)
    return np.stack([first, second, (first + second) / 2, accent])


def cloth(product: Product, x: Grid, y: Grid, depth: Grid | float) -> np.ndarray:
    """The palette index of each point, uint8 [h, w].

    ``x`` float32 [1 or h, w] and ``y`` float32 [h, 1 or w] are centimetres in the garment's frame
    (they broadcast), ``depth`` runs 0..1 from the garment's top to its hem (only a colour block
    asks for it).
    """
    if product.pattern == "plain":
        return np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)), dtype=np.uint8)
    if product.pattern == "color block":
        edge = 0.5 if product.pattern_scale == "fine" else 0.3
        return (np.broadcast_to(depth, np.broadcast_shapes(np.shape(x), np.shape(y))) > edge).astype(np.uint8)
    phases = np.random.default_rng(product.phase).random(8).astype(np.float32)
    return _PATTERNS[product.pattern](x, y, PATTERN_PERIODS[product.pattern_scale], phases)


def _half(t: Grid) -> np.ndarray:
    """True in the first half of each period."""
    result: np.ndarray = (t - np.floor(t)) < 0.5
    return result


def _stripe(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    return _half(y / period + phases[0] + 0 * x).astype(np.uint8)


def _vertical(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    return _half(x / (period * 0.85) + 0.25 + 0 * y).astype(np.uint8)


def _check(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    across, down = _half(x / period + phases[0]), _half(y / period + phases[1])
    both = across.astype(np.uint8) + down.astype(np.uint8)
    return np.array([0, 2, 1], dtype=np.uint8)[both]


def _cells(x: Grid, y: Grid, period: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Brick-staggered cells: where in its cell each point lies (-.5 .. .5) and the cell's whole
    numbers.
    """
    v = y / period + 0 * x
    row = np.floor(v)
    u = x / period + 0.5 * (row % 2)
    column = np.floor(u)
    return u - column - 0.5, v - row - 0.5, column, row


def _dot(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    u, v, _, _ = _cells(x, y + period * phases[0], period * 0.95)
    result: np.ndarray = (u * u + v * v < 0.30**2).astype(np.uint8)
    return result


def _floral(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    u, v, column, row = _cells(x, y + period * phases[0], period * 1.15)
    wobble = np.sin(column * 12.9 + row * 78.2 + phases[1] * 6.3)
    u, v = u + 0.1 * wobble, v + 0.08 * np.cos(5 * wobble)
    radius = np.sqrt(u * u + v * v)
    petals = radius < 0.26 + 0.13 * np.cos(5 * np.arctan2(v, u) + 3 * wobble)
    out = petals.astype(np.uint8)
    out[radius < 0.11] = 3
    result: np.ndarray = out
    return result


def _argyle(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    width, height = period * 0.9, period * 1.35
    a, b = x / width + y / height + phases[0], x / width - y / height
    cell = (np.floor(a) + np.floor(b)) % 2
    out = np.where(cell > 0, np.uint8(1), np.uint8(0))
    a, b = a + 0.5, b + 0.5
    lines = (np.abs(a - np.floor(a) - 0.5) > 0.45) | (np.abs(b - np.floor(b) - 0.5) > 0.45)
    out[lines] = 2
    return out


def _camo(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    k = 2 * np.pi / (period * 1.9)
    p = phases * 6.28
    field = np.sin(k * (x + 0.5 * y) + p[0]) + np.sin(k * (1.3 * y - 0.6 * x) + p[1])
    field = field + 0.8 * np.sin(k * 1.9 * (x - 0.2 * y) + p[2] + np.sin(k * y + p[3]))
    result: np.ndarray = ((field > -0.3).astype(np.uint8) * 2) - (field > 0.75).astype(np.uint8)
    return result


def _leopard(x: Grid, y: Grid, period: float, phases: np.ndarray) -> np.ndarray:
    u, v, column, row = _cells(x, y + period * phases[0], period * 0.85)
    wobble = np.sin(column * 37.7 + row * 11.3 + phases[1] * 6.3)
    u, v = u + 0.1 * wobble, v + 0.08 * np.sin(7 * wobble)
    angle = np.arctan2(v, u)
    radius = np.sqrt(u * u + 1.25 * v * v) * (1 + 0.14 * np.sin(2 * angle + 5 * wobble))
    broken = np.abs(np.sin(angle * 1.5 + 4 * wobble)) > 0.22
    out = ((radius < 0.42) & broken).astype(np.uint8)
    out[radius < 0.23] = 2
    result: np.ndarray = out
    return result


_PATTERNS: dict[str, _Cloth] = {
    "stripe": _stripe,
    "vertical stripe": _vertical,
    "check": _check,
    "dot": _dot,
    "floral": _floral,
    "argyle": _argyle,
    "camo": _camo,
    "leopard": _leopard,
}
