"""Draw the whole synthetic dataset: plan every photo, draw them in parallel, write labels and
tables.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.text import TableWriter
from fashionrec.dataset.synthetic import captions
from fashionrec.dataset.synthetic.attributes import BRANDS, Product, sample_products
from fashionrec.dataset.synthetic.light import jpeg
from fashionrec.dataset.synthetic.plan import Order, moods, plan_outfits, stands_for, stream
from fashionrec.dataset.synthetic.scene import Scene, take_photo
from fashionrec.errors import DataError
from fashionrec.types import CLASS_NAMES, Box

STYLES = ("mixed", "studio", "street")
PRODUCT_COLUMNS = (
    "image", "product_id", "title", "category", "view", "price", "currency", "brand", "availability", "url",
    "caption_en", "caption_ko", "color", "second_color", "pattern", "length", "sleeve", "neckline", "closure", "fit",
    "graphic",
)  # fmt: skip
_CORNERS = ("x1", "y1", "x2", "y2")
_PRICES = {"dress": 69000, "pants": 52000, "skirt&pants": 45000, "skirt": 42000, "top": 34000}
_EMPTY_SHARE = 0.04
#: A product that a photo is about must be this visible; otherwise the photo is taken again.
_TARGET_VISIBLE = 0.55
_ATTEMPTS = 9


@dataclass(frozen=True)
class WorldSettings:
    """Size and look of the synthetic data; see ``draw_world``."""

    images: int = 900
    products: int = 300
    views: int = 3
    queries: int = 1
    outfits: int = 60
    seed: int = 0
    size: int = 320
    style: str = "mixed"
    class_weights: tuple[float, ...] = (1, 1, 1, 1, 1)
    workers: int = 0


@dataclass(frozen=True)
class _Taken:
    """A photo on disk: its size in pixels, and the product and box of each garment that is seen in
    it.
    """

    order: Order
    size: tuple[int, int]
    seen: tuple[tuple[Product, Box], ...]


def draw_world(
    out: Path, settings: WorldSettings, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Draw everything under ``out`` and return counts; ``progress(done, total)`` is called after
    every photo.

    The same settings give the same bytes, whatever ``workers`` is. Raises DataError if ``out``
    exists and is not empty, or a setting is out of range.
    """
    out = Path(out)
    _check(out, settings)
    products = sample_products(stream(settings.seed, "products", 0), settings.products, settings.class_weights)
    orders = [*_detection_orders(settings), *_shop_orders(settings, products)]
    for folder in sorted({(out / order.path).parent for order in orders} | set(_folders(out, settings))):
        folder.mkdir(parents=True, exist_ok=True)
    taken = []
    for photo in _photos(out, settings, orders):
        taken.append(photo)
        if progress is not None:
            progress(len(taken), len(orders))
    _write_yaml(out)
    if products:
        _write_tables(out, settings, products, taken)
    counts = _counts(taken, products)
    told = {name: value for name, value in asdict(settings).items() if name != "workers"}
    _write_text(out / "world.json", json.dumps({"settings": told, "counts": counts}, indent=2) + "\n")
    return counts


def split_counts(images: int) -> dict[str, int]:
    """Photos per split, .70/.15/.15, at least one each from three photos on; they add up to
    ``images``.
    """
    held = max(1, round(images * 0.15)) if images >= 3 else 0
    return {"train": images - 2 * held, "valid": held, "test": held}


def _check(out: Path, settings: WorldSettings) -> None:
    least = {"images": 0, "products": 0, "views": 2, "queries": 0, "outfits": 0, "seed": 0, "workers": 0}
    for name, low in least.items():
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise DataError(f"{name} must be an integer of at least {low}, not {value!r}")
    if not isinstance(settings.size, int) or not 96 <= settings.size <= 1280:
        raise DataError(f"size must be 96 to 1280 pixels, not {settings.size!r}")
    if settings.style not in STYLES:
        raise DataError(f"style must be one of {', '.join(STYLES)}, not {settings.style!r}")
    weights = settings.class_weights
    if len(weights) != len(CLASS_NAMES) or not all(w >= 0 for w in weights) or not 0 < sum(weights) < float("inf"):
        raise DataError(f"class_weights must be {len(CLASS_NAMES)} numbers of at least 0, not all 0; not {weights!r}")
    if settings.images + settings.products == 0:
        raise DataError("no images and no products: nothing to draw", hint="set images or products above 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder", hint="choose a new folder, or empty this one first")


