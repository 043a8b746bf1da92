"""Test what went wrong in a photo: each kind by hand, and planted faults that must show as what
they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.detector.decode import Detections
from fashionrec.evaluation.detection.matches import Matches
from fashionrec.evaluation.detection.mistakes import KINDS, PhotoMistakes, count_mistakes, find_mistakes, worst

NAMES = {0: "dress", 1: "pants", 2: "top"}
BOX = (100.0, 100.0, 200.0, 200.0)
FAR = (500.0, 100.0, 600.0, 200.0)

Found = tuple[tuple[float, ...], float, int]


def photo(found: list[Found], truth: list[tuple[tuple[float, ...], int]], confidence: float = 0.25) -> PhotoMistakes:
    matches = Matches(NAMES)
    add(matches, found, truth)
    (one,) = find_mistakes(matches, confidence)
    return one


def add(matches: Matches, found: list[Found], truth: list[tuple[tuple[float, ...], int]], path: str = "a.jpg") -> None:
    found = sorted(found, key=lambda one: -one[1])
    detections = Detections(
        np.array([one[0] for one in found], np.float32).reshape(-1, 4),
        np.array([one[1] for one in found], np.float32),
        np.array([one[2] for one in found], np.int64),
    )
    boxes = np.array([one[0] for one in truth], np.float64).reshape(-1, 4)
    matches.add(detections, boxes, np.array([one[1] for one in truth], np.int64), Path(path))


def moved(box: tuple[float, ...], share_x: float, share_y: float = 0.0) -> tuple[float, ...]:
    x, y = share_x * (box[2] - box[0]), share_y * (box[3] - box[1])
    return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


@pytest.mark.parametrize(
    ("found", "kinds", "text"),
    [
        ([(BOX, 0.9, 2)], [], ""),
        ([], ["missed"], "top missed"),
        ([(BOX, 0.2, 2)], ["missed"], "top missed"),  # not sure enough to count
        ([(BOX, 0.9, 2), (FAR, 0.5, 0)], ["false"], "false dress 0.50"),
        ([(BOX, 0.9, 0)], ["wrong_class"], "top taken for dress 0.90"),
        ([(moved(BOX, 0.2), 0.9, 2)], ["badly_placed"], "top 0.90 badly placed, IoU 0.67"),
        ([(moved(BOX, 0.2, 0.2), 0.9, 2)], ["badly_placed"], "top 0.90 badly placed, IoU 0.47"),
        ([(BOX, 0.9, 2), (moved(BOX, 0.1), 0.8, 2)], ["double"], "top 0.80 on a top that was already detected"),
        ([(BOX, 0.9, 2), (BOX, 0.8, 0)], ["double"], "dress 0.80 on a top that was already detected"),
        (
            [(BOX, 0.9, 0), (BOX, 0.8, 2)],
            ["double"],
            "dress 0.90 on a top that was already detected",
        ),  # the right one counts
        ([(moved(BOX, 0.95), 0.9, 2)], ["missed", "false"], "top missed"),  # an overlap of .03 is none
        ([(moved(BOX, 0.5), 0.9, 0)], ["missed", "false"], "top missed"),  # neither the class nor the place
    ],
)
def test_each_kind_by_hand(found: list[Found], kinds: list[str], text: str) -> None:
    seen = photo(found, [(BOX, 2)])
    assert [mistake.kind for mistake in seen.mistakes] == kinds
    assert [mistake.text for mistake in seen.mistakes][:1] == [text] * bool(kinds)
    assert len(seen.right) == (0 if {"missed", "wrong_class", "badly_placed"} & set(kinds) else 1)


def test_a_garment_found_as_another_class_keeps_both_boxes_apart() -> None:
    found_box = moved(BOX, 0.125)
    (mistake,) = photo([(found_box, 0.5, 0)], [(BOX, 2)]).mistakes
    assert (mistake.kind, mistake.true, mistake.found, mistake.confidence) == ("wrong_class", "top", "dress", 0.5)
    assert (mistake.true_box, mistake.found_box) == (BOX, found_box)
    assert mistake.iou == pytest.approx(87.5 / 112.5)


def test_a_box_that_is_a_fifth_off_everywhere_shows_as_badly_placed() -> None:
    """A planted fault: right classes, each box moved by a fifth of its size."""
    rng = np.random.default_rng(0)
    matches = Matches(NAMES)
    for _ in range(20):
        corner = rng.uniform([[0, 0], [400, 0]], [[100, 100], [500, 100]])
        boxes = [tuple(map(float, (*c, *(c + rng.uniform(30, 200, 2))))) for c in corner]
        add(matches, [(moved(box, 0.2, 0.2), 0.9, 1) for box in boxes], [(box, 1) for box in boxes])
    counts = count_mistakes(find_mistakes(matches, 0.25))
    assert counts == {"missed": 0, "false": 0, "wrong_class": 0, "badly_placed": 40, "double": 0}


def test_what_it_costs_and_which_photos_are_worst() -> None:
    matches = Matches(NAMES)
    add(matches, [(BOX, 0.9, 2)], [(BOX, 2)], "right.jpg")
    add(matches, [(moved(BOX, 0.2), 0.9, 2)], [(BOX, 2)], "badly placed.jpg")  # a third is lacking
    add(matches, [(BOX, 0.9, 2), (FAR, 0.6, 2)], [(BOX, 2)], "false.jpg")
    add(matches, [(BOX, 0.9, 1)], [(BOX, 2), (FAR, 0)], "wrong class and missed.jpg")
    photos = worst(find_mistakes(matches, 0.25), 9)
    assert [str(one.path) for one in photos] == ["wrong class and missed.jpg", "false.jpg", "badly placed.jpg"]
    assert [one.cost for one in photos] == pytest.approx([2, 0.6, 1 / 3], abs=1e-6)
    assert len(worst(find_mistakes(matches, 0.25), 2)) == 2
    assert worst(find_mistakes(matches, 0.25), 0) == []
    document = photos[1].to_dict()
    assert document["photo"] == "false.jpg"
    assert document["mistakes"][0] == {
        "kind": "false",
        "true": "background",
        "found": "top",
        "confidence": pytest.approx(0.6),
        "iou": 0.0,
        "box": list(FAR),
    }


@given(st.integers(0, 100_000))
def test_every_box_is_accounted_for_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 200, (int(rng.integers(0, 5)), 2))
    truth = [(tuple(map(float, (*c, *(c + rng.uniform(20, 120, 2))))), int(rng.integers(0, 3))) for c in corner]
    found: list[Found] = []
    for box, kind in truth * int(rng.integers(0, 3)):
        near = tuple(float(value) for value in np.array(box) + rng.normal(0, 12, 4))
        if near[2] > near[0] and near[3] > near[1]:
            found.append((near, float(rng.random()), kind if rng.random() < 0.6 else 0))
    seen = photo(found, truth)
    kinds = [mistake.kind for mistake in seen.mistakes]
    sure = sum(np.float32(score) > 0.25 for _, score, _ in found)
    assert len(seen.right) + sum(kind != "missed" for kind in kinds) == sure
    assert len(seen.right) + sum(kind in ("missed", "wrong_class", "badly_placed") for kind in kinds) == len(truth)
    assert set(kinds) <= set(KINDS)
