"""From a product table to training pairs for an encoder: a garment's crop, its caption, its product.

Garments are cut as `build-index` will cut them: by the detector in use, the garment of the product's category.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.errors import DataError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.cli.session import Session
    from fashionrec.embedder.training.train import Pair

#: Columns that may hold a caption; the first that is filled counts.
CAPTION_COLUMNS = ("caption_en", "caption", "text", "description", "title")
_BATCH = 8


def training_pairs(session: Session, table: Path) -> tuple[list[Pair], dict[str, Any]]:
    """Pairs of a table with ``image``, ``product_id`` and a caption column, and what a run records of the data.

    Raises :class:`DataError` where no row has both a readable photo and a caption.
    """
    from fashionrec.cli.models import detector_bundle
    from fashionrec.common.files import sha256_file
    from fashionrec.detector.detect import Detector
    from fashionrec.embedder.training.train import Pair
    from fashionrec.garments import product_garment
    from fashionrec.photos.decoding import decode_all
    from fashionrec.photos.images import crop_garment
    from fashionrec.products.tables import read_products
    from fashionrec.types import Box, resolve_class

    config = session.config
    rows = read_products(table)
    captions = [next((str(r.metadata[c]) for c in CAPTION_COLUMNS if r.metadata.get(c)), "") for r in rows]
    if not any(captions):
        raise DataError(f"{table} has no captions", hint=f"a column {', '.join(CAPTION_COLUMNS)}")
    bundle = detector_bundle(session, None) if config.build.detect else None
    detector = bundle and Detector(
        bundle,
        conf=config.detector.conf,
        iou=config.detector.iou,
        max_garments=config.detector.max_garments,
        threads=config.project.threads,
        device=config.project.device,
    )
    pairs: list[Pair] = []
    failed = 0
    wanted = [(n, row.path) for n, row in enumerate(rows) if captions[n]]
    photos = decode_all(wanted, config.images, timeout=config.build.photo_timeout, workers=config.build.workers)
    with session.out.progress("cropping", "photos") as tick:
        batch: list[Any] = []
        for done, found in enumerate(photos, start=1):
            if isinstance(found[1], ImageError):
                failed += 1
            else:
                batch.append(found)
            if len(batch) == _BATCH or done == len(wanted):
                seen = (
                    detector.detect([photo.pixels for _, photo in batch]) if detector and batch else [[] for _ in batch]
                )
                for (n, photo), garments in zip(batch, seen, strict=True):
                    row = rows[n]
                    columns = config.build.category_columns
                    name = next((c for col in columns if (c := resolve_class(str(row.metadata.get(col, ""))))), None)
                    which = (product_garment(garments, name) if name else 0) if garments else None
                    box = Box(0, 0, photo.width, photo.height) if which is None else garments[which].box
                    if which is None and garments:
                        continue  # the product's own garment was not found: a crop of another one would teach a lie
                    crop = crop_garment(photo.pixels, box, config.crop)
                    crop.thumbnail((256, 256))
                    pairs.append(Pair(load=partial(_same, crop), caption=captions[n], product_id=row.product_id))
                batch = []
            tick(done, len(wanted))
    if not pairs:
        raise DataError(f"none of the {len(rows)} rows of {table} gave a crop with a caption")
    record = {"path": str(table), "fingerprint": sha256_file(table), "rows": len(rows)}
    return pairs, {**record, "pairs": len(pairs), "failed": failed}


def _same(crop: Image.Image) -> Image.Image:
    return crop
