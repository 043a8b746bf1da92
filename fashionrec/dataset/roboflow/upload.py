"""Photos for a person to label, sent to a Roboflow project as one named batch, with a detector's boxes to start from.

This is the only place where photos leave the machine. :func:`plan` says beforehand what would be sent, and to whom;
:func:`upload` sends that and nothing else. What is sent is not the file but a new JPEG of its upright pixels: boxes mean the
same there as here, and no EXIF, place or comment of the photo goes along.

A journal (:mod:`upload_journal`) remembers what a project has, so that a batch that was cut off goes on
where it was, and the next one holds other photos.
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

QUALITY = 95  # of the JPEG that is sent
_WITH_BOXES = ("object-detection", "instance-segmentation")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Outgoing:
    """One photo of a batch: ``bytes`` of the JPEG that is sent, and its boxes as lines of a YOLO label file."""

    key: str
    path: Path
    split: str
    sha256: str  # of the file here
    bytes: int
    boxes: tuple[str, ...]
    names: tuple[str, ...]  # of the classes that the lines number


@dataclass(frozen=True)
class Plan:
    """What would be sent: to ``target`` (WORKSPACE/PROJECT) at ``host``. ``left_out`` counts photos by why they do not go."""

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
    """What became of a plan: a row per photo with ``key``, ``state`` (uploaded | duplicate | failed), ``boxes``, ``reason``."""

    plan: Plan
    rows: tuple[dict[str, Any], ...]

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row["state"] for row in self.rows)
        return {state: found[state] for state in ("uploaded", "duplicate", "failed")}


def batch_name(named: str | None, model: str, today: date) -> str:
    """The setting's name, or one by date and model. Raises :class:`ConfigError` for a name that cannot be sent."""
    name = named or f"fashionrec {today.isoformat()} {re.sub(r'[^A-Za-z0-9_.-]+', '-', model).strip('-') or 'model'}"
    # the package puts it in an address
    if not name.strip() or len(name) > 100 or re.search(r"[&#?%+=/\\\x00-\x1f]", name):
        raise ConfigError(f"{name[:100]!r} cannot be a batch's name", hint="letters, digits, spaces, - and _ will do")
    return name


def uploaded(store: Path, target: str) -> set[str]:
    """sha256 of the photos that a project has already, for :func:`fashionrec.dataset.exports.choose.choose` to skip."""
    return {sha256 for sha256, entry in read_journal(journal_path(store, target)).items() if entry["state"] == "done"}


