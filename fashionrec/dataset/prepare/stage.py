"""Each photo prepared once: decoded, turned upright, resized, equalized; kept until the dataset is whole.

The staging folder is addressed by content: a photo's entry is named by the sha256 of its file and the treatment. A preparation
that was killed and is started again reads each file, finds what is there, and decodes the rest; what it writes is the same.

::

    STAGING/photos/ab/<sha256>-<treatment>.json   what the photo is
    STAGING/photos/ab/<sha256>-<treatment>.jpg    its prepared picture, where it differs from the file
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

#: Raised when what an entry holds changes, so that a newer fashionrec does not take an older one's entries.
_VERSION = 2
#: How jobs are run, as :func:`fashionrec.photos.decoding.in_processes` does it.
Run = Callable[..., Iterator[tuple[Any, Any]]]


@dataclass(frozen=True)
class Treatment:
    """What is done to every photo of a preparation; ``hashes``: whether perceptual hashes are wanted."""

    pixels: PixelSpec
    quality: int
    hashes: bool

    @property
    def short(self) -> str:
        return fingerprint({**asdict(self), "version": _VERSION})[:12]


@dataclass(frozen=True)
class Staged:
    """A photo that was prepared: ``picture`` is the file to put into the dataset, ``size`` its width and height.

    ``copied`` says that it is the source's own file. ``phash`` is hex, empty where none was wanted.
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
    """A photo that cannot be used, and why: ``reason`` is a short stable word."""

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
    """Prepare photos, in order, in ``workers`` processes (0 = as many as cores). A failure is a value, never raised."""
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
    found = _read_entry(entry, job.path)
    if found is not None:
        return found
    try:
        return _prepare(job, entry)
    except ImageError as error:
        return Failed(error.reason, str(error).replace(str(job.path), job.path.name))


def _prepare(job: _Job, entry: Path) -> Staged:
    photo = read_photo(job.path, job.limits)
    stored = photo.stored
    assert stored is not None  # it was decoded here
    spec = job.treatment.pixels
    upright = (photo.width, photo.height)
    whole = placement(*upright, spec)[2]
    copied = stored.plain and whole == upright and not spec.equalize
    suffix = {"JPEG": ".jpg", "PNG": ".png"}[stored.format] if copied else ".jpg"
    picture_sha = ""
    if not copied:
        data = encode_photo(prepare_pixels(photo.pixels, spec)[0], job.treatment.quality)
        picture_sha = hashlib.sha256(data).hexdigest()
        _replace(entry.with_suffix(".jpg"), data)
    size = (stored.width, stored.height)
    unturned = stored.orientation >= 5 and size == upright and stored.width != stored.height
    document = {
        "sha256": photo.sha256,
        "frame": [size, upright, 1 if unturned else stored.orientation],  # EXIF too broken to turn by
        "size": whole,
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
    """What an earlier, unfinished preparation left; None where it left nothing, or something that is not whole."""
    try:
        staged = _from_entry(read_json(entry), entry, source)
        if not staged.copied and hashlib.sha256(staged.picture.read_bytes()).hexdigest() != staged.picture_sha256:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return staged


def _from_entry(document: dict[str, Any], entry: Path, source: Path) -> Staged:
    if document["suffix"] not in (".jpg", ".png"):  # it becomes a part of a file's name
        raise ValueError(document["suffix"])
    (stored, upright, orientation), (width, height) = document["frame"], document["size"]
    frame = Frame((stored[0], stored[1]), (upright[0], upright[1]), orientation)
    picture = source if document["copied"] else entry.with_suffix(".jpg")
    return Staged(**{**document, "frame": frame, "size": (width, height), "picture": picture})


@dataclass(frozen=True)
class CopyJob:
    """An augmented copy to make of a prepared ``picture``; ``entry`` is where it is staged, without its suffix."""

    picture: Path
    change: Change
    entry: Path
    quality: int
    limits: ImagesConfig


def stage_copies(
    jobs: Iterable[CopyJob], *, timeout: float, workers: int = 0, run: Run = in_processes
) -> Iterator[tuple[CopyJob, str]]:
    """Make augmented copies, in order; each job with the sha256 of its ``.jpg``. What is there already is kept."""
    for job, digest in run(_copy, ((job, job) for job in jobs), timeout=timeout, workers=workers):
        if isinstance(digest, Lost):
            raise digest.error(job.picture.name, timeout)
        yield job, digest


def _copy(job: CopyJob) -> str:
    note = job.entry.with_suffix(".json")
    picture = job.entry.with_suffix(".jpg")
    try:
        digest = str(read_json(note)["sha256"])
        if hashlib.sha256(picture.read_bytes()).hexdigest() == digest:
            return digest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    data = encode_photo(change_pixels(read_photo(job.picture, job.limits).pixels, job.change), job.quality)
    digest = hashlib.sha256(data).hexdigest()
    _replace(picture, data)
    _replace(note, json.dumps({"sha256": digest}).encode())
    return digest


def _replace(path: Path, data: bytes) -> None:
    """Whole or not there for whoever comes after a kill; not synced, for a torn entry is found by its hash."""
    Folder(path.parent).write(path.name, data, sync=False)
