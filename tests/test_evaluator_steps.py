"""Test how a detector is asked about a split and what becomes of its answers: a detector that says
what it is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import Config
from fashionrec.detector.decode import Detections
from fashionrec.errors import DataError
from fashionrec.evaluation.detection.bootstrap import figures, paired_spreads
from fashionrec.evaluation.detection.evaluator import match_detector, measure_map, other_preparation, renumbered
from fashionrec.evaluation.detection.matches import Matches
from fashionrec.photos.pixels import PixelSpec


class Told:
    """A detector of tops (7) and hats (9) that finds a top of the photo's left half, and a hat of
    all of it.
    """

    def __init__(self, pixels: dict[str, Any] | None = None) -> None:
        self.labels = {7: "top", 9: "hat"}
        self.pixels = PixelSpec.from_dict(pixels)
        self.asked: list[tuple[int, dict[str, Any]]] = []

    def predict(self, photos: Sequence[Image.Image], **named: Any) -> list[Detections]:
        self.asked.append((len(photos), named))
        return [
            Detections(
                np.array([[0, 0, photo.width, photo.height], [0, 0, photo.width / 2, photo.height]], np.float32),
                np.array([0.9, 0.5], np.float32),
                np.array([9, 7]),
            )
            for photo in photos
        ]


def dataset(folder: Path, count: int, names: Sequence[str] = ("pants", "top"), line: str = "1 .25 .5 .5 1\n") -> Path:
    (folder / "test" / "images").mkdir(parents=True)
    (folder / "test" / "labels").mkdir()
    for n in range(count):
        Image.new("RGB", (40 + n, 20)).save(folder / "test" / "images" / f"{n:02}.png")
        (folder / "test" / "labels" / f"{n:02}.txt").write_text(line)
    (folder / "data.yaml").write_text(f"test: test/images\nnames: {json.dumps(list(names))}\n")
    return folder / "data.yaml"


def matched(detector: Any, data: Path, config: Config, **named: Any) -> Matches:
    return match_detector(detector, data, "test", config.evaluate, config.images, **named)


def test_a_split_is_asked_in_batches_and_matched_by_the_names_of_classes(tmp_path: Path, config: Config) -> None:
    data, detector, steps = dataset(tmp_path, 17), Told(), list[tuple[int, int]]()
    matches = matched(detector, data, config, progress=lambda n, of: steps.append((n, of)))
    settings = config.evaluate
    named = {"conf": settings.conf, "iou": settings.iou, "max_det": settings.max_det}
    named |= {"multi_label": True, "prepared_already": False}
    assert detector.asked == [(8, named), (8, named), (1, named)]
    assert steps == [(8, 17), (16, 17), (17, 17)]
    assert matches.names == {0: "pants", 1: "top"}
    assert matches.paths == [tmp_path / "test" / "images" / f"{n:02}.png" for n in range(17)]
    for n in range(17):
        # of the hat nothing is known to the data; the top is number 1 here
        assert (matches.classes[n].tolist(), matches.scores[n].tolist()) == ([1], [0.5])
        assert matches.boxes[n].tolist() == [[0, 0, (40 + n) / 2, 20]]
        assert matches.true_boxes[n].tolist() == [[0, 0, (40 + n) / 2, 20]]
        assert matches.truths[n].tolist() == [1]
        assert matches.correct[n].all()
    told = measure_map(detector, data, "test", config.evaluate, config.images)  # type: ignore[arg-type]
    assert told == {"map50_95": pytest.approx(0.995), "map50": pytest.approx(0.995), "images": 17}


def test_photos_that_are_prepared_are_not_prepared_again(tmp_path: Path, config: Config) -> None:
    data, detector = dataset(tmp_path, 1), Told()
    pixels = PixelSpec.from_dict({"resize": "letterbox", "imgsz": 32}).to_dict()
    (tmp_path / "dataset.json").write_text(json.dumps({"pixels": pixels}))
    matched(detector, data, config)
    assert detector.asked[0][1]["prepared_already"] is True
    said = f"{data} was prepared with {pixels}, the detector's training photos with "
    assert other_preparation(detector, data) == f"{said}nothing"  # type: ignore[arg-type]
    assert other_preparation(Told(pixels), data) == ""  # type: ignore[arg-type]
    other = {**pixels, "imgsz": 64}
    assert other_preparation(Told(other), data) == f"{said}{PixelSpec.from_dict(other).to_dict()}"  # type: ignore[arg-type]
    (tmp_path / "dataset.json").unlink()
    assert other_preparation(Told(pixels), data) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "line", "said", "hint"),
    [
        (["pants", "shoe"], "0 .5 .5 .5 .5\n", "DATA and the detector have no class in common",
         "the detector has top, hat; the data has pants, shoe"),
        (["pants", "top"], "", "the test split of DATA has no boxes", ""),
        (["pants", "top"], "0 .5 .5 .5 .5\n4 .5 .5 .5 .5\n3 .5 .5 .5 .5\n",
         "the labels of PHOTO have a class 3 that DATA does not name", "`fashionrec dataset audit` lists all such lines"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(
    names: list[str], line: str, said: str, hint: str, tmp_path: Path, config: Config
) -> None:
    data = dataset(tmp_path, 1, names, line)
    with pytest.raises(DataError) as caught:
        matched(Told(), data, config)
    photo = tmp_path / "test" / "images" / "00.png"
    assert str(caught.value) == said.replace("DATA", str(data)).replace("PHOTO", str(photo))
    assert caught.value.hint == hint


def test_classes_that_the_data_does_not_have_are_left_out() -> None:
    found = Detections(np.arange(12.0).reshape(3, 4), np.array([0.9, 0.8, 0.7]), np.array([7, 9, 3]))
    part = renumbered(found, {7: 1, 3: 0})
    assert (part.class_ids.tolist(), part.scores.tolist()) == ([1, 0], [0.9, 0.7])
    assert part.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    none = renumbered(found, {})
    assert (len(none), none.boxes.shape, none.class_ids.dtype) == (0, (0, 4), np.int64)


# --- figures of photos that are drawn


BOX, FAR = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def photos(*rows: tuple[int, float, list[float]]) -> Matches:
    """A photo with a box each: its class, and how sure a detection of that class is of
    which place.
    """
    matches = Matches({0: "dress", 2: "top"})
    for number, score, place in rows:
        found = Detections(np.array([place], np.float32), np.array([score], np.float32), np.array([number]))
        matches.add(found, np.array([BOX]), np.array([number]))
    return matches


def test_figures_of_drawn_photos_by_hand() -> None:
    matches = photos((0, 0.9, BOX), (0, 0.8, FAR), (2, 0.7, BOX))
    found = figures(matches, np.array([[1, 1, 1], [0, 2, 1], [2, 0, 0], [0, 0, 1], [1, 3, 0]]))
    assert list(found) == ["map50", "map50_95", "precision", "recall", "map50_95, dress", "map50_95, top"]
    dress, top = found["map50_95, dress"], found["map50_95, top"]
    # a hit and then a miss of two dresses, two misses, twice a hit, none, and a hit before three
    # misses of four
    assert dress == pytest.approx([0.5, 0, 0.995, np.nan, 0.25], abs=0.006, nan_ok=True)
    assert top == pytest.approx([0.995, 0.995, np.nan, 0.995, np.nan], nan_ok=True)
    assert found["map50"] == pytest.approx(found["map50_95"])
    assert found["map50"] == pytest.approx([np.nanmean(pair) for pair in zip(dress, top, strict=True)])
    assert found["recall"] == pytest.approx([(0.5 + 1) / 2, 0.5, 1, 1, 0.25])
    assert found["precision"] == pytest.approx([(0.5 + 1) / 2, 0.5, 1, 1, 0.25])


def test_differences_are_after_less_before_and_of_the_same_draws() -> None:
    before = photos((0, 0.9, BOX), (0, 0.8, FAR), (0, 0.7, FAR), (2, 0.9, BOX))
    after = photos((0, 0.9, BOX), (0, 0.8, BOX), (0, 0.7, FAR), (2, 0.9, FAR))
    found = paired_spreads(before, after, resamples=300, seed=4)
    dress, top = found["map50_95, dress"], found["map50_95, top"]
    assert dress.measured == pytest.approx(1 / 3, abs=0.01)
    assert top.measured == pytest.approx(-0.995)
    assert top.photos == dress.photos == 4
    assert set(top.resamples.round(3)) == {-0.995}
    assert 150 < len(top.resamples) < 280 < len(dress.resamples) < 300  # draws without any of the class are none
    assert len(found["map50"].resamples) == 300
    assert (dress.resamples >= -1e-9).all()
    again = paired_spreads(before, after, resamples=300, seed=4)["map50"]
    assert np.array_equal(again.resamples, found["map50"].resamples)
    other = paired_spreads(before, after, resamples=300, seed=5)["map50"]
    assert not np.array_equal(other.resamples, found["map50"].resamples)
    back = paired_spreads(after, before, resamples=300, seed=4)["map50"]
    assert back.resamples == pytest.approx(-found["map50"].resamples)
    with pytest.raises(ValueError, match="the two were not measured on the same photos"):
        paired_spreads(before, photos(*[(2, 0.9, BOX)] * 4), resamples=10)
