"""Precision and recall by class where the classes are not alike: counts, scores and mistakes
differ. By hand.
"""

from __future__ import annotations

import numpy as np
import pytest

from fashionrec.common.boxes import iou_matrix
from fashionrec.detector.decode import Detections
from fashionrec.evaluation.detection.average_precision import (
    IOU_THRESHOLDS,
    average_precision,
    class_figures,
    match,
    smooth,
)
from fashionrec.evaluation.detection.bootstrap import Spread


def hits(*rows: int) -> np.ndarray:
    """bool [n, 10]: how many of the ten thresholds each detection reaches."""
    return np.arange(len(IOU_THRESHOLDS))[None] < np.array(rows)[:, None]


def test_figures_are_read_where_the_classes_together_are_best() -> None:
    # class 3: ten boxes, of which nine are found with .9, and four wrong detections with .5; class
    # 1: one box, and one detection of it with .2 that is wrong
    correct = np.concatenate([hits(*[10] * 9), hits(0, 0, 0, 0), hits(0)])
    scores = np.array([0.9] * 9 + [0.5] * 4 + [0.2])
    classes = np.array([3] * 13 + [1])
    found = class_figures(correct, scores, classes, np.array([3] * 10 + [1]))
    assert found.classes == [1, 3]
    assert 0.5 < found.confidence < 0.9
    assert found.recall.tolist() == pytest.approx([0.0, 0.9])
    assert found.precision.tolist() == pytest.approx(
        [1.0, 1.0], abs=0.02
    )  # of class 1 nothing is told there, so nothing wrong
    assert found.f1.tolist() == pytest.approx([0.0, 2 * 0.9 / 1.9], abs=0.01)
    assert found.ap.shape == (2, 10)
    assert found.ap[0].tolist() == [0.0] * 10
    # recall .9 at precision 1, read at 101 points: the curve falls before its last one
    assert found.ap[1] == pytest.approx([0.895] * 10, abs=1e-6)


def test_a_hit_counts_up_to_its_own_threshold() -> None:
    found = class_figures(hits(10, 4), np.array([0.9, 0.8]), np.array([0, 0]), np.array([0, 0]))
    assert found.ap[0, :4] == pytest.approx([1.0] * 4, abs=0.006)
    assert found.ap[0, 4:] == pytest.approx([0.5] * 6, abs=0.006)


def test_a_class_of_which_nothing_is_told_has_no_precision() -> None:
    found = class_figures(hits(10), np.array([0.9]), np.array([0]), np.array([0, 2, 2]))
    assert (found.classes, found.precision.tolist(), found.recall.tolist()) == ([0, 2], [1.0, 0.0], [1.0, 0.0])


def test_the_envelope_of_a_curve_by_hand() -> None:
    # hit, miss, hit of two: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: the envelope is 1 up to
    # 1/2, then 2/3
    assert average_precision([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3]) == pytest.approx(0.5 + 0.5 * 2 / 3, abs=0.006)
    assert average_precision([], []) == 0.0


def test_overlaps_of_boxes_that_are_not_square() -> None:
    a = np.array([[0, 0, 10, 4], [20, 0, 30, 40]], float)
    b = np.array([[5, 0, 15, 4], [0, 2, 10, 4], [100, 100, 101, 101]], float)
    assert iou_matrix(a, b) == pytest.approx(np.array([[20 / 60, 20 / 40, 0], [0, 0, 0]]))


def test_the_surest_detection_takes_the_box_and_the_next_one_what_is_left() -> None:
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 8]], float)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([4, 4, 4]))
    correct = match(found, truth, np.array([4, 4]))
    # the first has .9 of the first box; the second .8 of what is left, and all of the first box at
    # .95, which the first lacks
    assert correct.sum(axis=1).tolist() == [9, 8, 0]
    assert correct[1].tolist() == [True] * 7 + [False] * 2 + [True]
    assert not match(found, truth, np.array([3, 3])).any()


def test_smoothing_holds_the_ends() -> None:
    assert smooth(np.array([0.0, 0, 0, 9, 0, 0, 6, 6, 6, 6]), 0.2).tolist() == pytest.approx(
        [0, 0, 3, 3, 3, 2, 4, 6, 6, 6]
    )


def test_an_interval_and_how_many_photos_would_tell() -> None:
    spread = Spread(0.02, np.linspace(-0.04, 0.06, 101), 50)
    assert spread.interval(0.9) == pytest.approx((-0.035, 0.055))
    assert spread.interval(0.5) == pytest.approx((-0.015, 0.035))
    # the interval reaches .055 down of .02 and .035 up; to .01 it is .01: (5.5) ** 2 times as many
    # photos
    assert spread.photos_to_tell(0.01, 0.9) == 1513
    lopsided = Spread(0.0, np.array([-0.01, 0.04]), 10)
    assert lopsided.photos_to_tell(-0.02, 0.999999) == 40
    assert lopsided.photos_to_tell(0.0, 0.9) == 10**9  # it is what it is compared with: no number would do
