"""The confusion matrix: by hand, ultralytics' own on random detections, and a wrong class mapping
that it must show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, two_halves
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionrec.config import Config
from fashionrec.detector.decode import Detections
from fashionrec.detector.detect import Detector
from fashionrec.evaluation.detection.confusion import confusion_matrix
from fashionrec.evaluation.detection.evaluator import evaluate_detector
from fashionrec.evaluation.detection.matches import Matches

NAMES = {0: "dress", 1: "pants", 2: "top"}


def detections(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> Detections:
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order].astype(np.float32), scores[order].astype(np.float32), classes[order])


def test_by_hand() -> None:
    """A hit; a dress taken for a top; a miss; a false one; one found twice; one that is not sure
    enough.
    """
    true = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 9], [80, 0, 90, 10], [40, 0, 50, 10.0]])
    matches = Matches({5: "dress", 7: "pants", 9: "top"})  # numbers need not be in a row
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    matches.add(detections(found, scores, np.array([7, 7, 9, 5, 7])), true, np.array([7, 5, 7]))
    matrix = confusion_matrix(matches, 0.25, 0.5)
    assert matrix.to_dict() == {
        "confidence": 0.25,
        "iou": 0.5,
        "classes": ["dress", "pants", "top", "background"],
        "counts": [[0, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]],
    }
    assert matrix.confused(3) == [("dress", "top", 1, 1.0)]


def test_just_as_sure_or_just_as_near_is_not_enough() -> None:
    true = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    found = np.array([[0, 0, 10, 5], [20, 0, 30, 10], [40, 0, 50, 5.5]])  # the first overlaps by a half
    matches = Matches(NAMES)
    matches.add(detections(found, np.array([0.9, 0.5, 0.8]), np.zeros(3, np.int64)), true, np.zeros(3, np.int64))
    counts = confusion_matrix(matches, 0.5, 0.5).counts
    assert counts.tolist() == [[1, 0, 0, 1], [0] * 4, [0] * 4, [2, 0, 0, 0]]


def test_the_pairs_most_often_confused_come_first() -> None:
    matches, box = Matches(NAMES), np.array([[0, 0, 10, 10.0]])
    for true, found, times in ((0, 2, 3), (0, 0, 1), (1, 0, 2), (2, 1, 1), (2, 2, 7)):
        for _ in range(times):
            matches.add(detections(box, np.array([0.9]), np.array([found])), box, np.array([true]))
    matrix = confusion_matrix(matches, 0.5, 0.5)
    assert matrix.confused(2) == [("dress", "top", 3, 0.75), ("pants", "dress", 2, 1.0)]
    assert len(matrix.confused(9)) == 3


@pytest.mark.train
@settings(max_examples=60)
@given(st.integers(0, 100_000), st.sampled_from([0.0, 0.25, 0.6]), st.sampled_from([0.45, 0.5, 0.75]))
def test_it_is_ultralytics_own(seed: int, confidence: float, iou: float) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("ultralytics.utils.metrics").ConfusionMatrix(names=NAMES)
    rng = np.random.default_rng(seed)
    matches = Matches(NAMES)
    for _ in range(8):
        corner = rng.uniform(0, 60, (int(rng.integers(0, 5)), 2))
        true = np.concatenate([corner, corner + rng.uniform(15, 50, corner.shape)], axis=1)
        classes = rng.integers(0, 3, len(true))
        again = np.repeat(np.arange(len(true)), rng.integers(0, 4, len(true)))
        stray = np.array([[5.0, 5.0, 30.0, 40.0]])[: int(rng.integers(0, 2))]
        boxes = np.concatenate([true[again] + rng.normal(0, 4, (len(again), 4)), stray])
        kinds = np.concatenate([classes[again], np.zeros(len(stray), np.int64)])
        kinds = np.where(rng.random(len(boxes)) < 0.7, kinds, 2)
        found = detections(boxes, rng.random(len(boxes)), kinds)
        matches.add(found, true, classes)
        theirs.process_batch(
            {
                "bboxes": torch.tensor(found.boxes),
                "conf": torch.tensor(found.scores),
                "cls": torch.tensor(found.class_ids),
            },
            {"bboxes": torch.tensor(true, dtype=torch.float32), "cls": torch.tensor(classes)},
            conf=confidence,
            iou_thres=iou,
        )
    assert np.array_equal(confusion_matrix(matches, confidence, iou).counts, theirs.matrix)


def test_a_wrong_class_mapping_shows(tmp_path: Path, config: Config) -> None:
    """The tiny detector finds red tops and blue pants; with its names exchanged, all that it finds
    is off the diagonal.
    """
    for n in range(3):
        two_halves(tmp_path / "test" / "images" / f"{n}.png", "red", "blue")
        (tmp_path / "test" / "labels").mkdir(exist_ok=True)
        (tmp_path / "test" / "labels" / f"{n}.txt").write_text("1 .25 .5 .5 1\n0 .75 .5 .5 1\n")
    (tmp_path / "data.yaml").write_text("test: test/images\nnames: [pants, top]\n")
    detector = Detector.open(TINY / "detector", config.detector)

    def report() -> list[list[int]]:
        found = evaluate_detector(detector, tmp_path / "data.yaml", "test", config.evaluate, config.images)
        return found.confusion.counts.tolist()

    assert report() == [[3, 0, 0], [0, 3, 0], [0, 0, 0]]
    exchanged = {"top": "pants", "pants": "top"}
    detector.labels = {number: exchanged.get(name, name) for number, name in detector.labels.items()}
    assert report() == [[0, 3, 0], [3, 0, 0], [0, 0, 0]]
