"""Attributes of synthetic garments: vocabularies, product nouns, and sampling of
distinct products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fashionrec.types import CLASS_NAMES

#: The palette: colour word to sRGB. Few on purpose, so that many products share their colours.
COLORS: dict[str, tuple[int, int, int]] = {
    "black": (38, 37, 42),
    "white": (240, 239, 234),
    "gray": (146, 148, 153),
    "navy": (36, 48, 98),
    "blue": (48, 102, 194),
    "sky blue": (146, 194, 232),
    "red": (206, 44, 50),
    "burgundy": (118, 30, 54),
    "pink": (238, 160, 184),
    "orange": (234, 128, 48),
    "yellow": (244, 206, 76),
    "beige": (218, 197, 164),
    "brown": (122, 82, 54),
    "green": (48, 132, 84),
    "khaki": (122, 120, 78),
    "purple": (126, 82, 164),
}
_COLOR_WEIGHTS = np.array([11, 11, 7, 9, 7, 7, 7, 5, 7, 5, 5, 8, 6, 6, 6, 5], dtype=np.float64)

#: Patterns that give both colours the same share, so that swapping the two is hardly another
#: product.
_EVEN_PATTERNS = frozenset({"stripe", "vertical stripe", "check", "argyle"})

PATTERNS: tuple[str, ...] = (
    "plain", "stripe", "vertical stripe", "check", "dot", "floral", "argyle", "camo", "leopard", "color block",
)  # fmt: skip
_PATTERN_WEIGHTS = np.array([26, 14, 9, 13, 11, 10, 6, 5, 5, 7], dtype=np.float64)
#: The period of a pattern in centimetres of cloth, by scale word.
PATTERN_PERIODS: dict[str, float] = {"fine": 8.5, "bold": 16.0}

GRAPHICS: tuple[str, ...] = ("star", "heart", "bolt", "moon", "flower", "cat")
NECKLINES: tuple[str, ...] = ("round", "v", "collar", "turtleneck", "hoodie")
CLOSURES: dict[str, tuple[str, ...]] = {
    "round": ("none", "none", "buttons"),
    "v": ("none", "buttons"),
    "collar": ("buttons", "buttons", "zip", "none"),
    "turtleneck": ("none",),
    "hoodie": ("none", "zip"),
}
LENGTHS: dict[str, tuple[str, ...]] = {
    "dress": ("mini", "midi", "maxi"),
    "pants": ("shorts", "cropped", "full", "full"),
    "skirt&pants": ("mini", "midi"),
    "skirt": ("mini", "midi", "maxi"),
    "top": ("cropped", "regular", "regular", "long"),
}
FITS: dict[str, tuple[str, ...]] = {
    "dress": ("fitted", "a-line"),
    "pants": ("slim", "straight", "wide"),
    "skirt&pants": ("a-line", "pleated"),
    "skirt": ("pencil", "a-line", "pleated"),
    "top": ("slim", "regular", "oversized"),
}
BRANDS: tuple[str, ...] = ("Haneul", "Moru", "Noon & Co", "Sora", "Dalbit", "Atelier Jun", "Oatmeal", "Gureum")
STYLES: tuple[str, ...] = ("casual", "formal", "romantic", "sporty", "street")


@dataclass(frozen=True)
class Product:
    """A garment to draw. ``""`` stands for an attribute that does not apply to the class,
    ``"none"`` for none.

    ``phase`` (0..2**31) fixes the position of its pattern on the cloth, so that it looks the same
    in every photo.
    """

    product_id: str
    category: str
    color: str
    second_color: str = "none"
    pattern: str = "plain"
    pattern_scale: str = ""
    length: str = ""
    sleeve: str = ""
    neckline: str = ""
    closure: str = ""
    fit: str = ""
    graphic: str = ""
    phase: int = 0

    @property
    def look(self) -> tuple[str, ...]:
        """The visible attributes in which two products must differ (``fit`` alone does not tell
        them apart).
        """
        pair = (self.color, self.second_color)
        first, second = sorted(pair) if self.pattern in _EVEN_PATTERNS else pair
        return (
            self.category, first, second, self.pattern, self.pattern_scale,
            self.length, self.sleeve, self.neckline, self.closure, self.graphic,
        )  # fmt: skip

    @property
    def class_id(self) -> int:
        """The fixed id of its class."""
        return CLASS_NAMES.index(self.category)


def pick(rng: np.random.Generator, words: tuple[str, ...], weights: np.ndarray | None = None) -> str:
    """Pick a word, uniformly or by weights (on any positive scale)."""
    if weights is None:
        return words[int(rng.integers(len(words)))]
    return words[int(rng.choice(len(words), p=weights / weights.sum()))]


def _second_color(rng: np.random.Generator, first: str) -> str:
    """Return a colour that differs from ``first`` even in a dim photo (at least 110
    apart in RGB).
    """
    names = tuple(COLORS)
    gap = np.linalg.norm(np.array(list(COLORS.values()), dtype=np.float64) - COLORS[first], axis=1)
    return pick(rng, names, np.where(gap >= 110, _COLOR_WEIGHTS, 0.0))


def sample_garment(rng: np.random.Generator, category: str, product_id: str = "") -> Product:
    """Sample a garment of a class with consistent attributes (no turtleneck with buttons, no zip on
    pants).
    """
    color = pick(rng, tuple(COLORS), _COLOR_WEIGHTS)
    pattern = pick(rng, PATTERNS, _PATTERN_WEIGHTS)
    second = _second_color(rng, color) if pattern != "plain" else "none"
    sleeve = neckline = closure = graphic = ""
    if category in ("top", "dress"):
        sleeve = pick(rng, ("sleeveless", "short", "long"), np.array([2.0, 4.0, 4.0]))
        neckline = pick(rng, NECKLINES, np.array([4.0, 3.0, 3.0, 2.0, 2.0 if category == "top" else 0.0]))
        if neckline == "hoodie" and sleeve == "sleeveless":
            sleeve = "long"
        closure = pick(rng, CLOSURES[neckline])
        if category == "dress" and closure == "zip":
            closure = "buttons"
    elif category == "skirt":
        closure = pick(rng, ("none", "none", "buttons"))
    if category == "top":
        graphic = "none"
        if closure == "none" and pattern == "plain" and rng.random() < 0.5:
            graphic = pick(rng, GRAPHICS)
            second = _second_color(rng, color)
    return Product(
        product_id=product_id,
        category=category,
        color=color,
        second_color=second,
        pattern=pattern,
        pattern_scale="" if pattern == "plain" else pick(rng, ("fine", "bold")),
        length=pick(rng, LENGTHS[category]),
        sleeve=sleeve,
        neckline=neckline,
        closure=closure,
        fit=pick(rng, FITS[category]),
        graphic=graphic,
        phase=int(rng.integers(2**31)),
    )


def _sibling(rng: np.random.Generator, product: Product) -> Product:
    """Return the same garment in another cut or cloth with the same colours, which a colour
    histogram cannot distinguish.
    """
    fresh = sample_garment(rng, product.category)
    if rng.random() < 0.5 or product.graphic not in ("", "none"):
        cut = replace(product, length=fresh.length, phase=fresh.phase, fit=fresh.fit)
        if product.sleeve:
            fits_graphic = product.graphic in ("", "none") or fresh.closure == "none"
            cut = replace(cut, sleeve=fresh.sleeve)
            if fits_graphic:
                cut = replace(cut, neckline=fresh.neckline, closure=fresh.closure)
            elif product.neckline == "hoodie" and fresh.sleeve == "sleeveless":
                cut = replace(cut, sleeve="short")
        if cut.graphic not in ("", "none") and rng.random() < 0.6:
            cut = replace(cut, graphic=pick(rng, GRAPHICS))
        return cut
    if fresh.pattern == "plain" or fresh.graphic not in ("", "none"):
        return replace(product, pattern="plain", pattern_scale="", second_color="none", phase=fresh.phase)
    second = product.second_color if product.second_color != "none" else fresh.second_color
    gap = np.linalg.norm(np.subtract(COLORS[product.color], COLORS[second]))
    return replace(
        product,
        pattern=fresh.pattern,
        pattern_scale=fresh.pattern_scale,
        second_color=second if gap >= 110 else _second_color(rng, product.color),
        phase=fresh.phase,
    )


def sample_products(rng: np.random.Generator, count: int, weights: tuple[float, ...]) -> list[Product]:
    """Sample ``count`` products ``p00000``.. with distinct looks, about half of them siblings of an
    earlier one.

    A look may only repeat after hundreds of draws without a new one.
    """
    share = np.asarray(weights, dtype=np.float64)
    products: list[Product] = []
    looks: set[tuple[str, ...]] = set()
    by_class: dict[str, list[Product]] = {}
    for index in range(count):
        category = pick(rng, CLASS_NAMES, share)
        for _ in range(400):
            family = by_class.get(category, [])
            if family and rng.random() < 0.55:
                found = _sibling(rng, family[int(rng.integers(len(family)))])
            else:
                found = sample_garment(rng, category)
            if found.look not in looks:
                break
        product = replace(found, product_id=f"p{index:05d}")
        looks.add(product.look)
        products.append(product)
        by_class.setdefault(category, []).append(product)
    return products


def style_of(product: Product) -> str:
    """Return the hidden style of a product, a function of its visible attributes."""
    if product.pattern in ("camo", "leopard") or product.neckline == "hoodie" or product.graphic in ("bolt", "cat"):
        return "street"
    if product.pattern == "color block" or product.closure == "zip" or product.length == "shorts":
        return "sporty"
    if product.pattern in ("floral", "dot") or product.color in ("pink", "purple") or product.graphic == "heart":
        return "romantic"
    formal_cut = product.neckline in ("collar", "turtleneck") or product.fit in ("pencil", "slim", "fitted")
    if formal_cut or (product.pattern == "plain" and product.color in ("black", "navy", "burgundy")):
        return "formal"
    return "casual"


_NEUTRAL = frozenset({"black", "white", "gray", "navy", "beige"})


def compatibility(first: Product, second: Product) -> float:
    """Return how well two garments go together, 0..1: same style, a neutral or shared colour, at
    most one loud pattern.
    """
    score = 0.55 if style_of(first) == style_of(second) else 0.0
    shared = first.color in (second.color, second.second_color) or second.color == first.second_color
    if shared or first.color in _NEUTRAL or second.color in _NEUTRAL:
        score += 0.3
    if "plain" in (first.pattern, second.pattern):
        score += 0.15
    return score
