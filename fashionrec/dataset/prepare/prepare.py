"""Preparation of a dataset folder for `train`: label rules, pixels, groups, splits, a table.

::

    DATASET/ data.yaml   train|valid|test/{images,labels} annotations.csv, .parquet    one row per
        box, ten columns dataset.json                 sources, settings, counts, dropped and fixed
        cases, pixels, fingerprint problems.csv                 every case that a rule decided
        history.jsonl                a line per photo with its processing steps unlabelled/images
        photos of sources without labels products.jsonl               a shop's products, for
        build-index

An interrupted preparation resumes (:mod:`fashionrec.dataset.prepare.stage`). The dataset appears
complete or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.files import dump_json
from fashionrec.common.text import plural
from fashionrec.config import Config, DatasetConfig
from fashionrec.dataset.prepare.assign import assign_groups, assign_splits
from fashionrec.dataset.prepare.rules import Label, Problem, class_map, clean_boxes
from fashionrec.dataset.prepare.split import SPLITS
from fashionrec.dataset.prepare.stage import Failed, Staged, Treatment, stage_photos
from fashionrec.dataset.prepare.table import write_data_yaml, write_table
from fashionrec.dataset.prepare.write import (
    UNLABELLED,
    Case,
    Record,
    name_files,
    write_copies,
    write_history,
    write_photos,
    write_problems,
    write_products,
)
from fashionrec.dataset.source import Source, SourceImage
from fashionrec.errors import DataError
from fashionrec.photos.pixels import RESIZES, PixelSpec, placement
from fashionrec.types import Box

FORMAT = "fashionrec-dataset"
FORMAT_VERSION = 1
_ROBOFLOW_LIMIT = 2.0  # Roboflow does not document the contrast limit of its adaptive equalization

Progress = Callable[[int, int], None]


def prepare(
    sources: Sequence[Source],
    folder: Path,
    staging: Path,
    config: Config,
    *,
    request: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prepare the dataset of ``sources`` in the empty ``folder``; ``staging`` keeps partial work.

    ``request`` is the fingerprint of the request. Returns the content of dataset.json. Raises
    :class:`DataError` if a rule demands it, no usable photo is left, or the requested splits are
    impossible.
    """
    settings = config.dataset
    spec, recorded_spec = _pixel_specs(sources, settings)
    resplit = _resplit(sources, settings)
    treatment = Treatment(spec, settings.quality, hashes=resplit and settings.near_duplicates >= 0)
    cases: list[Case] = []
    records = list(_records(sources, staging, treatment, config, cases, progress))
    if not records:
        raise DataError("no usable photo is left in the sources", hint=_drop_summary(cases))
    labelled = [record for record in records if record.has_labels]
    groups = assign_groups(labelled, settings.near_duplicates if resplit else -1)
    splits, notes = assign_splits(labelled, groups, settings, keep=not resplit)
    for record, split, group in zip(labelled, splits, groups, strict=True):
        record.placed, record.together = split, group
    cases += [Case(sources[labelled[n].source].label, labelled[n].key, problem) for n, problem in notes]
    name_files(records)
    written = write_photos(records, folder)
    copies = write_copies(records, folder, staging, config) if labelled else []
    present = [split for split in SPLITS if any(image.split == split for image in (*written, *copies))]
    if present:
        write_data_yaml(folder, present)
    table = write_table(folder, sorted((*written, *copies), key=lambda image: (SPLITS.index(image.split), image.path)))
    write_problems(folder, cases)
    write_history(folder, records, sources, spec, settings.quality)
    products = write_products(folder, sources, records)
    counts = dict(table["counts"])
    unlabelled = len(records) - len(labelled)
    if unlabelled:
        counts[UNLABELLED] = unlabelled
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "source": " + ".join(source.label for source in sources),
        "sources": [_source_document(n, source, records) for n, source in enumerate(sources)],
        "settings": settings.model_dump(exclude={"workers"}),
        "counts": counts,
        "copies": len(copies),
        "dropped": _count(cases, "dropped"),
        "fixed": _count(cases, "fixed"),
        "kept": _count(cases, "kept"),
        "pixels": recorded_spec.to_dict(),
        "augment": _augmentation(sources, settings),
        "groups": {
            "photos": len(labelled),
            "groups": len(set(groups)),
            "largest": max(Counter(groups).values(), default=0),
        },
        "product_photos": products,
        "request": request,
        "fingerprint": table["fingerprint"],
    }
    (folder / "dataset.json").write_text(dump_json(document), encoding="utf-8")
    return document


def _records(
    sources: Sequence[Source],
    staging: Path,
    treatment: Treatment,
    config: Config,
    cases: list[Case],
    progress: Progress | None,
) -> Iterator[Record]:
    """Yield the photos that the rules keep, in source order; append decided cases to ``cases``."""
    settings = config.dataset
    mapping = class_map(settings.map)
    total = sum(len(source.images) for source in sources)
    done = 0
    for number, source in enumerate(sources):
        cases += [
            Case(
                source.label,
                str(row.get("key") or row.get("url") or ""),
                Problem(str(row["reason"]), "dropped", str(row.get("message") or row.get("url") or "")),
            )
            for row in source.failed
        ]
        staged = stage_photos(
            source.images,
            staging,
            treatment,
            config.images,
            timeout=config.build.photo_timeout,
            workers=settings.workers,
        )
        for image, outcome in staged:
            done += 1
            if progress:
                progress(done, total)
            if isinstance(outcome, Failed):
                cases.append(Case(source.label, image.key, Problem(outcome.reason, "dropped", outcome.message)))
                continue
            labels, problems = clean_boxes(image, outcome.frame, settings, mapping)
            photo_problems = _photo_problems(image, source, labels, problems, settings)
            cases += [Case(source.label, image.key, problem) for problem in (*problems, *photo_problems)]
            if any(problem.action == "dropped" for problem in photo_problems):
                continue
            yield Record(
                number,
                image.key,
                image.group,
                image.split,
                outcome,
                _prepared_labels(labels, outcome, treatment.pixels),
                source.has_labels,
            )


