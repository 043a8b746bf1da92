"""The cut of each garment on a figure: parts of cloth with outlines, hems, collars and buttons, in
centimetres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fashionrec.dataset.synthetic.attributes import Product
from fashionrec.dataset.synthetic.figure import CROTCH, HIP, WAIST, Figure, Limb
from fashionrec.dataset.synthetic.outline import Points, disc, mirrored, outline, sign, tube

#: Where hems end, in centimetres below the shoulders.
HEMS: dict[str, float] = {"cropped": 43.0, "regular": 60.0, "long": 76.0, "mini": 84.0, "midi": 112.0, "maxi": 138.0}
_LEG_HEMS = {"shorts": 86.0, "cropped": 119.0, "full": 141.0}
_EASE = {"slim": 0.6, "fitted": 0.6, "regular": 2.6, "a-line": 1.6, "oversized": 6.0}


@dataclass(frozen=True)
class Mark:
    """Something drawn on a part:

    ``kind`` line, polygon or dot; ``ink`` seam, light, second, metal or plain.
    """

    kind: str
    points: Points
    ink: str = "seam"
    width: float = 0.7


@dataclass(frozen=True)
class Part:
    """One piece of cloth: the union of ``polygons``, its place in the stack, and how the cloth's
    grain lies.

    ``layer`` is back (behind the body), arm, body or front; the grain's y axis points along
    ``angle`` (radians from straight down, positive to the left of the picture) from ``origin``.
    ``fill`` is cloth, plain, second or inside. ``span`` is the (top, hem) in centimetres between
    which ``depth`` runs 0..1 for a colour block.
    """

    polygons: list[Points]
    layer: str = "body"
    origin: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    fill: str = "cloth"
    span: tuple[float, float] = (0.0, 60.0)
    folds: float = 1.0
    marks: list[Mark] = field(default_factory=list)


def cut(product: Product, figure: Figure, open_front: bool = False) -> list[Part]:
    """The parts of a product on a figure, in the order in which they are painted within
    each layer.
    """
    return _CUTS[product.category](product, figure, open_front)


def _sleeves(product: Product, figure: Figure, ease: float) -> list[Part]:
    if product.sleeve == "sleeveless":
        return []
    wide, narrow = 6.4 + 0.5 * ease, 5.0 + 0.45 * ease
    parts = []
    for limb in figure.arms:
        upper = limb.middle - limb.root
        angle = float(np.arctan2(-upper[0], upper[1]))
        block = (-30.0, -20.0) if product.pattern_scale == "bold" else (90.0, 100.0)
        short = product.sleeve == "short"
        stop = limb.root + upper * (0.62 if short else 1.0)
        shoulder = disc(limb.root * (0.92, 1.0) + (0.0, 1.4), wide * 0.94)
        piece = tube(limb.root, stop, wide, narrow + (0.9 if short else 0.0))
        marks = [Mark("line", _across(limb.root, stop, narrow + 2, 0.90))] if short else []
        elbow = [] if short else [disc(limb.middle, narrow)]
        parts.append(
            Part([shoulder, piece, *elbow], "arm", tuple(limb.root), angle, span=block, folds=0.6, marks=marks)
        )
        if not short:
            parts.append(_lower_sleeve(limb, narrow, block))
    return parts


def _lower_sleeve(limb: Limb, narrow: float, block: tuple[float, float]) -> Part:
    lower = limb.end - limb.middle
    angle = float(np.arctan2(-lower[0], lower[1]))
    stop = limb.middle + lower * 0.97
    marks = [Mark("line", _across(limb.middle, stop, narrow + 2, 0.88))]
    origin = limb.middle - lower / np.hypot(*lower) * 29.0
    layer = "front" if limb.front else "arm"
    polygons = [disc(limb.middle, narrow), tube(limb.middle, stop, narrow, narrow * 0.8)]
    return Part(polygons, layer, tuple(origin), angle, span=block, folds=0.6, marks=marks)


def _across(start: Points, end: Points, half: float, at: float) -> Points:
    """A line across a limb at a fraction of its length: a cuff's seam."""
    along = end - start
    normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    center = start + along * at
    return np.array([center + normal * half, center - normal * half])


