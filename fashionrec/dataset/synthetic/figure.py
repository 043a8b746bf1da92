"""The body that clothes hang on: joints in centimetres, x to the right of the middle, y down from
the shoulders.

A grown figure runs from y=-31 (top of the head) over 40 (waist), 62 (hip) and 104 (knee) to 150
(sole).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

UPPER_ARM, FOREARM = 29.0, 26.0
WAIST, HIP, CROTCH, KNEE, ANKLE, SOLE = 40.0, 62.0, 71.0, 104.0, 142.0, 150.0


@dataclass(frozen=True)
class Limb:
    """Three joints, float64 [2] each;

    ``front`` where its lower half crosses in front of the body.
    """

    root: np.ndarray
    middle: np.ndarray
    end: np.ndarray
    front: bool = False


@dataclass(frozen=True)
class Figure:
    """A pose: two arms, two legs (left of the picture first) and how far the hip sways, in
    centimetres.

    ``kind`` is "person", "mannequin", "hanger" or "flat".
    """

    kind: str
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    sway: float = 0.0
    facing: float = field(default=0.0)

    def bend(self, points: np.ndarray) -> np.ndarray:
        """Points of the trunk [n, 2], moved aside as the hip sways."""
        out = np.array(points, dtype=np.float64)
        out[:, 0] += self.sway * np.clip(out[:, 1] / HIP, 0.0, 1.0)
        return out


def _arm(side: int, upper: float, lower: float) -> Limb:
    """An arm by the angles of its halves from hanging straight down, in degrees outward."""
    root = np.array([side * 17.0, 5.5])
    a, b = np.radians(upper), np.radians(lower)
    middle = root + UPPER_ARM * np.array([side * np.sin(a), np.cos(a)])
    end = middle + FOREARM * np.array([side * np.sin(b), np.cos(b)])
    return Limb(root, middle, end, front=bool(abs(end[0]) < 16.0 and lower < 0))


def _leg(side: int, spread: float, bend: float, sway: float) -> Limb:
    root = np.array([sway + side * 8.6, CROTCH - 7])
    end = np.array([0.35 * sway + side * (7.0 + spread), ANKLE])
    middle = (root + end) / 2 + np.array([side * bend, 2.0])
    return Limb(root, middle, end)


def person(rng: np.random.Generator) -> Figure:
    """Somebody who stands for a photo: arms relaxed, on the hip, across the body, or raised."""
    sway = float(rng.uniform(-3.5, 3.5))
    arms = []
    for side in (-1, 1):
        gesture = rng.choice(5, p=[0.5, 0.19, 0.14, 0.08, 0.09])
        if gesture == 0:
            upper = rng.uniform(7, 20)
            angles = (upper, upper - rng.uniform(0, 16))
        elif gesture == 1:
            angles = (rng.uniform(38, 50), rng.uniform(-52, -38))
        elif gesture == 2:
            angles = (rng.uniform(4, 14), rng.uniform(-112, -70))
        elif gesture == 3:
            angles = (rng.uniform(55, 95), rng.uniform(130, 185))
        else:
            angles = (rng.uniform(26, 50), rng.uniform(22, 55))
        arms.append(_arm(side, float(angles[0]), float(angles[1])))
    spread = float(rng.choice([1.0, 4.0, 9.0])) + float(rng.uniform(-1, 2))
    legs = tuple(_leg(s, spread * (1 if rng.random() < 0.7 else 0.3), float(rng.uniform(-1, 2)), sway) for s in (-1, 1))
    return Figure("person", (arms[0], arms[1]), (legs[0], legs[1]), sway, float(rng.uniform(-1, 1)))


def display(rng: np.random.Generator, kind: str) -> Figure:
    """A garment without anybody in it, "flat", on a "hanger" or on a "mannequin"."""
    low, high, fold = {"flat": (12, 48, 9), "hanger": (5, 14, 5), "mannequin": (7, 14, 5)}[kind]
    sway = float(rng.uniform(-1.2, 1.2)) if kind != "mannequin" else 0.0
    arms = []
    for side in (-1, 1):
        upper = float(rng.uniform(low, high))
        arms.append(_arm(side, upper, upper - float(rng.uniform(-fold, fold))))
    spread = float(rng.uniform(1, 5 if kind == "flat" else 3))
    legs = tuple(_leg(s, spread, 0.0, sway) for s in (-1, 1))
    return Figure(kind, (arms[0], arms[1]), (legs[0], legs[1]), sway)
