"""``feed:FILE``: a shop's product feed, with photos from URLs or local files and typed columns."""

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
from fashionrec.common.text import plural
from fashionrec.dataset.feed.photo_cache import Fetched, image_suffix
from fashionrec.dataset.prepare.photo_names import photo_names
from fashionrec.dataset.source import Source, SourceImage
from fashionrec.products.columns import Problem, Product, feed_vocabulary, map_products
from fashionrec.products.records import read_table
from fashionrec.products.values import parse_text

if TYPE_CHECKING:
    from fashionrec.config import Config
    from fashionrec.dataset.feed.addresses import AddressPolicy
    from fashionrec.dataset.feed.download import Failed

_SHOWN = 100  # invalid cells of a column that are listed one by one


@dataclass(frozen=True)
class _FeedPhoto:
    """One photo of the feed; ``key`` is its name without suffix."""

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
    door: AddressPolicy | None = None,
) -> Source:
    """Read a feed and download its photos into the folder ``cache``, where later runs find them.

    An image is a URL, or a path relative to the feed. Paths outside the feed's folder are refused,
    and so are links in it unless ``dataset.follow_links`` is set. A photo's key is
    ``PRODUCT_N.suffix``, its group the product. A row without a product id is a product of its own,
    identified by its images.

    Args:
        file: The feed.
        cache: The folder of downloaded photos.
        config: The settings.
        progress: Called with the number of finished downloads and the total.
        refresh: Whether to ask servers if cached photos have changed.
        door: Access to servers that are not public.

    Returns: The source. Invalid cells are among its ``notes``; unavailable photos are ``failed``,
        with ``key``, ``row``, ``line``, ``product_id``, ``url``, ``reason``, ``message`` and
        ``attempts``.

    Raises:
        DataError, ConfigError, Busy: The feed, a setting or the cache cannot be used.
        MissingExtra: urllib3 or protego is not installed.
    """
    vocabulary = feed_vocabulary(config.feed)
    products = list(map_products(read_table(file, vocabulary.text), vocabulary))
    photos, failed = _feed_photos(products)
    urls = [photo.image for photo in photos if _is_url(photo.image)]
    fetched: Mapping[str, Fetched | Failed] = {}
    if urls:
        need("urllib3", "protego", what="downloading the photos of a feed")
        from fashionrec.dataset.feed.download import fetch_images

        fetched = fetch_images(urls, cache, config.feed, config.images, progress, refresh=refresh, door=door)
    reach = Reach(file.parent, config.dataset.follow_links)
    images, rows = [], {}
    for photo in photos:
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


def _feed_photos(products: Sequence[Product]) -> tuple[list[_FeedPhoto], list[dict[str, Any]]]:
    """Return the photos, once per product and in the feed's order, and failure rows.

    A product without an image gets a failure row.
    """
    ids = [product.product_id or _image_id(product) for product in products]
    names = photo_names(ids)
    counts: Counter[str] = Counter()
    known: set[tuple[str, str]] = set()
    photos, failed = [], []
    for product, product_id in zip(products, ids, strict=True):
        for image in product.images:
            if (product_id, image) not in known:
                known.add((product_id, image))
                counts[product_id] += 1
                photos.append(_FeedPhoto(f"{names[product_id]}_{counts[product_id]}", product_id, product, image))
        if not product.images:
            row = _row(names[product_id], product, product_id)
            failed.append({**row, "url": "", "reason": "no-image", "message": "the row has no image", "attempts": 0})
    return photos, failed


def _image_id(product: Product) -> str:
    return f"photo-{fingerprint([parse_text(image) for image in product.images] or product.row)[:12]}"


def _is_url(image: str) -> bool:
    return "://" in image or image.startswith("//")


def _find(image: str, reach: Reach, fetched: Mapping[str, Fetched | Failed]) -> tuple[Path | None, dict[str, Any]]:
    """Return the photo's path and an empty dict, or None and the failure's part of a row."""
    if _is_url(image):
        download = fetched[image]
        if isinstance(download, Fetched):
            return download.path, {}
        return None, vars(download)
    if "\0" in image:
        return None, _refusal(image, "missing", "not a valid path")
    path = reach.inside(reach.root / image)
    if path is None:
        return None, _refusal(image, "outside", "the path is outside the feed's folder")
    place = reach.find(path)
    if isinstance(place, Refusal) and reach.inside(Path(os.path.realpath(path))) is None:
        return None, _refusal(image, "outside", "the path is outside the feed's folder")
    if isinstance(place, Refusal):
        return None, _refusal(image, place.reason, WORDS[place.reason])
    try:
        exists = place is not None and place.is_file()
    except (OSError, ValueError):  # a surrogate, or the name is too long
        return None, _refusal(image, "missing", "not a valid path")
    if not exists:
        return None, _refusal(image, "missing", "no such file next to the feed")
    return place, {}


def _refusal(image: str, reason: str, message: str) -> dict[str, Any]:
    return {"url": parse_text(image), "reason": reason, "message": message, "attempts": 0}


def _row(key: str, product: Product, product_id: str) -> dict[str, Any]:
    return {"key": key, "row": product.row, "line": product.line, "product_id": product_id}


def _suffix(path: Path) -> str:
    """Return the suffix by content; a local file of another format keeps its own."""
    with path.open("rb") as file:
        return image_suffix(file.read(64)) or path.suffix.lower()


def _notes(problems: Sequence[Problem], rows: int) -> Iterator[str]:
    """Yield, per column, the number of invalid cells and the first of them."""
    columns: dict[str, list[Problem]] = {}
    for problem in problems:
        columns.setdefault(problem.column, []).append(problem)
    for column, invalid in columns.items():
        yield f"{column}: {len(invalid):,} of {plural(rows, 'row')} with an invalid value, which is ignored"
        yield from (str(problem) for problem in invalid[:_SHOWN])
        if len(invalid) > _SHOWN:
            yield f"{column}: and {len(invalid) - _SHOWN} more"
