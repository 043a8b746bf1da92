"""One photo: who stands where in what clothes, before which background, in what light; and the true
boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fashionrec.dataset.synthetic import backgrounds
from fashionrec.dataset.synthetic.attributes import Product
from fashionrec.dataset.synthetic.canvas import SUPERSAMPLE, Canvas, Placement
from fashionrec.dataset.synthetic.figure import display, person
from fashionrec.dataset.synthetic.garments import cut
from fashionrec.dataset.synthetic.light import expose
from fashionrec.dataset.synthetic.outline import outline
from fashionrec.dataset.synthetic.people import Worn, extent, paint_figure
from fashionrec.types import Box

#: A garment less visible than this is not labelled.
LEAST_VISIBLE = 0.3


@dataclass(frozen=True)
class Stand:
    """A person, a mannequin, a hanger or a garment laid flat, with its clothes from the innermost
    to the outermost.
    """

    kind: str
    clothes: tuple[Product, ...]


@dataclass(frozen=True)
class VisibleGarment:
    """A garment that can be seen in a photo: its box in photo pixels and the share of it that is
    visible, 0..1.
    """

    product: Product
    box: Box
    visible: float


@dataclass(frozen=True)
class Scene:
    """A finished photo and what is in it."""

    image: Image.Image
    seen: list[VisibleGarment]


#: How far light and colour stray, and how much gets in the way, by mood.
HARSH = {"studio": 0.35, "indoor": 0.7, "street": 1.0}


def take_photo(stands: tuple[Stand, ...], mood: str, size: int, rng: np.random.Generator) -> Scene:
    """Take a photo of the stands, side by side. ``mood`` is "studio", "indoor" or "street";
    ``size`` the long side.

    Garments with less than ``LEAST_VISIBLE`` visible are left out of ``seen``.
    """
    width, height = _format(len(stands), size, rng)
    harsh = HARSH[mood]
    canvas = Canvas(width, height)
    numbered: dict[int, Product] = {}
    light = float(rng.uniform(-1, 1))
    for place in rng.permutation(len(stands)):
        stand = stands[int(place)]
        layered = len(stand.clothes) == 2 and {g.category for g in stand.clothes} == {"dress", "top"}
        worn = []
        for product in stand.clothes:
            number = len(numbered) + 1
            numbered[number] = product
            worn.append(Worn(number, product, layered and product.category == "top"))
        _paint_stand(canvas, stand, worn, (int(place), len(stands)), rng, light, mood)
    if rng.random() < 0.28 * harsh and stands:
        _cross(canvas, rng)
    flat = any(stand.kind == "flat" for stand in stands)
    behind = backgrounds.background(
        _backdrop(mood, flat, rng), width, height, rng, 0.0 if flat else rng.uniform(-1, 2.4)
    )
    image = expose(canvas, behind, rng, harsh)
    seen = [VisibleGarment(numbered[number], box, visible) for number, (box, visible) in canvas.boxes().items()]
    return Scene(image, [one for one in seen if one.visible >= LEAST_VISIBLE])


def _format(stands: int, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Width and height: portrait 3:4 mostly, landscape or square more often where several stand
    beside each other.
    """
    wide = rng.random() < (0.1 if stands <= 1 else 0.6)
    if wide:
        return size, size * 3 // 4
    if rng.random() < 0.13 or stands > 2:
        return size, size
    return size * 3 // 4, size


def _backdrop(mood: str, flat: bool, rng: np.random.Generator) -> str:
    upright = {"studio": backgrounds.STUDIO, "indoor": backgrounds.INDOOR, "street": backgrounds.STREET}
    names: tuple[str, ...] = backgrounds.FLAT if flat else upright[mood]
    return names[int(rng.integers(len(names)))]


