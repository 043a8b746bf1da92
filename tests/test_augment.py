"""Augmented copies: flips are exact, the rotated box follows its rule, and the rule's slack is as
stated.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fashionrec.dataset.prepare.augment import (
    PAD,
    Change,
    change_labels,
    change_pixels,
    draw_change,
    flip_box,
    rotate_box,
)
from fashionrec.dataset.prepare.rules import Label
from fashionrec.dataset.synthetic.attributes import sample_garment
from fashionrec.dataset.synthetic.figure import display, person
from fashionrec.dataset.synthetic.garments import cut
from fashionrec.types import CLASS_NAMES, Box

SIZE = (160, 120)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.integers(0, 100),
    st.integers(0, 80),
    st.integers(1, 60),
    st.integers(1, 40),
)


def rotation_slack(box: Box, degrees: float) -> tuple[float, float]:
    """Return how far, in pixels, a rotated garment may reach beyond the rule's box to each side,
    and above and below.
    """
    angle = math.radians(degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    width, height = box.width, box.height
    corners = width * cos + height * sin, width * sin + height * cos
    return (corners[0] - math.hypot(width * cos, height * sin)) / 4, (
        corners[1] - math.hypot(width * sin, height * cos)
    ) / 4


def box_of(mask: Image.Image) -> Box:
    ys, xs = np.nonzero(np.asarray(mask))
    return Box(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@given(box=boxes, horizontal=st.booleans())
def test_a_flip_twice_is_the_identity(box: Box, horizontal: bool) -> None:
    once = flip_box(box, SIZE, horizontal=horizontal)
    assert flip_box(once, SIZE, horizontal=horizontal) == box


@given(box=boxes, fliplr=st.booleans(), flipud=st.booleans())
def test_a_flipped_box_is_exact(box: Box, fliplr: bool, flipud: bool) -> None:
    picture = Image.new("RGB", SIZE)
    picture.paste((255, 255, 255), tuple(map(int, box)))
    change = Change(fliplr, flipud)
    assert box_of(change_pixels(picture, change).convert("L")) == change_labels([Label(1, box)], SIZE, change)[0].box


@given(box=boxes, degrees=st.floats(-10, 10))
def test_a_filled_box_reaches_as_far_as_the_slack_and_no_further(box: Box, degrees: float) -> None:
    """Painted, rotated as the picture is, measured: a full box reaches to the rule plus its slack
    and no further.
    """
    scale = 4
    size = (SIZE[0] * scale, SIZE[1] * scale)
    large = Box(*(value * scale for value in box))
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((large.x1, large.y1, large.x2 - 1, large.y2 - 1), fill=255)
    rule, (slack_x, slack_y) = rotate_box(large, size, degrees), rotation_slack(large, degrees)
    grown = Box(rule.x1 - slack_x, rule.y1 - slack_y, rule.x2 + slack_x, rule.y2 + slack_y)
    assume(grown == grown.clip(*size))
    found = box_of(mask.rotate(degrees, Image.Resampling.NEAREST))
    assert max(abs(edge - expected) for edge, expected in zip(found, grown, strict=True)) <= 2


def garments(count: int) -> list[tuple[np.ndarray, float]]:
    """Outlines of drawn garments, float [n, 2] in pixels around (300, 300), and an
    angle for each.
    """
    rng = np.random.default_rng(0)
    made = []
    for n in range(count):
        figure = display(rng, "flat") if n % 2 else person(rng)
        parts = cut(sample_garment(rng, CLASS_NAMES[n % 5]), figure)
        outline = np.concatenate([points for part in parts for points in part.polygons]) * 4 + 300
        made.append((outline, float(rng.uniform(-10, 10))))
    return made


def test_the_rule_is_nearer_to_real_outlines_than_either_extreme() -> None:
    """The figures in the docstring of `rotate_box`, of as many garments."""
    overlaps: dict[str, list[float]] = {"rule": [], "corners": [], "ellipse": []}
    for outline, degrees in garments(500):
        box = Box(*outline.min(axis=0), *outline.max(axis=0))
        angle = math.radians(degrees)
        x, y = (outline - 300).T
        turned = (
            np.stack([x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)], 1) + 300
        )
        truth = Box(*turned.min(axis=0), *turned.max(axis=0))
        rule, (sx, sy) = rotate_box(box, (600, 600), degrees), rotation_slack(box, degrees)
        corners = Box(rule.x1 - sx, rule.y1 - sy, rule.x2 + sx, rule.y2 + sy)
        overlaps["rule"].append(truth.iou(rule))
        overlaps["corners"].append(truth.iou(corners))
        overlaps["ellipse"].append(truth.iou(Box(rule.x1 + sx, rule.y1 + sy, rule.x2 - sx, rule.y2 - sy)))
        assert truth.x1 >= corners.x1 - 1e-6
        assert truth.y2 <= corners.y2 + 1e-6
    means = {name: float(np.mean(values)) for name, values in overlaps.items()}
    assert means == {
        "rule": pytest.approx(0.92, abs=0.005),
        "corners": pytest.approx(0.88, abs=0.005),
        "ellipse": pytest.approx(0.90, abs=0.005),
    }
    assert min(overlaps["rule"]) == pytest.approx(0.78, abs=0.005)


def test_what_turns_out_of_the_picture_is_not_labelled() -> None:
    corner = Label(0, Box(150, 0, 160, 6))
    assert change_labels([corner], SIZE, Change(degrees=10)) == []
    assert len(change_labels([Label(0, Box(60, 40, 100, 80))], SIZE, Change(degrees=10))) == 1


def test_a_change_is_drawn_by_seed_and_name() -> None:
    drawn = [draw_change(seed, name, fliplr=0.5, flipud=0.5, degrees=10) for seed in (0, 1) for name in "abcdefgh"]
    assert drawn == [
        draw_change(seed, name, fliplr=0.5, flipud=0.5, degrees=10) for seed in (0, 1) for name in "abcdefgh"
    ]
    assert len({change.degrees for change in drawn}) == 16
    assert {change.fliplr for change in drawn} == {True, False}
    assert all(-10 <= change.degrees <= 10 for change in drawn)
    assert draw_change(0, "a", fliplr=0, flipud=0, degrees=0) == Change()


def test_each_probability_is_of_its_own_flip() -> None:
    names = [f"{n}.jpg" for n in range(200)]
    for fliplr, flipud in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)):
        drawn = [draw_change(3, name, fliplr=fliplr, flipud=flipud, degrees=0) for name in names]
        assert set(drawn) == {Change(bool(fliplr), bool(flipud), 0.0)}
    turns = [draw_change(3, name, fliplr=0.25, flipud=0, degrees=8) for name in names]
    assert all(-8 <= one.degrees <= 8 and one.degrees == round(one.degrees, 3) for one in turns)
    assert min(one.degrees for one in turns) < -6
    assert max(one.degrees for one in turns) > 6
    assert 25 < sum(one.fliplr for one in turns) < 75


def test_what_a_rotation_uncovers_is_grey() -> None:
    picture = Image.new("RGB", (40, 20), "white")
    turned = change_pixels(picture, Change(degrees=45))
    assert turned.size == (40, 20)
    assert turned.getpixel((0, 0)) == turned.getpixel((39, 19)) == (PAD,) * 3
    assert turned.getpixel((20, 10)) == (255, 255, 255)
    half = picture.copy()
    half.paste("red", (0, 0, 20, 10))  # upper left
    places = {"upper left": (5, 5), "upper right": (35, 5), "lower left": (5, 15), "lower right": (35, 15)}
    for change, expected in (
        (Change(), "upper left"),
        (Change(fliplr=True), "upper right"),
        (Change(flipud=True), "lower left"),
        (Change(fliplr=True, flipud=True), "lower right"),
    ):
        changed = change_pixels(half, change)
        assert [name for name, at in places.items() if changed.getpixel(at) == (255, 0, 0)] == [expected]
