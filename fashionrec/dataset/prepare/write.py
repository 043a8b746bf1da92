"""The files of a prepared dataset: photos, their label files, and what is told of each of them, a line a photo."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fashionrec.common.folder import Folder
from fashionrec.common.text import TableWriter, json_text, plain_name, visible
from fashionrec.config import Config, DatasetConfig
from fashionrec.dataset.prepare.augment import change_labels, draw_change
from fashionrec.dataset.prepare.rules import Label, Problem, relative, yolo_lines
from fashionrec.dataset.prepare.stage import CopyJob, Staged, stage_copies
from fashionrec.dataset.prepare.table import TableImage
from fashionrec.dataset.source import Source
from fashionrec.photos.pixels import PixelSpec

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Record:
    """One photo that stays. ``labels`` are in pixels of the prepared picture, ``split`` as its source has it."""

    source: int
    key: str
    group: str | None
    split: str | None
    staged: Staged
    labels: tuple[Label, ...]
    has_labels: bool


@dataclass(frozen=True)
class Case:
    """A row of problems.csv."""

    source: str
    image: str
    problem: Problem


def file_names(records: Sequence[Record]) -> list[str]:
    """A file name for each photo, without suffix: that of its file, and where two would be one, a part of its hash too.

    A hidden character becomes ``-``: a newline would end a line of a list, and what is not UTF-8 has no place in JSON or XML.
    """
    stems = [plain_name(PurePosixPath(record.key).stem) for record in records]
    uses = Counter(stem.lower() for stem in stems)
    names: list[str] = []
    taken: set[str] = set()
    for record, stem in zip(records, stems, strict=True):
        name = stem if uses[stem.lower()] == 1 else f"{stem}-{record.staged.sha256[:8]}"
        count = 2
        unique = name
        while unique.lower() in taken:
            unique = f"{name}-{count}"
            count += 1
        taken.add(unique.lower())
        names.append(unique)
    return names


def write_photos(
    records: Sequence[Record], names: Sequence[str], placed: dict[int, str], folder: Path
) -> list[TableImage]:
    """Photos under their names and their label files; a row of the table for each that is in a split."""
    written = []
    for n, record in enumerate(records):
        split = placed.get(n)
        images = folder / (split or UNLABELLED) / "images"
        images.mkdir(parents=True, exist_ok=True)
        target = images / f"{names[n]}{record.staged.suffix}"
        if record.staged.copied:
            shutil.copyfile(record.staged.picture, target)
        else:
            _link(record.staged.picture, target)
        if split is None:
            continue
        size = record.staged.size
        _write_labels(folder / split / "labels" / f"{names[n]}.txt", record.labels, size)
        written.append(_row(split, target.name, size, record.staged.picture_sha256, record.labels))
    return written


def write_copies(
    records: Sequence[Record],
    names: Sequence[str],
    placed: dict[int, str],
    folder: Path,
    staging: Path,
    settings: DatasetConfig,
    config: Config,
) -> list[TableImage]:
    """Augmented copies of the training photos, beside them, where the setting asks for copies."""
    if settings.augment != "copies":
        return []
    Folder(staging).make_folder("copies", exist_ok=True)
    plans = []
    for n, record in enumerate(records):
        if placed.get(n) != "train":
            continue
        for count in range(1, settings.copies + 1):
            name = f"{names[n]}_aug{count}"
            change = draw_change(
                settings.seed,
                f"{record.staged.sha256}:{record.key}:{count}",
                fliplr=settings.fliplr,
                flipud=settings.flipud,
                degrees=settings.degrees,
            )
            entry = staging / "copies" / f"{n:08d}-{count}-{record.staged.picture_sha256[:16]}"
            plans.append((record, name, CopyJob(record.staged.picture, change, entry, settings.quality, config.images)))
    written = []
    made = stage_copies((job for _, _, job in plans), timeout=config.build.photo_timeout, workers=settings.workers)
    for (record, name, job), (_, digest) in zip(plans, made, strict=True):
        labels = change_labels(record.labels, record.staged.size, job.change)
        target = folder / "train" / "images" / f"{name}.jpg"
        _link(job.entry.with_suffix(".jpg"), target)
        _write_labels(folder / "train" / "labels" / f"{name}.txt", labels, record.staged.size)
        written.append(_row("train", target.name, record.staged.size, digest, labels))
    return written


def _row(split: str, name: str, size: tuple[int, int], digest: str, labels: Sequence[Label]) -> TableImage:
    boxes = tuple((number, *relative(box, size)) for number, box in labels)
    return TableImage(split, f"{split}/images/{name}", size, digest, boxes)


def _write_labels(path: Path, labels: Sequence[Label], size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yolo_lines(labels, size), encoding="utf-8", newline="\n")


def _link(source: Path, target: Path) -> None:
    """A staged file under its name in the dataset; both are one file until the staging folder goes."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def write_problems(folder: Path, cases: Sequence[Case]) -> None:
    """``problems.csv``, a row per case, for people: what is hidden in a name is shown."""
    with (folder / "problems.csv").open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.writerow(("source", "image", "problem", "action", "detail"))
        writer.writerows(map(visible, (case.source, case.image, *case.problem)) for case in cases)


def write_history(
    folder: Path,
    records: Sequence[Record],
    names: Sequence[str],
    placed: dict[int, str],
    groups: Sequence[int],
    labelled: Sequence[int],
    sources: Sequence[Source],
    spec: PixelSpec,
    settings: DatasetConfig,
) -> None:
    """``history.jsonl``: where each photo came from, and every step between its file and the one here."""
    group_of = dict(zip(labelled, groups, strict=True))
    with (folder / "history.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for n, record in enumerate(records):
            staged = record.staged
            line = {
                "image": f"{placed.get(n, UNLABELLED)}/images/{names[n]}{staged.suffix}",
                "source": sources[record.source].label,
                "key": record.key,
                "sha256": staged.sha256,
                "already": dict(sources[record.source].already),
                "steps": _steps(staged, spec, settings),
                "group": group_of.get(n),
                "boxes": len(record.labels),
            }
            file.write(json_text(line, stored=True) + "\n")


def _steps(staged: Staged, spec: PixelSpec, settings: DatasetConfig) -> list[str]:
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
    return [*steps, f"{staged.format} to JPEG, quality {settings.quality}"]


def write_products(folder: Path, sources: Sequence[Source], records: Sequence[Record], names: Sequence[str]) -> int:
    """``products.jsonl``, a line per photo of a product, for `build-index`; how many lines."""
    lines = []
    for n, record in enumerate(records):
        product = sources[record.source].products.get(record.key)
        if product is not None:
            image = f"{UNLABELLED}/images/{names[n]}{record.staged.suffix}"
            lines.append(json_text({"image": image, **product}, stored=True))
    if lines:
        (folder / "products.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return len(lines)
