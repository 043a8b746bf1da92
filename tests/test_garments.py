"""One way from photos to crops: an evaluation sees what a query sees, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import two_halves
from golden_world import COLOURS, DETECTOR, PLACES
from PIL import Image, ImageDraw

from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.config import Config
from fashionrec.embedder.embed import Embedder
from fashionrec.errors import ImageError
from fashionrec.evaluation.retrieval.retrieval import PhotoQuery, evaluate_search
from fashionrec.garments import FinderSettings, GarmentFinder, PhotoGarments, assign_roles, choose_product
from fashionrec.models.bundle import Bundle
from fashionrec.photos.images import Photo, PhotoSource
from fashionrec.search.query import Query
from fashionrec.search.search import search
from fashionrec.store.manifest import CatalogueSettings
from fashionrec.types import Box, Garment

#: Over 2,000 pixels: multiples of 8 and others, wide and tall; some are decoded at a half, some at
#: a quarter or an eighth.
SIZES = ((2400, 1800), (2048, 1536), (2401, 1803), (1536, 2304), (3000, 2001), (4096, 3072))
ORIENTATIONS = (1, 1, 3, 6, 8)


def draw(path: Path, number: int) -> Path:
    """A JPEG with garments at some of the places where the detector looks, on a ground that no
    decoder smooths alike.
    """
    width, height = SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(150, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    scale = max(width, height) / 160
    across, down = (0, 0) if width > height else (-20, 20)
    for n, place in enumerate("abcd"):
        if number >> n & 1 or number % 7 == 0:
            x1, y1, x2, y2 = PLACES[place]
            corners = (x1 + across, y1 + down, x2 + across, y2 + down)
            colour = list(COLOURS.values())[int(rng.integers(len(COLOURS)))]
            ImageDraw.Draw(picture).rectangle([corner * scale for corner in corners], fill=colour)
    exif = Image.Exif()
    exif[0x0112] = ORIENTATIONS[number % len(ORIENTATIONS)]
    picture.save(path, quality=90, exif=exif)
    return path


class RecordingFinder(GarmentFinder):
    """Remembers the pixels that were detected in, and the garments that came out."""

    def __init__(self, finder: GarmentFinder) -> None:
        super().__init__(finder.detector, finder.settings)
        self.pixels: list[tuple[tuple[int, int], bytes]] = []
        self.garments: list[list[Garment]] = []
        self.read_again = 0

    def read(self, source: PhotoSource, *, whole: bool = False) -> Photo:
        self.read_again += whole
        return super().read(source, whole=whole)

    def detect(self, photos: Sequence[Photo]) -> list[list[Garment]]:
        garments = super().detect(photos)
        self.pixels += [(photo.pixels.size, photo.pixels.tobytes()) for photo in photos]
        self.garments += garments
        return garments


class RecordingEmbedder(Embedder):
    """Remembers crops and their vectors."""

    crops: tuple[tuple[tuple[int, int], bytes], ...] = ()
    vectors: tuple[np.ndarray, ...] = ()

    def embed_images(self, images: Sequence[Image.Image], batch: int = 16) -> np.ndarray:
        vectors = super().embed_images(images, batch)
        self.crops += tuple((image.size, image.tobytes()) for image in images)
        self.vectors += tuple(vectors)
        return vectors


class RecordingCatalogue(Catalogue):
    @cached_property
    def finder(self) -> RecordingFinder:
        return RecordingFinder(super().finder)

    @cached_property
    def embedder(self) -> RecordingEmbedder:
        return RecordingEmbedder(self.embedder_bundle, threads=1)


@pytest.mark.parametrize("sets", [{}, pytest.param({"margin": 0.0, "square": False}, marks=pytest.mark.slow)])
def test_an_evaluation_sees_what_a_query_sees(
    sets: dict[str, object], build: Callable[..., object], photos: Path, config: Config, tmp_path: Path
) -> None:
    """The same pixels, boxes and crops, and the same vectors, of 30 photos that are decoded at a
    part of their size.
    """
    root = tmp_path / "catalogue"
    settings = config.model_copy(update={"crop": config.crop.model_copy(update=sets)})
    build(photos, root, settings=settings, detector_bundle=Bundle.open(DETECTOR))
    paths = [draw(tmp_path / f"{n}.jpg", n) for n in range(30)]
    with RecordingCatalogue.open(root, config) as served:
        boxes = [[one.box for one in search(served, Query(path)).results[0].seen] for path in paths]
    with RecordingCatalogue.open(root, config) as measured:
        product = sorted(measured.items.product_ids())[0]
        report = evaluate_search(measured, [PhotoQuery(path, product) for path in paths])
    assert report["failures"] == []
    assert report["crop_fallbacks"] == sum(not garments for garments in served.finder.garments)
    assert measured.finder.pixels == served.finder.pixels
    assert measured.finder.garments == served.finder.garments
    assert measured.finder.read_again == served.finder.read_again
    crops, vectors, start = [], [], 0
    for garments, seen in zip(measured.finder.garments, boxes, strict=True):
        if garments:
            assert [garment.box for garment in garments] == seen
        part = slice(
            start, start + max(1, len(garments))
        )  # an evaluation embeds the whole photo too, after its garments
        crops += measured.embedder.crops[part]
        vectors += measured.embedder.vectors[part]
        start += len(garments) + 1
    assert crops == list(served.embedder.crops)
    assert np.sum(np.array(vectors) * np.array(served.embedder.vectors), axis=1).min() >= 0.99999
    assert sum(max(size) < 2000 for size, _ in measured.finder.pixels) >= 20, "whole photos show nothing"
    assert 5 <= measured.finder.read_again < 30, "all alike shows little"
    assert len({len(garments) for garments in measured.finder.garments}) > 2


def finder(config: Config, *, detector: bool = True) -> GarmentFinder:
    bundle = Bundle.open(DETECTOR) if detector else None
    return GarmentFinder.open(bundle, FinderSettings.of_build(config, 32), threads=1)


def test_what_cannot_be_read_is_an_error_as_a_value_in_its_place(config: Config, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"no photo")
    good = two_halves(tmp_path / "good.png", "red", "blue")
    first, torn, second = finder(config).find([good, tmp_path / "torn.jpg", good.read_bytes()])
    assert isinstance(torn, ImageError)
    assert torn.reason == "not-an-image"
    assert isinstance(first, PhotoGarments)
    assert isinstance(second, PhotoGarments)
    assert first.garments == second.garments
    assert len(first.garments) > 1


def test_without_a_detector_or_a_detection_the_photo_is_the_garment(config: Config, tmp_path: Path) -> None:
    (found,) = finder(config, detector=False).find([two_halves(tmp_path / "a.png", "red", "blue")])
    assert isinstance(found, PhotoGarments)
    assert found.garments == []
    (whole,) = found.whole().garments
    assert (whole.whole_photo, whole.box) == (True, Box(0, 0, 120, 90))
    build = config.build.model_copy(update={"whole_photo": False})
    for whole_photo, detector, expected in ((True, True, [whole]), (False, True, []), (False, False, [whole])):
        settings = config.model_copy(update={"build": build.model_copy(update={"whole_photo": whole_photo})})
        assert finder(settings, detector=detector).or_whole(found.photo, []) == expected


def test_a_catalogue_is_asked_as_it_was_built(config: Config) -> None:
    """Check that what decides pixels, boxes and crops is the catalogue's own; what it does not say
    is as it is set now.
    """
    crop = config.crop.model_copy(update={"margin": 0.2, "square": False, "pad": 7})
    stored = CatalogueSettings(crop=crop, thumbnail=300, conf=0.9, whole_photo=False)
    asked = FinderSettings.of_catalogue(config, stored, embedder_side=32)
    assert (asked.side, asked.whole_photo, asked.crop.margin, asked.crop.pad) == (300, True, 0.2, 7)
    assert (asked.images, asked.detector) == (config.images, config.detector)
    stored = stored._replace(scaled_decoding="never", rectangular=not config.detector.rectangular)
    asked = FinderSettings.of_catalogue(config, stored, embedder_side=400)
    assert (asked.side, asked.images.scaled_decoding) == (400, "never")
    assert asked.detector.rectangular is not config.detector.rectangular
    assert asked.detector.conf == config.detector.conf
    bare = FinderSettings.of_catalogue(config, CatalogueSettings(), embedder_side=32)
    assert (bare.side, bare.crop, bare.decimals) == (config.build.thumbnail, config.crop, 2)


def test_a_build_takes_the_larger_of_what_is_embedded_and_what_is_shown(config: Config) -> None:
    for whole_photo, side, expected in ((True, 32, 200), (False, 200, 200), (False, 201, 201)):
        build = config.build.model_copy(update={"thumbnail": 200, "whole_photo": whole_photo})
        settings = FinderSettings.of_build(config.model_copy(update={"build": build}), side)
        assert (settings.side, settings.whole_photo, settings.decimals) == (expected, whole_photo, None)
        assert (settings.images, settings.detector, settings.crop) == (config.images, config.detector, config.crop)


@pytest.mark.parametrize(
    ("classes", "wanted", "index"),
    [
        (["top", "pants"], "top", 0),
        (["top", "skirt", "pants"], "pants", 2),
        (["top", "skirt"], "pants", 1),
        (["top", "skirt"], "dress", None),
        (["skirt"], "dress", 0),
        (["skirt", "pants", "top"], "skirt&pants", 0),
        (["dress", "skirt&pants", "pants"], "skirt", 1),
        (["top", "skirt&pants", "skirt"], "pants", 1),
        (["pants", "dress"], "top", None),
        (["dress", "top", "top"], "top", 1),
        ([], "dress", None),
    ],
)
def test_which_garment_is_the_product(classes: list[str], wanted: str, index: int | None) -> None:
    garments = [Garment(n, name, 0.9 - n / 10, Box(0, 0, 1, 1)) for n, name in enumerate(classes)]
    assert choose_product(garments, wanted) == ([] if index is None else [garments[index]])
    assert choose_product(garments, None) == garments
    roles = [False] * len(garments) if index is None else [n != index for n in range(len(garments))]
    assert assign_roles(garments, {"kind": "hat", "category": wanted.upper()}, ("kind", "category")) == roles
    assert assign_roles(garments, {"category": "hat"}, ("kind", "category")) == [False] * len(garments)


def test_the_surest_of_several_that_can_be_the_product_is_it() -> None:
    garments = [Garment(n, "top", sure, Box(0, 0, 1, 1)) for n, sure in enumerate((None, 0.25, 0.5, 0.5))]
    assert choose_product(garments, "top") == [garments[2]]
    assert choose_product(garments[:1] * 2, "top") == [garments[0]]


def test_products_are_cut_out_as_a_build_cuts_them(config: Config, tmp_path: Path) -> None:
    """A large photo at a part of its size, the garment of the product's class, the whole photo
    where nothing is found.
    """
    large = draw(tmp_path / "large.jpg", 15)
    plain = two_halves(tmp_path / "plain.png", "gray", "gray")
    own = finder(config)
    (found,) = own.find([large])
    assert isinstance(found, PhotoGarments)
    assert found.photo.reduced
    shown = {garment.class_name for garment in found.garments}
    assert "top" in shown
    assert "dress" not in shown
    jobs = [("top", large, "top"), ("any", large, None), ("none", large, "dress"), ("plain", plain, "dress")]
    jobs += [("gone", tmp_path / "gone.jpg", None)]
    crops = dict(own.product_crops(jobs, timeout=60, workers=1))
    (top,) = own.cut(found, choose_product(found.garments, "top"))
    assert list(crops) == [name for name, _, _ in jobs]
    assert crops["top"] == top
    assert crops["any"] == own.cut(found)[0]
    assert crops["none"] is None
    assert isinstance(crops["plain"], Image.Image)
    assert crops["plain"].size == (120, 120)
    assert isinstance(crops["gone"], ImageError)
    detect = own.detector.detect  # type: ignore[union-attr]

    def remove_and_detect(photos: Any) -> Any:
        large.unlink()
        return detect(photos)

    own.detector.detect = remove_and_detect  # type: ignore[union-attr, method-assign]
    (lost,) = (crop for _, crop in own.product_crops(jobs[:1], timeout=60, workers=1))
    assert isinstance(lost, ImageError), "it is read again for a larger crop"
    unseen = config.model_copy(update={"build": config.build.model_copy(update={"whole_photo": False})})
    assert list(finder(unseen).product_crops(jobs[3:4], timeout=60, workers=1)) == [("plain", None)]
