"""Backgrounds: studio paper, walls, floors, rooms and streets, drawn at the photo's size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]
# fmt: off
_PAPER: tuple[Color, ...] = (
    (240, 238, 234), (226, 226, 230), (214, 202, 190), (206, 220, 226), (232, 212, 208), (196, 202, 190),
    (120, 122, 130), (74, 76, 84),
)
_WALLS: tuple[Color, ...] = (
    (228, 222, 210), (204, 210, 212), (188, 200, 184), (222, 196, 180), (168, 176, 190), (150, 140, 132),
)
_LIVELY: tuple[Color, ...] = (
    (196, 72, 64), (58, 104, 150), (232, 190, 80), (84, 132, 92), (140, 100, 150), (60, 58, 66), (222, 216, 206),
    (226, 140, 90), (120, 170, 190),
)
# fmt: on

#: Which backgrounds each style of photo draws from; a garment laid flat is seen from above.
STUDIO = ("paper", "paper", "paper", "wall")
INDOOR = ("wall", "room", "brick", "tiles", "room")
FLAT = ("wood", "wood", "linen", "paper", "tiles", "rug", "marble")
STREET = ("street", "street", "brick", "shutter", "park", "shop")


def background(name: str, width: int, height: int, rng: np.random.Generator, blur: float = 0.0) -> Image.Image:
    """Draw a background of that size in RGB; ``blur`` is a Gaussian radius in pixels (depth of
    field).
    """
    image = _DRAW[name](width, height, rng)
    return image.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.2 else image


def _jitter(color: Color, rng: np.random.Generator, by: float = 14) -> Color:
    r, g, b = (
        np.clip(np.array(color) + rng.uniform(-by, by) + rng.uniform(-by / 3, by / 3, 3), 0, 255).astype(int).tolist()
    )
    return (r, g, b)


def _one(colors: tuple[Color, ...], rng: np.random.Generator, by: float = 14) -> Color:
    return _jitter(colors[int(rng.integers(len(colors)))], rng, by)


def _mul(color: Color, by: float) -> Color:
    r, g, b = (int(min(255, v * by)) for v in color)
    return (r, g, b)


def _gradient(width: int, height: int, top: Color, bottom: Color, power: float = 1.0) -> Image.Image:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None] ** power
    column = np.array(top, dtype=np.float32) * (1 - t) + np.array(bottom, dtype=np.float32) * t
    return Image.fromarray(column.astype(np.uint8)[:, None, :]).resize((width, height), Image.Resampling.NEAREST)


def _paper(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    color = _one(_PAPER, rng)
    return _gradient(w, h, _mul(color, rng.uniform(0.96, 1.08)), _mul(color, rng.uniform(0.84, 1.0)), 2.0)


def _floor(
    draw: ImageDraw.ImageDraw, w: int, h: int, y: int, color: Color, planks: bool, rng: np.random.Generator
) -> None:
    draw.rectangle((0, y, w, h), fill=color)
    if planks:
        for x in np.arange(-w, 2 * w, w / 6):
            draw.line((w / 2 + (x - w / 2) * 0.55, y, x, h), fill=_mul(color, 0.86), width=1)
    draw.rectangle((0, y - 4, w, y), fill=_mul(color, 1.25))


def _wall(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    color = _one(_WALLS, rng)
    image = _gradient(w, h, color, _mul(color, 0.9))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:
        step = int(rng.integers(18, 44))
        for x in range(int(rng.integers(step)), w, step):
            draw.line((x, 0, x, h), fill=_mul(color, 0.92), width=2 if step > 30 else 1)
    _floor(
        draw,
        w,
        h,
        int(h * rng.uniform(0.78, 0.93)),
        _one(((168, 132, 96), (150, 146, 142), (196, 182, 162)), rng),
        rng.random() < 0.6,
        rng,
    )
    return image


def _room(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    image = _wall(w, h, rng)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        x, y = int(rng.uniform(-0.1, 0.9) * w), int(rng.uniform(0.03, 0.45) * h)
        a, b = int(rng.uniform(0.14, 0.34) * w), int(rng.uniform(0.12, 0.3) * h)
        draw.rectangle((x, y, x + a, y + b), fill=_one(((250, 248, 244), (60, 52, 46), (176, 132, 92)), rng))
        draw.rectangle((x + 4, y + 4, x + a - 4, y + b - 4), fill=_one(_LIVELY, rng))
        if rng.random() < 0.5:
            draw.ellipse((x + a * 0.3, y + b * 0.3, x + a * 0.8, y + b * 0.8), fill=_one(_LIVELY, rng))
    side = int(rng.choice([0, 1]))
    if rng.random() < 0.6:
        _plant(draw, int(w * (0.08 if side else 0.92)), int(h * 0.9), h * rng.uniform(0.2, 0.42), rng)
    if rng.random() < 0.5:
        color, x = _one(_LIVELY, rng), int(w * (0.72 if side else -0.1))
        draw.rectangle((x, int(h * 0.66), x + int(w * 0.4), int(h * 0.93)), fill=color)
        draw.rectangle((x, int(h * 0.66), x + int(w * 0.4), int(h * 0.70)), fill=_mul(color, 1.18))
    return image


def _plant(draw: ImageDraw.ImageDraw, x: int, y: int, size: float, rng: np.random.Generator) -> None:
    green = _one(((70, 118, 74), (96, 140, 80), (52, 92, 70)), rng)
    for angle in np.linspace(-1.2, 1.2, int(rng.integers(6, 10))) + rng.uniform(-0.1, 0.1):
        tip = (x + np.sin(angle) * size * 0.75, y - np.cos(angle) * size * rng.uniform(0.75, 1.0))
        bend = (np.cos(angle) * size * 0.09, np.sin(angle) * size * 0.09)
        mid = ((x + tip[0]) / 2, (y + tip[1]) / 2)
        tone = _mul(green, rng.uniform(0.8, 1.15))
        draw.polygon(
            [(x, y), (mid[0] - bend[0], mid[1] - bend[1]), tip, (mid[0] + bend[0], mid[1] + bend[1])], fill=tone
        )
    pot = size * 0.17
    draw.polygon(
        [(x - pot, y - pot), (x + pot, y - pot), (x + pot * 0.7, y + pot), (x - pot * 0.7, y + pot)],
        fill=(188, 110, 82),
    )


def _brick(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    color = _one(((168, 92, 74), (190, 160, 140), (214, 208, 200), (120, 84, 76)), rng)
    image = Image.new("RGB", (w, h), _mul(color, rng.choice([0.75, 1.18])))
    draw = ImageDraw.Draw(image)
    bh = int(rng.integers(9, 18))
    bw = bh * 2.4
    for row, y in enumerate(range(0, h, bh)):
        for x in np.arange(-bw * (0.5 if row % 2 else 0.0), w, bw):
            draw.rectangle(
                (x + 1, y + 1, x + bw - 1, y + bh - 1), fill=_jitter(color, rng, 9) if rng.random() < 0.3 else color
            )
    return image


def _tiles(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    first, second = _one(_WALLS, rng), _one(_PAPER, rng)
    image = Image.new("RGB", (w, h), first)
    draw = ImageDraw.Draw(image)
    step, kind = int(rng.integers(22, 52)), int(rng.integers(3))
    for row, y in enumerate(range(-step, h + step, step)):
        for column, x in enumerate(range(-step, w + step, step)):
            if kind == 0 and (row + column) % 2:
                draw.rectangle((x, y, x + step, y + step), fill=second)
            elif kind == 1:
                draw.rectangle((x, y, x + step, y + step), outline=_mul(first, 0.82))
            elif kind == 2:
                draw.ellipse((x + step * 0.15, y + step * 0.15, x + step * 0.85, y + step * 0.85), fill=second)
    return image


def _wood(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    color = _one(((186, 142, 100), (140, 98, 68), (214, 188, 156), (110, 84, 66), (198, 196, 190)), rng)
    plank = int(rng.integers(24, 52))
    lines = np.repeat(rng.uniform(0.86, 1.08, h // plank + 2), plank)[:h]
    grain = lines * (1 + 0.03 * np.sin(np.arange(h) * 1.3 + 6 * lines))
    grain[::plank] *= 0.72
    rows = np.clip(np.array(color) * grain[:, None], 0, 255).astype(np.uint8)
    image = Image.fromarray(rows[:, None, :]).resize((w, h), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for y in range(0, h, plank):
        x = int(rng.integers(w))
        draw.line((x, y, x, y + plank), fill=_mul(color, 0.68))
    return image


def _linen(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    color = np.array(
        _one(((232, 226, 216), (206, 196, 184), (176, 190, 204), (222, 204, 204), (96, 102, 108)), rng),
        dtype=np.float32,
    )
    x, y = np.arange(w, dtype=np.float32)[None, :], np.arange(h, dtype=np.float32)[:, None]
    a, b, c = rng.uniform(0, 6.28, 3)
    waves = np.sin(0.035 * x + 0.02 * y + a + 1.5 * np.sin(0.018 * y + b)) + 0.5 * np.sin(0.05 * y - 0.03 * x + c)
    return Image.fromarray(np.clip(color * (1 + 0.055 * waves[..., None]), 0, 255).astype(np.uint8))


def _marble(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (w, h), _jitter((234, 232, 230), rng, 8))
    draw = ImageDraw.Draw(image)
    for _ in range(7):
        steps = np.cumsum(rng.uniform(-14, 26, (14, 2)), axis=0) + rng.uniform(-0.4, 0.8, 2) * (w, h)
        draw.line(
            [tuple(p) for p in steps.tolist()], fill=_jitter((196, 194, 196), rng, 14), width=int(rng.integers(1, 4))
        )
    return image.filter(ImageFilter.GaussianBlur(1.2))


def _rug(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    image = _wood(w, h, rng)
    draw = ImageDraw.Draw(image)
    first, second = _one(_LIVELY, rng), _one(_PAPER, rng)
    m = int(min(w, h) * rng.uniform(0.02, 0.12))
    draw.rectangle((m, m, w - m, h - m), fill=first)
    draw.rectangle((m + 8, m + 8, w - m - 8, h - m - 8), outline=second, width=3)
    step = int(rng.integers(26, 44))
    for y in range(m + 26, h - m - 20, step):
        for x in range(m + 26, w - m - 20, step):
            draw.polygon([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], fill=second)
    return image


def _street(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(
        w, h, _one(((150, 190, 222), (206, 212, 218), (238, 190, 150), (92, 100, 130)), rng), (226, 222, 214)
    )
    draw = ImageDraw.Draw(image)
    ground = int(h * rng.uniform(0.68, 0.82))
    x = -int(rng.integers(0, 40))
    while x < w:
        a, top = int(rng.integers(w // 6, w // 3 + 2)), int(h * rng.uniform(0.02, 0.42))
        color = _one(((150, 128, 112), (176, 168, 160), (108, 116, 128), (196, 150, 122), (90, 84, 88)), rng)
        draw.rectangle((x, top, x + a, ground), fill=color)
        lit = _one(((236, 214, 150), (150, 176, 196), (70, 78, 92)), rng)
        for wy in range(top + 8, ground - 16, 20):
            for wx in range(x + 6, x + a - 8, 17):
                draw.rectangle((wx, wy, wx + 8, wy + 11), fill=lit if (wx * 7 + wy) % 3 else _mul(color, 0.7))
        x += a
    draw.rectangle((0, ground, w, h), fill=_one(((136, 134, 136), (168, 160, 150), (96, 98, 104)), rng))
    draw.rectangle((0, ground, w, ground + 5), fill=(196, 194, 190))
    for _ in range(int(rng.integers(1, 4))):
        _street_thing(draw, w, h, ground, rng)
    return image


def _street_thing(draw: ImageDraw.ImageDraw, w: int, h: int, ground: int, rng: np.random.Generator) -> None:
    x, color = int(rng.uniform(0, 1) * w), _one(_LIVELY, rng)
    kind = int(rng.integers(4))
    if kind == 0:
        a, b = int(w * 0.34), int(h * 0.1)
        draw.rounded_rectangle((x, ground - b, x + a, ground + 4), 8, fill=color)
        draw.rounded_rectangle(
            (x + a * 0.18, ground - b * 1.8, x + a * 0.8, ground - b * 0.7), 8, fill=_mul(color, 0.85)
        )
        for wheel in (0.2, 0.78):
            draw.ellipse((x + a * wheel - 8, ground - 6, x + a * wheel + 8, ground + 10), fill=(34, 34, 36))
    elif kind == 1:
        draw.rectangle((x - 3, h * 0.08, x + 3, ground), fill=(66, 66, 70))
        draw.ellipse((x - 9, h * 0.03, x + 9, h * 0.1), fill=(252, 232, 170))
    elif kind == 2:
        draw.rectangle((x - 5, ground - h * 0.3, x + 5, ground), fill=(104, 78, 58))
        for _ in range(6):
            cx, cy, r = x + rng.uniform(-26, 26), ground - h * rng.uniform(0.3, 0.5), rng.uniform(14, 28)
            draw.ellipse(
                (cx - r, cy - r, cx + r, cy + r), fill=_one(((84, 130, 76), (110, 150, 84), (196, 120, 60)), rng)
            )
    else:
        draw.rectangle((x - 16, h * 0.3, x + 26, h * 0.42), fill=color)
        draw.rectangle((x - 10, h * 0.34, x + 18, h * 0.36), fill=(246, 244, 240))


def _shutter(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    color, tag = _one(_LIVELY, rng), _one(_LIVELY, rng)
    image = Image.new("RGB", (w, h), color)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        steps = np.cumsum(rng.uniform(-46, 46, (6, 2)), axis=0) + rng.uniform(0.2, 0.8, 2) * (w, h)
        draw.line([tuple(p) for p in steps.tolist()], fill=tag, width=int(rng.integers(6, 14)), joint="curve")
    for y in range(0, int(h * 0.9), 11):
        draw.line((0, y, w, y), fill=_mul(color, 0.72), width=2)
    draw.rectangle((0, int(h * 0.9), w, h), fill=(124, 122, 124))
    return image


def _park(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(w, h, (176, 206, 226), _jitter((214, 226, 214), rng))
    draw = ImageDraw.Draw(image)
    for _ in range(26):
        x, y, r = rng.uniform(0, w), h * rng.uniform(0.05, 0.6), rng.uniform(14, 44)
        draw.ellipse(
            (x - r, y - r, x + r, y + r), fill=_one(((72, 112, 66), (110, 146, 78), (60, 94, 74), (170, 156, 84)), rng)
        )
    draw.rectangle((0, int(h * 0.62), w, h), fill=_one(((122, 156, 88), (164, 152, 110)), rng))
    draw.polygon(
        [(w * 0.4, h * 0.62), (w * 0.56, h * 0.62), (w * 0.95, h), (w * 0.1, h)],
        fill=_one(((206, 192, 166), (176, 172, 168)), rng),
    )
    return image


def _shop(w: int, h: int, rng: np.random.Generator) -> Image.Image:
    frame = _one(_LIVELY, rng)
    image = Image.new("RGB", (w, h), frame)
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, int(h * 0.2), w - 10, int(h * 0.8)), fill=_jitter((206, 214, 214), rng, 26))
    for _ in range(int(rng.integers(4, 9))):
        x, y = rng.uniform(0.05, 0.85) * w, h * rng.uniform(0.3, 0.68)
        draw.rectangle((x, y, x + rng.uniform(12, 44), y + rng.uniform(12, 38)), fill=_one(_LIVELY, rng))
    stripe = _one(_LIVELY, rng)
    for k, x in enumerate(range(0, w, 22)):
        draw.rectangle((x, int(h * 0.08), x + 22, int(h * 0.2)), fill=stripe if k % 2 else (244, 240, 232))
    draw.rectangle((0, int(h * 0.86), w, h), fill=(150, 146, 142))
    return image


_DRAW: dict[str, Callable[[int, int, np.random.Generator], Image.Image]] = {
    "paper": _paper, "wall": _wall, "room": _room, "brick": _brick, "tiles": _tiles, "wood": _wood, "linen": _linen,
    "marble": _marble, "rug": _rug, "street": _street, "shutter": _shutter, "park": _park, "shop": _shop,
}  # fmt: skip
