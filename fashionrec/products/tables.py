"""Rows of photos: the input of `build-index`, `catalogue add`, `evaluate` and the training of
encoders.

A photo, a folder of photos, or a table. A table has a column ``image`` (relative to the file, or
absolute), optionally ``product_id``, and further columns, which become metadata.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashionrec.errors import DataError
from fashionrec.photos.images import SUFFIXES, find_photos
from fashionrec.products.columns import map_products
from fashionrec.products.records import is_table, read_table, split_list

#: A relative path that ``Path`` would not change.
_PLAIN = re.compile(r"[^/.][^/]*(/[^/.][^/]*)*")


@dataclass(frozen=True, slots=True)
class ProductRow:
    """A photo of a product. ``image`` is as in the table: below ``folder``, or absolute.

    A build holds all rows of its table, so a row is small, without a ``Path`` of its own.
    """

    image: str
    folder: Path
    product_id: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def location(self) -> str:
        """``path`` as text."""
        if os.sep == "/" and _PLAIN.fullmatch(self.image):
            folder = str(self.folder)  # joined as text for every row of a build: a tenth of the time of ``Path``
            return self.image if folder == "." else os.path.join(folder, self.image)  # noqa: PTH118
        return str(self.path)

    @property
    def path(self) -> Path:
        """The path of the photo."""
        return Path(self.folder, self.image)


def read_products(
    source: Path, *, folder: bool = True, photo: bool = False, need_image: bool = True
) -> list[ProductRow]:
    """Return the rows of a product table; or of a ``folder`` of photos (one product each), or a
    ``photo``, if allowed.

    Raises :class:`DataError` if the source is missing or of another kind, has no column ``image``
    (unless ``need_image`` is false), or no rows. Rows without an image are kept for the build to
    report.
    """
    if photo and source.is_file() and source.suffix.lower() in SUFFIXES:
        return [ProductRow(source.name, source.parent, source.name)]
    if not folder and not is_table(source):
        raise DataError(
            f"{source} is not a table", hint="give a CSV, JSONL or Parquet file with the columns image and product_id"
        )
    if source.is_dir():
        names = [path.relative_to(source).as_posix() for path in find_photos(source)]
        if not names:
            raise DataError(f"no photos in {source}", hint="expected .jpg, .png, .webp ... files, at any depth")
        return [ProductRow(name, source, name) for name in names]
    return [
        ProductRow(product.images[0], source.parent, product.product_id or product.images[0], product.columns)
        for product in map_products(read_table(source), need_image=need_image)
    ]


def read_ids(path: Path) -> list[str]:
    """Return product ids: the column ``product_id`` of a table, or the lines of any other file.

    Raises :class:`DataError`.
    """
    if is_table(path):
        return [str(record["product_id"]) for record in read_table(path).records if "product_id" in record]
    if not path.exists():
        raise DataError(f"no such file or folder: {path}", hint="check the path")
    try:
        return split_list(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