def plan(chosen: Sequence[Chosen], target: str, store: Path, config: Config, *, batch: str, conf: float) -> Plan:
    """The batch that an upload would send, no more than ``roboflow.limit`` photos of that name in all. Nothing is asked.

    Boxes of at least ``conf`` go along. Raises :class:`DataError` for a target that is none, :class:`ConfigError` for a name.
    """
    parse_project(target)
    batch_name(batch, "", date.min)
    known = read_journal(journal_path(store, target))
    room = config.roboflow.limit - sum(e["batch"] == batch and e["state"] == "done" for e in known.values())
    photos: list[Outgoing] = []
    left_out: Counter[str] = Counter()
    for one in chosen:
        if known.get(one.sha256, {}).get("state") == "done":
            left_out["uploaded before"] += 1
        elif len(photos) >= room:
            left_out["over the limit"] += 1
        else:
            try:
                data = _jpeg(one.path, one.sha256, config)
            except ImageError as error:
                left_out[error.reason] += 1
                continue
            names, lines = label_lines(one.garments, one.size, conf)
            split = one.split if one.split in SPLITS else "train"
            photos.append(Outgoing(one.key, one.path, split, one.sha256, len(data), lines, names))
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
    """Plan a batch of the photos that the detector ``model`` is most in doubt about; and say why each, as a document."""
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
    reasons = {one.key: one.reason for one in chosen}
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
    """Send a plan, each photo with its boxes as a prediction to be corrected, to the split that it is in here.

    What the server has already counts as done. What can pass is tried again, after ``pause`` seconds, doubled each time; a
    photo that still fails is a row. Raises :class:`DataError` where the key or the project is refused,
    :class:`FashionrecError` where the connection is lost (what was sent is remembered), :class:`Busy`.
    """
    workspace, project = parse_project(planned.target)
    journal = journal_path(store, planned.target)
    rows: list[dict[str, Any]] = []
    with open_journal(journal, planned.target), connected(workspace, config.roboflow) as client:
        opened = client.project(workspace, project, own=True)
        if opened.type not in _WITH_BOXES:
            raise DataError(f"{planned.target} is a project for {opened.type}: it takes no boxes")
        known = read_journal(journal)
        for photo in planned.photos:
            row = {"key": photo.key, "state": "uploaded", "boxes": len(photo.boxes), "reason": ""}
            try:
                row["state"] = _send(photo, planned.batch, client, opened, known, journal, config, pause)
            except _Lost as lost:
                raise FashionrecError(
                    f"{lost}: {len(rows)} of {len(planned.photos)} photos are dealt with",
                    hint="run this again to go on",
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
    """Class names, and ``class x_center y_center width height`` (relative, 6 decimals) of each garment that is sure enough.

    ``size`` is the photo's width and height; parts of a box outside it are cut off.
    """
    kept = [g for g in garments if g.class_name and not g.whole_photo and (g.confidence or 0) >= conf]
    names = tuple(sorted({str(g.class_name) for g in kept}))
    lines = []
    for garment in kept:
        box = garment.box.clip(*size)
        if box.area > 0:
            label = Label(names.index(str(garment.class_name)), box)
            lines.append(yolo_lines([label], size).rstrip())
    return names, tuple(lines)


class _Refused(Exception):
    """The server will not have this photo."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Lost(Exception):
    """The connection is gone: the next photo would fare no better."""


def _send(
    photo: Outgoing,
    batch: str,
    client: Client,
    project: Any,
    known: dict[str, dict[str, Any]],
    journal: Path,
    config: Config,
    pause: float,
) -> str:
    """Send one photo and its boxes; returns its state. The photo is remembered before its boxes are sent."""
    entry = known.get(photo.sha256)
    retries = config.roboflow.retries
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(photo.key).stem).strip("-.") or "photo"
    if entry is None:
        data = _jpeg(photo.path, photo.sha256, config)
        with tempfile.TemporaryDirectory(prefix="fashionrec-") as folder:
            path = Path(folder, f"{name}.jpg")
            path.write_bytes(data)
            answer = _persist(
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
        # rawText is the package's own form of an annotation that is no file; an image that a person has
        # annotated meanwhile is left as it is, which the package reports as a warning
        label = {"name": f"{name}.txt", "rawText": "\n".join(photo.boxes)}
        _persist(
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
    known[photo.sha256] = entry | {"state": "done"}
    remember(journal, known[photo.sha256])
    return state


def _persist(ask: Callable[[], _T], client: Client, retries: int, pause: float) -> _T:
    """Ask until it is answered. The package would try again after a refusal too, so its own retries are not used."""
    for attempt in range(retries + 1):
        try:
            return ask()
        except FashionrecError:  # of our own connection: a redirect to elsewhere, an answer without end
            raise
        except Exception as error:
            status = getattr(error, "status_code", None)
            if status in (401, 403):
                with told_anew("Roboflow does not accept the key for uploads", client, f"check {KEY}"):
                    raise
            lost = is_connection(error)
            unread = not lost and not isinstance(error, client.adapter.RoboflowError)  # it fell over the answer
            if attempt < retries and (lost or unread or status in PASSING):
                time.sleep(pause * 2**attempt)
            elif lost:
                raise _Lost(f"Roboflow ({client.host}) cannot be reached, or cut the connection") from None
            else:
                reason = "an answer that the roboflow package cannot read" if unread else reason_of(error, client.key)
                raise _Refused(reason) from None
    raise AssertionError("unreachable")


def _jpeg(path: Path, sha256: str, config: Config) -> bytes:
    photo = read_photo(path, config.images)
    if photo.sha256 != sha256:
        raise ImageError(f"{path} has changed since it was chosen", reason="changed")
    return encode_jpeg(photo.pixels, max(photo.width, photo.height), QUALITY)
