"""Plan each photo: a small order that any process can carry out identically."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fashionrec.dataset.synthetic.attributes import Product, compatibility, pick, sample_garment, style_of
from fashionrec.dataset.synthetic.scene import Stand
from fashionrec.types import CLASS_NAMES

#: Photos of different kinds draw from different random streams, so that more of one kind leaves the
#: others alone.
KINDS: tuple[str, ...] = ("products", "detection", "catalogue", "query", "outfit", "shop")
#: Share of the labelled photos with two people or stands in them, where it is not a fifth: a studio
#: takes them one by one.
CROWD = {"studio": 0.05}
_BOTTOMS = ("pants", "skirt", "skirt&pants")


@dataclass(frozen=True)
class Order:
    """An order for one photo: its file below ``out`` and its content.

    ``kind`` and ``index`` identify its random stream. ``how`` is "alone" or "worn" if ``products``
    must appear; empty ``products`` mean any labelled photo, and ``how`` "empty" one without
    clothes.
    """

    kind: str
    index: int
    path: str
    products: tuple[Product, ...] = ()
    how: str = ""
    label: str = ""


def stream(seed: int, kind: str, index: int, attempt: int = 0) -> np.random.Generator:
    """Return the random stream of one photo, the same in every process."""
    return np.random.default_rng(np.random.SeedSequence([seed, KINDS.index(kind), index, attempt]))


def moods(style: str, kind: str) -> tuple[str, ...]:
    """Return the moods of photos of a kind, equally likely."""
    if style == "street":
        return ("street",)
    if style == "studio":
        return ("studio", "indoor") if kind in ("query", "outfit") else ("studio",)
    return {
        "catalogue": ("studio", "studio", "indoor"),
        "query": ("indoor", "street", "street"),
        "outfit": ("studio", "indoor", "street"),
    }.get(kind, ("studio", "indoor", "street"))


def stands_for(
    order: Order, weights: tuple[float, ...], style: str, rng: np.random.Generator, plainly: bool = False
) -> tuple[Stand, ...]:
    """Return who and what is in the photo; ``plainly`` lays products flat, after they were hidden
    in earlier attempts.
    """
    if order.how == "empty":
        return ()
    if not order.products:
        return _any_stands(np.asarray(weights, dtype=np.float64), CROWD.get(style, 0.2), rng)
    if plainly:
        return tuple(Stand("flat", (product,)) for product in order.products)
    if order.kind == "outfit":
        return _outfit_stands(order.products, rng)
    product = order.products[0]
    if order.how == "worn":
        return (Stand("person", _layers([product, *_fillers(product, rng)], rng)),)
    return (Stand(_display(product, rng), (product,)),)


def _display(product: Product, rng: np.random.Generator) -> str:
    kinds = ("flat", "flat", "hanger", "mannequin") if product.category != "pants" else ("flat", "flat", "hanger")
    return kinds[int(rng.integers(len(kinds)))]


def _fillers(product: Product, rng: np.random.Generator) -> list[Product]:
    """Return other garments that complete an outfit around a product, of other classes."""
    if product.category == "top":
        return [sample_garment(rng, pick(rng, _BOTTOMS))]
    if product.category == "dress":
        return [_jacket(rng)] if rng.random() < 0.3 and product.neckline != "turtleneck" else []
    return [sample_garment(rng, "top")]


def _jacket(rng: np.random.Generator) -> Product:
    """A top that can hang open: one that closes with buttons or a zip, with sleeves and
    no print.
    """
    while True:
        top = sample_garment(rng, "top")
        if top.closure != "none" and top.sleeve == "long" and top.length != "long":
            return top


def _layers(clothes: list[Product], rng: np.random.Generator) -> tuple[Product, ...]:
    """Clothes from the innermost to the outermost: a top tucked into its bottom or
    hanging over it.
    """
    tops = [g for g in clothes if g.category == "top"]
    rest = [g for g in clothes if g.category != "top"]
    tucked = tops and rest and rest[0].category != "dress" and tops[0].length != "long" and rng.random() < 0.42
    return tuple(tops + rest) if tucked else tuple(rest + tops)


def _any_stands(weights: np.ndarray, crowd: float, rng: np.random.Generator) -> tuple[Stand, ...]:
    """One to three garments of classes drawn by weight; in a share ``crowd`` of the photos on two
    people or stands.
    """
    roll = rng.random()
    if roll < 0.36:
        product = sample_garment(rng, pick(rng, CLASS_NAMES, weights))
        return (Stand(_display(product, rng), (product,)),)
    if roll < 0.43:
        pair = [sample_garment(rng, pick(rng, CLASS_NAMES, weights)) for _ in range(2)]
        return tuple(Stand("flat", (product,)) for product in pair)
    first = _dressed(weights, rng)
    if roll < 1 - crowd:
        return (first,)
    second = _dressed(weights, rng)
    if len(first.clothes) + len(second.clothes) > 3:
        second = Stand(second.kind, second.clothes[:1])
        if second.clothes[0].category != "dress":
            second = Stand(_display(second.clothes[0], rng), second.clothes)
            second = Stand("hanger" if second.kind == "flat" else second.kind, second.clothes)
    return first, second


def _dressed(weights: np.ndarray, rng: np.random.Generator) -> Stand:
    """A person in a dress, or in a top and a bottom; only in what the weights allow."""
    category = pick(rng, CLASS_NAMES, weights)
    clothes = [sample_garment(rng, category)]
    allowed = dict(zip(CLASS_NAMES, weights, strict=True))
    if category == "dress":
        if rng.random() < 0.25 and allowed["top"] > 0:
            clothes.append(_jacket(rng))
    elif category == "top":
        share = np.array([allowed[name] for name in _BOTTOMS])
        if share.sum() > 0:
            clothes.append(sample_garment(rng, pick(rng, _BOTTOMS, share)))
        else:
            return Stand("mannequin", tuple(clothes))
    elif allowed["top"] > 0:
        clothes.append(sample_garment(rng, "top"))
    else:
        return Stand("hanger", tuple(clothes))
    return Stand("person", _layers(clothes, rng))


def _outfit_stands(products: tuple[Product, ...], rng: np.random.Generator) -> tuple[Stand, ...]:
    classes = [product.category for product in products]
    wearable = "top" in classes and not (
        "dress" in classes and next(p for p in products if p.category == "top").closure == "none"
    )
    if wearable and rng.random() < 0.7:
        return (Stand("person", _layers(list(products), rng)),)
    return tuple(Stand("flat", (product,)) for product in products)


def plan_outfits(products: list[Product], count: int, rng: np.random.Generator) -> list[tuple[Product, ...]]:
    """``count`` pairs of products of different classes that go together.

    Some products are worn far more often than others (a power law within each class); of several
    candidates the one that goes best with the first is worn, except in one outfit of eight, which
    is put together by chance. There are none where no two of the products' classes are worn
    together.
    """
    by_class = {name: [p for p in products if p.category == name] for name in CLASS_NAMES}
    partners = {"top": _BOTTOMS, "dress": ("top",)}
    first_classes = [
        name for name in ("top", "top", "dress") if by_class[name] and any(by_class[other] for other in partners[name])
    ]
    pairs: list[tuple[Product, ...]] = []
    if not first_classes:
        return pairs
    for _ in range(count):
        name = first_classes[int(rng.integers(len(first_classes)))]
        first = _popular(by_class[name], rng)
        pool = [p for other in partners[name] for p in by_class[other]]
        candidates = [_popular(pool, rng) for _ in range(8)]
        if rng.random() < 0.875:
            second = max(candidates, key=lambda p: (compatibility(first, p), style_of(p) == style_of(first)))
        else:
            second = candidates[0]
        pairs.append((first, second))
    return pairs


def _popular(pool: list[Product], rng: np.random.Generator) -> Product:
    weights = (np.arange(len(pool)) + 3.0) ** -0.8
    return pool[int(rng.choice(len(pool), p=weights / weights.sum()))]
