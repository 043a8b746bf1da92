"""An audit from end to end: list, inspect each photo once, compare, count.

The dataset is not changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashionrec.config import Config
from fashionrec.dataset.audit.boxes import BoxRules
from fashionrec.dataset.audit.classes import check_classes, count
from fashionrec.dataset.audit.disagree import Detections, disagreements
from fashionrec.dataset.audit.duplicates import find_duplicates
from fashionrec.dataset.audit.findings import KINDS, Finding, Mark, check_kinds
from fashionrec.dataset.audit.inspect import Inspected, Rules, inspect_all
from fashionrec.dataset.audit.listing import Entry, Listing, list_dataset
from fashionrec.dataset.audit.shapes import Shapes, measure

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Audit:
    """The result of an audit. ``table`` counts photos and boxes per split (and ``all``) and class.

    ``broken`` are the kinds of finding that are not allowed, the most severe first. ``photos`` are
    the keys of the inspected photos: a finding may also name files that are not read, such as
    links.
    """

    path: Path
    root: Path
    table: Mapping[str, Mapping[str, Any]]
    shapes: Shapes
    findings: tuple[Finding, ...]
    broken: tuple[str, ...]
    min_images: int
    photos: frozenset[str]

    @property
    def counts_by_kind(self) -> dict[str, int]:
        """Number of findings per kind, the most severe kinds first."""
        counts = Counter(finding.kind for finding in self.findings)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        totals = self.table["all"]
        return {
            "path": str(self.path),
            "images": totals["images"],
            "boxes": totals["boxes"],
            "splits": {split: dict(counts) for split, counts in self.table.items() if split != "all"},
            "classes": {
                name: {**counts, "missing": max(0, self.min_images - counts["images"])}
                for name, counts in totals["classes"].items()
            },
            "box_shapes": self.shapes.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
            "counts_by_kind": self.counts_by_kind,
            "broken": list(self.broken),
        }


def audit_dataset(
    path: Path,
    config: Config,
    *,
    detections: Detections | None = None,
    progress: Progress | None = None,
    detect_progress: Progress | None = None,
) -> Audit:
    """Inspect a YOLO dataset (a folder with data.yaml, or the yaml itself) and return its findings.

    Each photo is decoded once, in ``dataset.workers`` processes (1: in this one); with
    ``detections``, a detector with a low confidence threshold, once more. Memory holds a small
    record per photo. Raises :class:`DataError` if there is no dataset, and :class:`ConfigError` for
    an unknown kind in ``audit.allow``.
    """
    allowed = check_kinds(config.audit.allow, "audit.allow")
    listing = list_dataset(path)
    rules = _rules(config, listing)
    inspected: list[Inspected] = []
    jobs = ((entry.path, entry.labels, rules) for entry in listing.entries)
    for photo in inspect_all(jobs, timeout=config.build.photo_timeout, workers=config.dataset.workers):
        inspected.append(photo)
        if progress:
            progress(len(inspected), len(listing.entries))
    table = count(listing, inspected)
    findings = list(listing.findings)
    for entry, photo in zip(listing.entries, inspected, strict=True):
        findings += _photo_findings(entry, photo, listing.names)
    findings += find_duplicates(listing.entries, inspected, config.dataset.near_duplicates)
    findings += check_classes(table, listing.names, config.audit.min_images, config.audit.max_imbalance)
    if detections:
        findings += disagreements(
            listing.entries,
            inspected,
            listing.names,
            detections,
            config.audit.disagree,
            config.images,
            batch=config.detector.batch or 1,
            progress=detect_progress,
        )
    order = {kind: n for n, kind in enumerate(KINDS)}
    findings.sort(key=lambda finding: order[finding.kind])  # stable: keeps the order within a kind
    broken = sorted({finding.kind for finding in findings} - allowed, key=order.__getitem__)
    return Audit(
        path,
        listing.root,
        table,
        measure(inspected),
        tuple(findings),
        tuple(broken),
        config.audit.min_images,
        frozenset(entry.key for entry in listing.entries),
    )


def _rules(config: Config, listing: Listing) -> Rules:
    audit, dataset = config.audit, config.dataset
    boxes = BoxRules(
        tiny=audit.tiny,
        whole=audit.whole,
        max_aspect=audit.max_aspect,
        same_box=audit.same_box,
        repeated=dataset.repeated_iou,
        min_side=dataset.min_side,
    )
    return Rules(listing.names, boxes, audit.min_pixels, config.images)


def _photo_findings(entry: Entry, photo: Inspected, names: Mapping[int, str]) -> Iterator[Finding]:
    for problem in photo.problems:
        yield Finding(
            problem.kind,
            problem.text,
            entry.split,
            (entry.key,),
            problem.box,
            problem.line,
            problem.numbers,
            tuple(Mark(0, names.get(number, str(number)), *box) for number, box in problem.shown),
        )