def _folders(out: Path, settings: WorldSettings) -> Iterator[Path]:
    for split in split_counts(settings.images):
        yield out / split / "images"
        yield out / split / "labels"
    if settings.products:
        yield out / "catalogue" / "images"
        yield out / "queries" / "images"
        yield out / "outfits" / "images"


def _detection_orders(settings: WorldSettings) -> Iterator[Order]:
    index = 0
    for split, count in split_counts(settings.images).items():
        for _ in range(count):
            name = f"{settings.style}{settings.seed}-{index:05d}"
            empty = stream(settings.seed, "shop", index).random() < _EMPTY_SHARE
            yield Order(
                "detection", index, f"{split}/images/{name}.jpg",
                how="empty" if empty else "", label=f"{split}/labels/{name}.txt",
            )  # fmt: skip
            index += 1


def _shop_orders(settings: WorldSettings, products: list[Product]) -> Iterator[Order]:
    for number, product in enumerate(products):
        for view in range(1, settings.views + 1):
            # A third of the views are worn, never the first.
            turn = (number + 2 * view) % 3 == 0 if settings.views == 2 else (view - 2) % 3 == 0
            order_index = number * settings.views + view - 1
            path = f"catalogue/images/{product.product_id}_{view}.jpg"
            yield Order("catalogue", order_index, path, (product,), "worn" if turn and view > 1 else "alone")
    for number, product in enumerate(products):
        for query in range(settings.queries):
            index = number * settings.queries + query
            path = f"queries/images/{product.product_id}_q{query + 1}.jpg"
            worn = stream(settings.seed, "shop", 10**9 + index).random() < 0.5
            yield Order("query", index, path, (product,), "worn" if worn else "alone")
    outfits = plan_outfits(products, settings.outfits, stream(settings.seed, "outfit", 10**9))
    for index, pair in enumerate(outfits):
        yield Order("outfit", index, f"outfits/images/o{index:05d}.jpg", pair)


