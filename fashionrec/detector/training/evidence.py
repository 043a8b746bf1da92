"""The data to test an export with: photos, calibration data for int8, and a measure of mAP."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fashionrec.config import ExportConfig, ImagesConfig
from fashionrec.detector.training.gate import Measure
from fashionrec.errors import DataError, ImageError
from fashionrec.labels.data_yaml import declared, read_data_yaml
from fashionrec.photos.decoding import spread
from fashionrec.photos.images import find_photos, read_photo

_CHECKED = 64  # maximum number of photos for testing an export


@dataclass(frozen=True)
class Evidence:
    """Data for testing an export.

    ``photos`` are test files; ``calibration`` those whose activations set the ranges of int8; both
    are ``prepared`` already, like the training data, or not. ``measure`` returns the mAP of a
    detector on labelled photos, of which ``tolerance`` points may be lost. Photos are read within
    ``limits``, which must be given with them.
    """

    photos: Sequence[Path] = ()
    calibration: Sequence[Path] = ()
    prepared: bool = False
    measure: Measure | None = None
    tolerance: float = 0.0
    limits: ImagesConfig | None = None

    def read(self, paths: Sequence[Path], say: Callable[[str], None]) -> Iterator[Image.Image]:
        """Read photos as they are decoded in serving; unreadable ones are reported and skipped.

        Raises :class:`DataError` if all are unreadable.
        """
        if self.limits is None:
            raise TypeError("photos need limits")
        read = 0
        for path in paths:
            try:
                photo = read_photo(path, self.limits).pixels
            except ImageError as error:
                say(f"left out: {error}")
                continue
            read += 1
            yield photo
        if not read:
            raise DataError("none of the photos can be read")


def choose_evidence(
    images: Path | None,
    data: Path | None,
    settings: ExportConfig,
    limits: ImagesConfig,
    measuring: Callable[[Path, str], Measure],
) -> Evidence:
    """Return the test data from a folder of photos and a dataset; ``measuring`` makes the measure
    on a split of the dataset.

    Of a dataset, the test split is measured (or valid, if there is none) and the train split used
    for calibration, so that an export is not judged by its own data. A folder's photos are divided
    for that, if there are enough. Raises :class:`DataError` if the folder has no photos.
    """
    shuffled = random.Random(0)
    photos: Sequence[Path] = ()
    calibration: Sequence[Path] = ()
    prepared, measure = False, None
    folder = list(find_photos(images)) if images else []
    if images and not folder:
        raise DataError(f"no photos in {images}")
    if folder:
        calibration = shuffled.sample(folder, min(len(folder), settings.calibration))
        rest = sorted({*folder} - {*calibration}) or folder
        photos = spread(rest if len(rest) >= _CHECKED else folder, _CHECKED)
    if data:
        dataset = read_data_yaml(data)
        judged = next((split for split in ("test", "valid", "train") if split in dataset.splits), "test")
        measure = measuring(data, judged)
        if not folder:
            made = next((split for split in ("train", "valid", "test") if split in dataset.splits), "train")
            known = dataset.images(made)
            calibration = shuffled.sample(known, min(len(known), settings.calibration))
            photos = spread(dataset.images(judged), _CHECKED)
            prepared = bool(declared(data).get("pixels"))
    tolerance = getattr(settings.tolerance, settings.precision)
    return Evidence(photos, calibration, prepared, measure, tolerance, limits)
