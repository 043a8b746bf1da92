"""Boxes and class names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.types import CLASS_NAMES, Box, resolve_class

sides = st.floats(0, 1000)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), sides, sides, sides, sides)


def test_iou_by_hand() -> None:
    assert Box(0, 0, 10, 10).iou(Box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 20, 10)) == 0
    assert Box(0, 0, 10, 10).iou(Box(0, 0, 10, 10)) == 1
    assert Box(0, 0, 0, 0).iou(Box(0, 0, 0, 0)) == 0


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(a: Box, b: Box) -> None:
    assert a.iou(b) == pytest.approx(b.iou(a))
    assert 0 <= a.iou(b) <= 1 + 1e-9


@given(boxes)
def test_clipping_stays_inside_and_is_idempotent(box: Box) -> None:
    inside = box.clip(100, 50)
    assert 0 <= inside.x1 <= inside.x2 <= 100
    assert 0 <= inside.y1 <= inside.y2 <= 50
    assert inside.clip(100, 50) == inside


def test_class_ids_are_pinned() -> None:
    assert CLASS_NAMES == ("dress", "pants", "skirt&pants", "skirt", "top")
    assert [resolve_class(str(n)) for n in range(6)] == [*CLASS_NAMES, None]
    assert resolve_class("culottes") == resolve_class("Skirt&Pants") == "skirt&pants"
    assert resolve_class("hat") is None
