"""The size that a TensorRT engine is built for: what is asked, else the checkpoint's own, else 640."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")


class Built(Exception):
    """What the engine would be built for."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks: one as if it had been trained at 96 pixels, and one that does not say."""
    from fashionrec.detector.training.ultra import load_ultralytics, quiet

    folder = tmp_path_factory.mktemp("checkpoints")
    model = Path(__file__).parent / "data" / "yolov8-onelevel.yaml"
    with quiet(None):
        yolo = load_ultralytics().YOLO(str(model), task="detect")
        for size in (96, None):
            yolo.ckpt = {"train_args": {"imgsz": size} if size else {}}
            yolo.save(str(folder / f"sized-{size}.pt"))
    return folder


@pytest.mark.parametrize(("saved", "asked", "side"), [(96, None, 96), (96, 64, 64), (None, None, 640), (None, 32, 32)])
def test_an_engine_is_built_for_the_size_of_its_checkpoint(
    checkpoints: Path, tmp_path: Path, saved: int | None, asked: int | None, side: int
) -> None:
    from fashionrec.config import load_config
    from fashionrec.detector.training.engine import export_engine
    from fashionrec.detector.training.export import Evidence

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")

    def build(weights: Path, side: int, precision: str, data: Path | None) -> Path:
        assert weights.is_file()
        raise Built(side, precision, data)

    with pytest.raises(Built) as caught:
        export_engine(
            checkpoints / f"sized-{saved}.pt",
            tmp_path / "out",
            imgsz=asked,
            precision="fp16",
            evidence=Evidence([tmp_path / "a.png"], limits=load_config(env={}).config.images),
            build=build,
        )
    assert caught.value.args == (side, "fp16", None)
    assert not (tmp_path / "out").exists()
