"""From a prepared dataset through a run and its checkpoint into the bundle: how pixels were treated
is never lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result

pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train

Cli = Callable[..., Result]
MODEL = Path(__file__).parent.parent / "configs" / "models" / "yolov8-demo.yaml"
WORLD = ("--images", "12", "--products", "0", "--set", "synthetic.size=128", "--set", "synthetic.outfits=0")
TREATED = ("--set", "dataset.resize=letterbox", "--set", "dataset.imgsz=96", "--set", "dataset.equalize=2")
FAST = ("epochs=1", "imgsz=64", "batch=8", "device=cpu", "workers=0", "plots=false", "mosaic=0")


def test_what_was_done_to_pixels_travels_into_the_bundle(cli: Cli, tmp_path: Path) -> None:
    pixels = {"resize": "letterbox", "imgsz": 96, "equalize": 2.0, "tiles": 8}
    assert cli("fetch-dataset", "synthetic", "--out", "treated", *WORLD, *TREATED).code == 0
    assert cli("fetch-dataset", "synthetic", "--out", "plain", *WORLD).code == 0
    trained = cli("train", "data=treated/data.yaml", f"model={MODEL}", "name=r", *FAST, "--json")
    assert trained.code == 0, trained.err
    assert trained.document["dataset"]["pixels"] == pixels
    shutil.copyfile(tmp_path / "runs/train/r/weights/best.pt", tmp_path / "alone.pt")  # away from its run
    exported = cli("export", "alone.pt", "--out", "bundle", "--json")
    assert exported.code == 0, exported.err
    from fashionrec.models.bundle import Bundle

    assert Bundle.open(tmp_path / "bundle", "detector").spec["pixels"] == pixels
    refused = cli("finetune", "--weights", "alone.pt", "--data", "plain/data.yaml", *FAST)
    assert refused.code == 2
    assert "were prepared with nothing" in refused.err
    plain = cli("train", "data=plain/data.yaml", f"model={MODEL}", "name=p", *FAST, "--json")
    assert "pixels" not in plain.document["dataset"]
    args = (tmp_path / "runs/train/p/args.yaml").read_text()
    assert "degrees: 10.0" in args
    assert "fliplr: 0.5" in args
