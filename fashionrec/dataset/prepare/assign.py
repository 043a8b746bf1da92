"""Grouping of related photos, and the split of each group."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from fashionrec.config import DatasetConfig
from fashionrec.dataset.prepare.near import near_links
from fashionrec.dataset.prepare.rules import Problem
from fashionrec.dataset.prepare.similar import groups as connected_groups
from fashionrec.dataset.prepare.split import SPLITS, Group, counts_of, split_groups
from fashionrec.dataset.prepare.write import Record


def assign_groups(records: Sequence[Record], bits: int) -> list[int]:
    """Return group numbers: one per product, origin, equal bytes, or set of near-duplicates.

    ``bits``: the most bits by which perceptual hashes of near-duplicates differ; -1 disables the
    search.
    """
    links = chain(_exact_links(records), _near_duplicate_links(records, bits) if bits >= 0 else ())
    numbers = [0] * len(records)
    for number, members in enumerate(connected_groups(len(records), links)):
        for member in members:
            numbers[member] = number
    return numbers


def _exact_links(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    first: dict[tuple[object, ...], int] = {}
    for n, record in enumerate(records):
        keys: list[tuple[object, ...]] = [("sha256", record.staged.sha256)]
        if record.group is not None:
            keys.append(("group", record.source, record.group))
        for key in keys:
            if first.setdefault(key, n) != n:
                yield first[key], n


def _near_duplicate_links(records: Sequence[Record], bits: int) -> Iterator[tuple[int, int]]:
    hashed = [n for n, record in enumerate(records) if record.staged.phash]
    if len(hashed) < 2:
        return
    hashes = np.frombuffer(b"".join(bytes.fromhex(records[n].staged.phash) for n in hashed), np.uint8)
    for first, second in near_links(hashes.reshape(len(hashed), -1), bits):
        yield hashed[first], hashed[second]


def assign_splits(
    records: Sequence[Record], groups: Sequence[int], settings: DatasetConfig, *, keep: bool
) -> tuple[list[str], list[tuple[int, Problem]]]:
    """Return the split of each photo, and the problems found.

    Existing splits that are kept have their leaks reported; only photos of one product or one
    origin are moved into one split, unless the setting is ``keep``.
    """
    if not records:
        return [], []
    if keep:
        splits = [str(record.split) for record in records]
        fixes = _merge_groups(records, splits) if settings.split == "auto" else []
        return splits, [*fixes, *_leaks(splits, groups)]
    members: dict[int, list[int]] = defaultdict(list)
    for n, group in enumerate(groups):
        members[group].append(n)
    split_units = [Group(tuple(photos), _class_counts(records, photos)) for photos in members.values()]
    counts = settings.counts or counts_of(len(records), settings.ratios)
    chosen = split_groups(split_units, counts, exact=settings.counts is not None, seed=settings.seed)
    splits = [""] * len(records)
    for group_, split in zip(split_units, chosen, strict=True):
        for photo in group_.members:
            splits[photo] = SPLITS[split]
    return splits, []


def _class_counts(records: Sequence[Record], photos: Sequence[int]) -> Counter[int]:
    """Return the number of photos with each class; -1 counts those without any."""
    counts: Counter[int] = Counter()
    for n in photos:
        counts.update({label.class_id for label in records[n].labels} or {-1})
    return counts


def _merge_groups(records: Sequence[Record], splits: list[str]) -> list[tuple[int, Problem]]:
    """Move photos of one product or origin into the split with most of them, train in a tie."""
    members: dict[tuple[int, str], list[int]] = defaultdict(list)
    for n, record in enumerate(records):
        if record.group is not None:
            members[record.source, record.group].append(n)
    problems = []
    for (_, group), photos in members.items():
        counts = Counter(splits[n] for n in photos)
        if len(counts) < 2:
            continue
        best = max(SPLITS, key=lambda split: (counts[split], -SPLITS.index(split)))
        for n in photos:
            if splits[n] != best:
                problems.append((n, Problem("leak", "fixed", f"{group}: from {splits[n]} to {best}")))
                splits[n] = best
    return problems


def _leaks(splits: Sequence[str], groups: Sequence[int]) -> list[tuple[int, Problem]]:
    group_splits: dict[int, set[str]] = defaultdict(set)
    for split, group in zip(splits, groups, strict=True):
        group_splits[group].add(split)
    return [
        (n, Problem("leak", "kept", f"group {group} is in {', '.join(sorted(group_splits[group]))}"))
        for n, group in enumerate(groups)
        if len(group_splits[group]) > 1
    ]
