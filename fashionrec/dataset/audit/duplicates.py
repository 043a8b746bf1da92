"""The same photo more than once: the same bytes, nearly the same picture, copies by name; within a split and across splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from fashionrec.dataset.audit.findings import Finding
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Entry
from fashionrec.dataset.prepare.near import nearest_before
from fashionrec.dataset.prepare.similar import HASH_BYTES


def find_duplicates(entries: Sequence[Entry], seen: Sequence[Inspected], bits: int) -> Iterator[Finding]:
    """Findings about pairs of photos, at most two for each photo and kind; no pair under two kinds of one meaning.

    ``bits`` is the greatest distance of perceptual hashes that is nearly the same; below 0 none is.
    """
    paired: set[tuple[int, int]] = set()
    yield from _exact(entries, seen, paired)
    yield from _near(entries, seen, bits, paired)
    yield from _by_name(entries, paired)


def _exact(entries: Sequence[Entry], seen: Sequence[Inspected], paired: set[tuple[int, int]]) -> Iterator[Finding]:
    by_content: dict[str, list[int]] = defaultdict(list)
    for n, photo in enumerate(seen):
        if photo.sha256:
            by_content[photo.sha256].append(n)
    for same in by_content.values():
        firsts: dict[str, int] = {}
        for n in same:
            split = entries[n].split
            if split in firsts:
                paired.add((firsts[split], n))
                yield _pair("exact-duplicate", "the same bytes", entries, firsts[split], n)
            elif n != same[0]:
                paired.add((same[0], n))
                yield _pair("exact-duplicate-across-splits", _across(entries, same[0], n), entries, same[0], n)
            firsts.setdefault(split, n)
            if _meaning(seen[n]) != _meaning(seen[same[0]]):
                text = f"{len(seen[same[0]].boxes)} boxes here, {len(seen[n].boxes)} there, not the same"
                yield _pair("different-labels", text, entries, same[0], n)


def _near(
    entries: Sequence[Entry], seen: Sequence[Inspected], bits: int, paired: set[tuple[int, int]]
) -> Iterator[Finding]:
    """For each photo the nearest earlier one of its own split, and the nearest of another."""
    contents: set[str] = set()
    numbers = []  # one photo for each content
    for n, photo in enumerate(seen):
        if photo.sha256 and photo.sha256 not in contents:
            contents.add(photo.sha256)
            numbers.append(n)
    hashes = np.frombuffer(b"".join(seen[n].phash for n in numbers), np.uint8).reshape(-1, HASH_BYTES)
    splits = [entries[n].split for n in numbers]
    for second, across, first, distance in nearest_before(hashes, splits, bits):
        one, other = numbers[first], numbers[second]
        paired.add((one, other))
        kind = "near-duplicate-across-splits" if across else "near-duplicate"
        text = f"{distance} of {8 * HASH_BYTES} bits differ"
        if across:
            text = f"{_across(entries, one, other)}; {text}"
        yield _pair(kind, text, entries, one, other, bits=distance)


def _by_name(entries: Sequence[Entry], paired: set[tuple[int, int]]) -> Iterator[Finding]:
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
                if entries[n].split not in splits and not any((m, n) in paired for m in members):
                    yield _pair(kind, f"{_across(entries, members[0], n)}: {name}", entries, members[0], n)
                splits.add(entries[n].split)


def _meaning(photo: Inspected) -> list[tuple[int, tuple[float, ...]]]:
    return sorted((number, tuple(round(value, 4) for value in box)) for number, box, *_ in photo.boxes)


def _across(entries: Sequence[Entry], one: int, other: int) -> str:
    return f"in {entries[one].split} and in {entries[other].split}"


def _pair(kind: str, text: str, entries: Sequence[Entry], one: int, other: int, **numbers: int) -> Finding:
    return Finding(kind, text, entries[other].split, (entries[one].key, entries[other].key), numbers=numbers)
