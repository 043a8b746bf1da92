"""Which photos and label files a dataset has, and what is named and is not there. Nothing is decoded."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashionrec.common.documents import read_yaml
from fashionrec.dataset.audit.findings import Finding
from fashionrec.errors import DataError
from fashionrec.images import find_photos
from fashionrec.types import CLASS_NAMES
from fashionrec.yolo_data import YoloData, label_path, orphan_labels, read_data_yaml

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
    for split, sources in data.splits.items():
        _list_split(listing, split, sources, seen)
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
    listing.findings += _orphans(listing)
    return listing


def _list_split(listing: Listing, split: str, sources: Iterable[Path], seen: dict[str, int]) -> None:
    found: list[Path] = []
    missing = 0
    for source in sources:
        if source.is_dir():
            found += find_photos(source)
            listing.findings += _unread(source, split, listing.root)
        elif source.is_file():
            for line, path in _read_list(source):
                if path.exists():
                    found.append(path)
                    continue
                missing += 1
                text = f"line {line} of {source.name} names it"
                listing.findings.append(Finding("missing-image", text, split, (_key(path, listing.root),), line=line))
        else:
            missing += 1
            text = f"data.yaml names {_key(source, listing.root)}, which is not there"
            listing.findings.append(Finding("missing-split", text, split))
    if not found and not missing:
        listing.findings.append(Finding("empty-split", f"{split} has no photos", split))
    for path in sorted(found):
        key, same = _key(path, listing.root), os.path.realpath(path)
        if same in seen:
            first = listing.entries[seen[same]]
            kind = "listed-twice" if first.split == split else "same-file-across-splits"
            where = f"{split} lists it twice" if first.split == split else f"it is in {first.split} and in {split}"
            listing.findings.append(Finding(kind, where, split, (key,)))
            if first.split != split:
                listing.shared.append((split, seen[same]))
            continue
        seen[same] = len(listing.entries)
        labels, misplaced = _labels_of(path)
        if misplaced:
            text = f"{misplaced.name} lies beside the photo, not in {label_path(path).parent.name}/"
            listing.findings.append(Finding("misplaced-label", text, split, (key,)))
        elif labels is None:
            listing.findings.append(Finding("no-label-file", f"there is no {label_path(path).name}", split, (key,)))
        listing.entries.append(Entry(split, path, key, labels))


def _read_list(source: Path) -> Iterator[tuple[int, Path]]:
    text = source.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, source.parent / line.strip().replace("\\", "/")


def _labels_of(image: Path) -> tuple[Path | None, Path | None]:
    """The label file that training reads, and one that lies beside the photo instead."""
    right, beside = label_path(image), image.with_suffix(".txt")
    if right.is_file():
        return right, None
    return None, beside if beside != right and beside.is_file() else None


def _unread(folder: Path, split: str, root: Path) -> Iterator[Finding]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if suffix in UNREAD and not name.startswith("."):
                yield Finding("unread-format", f"{suffix} is not read", split, (_key(Path(place, name), root),))


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


def _orphans(listing: Listing) -> Iterator[Finding]:
    """Label files of the folders that labels are read from, without a photo of their name."""
    folders: dict[Path, tuple[str, set[Path]]] = {}
    for entry in listing.entries:
        split, photos = folders.setdefault(label_path(entry.path).parent, (entry.split, set()))
        photos.add(entry.path.parent)
    for folder, (split, photos) in folders.items():
        for path in orphan_labels(folder, photos):
            key = _key(path, listing.root)
            yield Finding("orphan-label", f"{path.name} has no photo", split, (key,))


def _check_names(data: YoloData) -> Iterator[Finding]:
    names = [data.names[number] for number in sorted(data.names)]
    if names != list(CLASS_NAMES) or sorted(data.names) != list(range(len(names))):
        text = f"data.yaml has {', '.join(f'{number} {name}' for number, name in sorted(data.names.items()))}"
        yield Finding("class-names", text[:400], numbers={"names": {str(k): v for k, v in sorted(data.names.items())}})
    document: dict[str, Any] = read_yaml(data.path)
    if "nc" in document and document["nc"] != len(names):
        text = f"nc is {document['nc']}, and there are {len(names)} names"
        yield Finding("class-count", text, numbers={"nc": document["nc"], "names": len(names)})


def _key(path: Path, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
