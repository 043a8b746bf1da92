"""Find garments in photos and crop them: read, detect, choose, crop.

Builds, queries, evaluation, captioning and training pairs all use this code, so that evaluation
measures exactly what is served: the same pixels, boxes and crops, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fashionrec.errors import ImageError
from fashionrec.photos.images import least_side, read_photo
from fashionrec.types import Box, Garment, category_of

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import Config, CropConfig, DetectorConfig, ImagesConfig
    from fashionrec.detector.detect import Detector
    from fashionrec.models.bundle import Bundle
    from fashionrec.photos.images import Photo, PhotoSource
    from fashionrec.store.content import GarmentRow
    from fashionrec.store.manifest import CatalogueSettings

Key = TypeVar("Key")

#: Decimals of the boxes of queries.
QUERY_DECIMALS = 2

#: Photos per detector batch.
_BATCH = 8

#: Classes worn on the lower half of the body, which detectors confuse with each other.
_LOWER = {"pants", "skirt", "skirt&pants"}


class FinderSettings(NamedTuple):
    """Settings that decide which garments are found and how they are cropped.

    Attributes:
        images: Limits on photos, and whether large JPEGs are decoded at reduced size.
        detector: Thresholds, and whether photos are padded to rectangles or to squares.
        crop: Margin and padding of crops, squares or not.
        side: Pixels that a crop should have if its photo has them, so that it is never enlarged.
        whole_photo: Whether a photo without a detection counts as one garment.
        decimals: Decimals of boxes; None keeps the detector's values.
    """

    images: ImagesConfig
    detector: DetectorConfig
    crop: CropConfig
    side: int
    whole_photo: bool
    decimals: int | None = None

    @classmethod
    def of_build(cls, config: Config, embedder_side: int) -> FinderSettings:
        """Return the settings of a new build. ``embedder_side``: pixels of the longer side of the
        encoder's input.
        """
        side = max(embedder_side, config.build.thumbnail)
        return cls(config.images, config.detector, config.crop, side, config.build.whole_photo)

    @classmethod
    def of_catalogue(cls, config: Config, stored: CatalogueSettings, embedder_side: int) -> FinderSettings:
        """Return the settings of queries to a catalogue.

        Decoding, padding and crops are those of its build (``stored``, from its manifest),
        thresholds (``detector.conf`` and others) those of today. A query always has a garment: the
        whole photo if nothing is detected.
        """
        images, detector = config.images, config.detector
        if stored.scaled_decoding is not None:
            images = images.model_copy(update={"scaled_decoding": stored.scaled_decoding})
        if stored.rectangular is not None:
            detector = detector.model_copy(update={"rectangular": stored.rectangular})
        return cls(
            images,
            detector,
            stored.crop or config.crop,
            max(embedder_side, stored.thumbnail or config.build.thumbnail),
            whole_photo=True,
            decimals=QUERY_DECIMALS,
        )


class PhotoGarments(NamedTuple):
    """A photo, its source, and the garments found in it, most confident first."""

    source: PhotoSource
    photo: Photo
    garments: list[Garment]

    def whole(self) -> PhotoGarments:
        """Return the same photo as one garment."""
        return self._replace(garments=[whole_photo(self.photo)])


class GarmentFinder:
    """Finds garments in photos and crops them. Thread-safe; without a detector a photo is one
    garment.

    Boxes are in pixels of the full upright photo, however many of its pixels were decoded.
    """

    def __init__(self, detector: Detector | None, settings: FinderSettings) -> None:
        self.detector, self.settings = detector, settings
        #: Minimum pixels of the long side of a JPEG that is decoded at reduced size.
        self.least = least_side(settings.side, detector.imgsz if detector else 0)

    @classmethod
    def open(
        cls, bundle: Bundle | None, settings: FinderSettings, *, threads: int = 0, device: str = "auto"
    ) -> GarmentFinder:
        """Create a finder with the detector of a bundle, if any. Raises :class:`ModelError`."""
        from fashionrec.detector.detect import Detector

        if bundle is None:
            return cls(None, settings)
        return cls(Detector.of_config(bundle, settings.detector, threads=threads, device=device), settings)

    def read(self, source: PhotoSource, *, whole: bool = False) -> Photo:
        """Read a photo with as many pixels as its garments need, or with all if ``whole``. Raises
        :class:`ImageError`.
        """
        return read_photo(source, self.settings.images, None if whole else self.least)

    def shape(self, photo: Photo) -> tuple[int, int] | None:
        """Return the input shape; photos of one shape are fastest in one batch. None without a
        detector.
        """
        return self.detector.shape(*photo.pixels.size) if self.detector else None

    def detect(self, photos: Sequence[Photo]) -> list[list[Garment]]:
        """Return the garments of each photo; results are the same alone and in any batch."""
        if self.detector is None:
            return [[] for _ in photos]
        found = self.detector.detect([photo.pixels for photo in photos])
        return [
            [replace(garment, box=self._box(photo, garment.box)) for garment in garments]
            for photo, garments in zip(photos, found, strict=True)
        ]

    def find(self, sources: Sequence[PhotoSource], *, whole: bool = False) -> list[PhotoGarments | ImageError]:
        """Read photos and detect in all of them together. Unreadable photos are
        returned as errors.
        """
        photos: list[Photo | ImageError] = []
        for source in sources:
            try:
                photos.append(self.read(source, whole=whole))
            except ImageError as error:
                photos.append(error)
        return self._with_garments(sources, photos)

    def find_all(
        self, photos: Iterable[tuple[Key, Path]], *, timeout: float, workers: int = 0
    ) -> Iterator[tuple[Key, PhotoGarments | ImageError]]:
        """Find the garments of many photos as a build does, with :meth:`or_whole`, in order.

        Photos are decoded in separate processes, a few ahead of the caller; unusable photos are
        returned as errors. ``timeout`` and ``workers`` are those of :func:`decode_all`.
        """
        from fashionrec.photos.decoding import decode_all

        jobs = (((key, path), path) for key, path in photos)
        with closing(
            decode_all(jobs, self.settings.images, timeout=timeout, workers=workers, least=self.least)
        ) as decoded:
            while batch := list(islice(decoded, _BATCH)):
                paths, values = [path for (_, path), _ in batch], [photo for _, photo in batch]
                for ((key, _), _), found in zip(batch, self._with_garments(paths, values), strict=True):
                    if not isinstance(found, ImageError):
                        found = found._replace(garments=self.or_whole(found.photo, found.garments))
                    yield key, found

    def product_crops(
        self, photos: Iterable[tuple[Key, Path, str | None]], *, timeout: float, workers: int = 0
    ) -> Iterator[tuple[Key, Image.Image | ImageError | None]]:
        """Return the crop of each product from its photo and (if known) class, as :meth:`find_all`.

        None if no garment of the photo can be the product: the crop of another one would be a wrong
        label.
        """
        jobs = (((key, class_name), path) for key, path, class_name in photos)
        for (key, class_name), found in self.find_all(jobs, timeout=timeout, workers=workers):
            if isinstance(found, ImageError):
                yield key, found
                continue
            try:
                yield key, next(iter(self.cut(found, choose_product(found.garments, class_name)[:1])), None)
            except ImageError as error:  # removed or changed meanwhile
                yield key, error

    def or_whole(self, photo: Photo, garments: Sequence[Garment]) -> list[Garment]:
        """Return the garments of a photo, or the whole photo if there are none and the settings say
        so or there is no detector.
        """
        if not garments and (self.settings.whole_photo or self.detector is None):
            return [whole_photo(photo)]
        return list(garments)

    def complete(self, found: PhotoGarments) -> Photo:
        """Return the photo with enough pixels for all its garments, read again if the reduced size
        makes one too small.

        Raises :class:`ImageError` if the file is gone.
        """
        crop, side = self.settings.crop, self.settings.side
        if all(found.photo.shows(garment.box, crop, side) for garment in found.garments):
            return found.photo
        return self.read(found.source, whole=True)

    def cut(self, found: PhotoGarments, chosen: Sequence[Garment] | None = None) -> list[Image.Image]:
        """Return the crops of the ``chosen`` garments of a photo (default: all). Raises like
        :meth:`complete`.
        """
        chosen = found.garments if chosen is None else chosen
        photo = self.complete(found) if chosen else found.photo
        return [self.crop(photo, garment) for garment in chosen]

    def crop(self, photo: Photo, garment: Garment) -> Image.Image:
        """Crop one garment from the photo as it was decoded."""
        return photo.crop(garment.box, self.settings.crop)

    def _with_garments(
        self, sources: Sequence[PhotoSource], photos: Sequence[Photo | ImageError]
    ) -> list[PhotoGarments | ImageError]:
        garments = iter(self.detect([photo for photo in photos if not isinstance(photo, ImageError)]))
        return [
            photo if isinstance(photo, ImageError) else PhotoGarments(source, photo, next(garments))
            for source, photo in zip(sources, photos, strict=True)
        ]

    def _box(self, photo: Photo, box: Box) -> Box:
        box, decimals = photo.in_full(box), self.settings.decimals
        return box if decimals is None else Box(*(round(value, decimals) for value in box))


def whole_photo(photo: Photo) -> Garment:
    """Return the whole photo as one garment."""
    return Garment(0, None, None, Box(0, 0, photo.width, photo.height), whole_photo=True)


def choose_product(garments: Sequence[Garment], class_name: str | None) -> list[Garment]:
    """Return the garment that a build would take for a product of a class; all if the class is
    unknown, none if none fits.
    """
    if class_name is None:
        return list(garments)
    product = product_garment(garments, class_name)
    return [] if product is None else [garments[product]]


def assign_roles(
    garments: Sequence[GarmentRow], metadata: Mapping[str, Any], category_columns: Iterable[str]
) -> list[bool]:
    """Decide for each garment of a product's photo whether it is only worn with the product (True)
    or is the product (False).

    If the product's data names its category, the most confident garment of that class is the
    product; otherwise the only garment, or the most confident one worn on the same half of the
    body. If no category is known, or no garment can be it, all garments stand for the product.
    """
    wanted = category_of(metadata, category_columns)
    if wanted is None:
        return [False] * len(garments)
    product = product_garment(garments, wanted)
    return [False] * len(garments) if product is None else [n != product for n in range(len(garments))]


def product_garment(garments: Sequence[GarmentRow | Garment], wanted: str) -> int | None:
    """Return the index of the garment that is the product, known to be of class ``wanted``.

    It is the most confident one of that class; otherwise the only one, or the most confident one
    worn on the same half of the body, which detectors confuse. None if none of them can be it.
    """
    if len(garments) == 1:
        return 0
    for classes in ({wanted}, _LOWER if wanted in _LOWER else set()):
        fitting = [n for n, garment in enumerate(garments) if garment.class_name in classes]
        if fitting:
            return max(fitting, key=lambda n: garments[n].confidence or 0.0)
    return None
