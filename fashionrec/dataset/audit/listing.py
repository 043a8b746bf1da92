"""The photos and label files of a dataset, and the ones that are missing. Nothing is decoded."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fashionrec.common.reach import Refusal, refusals_error
from fashionrec.common.text import plural
from fashionrec.dataset.audit.findings import Finding
from fashionrec.dataset.sources.layout import key_of
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import Listed, YoloData, read_data_yaml
from fashionrec.labels.label_lines import label_path, orphan_labels
from fashionrec.types import CLASS_NAMES

#: Suffixes of photos that neither our readers nor the training open.
UNREAD = frozenset(".heic .heif .raw .cr2 .cr3 .nef .arw .dng .svg .pdf .eps .psb .jxl".split())


@dataclass(frozen=True)
class Entry:
    """A photo of a split.

    ``key`` is its path relative to the dataset, with ``/``; ``labels`` is None if missing.
    """

    split: str
    path: Path
    key: str
    labels: Path | None


@dataclass
class Listing:
    """A dataset's photos.

    ``entries``, ordered by split and path; ``shared`` are in several splits.
    """

    root: Path
    names: dict[int, str]
    splits: list[str]
    entries: list[Entry] = field(default_factory=list)
    shared: list[tuple[str, int]] = field(default_factory=list)  # split, position of the shared entry
    findings: list[Finding] = field(default_factory=list)


def list_dataset(path: Path) -> Listing:
    """Read data.yaml and list the files it points to.

    Raises :class:`DataError` if there is no dataset.
    """
    data = read_data_yaml(path)
    listing = Listing(data.path.parent, data.names, list(data.splits))
    listing.findings += _check_names(data)
    positions: dict[str, int] = {}
    refused: list[Refusal] = []
    for split in data.splits:
        _list_split(listing, data, split, positions, refused)
    if not listing.entries and refused:
        raise refusals_error(data.path, refused)
    if not listing.entries:
        raise DataError(
            f"{data.path} lists no existing photos",
            hint="train and val must be folders, or .txt files that list photos",
        )
    for split, kind in (("train", "missing-split"), ("valid", "missing-split"), ("test", "no-test-split")):
        if split not in data.splits:
            key = "val" if split == "valid" else split
            listing.findings.append(Finding(kind, f"data.yaml has no {key}", split))
    listing.findings += _collisions(listing.entries)
    listing.findings += _orphans(listing, data)
    return listing


#: Kinds of finding by the reason of a refusal.
_REFUSED = {"link": "link", "outside": "outside-dataset", "special": "special-file"}


def _refusal(refused: Refusal, split: str, line: int | None = None) -> Finding:
    return Finding(_REFUSED[refused.reason], str(refused), split, (refused.name,), line=line)


def _list_split(
    listing: Listing, data: YoloData, split: str, positions: dict[str, int], refused: list[Refusal]
) -> None:
    photos: list[Path] = []
    missing = 0
    refused_before = len(refused)
    for listed in data.listed(split, any_list=True):
        if listed.photo:
            photos.append(listed.photo)
        elif listed.refused:
            refused.append(listed.refused)
        else:
            missing += 1
            listing.findings.append(_missing(listed, split, listing.root))
    for source in data.splits[split]:
        listing.findings += _unread(data, source, split)
    refused_labels = data.refused_labels(photos)
    refused += refused_labels
    listing.findings += [_refusal(refusal, split) for refusal in dict.fromkeys(refused[refused_before:])]
    missing += len(refused) - refused_before
    refused_names = {refusal.name for refusal in refused_labels}
    if not photos and not missing:
        listing.findings.append(Finding("empty-split", f"{split} has no photos", split))
    for path in sorted(photos):
        key, real_path = key_of(path, listing.root), os.path.realpath(path)
        if real_path in positions:
            first = listing.entries[positions[real_path]]
            kind = "listed-twice" if first.split == split else "same-file-across-splits"
            where = f"{split} lists it twice" if first.split == split else f"it is in {first.split} and in {split}"
            listing.findings.append(Finding(kind, where, split, (key,)))
            if first.split != split:
                listing.shared.append((split, positions[real_path]))
            continue
        positions[real_path] = len(listing.entries)
        labels, misplaced = _labels_of(path, data)
        if data.reach.name(label_path(path)) in refused_names:
            pass  # reported above
        elif misplaced:
            text = f"{misplaced.name} is next to the photo, not in {label_path(path).parent.name}/"
            listing.findings.append(Finding("misplaced-label", text, split, (key,)))
        elif labels is None:
            listing.findings.append(Finding("no-label-file", f"{label_path(path).name} is missing", split, (key,)))
        listing.entries.append(Entry(split, path, key, labels))


def _missing(listed: Listed, split: str, root: Path) -> Finding:
    key = key_of(listed.path, root)
    if listed.source is None:
        return Finding("missing-split", f"data.yaml names {key}, which is missing", split)
    text = f"it is in line {listed.line} of {listed.source.name}"
    return Finding("missing-image", text, split, (key,), line=listed.line)


def _labels_of(image: Path, data: YoloData) -> tuple[Path | None, Path | None]:
    """Return the label file that training reads, and one next to the photo instead."""
    right, misplaced = label_path(image), image.with_suffix(".txt")
    if data.reach.is_file(right):
        return right, None
    return None, misplaced if misplaced != right and data.reach.is_file(misplaced) else None


def _unread(data: YoloData, folder: Path, split: str) -> Iterator[Finding]:
    for path in data.reach.files(folder, [], UNREAD):
        key = key_of(path, data.path.parent)
        yield Finding("unread-format", f"{path.suffix.lower()} is not supported", split, (key,))


def _collisions(entries: Sequence[Entry]) -> Iterator[Finding]:
    owners: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        owners[label_path(entry.path)].append(entry)
    for path, sharing in owners.items():
        if len(sharing) > 1:
            names = ", ".join(entry.path.name for entry in sharing)
            yield Finding(
                "name-collision", f"{names} share {path.name}", sharing[0].split, tuple(entry.key for entry in sharing)
            )


def _orphans(listing: Listing, data: YoloData) -> Iterator[Finding]:
    """Yield label files in the label folders without a photo of the same name."""
    folders: dict[Path, tuple[str, set[Path]]] = {}
    for entry in listing.entries:
        split, photos = folders.setdefault(label_path(entry.path).parent, (entry.split, set()))
        photos.add(entry.path.parent)
    for folder, (split, photos) in folders.items():
        if data.reach.check(folder):
            continue  # reported with the photos
        for path in orphan_labels(folder, photos, data.reach):
            if isinstance(path, Refusal):
                yield _refusal(path, split)
                continue
            key = key_of(path, listing.root)
            yield Finding("orphan-label", f"{path.name} has no photo", split, (key,))


def _check_names(data: YoloData) -> Iterator[Finding]:
    names = [data.names[number] for number in sorted(data.names)]
    if names != list(CLASS_NAMES) or sorted(data.names) != list(range(len(names))):
        text = f"data.yaml has {', '.join(f'{number} {name}' for number, name in sorted(data.names.items()))}"
        yield Finding("class-names", text[:400], numbers={"names": {str(k): v for k, v in sorted(data.names.items())}})
    count = data.document.get("nc", len(names))
    if count != len(names):
        yield Finding(
            "class-count",
            f"nc is {count}, but there are {plural(len(names), 'name')}",
            numbers={"nc": count, "names": len(names)},
        )
