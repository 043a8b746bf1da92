"""Uploads of photos for labelling to a Roboflow project, as a batch with a detector's boxes.

This is the only place where photos leave the machine. :func:`plan` states beforehand what would be
sent, and where; :func:`upload` sends exactly that: not the file but a new JPEG of its upright
pixels, so boxes refer to the same pixels on both sides, and no EXIF, location or comment of the
photo is sent.

A journal (:mod:`upload_journal`) records what a project has received, so an interrupted batch
resumes, and the next batch has other photos.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fashionrec.common.text import plural
from fashionrec.dataset.exports.choose import Chosen, Detect, Strategy, choose
from fashionrec.dataset.prepare.rules import Label, yolo_lines
from fashionrec.dataset.prepare.split import SPLITS
from fashionrec.dataset.roboflow.api import (
    KEY,
    PASSING,
    Client,
    api_host,
    connected,
    is_connection,
    parse_project,
    reason_of,
    told_anew,
)
from fashionrec.dataset.roboflow.upload_journal import journal_path, open_journal, read_journal, remember
from fashionrec.errors import ConfigError, DataError, FashionrecError, ImageError
from fashionrec.photos.images import encode_jpeg, read_photo
from fashionrec.types import Garment

if TYPE_CHECKING:
    from fashionrec.config import Config

QUALITY = 95  # of the uploaded JPEG
_WITH_BOXES = ("object-detection", "instance-segmentation")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Outgoing:
    """One photo of a batch: ``bytes`` is the size of its JPEG, ``boxes`` its YOLO label lines."""

    key: str
    path: Path
    split: str
    sha256: str  # of the local file
    bytes: int
    boxes: tuple[str, ...]
    names: tuple[str, ...]  # of the classes in the lines


@dataclass(frozen=True)
class Plan:
    """A batch for ``target`` (WORKSPACE/PROJECT) at ``host``.

    ``left_out`` counts skipped photos by reason.
    """

    target: str
    host: str
    batch: str
    photos: tuple[Outgoing, ...]
    left_out: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(photo.bytes for photo in self.photos)

    @property
    def boxes(self) -> int:
        return sum(len(photo.boxes) for photo in self.photos)


@dataclass(frozen=True)
class Report:
    """The result of an upload, with a row per photo. ``state`` is uploaded, duplicate or failed."""

    plan: Plan
    rows: tuple[dict[str, Any], ...]

    @property
    def counts(self) -> dict[str, int]:
        counts = Counter(row["state"] for row in self.rows)
        return {state: counts[state] for state in ("uploaded", "duplicate", "failed")}


def batch_name(named: str | None, model: str, today: date) -> str:
    """Return the configured name, or one from date and model.

    Raises :class:`ConfigError` for an invalid name.
    """
    name = named or f"fashionrec {today.isoformat()} {re.sub(r'[^A-Za-z0-9_.-]+', '-', model).strip('-') or 'model'}"
    # the package puts the name into a URL
    if not name.strip() or len(name) > 100 or re.search(r"[&#?%+=/\\\x00-\x1f]", name):
        raise ConfigError(f"invalid batch name {name[:100]!r}", hint="use letters, digits, spaces, - and _")
    return name


def uploaded(store: Path, target: str) -> set[str]:
    """Return the sha256 of the photos that a project already has, to skip in ``choose``."""
    return {sha256 for sha256, entry in read_journal(journal_path(store, target)).items() if entry["state"] == "done"}


def plan(chosen: Sequence[Chosen], target: str, store: Path, config: Config, *, batch: str, conf: float) -> Plan:
    """Return the batch to upload: at most ``roboflow.limit`` photos under its name in total.

    Sends no request.

    Boxes of at least ``conf`` are included. Raises :class:`DataError` for an invalid target,
    :class:`ConfigError` for an invalid name.
    """
    parse_project(target)
    batch_name(batch, "", date.min)
    journal = read_journal(journal_path(store, target))
    room = config.roboflow.limit - sum(e["batch"] == batch and e["state"] == "done" for e in journal.values())
    photos: list[Outgoing] = []
    left_out: Counter[str] = Counter()
    for photo in chosen:
        if journal.get(photo.sha256, {}).get("state") == "done":
            left_out["uploaded before"] += 1
        elif len(photos) >= room:
            left_out["over the limit"] += 1
        else:
            try:
                data = _jpeg(photo.path, photo.sha256, config)
            except ImageError as error:
                left_out[error.reason] += 1
                continue
            names, lines = label_lines(photo.garments, photo.size, conf)
            split = photo.split if photo.split in SPLITS else "train"
            photos.append(Outgoing(photo.key, photo.path, split, photo.sha256, len(data), lines, names))
    return Plan(target, api_host(config.roboflow), batch, tuple(photos), dict(left_out))


def plan_doubtful(
    dataset: Path,
    detect: Detect,
    target: str,
    store: Path,
    config: Config,
    *,
    model: str,
    strategy: Strategy,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """Plan a batch of the photos that ``model`` is least certain of; return it and a document."""
    chosen, failed = choose(
        dataset,
        detect,
        config.roboflow.limit,
        limits=config.images,
        strategy=strategy,
        confident=config.audit.disagree,
        near_duplicates=config.dataset.near_duplicates,
        skip=uploaded(store, target),
        progress=progress,
    )
    batch = batch_name(config.roboflow.batch, model, date.today())
    planned = plan(chosen, target, store, config, batch=batch, conf=config.detector.conf)
    reasons = {photo.key: photo.reason for photo in chosen}
    return planned, {
        "target": planned.target,
        "host": planned.host,
        "batch": planned.batch,
        "photos": [
            {"image": photo.key, "boxes": len(photo.boxes), "why": reasons[photo.key]} for photo in planned.photos
        ],
        "bytes": planned.bytes,
        "left_out": planned.left_out,
        "unreadable": failed,
        "sent": None,
    }


def upload(
    planned: Plan,
    store: Path,
    config: Config,
    *,
    progress: Callable[[int, int], None] | None = None,
    pause: float = 1.0,
) -> Report:
    """Send a plan: each photo to its split, with its boxes as a prediction to correct.

    Photos that the server already has count as done. Temporary failures are retried after ``pause``
    seconds, doubled each time; a photo that still fails is a row.

    Raises:
        DataError: The key or the project is refused.
        FashionrecError: The connection is lost; what was sent is recorded.
        Busy: Another process uploads to the project.
    """
    workspace, project = parse_project(planned.target)
    journal = journal_path(store, planned.target)
    rows: list[dict[str, Any]] = []
    with open_journal(journal, planned.target), connected(workspace, config.roboflow) as client:
        remote = client.project(workspace, project, own=True)
        if remote.type not in _WITH_BOXES:
            raise DataError(f"{planned.target} is a project for {remote.type}, which does not support boxes")
        journal_entries = read_journal(journal)
        for photo in planned.photos:
            row = {"key": photo.key, "state": "uploaded", "boxes": len(photo.boxes), "reason": ""}
            try:
                row["state"] = _send(photo, planned.batch, client, remote, journal_entries, journal, config, pause)
            except _Lost as lost:
                raise FashionrecError(
                    f"{lost}: {len(rows):,} of {plural(len(planned.photos), 'photo')} done",
                    hint="run this again to resume",
                ) from None
            except (ImageError, _Refused) as error:
                row |= {"state": "failed", "reason": error.reason}
            rows.append(row)
            if progress:
                progress(len(rows), len(planned.photos))
    return Report(planned, tuple(rows))


def label_lines(
    garments: Sequence[Garment], size: tuple[int, int], conf: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names, and the label lines of garments with at least ``conf`` confidence.

    ``size`` is the photo's width and height; boxes are clipped to it.
    """
    confident = [g for g in garments if g.class_name and not g.whole_photo and (g.confidence or 0) >= conf]
    names = tuple(sorted({str(g.class_name) for g in confident}))
    lines = []
    for garment in confident:
        box = garment.box.clip(*size)
        if box.area > 0:
            label = Label(names.index(str(garment.class_name)), box)
            lines.append(yolo_lines([label], size).rstrip())
    return names, tuple(lines)


