"""Duplicates within and across splits: identical files, near-duplicates, and copies by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from fashionrec.common.text import plural
from fashionrec.dataset.audit.findings import Finding
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Entry
from fashionrec.dataset.prepare.near import nearest_before
from fashionrec.dataset.prepare.similar import HASH_BYTES


def find_duplicates(entries: Sequence[Entry], inspected: Sequence[Inspected], bits: int) -> Iterator[Finding]:
    """Yield findings on pairs of photos: at most two per photo and kind, and each pair once.

    ``bits``: the largest distance of the perceptual hashes of near-duplicates; below 0 there are
    none.
    """
    pairs: set[tuple[int, int]] = set()
    yield from _exact(entries, inspected, pairs)
    yield from _near(entries, inspected, bits, pairs)
    yield from _by_name(entries, pairs)


def _exact(entries: Sequence[Entry], inspected: Sequence[Inspected], pairs: set[tuple[int, int]]) -> Iterator[Finding]:
    by_content: dict[str, list[int]] = defaultdict(list)
    for n, photo in enumerate(inspected):
        if photo.sha256:
            by_content[photo.sha256].append(n)
    for same in by_content.values():
        firsts: dict[str, int] = {}
        for n in same:
            split = entries[n].split
            if split in firsts:
                pairs.add((firsts[split], n))
                yield _pair("exact-duplicate", "identical files", entries, firsts[split], n)
            elif n != same[0]:
                pairs.add((same[0], n))
                yield _pair("exact-duplicate-across-splits", _splits_text(entries, same[0], n), entries, same[0], n)
            firsts.setdefault(split, n)
            if _labels(inspected[n]) != _labels(inspected[same[0]]):
                count = plural(len(inspected[same[0]].boxes), "box", "boxes")
                text = f"{count} in the first, {len(inspected[n].boxes):,} in the second; they differ"
                yield _pair("different-labels", text, entries, same[0], n)


def _near(
    entries: Sequence[Entry], inspected: Sequence[Inspected], bits: int, pairs: set[tuple[int, int]]
) -> Iterator[Finding]:
    """Yield each photo's nearest earlier one in its own split, and the nearest in another."""
    contents: set[str] = set()
    numbers = []  # one photo per content
    for n, photo in enumerate(inspected):
        if photo.sha256 and photo.sha256 not in contents:
            contents.add(photo.sha256)
            numbers.append(n)
    hashes = np.frombuffer(b"".join(inspected[n].phash for n in numbers), np.uint8).reshape(-1, HASH_BYTES)
    splits = [entries[n].split for n in numbers]
    for near in nearest_before(hashes, splits, bits):
        first, second = numbers[near.first], numbers[near.second]
        pairs.add((first, second))
        kind = "near-duplicate-across-splits" if near.across else "near-duplicate"
        text = f"{near.distance} of {8 * HASH_BYTES} bits differ"
        if near.across:
            text = f"{_splits_text(entries, first, second)}; {text}"
        yield _pair(kind, text, entries, first, second, bits=near.distance)


def _by_name(entries: Sequence[Entry], pairs: set[tuple[int, int]]) -> Iterator[Finding]:
    copies: dict[str, list[int]] = defaultdict(list)
    names: dict[str, list[int]] = defaultdict(list)
    for n, entry in enumerate(entries):
        stem = PurePosixPath(entry.key).stem
        original, mark, _ = stem.rpartition(".rf.")
        (copies if mark and original else names)[original if mark and original else stem].append(n)
    for kind, groups in (("copies-across-splits", copies), ("same-name-across-splits", names)):
        for name, members in groups.items():
            splits = {entries[members[0]].split}
            for n in members[1:]:
                if entries[n].split not in splits and not any((m, n) in pairs for m in members):
                    yield _pair(kind, f"{_splits_text(entries, members[0], n)}: {name}", entries, members[0], n)
                splits.add(entries[n].split)


def _labels(photo: Inspected) -> list[tuple[int, tuple[float, ...]]]:
    return sorted((number, tuple(round(value, 4) for value in box)) for number, box, *_ in photo.boxes)


def _splits_text(entries: Sequence[Entry], first: int, second: int) -> str:
    return f"in {entries[first].split} and in {entries[second].split}"


def _pair(kind: str, text: str, entries: Sequence[Entry], first: int, second: int, **numbers: int) -> Finding:
    return Finding(kind, text, entries[second].split, (entries[first].key, entries[second].key), numbers=numbers)
