"""A detector asked otherwise than by default: thresholds, shapes, paddings and batches, on photos
that are not square.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from fashionrec.cli.models import open_detector
from fashionrec.cli.session import Session
from fashionrec.config import Config
from fashionrec.detector.detect import Detector
from fashionrec.garments import FinderSettings, GarmentFinder
from fashionrec.models.bundle import write_bundle
from fashionrec.types import Box

Opening = Callable[..., Detector]


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    """The tiny detector with another spec, and thresholds of its own."""

    def run(changes: dict[str, Any] | None = None, **given: Any) -> Detector:
        spec = json.loads((TINY / "detector" / "bundle.json").read_text())["spec"] | (changes or {})
        bundle = write_bundle(
            tmp_path / f"bundle{len(list(tmp_path.iterdir()))}",
            kind="detector",
            name="tiny",
            graphs={"detect": "detect.onnx"},
            spec=spec,
            source={},
            agreement={},
            files={"detect.onnx": TINY / "detector" / "detect.onnx"},
        )
        return Detector(bundle, **{"conf": 0.1, "iou": 0.5, "max_garments": 10, "device": "cpu", **given})

    return run


def halves(width: int, height: int, left: str = "red", right: str = "blue") -> Image.Image:
    photo = Image.new("RGB", (width, height), right)
    photo.paste(left, (0, 0, width // 2, height))
    return photo


def test_boxes_of_wide_and_high_photos_are_in_their_own_pixels(opening: Opening) -> None:
    detector = opening()
    for width, height in ((128, 64), (64, 128), (200, 120)):
        (found,) = detector.detect([halves(width, height)])
        boxes = {garment.class_name: garment.box for garment in found}
        assert set(boxes) == {"top", "pants"}
        # a box is a half of the square input; what of it is beside the photo is cut off
        assert boxes["top"] == pytest.approx(Box(0, 0, width / 2, height), abs=1.0)
        assert boxes["pants"] == pytest.approx(Box(width / 2, 0, width, height), abs=1.0)


def test_a_stretched_input_has_no_padding(opening: Opening) -> None:
    photo = halves(128, 64)
    padded, stretched = opening(), opening({"resize": "stretch"})
    # half of a letterboxed input is grey, which is neither red nor blue
    assert padded.predict([photo])[0].scores.tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert stretched.predict([photo])[0].scores.tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    assert stretched.detect([photo])[0][0].box.y2 == pytest.approx(64, abs=0.5)
    assert padded.inputs([photo])[0, :, 0, 0].tolist() == pytest.approx([114 / 255] * 3)
    assert opening({"pad": 30}).inputs([photo])[0, :, 63, 5].tolist() == pytest.approx([30 / 255] * 3)
    assert stretched.inputs([photo])[0, :, 63, 5].tolist() == pytest.approx([1, 0, 0])


def test_the_input_is_scaled_and_normalized_as_the_spec_says(opening: Opening) -> None:
    detector = opening({"resize": "stretch", "scale": 1 / 510, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2.0]})
    values = detector.inputs([halves(64, 64, "#ff8000")])
    assert values.shape == (1, 3, 64, 64)
    assert values[0, :, 9, 9].tolist() == pytest.approx(
        [(0.5 - 0.1) / 0.5, (128 / 510 - 0.2) / 0.25, -0.3 / 2.0], abs=1e-6
    )


def test_thresholds_are_the_detectors_own_unless_they_are_given(opening: Opening) -> None:
    photo = halves(64, 64, "red", "#4040a0")  # scores 1 and about .38
    detector = opening(conf=0.5)
    assert detector.predict([photo])[0].class_ids.tolist() == [4]
    assert sorted(detector.predict([photo], conf=0.2)[0].class_ids.tolist()) == [1, 4]
    assert len(detector.predict([photo], conf=1.1)[0]) == 0
    assert opening(max_garments=1).predict([photo])[0].class_ids.tolist() == [4]
    assert len(opening(max_garments=1).predict([photo], max_det=2)[0]) == 2
    assert len(opening().predict([photo], max_det=1)[0]) == 1
    assert detector.predict([]) == []


def test_the_settings_thresholds_reach_the_detector(config: Config) -> None:
    settings = config.detector.model_copy(update={"conf": 0.42, "iou": 0.33, "max_garments": 3})
    detector = Detector.open(TINY / "detector", settings)
    assert (detector.conf, detector.iou, detector.max_garments) == (0.42, 0.33, 3)


@pytest.mark.parametrize("most", [None, 1, 2, 3, 5])
def test_answers_come_in_the_order_of_the_photos_whatever_a_call_may_take(most: int | None, opening: Opening) -> None:
    detector = opening({"batch": most} if most else None)
    assert detector.most == most
    photos = [halves(64, 64, *colours) for colours in (("red", "white"), ("white", "blue"), ("white", "white"))]
    found = detector.predict([*photos, photos[1], photos[0]])
    assert [one.class_ids.tolist() for one in found] == [[4], [1], [], [1], [4]]


def test_the_shape_of_a_rectangular_input(opening: Opening) -> None:
    sizes = [(100, 100), (200, 100), (100, 200), (640, 200), (90, 640)]
    square = opening({"rectangular": 32})
    assert [square.shape(*size) for size in sizes] == [(64, 64)] * 5  # not asked for
    detector = opening({"rectangular": 16}, rectangular=True)
    assert [detector.shape(*size) for size in sizes] == [(64, 64), (64, 32), (32, 64), (64, 32), (16, 64)]
    assert opening({"rectangular": 16, "resize": "stretch"}, rectangular=True).shape(200, 100) == (64, 64)
    assert detector.inputs([halves(200, 100)]).shape == (1, 3, 32, 64)


def test_whatever_opens_a_bundle_by_the_settings_gives_it_the_shapes_of_a_build(opening: Opening) -> None:
    """Check that what the command line evaluates, compares and trains with is what a build runs."""
    bundle = opening({"rectangular": 16}).bundle
    for sets, shape in (([], (64, 32)), (["detector.rectangular=false"], (64, 64))):
        session = Session(sets=sets)
        finder = GarmentFinder.open(bundle, FinderSettings.of_build(session.config, 32))
        assert finder.detector is not None
        opened = Detector.open(bundle.path, session.config.detector)
        for detector in (open_detector(session, bundle), opened, finder.detector):
            assert detector.shape(200, 100) == shape


def test_garments_are_numbered_from_the_surest(opening: Opening) -> None:
    (found,) = opening().detect([halves(64, 64, "#a04040", "blue")])
    assert [(one.index, one.class_name) for one in found] == [(0, "pants"), (1, "top")]
    assert found[0].confidence == pytest.approx(1.0, abs=0.01)
    assert found[1].confidence == pytest.approx((160 - 64) / 255, abs=0.01)
    assert np.asarray(found[1].box).tolist() == [0, 0, 32, 64]