def _neck(product: Product) -> tuple[float, float]:
    """Half the width of the neck hole at the shoulders and how deep it reaches, in centimetres."""
    return {
        "round": (8.2, 6.0), "v": (7.5, 19.0), "collar": (6.8, 7.5), "turtleneck": (6.2, -1.0), "hoodie": (7.5, 6.5),
    }[product.neckline]  # fmt: skip


def _trunk_right(product: Product, ease: float) -> Points:
    """The right half of the trunk from the middle of the neckline to the armpit."""
    half, deep = _neck(product)
    if product.neckline == "turtleneck":
        start = outline((0, -9.5), (6.0, -9.5), (6.4, -3.5))
    elif product.neckline == "v":
        start = outline((0, deep), (half, -2.5))
    else:
        start = outline((0, deep), (half * 0.95, deep, half, -2.5))
    tip = 19.5 + ease * 0.55 if product.sleeve != "sleeveless" else 14.5
    armpit = 15.2 + ease
    if product.sleeve == "sleeveless":
        rest = outline(tuple(start[-1]), (tip - 2, -0.8), (tip, 0.2), (tip - 2.2, 14, armpit, 18.5))
    else:
        rest = outline(tuple(start[-1]), (tip - 4, 0.2), (tip + 1.5, 1.8, tip + 1.2, 8), (armpit, 18.5))
    return np.concatenate([start, rest[1:]])


def _neck_parts(product: Product, figure: Figure) -> list[Part]:
    """Return what is visible behind the neck hole: the inside of the back if nobody wears it, and a
    hood.
    """
    half, deep = _neck(product)
    parts = []
    if product.neckline == "hoodie":
        right = outline((0, -13.0), (11.5, -13.5, 12.5, -4.0), (12.0, 3.0, 8.0, 4.0), (0, 6.0))
        inner = mirrored(outline((0, -9.5), (7.2, -9.5, 7.6, -3.0), (6, 3.5, 0, 5.5)))
        marks = [Mark("polygon", inner, "deep")]
        parts.append(Part([mirrored(right)], "back", fill="plain", folds=0.4, marks=marks))
    elif figure.kind in ("flat", "hanger") and product.neckline != "turtleneck":
        back = mirrored(outline((0, -1.5), (half * 0.7, -1.6, half + 0.6, -2.6), (half * 0.8, deep), (0, deep + 1)))
        parts.append(Part([back], "back", fill="inside", folds=0.2))
    return parts


def _front_marks(product: Product, hem: float) -> list[Mark]:
    """Neck ribs, plackets, buttons, zips, pockets and prints on the front of a trunk."""
    half, deep = _neck(product)
    marks = []
    if product.neckline == "round":
        rib = outline(
            (-half - 1.2, -1.5), (-half * 0.9, deep + 2.1, 0, deep + 2.1), (half * 0.9, deep + 2.1, half + 1.2, -1.5)
        )
        marks.append(Mark("line", rib))
    elif product.neckline == "v":
        marks.append(Mark("line", outline((-half - 1.8, -1.5), (0, deep + 3.0), (half + 1.8, -1.5))))
    elif product.neckline == "turtleneck":
        marks.append(Mark("line", outline((-7, -3.2), (0, 0.2, 7, -3.2))))
        marks.extend(Mark("line", outline((x, -9), (x * 1.05, -2.5)), width=0.4) for x in (-4, -2, 0, 2, 4))
    if product.closure in ("buttons", "zip"):
        top = max(deep, 4.0)
        if product.closure == "zip":
            marks.append(Mark("line", np.array([(0, top), (0, hem)]), "seam", 2.4))
            marks.append(Mark("line", np.array([(0, top), (0, hem)]), "metal", 1.2))
            marks.append(
                Mark("polygon", outline((-1, top + 1), (1, top + 1), (0.8, top + 5), (-0.8, top + 5)), "metal")
            )
        else:
            marks.append(Mark("line", np.array([(-2.4, top), (-2.4, hem)])))
            marks.append(Mark("line", np.array([(2.4, top), (2.4, hem)]), width=0.4))
            marks.extend(Mark("dot", np.array([(0.0, y)]), "button", 1.45) for y in np.arange(top + 4, hem - 3, 8.5))
    if product.neckline == "collar":
        for side in (-1, 1):
            flap = np.array([(side * 7.6, -4.0), (side * 0.4, 6.6), (side * 6.5, 11.5), (side * 11.0, -0.6)])
            marks.append(Mark("polygon", flap, "plain"))
            marks.append(Mark("line", np.concatenate([flap, flap[:1]]), width=0.8))
    if product.neckline == "hoodie":
        for side in (-1, 1):
            marks.append(Mark("line", outline((side * 3.2, deep), (side * 3.8, 22)), "string", 1.0))
        if hem > 50:
            pocket = outline((-11, hem - 6), (-8, hem - 19), (8, hem - 19), (11, hem - 6))
            marks.append(Mark("line", pocket, width=0.9))
    if product.graphic not in ("", "none"):
        top = 9.0 if product.neckline != "v" else 15.0
        size = 9.5 if product.length != "cropped" else 8.0
        polygons = sign(product.graphic, (0.0, top + size + 4), size)
        marks.extend(Mark("polygon", polygon, "second") for polygon in polygons)
        if product.graphic == "cat":
            marks.extend(Mark("dot", np.array([(s * 3.6, top + size + 4.5)]), "first", 1.3) for s in (-1, 1))
    return marks


