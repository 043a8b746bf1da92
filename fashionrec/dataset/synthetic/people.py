"""Whoever or whatever wears the clothes: people, mannequins, hangers; and the things they carry in
front of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fashionrec.dataset.synthetic.attributes import Product
from fashionrec.dataset.synthetic.canvas import Canvas, Color, Placement
from fashionrec.dataset.synthetic.figure import CROTCH, HIP, Figure, Limb
from fashionrec.dataset.synthetic.garments import Part, cut
from fashionrec.dataset.synthetic.outline import Points, disc, mirrored, outline, tube

_SKIN: tuple[Color, ...] = (
    (246, 212, 186),
    (242, 202, 170),
    (226, 178, 142),
    (190, 136, 98),
    (140, 94, 66),
    (96, 64, 48),
)
_HAIR: tuple[Color, ...] = (
    (36, 28, 28),
    (62, 42, 32),
    (104, 66, 40),
    (176, 122, 64),
    (222, 186, 120),
    (150, 60, 44),
    (150, 150, 156),
)
_MANNEQUIN: tuple[Color, ...] = ((226, 210, 188), (236, 234, 230), (92, 90, 94), (196, 190, 184))
_SHOES: tuple[Color, ...] = (
    (40, 38, 42),
    (244, 242, 238),
    (140, 90, 58),
    (200, 60, 60),
    (214, 190, 150),
    (70, 84, 120),
)


@dataclass(frozen=True)
class Worn:
    """A garment on a figure: its number on the canvas, and whether it hangs open in front."""

    number: int
    product: Product
    open_front: bool = False


def paint_figure(
    canvas: Canvas,
    figure: Figure,
    at: Placement,
    worn: list[Worn],
    rng: np.random.Generator,
    light: float,
    carry: float = 0.0,
) -> None:
    """Paints a figure in its clothes, ``worn`` from the innermost to the outermost garment.

    ``carry`` 0..1 is the chance of a bag or the like that hides a part of them. ``light`` as in
    ``Canvas.garment``.
    """
    fold = float(rng.uniform(0, 6.28))
    cuts = [(item, cut(item.product, figure, item.open_front)) for item in worn]
    body = _Body(canvas, figure, at, rng) if figure.kind in ("person", "mannequin") else None

    def clothes(layer: str) -> None:
        for item, parts in cuts:
            mine = [part for part in parts if part.layer == layer]
            canvas.garment(item.number, item.product, mine, at, light, fold + item.number)

    if figure.kind == "hanger":
        _hanger(canvas, at, worn[0].product.category in ("top", "dress"))
    if body:
        body.behind()
    clothes("back")
    if body:
        body.trunk()
        body.arms(front=False)
    clothes("arm")
    clothes("body")
    if figure.kind == "hanger" and worn[0].product.category not in ("top", "dress"):
        _clips(canvas, at)
    if body:
        body.head()
        body.arms(front=True)
    clothes("front")
    if body:
        body.hands_front()
        if figure.kind == "person" and rng.random() < carry:
            _bag(canvas, figure, at, rng)


class _Body:
    """Skin, hair and shoes of one figure."""

    def __init__(self, canvas: Canvas, figure: Figure, at: Placement, rng: np.random.Generator) -> None:
        self.canvas, self.figure, self.at = canvas, figure, at
        self.alive = figure.kind == "person"
        tones = _SKIN if self.alive else _MANNEQUIN
        self.skin = tones[int(rng.integers(len(tones)))]
        self.hair = _HAIR[int(rng.integers(len(_HAIR)))]
        self.cut = str(rng.choice(["short", "bob", "long", "bun", "waves", "cap"]))
        self.shoes = _SHOES[int(rng.integers(len(_SHOES)))]
        self.tilt = float(rng.uniform(-7, 7))
        self.over = bool(rng.random() < 0.4)
        self.smile = float(rng.uniform(0.6, 1.6))
        self.cap = _SHOES[int(rng.integers(len(_SHOES)))]

    def _fill(self, points: Points, color: Color) -> None:
        self.canvas.fill(self.at.apply(points), color)

    def _line(self, points: Points, color: Color, width: float) -> None:
        self.canvas.line(self.at.apply(points), color, width * self.at.scale)

    def _headed(self, points: Points) -> Points:
        """Points of an upright head (centre 0, -19), nodded to the side."""
        a = np.radians(self.tilt)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        result: Points = (points - (0, -9)) @ turn.T + (0, -9)
        return result

    def behind(self) -> None:
        """Hair that falls behind the shoulders, and the stand of a mannequin."""
        if not self.alive:
            self._fill(outline((-1.6, HIP), (1.6, HIP), (1.6, 172), (-1.6, 172)), (110, 104, 100))
            self._fill(outline((-16, 170), (0, 166, 16, 170), (0, 176, -16, 170)), (90, 86, 84))
            return
        if self.cut in ("long", "waves"):
            low = 16 if self.cut == "long" else 10
            right = outline((0, -32), (13, -32, 12.5, -16), (15, 0, 12, low), (6, low + 4, 0, low))
            self._fill(self._headed(mirrored(right)), _tone(self.hair, 0.82))
        elif self.cut == "bob":
            self._fill(
                self._headed(mirrored(outline((0, -32), (12.5, -32, 12, -16), (13, -10, 11, -5.5), (0, -5)))),
                _tone(self.hair, 0.82),
            )

    def trunk(self) -> None:
        """Legs, shoes, neck and trunk."""
        shade = _tone(self.skin, 0.9)
        if self.alive:
            for limb, side in zip(self.figure.legs, (-1, 1), strict=True):
                self._fill(tube(limb.root, limb.middle, 8.2, 5.6), self.skin)
                self._fill(disc(limb.middle, 5.6), self.skin)
                self._fill(tube(limb.middle, limb.end, 5.6, 3.4), self.skin)
                shin = np.stack([limb.middle, limb.middle, limb.end])
                shin += np.array([(side * 3.4, -14), (side * 3.2, 0), (side * 2, -6)])
                self._line(shin, shade, 2.2)
                x, y = limb.end
                foot = outline(
                    (x - 3.8, y - 3),
                    (x + 3.8, y - 3),
                    (x + 4.4 + side * 1.5, y + 9),
                    (x + side * 2, y + 12, x - 4.4 + side * 1.5, y + 9),
                )
                self._fill(foot, self.shoes)
                self._line(foot[1:], _tone(self.shoes, 0.7), 1.0)
        right = outline(
            (0, -9),
            (4.6, -9),
            (4.9, -3),
            (8, -1.4, 16, 0.6),
            (19.5, 3),
            (16, 14, 14.6, 20),
            (12.4, 32, 12.6, 40),
            (17.5, 52, 17.6, HIP),
            (16, CROTCH),
            (0, CROTCH + 2),
        )
        self._fill(self.figure.bend(mirrored(right)), self.skin)
        self._fill(self._headed(outline((-4.5, -9), (4.5, -9), (0, 0, -4.5, -6))), shade)

    def arms(self, front: bool) -> None:
        """The upper arms and, where they do not cross the body, the forearms; or (``front``) those
        that do.
        """
        if not self.alive:
            return
        for limb in self.figure.arms:
            if not front:
                self._fill(disc(limb.root, 5.2), self.skin)
                self._fill(tube(limb.root, limb.middle, 5.0, 4.0), self.skin)
                self._fill(disc(limb.middle, 4.0), self.skin)
            if front == limb.front:
                self._fill(disc(limb.middle, 4.0), self.skin)
                self._fill(tube(limb.middle, limb.end, 4.0, 2.7), self.skin)
                if not front:
                    self._hand(limb)

    def hands_front(self) -> None:
        """Hands of arms that cross the body, over every sleeve."""
        if self.alive:
            for limb in self.figure.arms:
                if limb.front:
                    self._hand(limb)

    def _hand(self, limb: Limb) -> None:
        along = (limb.end - limb.middle) / np.hypot(*(limb.end - limb.middle))
        self._fill(disc(limb.end + along * 2.6, 3.5), self.skin)
        self._fill(tube(limb.end + along * 2, limb.end + along * 7, 3.0, 1.8), self.skin)

    def head(self) -> None:
        """Head, face and the hair in front."""
        if not self.alive:
            self._fill(
                mirrored(outline((0, -10.5), (3.4, -10.5, 4.6, -9), (4.6, -7.5), (0, -6.6))), _tone(self.skin, 0.8)
            )
            return
        face = mirrored(outline((0, -30.5), (9.6, -30.5, 9.4, -19), (9.0, -9.5, 0, -7.5)))
        self._fill(self._headed(np.array([(-9.6, -20), (-10.9, -19.4), (-10.6, -16.4), (-9, -16)])), self.skin)
        self._fill(self._headed(np.array([(9.6, -20), (10.9, -19.4), (10.6, -16.4), (9, -16)])), self.skin)
        self._fill(self._headed(face), self.skin)
        red, green, blue = self.skin
        blush = (min(255, round(red * 1.02)), round(green * 0.86), round(blue * 0.84))
        look = self.figure.facing * 1.3
        for side in (-1, 1):
            self._fill(self._headed(disc((side * 5.2 + look, -15.2), 1.7, 10)), blush)
            self._fill(self._headed(disc((side * 3.7 + look, -18.6), 1.0, 8)), (44, 34, 34))
            brow = outline((side * 2.4 + look, -21.4), (side * 3.8 + look, -22.4, side * 5.4 + look, -21.2))
            self._line(self._headed(brow), _tone(self.hair, 0.8), 0.7)
        self._line(self._headed(outline((look, -17.2), (look + 0.9, -15.4), (look, -15.2))), _tone(self.skin, 0.8), 0.6)
        mouth = outline((look - 2.2, -12.8), (look, -12.8 + 2.2 * self.smile, look + 2.2, -12.8))
        self._line(self._headed(mouth), (178, 70, 74), 0.8)
        self._hair()

    def _hair(self) -> None:
        crown = outline(
            (-10.2, -17),
            (-12, -32.5, 0, -32.5),
            (12, -32.5, 10.2, -17),
            (9.2, -23, 4, -26.5),
            (-3, -23.5, -8, -23.4),
            (-9.4, -21, -10.2, -17),
        )
        if self.cut == "cap":
            self._fill(self._headed(outline((-10.4, -21), (-11, -33, 0, -33), (11, -33, 10.4, -21))), self.cap)
            self._fill(
                self._headed(outline((-10.4, -23), (0, -20, 10.4, -23), (15.5, -20.5), (0, -18.4, -10.4, -21))),
                _tone(self.cap, 0.8),
            )
            return
        if self.cut == "bun":
            self._fill(self._headed(disc((0, -34.5), 5.2)), _tone(self.hair, 0.9))
        self._fill(self._headed(crown), self.hair)
        self._line(self._headed(outline((-5, -29.5), (1, -32, 6, -28.6))), _tone(self.hair, 1.35), 0.9)
        if self.cut in ("long", "waves") and self.over:
            for side in (-1, 1):
                low = 20 if self.cut == "long" else 14
                lock = outline(
                    (side * 9.2, -24),
                    (side * 13.6, -16, side * 12.6, -4),
                    (side * 14, 8, side * 10, low),
                    (side * 7.6, 6, side * 8.6, -8),
                    (side * 10, -16, side * 9.2, -24),
                )
                self._fill(self._headed(lock), self.hair)


def _tone(color: Color, by: float) -> Color:
    r, g, b = (int(min(255, v * by + (14 if by > 1 else 0))) for v in color)
    return (r, g, b)


def _hanger(canvas: Canvas, at: Placement, shoulders: bool) -> None:
    wood: Color = (176, 128, 84)
    y = -4.0 if shoulders else 30.0
    hook = outline(
        (0, y - 1),
        (0, y - 8),
        (0, y - 11, 3, y - 11),
        (6.4, y - 12, 6.2, y - 15),
        (5.6, y - 19.5, 0, y - 18.5),
        (-3, y - 17.5),
    )
    canvas.line(at.apply(hook), (168, 168, 174), 1.2 * at.scale)
    if shoulders:
        canvas.line(at.apply(outline((-18, 4), (-8, -4, 0, -4), (8, -4, 18, 4))), wood, 2.6 * at.scale)
    else:
        canvas.line(at.apply(np.array([(-15.0, y), (15.0, y)])), wood, 2.4 * at.scale)


def _clips(canvas: Canvas, at: Placement) -> None:
    for x in (-10.0, 10.0):
        canvas.fill(at.apply(outline((x - 1.5, 29.5), (x + 1.5, 29.5), (x + 1.9, 41), (x - 1.9, 41))), (150, 150, 158))


def _bag(canvas: Canvas, figure: Figure, at: Placement, rng: np.random.Generator) -> None:
    """A crossbody bag, a tote from a hand, or a phone held up before the body."""
    color = _SHOES[int(rng.integers(len(_SHOES)))]
    kind, side = int(rng.integers(3)), int(rng.choice([-1, 1]))
    hand = figure.arms[0 if side < 0 else 1].end
    if kind == 0:
        x, y = side * 17.0, 60.0
        canvas.line(
            at.apply(figure.bend(np.array([(-side * 13.0, 0.5), (x, y - 4)]))), _tone(color, 0.8), 1.8 * at.scale
        )
        body = outline((x - 9, y - 5), (x + 9, y - 5), (x + 10, y + 9), (x, y + 13, x - 10, y + 9))
    elif kind == 1:
        x, y = float(hand[0]), float(hand[1]) + 6
        canvas.line(
            at.apply(outline((x - 7, y + 14), (x - 5, y - 6, x, y - 3), (x + 5, y - 6, x + 7, y + 14))),
            _tone(color, 0.8),
            1.4 * at.scale,
        )
        body = outline((x - 11, y + 12), (x + 11, y + 12), (x + 12.5, y + 36), (x - 12.5, y + 36))
    else:
        x, y = float(hand[0]), float(hand[1])
        body = outline((x - 4, y - 8), (x + 4, y - 8), (x + 4, y + 7), (x - 4, y + 7))
    canvas.fill(at.apply(body), color)
    canvas.line(at.apply(body[:4]), _tone(color, 0.75), 1.0 * at.scale)


def extent(parts: list[Part]) -> tuple[Points, Points]:
    """The corners (least and greatest x, y in centimetres) of a garment's parts."""
    every = np.concatenate([polygon for part in parts for polygon in part.polygons])
    return every.min(axis=0), every.max(axis=0)
