"""Items in groups, before Python 3.12's own."""

from __future__ import annotations

from fashionrec.common.batches import batched


def test_things_come_in_groups() -> None:
    assert [len(group) for group in batched(range(513), 256)] == [256, 256, 1]
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batched([], 2)) == []
