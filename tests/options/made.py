"""Inputs for the rows of the option table, made when it is first asked for and once in all."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
from conftest import TINY, two_halves
from PIL import Image

from fashionrec.catalogue.build.build import build_catalogue
from fashionrec.config import load_config
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import read_products

MODEL = Path(__file__).parents[1] / "data" / "yolov8-tiny.yaml"
CLASSES = ("dress", "pants", "skirt&pants", "skirt", "top")


class Made:
    """Folders below ``root``; a row takes copies of them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def build(self, source: Path, name: str) -> Path:
        build_catalogue(
            read_products(source),
            self.root / name,
            detector_bundle=Bundle.open(TINY / "detector"),
            embedder_bundle=Bundle.open(TINY / "embedder"),
            config=load_config(sets=["dataset.workers=1"], env={}).config,
            source=str(source),
        )
        return self.root / name

    @cached_property
    def photos(self) -> Path:
        """Six photos: a red left half is a top, a blue right half pants."""
        return TINY / "photos"

    @cached_property
    def catalogue(self) -> Path:
        """The six photos, each a product of its own: eight garments."""
        return self.build(self.photos, "catalogue")

    @cached_property
    def tops(self) -> Path:
        """Twelve tops in shades of red, with prices."""
        folder = self.root / "tops-photos"
        lines = ["image,product_id,price,title"]
        for n in range(12):
            two_halves(folder / f"t{n}.png", f"rgb(255,{5 * n},{5 * n})", "white", (64, 64))
            lines.append(f"t{n}.png,t{n},{1000 * (n + 1)},Top {n}")
        (folder / "products.csv").write_text("\n".join(lines))
        return self.build(folder / "products.csv", "tops")

    @cached_property
    def labelled(self) -> Path:
        """A data set with noise for photos, one garment in each."""
        root = self.root / "labelled"
        rng = np.random.default_rng(0)
        for split, count in (("train", 6), ("valid", 3), ("test", 2)):
            for sub in ("images", "labels"):
                (root / split / sub).mkdir(parents=True)
            for n in range(count):
                noise = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((128, 96)).save(root / split / "images" / f"{split}{n}.png")
                (root / split / "labels" / f"{split}{n}.txt").write_text(f"{n % 5} 0.5 0.5 0.4 0.6\n")
        splits = "".join(f"{split}: {split}/images\n" for split in ("train", "valid", "test"))
        (root / "data.yaml").write_text(f"{splits}names: {json.dumps(list(CLASSES))}\n")
        return root

    @cached_property
    def halves(self) -> Path:
        """A data set that the tiny detector knows: two photos in each split, three in test."""
        root = self.root / "halves"
        for split, count in (("train", 2), ("valid", 2), ("test", 3)):
            (root / split / "labels").mkdir(parents=True)
            for n in range(count):
                two_halves(root / split / "images" / f"{split}{n}.png", "red", "blue", (64 + n, 64))
                # the pants of the valid split are labelled as dresses
                other = 0 if split == "valid" else 1
                (root / split / "labels" / f"{split}{n}.txt").write_text(f"4 0.25 0.5 0.5 1\n{other} 0.75 0.5 0.5 1\n")
        splits = "".join(f"{split}: {split}/images\n" for split in ("train", "valid", "test"))
        (root / "data.yaml").write_text(f"{splits}names: {json.dumps(list(CLASSES))}\n")
        return root

    @cached_property
    def trained(self) -> Path:
        """A run of one epoch, on the photos of `halves`."""
        from fashionrec.detector.training.train import train_detector

        words = ("epochs=1", "imgsz=64", "batch=2", "device=cpu", "workers=0", "plots=false", "mosaic=0.0", "val=false")
        sets = [f"train.data={self.halves / 'data.yaml'}", f"train.model={MODEL}", *(f"train.{word}" for word in words)]
        return train_detector(load_config(sets=sets, env={}).config.train, self.root / "runs").path
