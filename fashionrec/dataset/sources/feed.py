"""``feed:FILE``: a shop's product feed. Its photos come from the network or from beside it, its columns are typed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.extras import need
from fashionrec.common.files import fingerprint
from fashionrec.common.reach import WORDS, Reach, Refusal
from fashionrec.dataset.feed.photo_cache import Fetched, image_suffix
from fashionrec.dataset.prepare.photo_names import photo_names
from fashionrec.dataset.source import Source, SourceImage
from fashionrec.products.columns import Problem, Product, feed_vocabulary, map_products
from fashionrec.products.records import read_table
from fashionrec.products.values import parse_text

if TYPE_CHECKING:
    from fashionrec.config import Config
    from fashionrec.dataset.feed.addresses import Door
    from fashionrec.dataset.feed.download import Failed

_SHOWN = 100  # problems of one column that are told one by one


@dataclass(frozen=True)
class _Wanted:
    """One photo of the feed: ``key`` is its name without suffix."""

    key: str
    product_id: str
    product: Product
    image: str


def read(
    file: Path,
    cache: Path,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
    *,
    refresh: bool = False,
    door: Door | None = None,
) -> Source:
    """Read a feed and fetch its photos into the folder ``cache``, where the next run finds them.

    An image is a URL, or a path relative to the feed; what lies outside the feed's folder is refused, and so are links in it
    unless ``dataset.follow_links`` is set. A photo's key is
    ``PRODUCT_N.suffix``, its group the product. A row without a product id is a product of its own, named by its images.
    ``refresh`` asks for what is there already whether it has changed. ``door`` is for servers that are not public.
    Cells that cannot be read are among ``notes``; photos that could not be had are ``failed``, with ``key``, ``row``, ``line``,
    ``product_id``, ``url``, ``reason``, ``message`` and ``attempts``. Raises :class:`DataError`, :class:`ConfigError`,
    :class:`Busy`, and :class:`MissingExtra` without urllib3 and protego.
    """
    vocabulary = feed_vocabulary(config.feed)
    products = list(map_products(read_table(file, vocabulary.text), vocabulary))
    wanted, failed = _wanted(products)
    urls = [photo.image for photo in wanted if _is_url(photo.image)]
    fetched: Mapping[str, Fetched | Failed] = {}
    if urls:
        need("urllib3", "protego", what="downloading the photos of a feed")
        from fashionrec.dataset.feed.download import fetch_images

        fetched = fetch_images(urls, cache, config.feed, config.images, progress, refresh=refresh, door=door)
    reach = Reach(file.parent, config.dataset.follow_links)
    images, rows = [], {}
    for photo in wanted:
        path, problem = _find(photo.image, reach, fetched)
        if path is None:
            failed.append({**_row(photo.key, photo.product, photo.product_id), **problem})
            continue
        key = f"{photo.key}{_suffix(path)}"
        images.append(SourceImage(key, path, group=photo.product_id))
        rows[key] = {"product_id": photo.product_id, **photo.product.columns}
    problems = [problem for product in products for problem in product.problems]
    failed.sort(key=lambda row: row["row"])
    return Source(
        label=f"feed:{file.name}",
        images=tuple(images),
        has_labels=False,
        products=rows,
        failed=tuple(failed),
        notes=tuple(_notes(problems, len(products))),
    )


def _wanted(products: Sequence[Product]) -> tuple[list[_Wanted], list[dict[str, Any]]]:
    """Every photo once for each product, numbered in the feed's order; and a row of failure for each product without one."""
    ids = [product.product_id or _own_id(product) for product in products]
    names = photo_names(ids)
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    wanted, failed = [], []
    for product, product_id in zip(products, ids, strict=True):
        for image in product.images:
            if (product_id, image) not in seen:
                seen.add((product_id, image))
                counts[product_id] += 1
                wanted.append(_Wanted(f"{names[product_id]}_{counts[product_id]}", product_id, product, image))
        if not product.images:
            row = _row(names[product_id], product, product_id)
            failed.append({**row, "url": "", "reason": "no-image", "message": "the row names no image", "attempts": 0})
    return wanted, failed


def _own_id(product: Product) -> str:
    return f"photo-{fingerprint([parse_text(image) for image in product.images] or product.row)[:12]}"


def _is_url(image: str) -> bool:
    return "://" in image or image.startswith("//")


def _find(image: str, reach: Reach, fetched: Mapping[str, Fetched | Failed]) -> tuple[Path | None, dict[str, Any]]:
    """Where the photo is; or why it is nowhere, as part of a row."""
    if _is_url(image):
        found = fetched[image]
        if isinstance(found, Fetched):
            return found.path, {}
        return None, vars(found)
    if "\0" in image:
        return None, _refusal(image, "missing", "it is no path")
    path = reach.inside(reach.root / image)
    if path is None:
        return None, _refusal(image, "outside", "the path leads out of the feed's folder")
    place = reach.find(path)
    if isinstance(place, Refusal) and reach.inside(Path(os.path.realpath(path))) is None:
        return None, _refusal(image, "outside", "the path leads out of the feed's folder")
    if isinstance(place, Refusal):
        return None, _refusal(image, place.reason, WORDS[place.reason])
    try:
        there = place is not None and place.is_file()
    except (OSError, ValueError):  # a surrogate, too long a name
        return None, _refusal(image, "missing", "it is no path")
    if not there:
        return None, _refusal(image, "missing", "there is no such file beside the feed")
    return place, {}


def _refusal(image: str, reason: str, message: str) -> dict[str, Any]:
    return {"url": parse_text(image), "reason": reason, "message": message, "attempts": 0}


def _row(key: str, product: Product, product_id: str) -> dict[str, Any]:
    return {"key": key, "row": product.row, "line": product.line, "product_id": product_id}


def _suffix(path: Path) -> str:
    """By content; a local file of a kind that is not sought on the web keeps its own."""
    with path.open("rb") as file:
        return image_suffix(file.read(64)) or path.suffix.lower()


def _notes(problems: Sequence[Problem], rows: int) -> Iterator[str]:
    """How many cells of each column were left out, and which."""
    columns: dict[str, list[Problem]] = {}
    for problem in problems:
        columns.setdefault(problem.column, []).append(problem)
    for column, found in columns.items():
        yield f"{column}: {len(found)} of {rows} rows have a value that cannot be read; it is left out"
        yield from (str(problem) for problem in found[:_SHOWN])
        if len(found) > _SHOWN:
            yield f"{column}: and {len(found) - _SHOWN} more"
