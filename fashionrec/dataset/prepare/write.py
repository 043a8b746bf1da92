"""The files of a prepared dataset: photos, label files, and a line of history per photo."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fashionrec.common.folder import Folder
from fashionrec.common.system import link
from fashionrec.common.text import TableWriter, json_text, plain_name, visible
from fashionrec.config import Config
from fashionrec.dataset.prepare.augment import change_labels, draw_change
from fashionrec.dataset.prepare.rules import Label, Problem, relative, yolo_lines
from fashionrec.dataset.prepare.stage import CopyJob, Staged, stage_copies
from fashionrec.dataset.prepare.table import TableImage
from fashionrec.dataset.source import Source
from fashionrec.photos.pixels import PixelSpec

UNLABELLED = "unlabelled"


@dataclass
class Record:
    """A photo of the dataset.

    ``labels`` are in pixels of the prepared picture; ``split`` is its source's.

    The destination is set later: ``name`` is its file name without suffix, ``placed`` its split
    (None: unlabelled), and ``together`` its group number.
    """

    source: int
    key: str
    group: str | None
    split: str | None
    staged: Staged
    labels: tuple[Label, ...]
    has_labels: bool
    name: str = ""
    placed: str | None = None
    together: int | None = None

    @property
    def image(self) -> str:
        """Path of the photo in the dataset."""
        return f"{self.placed or UNLABELLED}/images/{self.name}{self.staged.suffix}"


@dataclass(frozen=True)
class Case:
    """A row of problems.csv."""

    source: str
    image: str
    problem: Problem


def name_files(records: Sequence[Record]) -> None:
    """Name each photo after its file, with a part of its hash if two names would be equal.

    A hidden character becomes ``-``: a newline would end a line of a list, and bytes that are not
    UTF-8 are invalid in JSON and XML.
    """
    stems = [plain_name(PurePosixPath(record.key).stem) for record in records]
    uses = Counter(stem.lower() for stem in stems)
    names: set[str] = set()
    for record, stem in zip(records, stems, strict=True):
        name = stem if uses[stem.lower()] == 1 else f"{stem}-{record.staged.sha256[:8]}"
        count = 2
        record.name = name
        while record.name.lower() in names:
            record.name = f"{name}-{count}"
            count += 1
        names.add(record.name.lower())


def write_photos(records: Sequence[Record], folder: Path) -> list[TableImage]:
    """Write photos and their label files; return a table row for each photo that has a split."""
    written = []
    for record in records:
        target = folder / record.image
        target.parent.mkdir(parents=True, exist_ok=True)
        if record.staged.copied:
            shutil.copyfile(record.staged.picture, target)
        else:
            link(record.staged.picture, target)  # until the staging folder is removed
        if record.placed:
            digest = record.staged.picture_sha256
            written.append(_labelled(folder, record.image, record.labels, record.staged.size, digest))
    return written


def write_copies(records: Sequence[Record], folder: Path, staging: Path, config: Config) -> list[TableImage]:
    """Write augmented copies next to the training photos, if ``dataset.augment`` is ``copies``."""
    settings = config.dataset
    if settings.augment != "copies":
        return []
    Folder(staging).make_folder("copies", exist_ok=True)
    plans = []
    for n, record in enumerate(records):
        if record.placed != "train":
            continue
        for count in range(1, settings.copies + 1):
            change = draw_change(
                settings.seed,
                f"{record.staged.sha256}:{record.key}:{count}",
                fliplr=settings.fliplr,
                flipud=settings.flipud,
                degrees=settings.degrees,
            )
            entry = staging / "copies" / f"{n:08d}-{count}-{record.staged.picture_sha256[:16]}"
            job = CopyJob(record.staged.picture, change, entry, settings.quality, config.images)
            plans.append((record, f"train/images/{record.name}_aug{count}.jpg", job))
    written = []
    copies = stage_copies((job for _, _, job in plans), timeout=config.build.photo_timeout, workers=settings.workers)
    for (record, image, job), (_, digest) in zip(plans, copies, strict=True):
        size = record.staged.size
        link(job.entry.with_suffix(".jpg"), folder / image)
        written.append(_labelled(folder, image, change_labels(record.labels, size, job.change), size, digest))
    return written


def _labelled(folder: Path, image: str, labels: Sequence[Label], size: tuple[int, int], digest: str) -> TableImage:
    """Write a photo's label file; return its table row."""
    split, _, name = image.split("/")
    path = folder / split / "labels" / f"{name.rpartition('.')[0]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yolo_lines(labels, size), encoding="utf-8", newline="\n")
    return TableImage(split, image, size, digest, tuple((number, *relative(box, size)) for number, box in labels))


def write_problems(folder: Path, cases: Sequence[Case]) -> None:
    """Write ``problems.csv``, a row per case, with hidden characters of names made visible."""
    with (folder / "problems.csv").open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.writerow(("source", "image", "problem", "action", "detail"))
        writer.writerows(map(visible, (case.source, case.image, *case.problem)) for case in cases)


def write_history(
    folder: Path, records: Sequence[Record], sources: Sequence[Source], spec: PixelSpec, quality: int
) -> None:
    """Write ``history.jsonl``: each photo's source and the processing steps of its file."""
    with (folder / "history.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            staged = record.staged
            line = {
                "image": record.image,
                "source": sources[record.source].label,
                "key": record.key,
                "sha256": staged.sha256,
                "already": dict(sources[record.source].already),
                "steps": _steps(staged, spec, quality),
                "group": record.together,
                "boxes": len(record.labels),
            }
            file.write(json_text(line, stored=True) + "\n")


def _steps(staged: Staged, spec: PixelSpec, quality: int) -> list[str]:
    if staged.copied:
        return ["copied byte for byte"]
    steps = []
    if staged.frame.orientation != 1:
        steps.append(f"turned upright, EXIF orientation {staged.frame.orientation}")
    if staged.mode != "RGB":
        steps.append(f"{staged.mode} to RGB")
    if staged.size != staged.frame.upright:
        before, after = ("x".join(map(str, size)) for size in (staged.frame.upright, staged.size))
        steps.append(f"{spec.resize} {before} to {after}")
    if spec.equalize:
        steps.append(f"equalized, limit {spec.equalize:g}, {spec.tiles}x{spec.tiles} tiles")
    return [*steps, f"{staged.format} to JPEG, quality {quality}"]


def write_products(folder: Path, sources: Sequence[Source], records: Sequence[Record]) -> int:
    """Write ``products.jsonl``, a line per product photo; return the number of lines."""
    lines = []
    for record in records:
        product = sources[record.source].products.get(record.key)
        if product is not None:
            lines.append(json_text({"image": record.image, **product}, stored=True))
    if lines:
        (folder / "products.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return len(lines)
