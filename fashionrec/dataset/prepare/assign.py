"""Which photos belong together, and which split each goes to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from fashionrec.config import DatasetConfig
from fashionrec.dataset.prepare.near import near_links
from fashionrec.dataset.prepare.rules import Problem
from fashionrec.dataset.prepare.similar import groups as connected
from fashionrec.dataset.prepare.split import SPLITS, Group, counts_of, split_groups
from fashionrec.dataset.prepare.write import Record


def assign_groups(records: Sequence[Record], bits: int) -> list[int]:
    """For each photo the number of its group: photos of one product, of one origin, of equal bytes, or near-duplicates.

    ``bits``: how many bits the perceptual hashes of near-duplicates may differ by; -1 = they are not looked for.
    """
    links = chain(_alike(records), _near(records, bits) if bits >= 0 else ())
    numbers = [0] * len(records)
    for number, members in enumerate(connected(len(records), links)):
        for member in members:
            numbers[member] = number
    return numbers


def _alike(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    first: dict[tuple[object, ...], int] = {}
    for n, record in enumerate(records):
        keys: list[tuple[object, ...]] = [("sha256", record.staged.sha256)]
        if record.group is not None:
            keys.append(("group", record.source, record.group))
        for key in keys:
            if first.setdefault(key, n) != n:
                yield first[key], n


def _near(records: Sequence[Record], bits: int) -> Iterator[tuple[int, int]]:
    hashed = [n for n, record in enumerate(records) if record.staged.phash]
    if len(hashed) < 2:
        return
    hashes = np.frombuffer(b"".join(bytes.fromhex(records[n].staged.phash) for n in hashed), np.uint8)
    for one, other in near_links(hashes.reshape(len(hashed), -1), bits):
        yield hashed[one], hashed[other]


def assign_splits(
    records: Sequence[Record], groups: Sequence[int], settings: DatasetConfig, *, keep: bool
) -> tuple[list[str], list[tuple[int, Problem]]]:
    """For each photo its split, and what there is to say.

    A split that is kept has its leaks reported; only photos of one product or one origin are brought to one side, unless the
    setting is ``keep``.
    """
    if not records:
        return [], []
    if keep:
        splits = [str(record.split) for record in records]
        moved = _bring_together(records, splits) if settings.split == "auto" else []
        return splits, [*moved, *_leaks(splits, groups)]
    members: dict[int, list[int]] = defaultdict(list)
    for n, group in enumerate(groups):
        members[group].append(n)
    together = [Group(tuple(photos), _classes(records, photos)) for photos in members.values()]
    counts = settings.counts or counts_of(len(records), settings.ratios)
    chosen = split_groups(together, counts, exact=settings.counts is not None, seed=settings.seed)
    splits = [""] * len(records)
    for group_, split in zip(together, chosen, strict=True):
        for photo in group_.members:
            splits[photo] = SPLITS[split]
    return splits, []


def _classes(records: Sequence[Record], photos: Sequence[int]) -> Counter[int]:
    """How many of the photos hold each class; -1 those that hold none."""
    found: Counter[int] = Counter()
    for n in photos:
        found.update({label.class_id for label in records[n].labels} or {-1})
    return found


def _bring_together(records: Sequence[Record], splits: list[str]) -> list[tuple[int, Problem]]:
    """Photos of one product or origin that are on several sides go where most of them are, in doubt to train."""
    members: dict[tuple[int, str], list[int]] = defaultdict(list)
    for n, record in enumerate(records):
        if record.group is not None:
            members[record.source, record.group].append(n)
    problems = []
    for (_, group), photos in members.items():
        found = Counter(splits[n] for n in photos)
        if len(found) < 2:
            continue
        best = max(SPLITS, key=lambda split: (found[split], -SPLITS.index(split)))
        for n in photos:
            if splits[n] != best:
                problems.append((n, Problem("leak", "fixed", f"{group}: from {splits[n]} to {best}")))
                splits[n] = best
    return problems


def _leaks(splits: Sequence[str], groups: Sequence[int]) -> list[tuple[int, Problem]]:
    sides: dict[int, set[str]] = defaultdict(set)
    for split, group in zip(splits, groups, strict=True):
        sides[group].add(split)
    return [
        (n, Problem("leak", "kept", f"group {group} is in {', '.join(sorted(sides[group]))}"))
        for n, group in enumerate(groups)
        if len(sides[group]) > 1
    ]