def _paint_stand(
    canvas: Canvas,
    stand: Stand,
    worn: list[Worn],
    place: tuple[int, int],
    rng: np.random.Generator,
    light: float,
    mood: str,
) -> None:
    """Poses and places one stand in its share of the picture, column ``place[0]`` of
    ``place[1]``.
    """
    harsh = HARSH[mood]
    width, height = canvas.width * SUPERSAMPLE, canvas.height * SUPERSAMPLE
    share = width / place[1]
    figure = person(rng) if stand.kind == "person" else display(rng, stand.kind)
    if stand.kind == "person":
        low, high = _framing(stand, place[1], mood, rng)
        scale = height / (high - low) * rng.uniform(0.86, 1.0)
        scale = min(scale, share * (1.0 if place[1] == 1 else 1.35) / 66)
        degrees = rng.normal(0, 3.0 + 2.0 * harsh)
    else:
        corners = [extent(cut(product, figure)) for product in stand.clothes]
        least, most = np.min([c[0] for c in corners], axis=0), np.max([c[1] for c in corners], axis=0)
        if stand.kind == "hanger":
            least = least - (0, 13)
        low, high = least[1], most[1]
        fill = rng.uniform(0.58, 0.94) if place[1] == 1 else rng.uniform(0.78, 0.98)
        scale = min(share * fill / (most[0] - least[0]), height * fill / (high - low))
        degrees = float(np.clip(rng.normal(0, 6.5 if stand.kind == "flat" else 2.5), -14, 14))
    slack_y = abs(height - scale * (high - low)) / 2
    slack_x = max(0.0, share - scale * 52) / 2
    at = (
        share * (place[0] + 0.5) + rng.uniform(-0.55, 0.55) * slack_x,
        height / 2 + rng.uniform(-0.7, 0.7) * slack_y,
    )
    center = (0.0, (low + high) / 2)
    placement = Placement.of(scale, degrees, np.array(center), np.array(at), rng.uniform(0.93, 1.1))
    paint_figure(canvas, figure, placement, worn, rng, light, 0.1 + 0.25 * harsh)


def _framing(stand: Stand, stands: int, mood: str, rng: np.random.Generator) -> tuple[float, float]:
    """Return the visible range of a person in centimetres of height: all, from the neck down, the
    upper or lower half.

    A studio shows the clothes, and rarely the whole person.
    """
    classes = {product.category for product in stand.clothes}
    roll = rng.random()
    if mood == "studio":
        roll = 0.35 + 0.65 * roll
    if stands > 1 or roll < 0.5:
        return -40.0, 158.0
    long = any(product.length in ("maxi", "full") for product in stand.clothes)
    if roll < 0.72 or classes == {"dress"}:
        return -16.0, 150.0 if long else 128.0
    if classes == {"top"} or (roll < 0.88 and "top" in classes):
        return -36.0, 96.0
    return (-8.0, 154.0) if long else (-8.0, 126.0)


def _cross(canvas: Canvas, rng: np.random.Generator) -> None:
    """Something between the camera and the clothes: a lamp post, a leaf, a rail, somebody's
    shoulder at the edge.
    """
    w, h = canvas.width * SUPERSAMPLE, canvas.height * SUPERSAMPLE
    tone = int(rng.integers(40, 200))
    color = (tone, int(tone * rng.uniform(0.85, 1.05)), int(tone * rng.uniform(0.8, 1.1)))
    kind, side = int(rng.integers(4)), int(rng.integers(2))
    if kind == 0:
        x, t = rng.uniform(0.15, 0.85) * w, 0.022 * w
        canvas.fill(np.array([(x - t, -2), (x + t, -2), (x + t, h + 2), (x - t, h + 2)]), color)
    elif kind == 1:
        for _ in range(3):
            x, y = (0 if side else w), rng.uniform(0.3, 1) * h
            tip = np.array(
                [w * rng.uniform(0.2, 0.5) if side else w * rng.uniform(0.5, 0.8), y - rng.uniform(0.05, 0.3) * h]
            )
            leaf = outline(
                (x, y), ((x + tip[0]) / 2, y - 0.2 * h, tip[0], tip[1]), ((x + tip[0]) / 2, y + 0.02 * h, x, y)
            )
            canvas.fill(leaf, (60, int(rng.uniform(100, 140)), 70))
    elif kind == 2:
        y, t = rng.uniform(0.55, 0.9) * h, 0.012 * h
        canvas.fill(np.array([(-2, y - t), (w + 2, y - t), (w + 2, y + t), (-2, y + t)]), color)
    else:
        x, s = (0.0 if side else float(w)), (1 if side else -1)
        reach = s * rng.uniform(0.14, 0.3) * w
        canvas.fill(outline((x, h * 0.5), (x + reach, h * 0.55, x + reach, h * 1.02), (x, h * 1.02)), color)
