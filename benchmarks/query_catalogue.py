"""Catalogues of drawn garments for measuring: vectors around those of real crops, so that photos
have neighbours, or random ones.

python benchmarks/query_catalogue.py CATALOGUE DETECTOR EMBEDDER COUNT

The command draws random vectors with 30 columns, by whichever fashionrec is imported.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

_BLOCK = 8192  # vectors drawn at once


def around(embedder: Path, photos: Sequence[Path], count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Unit vectors float32, some thousand at a time, that lie as those of the photos do: their
    mean, mixes of what sets three of them apart from it, and a little of every direction.
    """
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


def anywhere(dim: int, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Unit vectors float32 of random directions, some thousand at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, _BLOCK):
        vectors = rng.standard_normal((min(_BLOCK, count - start), dim), dtype=np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw(root: Path, detector: Path, embedder: Path, photos: Sequence[Path], count: int, columns: int = 0) -> None:
    """A catalogue of drawn vectors, each a product with a title, a price and numbers to filter by,
    and with so many columns more.

    Without photos the vectors are random.
    """
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
    side = 224 if photos else 16  # an export copies the one thumbnail for each item
    thumbnail = encode_jpeg(Image.effect_noise((side, side), 40).convert("RGB"), side)
    rng = random.Random(0)
    colours = ("red", "navy", "white", "black", "beige", "khaki")
    log = partial(print, file=sys.stderr)
    with generations.writer_lock(root), GenerationWriter(root, config.index, log=log) as writer:
        dim = int(bundles[1].spec["dim"])
        vectors = around(embedder, photos, count) if photos else anywhere(dim, count)
        segment = writer.write_segment("image", vectors, SegmentEntry("image", count, dim, bundles[1].fingerprint))
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
            data |= {f"text{m}": f"{rng.choice(colours)} {m}" for m in range(columns // 2)}
            data |= {f"number{m}": rng.randrange(1000) for m in range(columns - columns // 2)}
            row = writer.items.add_entry(f"{n}.jpg", "", f"p{n}", f"{n:064x}", data)
            item = item_id(f"p{n}", f"{n:064x}", garment)
            writer.items.add_item(item, row, number, f"p{n}", False, data["title"])
        writer.commit(
            "draw",
            {},
            bundles=bundles,
            versions=installed_versions(),
            settings=CatalogueSettings.of_config(config, detect=True)._replace(build_key="drawn"),
        )


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:4]), photos=(), count=int(sys.argv[4]), columns=24)
