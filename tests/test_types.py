"""Boxes and class names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.types import CLASS_NAMES, Box, Garment, Hit, Item, category_of, resolve_class

sides = st.floats(0, 1000)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), sides, sides, sides, sides)


def test_iou_by_hand() -> None:
    assert Box(0, 0, 10, 10).iou(Box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 20, 10)) == 0
    assert Box(0, 0, 10, 10).iou(Box(0, 0, 10, 10)) == 1
    assert Box(0, 0, 0, 0).iou(Box(0, 0, 0, 0)) == 0
    assert Box(0, 0, 0.5, 0.5).iou(Box(0, 0, 0.25, 0.5)) == 0.5, "also in shares of a photo"
    assert Box(0, 0, 4, 10).iou(Box(1, 2, 5, 22)) == pytest.approx(24 / (40 + 80 - 24))


def test_sides_and_corners_by_hand() -> None:
    box = Box(10, 30, 14, 33)
    assert (box.width, box.height, box.area) == (4, 3, 12)
    assert Box(14, 30, 10, 33).area == Box(10, 33, 14, 30).area == Box(14, 33, 10, 30).area == 0, "turned inside out"
    assert Box(-3, 7, 90, 80).clip(60, 50) == (0, 7, 60, 50)
    assert Box(5, -8, 40, 49).clip(60, 50) == (5, 0, 40, 49)
    assert Box(70, 51, 80, 90).clip(60, 50) == (60, 50, 60, 50)
    assert Box(-9, -9, -4, -2).clip(60, 50) == (0, 0, 0, 0)


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


@pytest.mark.parametrize(
    ("word", "name"),
    [
        *((alias, "skirt&pants") for alias in ("culottes", "skirt-pants", "SKIRT_PANTS", " 2\n", "02")),
        (" Dress ", "dress"),
        ("0", "dress"),
        ("00", "dress"),
        ("004", "top"),
        *((word, None) for word in ("", "05", "40", "-1", "1.0", "0top", "²", "9" * 5000, "tops", "skirt pants")),
    ],
)
def test_what_a_person_may_call_a_class(word: str, name: str | None) -> None:
    assert resolve_class(word) == name


def test_the_first_column_that_names_a_class_does() -> None:
    columns = ("category", "class", "id")
    assert category_of({"category": "hat", "class": "Culottes", "id": 4}, columns) == "skirt&pants"
    assert category_of({"class": None, "id": 4}, columns) == "top"
    assert category_of({"category": "skirt", "class": "top"}, columns) == "skirt"
    assert category_of({"title": "top"}, columns) is None


def test_a_garment_is_called_by_its_class_or_by_what_was_asked_with() -> None:
    some, nothing = Box(1, 1, 2, 3), Box(0, 0, 0, 0)
    assert Garment(0, "top", 0.5, some, whole_photo=True).name == "top"
    assert Garment(0, None, None, some, whole_photo=True).name == "whole photo"
    assert Garment(0, None, None, some).name == "the box"
    assert Garment(0, None, None, nothing).name == "words"


def test_closeness_is_the_cosine_less_the_penalty_of_another_class() -> None:
    item = Item("i", "p", "a.jpg", "top", Box(0, 0, 1, 1))
    parts = {"image": 0.4, "caption": 0.2, "class": -0.125}
    assert Hit(1, 0.6, item, parts, cosine=0.75).closeness == 0.625
    assert Hit(1, 0.6, item, {"image": 0.4}, cosine=0.75).closeness == 0.75
    assert Hit(1, 0.6, item, parts).closeness == -0.125, "only words were asked with"
