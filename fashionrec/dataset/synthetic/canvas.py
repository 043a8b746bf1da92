"""The sheet that things are painted on at twice the photo's size: colours, what is covered, and
whose pixel it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fashionrec.dataset.synthetic.attributes import Product
from fashionrec.dataset.synthetic.garments import Mark, Part
from fashionrec.dataset.synthetic.outline import Points
from fashionrec.dataset.synthetic.patterns import cloth, palette
from fashionrec.types import Box

#: How much larger than the photo everything is painted, for smooth edges.
SUPERSAMPLE = 2
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Placement:
    """Placement of a figure: ``point = matrix @ centimetres + shift``, in pixels of the canvas."""

    matrix: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, scale: float, degrees: float, center: Points, at: Points, stretch: float = 1.0) -> Placement:
        """Put the centimetre point ``center`` at the pixel ``at``, rotated and scaled (pixels per
        centimetre).
        """
        a = np.radians(degrees)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        matrix = turn @ np.diag([scale * stretch, scale])
        return cls(matrix, np.asarray(at, dtype=np.float64) - matrix @ np.asarray(center, dtype=np.float64))

    def apply(self, points: Points) -> Points:
        """Return the pixels of points [n, 2]."""
        result: Points = np.asarray(points, dtype=np.float64) @ self.matrix.T + self.shift
        return result

    @property
    def scale(self) -> float:
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))


class Canvas:
    """Paint of ``width`` x ``height`` photo pixels, held at twice that size.

    ``colors`` is RGB on black, ``cover`` is 255 where anything is painted, and ``owner`` holds the
    number (1..255) of the garment that is seen at each pixel, 0 where it is anything else.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        size = (width * SUPERSAMPLE, height * SUPERSAMPLE)
        self.colors = Image.new("RGB", size)
        self.cover = Image.new("L", size)
        self.owner = Image.new("L", size)
        self._draws = [ImageDraw.Draw(sheet) for sheet in (self.colors, self.cover, self.owner)]
        self._painted: dict[int, list[float]] = {}
        self._cloth: dict[int, Image.Image] = {}

    def fill(self, points: Points, color: Color) -> None:
        """Fill a polygon (canvas pixels) with a colour that belongs to no garment."""
        xy = [tuple(p) for p in points.tolist()]
        colors, cover, owner = self._draws
        colors.polygon(xy, fill=color)
        cover.polygon(xy, fill=255)
        owner.polygon(xy, fill=0)

    def line(self, points: Points, color: Color, width: float) -> None:
        """Draw a line (canvas pixels) that belongs to no garment."""
        xy = [tuple(p) for p in points.tolist()]
        thick = max(1, round(width))
        colors, cover, owner = self._draws
        colors.line(xy, fill=color, width=thick, joint="curve")
        cover.line(xy, fill=255, width=thick, joint="curve")
        owner.line(xy, fill=0, width=thick, joint="curve")

    def garment(
        self, number: int, product: Product, parts: list[Part], at: Placement, light: float, fold: float
    ) -> None:
        """Paint parts of garment ``number`` (1..255).

        ``light`` -1..1 is the side it comes from, ``fold`` a phase.
        """
        colors = palette(product)
        for part in parts:
            self._part(number, product, part, at, colors, light, fold)

    def _part(
        self, number: int, product: Product, part: Part, at: Placement, colors: np.ndarray, light: float, fold: float
    ) -> None:
        outlines = [at.apply(polygon) for polygon in part.polygons]
        every = np.concatenate(outlines)
        x0, y0 = np.floor(every.min(axis=0)).astype(int) - 1
        x1, y1 = np.ceil(every.max(axis=0)).astype(int) + 2
        if x1 <= x0 or y1 <= y0 or x1 - x0 > 4000 or y1 - y0 > 4000:
            return
        mask = Image.new("L", (int(x1 - x0), int(y1 - y0)))
        pen = ImageDraw.Draw(mask)
        for polygon in outlines:
            pen.polygon([tuple(p) for p in (polygon - (x0, y0)).tolist()], fill=255)
        whole = float(mask.histogram()[255])
        left, top = max(0, -int(x0)), max(0, -int(y0))
        right, bottom = min(int(x1), self.owner.width) - int(x0), min(int(y1), self.owner.height) - int(y0)
        tally = self._painted.setdefault(number, [0.0, 0.0])
        tally[0] += whole
        if right <= left or bottom <= top:
            return
        if (left, top, right, bottom) != (0, 0, *mask.size):
            mask = mask.crop((left, top, right, bottom))
        x0, y0 = int(x0) + left, int(y0) + top
        tally[1] += float(mask.histogram()[255])
        patch = _weave(product, part, at, colors, mask, (x0, y0), light, fold)
        pen = ImageDraw.Draw(patch)
        for mark in part.marks:
            _mark(pen, mark, at, colors, (x0, y0))
        self.colors.paste(patch, (x0, y0), mask)
        self.cover.paste(255, (x0, y0), mask)
        self.owner.paste(number, (x0, y0), mask)
        if number not in self._cloth:
            self._cloth[number] = Image.new("L", self.owner.size)
        self._cloth[number].paste(255, (x0, y0), mask)

    def boxes(self) -> dict[int, tuple[Box, float]]:
        """Return for each visible garment the box of its visible pixels in photo pixels, and the
        share (0..1) of its cloth that is visible.

        Both covered parts and those outside the image count as invisible.
        """
        owner = np.asarray(self.owner)
        found: dict[int, tuple[Box, float]] = {}
        for number in self._painted:
            own = owner == number
            columns, rows = np.flatnonzero(own.any(axis=0)), np.flatnonzero(own.any(axis=1))
            if columns.size:
                k = float(SUPERSAMPLE)
                box = Box(columns[0] / k, rows[0] / k, (columns[-1] + 1) / k, (rows[-1] + 1) / k)
                whole, within = self._painted[number]
                cloth_here = self._cloth[number].histogram()[255]
                found[number] = (box, float(np.count_nonzero(own)) / cloth_here * within / whole)
        return found


