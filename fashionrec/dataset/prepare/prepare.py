"""From sources to a dataset folder that `train` can be handed: rules for labels, prepared pixels, groups, splits, a table.

::

    DATASET/
      data.yaml   train|valid|test/{images,labels}
      annotations.csv, .parquet    one row per box, ten columns
      dataset.json                 sources, settings, counts, what was dropped or fixed, pixels, fingerprint
      problems.csv                 every case that a rule decided
      history.jsonl                what became of each photo, a line each
      unlabelled/images            photos of sources without labels
      products.jsonl               a shop's products, for build-index

A killed preparation loses nothing: see :mod:`fashionrec.dataset.prepare.stage`. The dataset appears whole, or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.files import dump_json
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
_THEIR_LIMIT = 2.0  # Roboflow does not tell the contrast limit of its adaptive equalization

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
    """Make the dataset of ``sources`` in the empty ``folder``; what is unfinished is kept in ``staging``.

    ``request`` names what was asked for. Returns what its dataset.json holds. Raises
    :class:`DataError` if a rule says so, nothing usable is left, or the splits asked for are not possible.
    """
    settings = config.dataset
    spec, told = _pixels_of(sources, settings)
    resplit = _resplit(sources, settings)
    treatment = Treatment(spec, settings.quality, hashes=resplit and settings.near_duplicates >= 0)
    cases: list[Case] = []
    records = list(_records(sources, staging, treatment, config, cases, progress))
    if not records:
        raise DataError("no photo is left of what the sources hold", hint=_most(cases))
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
        "pixels": told.to_dict(),
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
    """Photos that the rules leave, in the order of their sources; every case that a rule decided goes to ``cases``."""
    settings = config.dataset
    mapped = class_map(settings.map)
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
            labels, problems = clean_boxes(image, outcome.frame, settings, mapped)
            verdict = _verdict(image, source, labels, problems, settings)
            cases += [Case(source.label, image.key, problem) for problem in (*problems, *verdict)]
            if any(problem.action == "dropped" for problem in verdict):
                continue
            yield Record(
                number,
                image.key,
                image.group,
                image.split,
                outcome,
                _placed(labels, outcome, treatment.pixels),
                source.has_labels,
            )


def _verdict(
    image: SourceImage, source: Source, labels: list[Label], problems: list[Problem], settings: DatasetConfig
) -> list[Problem]:
    """What becomes of the photo as a whole, where a rule speaks of it."""
    if not source.has_labels:
        return []
    if settings.unknown_class == "drop-photo" and any(problem.kind == "unknown-class" for problem in problems):
        return [Problem("photo-of-unknown-class", "dropped", "")]
    if not image.labelled:
        return [Problem("no-label-file", _kept(settings.unlabelled), "")]
    if not labels:
        return [Problem("no-box", _kept(settings.empty), "")]
    return []


def _kept(rule: str) -> str:
    return "dropped" if rule == "drop" else "kept"


def _placed(labels: Sequence[Label], staged: Staged, spec: PixelSpec) -> tuple[Label, ...]:
    """Labels from pixels of the upright photo to pixels of the prepared picture."""
    if not labels:
        return ()
    place = placement(*staged.frame.upright, spec)[0]
    moved = place.forward(np.array([box for _, box in labels]))
    return tuple(
        Label(label.class_id, Box(*(float(v) for v in row)).clip(*staged.size))
        for label, row in zip(labels, moved, strict=True)
    )


def _pixels_of(sources: Sequence[Source], settings: DatasetConfig) -> tuple[PixelSpec, PixelSpec]:
    """What is done to pixels here, and what the dataset says was done to them: the same, unless a source did it before.

    What a source says was done to its pixels is not done again. Raises :class:`DataError` where sources disagree.
    """
    here = PixelSpec(settings.resize, settings.imgsz, settings.equalize, settings.equalize_tiles)
    before = [(source.label, done_before(source.already)) for source in sources]
    treated = [(label, spec) for label, spec in before if not spec.changes_nothing]
    if not treated:
        return here, here
    first, spec = treated[0]
    if any(other != spec for _, other in before):
        raise DataError(
            f"the pixels of {first} were changed where they come from, and those of other sources were not, or otherwise",
            hint="prepare them apart, or fetch a version of it that was not preprocessed",
        )
    return PixelSpec(), spec


def done_before(already: Mapping[str, Any]) -> PixelSpec:
    """What a source did to its pixels, as near as we can do it to a photo that is asked about.

    See :mod:`fashionrec.dataset.roboflow.applied` for ``already``. A resize to what is no square, a crop, and an
    equalization other than the adaptive one have no counterpart here; the dataset's notes say that they were done.
    """
    resize, equalized = already.get("resize") or {}, already.get("equalize") or {}
    mode = resize.get("mode")
    if mode not in RESIZES or resize.get("width") != resize.get("height"):
        mode = "none"
    limit = _THEIR_LIMIT if equalized.get("kind") == "adaptive" else 0.0
    return PixelSpec(mode, int(resize["width"]) if mode != "none" else PixelSpec().imgsz, limit)


def _augmentation(sources: Sequence[Source], settings: DatasetConfig) -> dict[str, Any]:
    """What `train` is to do on the fly. Where copies are there already, no more is added to them."""
    done = [source.label for source in sources if "augment" in source.already]
    if done:
        return {"mode": "done", "by": done}
    document: dict[str, Any] = {"mode": settings.augment}
    if settings.augment != "none":
        document |= {"fliplr": settings.fliplr, "flipud": settings.flipud, "degrees": settings.degrees}
    return document


def _resplit(sources: Sequence[Source], settings: DatasetConfig) -> bool:
    """Whether photos are dealt out anew, rather than left in the splits of their sources."""
    have = [image.split is not None for source in sources if source.has_labels for image in source.images]
    if settings.split == "keep":
        if not all(have):
            raise DataError(
                f"dataset.split is keep, but {have.count(False)} labelled photos are in no split",
                hint="--set dataset.split=ratios deals all of them out",
            )
        return False
    return settings.split == "ratios" or settings.counts is not None or not all(have)


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
    found = Counter(case.problem.kind for case in cases if case.problem.action == action)
    return dict(sorted(found.items()))


def _most(cases: Sequence[Case]) -> str:
    found = Counter(case.problem.kind for case in cases if case.problem.action == "dropped").most_common(3)
    return "dropped: " + ", ".join(f"{count} {kind}" for kind, count in found) if found else "the sources are empty"
