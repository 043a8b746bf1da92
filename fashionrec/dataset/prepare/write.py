"""The files of a prepared dataset: photos, their label files, and what is told of each of them, a line a photo."""

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
    """One photo that stays. ``labels`` are in pixels of the prepared picture, ``split`` as its source has it.

    Where it goes is found later: ``name`` is that of its file here, without suffix, ``placed`` its split (None:
    unlabelled), and ``together`` the number of its group.
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
        """Where the photo is in the dataset."""
        return f"{self.placed or UNLABELLED}/images/{self.name}{self.staged.suffix}"


@dataclass(frozen=True)
class Case:
    """A row of problems.csv."""

    source: str
    image: str
    problem: Problem


def name_files(records: Sequence[Record]) -> None:
    """Name each photo as its file, and where two would be one, with a part of its hash too.

    A hidden character becomes ``-``: a newline would end a line of a list, and what is not UTF-8 has no place in JSON or XML.
    """
    stems = [plain_name(PurePosixPath(record.key).stem) for record in records]
    uses = Counter(stem.lower() for stem in stems)
    taken: set[str] = set()
    for record, stem in zip(records, stems, strict=True):
        name = stem if uses[stem.lower()] == 1 else f"{stem}-{record.staged.sha256[:8]}"
        count = 2
        record.name = name
        while record.name.lower() in taken:
            record.name = f"{name}-{count}"
            count += 1
        taken.add(record.name.lower())


def write_photos(records: Sequence[Record], folder: Path) -> list[TableImage]:
    """Photos under their names and their label files; a row of the table for each that is in a split."""
    written = []
    for record in records:
        target = folder / record.image
        target.parent.mkdir(parents=True, exist_ok=True)
        if record.staged.copied:
            shutil.copyfile(record.staged.picture, target)
        else:
            link(record.staged.picture, target)  # until the staging folder goes
        if record.placed:
            digest = record.staged.picture_sha256
            written.append(_labelled(folder, record.image, record.labels, record.staged.size, digest))
    return written


def write_copies(records: Sequence[Record], folder: Path, staging: Path, config: Config) -> list[TableImage]:
    """Augmented copies of the training photos, beside them, where the setting asks for copies."""
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
    made = stage_copies((job for _, _, job in plans), timeout=config.build.photo_timeout, workers=settings.workers)
    for (record, image, job), (_, digest) in zip(plans, made, strict=True):
        size = record.staged.size
        link(job.entry.with_suffix(".jpg"), folder / image)
        written.append(_labelled(folder, image, change_labels(record.labels, size, job.change), size, digest))
    return written


def _labelled(folder: Path, image: str, labels: Sequence[Label], size: tuple[int, int], digest: str) -> TableImage:
    """Write a photo's label file; returns its row of the table."""
    split, _, name = image.split("/")
    path = folder / split / "labels" / f"{name.rpartition('.')[0]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yolo_lines(labels, size), encoding="utf-8", newline="\n")
    return TableImage(split, image, size, digest, tuple((number, *relative(box, size)) for number, box in labels))


def write_problems(folder: Path, cases: Sequence[Case]) -> None:
    """``problems.csv``, a row per case, for people: what is hidden in a name is shown."""
    with (folder / "problems.csv").open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.writerow(("source", "image", "problem", "action", "detail"))
        writer.writerows(map(visible, (case.source, case.image, *case.problem)) for case in cases)


def write_history(
    folder: Path, records: Sequence[Record], sources: Sequence[Source], spec: PixelSpec, quality: int
) -> None:
    """``history.jsonl``: where each photo came from, and every step between its file and the one here."""
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
    """``products.jsonl``, a line per photo of a product, for `build-index`; how many lines."""
    lines = []
    for record in records:
        product = sources[record.source].products.get(record.key)
        if product is not None:
            lines.append(json_text({"image": record.image, **product}, stored=True))
    if lines:
        (folder / "products.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return len(lines)