def _weave(
    product: Product,
    part: Part,
    at: Placement,
    colors: np.ndarray,
    mask: Image.Image,
    corner: tuple[int, int],
    light: float,
    fold: float,
) -> Image.Image:
    """The cloth of a part with its folds and shade, RGB of the mask's size whose corner lies at
    ``corner``.
    """
    width, height = mask.size
    inverse = np.linalg.inv(at.matrix)
    turn = np.array([[np.cos(part.angle), np.sin(part.angle)], [-np.sin(part.angle), np.cos(part.angle)]])
    origin = np.array(part.origin)
    m = turn @ inverse
    shift = turn @ (inverse @ (np.array(corner) + 0.5 - at.shift) - origin)
    columns = np.arange(width, dtype=np.float32)[None, :]
    rows = np.arange(height, dtype=np.float32)[:, None]
    x = np.float32(m[0, 0]) * columns + (np.float32(m[0, 1]) * rows + np.float32(shift[0]))
    y = np.float32(m[1, 0]) * columns + (np.float32(m[1, 1]) * rows + np.float32(shift[1]))
    if part.fill == "cloth":
        top, hem = part.span
        depth = (y + np.float32(origin[1] - top)) / np.float32(hem - top) if product.pattern == "color block" else 0.0
        index = cloth(product, x, y, depth)
    else:
        index = np.full((height, width), 1 if part.fill == "second" else 0, dtype=np.uint8)
    shade = _shade(mask, x, y, light, fold, part.folds)
    if part.fill == "inside":
        shade = shade * np.float32(0.62)
    # Dark cloth still shows its folds: a little light is added to it as well as multiplied.
    rgb = colors[index] * shade[..., None] + (shade[..., None] - np.float32(0.86)) * np.float32(30.0)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def _shade(mask: Image.Image, x: np.ndarray, y: np.ndarray, light: float, fold: float, depth: float) -> np.ndarray:
    """Brightness of cloth, about 0.6..1.1 float32 [h, w]: rounded towards the edges, lit from a
    side, in soft folds.
    """
    width, height = mask.size
    small = mask.resize((max(2, width // 4), max(2, height // 4)), Image.Resampling.BOX)
    reach = max(1.0, min(small.size) / 9)
    soft = np.asarray(small.filter(ImageFilter.GaussianBlur(reach)), dtype=np.float32) / 255
    step = max(1, round(reach))
    padded = np.pad(soft, ((0, 0), (step, step)))
    slope = padded[:, 2 * step :] - padded[:, : -2 * step]
    round_ = 0.74 + 0.30 * np.clip((soft - 0.35) * 1.7, 0, 1) + 0.16 * light * slope
    xs, ys = x[::4, ::4][: soft.shape[0], : soft.shape[1]], y[::4, ::4][: soft.shape[0], : soft.shape[1]]
    waves = np.sin(0.42 * xs + 0.9 * np.sin(0.055 * ys + fold) + fold) * np.sin(0.05 * ys + 2 * fold)
    waves = waves + 0.6 * np.sin(0.16 * ys - 0.22 * xs + 3 * fold)
    full = Image.fromarray(round_[: waves.shape[0], : waves.shape[1]] + np.float32(0.045 * depth) * waves)
    return np.asarray(full.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def _mark(pen: ImageDraw.ImageDraw, mark: Mark, at: Placement, colors: np.ndarray, corner: tuple[int, int]) -> None:
    points = at.apply(mark.points) - corner
    ink, width = _ink(mark.ink, colors), mark.width * at.scale
    if mark.kind == "polygon":
        pen.polygon([tuple(p) for p in points.tolist()], fill=ink)
    elif mark.kind == "dot":
        (x, y), r = points[0].tolist(), max(1.2, width)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink, outline=_ink("seam", colors))
    else:
        pen.line([tuple(p) for p in points.tolist()], fill=ink, width=max(1, round(width)), joint="curve")


def _ink(name: str, colors: np.ndarray) -> Color:
    """A mark's colour, from the cloth's own so that it always shows."""
    base = colors[0]
    dark = float(base.mean()) < 75
    if name == "seam":
        tone = base * 0.55 + 52 if dark else base * 0.68
    elif name == "light":
        tone = base * 0.85 + 30
    elif name == "deep":
        tone = base * 0.45 + 8
    elif name == "second":
        tone = colors[1]
    elif name == "metal":
        tone = np.array([205, 205, 212]) if float(base.mean()) < 190 else np.array([120, 122, 130])
    elif name in ("button", "string"):
        tone = np.array([236, 230, 218]) if float(base.mean()) < 185 else np.array([92, 76, 66])
    else:
        tone = base * 1.0
    r, g, b = np.clip(tone, 0, 255).astype(int).tolist()
    return (r, g, b)
