"""YOLOv8l itself, 44 million parameters, through every command it passes on its way
into an answer.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result
from test_detector_training import dataset

pytestmark = [pytest.mark.train, pytest.mark.slow]
pytest.importorskip("ultralytics")


@pytest.mark.timeout(600)
def test_yolov8l_is_trained_exported_and_queried(cli: Callable[..., Result], tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", {"train": 4, "valid": 2, "test": 2})
    small = ("epochs=1", "imgsz=64", "batch=2", "device=cpu", "workers=0", "plots=false", "mosaic=0.0")
    trained = cli("train", "--config", "yolov8l", f"data={data}", "model=yolov8l.yaml", "name=large", *small, "--json")
    assert trained.code == 0, trained.err
    weights = tmp_path / "runs" / "train" / "large" / "weights" / "best.pt"
    assert json.loads((weights.parents[1] / "run.json").read_text())["config"]["train"]["model"] == "yolov8l.yaml"
    assert weights.stat().st_size > 80_000_000

    exported = cli("export", weights, "--out", tmp_path / "large.bundle")
    assert exported.code == 0, exported.err
    manifest = json.loads((tmp_path / "large.bundle" / "bundle.json").read_text())
    assert list(manifest["spec"]["labels"].values()) == ["dress", "pants", "skirt&pants", "skirt", "top"]
    assert manifest["agreement"]
    measured = cli("evaluate", "--weights", tmp_path / "large.bundle", "--data", data, "--split", "test", "--json")
    assert measured.code == 0, measured.err
    assert 0 <= measured.document["map50"] <= 1

    index = tmp_path / "catalogue"
    towers = ("--detector", tmp_path / "large.bundle", "--embedder", TINY / "embedder")
    built = cli("build-index", tmp_path / "data" / "train" / "images", "--index", index, *towers)
    assert built.code == 0, built.err
    photo = next((tmp_path / "data" / "test" / "images").iterdir())
    answer = cli("query", photo, "--index", index, "--json")
    assert answer.code == 0, answer.err
    assert answer.document["garments"][0]["hits"]