def _top(product: Product, figure: Figure, open_front: bool) -> list[Part]:
    ease, hem = _EASE[product.fit], HEMS[product.length]
    waist, wide = 13.2 + ease * 1.25, 16.0 + ease * 1.15
    if hem < 50:
        wide = waist + 0.8
    start = _trunk_right(product, ease)
    side = outline(
        tuple(start[-1]), (waist, 36, wide, hem - 3), (wide - 0.2, hem), (wide * 0.5, hem + 1.2, 0, hem + 1.0)
    )
    body = mirrored(np.concatenate([start, side[1:]]))
    rib = outline((-wide - 2, hem - 3.4), (0, hem - 2.2, wide + 2, hem - 3.4))
    marks = [Mark("line", rib), *_front_marks(product, hem + 2)]
    parts = [*_neck_parts(product, figure), *_sleeves(product, figure, ease)]
    polygons = [body]
    if open_front:
        polygons = []
        for s in (-1, 1):
            half, panel = body.copy(), 4.0 + 3.0 * np.clip(body[:, 1] / hem, 0, 1)
            half[:, 0] = np.where(half[:, 0] * s < panel, s * panel, half[:, 0])
            polygons.append(half)
        marks = [mark for mark in marks if mark.ink not in ("button", "metal") and abs(mark.points[:, 0]).max() > 3]
    grain = (float(figure.sway) * 0.5, 0.0)
    parts.append(_bent(Part(polygons, "body", grain, span=(0.0, hem), marks=marks), figure))
    return parts


def _dress(product: Product, figure: Figure, open_front: bool) -> list[Part]:
    ease, hem = _EASE[product.fit], HEMS[product.length]
    drop = hem - WAIST
    wide = (18.5 + 0.05 * drop) if product.fit == "fitted" else (21.0 + 0.26 * drop)
    start = _trunk_right(product, ease * 0.6)
    hip = 18.0 if product.fit == "fitted" else 19.0
    side = outline(
        tuple(start[-1]), (13.0, 30, 13.0 + ease * 0.6, WAIST), (hip, 50, (hip + wide) / 2, (WAIST + hem) / 2 + 4), (wide, hem)
    )  # fmt: skip
    body = mirrored(np.concatenate([start, side[1:], _wavy_hem(wide, hem, 4 if product.fit == "a-line" else 0)]))
    belt = outline((-17, WAIST), (0, WAIST + 1.4, 17, WAIST))
    marks = [Mark("line", belt, width=1.2), *_front_marks(product, hem + 2)]
    if product.fit == "a-line":
        marks.extend(_drapes(wide, WAIST + 3, hem, 13.0, 5))
    marks.append(Mark("line", outline((-wide - 2, hem - 3), (0, hem - 1.6, wide + 2, hem - 3)), width=0.5))
    part = Part([body], "body", (figure.sway * 0.5, 0.0), span=(0.0, hem), marks=marks)
    return [*_neck_parts(product, figure), *_sleeves(product, figure, ease * 0.6), _bent(part, figure)]


