"""Which of many perceptual hashes are near: what all near pairs connect, and the nearest earlier one of each.

Both are exact, and hold a few bytes a hash however many pairs are near: pictures that are all alike are near in half as
many pairs as the square of their number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fashionrec.dataset.prepare.similar import HASH_BYTES, NO_HASH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]
    Numbers = NDArray[np.int64]

_BLOCK = 256  # hashes that are compared with each other at once
_MOST_FOUND = 4_000_000  # rows that one search may find, 12 bytes each


class Nearest(NamedTuple):
    """The nearest hash before ``second``: of its own side, or (``across``) of the others."""

    second: int
    across: bool
    first: int
    distance: int


def near_links(hashes: Codes, bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of uint8 [n, 32] hashes, fewer than n, that connect just what all pairs within ``bits`` bits connect.

    A hash within ``bits`` of a leader joins its cluster; any other is a leader from then on (Hartigan, "Clustering
    Algorithms", 1975, chapter 3). By the triangle inequality, whatever is near a member of a cluster of radius R is
    within R + ``bits`` of its leader, and only that is compared with the members. So n hashes that are all alike take
    about n comparisons, n that all differ n² / 2. ``bits`` below 0 links nothing, not even equal hashes.
    """
    first: dict[bytes, int] = {}
    for n, row in enumerate(_rows(hashes) if bits >= 0 else ()):
        if row != NO_HASH and (known := first.setdefault(row, n)) != n:
            yield known, n
    if not first:
        return
    numbers = np.fromiter(first.values(), np.int64)
    codes = hashes[numbers]
    leader, distance = _lead(codes, bits)
    for follower in np.flatnonzero(distance):
        yield int(numbers[leader[follower]]), int(numbers[follower])
    for one, other in _between(codes, leader, distance, bits):
        yield int(numbers[one]), int(numbers[other])


def nearest_before(hashes: Codes, sides: Sequence[Hashable], bits: int) -> Iterator[Nearest]:
    """For each of uint8 [n, 32] hashes the nearest earlier one of its own side and of another, if within ``bits`` bits.

    By ``second``, the own side first; of several as near, the earliest. n hashes, of which m differ, take n x m
    comparisons at most. ``bits`` below 0 finds nothing, not even equal hashes.
    """
    count, names = len(hashes), dict.fromkeys(sides)
    number = dict(zip(names, range(len(names)), strict=True))
    side = np.array([number[one] for one in sides], np.int64)
    before = [_Different(count) for _ in names]
    far = (bits + 1) * count  # a distance and a number are one: distance * count + number
    for start in range(0, count if bits >= 0 else 0, _BLOCK):
        rows = start + np.flatnonzero(hashes[start : start + _BLOCK].any(axis=1))
        block, here = hashes[rows], side[rows]
        within = _distances(_words(block), _words(block)) * count + rows
        within[~np.tri(len(rows), k=-1, dtype=bool)] = far
        others = here[:, None] != here
        best = np.stack([np.where(others == across, within, far).min(axis=1, initial=far) for across in (False, True)])
        for of, different in enumerate(before):
            across = (here != of).astype(np.int64), np.arange(len(rows))
            best[across] = np.minimum(best[across], different.nearest(block))
            different.add(rows[here == of], block[here == of])
        for n, across_ in np.argwhere(best.transpose() < far):
            distance, one = divmod(int(best[across_, n]), count)
            yield Nearest(int(rows[n]), bool(across_), one, distance)


class _Different:
    """The first of several equal hashes each, of at most ``count``, as what the nearest is searched in."""

    def __init__(self, count: int) -> None:
        self._index = _index()
        self._known: set[bytes] = set()
        self._numbers = np.empty(count, np.int64)

    def add(self, numbers: Numbers, codes: Codes) -> None:
        begin = len(self._known)
        first: dict[bytes, int] = {}
        for n, row in enumerate(_rows(codes)):
            first.setdefault(row, n)
        new = [n for row, n in first.items() if row not in self._known]
        self._known |= first.keys()
        self._numbers[begin : len(self._known)] = numbers[new]
        self._index.add(codes[new])

    def nearest(self, codes: Codes) -> Numbers:
        """Of the nearest to each, distance * count + number; the greatest integer where there is none."""
        distance, at = (found[:, 0].astype(np.int64) for found in self._index.search(codes, 1))
        return np.where(at < 0, np.iinfo(np.int64).max, distance * len(self._numbers) + self._numbers[at])


