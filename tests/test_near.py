"""Test which perceptual hashes are near: against the plain definition, and at the cost of the
hashes, not of their pairs.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fashionrec.dataset.audit.duplicates import find_duplicates
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Entry
from fashionrec.dataset.prepare.assign import assign_groups
from fashionrec.dataset.prepare.near import near_links, nearest_before
from fashionrec.dataset.prepare.similar import HASH_BYTES, groups
from fashionrec.dataset.prepare.stage import Frame, Staged
from fashionrec.dataset.prepare.write import Record

Chance = np.random.Generator


def turned(chance: Chance, code: np.ndarray, bits: int) -> np.ndarray:
    """The hash with so many of its bits turned."""
    return code ^ np.packbits(chance.permutation(256) < bits)


def drawn(chance: Chance, count: int) -> np.ndarray:
    return chance.integers(0, 256, (count, HASH_BYTES), dtype=np.uint8)


def about(chance: Chance, centres: np.ndarray, count: int, least: int, most: int) -> np.ndarray:
    """Hashes ``least`` to ``most`` bits from some centres."""
    return np.stack([turned(chance, chance.choice(centres), int(chance.integers(least, most))) for _ in range(count)])


def chains(chance: Chance, count: int) -> np.ndarray:
    """Four walks: a hash is near the last and the next of its walk, and few others."""
    at, found = drawn(chance, 4), []
    for n in range(count):
        at[n % 4] = turned(chance, at[n % 4], int(chance.integers(0, 36)))
        found.append(at[n % 4].copy())
    return np.stack(found)


SETS: dict[str, Callable[[Chance, int], np.ndarray]] = {
    "none near": drawn,
    "all equal": lambda chance, count: np.repeat(drawn(chance, 1), count, axis=0),
    "all within the distance": lambda chance, count: about(chance, drawn(chance, 1), count, 0, 12),
    "half within the distance": lambda chance, count: about(chance, drawn(chance, 1), count, 10, 24),
    "clusters": lambda chance, count: about(chance, drawn(chance, count // 15 + 1), count, 0, 20),
    "clusters that touch": lambda chance, count: about(
        chance, about(chance, drawn(chance, 1), 6, 24, 25), count, 0, 12
    ),
    "chains": chains,
    "pictures of one colour": lambda chance, count: drawn(chance, count) * (chance.random((count, 1)) < 0.5),
}


def mixed(chance: Chance, count: int) -> np.ndarray:
    codes = np.concatenate([make(chance, count // len(SETS)) for make in SETS.values()]).astype(np.uint8)
    return codes[chance.permutation(len(codes))]


def near_pairs(codes: np.ndarray, bits: int) -> Iterator[tuple[int, int, int]]:
    """All pairs ``(i, j, distance)``, i < j, within ``bits`` bits, by j, then i: the definition."""
    ones = np.unpackbits(codes, axis=1).astype(np.float32)
    distance = ones @ (1 - ones).T + (1 - ones) @ ones.T
    hashed = codes.any(axis=1)
    for j in np.flatnonzero(hashed):
        for i in np.flatnonzero((distance[j, :j] <= bits) & hashed[:j]):
            yield int(i), int(j), int(distance[j, i])


def nearest(codes: np.ndarray, sides: list[str], bits: int) -> list[tuple[int, bool, int, int]]:
    best: dict[tuple[int, bool], tuple[int, int]] = {}
    for i, j, distance in near_pairs(codes, bits):
        key = j, sides[i] != sides[j]
        best[key] = min(best.get(key, (distance, i)), (distance, i))
    return [(j, across, i, distance) for (j, across), (distance, i) in sorted(best.items())]


@pytest.mark.parametrize("bits", [-1, 0, 22, 32, 128])
@pytest.mark.parametrize("name", [*SETS, "mixed"])
def test_they_are_those_of_all_pairs(name: str, bits: int) -> None:
    for seed, count in enumerate((2, 120)):
        chance = np.random.default_rng(seed)
        codes = (SETS | {"mixed": mixed})[name](chance, max(count, 16)).astype(np.uint8)[:count]
        links = list(near_links(codes, bits))
        assert len(links) < len(codes)
        assert groups(len(codes), links) == groups(len(codes), [(i, j) for i, j, _ in near_pairs(codes, bits)])
        sides = [str(side) for side in chance.integers(0, 3, len(codes))]
        assert list(nearest_before(codes, sides, bits)) == nearest(codes, sides, bits)


def test_none_at_all() -> None:
    nothing = np.empty((0, HASH_BYTES), np.uint8)
    assert list(near_links(nothing, 32)) == []
    assert list(nearest_before(nothing, [], 32)) == []


def alike(count: int) -> list[bytes]:
    """Hashes of pictures that are alike, a quarter of them equal to another."""
    chance = np.random.default_rng(7)
    return [row.tobytes() for row in about(chance, drawn(chance, 1), count, 0, 4)]


def records(hashes: list[bytes]) -> list[Record]:
    found = []
    for n, code in enumerate(hashes):
        frame = Frame((10, 10), (10, 10))
        staged = Staged(f"{n:064x}", frame, (10, 10), Path(f"{n}"), f"{n}", ".jpg", True, code.hex(), "JPEG", "RGB")
        found.append(Record(0, f"{n}", None, None, staged, (), True))
    return found


def test_the_memory_of_groups_does_not_grow_with_the_pairs() -> None:
    photos = records(alike(1000))
    assign_groups(photos[:2], 32)  # what is imported on the way
    tracemalloc.start()
    try:
        assert set(assign_groups(photos, 32)) == {0}
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # half a million pairs have 60 MB
    finally:
        tracemalloc.stop()


def test_the_time_does_not_grow_with_the_pairs() -> None:
    hashes = alike(4000)
    photos = records(hashes)
    entries = [Entry("train", Path(f"{n}.jpg"), f"{n}.jpg", None) for n in range(len(hashes))]
    looked_at = [Inspected((8, 8), str(n), code) for n, code in enumerate(hashes)]
    begin = time.process_time()
    assert set(assign_groups(photos, 32)) == {0}
    assert len(list(find_duplicates(entries, looked_at, 32))) == len(hashes) - 1
    assert time.process_time() - begin < 3  # a third of a second; eight million pairs take ten