def _wavy_hem(wide: float, hem: float, waves: int) -> Points:
    """The right half of a hem from the side to the middle, sagging a little, with waves where it
    falls in folds.
    """
    x = np.linspace(wide, 0, 9 if waves else 4)[1:]
    y = hem + 1.8 * (1 - (x / wide) ** 2) + (1.0 * np.cos(x / wide * np.pi * waves) if waves else 0.0)
    return np.stack([x, y], axis=1)


def _drapes(wide: float, top: float, hem: float, narrow: float, count: int) -> list[Mark]:
    """Fold lines that fan out from the waist."""
    places = np.linspace(-0.8, 0.8, count)
    return [Mark("line", np.array([(p * narrow, top + 2 + 8 * p * p), (p * wide, hem + 2)]), width=0.5) for p in places]


def _skirt(product: Product, figure: Figure, open_front: bool) -> list[Part]:
    hem, top = HEMS[product.length], WAIST - 2
    drop = hem - WAIST
    wide = {"pencil": 18.6 - 0.02 * drop, "a-line": 20.5 + 0.22 * drop, "pleated": 21.5 + 0.17 * drop}[product.fit]
    right = outline(
        (0, top),
        (13.2, top - 0.3),
        (13.6, top + 4),
        (17.4, 50, 18.2, HIP) if wide < 20 else (17.5, 52, 19.0, HIP),
        (wide, hem),
    )
    waves = {"pencil": 0, "a-line": 3, "pleated": 6}[product.fit]
    body = mirrored(np.concatenate([right, _wavy_hem(wide, hem, waves)]))
    marks = [Mark("line", outline((-15, top + 4), (0, top + 5, 15, top + 4)), width=1.0)]
    if product.fit == "pleated":
        marks.extend(
            Mark("line", np.array([(p * 14, top + 5), (p * wide, hem + 2)]), width=1.0)
            for p in np.linspace(-0.86, 0.86, 7)
        )
    elif product.fit == "a-line":
        marks.extend(_drapes(wide, top + 6, hem, 13.5, 4))
    else:
        marks.append(Mark("line", np.array([(0.58 * wide, hem - 14), (0.62 * wide, hem + 2)]), width=1.2))  # the slit
    if product.closure == "buttons":
        marks.append(Mark("line", np.array([(-2.6, top), (-2.6, hem + 2)]), width=0.8))
        marks.extend(Mark("dot", np.array([(0.0, y)]), "button", 1.6) for y in np.arange(top + 2.5, hem - 2, 8.0))
    return [_bent(Part([body], "body", (figure.sway, 0.0), span=(top, hem), marks=marks), figure)]


def _culottes(product: Product, figure: Figure, open_front: bool) -> list[Part]:
    hem, top = (HEMS["mini"] if product.length == "mini" else 108.0), WAIST - 2
    drop = hem - WAIST
    wide = 22.0 + (0.24 if product.fit == "a-line" else 0.2) * drop
    notch, gap = CROTCH + 0.28 * (hem - CROTCH), 3.4 + 0.05 * drop
    right = outline(
        (0, top), (13.2, top - 0.3), (13.6, top + 4), (18.0, 52, 20.0, HIP), (wide, hem),
        (wide * 0.55, hem + 2.2, gap, hem + 0.5), (0.6, notch), (0, notch),
    )  # fmt: skip
    marks = [
        Mark("line", outline((-15, top + 4), (0, top + 5, 15, top + 4)), width=1.0),
        Mark("line", np.array([(0.0, top + 4), (0.0, notch + 1)]), width=1.4),
    ]
    places = (0.25, 0.5, 0.75) if product.fit == "pleated" else (0.45,)
    for s in (-1, 1):
        width = 1.0 if product.fit == "pleated" else 0.7
        marks.extend(
            Mark("line", np.array([(s * p * 13, top + 5), (s * (gap + p * (wide - gap)), hem + 3)]), width=width)
            for p in places
        )
        marks.append(Mark("line", outline((s * 12.4, top + 5), (s * 12, top + 12, s * 17.5, top + 15)), width=0.8))
    return [_bent(Part([mirrored(right)], "body", (figure.sway, 0.0), span=(top, hem), marks=marks), figure)]


