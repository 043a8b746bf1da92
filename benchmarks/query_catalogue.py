"""A catalogue of drawn garments for measuring queries: vectors around those of real crops, so that photos have neighbours."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

_BLOCK = 8192  # vectors drawn at once


def around(embedder: Path, photos: Sequence[Path], count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Unit vectors float32, some thousand at a time, that lie as those of the photos do: their mean, mixes of what sets three of
    them apart from it, and a little of every direction."""
    from fashionrec.config import load_config
    from fashionrec.embedder.embed import Embedder
    from fashionrec.photos.images import read_photo
    from fashionrec.types import Box

    config = load_config(env={}).config
    encoder = Embedder.open(embedder)
    pictures = [read_photo(path, config.images) for path in photos]
    crops = [one.crop(Box(0, 0, one.width, one.height), config.crop) for one in pictures]
    crops += [one.crop(Box(0, 0, one.width, one.height * 0.6), config.crop) for one in pictures]
    seen = encoder.embed_images(crops)
    mean = seen.mean(axis=0)
    apart = seen - mean
    size = float(np.linalg.norm(apart, axis=1).mean())
    rng = np.random.default_rng(seed)
    for start in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - start)
        vectors = np.repeat(mean[None], rows, axis=0)
        for _ in range(3):
            vectors += rng.normal(0, 0.6, (rows, 1)).astype(np.float32) * apart[rng.integers(len(apart), size=rows)]
        vectors += rng.normal(0, 0.25 * size / np.sqrt(vectors.shape[1]), vectors.shape).astype(np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw(root: Path, detector: Path, embedder: Path, photos: Sequence[Path], count: int) -> None:
    """A catalogue of drawn vectors, each a product with a title, a price and numbers to filter by."""
    from PIL import Image

    from fashionrec.config import load_config
    from fashionrec.models.bundle import Bundle
    from fashionrec.models.runs import installed_versions
    from fashionrec.photos.images import encode_jpeg
    from fashionrec.store import generations
    from fashionrec.store.assemble import item_id
    from fashionrec.store.content import GarmentRow, PhotoRow
    from fashionrec.store.manifest import CatalogueSettings, SegmentEntry
    from fashionrec.store.writer import GenerationWriter
    from fashionrec.types import CLASS_NAMES, Box

    config = load_config(env={}).config
    bundles = [Bundle.open(path) for path in (detector, embedder)]
    thumbnail = encode_jpeg(Image.effect_noise((224, 224), 40).convert("RGB"), 224)
    rng = random.Random(0)
    colours = ("red", "navy", "white", "black", "beige", "khaki")
    log = partial(print, file=sys.stderr)
    with generations.writer_lock(root), GenerationWriter(root, config.index, log=log) as writer:
        entry = SegmentEntry("image", count, 512, bundles[1].fingerprint)
        segment = writer.write_segment("image", around(embedder, photos, count), entry)
        (root / "segments" / segment / generations.THUMBNAILS).write_bytes(thumbnail)
        for n in range(count):
            kind = CLASS_NAMES[n % 5]
            garment = GarmentRow(0, kind, 0.9, Box(0, 0, 200, 300), False, segment, n, 0, len(thumbnail))
            (number,) = writer.items.add_photo(PhotoRow(f"{n:064x}", 200, 300, "drawn", (garment,)))
            data = {
                "title": f"{rng.choice(colours)} {kind} {n}",
                "price": rng.randrange(10, 300) * 1000,
                "currency": "KRW",
                "brand": rng.choice("ABCDEFGH"),
                "color": rng.choice(colours),
                "draw": rng.random(),
            }
            row = writer.items.add_entry(f"{n}.jpg", "", f"p{n}", f"{n:064x}", data)
            item = item_id(f"p{n}", f"{n:064x}", garment)
            writer.items.add_item(item, row, number, f"p{n}", False, data["title"])
        writer.commit(
            "draw",
            {},
            bundles=bundles,
            versions=installed_versions(),
            settings=CatalogueSettings(thumbnail=config.build.thumbnail, crop=config.crop, build_key="drawn"),
        )
