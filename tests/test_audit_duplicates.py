"""Test which pairs of photos an audit names: the same bytes, nearly the same picture, copies by
name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fashionrec.dataset.audit.boxes import GoodBox
from fashionrec.dataset.audit.duplicates import find_duplicates
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Entry
from fashionrec.types import Box

Photo = tuple[str, str, int]  # path, bytes by a word, bits of the hash that are set beside the first


def pairs(*photos: Photo, bits: int = 2, boxes: tuple[tuple[GoodBox, ...], ...] = ()) -> list[tuple[str, str]]:
    """Kind and stems of each finding."""
    entries = [Entry(path.partition("/")[0], Path(path), path, None) for path, _, _ in photos]
    seen = [
        Inspected((8, 8), sha256, (1 << 255 | mask).to_bytes(32, "big"), boxes[n] if boxes else ())
        for n, (_, sha256, mask) in enumerate(photos)
    ]
    found = list(find_duplicates(entries, seen, bits))
    assert all(set(finding.images) <= {path for path, _, _ in photos} for finding in found)
    return [(finding.kind, " ".join(Path(image).stem for image in finding.images)) for finding in found]


def test_the_same_bytes_pair_with_the_first_of_each_split() -> None:
    photos = [(f"{split}/{name}.jpg", "same", 0) for split, name in (("t", "a"), ("t", "b"), ("v", "c"), ("v", "d"))]
    assert pairs(*photos, ("v/e.jpg", "other", 0xFF)) == [
        ("exact-duplicate", "a b"),
        ("exact-duplicate-across-splits", "a c"),
        ("exact-duplicate", "c d"),
    ]
    assert pairs(("t/a.jpg", "", 0), ("t/b.jpg", "", 0)) == []  # that cannot be read


def test_labels_of_the_same_bytes_are_compared_as_they_are_written() -> None:
    box = GoodBox(1, Box(0, 0, 0.5, 0.5), 0, 1)
    same = (box._replace(box=Box(0, 0, 0.50001, 0.5), number=3, line=9),)
    for second, kinds in (
        (same, ["exact-duplicate"]),
        ((box._replace(class_id=2),), ["exact-duplicate", "different-labels"]),
        ((box._replace(box=Box(0, 0, 0.5, 0.51)),), ["exact-duplicate", "different-labels"]),
        ((box, box), ["exact-duplicate", "different-labels"]),
    ):
        found = pairs(("t/a.jpg", "same", 0), ("t/b.jpg", "same", 0), boxes=((box,), second))
        assert found == [(kind, "a b") for kind in kinds]


def test_the_nearest_earlier_one_of_its_own_split_and_of_another() -> None:
    photos = (("t/a.jpg", "1", 0b0), ("t/b.jpg", "2", 0b1), ("v/c.jpg", "3", 0b111), ("t/d.jpg", "4", 0b1))
    assert pairs(*photos) == [
        ("near-duplicate", "a b"),
        ("near-duplicate-across-splits", "b c"),  # two bits; three from a
        ("near-duplicate", "b d"),
        ("near-duplicate-across-splits", "c d"),
    ]
    assert pairs(*photos, bits=0) == [("near-duplicate", "b d")]
    assert pairs(*photos, bits=-1) == []


@pytest.mark.parametrize(
    ("photos", "expected"),
    [
        (("t/x_jpg.rf.1.jpg", "v/x_jpg.rf.2.jpg"), [("copies-across-splits", "x_jpg.rf.1 x_jpg.rf.2")]),
        (("t/x_jpg.rf.1.jpg", "t/x_jpg.rf.2.jpg"), []),
        (("t/x_jpg.rf.1.jpg", "v/x_jpg.jpg"), []),
        (("t/1.jpg", "v/1.jpg", "v/1.png", "test/1.jpg"), [("same-name-across-splits", "1 1")] * 2),
        (("t/.rf.1.jpg", "v/.rf.2.jpg"), []),
    ],
)
def test_names_across_splits(photos: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    assert pairs(*((path, path, 0xFFF << 12 * n) for n, path in enumerate(photos))) == expected


def test_a_pair_is_named_once() -> None:
    assert pairs(("t/1.jpg", "same", 0), ("v/1.jpg", "same", 0)) == [("exact-duplicate-across-splits", "1 1")]
    assert pairs(("t/1.jpg", "a", 0), ("v/1.jpg", "b", 1)) == [("near-duplicate-across-splits", "1 1")]
