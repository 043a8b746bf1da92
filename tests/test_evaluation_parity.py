"""Our evaluator, from the bundle, beside ultralytics' own `val` of the same checkpoint, on a
detector trained for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import Config, load_config
from fashionrec.detector.decode import Detections
from fashionrec.detector.detect import Detector
from fashionrec.evaluation.detection.evaluator import evaluate_detector
from fashionrec.evaluation.detection.report import DetectionReport

pytestmark = [pytest.mark.train, pytest.mark.slow]  # a minute of training
pytest.importorskip("ultralytics")

NAMES = ["dress", "pants", "skirt&pants", "skirt", "top"]
COLOURS = ["crimson", "navy", "purple", "orange", "green"]
SIZES = ((128, 128), (128, 96), (96, 128), (256, 160))
SIDE = 96


class Trained(NamedTuple):
    weights: Path
    data: Path
    bundle: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Coloured boxes on noise, learnt well enough to be right often and wrong often."""
    from fashionrec.detector.training.export import export_detector
    from fashionrec.detector.training.train import train_detector

    folder = tmp_path_factory.mktemp("parity")
    data = _draw(folder, {"train": 128, "valid": 16, "test": 96})
    options = {"model": "configs/models/yolov8-demo.yaml", "data": data, "epochs": 15, "imgsz": SIDE, "batch": 16}
    options |= {"device": "cpu", "workers": 0, "plots": "false", "mosaic": 0.0, "lr0": 0.005, "optimizer": "AdamW"}
    config = load_config(sets=[f"train.{key}={value}" for key, value in options.items()], env={}).config
    weights = train_detector(config.train, folder / "runs").weights_path("best")
    export_detector(weights, folder / "bundle")
    return Trained(weights, data, folder / "bundle")


def _draw(folder: Path, counts: dict[str, int]) -> Path:
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for sub in ("images", "labels"):
            (folder / split / sub).mkdir(parents=True)
        for n in range(count):
            width, height = SIZES[n % len(SIZES)]
            picture = Image.fromarray(rng.integers(140, 170, (height, width, 3), dtype=np.uint8))
            lines = []
            for part in range(int(rng.integers(1, 3))):
                kind, w, h = int(rng.integers(0, 5)), *(rng.uniform(0.25, 0.45, 2) * [width, height]).astype(int)
                x, y = int(rng.uniform(2, width / 2 - w - 2) + part * width / 2), int(rng.uniform(2, height - h - 2))
                picture.paste(COLOURS[kind], (x, y, x + w, y + h))
                lines.append(f"{kind} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n")
            picture.save(folder / split / "images" / f"{n:03}.png")
            (folder / split / "labels" / f"{n:03}.txt").write_text("".join(lines))
    places = f"train: {folder}/train/images\nval: {folder}/valid/images\ntest: {folder}/test/images\n"
    (folder / "data.yaml").write_text(f"{places}names: {NAMES}\n")
    return folder / "data.yaml"


def ours(trained: Trained, config: Config, kind: type[Detector] = Detector) -> DetectionReport:
    detector = kind.open(trained.bundle, config.detector.model_copy(update={"rectangular": False}))
    return evaluate_detector(detector, trained.data, "test", config.evaluate, config.images)


def test_the_figures_are_those_of_val(trained: Trained, config: Config) -> None:
    """With ``rect=False``, squares as the bundle has them: by default `val` pads less, and differs
    from itself by more.
    """
    from fashionrec.detector.training.ultra import load_yolo, quiet

    with quiet(None):
        val = load_yolo(str(trained.weights)).val(
            data=str(trained.data),
            split="test",
            imgsz=SIDE,
            rect=False,
            plots=False,
            workers=0,
            device="cpu",
            project=str(trained.data.parent),
            name="val",
        )
    report = ours(trained, config)
    assert 0.1 < val.box.map < val.box.map50 < 0.98, "figures that could not differ show nothing"
    assert report.map50 == pytest.approx(val.box.map50, abs=0.005)
    assert report.map50_95 == pytest.approx(val.box.map, abs=0.005)


class Displaced(Detector):
    """Boxes a pixel off."""

    def predict(self, photos: Sequence[Image.Image], **options: Any) -> list[Detections]:
        found = super().predict(photos, **options)
        return [
            replace(one, boxes=one.boxes + np.float32(one_pixel(photo)))
            for one, photo in zip(found, photos, strict=True)
        ]


class Exchanged(Detector):
    """Channels in another order."""

    def predict(self, photos: Sequence[Image.Image], **options: Any) -> list[Detections]:
        return super().predict([Image.merge("RGB", photo.split()[::-1]) for photo in photos], **options)


class Forgetful(Detector):
    """Loses what it found in the last photo of each batch."""

    def predict(self, photos: Sequence[Image.Image], **options: Any) -> list[Detections]:
        found = super().predict(photos, **options)
        return [*found[:-1], found[-1].take(np.zeros(0, np.int64))]


def one_pixel(photo: Image.Image) -> float:
    """Return, of the detector's input, in pixels of the photo."""
    return max(photo.size) / SIDE


@pytest.mark.parametrize("kind", [Displaced, Exchanged, Forgetful])
def test_planted_faults_leave_the_band(kind: type[Detector], trained: Trained, config: Config) -> None:
    assert abs(ours(trained, config, kind).map50_95 - ours(trained, config).map50_95) > 0.005
