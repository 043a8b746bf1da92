"""Boxes of a photo against the rules of an audit, at the very edge of each."""

from __future__ import annotations

from typing import Any

import pytest

from fashionrec.dataset.audit.boxes import BoxRules, check_boxes
from fashionrec.dataset.audit.lines import LabelBox
from fashionrec.types import Box

NAMES = {0: "top", 1: "skirt"}
SIZE = (128, 64)  # pixels: shares of a 64th are exact


def rules(**more: float) -> BoxRules:
    """Rules that let everything pass but what they are given."""
    free = {"tiny": 0.0, "whole": 1.0, "max_aspect": 1000.0, "same_box": 1.0, "repeated": 1.0, "min_side": 0.0}
    return BoxRules(**(free | more))


@pytest.mark.parametrize(
    ("more", "corners", "kind", "figures"),
    [
        ({}, (0, 0, 2, 1), "box-outside", {"pixels": 128}),  # far outside, and yet no pixels
        ({}, (0, 0, 2.25, 1), "pixel-coordinates", {}),
        ({}, (0, -2.25, 1, 1), "pixel-coordinates", {}),
        ({"min_side": 2}, (0, 0, 2 / 128, 0.5), None, {}),
        ({"min_side": 2}, (0, 0, 1.5 / 128, 0.5), "box-of-no-area", {"width": 1.5, "height": 32}),
        ({"min_side": 2}, (0, 0, 0.5, 1.5 / 64), "box-of-no-area", {"width": 64, "height": 1.5}),
        ({}, (1, 0, 1.5, 0.5), "box-off-picture", {}),
        ({}, (0, 0, 1 + 0.5 / 128, 0.5), None, {}),  # tools round
        ({}, (0, 0, 1 + 1 / 128, 0.5), "box-outside", {"pixels": 1}),
        ({}, (0.5, -2 / 64, 1, 0.5), "box-outside", {"pixels": 2}),
        ({}, (0.5, 0, 1, 1 + 2 / 64), "box-outside", {"pixels": 2}),
        ({"tiny": 1 / 64}, (0.5, 0.5, 0.625, 0.625), None, {}),
        ({"tiny": 1 / 64}, (0.5, 0.5, 0.625, 0.609375), "tiny-box", {"share": 0.013672}),
        ({"whole": 0.25}, (0, 0, 0.5, 0.5), None, {}),
        ({"whole": 0.25}, (0, 0, 0.5, 0.515625), "whole-picture-box", {"share": 0.257812}),
        ({"max_aspect": 4}, (0, 0, 0.5, 0.25), None, {}),
        ({"max_aspect": 4}, (0, 0, 0.625, 0.25), "extreme-aspect", {"aspect": 5}),
        ({"max_aspect": 4}, (0, 0, 0.0625, 0.625), "extreme-aspect", {"aspect": 5}),
    ],
)
def test_a_rule_begins_beyond_its_limit(
    more: dict[str, float], corners: tuple[float, ...], kind: str | None, figures: dict[str, float]
) -> None:
    good, problems = check_boxes([LabelBox(7, 1, *corners)], SIZE, NAMES, rules(**more))
    assert [problem.kind for problem in problems] == [kind] * (kind is not None)
    clipped = Box(*(min(max(edge, 0.0), 1.0) for edge in corners))
    for problem in problems:
        assert (problem.line, problem.box, problem.numbers) == (7, 0, figures)
        assert problem.shown == ((1, clipped),) * (kind != "box-off-picture")
        assert problem.text.startswith("skirt: ")
    learnt = kind not in ("pixel-coordinates", "box-of-no-area", "box-off-picture")
    assert [(one.class_id, one.number, one.line) for one in good] == [(1, 0, 7)] * learnt
    assert [one.box for one in good] == [clipped] * learnt


@pytest.mark.parametrize(
    ("bottom", "same", "other"),
    [
        (0.25, [], []),  # half of both: the limit itself
        (0.375, ["double-box"], ["two-classes-one-box"]),
        (0.4375, ["repeated-box"], ["two-classes-one-box"]),
    ],
)
def test_boxes_that_are_almost_one(bottom: float, same: list[str], other: list[str]) -> None:
    lines = [LabelBox(1, 0, 0, 0, 0, 0.5), LabelBox(2, 0, 0, 0, 0.5, 0.5)]  # of the first nothing can be learnt
    for class_id, kinds in ((0, same), (1, other)):
        second = LabelBox(3, class_id, 0, 0, 0.5, bottom)
        _, problems = check_boxes([*lines, second], SIZE, NAMES, rules(same_box=0.5, repeated=0.75, min_side=1))
        pairs: list[Any] = [problem for problem in problems if problem.kind != "box-of-no-area"]
        assert [problem.kind for problem in pairs] == kinds
        for problem in pairs:
            assert (problem.line, problem.box) == (3, 2)
            assert problem.numbers == {"iou": bottom / 0.5, "other": 1}
            assert [mark[0] for mark in problem.shown] == [0, class_id]


def test_boxes_side_by_side_are_two() -> None:
    side_by_side = [LabelBox(1, 0, 0, 0, 0.5, 0.5), LabelBox(2, 0, 0.5, 0, 1, 0.5), LabelBox(3, 0, 0, 0.5, 0.5, 1)]
    assert check_boxes(side_by_side, SIZE, NAMES, rules(same_box=0.0, repeated=0.5))[1] == []


def test_of_many_equal_boxes_each_names_ten() -> None:
    boxes = [LabelBox(n, 0, 0, 0, 0.5, 0.5) for n in range(12)]
    _, problems = check_boxes(boxes, SIZE, NAMES, rules(same_box=0.5, repeated=0.75))
    assert [problem.box for problem in problems].count(11) == 10
    assert len(problems) == sum(range(11)) + 10


def test_the_limits_for_pairs_hold_each_by_itself() -> None:
    first, second = LabelBox(1, 0, 0, 0, 0.5, 0.5), (0, 0, 0.5, 0.375)  # three quarters in common
    for class_id, limits, kinds in (
        (1, {"same_box": 0.8, "repeated": 0.5}, []),
        (0, {"same_box": 0.8, "repeated": 0.5}, ["repeated-box"]),
        (1, {"same_box": 0.5, "repeated": 0.8}, ["two-classes-one-box"]),
        (0, {"same_box": 0.5, "repeated": 0.8}, ["double-box"]),
    ):
        _, problems = check_boxes([first, LabelBox(2, class_id, *second)], SIZE, NAMES, rules(**limits))
        assert [problem.kind for problem in problems] == kinds