def _photo_problems(
    image: SourceImage, source: Source, labels: list[Label], problems: list[Problem], settings: DatasetConfig
) -> list[Problem]:
    """Return the problems of the photo as a whole."""
    if not source.has_labels:
        return []
    if settings.unknown_class == "drop-photo" and any(problem.kind == "unknown-class" for problem in problems):
        return [Problem("photo-of-unknown-class", "dropped", "")]
    if not image.labelled:
        return [Problem("no-label-file", _action(settings.unlabelled), "")]
    if not labels:
        return [Problem("no-box", _action(settings.empty), "")]
    return []


def _action(rule: str) -> str:
    return "dropped" if rule == "drop" else "kept"


def _prepared_labels(labels: Sequence[Label], staged: Staged, spec: PixelSpec) -> tuple[Label, ...]:
    """Convert labels from pixels of the upright photo to pixels of the prepared picture."""
    if not labels:
        return ()
    place = placement(*staged.frame.upright, spec)[0]
    corners = place.forward(np.array([box for _, box in labels]))
    return tuple(
        Label(label.class_id, Box(*(float(v) for v in row)).clip(*staged.size))
        for label, row in zip(labels, corners, strict=True)
    )


def _pixel_specs(sources: Sequence[Source], settings: DatasetConfig) -> tuple[PixelSpec, PixelSpec]:
    """Return the pixel spec to apply, and the one to record, which may be that of the sources.

    Preprocessing by a source is not repeated. Raises :class:`DataError` if sources disagree.
    """
    own = PixelSpec(settings.resize, settings.imgsz, settings.equalize, settings.equalize_tiles)
    applied = [(source.label, done_before(source.already)) for source in sources]
    preprocessed = [(label, spec) for label, spec in applied if not spec.changes_nothing]
    if not preprocessed:
        return own, own
    first, spec = preprocessed[0]
    if any(other != spec for _, other in applied):
        raise DataError(
            f"the photos of {first} were preprocessed by their source; those of other sources were not, or differently",
            hint="prepare them separately, or fetch a version without preprocessing",
        )
    return PixelSpec(), spec


def done_before(already: Mapping[str, Any]) -> PixelSpec:
    """Return the closest equivalent of a source's preprocessing that a query photo can get.

    See :mod:`fashionrec.dataset.roboflow.applied` for ``already``. A resize that is not square, a
    crop, and an equalization other than the adaptive one have no equivalent here; the dataset's
    notes list them.
    """
    resize, equalized = already.get("resize") or {}, already.get("equalize") or {}
    mode = resize.get("mode")
    if mode not in RESIZES or resize.get("width") != resize.get("height"):
        mode = "none"
    limit = _ROBOFLOW_LIMIT if equalized.get("kind") == "adaptive" else 0.0
    return PixelSpec(mode, int(resize["width"]) if mode != "none" else PixelSpec().imgsz, limit)


def _augmentation(sources: Sequence[Source], settings: DatasetConfig) -> dict[str, Any]:
    """Return what `train` does on the fly.

    If a source has augmented copies, nothing is added to them.
    """
    done = [source.label for source in sources if "augment" in source.already]
    if done:
        return {"mode": "done", "by": done}
    document: dict[str, Any] = {"mode": settings.augment}
    if settings.augment != "none":
        document |= {"fliplr": settings.fliplr, "flipud": settings.flipud, "degrees": settings.degrees}
    return document


def _resplit(sources: Sequence[Source], settings: DatasetConfig) -> bool:
    """Return whether photos get new splits instead of those of their sources."""
    has_split = [image.split is not None for source in sources if source.has_labels for image in source.images]
    if settings.split == "keep":
        if not all(has_split):
            raise DataError(
                f"dataset.split is keep, but there is no split for {plural(has_split.count(False), 'labelled photo')}",
                hint="--set dataset.split=ratios assigns a new split to every photo",
            )
        return False
    return settings.split == "ratios" or settings.counts is not None or not all(has_split)


def _source_document(number: int, source: Source, records: Sequence[Record]) -> dict[str, Any]:
    own = [record for record in records if record.source == number]
    return {
        "label": source.label,
        "photos": len(source.images) + len(source.failed),
        "failed": len(source.failed),
        "kept": len(own),
        "boxes": sum(len(record.labels) for record in own),
        "labelled": source.has_labels,
        "already": dict(source.already),
        "notes": list(source.notes),
    }


def _count(cases: Sequence[Case], action: str) -> dict[str, int]:
    counts = Counter(case.problem.kind for case in cases if case.problem.action == action)
    return dict(sorted(counts.items()))


def _drop_summary(cases: Sequence[Case]) -> str:
    kinds = Counter(case.problem.kind for case in cases if case.problem.action == "dropped").most_common(3)
    return "dropped: " + ", ".join(f"{count} {kind}" for kind, count in kinds) if kinds else "the sources are empty"
