"""Splits that can be trusted: exact numbers, no group on two sides, every class in its share as far as groups allow."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fashionrec.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Group:
    """Photos that stay together: their positions, and how many photos of each class id they hold (-1: of none)."""

    members: tuple[int, ...]
    classes: Counter[int]

    def __len__(self) -> int:
        return len(self.members)


def counts_of(total: int, ratios: Sequence[float]) -> list[int]:
    """``total`` photos in shares of ``ratios`` (train, valid, test; they add up to 1), by largest remainder."""
    if abs(sum(ratios) - 1) > 1e-6:
        raise DataError(f"split ratios {list(ratios)} add up to {sum(ratios):g}", hint="they must add up to 1")
    exact = [total * ratio for ratio in ratios]
    counts = [int(value) for value in exact]
    order = sorted(range(len(ratios)), key=lambda n: (counts[n] - exact[n], n))
    for n in order[: total - sum(counts)]:
        counts[n] += 1
    return counts


def split_groups(groups: Sequence[Group], counts: Sequence[int], *, exact: bool, seed: int) -> list[int]:
    """For each group the split (0 train, 1 valid, 2 test) that it goes to; the same for the same input and seed.

    ``counts`` are photos per split and add up to all of them. Where groups do not allow just these, ``exact`` raises
    :class:`DataError`, which names the largest group; otherwise train takes the difference.

    Groups are dealt out largest first, to the split that is furthest from its share of the group's rarest class
    (iterative stratification: Sechidis, Tsoumakas, Vlahavas, 2011); then exchanges fill the splits to the photo.
    """
    total = sum(len(group) for group in groups)
    if sum(counts) != total:
        raise DataError(
            f"the split {'/'.join(map(str, counts))} is for {sum(counts)} photos, and there are {total}",
            hint="dataset.counts must add up to the photos that are left after the rules, or use dataset.ratios",
        )
    assignment = _deal(groups, counts, random.Random(seed))
    for attempt in range(4):
        if attempt:
            assignment = _repair(groups, counts, assignment)
        if _filled(groups, assignment) == list(counts):
            return assignment
    searched = _search([len(group) for group in groups], counts)
    if searched is not None:
        return searched
    found = _filled(groups, assignment)
    if exact:
        largest = max(groups, key=len)
        raise DataError(
            f"groups of photos that belong together do not allow {'/'.join(map(str, counts))}, only"
            f" {'/'.join(map(str, found))}; the largest has {len(largest)} photos",
            hint="choose other counts, or a smaller dataset.near_duplicates",
        )
    return assignment


def _deal(groups: Sequence[Group], counts: Sequence[int], chance: random.Random) -> list[int]:
    total = max(1, sum(counts))
    room = list(counts)
    classes: Counter[int] = Counter()
    for group in groups:
        classes.update(group.classes)
    wanted = [{number: count * room[n] / total for number, count in classes.items()} for n in range(len(counts))]
    left = Counter(classes)
    assignment = [0] * len(groups)
    tie = [chance.random() for _ in groups]
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
        best = max(open_splits, key=lambda n: (wanted[n].get(number, 0.0), room[n] / max(1, counts[n]), -n))
        assignment[index] = best
        done[index] = True
        room[best] -= len(group)
        for held, count in group.classes.items():
            wanted[best][held] = wanted[best].get(held, 0.0) - count
            left[held] -= count

    many = sorted((i for i, g in enumerate(groups) if len(g) > 1), key=lambda i: (-len(groups[i]), tie[i]))
    for index in many:
        place(index, min(groups[index].classes, key=lambda number: (classes[number], number), default=-1))
    while any(left.values()):
        number = min((n for n, count in left.items() if count > 0), key=lambda n: (left[n], n))
        for index in sorted((i for i in by_class[number] if not done[i]), key=lambda i: tie[i]):
            place(index, number)
        left[number] = 0
    return assignment


def _filled(groups: Sequence[Group], assignment: Sequence[int], splits: int = 3) -> list[int]:
    found = [0] * splits
    for group, split in zip(groups, assignment, strict=True):
        found[split] += len(group)
    return found


def _repair(groups: Sequence[Group], counts: Sequence[int], assignment: Sequence[int]) -> list[int]:
    """Move as few groups as it takes: each held-out split in turn is filled to the photo from what is not yet settled."""
    result = list(assignment)
    for split in sorted((1, 2), key=lambda n: counts[n], reverse=True):
        settled = {other for other in (1, 2) if other != split and _filled(groups, result)[other] == counts[other]}
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


#: Cells of the table of sums that a search may fill.
_CELLS = 20_000_000


def _search(sizes: Sequence[int], counts: Sequence[int]) -> list[int] | None:
    """Any assignment that fills both held-out splits to the photo, or None: all sums of two sets of groups, by and by."""
    valid, test = counts[1], counts[2]
    if (valid + 1) * (test + 1) > _CELLS:
        return None
    came_by = np.full((valid + 1, test + 1), -1, dtype=np.int64)  # 2 * group + (0: it went to valid, 1: to test)
    reach = np.zeros((valid + 1, test + 1), dtype=bool)
    reach[0, 0] = True
    for index, size in enumerate(sizes):
        if reach[valid, test]:
            break
        before = reach.copy()
        for way, (down, right) in enumerate(((size, 0), (0, size))):
            if down > valid or right > test:
                continue
            new = np.zeros_like(reach)
            new[down:, right:] = before[: valid + 1 - down, : test + 1 - right]
            new &= ~reach
            came_by[new] = 2 * index + way
            reach |= new
    if not reach[valid, test]:
        return None
    assignment = [0] * len(sizes)
    while valid or test:
        index, way = divmod(int(came_by[valid, test]), 2)
        assignment[index] = 1 + way
        valid, test = (valid - sizes[index], test) if way == 0 else (valid, test - sizes[index])
    return assignment


def _exchange(inside: list[int], outside: list[int], target: int) -> tuple[list[int], list[int]] | None:
    """Which of the groups inside to give up, and which outside to take, so that ``target`` photos are inside."""
    have = sum(inside)
    if have == target:
        return [], []
    give = _sums(inside, have)
    take = _sums(outside, target)
    least = None
    for out in range(have + 1):
        missing = target - (have - out)
        if give[out] is None or not 0 <= missing <= target or take[missing] is None:
            continue
        moved = out + missing
        if least is None or moved < least[0]:
            least = (moved, out, missing)
    if least is None:
        return None
    return _pick(inside, give, least[1]), _pick(outside, take, least[2])


def _sums(sizes: list[int], limit: int) -> list[int | None]:
    """For each sum up to ``limit`` the position of the last group that completes it, or None where none does (0: -1)."""
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
            raise AssertionError("a sum without a way to it")
        picked.append(position)
        total -= sizes[position]
    return picked