class _Refused(Exception):
    """The server refuses this photo."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Lost(Exception):
    """The connection is lost, so the next photo would fail as well."""


def _send(
    photo: Outgoing,
    batch: str,
    client: Client,
    project: Any,
    journal_entries: dict[str, dict[str, Any]],
    journal: Path,
    config: Config,
    pause: float,
) -> str:
    """Send one photo and its boxes; return its state.

    The photo is recorded before its boxes are sent.
    """
    entry = journal_entries.get(photo.sha256)
    retries = config.roboflow.retries
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(photo.key).stem).strip("-.") or "photo"
    if entry is None:
        data = _jpeg(photo.path, photo.sha256, config)
        with tempfile.TemporaryDirectory(prefix="fashionrec-") as folder:
            path = Path(folder, f"{name}.jpg")
            path.write_bytes(data)
            answer = _call_with_retries(
                lambda: project.upload_image(image_path=str(path), split=photo.split, batch_name=batch)[0],
                client,
                retries,
                pause,
            )
        state = "duplicate" if answer.get("duplicate") else "uploaded"
        entry = {"sha256": photo.sha256, "key": photo.key, "batch": batch, "image": answer.get("id"), "state": state}
        remember(journal, entry)
    state = str(entry["state"])
    if photo.boxes and entry["image"]:
        # rawText is the package's form of an annotation without a file; an image that a person has
        # annotated meanwhile stays unchanged, which the package reports as a warning
        label = {"name": f"{name}.txt", "rawText": "\n".join(photo.boxes)}
        _call_with_retries(
            lambda: project.save_annotation(
                annotation_path=label,
                annotation_labelmap=dict(enumerate(photo.names)),
                image_id=entry["image"],
                job_name=batch,
                is_prediction=True,
            ),
            client,
            retries,
            pause,
        )
    journal_entries[photo.sha256] = entry | {"state": "done"}
    remember(journal, journal_entries[photo.sha256])
    return state


def _call_with_retries(call: Callable[[], _T], client: Client, retries: int, pause: float) -> _T:
    """Call until there is a response.

    The package's own retries also repeat refusals, so they are not used.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        except FashionrecError:  # from our own session: a redirect to another origin, an endless response
            raise
        except Exception as error:
            status = getattr(error, "status_code", None)
            if status in (401, 403):
                with told_anew("Roboflow does not accept the key for uploads", client, f"check {KEY}"):
                    raise
            is_lost = is_connection(error)
            # the package failed on the response
            is_invalid = not is_lost and not isinstance(error, client.adapter.RoboflowError)
            if attempt < retries and (is_lost or is_invalid or status in PASSING):
                time.sleep(pause * 2**attempt)
            elif is_lost:
                raise _Lost(f"Roboflow ({client.host}) cannot be reached, or closed the connection") from None
            else:
                reason = (
                    "a response that the roboflow package cannot read" if is_invalid else reason_of(error, client.key)
                )
                raise _Refused(reason) from None
    raise AssertionError("unreachable")


def _jpeg(path: Path, sha256: str, config: Config) -> bytes:
    photo = read_photo(path, config.images)
    if photo.sha256 != sha256:
        raise ImageError(f"{path} has changed since it was selected", reason="changed")
    return encode_jpeg(photo.pixels, max(photo.width, photo.height), QUALITY)
