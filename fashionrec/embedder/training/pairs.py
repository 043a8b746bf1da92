"""Make training pairs for an encoder from a product table: a garment's crop, its caption, its
product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.files import sha256_file
from fashionrec.common.text import plural
from fashionrec.embedder.training.train import Pair
from fashionrec.errors import DataError, ImageError
from fashionrec.products.tables import read_products
from fashionrec.types import category_of

if TYPE_CHECKING:
    from PIL import Image

#: Columns that may have a caption; the first one with a value is used.
CAPTION_COLUMNS = ("caption_en", "caption", "text", "description", "title")
#: Pixels of the long side of stored training crops.
SIDE = 256

#: Crops products from photos: takes row number, photo and class (if known); returns row number and
#: crop in order, an error for unreadable photos, None if no garment of the photo is the product.
Cut = Callable[[Sequence[tuple[int, Path, str | None]]], "Iterable[tuple[int, Image.Image | ImageError | None]]"]


def training_pairs(
    table: Path, cut: Cut, category_columns: Sequence[str], *, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Pair], dict[str, Any]]:
    """Return the pairs of a table with ``image``, ``product_id`` and a caption column, and a
    description of the data for the run.

    Raises :class:`DataError` if no row has both a readable photo and a caption.
    """
    rows = read_products(table)
    captions = [next((str(r.metadata[c]) for c in CAPTION_COLUMNS if r.metadata.get(c)), "") for r in rows]
    if not any(captions):
        raise DataError(f"{table} has no captions", hint=f"a column {', '.join(CAPTION_COLUMNS)}")
    photos = [(n, row.path, category_of(row.metadata, category_columns)) for n, row in enumerate(rows) if captions[n]]
    pairs: list[Pair] = []
    failed = 0
    for done, (n, crop) in enumerate(cut(photos), start=1):
        if isinstance(crop, ImageError):
            failed += 1
        elif crop is not None:
            crop.thumbnail((SIDE, SIDE))
            pairs.append(Pair(load=partial(_same, crop), caption=captions[n], product_id=rows[n].product_id))
        if progress:
            progress(done, len(photos))
    if not pairs:
        raise DataError(f"none of {plural(len(rows), 'row')} of {table} gave a crop with a caption")
    record = {"path": str(table), "fingerprint": sha256_file(table), "rows": len(rows)}
    return pairs, {**record, "pairs": len(pairs), "failed": failed}


def _same(crop: Image.Image) -> Image.Image:
    return crop
