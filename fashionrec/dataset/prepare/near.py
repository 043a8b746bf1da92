"""Near pairs among many perceptual hashes: the groups they form, and each hash's nearest.

Both are exact, and use a few bytes per hash however many pairs are near: the number of near pairs
of n identical pictures is n² / 2.
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

_BLOCK = 256  # hashes that are compared with each other in one step
_MAX_RESULTS = 4_000_000  # rows that one range search may return, 12 bytes each


class Nearest(NamedTuple):
    """The nearest hash before ``second``: on the same side, or (``across``) on another."""

    second: int
    across: bool
    first: int
    distance: int


def near_links(hashes: Codes, bits: int) -> Iterator[tuple[int, int]]:
    """Yield fewer than n pairs that connect the same uint8 [n, 32] hashes as all near pairs.

    Hashes are near if at most ``bits`` bits differ. A hash near a leader joins its cluster; any
    other becomes a leader (Hartigan, "Clustering Algorithms", 1975, chapter 3). By the triangle
    inequality, a hash near a member of a cluster of radius R is within R + ``bits`` of its leader,
    and only such hashes are compared with the members. So n equal hashes take about n comparisons,
    n different ones n² / 2. ``bits`` below 0 links nothing, not even equal hashes.
    """
    first: dict[bytes, int] = {}
    for n, row in enumerate(_rows(hashes) if bits >= 0 else ()):
        if row != NO_HASH and (earlier := first.setdefault(row, n)) != n:
            yield earlier, n
    if not first:
        return
    numbers = np.fromiter(first.values(), np.int64)
    codes = hashes[numbers]
    leader, distance = _assign_leaders(codes, bits)
    for follower in np.flatnonzero(distance):
        yield int(numbers[leader[follower]]), int(numbers[follower])
    for a, b in _links_between_clusters(codes, leader, distance, bits):
        yield int(numbers[a]), int(numbers[b])


def nearest_before(hashes: Codes, sides: Sequence[Hashable], bits: int) -> Iterator[Nearest]:
    """Yield each hash's nearest earlier one, on its own side and on another; uint8 [n, 32].

    Only hashes within ``bits`` bits count. Results are ordered by ``second``, the own side first;
    of equally near hashes the earliest is returned. n hashes with m distinct values take at most n
    x m comparisons. ``bits`` below 0 finds nothing, not even equal hashes.
    """
    count, names = len(hashes), dict.fromkeys(sides)
    number = dict(zip(names, range(len(names)), strict=True))
    side = np.array([number[name] for name in sides], np.int64)
    earlier = [_DistinctHashes(count) for _ in names]
    far = (bits + 1) * count  # distance and number are encoded in one integer: distance * count + number
    for start in range(0, count if bits >= 0 else 0, _BLOCK):
        rows = start + np.flatnonzero(hashes[start : start + _BLOCK].any(axis=1))
        block, block_sides = hashes[rows], side[rows]
        within = _distances(_words(block), _words(block)) * count + rows
        within[~np.tri(len(rows), k=-1, dtype=bool)] = far
        others = block_sides[:, None] != block_sides
        best = np.stack([np.where(others == across, within, far).min(axis=1, initial=far) for across in (False, True)])
        for side_number, distinct in enumerate(earlier):
            across = (block_sides != side_number).astype(np.int64), np.arange(len(rows))
            best[across] = np.minimum(best[across], distinct.nearest(block))
            distinct.add(rows[block_sides == side_number], block[block_sides == side_number])
        for n, across_ in np.argwhere(best.transpose() < far):
            distance, first = divmod(int(best[across_, n]), count)
            yield Nearest(int(rows[n]), bool(across_), first, distance)


class _DistinctHashes:
    """A search index of at most ``count`` distinct hashes with their first occurrences."""

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
        """Return distance * count + number of each hash's nearest, or the largest integer."""
        distance, at = (column[:, 0].astype(np.int64) for column in self._index.search(codes, 1))
        return np.where(at < 0, np.iinfo(np.int64).max, distance * len(self._numbers) + self._numbers[at])


