"""Which photos and label files a dataset has, and what is named and is not there. Nothing is decoded."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fashionrec.common.reach import Refusal, refusals_error
from fashionrec.dataset.audit.findings import Finding
from fashionrec.dataset.sources.layout import key_of
from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import Listed, YoloData, read_data_yaml
from fashionrec.labels.label_lines import label_path, orphan_labels
from fashionrec.types import CLASS_NAMES

#: Photos that people put into folders, and no reader of ours or of the training opens.
UNREAD = frozenset(".heic .heif .raw .cr2 .cr3 .nef .arw .dng .svg .pdf .eps .psb .jxl".split())


@dataclass(frozen=True)
class Entry:
    """A photo of a split. ``key`` is its path relative to the dataset with ``/``; ``labels`` None where there are none."""

    split: str
    path: Path
    key: str
    labels: Path | None


@dataclass
class Listing:
    """``entries`` are in order of split and path, each path once; ``shared`` are paths that another split lists too."""

    root: Path
    names: dict[int, str]
    splits: list[str]
    entries: list[Entry] = field(default_factory=list)
    shared: list[tuple[str, int]] = field(default_factory=list)  # split, position of the entry it shares
    findings: list[Finding] = field(default_factory=list)


def list_dataset(path: Path) -> Listing:
    """Read data.yaml and look what lies where it points. Raises :class:`DataError` where there is no dataset."""
    data = read_data_yaml(path)
    listing = Listing(data.path.parent, data.names, list(data.splits))
    listing.findings += _check_names(data)
    seen: dict[str, int] = {}
    refused: list[Refusal] = []
    for split in data.splits:
        _list_split(listing, data, split, seen, refused)
    if not listing.entries and refused:
        raise refusals_error(data.path, refused)
    if not listing.entries:
        raise DataError(
            f"{data.path} names no photos that are there",
            hint="its train and val are folders, or .txt files that list photos",
        )
    for split, kind in (("train", "missing-split"), ("valid", "missing-split"), ("test", "no-test-split")):
        if split not in data.splits:
            word = "val" if split == "valid" else split
            listing.findings.append(Finding(kind, f"data.yaml names no {word}", split))
    listing.findings += _collisions(listing.entries)
    listing.findings += _orphans(listing, data)
    return listing


#: Kinds of finding by the reason for which something is not read.
_REFUSED = {"link": "link", "outside": "outside-dataset", "special": "special-file"}


def _refusal(refused: Refusal, split: str, line: int | None = None) -> Finding:
    return Finding(_REFUSED[refused.reason], str(refused), split, (refused.name,), line=line)


def _list_split(listing: Listing, data: YoloData, split: str, seen: dict[str, int], refused: list[Refusal]) -> None:
    found: list[Path] = []
    missing = 0
    before = len(refused)
    for listed in data.listed(split, any_list=True):
        if listed.photo:
            found.append(listed.photo)
        elif listed.refused:
            refused.append(listed.refused)
        else:
            missing += 1
            listing.findings.append(_missing(listed, split, listing.root))
    for source in data.splits[split]:
        listing.findings += _unread(data, source, split)
    unread = data.refused_labels(found)
    refused += unread
    listing.findings += [_refusal(one, split) for one in dict.fromkeys(refused[before:])]
    missing += len(refused) - before
    unlabelled = {one.name for one in unread}
    if not found and not missing:
        listing.findings.append(Finding("empty-split", f"{split} has no photos", split))
    for path in sorted(found):
        key, same = key_of(path, listing.root), os.path.realpath(path)
        if same in seen:
            first = listing.entries[seen[same]]
            kind = "listed-twice" if first.split == split else "same-file-across-splits"
            where = f"{split} lists it twice" if first.split == split else f"it is in {first.split} and in {split}"
            listing.findings.append(Finding(kind, where, split, (key,)))
            if first.split != split:
                listing.shared.append((split, seen[same]))
            continue
        seen[same] = len(listing.entries)
        labels, misplaced = _labels_of(path, data)
        if data.reach.name(label_path(path)) in unlabelled:
            pass  # told above
        elif misplaced:
            text = f"{misplaced.name} lies beside the photo, not in {label_path(path).parent.name}/"
            listing.findings.append(Finding("misplaced-label", text, split, (key,)))
        elif labels is None:
            listing.findings.append(Finding("no-label-file", f"there is no {label_path(path).name}", split, (key,)))
        listing.entries.append(Entry(split, path, key, labels))


def _missing(listed: Listed, split: str, root: Path) -> Finding:
    key = key_of(listed.path, root)
    if listed.source is None:
        return Finding("missing-split", f"data.yaml names {key}, which is not there", split)
    told = f"line {listed.line} of {listed.source.name} names it"
    return Finding("missing-image", told, split, (key,), line=listed.line)


def _labels_of(image: Path, data: YoloData) -> tuple[Path | None, Path | None]:
    """The label file that training reads, and one that lies beside the photo instead."""
    right, beside = label_path(image), image.with_suffix(".txt")
    if data.reach.is_file(right):
        return right, None
    return None, beside if beside != right and data.reach.is_file(beside) else None


def _unread(data: YoloData, folder: Path, split: str) -> Iterator[Finding]:
    for path in data.reach.files(folder, [], UNREAD):
        key = key_of(path, data.path.parent)
        yield Finding("unread-format", f"{path.suffix.lower()} is not read", split, (key,))


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
    """Label files of the folders that labels are read from, without a photo of their name."""
    folders: dict[Path, tuple[str, set[Path]]] = {}
    for entry in listing.entries:
        split, photos = folders.setdefault(label_path(entry.path).parent, (entry.split, set()))
        photos.add(entry.path.parent)
    for folder, (split, photos) in folders.items():
        if data.reach.check(folder):
            continue  # told of the photos
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
            f"nc is {count}, and there are {len(names)} names",
            numbers={"nc": count, "names": len(names)},
        )
