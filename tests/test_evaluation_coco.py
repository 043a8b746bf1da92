"""COCO's figures: pycocotools' own on planted cases and at random, and a few by hand."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionrec.detector.decode import Detections
from fashionrec.evaluation.detection.coco import AREAS, CocoFigures, coco_figures
from fashionrec.evaluation.detection.matches import Matches

NAMES = {0: "dress", 1: "pants", 2: "top"}
STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")

Boxes = Sequence[tuple[float, float, float, float]]
#: One photo: detections as (box, score, class), best first or not, and true boxes as (box, class).
Photo = tuple[Sequence[tuple[Sequence[float], float, int]], Sequence[tuple[Sequence[float], int]]]


def matched(photos: Sequence[Photo]) -> Matches:
    matches = Matches(NAMES)
    for found, truth in photos:
        order = sorted(found, key=lambda one: -one[1])
        boxes = np.array([one[0] for one in order], np.float32).reshape(-1, 4)
        scores, ids = np.array([one[1] for one in order], np.float32), np.array([one[2] for one in order], np.int64)
        true = np.array([one[0] for one in truth], np.float64).reshape(-1, 4)
        matches.add(Detections(boxes, scores, ids), true, np.array([one[1] for one in truth], np.int64))
    return matches


def xywh(box: Any) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def pycoco(matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pycocotools' 12 figures, precision [10, 101, classes, areas] and recall [10, classes, areas],
    -1 where there is nothing.
    """
    coco_module, eval_module = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for n in range(len(matches.truths)):
        for box, number in zip(matches.true_boxes[n], matches.truths[n], strict=True):
            place = xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n,
                    "category_id": int(number),
                    "bbox": place,
                    "area": place[2] * place[3],
                    "iscrowd": 0,
                }
            )
        for box, score, number in zip(matches.boxes[n], matches.scores[n], matches.classes[n], strict=True):
            results.append({"image_id": n, "category_id": int(number), "bbox": xywh(box), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO()
        truth.dataset = {
            "images": [{"id": n} for n in range(len(matches.truths))],
            "categories": [{"id": number, "name": name} for number, name in matches.names.items()],
            "annotations": annotations,
        }
        truth.createIndex()
        found = truth.loadRes(results) if results else coco_module.COCO()
        judge = eval_module.COCOeval(truth, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats, judge.eval["precision"][..., -1], judge.eval["recall"][..., -1]


def ours(figures: CocoFigures) -> list[float]:
    values = [figures.ap(), figures.ap(iou=0.5), figures.ap(iou=0.75)]
    values += [figures.ap("small"), figures.ap("medium"), figures.ap("large"), figures.ar()]
    return [-1.0 if value is None else value for value in values]


def agrees(matches: Matches) -> CocoFigures:
    figures = coco_figures(matches)
    stats, precision, recall = pycoco(matches)
    assert ours(figures) == pytest.approx([*stats[:6], stats[8]], abs=1e-9)
    assert np.array_equal(np.nan_to_num(figures.precision, nan=-1), precision)
    assert np.array_equal(np.nan_to_num(figures.recall, nan=-1), recall)
    return figures


def box(x: float, y: float, side: float) -> tuple[float, float, float, float]:
    return (x, y, x + side, y + side)


BIG, MID, SMALL = box(10, 10, 200), box(300, 10, 60), box(400, 300, 20)

PLANTED: dict[str, list[Photo]] = {
    "perfect": [([(BIG, 0.9, 0), (MID, 0.8, 1), (SMALL, 0.7, 2)], [(BIG, 0), (MID, 1), (SMALL, 2)])],
    "blind": [([], [(BIG, 0), (SMALL, 2)])],
    "a photo with nothing": [([], []), ([(BIG, 0.5, 0)], [(BIG, 0)]), ([], [])],
    "found where nothing is": [([(BIG, 0.9, 0)], []), ([(BIG, 0.5, 0)], [(BIG, 0)])],
    "a class without truth": [([(BIG, 0.9, 0), (MID, 0.8, 1)], [(BIG, 0)])],
    "wrong class": [([(BIG, 0.9, 1)], [(BIG, 0)]), ([(BIG, 0.9, 1)], [(BIG, 1)])],
    "crowded": [
        (
            [(box(10 + 6 * n, 10 + 4 * n, 100), 0.9 - n / 50, 0) for n in range(12)],
            [(box(12 + 18 * n, 12 + 11 * n, 100), 0) for n in range(4)],
        )
    ],
    "the surest takes it though another lies better": [
        ([(box(0, 0, 100), 0.3, 0), ((0, 0, 100, 81), 0.9, 0)], [(box(0, 0, 100), 0)])
    ],
    "equal scores": [
        ([(box(10, 10, 50), 0.5, 0), (BIG, 0.5, 0)], [(BIG, 0)]),
        ([(BIG, 0.5, 0), (box(11, 11, 50), 0.5, 0)], [(BIG, 0)]),
        ([(box(500, 10, 50), 0.5, 0)], []),
    ],
    "two true boxes alike": [([(BIG, 0.9, 0), (BIG, 0.8, 0), (BIG, 0.7, 0)], [(BIG, 0), (BIG, 0)])],
    "an overlap on a threshold": [
        ([((0.0, 0.0, 100.0, float(t)), 0.9, 0)], [((0.0, 0.0, 100.0, 100.0), 0)]) for t in range(50, 100, 5)
    ],
    "sizes on their borders": [
        ([(box(0, 0, 32), 0.9, 0), (box(100, 0, 96), 0.8, 0)], [(box(0, 0, 32), 0), (box(100, 0, 96), 0)])
    ],
    "a large box found small": [([((10, 10, 100, 100), 0.9, 0), (SMALL, 0.8, 0)], [((10, 10, 130, 108), 0)])],
    "an ignored box overlaps more than a counted one": [
        ([((0, 0, 31.5, 33), 0.9, 0)], [((0, 0, 31, 32), 0), ((0, 0, 32, 33.5), 0)])
    ],
    "more than a hundred in a photo": [
        (
            [(box(3 * n, 5, 30), 0.99 - n / 200, 0) for n in range(130)] + [(MID, 0.1, 1)],
            [(box(3 * 120, 5, 30), 0), (MID, 1)],
        )
    ],
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_cases_are_pycocotools_own(name: str) -> None:
    agrees(matched(PLANTED[name]))


def test_planted_cases_together_are_pycocotools_own() -> None:
    figures = agrees(matched([photo for photos in PLANTED.values() for photo in photos]))
    assert 0 < (figures.ap() or 0) < 1


coordinate = st.integers(0, 24).map(lambda n: n * 8.0)
side = st.sampled_from([8.0, 16.0, 24.0, 32.0, 40.0, 64.0, 96.0, 104.0, 160.0])
boxes = st.tuples(coordinate, coordinate, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
shift = st.integers(-84, 84).map(lambda n: n / 7)
number = st.integers(0, 2)
score = st.one_of(st.sampled_from([0.25, 0.5, 0.75]), st.integers(1, 1000).map(lambda n: n / 1000))


@st.composite
def photos(draw: st.DrawFn) -> Photo:
    """Boxes on a grid, so that equal and touching ones are frequent; detections lie near them or
    anywhere.
    """
    truth = draw(st.lists(st.tuples(boxes, number), max_size=5))
    found = draw(st.lists(st.tuples(boxes, score, number), max_size=4))
    for true, kind in truth:
        for _ in range(draw(st.integers(0, 3))):
            moved = [value + draw(st.one_of(st.just(0.0), shift)) for value in true]
            if moved[2] > moved[0] and moved[3] > moved[1]:
                found.append((tuple(moved), draw(score), draw(st.sampled_from([kind, kind, draw(number)]))))
    return found, truth


@settings(max_examples=80)
@given(st.lists(photos(), min_size=1, max_size=5))
def test_random_cases_are_pycocotools_own(drawn: list[Photo]) -> None:
    agrees(matched(drawn))


def test_by_hand() -> None:
    """A hit, a miss, a hit, of two true boxes: precision is 1 up to recall .5, which 51 of 101
    points are, then 2/3.
    """
    far = box(400, 10, 200)
    figures = coco_figures(
        matched([([(BIG, 0.9, 0), (box(10, 400, 200), 0.8, 0), (far, 0.7, 0)], [(BIG, 0), (far, 0)])])
    )
    assert figures.ap(iou=0.5) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert figures.curve(0).mean() == pytest.approx(figures.ap(iou=0.5))
    assert figures.class_ap(0) == figures.ap()
    assert (figures.ap("small"), figures.ar("small"), figures.class_ap(1)) == (None, None, None)
    assert [figures.in_area(area) for area in AREAS] == [2, 0, 0, 2]


def test_a_size_ignores_what_is_of_another() -> None:
    """A false large box and a missed large one cost the small ones nothing; a false
    small one does.
    """
    photo: Photo = ([(box(10, 400, 200), 0.95, 0), (SMALL, 0.9, 0)], [(BIG, 0), (SMALL, 0)])
    assert coco_figures(matched([photo])).ap("small") == pytest.approx(1.0)
    assert coco_figures(matched([photo])).ap("large") == 0.0
    worse: Photo = ([*photo[0], (box(600, 400, 20), 0.95, 0)], photo[1])
    assert coco_figures(matched([worse])).ap("small") == pytest.approx(0.5)


def test_only_the_hundred_surest_count() -> None:
    crowd = [(box(3 * n, 5, 2), 0.9, 0) for n in range(100)]
    assert coco_figures(matched([([*crowd, (BIG, 0.1, 0)], [(BIG, 0)])])).ar() == 0.0
    assert coco_figures(matched([([*crowd[:99], (BIG, 0.1, 0)], [(BIG, 0)])])).ar() == pytest.approx(1.0)