def _assign_leaders(codes: Codes, bits: int) -> tuple[Numbers, Numbers]:
    """Return the leader of each of distinct hashes (possibly itself), and the distance to it."""
    index, leaders = _index(), np.empty(0, np.int64)
    leader, distance = np.arange(len(codes)), np.zeros(len(codes), np.int64)
    for start in range(0, len(codes), _BLOCK):
        block = codes[start : start + _BLOCK]
        block_leader, block_distance = leader[start : start + len(block)], distance[start : start + len(block)]  # views
        nearest, at = (column[:, 0] for column in index.search(block, 1))
        is_near = nearest <= bits
        block_leader[is_near], block_distance[is_near] = leaders[at[is_near]], nearest[is_near]
        unassigned, new = np.flatnonzero(~is_near), []
        pairwise = _distances(_words(block[unassigned]), _words(block[unassigned]))
        free, near = np.ones(len(unassigned), bool), pairwise <= bits
        for n, row in enumerate(unassigned):
            if free[n]:
                new.append(row)
                joins = free & near[n]
                block_leader[unassigned[joins]], block_distance[unassigned[joins]] = start + row, pairwise[n, joins]
                free &= ~joins
        leaders = np.append(leaders, start + np.array(new, np.int64))
        index.add(block[new])
    return leader, distance


def _links_between_clusters(codes: Codes, leader: Numbers, distance: Numbers, bits: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of leaders that connect clusters with near members."""
    order = np.argsort(leader, kind="stable")
    begins = np.searchsorted(leader[order], np.arange(len(codes) + 1))
    radius = np.zeros(len(codes), np.int64)
    np.maximum.at(radius, leader, distance)
    wide = np.flatnonzero(radius)  # clusters of one hash are near to no other
    wide = wide[np.argsort(radius[wide], kind="stable")]
    parent = np.arange(len(codes))
    for start in range(0, len(wide), _BLOCK):
        part = wide[start : start + _BLOCK]
        parent = _roots(parent, parent)
        reach = int(radius[part[-1]]) + bits
        for lead, rows, away in _within_reach(codes, part, parent[leader], reach):
            others = (away <= radius[lead] + bits) & (_roots(parent, leader[rows]) != _roots(parent, lead))
            if not others.any():
                continue
            rows, away = rows[others], away[others]
            members = order[begins[lead] : begins[lead + 1]]
            members = members[distance[members] >= away.min() - bits]
            nearest, _ = _index(codes[members]).search(codes[rows], 1)
            for other in np.unique(_roots(parent, leader[rows[nearest[:, 0] <= bits]])):
                root = _roots(parent, lead)
                parent[max(root, other)] = min(root, other)
                yield int(lead), int(other)


def _within_reach(codes: Codes, leaders: Numbers, group: Numbers, reach: int) -> Iterator[tuple[int, Numbers, Numbers]]:
    """Yield the hashes within ``reach`` bits of each leader, and their distances.

    For leaders in the largest group, only the hashes outside that group.
    """
    largest = np.bincount(group).argmax()
    is_inside = group[leaders] == largest
    for part, rows in (
        (leaders[~is_inside], np.arange(len(codes))),
        (leaders[is_inside], np.flatnonzero(group != largest)),
    ):
        if not len(part) or not len(rows):
            continue
        index, step = _index(codes[rows]), max(1, _MAX_RESULTS // len(rows))
        for start in range(0, len(part), step):
            batch = part[start : start + step]
            limits, away, at = index.range_search(codes[batch], reach + 1)
            for n, lead in enumerate(batch):
                near = slice(int(limits[n]), int(limits[n + 1]))
                yield int(lead), rows[at[near]], away[near]


def _roots(parent: Numbers, rows: Numbers | int) -> Numbers:
    """Return the root of each row; ``parent`` gives the row above, and a root is its own parent."""
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
    """Return hashes as uint64 [4, n]."""
    return np.ascontiguousarray(codes.view(np.uint64).T)


def _distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> Numbers:
    """Return the number of differing bits, int64 [n, m], of words [4, n] and [4, m]."""
    result: Numbers = np.bitwise_count(a[:, :, None] ^ b[:, None, :]).sum(axis=0, dtype=np.int64)
    return result
