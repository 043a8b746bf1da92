"""Test what the encoder sees of a crop, and which picture of it is kept, where the encoder sees
less than the whole of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from PIL import Image, ImageDraw

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config
from fashionrec.embedder.embed import Embedder
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.photos.images import encode_jpeg

Embedding = Callable[..., Bundle]
Build = Callable[..., BuildReport]


@pytest.fixture
def embedding(tmp_path: Path) -> Embedding:
    """The tiny encoder's bundle, its picture prepared in another way."""

    def make(edge: int, crop: tuple[int, int]) -> Bundle:
        spec = json.loads((TINY / "embedder" / "bundle.json").read_text())["spec"]
        spec["image"] |= {"shortest_edge": edge, "crop": list(crop)}
        return write_bundle(
            tmp_path / f"{edge}-{crop[0]}-{crop[1]}",
            kind="embedder",
            name="tiny",
            graphs={"image": "image.onnx", "text": "text.onnx"},
            spec=spec,
            source={},
            agreement={},
            files={file.name: file for file in (TINY / "embedder").iterdir() if file.suffix == ".onnx"}
            | {"tokenizer.json": TINY / "embedder" / "tokenizer.json"},
        )

    return make


@pytest.mark.parametrize(
    ("edge", "crop", "cuts_off", "side"),
    [
        (32, (32, 32), False, 32),
        (33, (32, 32), True, 32),
        (31, (32, 32), False, 32),
        (40, (32, 48), True, 48),  # height, width
        (40, (48, 32), True, 48),
        (48, (48, 64), False, 64),
    ],
)
def test_whether_a_square_is_seen_whole(
    edge: int, crop: tuple[int, int], cuts_off: bool, side: int, embedding: Embedding
) -> None:
    embedder = Embedder(embedding(edge, crop))
    assert (embedder.cuts_off, embedder.side) == (cuts_off, side)
    (seen,) = embedder.encoder_view([framed()])
    assert seen.size == (crop[1], crop[0])


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_of_a_long_picture_the_middle_is_embedded_as_it_lies(batch: int) -> None:
    embedder = Embedder(Bundle.open(TINY / "embedder"))
    wide, high = Image.new("RGB", (120, 60), "red"), Image.new("RGB", (60, 180), "red")
    wide.paste("lime", (30, 0, 60, 60))
    wide.paste("blue", (60, 0, 90, 60))
    high.paste("lime", (0, 60, 60, 90))
    high.paste("blue", (0, 90, 60, 120))
    middles = wide.crop((30, 0, 90, 60)), high.crop((0, 60, 60, 120))
    cosines = embedder.embed_images([wide, high, wide], batch) @ embedder.embed_images(middles).T
    assert cosines.shape == (3, 2)
    assert cosines[[0, 1, 2], [0, 1, 0]].min() > 0.99
    assert cosines[[0, 1, 2], [1, 0, 1]].max() < 0.6  # one is split from left to right, the other from top to bottom


def framed(size: tuple[int, int] = (100, 100)) -> Image.Image:
    """A blue frame, five pixels wide, around red."""
    photo = Image.new("RGB", size, "blue")
    ImageDraw.Draw(photo).rectangle((5, 5, size[0] - 6, size[1] - 6), fill="red")
    return photo


def kept_thumbnail(photo: Image.Image, bundle: Bundle, config: Config, build: Build, folder: Path) -> bytes:
    (folder / "photos").mkdir()
    photo.save(folder / "photos" / "a.png")
    settings = config.model_copy(
        update={
            "build": config.build.model_copy(update={"thumbnail": 24}),
            "crop": config.crop.model_copy(update={"square": False}),
        }
    )
    build(folder / "photos", folder / "c", detect=False, settings=settings, embedder_bundle=bundle)
    with Catalogue.open(folder / "c") as catalogue:
        (stored,) = catalogue.items.everything()
        return bytes(catalogue.thumbnail(stored))


def corner(data: bytes, folder: Path) -> Any:
    (folder / "t.jpg").write_bytes(data)
    with Image.open(folder / "t.jpg") as thumbnail:
        return thumbnail.size, thumbnail.convert("RGB").getpixel((0, 0))


def test_the_kept_picture_is_the_whole_crop_where_the_encoder_cuts_some_of_it_off(
    embedding: Embedding, config: Config, build: Build, tmp_path: Path
) -> None:
    size, (red, _, blue) = corner(kept_thumbnail(framed(), embedding(40, (32, 32)), config, build, tmp_path), tmp_path)
    assert size == (24, 24)
    assert blue > 150 > red


def test_the_kept_picture_of_a_long_crop_is_all_of_it(
    embedding: Embedding, config: Config, build: Build, tmp_path: Path
) -> None:
    photo = framed((120, 60))
    data = kept_thumbnail(photo, embedding(32, (32, 32)), config, build, tmp_path)
    assert data == encode_jpeg(photo, 24)
    assert corner(data, tmp_path)[0] == (24, 12)


def test_a_square_that_is_seen_whole_is_made_smaller_once_only(
    embedding: Embedding, config: Config, build: Build, tmp_path: Path
) -> None:
    bundle = embedding(32, (32, 32))
    data = kept_thumbnail(framed(), bundle, config, build, tmp_path)
    assert data == encode_jpeg(Embedder(bundle).encoder_view([framed()])[0], 24)
    assert data != encode_jpeg(framed(), 24)
