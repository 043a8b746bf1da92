"""Drawing curves with few numbers: outlines as points and quadratic Bézier arcs, mirrored bodies,
limbs, small signs.
"""

from __future__ import annotations

import numpy as np

Points = np.ndarray


def outline(*steps: tuple[float, ...], arc: int = 7) -> Points:
    """Points float64 [n, 2] of a path:

    ``(x, y)`` is a corner, ``(cx, cy, x, y)`` an arc by way of a control point.
    """
    out: list[np.ndarray] = []
    for step in steps:
        if len(step) == 2:
            out.append(np.array([step], dtype=np.float64))
            continue
        t = np.linspace(0, 1, arc + 1)[1:, None]
        start, control, end = out[-1][-1], np.array(step[:2]), np.array(step[2:])
        out.append((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t * t * end)
    return np.concatenate(out)


def mirrored(right: Points) -> Points:
    """A closed body from its right half, walked from the top middle to the bottom middle."""
    return np.concatenate([right, right[::-1] * np.array([-1.0, 1.0])])


def tube(start: Points, end: Points, wide: float, narrow: float) -> Points:
    """A limb between two joints, half as wide as ``wide`` at the start and ``narrow``
    at the end.
    """
    along = np.asarray(end) - np.asarray(start)
    across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    return np.array([start + across * wide, end + across * narrow, end - across * narrow, start - across * wide])


def disc(center: Points | tuple[float, float], radius: float, n: int = 14) -> Points:
    """A circle as a polygon."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.asarray(center) + radius * np.stack([np.cos(t), np.sin(t)], axis=1)


def sign(name: str, center: tuple[float, float], radius: float) -> list[Points]:
    """The polygons of a printed sign (star, heart, bolt, moon, flower, cat)."""
    return [np.asarray(center) + radius * polygon for polygon in _SIGNS[name]()]


def _star() -> list[Points]:
    t = np.arange(10) * np.pi / 5 - np.pi / 2
    r = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [np.stack([r * np.cos(t), r * np.sin(t)], axis=1)]


def _heart() -> list[Points]:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([np.sin(t) ** 3, -y / 16], axis=1)]


def _bolt() -> list[Points]:
    return [np.array([(0.25, -1.1), (-0.7, 0.15), (-0.08, 0.15), (-0.3, 1.1), (0.7, -0.3), (0.08, -0.3)])]


def _moon() -> list[Points]:
    t = np.linspace(-2.2, 2.2, 16)
    outer = np.stack([-np.cos(t), np.sin(t)], axis=1)
    s = np.linspace(1.75, -1.75, 14)
    inner = np.stack([0.42 - 0.75 * np.cos(s), 0.82 * np.sin(s)], axis=1)
    return [np.concatenate([outer, inner])]


def _flower() -> list[Points]:
    return [disc((0.62 * float(np.sin(a)), -0.62 * float(np.cos(a))), 0.4) for a in np.arange(5) * 2 * np.pi / 5]


def _cat() -> list[Points]:
    ears = [np.array([(s * 0.95, -1.15), (s * 0.9, -0.2), (s * 0.2, -0.6)]) for s in (-1, 1)]
    return [disc((0.0, 0.15), 1.0, 20) * np.array([1.0, 0.85]), *ears]


_SIGNS = {"star": _star, "heart": _heart, "bolt": _bolt, "moon": _moon, "flower": _flower, "cat": _cat}
