"""Preparation of each photo, once: decoded, upright, resized, equalized, and then staged.

The staging folder is addressed by content: an entry is named by the sha256 of the photo's file and
by the treatment. A resumed preparation reads each file, reuses existing entries and decodes the
rest, with the same result.

::

    STAGING/photos/ab/<sha256>-<treatment>.json   the photo's metadata
    STAGING/photos/ab/<sha256>-<treatment>.jpg    its prepared picture, if it differs from the file
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fashionrec.common.documents import read_json
from fashionrec.common.files import fingerprint
from fashionrec.common.folder import Folder
from fashionrec.config import ImagesConfig
from fashionrec.dataset.prepare.augment import Change, change_pixels
from fashionrec.dataset.prepare.rules import Frame
from fashionrec.dataset.prepare.similar import photo_hash
from fashionrec.dataset.source import SourceImage
from fashionrec.errors import ImageError
from fashionrec.photos.decoding import Lost, in_processes
from fashionrec.photos.images import encode_photo, photo_digest, read_photo
from fashionrec.photos.pixels import PixelSpec, placement, prepare_pixels

#: Incremented when the content of an entry changes, so that older entries are not reused.
_VERSION = 2
#: A runner of jobs like :func:`fashionrec.photos.decoding.in_processes`.
Run = Callable[..., Iterator[tuple[Any, Any]]]


@dataclass(frozen=True)
class Treatment:
    """The processing of every photo of a preparation.

    ``hashes``: whether to compute perceptual hashes.
    """

    pixels: PixelSpec
    quality: int
    hashes: bool

    @property
    def short(self) -> str:
        return fingerprint({**asdict(self), "version": _VERSION})[:12]


@dataclass(frozen=True)
class Staged:
    """A prepared photo. ``picture`` is the file for the dataset, ``size`` its width and height.

    ``copied``: the picture is the unchanged file of the source. ``phash`` is hex, empty if not
    computed.
    """

    sha256: str
    frame: Frame
    size: tuple[int, int]
    picture: Path
    picture_sha256: str
    suffix: str
    copied: bool
    phash: str
    format: str
    mode: str


@dataclass(frozen=True)
class Failed:
    """A photo that cannot be used. ``reason`` is a short stable word."""

    reason: str
    message: str


def stage_photos(
    images: Iterable[SourceImage],
    folder: Path,
    treatment: Treatment,
    limits: ImagesConfig,
    *,
    timeout: float,
    workers: int = 0,
    run: Run = in_processes,
) -> Iterator[tuple[SourceImage, Staged | Failed]]:
    """Prepare photos, in order, in ``workers`` processes (0: one per core).

    Failures are yielded, not raised.
    """
    for number in range(256):
        Folder(folder).make_folder(f"photos/{number:02x}", exist_ok=True)
    jobs = ((image, _Job(image.path, folder / "photos", treatment, limits)) for image in images)
    for image, outcome in run(_stage, jobs, timeout=timeout, workers=workers):
        if isinstance(outcome, Lost):
            error = outcome.error(image.key, timeout)
            outcome = Failed(error.reason, str(error))
        yield image, outcome


@dataclass(frozen=True)
class _Job:
    path: Path
    folder: Path
    treatment: Treatment
    limits: ImagesConfig


def _stage(job: _Job) -> Staged | Failed:
    digest = photo_digest(job.path, job.limits.max_bytes)
    if isinstance(digest, ImageError):
        return Failed(digest.reason, str(digest).replace(str(job.path), job.path.name))
    entry = job.folder / digest[:2] / f"{digest}-{job.treatment.short}.json"
    staged = _read_entry(entry, job.path)
    if staged is not None:
        return staged
    try:
        return _prepare(job, entry)
    except ImageError as error:
        return Failed(error.reason, str(error).replace(str(job.path), job.path.name))


def _prepare(job: _Job, entry: Path) -> Staged:
    photo = read_photo(job.path, job.limits)
    stored = photo.stored
    assert stored is not None  # the photo was decoded here
    spec = job.treatment.pixels
    upright = (photo.width, photo.height)
    prepared_size = placement(*upright, spec)[2]
    copied = stored.plain and prepared_size == upright and not spec.equalize
    suffix = {"JPEG": ".jpg", "PNG": ".png"}[stored.format] if copied else ".jpg"
    picture_sha = ""
    if not copied:
        data = encode_photo(prepare_pixels(photo.pixels, spec)[0], job.treatment.quality)
        picture_sha = hashlib.sha256(data).hexdigest()
        _replace(entry.with_suffix(".jpg"), data)
    size = (stored.width, stored.height)
    is_unturned = stored.orientation >= 5 and size == upright and stored.width != stored.height
    document = {
        "sha256": photo.sha256,
        "frame": [size, upright, 1 if is_unturned else stored.orientation],  # the EXIF was too broken to apply
        "size": prepared_size,
        "picture_sha256": picture_sha or photo.sha256,
        "suffix": suffix,
        "copied": copied,
        "phash": photo_hash(photo.pixels).hex() if job.treatment.hashes else "",
        "format": stored.format,
        "mode": stored.mode,
    }
    _replace(entry, json.dumps(document).encode())
    return _from_entry(document, entry, job.path)


def _read_entry(entry: Path, source: Path) -> Staged | None:
    """Return the entry of an earlier, interrupted preparation; None if it is missing or damaged."""
    try:
        staged = _from_entry(read_json(entry), entry, source)
        if not staged.copied and hashlib.sha256(staged.picture.read_bytes()).hexdigest() != staged.picture_sha256:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return staged


def _from_entry(document: dict[str, Any], entry: Path, source: Path) -> Staged:
    if document["suffix"] not in (".jpg", ".png"):  # it becomes part of a file name
        raise ValueError(document["suffix"])
    (stored, upright, orientation), (width, height) = document["frame"], document["size"]
    frame = Frame((stored[0], stored[1]), (upright[0], upright[1]), orientation)
    picture = source if document["copied"] else entry.with_suffix(".jpg")
    return Staged(**{**document, "frame": frame, "size": (width, height), "picture": picture})


@dataclass(frozen=True)
class CopyJob:
    """An augmented copy of a prepared ``picture``; ``entry`` is its staging path without suffix."""

    picture: Path
    change: Change
    entry: Path
    quality: int
    limits: ImagesConfig


def stage_copies(
    jobs: Iterable[CopyJob], *, timeout: float, workers: int = 0, run: Run = in_processes
) -> Iterator[tuple[CopyJob, str]]:
    """Make augmented copies, in order, and yield the sha256 of each ``.jpg``.

    Existing ones are reused.
    """
    for job, digest in run(_copy, ((job, job) for job in jobs), timeout=timeout, workers=workers):
        if isinstance(digest, Lost):
            raise digest.error(job.picture.name, timeout)
        yield job, digest


def _copy(job: CopyJob) -> str:
    metadata = job.entry.with_suffix(".json")
    picture = job.entry.with_suffix(".jpg")
    try:
        digest = str(read_json(metadata)["sha256"])
        if hashlib.sha256(picture.read_bytes()).hexdigest() == digest:
            return digest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    data = encode_photo(change_pixels(read_photo(job.picture, job.limits).pixels, job.change), job.quality)
    digest = hashlib.sha256(data).hexdigest()
    _replace(picture, data)
    _replace(metadata, json.dumps({"sha256": digest}).encode())
    return digest


def _replace(path: Path, data: bytes) -> None:
    """Write a file atomically, without syncing it: a torn entry fails the check of its hash."""
    Folder(path.parent).write(path.name, data, sync=False)