def _photos(out: Path, settings: WorldSettings, orders: list[Order]) -> Iterator[_Taken]:
    """Draw the photos in order, in this process or in several."""
    workers = settings.workers or os.cpu_count() or 1
    workers = min(workers, max(1, len(orders) // 16)) if not settings.workers else min(workers, max(1, len(orders)))
    jobs = [(str(out), settings, order) for order in orders]
    done = 0
    if workers > 1 and _can_spawn():
        try:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                for photo in pool.map(_take, jobs, chunksize=8):
                    done += 1
                    yield photo
        except BrokenProcessPool:
            pass  # a script without a __main__ guard, or a worker killed: the rest is drawn here, with the same bytes
    yield from map(_take, jobs[done:])


def _can_spawn() -> bool:
    """Return whether a new process can import the main module, which is impossible if it came from
    stdin.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    return main is None or Path(main).is_file()


def _take(job: tuple[str, WorldSettings, Order]) -> _Taken:
    """Draw one photo and write it, with its label file if it has one."""
    root, settings, order = job
    for attempt in range(_ATTEMPTS):
        rng = stream(settings.seed, order.kind, order.index, attempt)
        choices = moods(settings.style, order.kind)
        mood = choices[int(rng.integers(len(choices)))]
        stands = stands_for(order, settings.class_weights, settings.style, rng, plainly=attempt >= _ATTEMPTS // 2)
        scene = take_photo(stands, mood, settings.size, rng)
        if _satisfies(order, scene):
            break
    Path(root, order.path).write_bytes(jpeg(scene.image, rng))
    if order.label:
        lines = [_label(one.product, one.box, scene.image.size) for one in scene.seen]
        _write_text(Path(root, order.label), "".join(lines))
    return _Taken(order, scene.image.size, tuple((one.product, one.box) for one in scene.seen))


def _satisfies(order: Order, scene: Scene) -> bool:
    if not order.products:
        return order.how == "empty" or bool(scene.seen)
    visible = {one.product.product_id: one.visible for one in scene.seen}
    enough = 0.34 if order.kind == "outfit" else _TARGET_VISIBLE
    return all(visible.get(product.product_id, 0.0) >= enough for product in order.products)


def _label(product: Product, box: Box, size: tuple[int, int]) -> str:
    width, height = size
    x, y = (box.x1 + box.x2) / 2 / width, (box.y1 + box.y2) / 2 / height
    return f"{product.class_id} {x:.6f} {y:.6f} {box.width / width:.6f} {box.height / height:.6f}\n"


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as sink:
        table = TableWriter(sink)
        table.writerow(columns)
        table.writerows([row[column] for column in columns] for row in rows)


def _write_yaml(out: Path) -> None:
    names = "".join(f'  {i}: "{name}"\n' if "&" in name else f"  {i}: {name}\n" for i, name in enumerate(CLASS_NAMES))
    _write_text(
        out / "data.yaml",
        f"train: train/images\nval: valid/images\ntest: test/images\nnc: {len(CLASS_NAMES)}\nnames:\n{names}",
    )


def _box_cells(box: Box) -> dict[str, object]:
    return {name: f"{value:g}" for name, value in zip(_CORNERS, box, strict=True)}


def _write_tables(out: Path, settings: WorldSettings, products: list[Product], taken: list[_Taken]) -> None:
    shop = {p.product_id: _shop_cells(p, stream(settings.seed, "shop", 2 * 10**9 + i)) for i, p in enumerate(products)}
    rows: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    targets: dict[str, list[dict[str, object]]] = {"query": [], "outfit": []}
    for photo in taken:
        if photo.order.kind == "detection":
            continue
        image = photo.order.path.split("/", 1)[1]
        if photo.order.kind == "catalogue":
            product = photo.order.products[0]
            view = int(image.rsplit("_", 1)[1].split(".")[0])
            rows.append({"image": image, "view": view, **shop[product.product_id]})
            for one, box in photo.seen:
                boxes.append(
                    {"image": image, "product_id": one.product_id, "class_name": one.category, **_box_cells(box)}
                )
            continue
        for one, box in photo.seen:
            if one.product_id:
                row: dict[str, object] = {"image": image, "product_id": one.product_id, "category": one.category}
                targets[photo.order.kind].append({**row, **_box_cells(box)})
    _write_csv(out / "catalogue" / "products.csv", PRODUCT_COLUMNS, rows)
    _write_csv(out / "catalogue" / "boxes.csv", ("image", "product_id", "class_name", *_CORNERS), boxes)
    _write_csv(out / "queries" / "queries.csv", ("image", "product_id", "category", *_CORNERS), targets["query"])
    _write_csv(out / "outfits" / "outfits.csv", ("image", "product_id", "category", *_CORNERS), targets["outfit"])


def _shop_cells(product: Product, rng: np.random.Generator) -> dict[str, object]:
    """Return the product data of the shop: the columns of products.csv except ``image`` and
    ``view``.
    """
    brand = BRANDS[int(rng.integers(len(BRANDS)))]
    price = round(_PRICES[product.category] * float(np.exp(rng.normal(0, 0.35))) / 1000) * 1000
    attributes = ("color", "second_color", "pattern", "length", "sleeve", "neckline", "closure", "fit", "graphic")
    return {
        "product_id": product.product_id,
        "title": captions.title(product, brand),
        "category": product.category,
        "price": price,
        "currency": "KRW",
        "brand": brand,
        "availability": "out_of_stock" if rng.random() < 0.08 else "in_stock",
        "url": f"https://shop.example/p/{product.product_id}",
        "caption_en": captions.caption_en(product),
        "caption_ko": captions.caption_ko(product),
        **{name: getattr(product, name) for name in attributes},
    }


def _counts(taken: list[_Taken], products: list[Product]) -> dict[str, object]:
    garments = dict.fromkeys(CLASS_NAMES, 0)
    splits = dict.fromkeys(("train", "valid", "test"), 0)
    kinds = dict.fromkeys(("catalogue", "query", "outfit"), 0)
    for photo in taken:
        if photo.order.kind == "detection":
            splits[photo.order.path.split("/")[0]] += 1
            for one, _ in photo.seen:
                garments[one.category] += 1
        else:
            kinds[photo.order.kind] += 1
    return {
        "images": sum(splits.values()),
        **splits,
        "garments": garments,
        "products": len(products),
        "catalogue": kinds["catalogue"],
        "queries": kinds["query"],
        "outfits": kinds["outfit"],
    }
