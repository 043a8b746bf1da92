"""Stratified dataset splits with exact counts, and no group in two splits."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fashionrec.common.text import plural
from fashionrec.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Group:
    """Photos that stay together: their positions, and photo counts by class id (-1: no class)."""

    members: tuple[int, ...]
    classes: Counter[int]

    def __len__(self) -> int:
        return len(self.members)


def counts_of(total: int, ratios: Sequence[float]) -> list[int]:
    """Split ``total`` by ``ratios`` (train, valid, test; sum 1) by the largest remainder method."""
    if abs(sum(ratios) - 1) > 1e-6:
        raise DataError(f"split ratios {list(ratios)} add up to {sum(ratios):g}", hint="they must add up to 1")
    exact = [total * ratio for ratio in ratios]
    counts = [int(value) for value in exact]
    order = sorted(range(len(ratios)), key=lambda n: (counts[n] - exact[n], n))
    for n in order[: total - sum(counts)]:
        counts[n] += 1
    return counts


def split_groups(groups: Sequence[Group], counts: Sequence[int], *, exact: bool, seed: int) -> list[int]:
    """Return the split of each group (0 train, 1 valid, 2 test), determined by input and seed.

    ``counts`` are the photos per split; their sum is the number of photos. If the groups do not
    allow these counts, ``exact`` raises :class:`DataError` with the size of the largest group;
    otherwise train takes the difference.

    Groups are assigned largest first, to the split that is furthest from its share of the group's
    rarest class (iterative stratification: Sechidis, Tsoumakas, Vlahavas, 2011); then exchanges
    make the counts exact.
    """
    total = sum(len(group) for group in groups)
    if sum(counts) != total:
        raise DataError(
            f"the split {'/'.join(map(str, counts))} is for {plural(sum(counts), 'photo')}, but there are {total:,}",
            hint="dataset.counts must add up to the photos that the rules keep; or use dataset.ratios",
        )
    assignment = _stratify(groups, counts, random.Random(seed))
    for attempt in range(4):
        if attempt:
            assignment = _repair(groups, counts, assignment)
        if _photo_counts(groups, assignment) == list(counts):
            return assignment
    searched = _search([len(group) for group in groups], counts)
    if searched is not None:
        return searched
    possible = _photo_counts(groups, assignment)
    if exact:
        largest = max(groups, key=len)
        raise DataError(
            f"the split {'/'.join(map(str, counts))} would separate photos that belong together; the closest is"
            f" {'/'.join(map(str, possible))}, and the largest group has {plural(len(largest), 'photo')}",
            hint="choose other counts, or a smaller dataset.near_duplicates",
        )
    return assignment


def _stratify(groups: Sequence[Group], counts: Sequence[int], rng: random.Random) -> list[int]:
    total = max(1, sum(counts))
    room = list(counts)
    classes: Counter[int] = Counter()
    for group in groups:
        classes.update(group.classes)
    targets = [{number: count * room[n] / total for number, count in classes.items()} for n in range(len(counts))]
    left = Counter(classes)
    assignment = [0] * len(groups)
    tie = [rng.random() for _ in groups]
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        for number in group.classes:
            by_class[number].append(index)
    done = [False] * len(groups)

    def place(index: int, number: int) -> None:
        group = groups[index]
        open_splits = [n for n in range(len(counts)) if room[n] >= len(group)] or [
            max(range(len(counts)), key=lambda n: (room[n], -n))
        ]
        best = max(open_splits, key=lambda n: (targets[n].get(number, 0.0), room[n] / max(1, counts[n]), -n))
        assignment[index] = best
        done[index] = True
        room[best] -= len(group)
        for class_id, count in group.classes.items():
            targets[best][class_id] = targets[best].get(class_id, 0.0) - count
            left[class_id] -= count

    larger = sorted((i for i, g in enumerate(groups) if len(g) > 1), key=lambda i: (-len(groups[i]), tie[i]))
    for index in larger:
        place(index, min(groups[index].classes, key=lambda number: (classes[number], number), default=-1))
    while any(left.values()):
        number = min((n for n, count in left.items() if count > 0), key=lambda n: (left[n], n))
        for index in sorted((i for i in by_class[number] if not done[i]), key=lambda i: tie[i]):
            place(index, number)
        left[number] = 0
    return assignment


def _photo_counts(groups: Sequence[Group], assignment: Sequence[int], splits: int = 3) -> list[int]:
    counts = [0] * splits
    for group, split in zip(groups, assignment, strict=True):
        counts[split] += len(group)
    return counts


def _repair(groups: Sequence[Group], counts: Sequence[int], assignment: Sequence[int]) -> list[int]:
    """Make the held-out splits exact, one after the other, by moving as few groups as possible."""
    result = list(assignment)
    for split in sorted((1, 2), key=lambda n: counts[n], reverse=True):
        settled = {
            other for other in (1, 2) if other != split and _photo_counts(groups, result)[other] == counts[other]
        }
        pool = [i for i in range(len(groups)) if result[i] not in settled]
        inside = [i for i in pool if result[i] == split]
        outside = [i for i in pool if result[i] != split]
        chosen = _exchange([len(groups[i]) for i in inside], [len(groups[i]) for i in outside], counts[split])
        if chosen is None:
            continue
        drop, take = chosen
        for position in drop:
            result[inside[position]] = 0
        for position in take:
            result[outside[position]] = split
    return result


#: The most cells of the table of sums in a search.
_CELLS = 20_000_000


def _search(sizes: Sequence[int], counts: Sequence[int]) -> list[int] | None:
    """Return an assignment with exact held-out splits, or None (two-dimensional subset sum)."""
    valid, test = counts[1], counts[2]
    if (valid + 1) * (test + 1) > _CELLS:
        return None
    last_step = np.full((valid + 1, test + 1), -1, dtype=np.int64)  # 2 * group + (0: to valid, 1: to test)
    reach = np.zeros((valid + 1, test + 1), dtype=bool)
    reach[0, 0] = True
    for index, size in enumerate(sizes):
        if reach[valid, test]:
            break
        previous = reach.copy()
        for side, (down, right) in enumerate(((size, 0), (0, size))):
            if down > valid or right > test:
                continue
            new = np.zeros_like(reach)
            new[down:, right:] = previous[: valid + 1 - down, : test + 1 - right]
            new &= ~reach
            last_step[new] = 2 * index + side
            reach |= new
    if not reach[valid, test]:
        return None
    assignment = [0] * len(sizes)
    while valid or test:
        index, side = divmod(int(last_step[valid, test]), 2)
        assignment[index] = 1 + side
        valid, test = (valid - sizes[index], test) if side == 0 else (valid, test - sizes[index])
    return assignment


def _exchange(inside: list[int], outside: list[int], target: int) -> tuple[list[int], list[int]] | None:
    """Return the groups to give and those to take so that ``target`` photos are inside, or None."""
    have = sum(inside)
    if have == target:
        return [], []
    give = _subset_sums(inside, have)
    take = _subset_sums(outside, target)
    best = None
    for out in range(have + 1):
        missing = target - (have - out)
        if give[out] is None or not 0 <= missing <= target or take[missing] is None:
            continue
        exchanged = out + missing
        if best is None or exchanged < best[0]:
            best = (exchanged, out, missing)
    if best is None:
        return None
    return _pick(inside, give, best[1]), _pick(outside, take, best[2])


def _subset_sums(sizes: list[int], limit: int) -> list[int | None]:
    """Return for each sum up to ``limit`` the last group that completes it, or None (0: -1)."""
    last: list[int | None] = [-1] + [None] * limit
    reach = np.zeros(limit + 1, dtype=bool)
    reach[0] = True
    for position, size in enumerate(sizes):
        if size > limit:
            continue
        new = np.zeros_like(reach)
        new[size:] = reach[: limit + 1 - size]
        new &= ~reach
        for value in np.flatnonzero(new):
            last[int(value)] = position
        reach |= new
        if reach.all():
            break
    return last


def _pick(sizes: list[int], last: list[int | None], total: int) -> list[int]:
    picked = []
    while total:
        position = last[total]
        if position is None or position < 0:
            raise AssertionError("unreachable sum")
        picked.append(position)
        total -= sizes[position]
    return picked