def _lead(codes: Codes, bits: int) -> tuple[Numbers, Numbers]:
    """For each of different hashes its leader, itself where it is one, and the distance to it."""
    index, leaders = _index(), np.empty(0, np.int64)
    leader, distance = np.arange(len(codes)), np.zeros(len(codes), np.int64)
    for start in range(0, len(codes), _BLOCK):
        block = codes[start : start + _BLOCK]
        of, away = leader[start : start + len(block)], distance[start : start + len(block)]  # views
        nearest, at = (found[:, 0] for found in index.search(block, 1))
        led = nearest <= bits
        of[led], away[led] = leaders[at[led]], nearest[led]
        left, new = np.flatnonzero(~led), []
        to = _distances(_words(block[left]), _words(block[left]))
        free, near = np.ones(len(left), bool), to <= bits
        for n, one in enumerate(left):
            if free[n]:
                new.append(one)
                joins = free & near[n]
                of[left[joins]], away[left[joins]] = start + one, to[n, joins]
                free &= ~joins
        leaders = np.append(leaders, start + np.array(new, np.int64))
        index.add(block[new])
    return leader, distance


def _between(codes: Codes, leader: Numbers, distance: Numbers, bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of leaders that connect the clusters of which members are near."""
    order = np.argsort(leader, kind="stable")
    begins = np.searchsorted(leader[order], np.arange(len(codes) + 1))
    radius = np.zeros(len(codes), np.int64)
    np.maximum.at(radius, leader, distance)
    wide = np.flatnonzero(radius)  # a leader alone is near to none
    wide = wide[np.argsort(radius[wide], kind="stable")]
    parent = np.arange(len(codes))
    for start in range(0, len(wide), _BLOCK):
        part = wide[start : start + _BLOCK]
        parent = _roots(parent, parent)
        reach = int(radius[part[-1]]) + bits
        for one, rows, to in _around(codes, part, parent[leader], reach):
            others = (to <= radius[one] + bits) & (_roots(parent, leader[rows]) != _roots(parent, one))
            if not others.any():
                continue
            rows, to = rows[others], to[others]
            members = order[begins[one] : begins[one + 1]]
            members = members[distance[members] >= to.min() - bits]
            nearest, _ = _index(codes[members]).search(codes[rows], 1)
            for other in np.unique(_roots(parent, leader[rows[nearest[:, 0] <= bits]])):
                root = _roots(parent, one)
                parent[max(root, other)] = min(root, other)
                yield int(one), int(other)


def _around(codes: Codes, leaders: Numbers, group: Numbers, reach: int) -> Iterator[tuple[int, Numbers, Numbers]]:
    """For each leader the hashes within ``reach`` bits, and how far they are; of the largest group those outside it."""
    largest = np.bincount(group).argmax()
    inside = group[leaders] == largest
    for part, rows in (
        (leaders[~inside], np.arange(len(codes))),
        (leaders[inside], np.flatnonzero(group != largest)),
    ):
        if not len(part) or not len(rows):
            continue
        index, step = _index(codes[rows]), max(1, _MOST_FOUND // len(rows))
        for start in range(0, len(part), step):
            some = part[start : start + step]
            limits, away, found = index.range_search(codes[some], reach + 1)
            for n, one in enumerate(some):
                near = slice(int(limits[n]), int(limits[n + 1]))
                yield int(one), rows[found[near]], away[near]


def _roots(parent: Numbers, rows: Numbers | int) -> Numbers:
    """The root of each row, where every row names one above it, and a root itself."""
    above: Numbers = parent[rows]
    while not np.array_equal(above, rows):
        rows, above = above, parent[above]
    return above


def _index(codes: Codes | None = None) -> Any:
    import faiss

    index = faiss.IndexBinaryFlat(8 * HASH_BYTES)
    if codes is not None:
        index.add(codes)
    return index


def _rows(codes: Codes) -> list[bytes]:
    rows: list[bytes] = np.ascontiguousarray(codes).view(f"V{HASH_BYTES}").ravel().tolist()
    return rows


def _words(codes: Codes) -> NDArray[np.uint64]:
    """Hashes as uint64 [4, n]."""
    return np.ascontiguousarray(codes.view(np.uint64).T)


def _distances(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Numbers:
    """The bits that differ, int64 [n, m], of words [4, n] and [4, m]."""
    result: Numbers = np.bitwise_count(one[:, :, None] ^ other[:, None, :]).sum(axis=0, dtype=np.int64)
    return result