def _pants(product: Product, figure: Figure, open_front: bool) -> list[Part]:
    top, hem = WAIST - 2, _LEG_HEMS[product.length]
    thigh, knee, ankle = {"slim": (9.6, 7.0, 5.4), "straight": (10.2, 9.0, 8.4), "wide": (11.0, 12.0, 13.0)}[
        product.fit
    ]
    hips = outline(
        (0, top),
        (13.2, top - 0.3),
        (13.6, top + 4),
        (18.4, 50, 8.6 + thigh, HIP + 2),
        (8.6 + thigh, CROTCH),
        (0, CROTCH + 1),
    )
    polygons = [figure.bend(mirrored(hips))]
    marks = []
    for limb, side in zip(figure.legs, (-1, 1), strict=True):
        pieces, low, end, width = _trouser_leg(limb, side, hem, (thigh, knee, ankle))
        polygons.extend(pieces)
        marks.append(Mark("line", _across(low, end, width + 3, 0.94)))
        if product.fit != "slim" or product.pattern == "plain":
            marks.append(Mark("line", np.stack([limb.root + np.array([0.0, 8.0]), end]), "light", 0.5))
    marks.append(Mark("line", figure.bend(np.array([(0.0, top + 4), (0.0, CROTCH + 5)])), width=1.1))
    front = [
        Mark("line", outline((-16, top + 4), (0, top + 5, 16, top + 4)), width=1.0),
        Mark("line", outline((0.2, CROTCH - 9), (3.6, CROTCH - 12, 3.6, top + 5)), width=0.6),
        Mark("dot", np.array([(0.0, top + 2.3)]), "button", 1.2),
    ]
    for side in (-1, 1):
        front.append(Mark("line", outline((side * 8, top + 5), (side * 9, top + 13, side * 18, top + 14)), width=0.8))
    marks.extend(_bent(Part([hips], marks=front), figure).marks)
    return [Part(polygons, "body", (figure.sway * 0.7, 0.0), span=(top, hem), marks=marks)]


def _trouser_leg(
    limb: Limb, side: int, hem: float, widths: tuple[float, float, float]
) -> tuple[list[Points], Points, Points, float]:
    """The polygons of one leg, the ends of its lowest piece, and half its width at the hem; widths
    are half widths.
    """
    thigh, knee, ankle = widths

    def apart(point: Points, half: float, gap: float) -> Points:
        """The middle of the leg, moved outward until daylight shows between the two."""
        middle = limb.root[0] - side * 8.6
        return np.array([middle + side * max(side * (point[0] - middle), half + gap), point[1]])

    if hem < limb.middle[1]:
        share = (hem - limb.root[1]) / (limb.middle[1] - limb.root[1])
        width = thigh + (knee - thigh) * share + 0.5
        end = apart(limb.root + share * (limb.middle - limb.root), width, 2.0 + 0.12 * (hem - CROTCH))
        return [tube(limb.root, end, thigh, width)], limb.root, end, width
    share = (hem - limb.middle[1]) / (limb.end[1] - limb.middle[1])
    width = knee + (ankle - knee) * share
    middle = apart(limb.middle, knee, 1.2)
    end = apart(limb.middle + share * (limb.end - limb.middle), width, 1.6)
    return (
        [tube(limb.root, middle, thigh, knee), disc(middle, knee), tube(middle, end, knee, width)],
        middle,
        end,
        width,
    )


def _bent(part: Part, figure: Figure) -> Part:
    """The part with its outlines and marks moved as the figure's hip sways."""
    marks = [Mark(mark.kind, figure.bend(mark.points), mark.ink, mark.width) for mark in part.marks]
    polygons = [figure.bend(polygon) for polygon in part.polygons]
    return Part(polygons, part.layer, part.origin, part.angle, part.fill, part.span, part.folds, marks)


_CUTS: dict[str, Callable[[Product, Figure, bool], list[Part]]] = {
    "dress": _dress,
    "pants": _pants,
    "skirt&pants": _culottes,
    "skirt": _skirt,
    "top": _top,
}
