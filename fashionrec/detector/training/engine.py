"""A detector of ultralytics as a TensorRT engine, by its own export, held against its checkpoint on photos. Training plane.

An engine is built for one GPU and one release of TensorRT, and runs there by ultralytics. It is compiled code: only one that
was built here a moment ago is loaded, and no command takes one from somebody else. To serve a catalogue with TensorRT,
export a bundle and set ``project.device=tensorrt``: ONNX Runtime then builds the engine itself.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.files import dump_json, sha256_file, write_atomic
from fashionrec.detector.decode import Detections
from fashionrec.detector.training.agreement import compare
from fashionrec.detector.training.export import Evidence
from fashionrec.detector.training.gate import judge, map_loss
from fashionrec.detector.training.ultra import load_ultralytics, load_yolo, own_folder, quiet, stamped
from fashionrec.errors import DataError, FashionrecError, ModelError
from fashionrec.labels.data_yaml import read_data_yaml, write_own_yaml
from fashionrec.photos.pixels import PixelSpec, prepare_pixels

if TYPE_CHECKING:
    from PIL import Image

#: Builds an engine of a checkpoint for a square input, in a precision, calibrated on a dataset; returns its file.
Build = Callable[[Path, int, str, Path | None], Path]

_BATCH = 8  # photos in a call, at most


def export_engine(
    weights: Path,
    out: Path,
    *,
    imgsz: int | None = None,
    precision: str = "fp32",
    data: Path | None = None,
    evidence: Evidence = Evidence(),
    build: Build | None = None,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Build ``out/NAME.engine`` and ``out/engine.json``; returns the latter: path, source, precision, agreement.

    Raises :class:`ModelError` where there is no GPU or no TensorRT, or the checkpoint is not ultralytics'; :class:`DataError`
    without photos; :class:`Refused` where the engine does not agree with its checkpoint; then nothing is written.
    """
    say = log or (lambda text: None)
    if weights.suffix != ".pt":
        raise ModelError(
            f"{weights} is not ultralytics': engines are made by its export", hint="export a bundle instead"
        )
    if not weights.is_file():
        raise ModelError(f"no checkpoint at {weights}")
    if build is None:
        _need_gpu()
    if not evidence.photos:
        raise DataError("an engine is checked on photos of yours", hint="--images FOLDER, or --data data.yaml")
    if precision == "int8" and data is None:
        raise DataError("an int8 engine is calibrated by ultralytics on a dataset", hint="--data data.yaml")
    yolo = load_yolo(str(weights))
    side = int(imgsz or yolo.overrides.get("imgsz") or 640)
    target = out / f"{weights.stem}.engine"
    if os.path.lexists(target):
        raise ModelError(f"{target} is there already", hint="choose another --out, or remove it")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / weights.name
        shutil.copyfile(weights, copy)  # the exporter writes beside its source
        file = (build or built_by_ultralytics)(copy, side, precision, data)
        spec = PixelSpec.from_dict(stamped(yolo).get("pixels"))
        source, exported = Predicting(weights, side, spec), Predicting(file, side, spec)
        photos = list(evidence.read(evidence.photos, say))
        agreement = compare(source, exported, photos, prepared=evidence.prepared)
        loss = map_loss(source, exported, evidence.measure) if evidence.measure else None
        judge(precision, agreement, loss, evidence.tolerance)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    document = {
        "path": str(target),
        "bytes": target.stat().st_size,
        "sha256": sha256_file(target),
        "precision": precision,
        "imgsz": side,
        "pixels": spec.to_dict(),
        "source": {"file": weights.name, "sha256": sha256_file(weights), "ultralytics": load_ultralytics().__version__},
        "agreement": {**agreement, **(loss or {})},
    }
    write_atomic(out / "engine.json", dump_json(document))
    return document


class Predicting:
    """A model in any format of ultralytics, asked by its own ``predict`` as a detector of ours is asked."""

    def __init__(self, model: Path, side: int, pixels: PixelSpec) -> None:
        if model.suffix == ".pt":
            self._yolo = load_yolo(str(model))
        else:
            with quiet(None):
                self._yolo = load_ultralytics().YOLO(str(model), task="detect")
        self._side, self.pixels = side, pixels

    @property
    def labels(self) -> dict[int, str]:
        return {int(number): str(name) for number, name in self._yolo.names.items()}

    def predict(
        self,
        photos: Sequence[Image.Image],
        *,
        conf: float = 0.25,
        iou: float = 0.6,
        max_det: int = 100,
        multi_label: bool = False,
        prepared_already: bool = False,
    ) -> list[Detections]:
        """Detections in pixels of each photo, best first. ultralytics tells one class a box, whatever ``multi_label`` says."""
        treated = [prepare_pixels(photo, PixelSpec() if prepared_already else self.pixels) for photo in photos]
        found: list[Detections] = []
        for start in range(0, len(treated), _BATCH):
            part = treated[start : start + _BATCH]
            with quiet(None):
                results = self._yolo.predict(
                    [photo for photo, _ in part],
                    conf=conf,
                    iou=iou,
                    max_det=max_det,
                    imgsz=self._side,
                    rect=False,
                    verbose=False,
                )
            for result, (_, placed) in zip(results, part, strict=True):
                boxes = result.boxes
                found.append(
                    Detections(
                        placed.restore(boxes.xyxy.cpu().numpy()),
                        boxes.conf.cpu().numpy().astype(np.float32),
                        boxes.cls.cpu().numpy().astype(np.int64),
                    )
                )
        return found


def _need_gpu() -> None:
    import torch

    hint = "run this on the machine that is to serve it; or export a bundle here and set project.device=tensorrt there"
    if not torch.cuda.is_available():
        raise ModelError("a TensorRT engine is built on the GPU that runs it, and torch sees no GPU here", hint=hint)
    if importlib.util.find_spec("tensorrt") is None:
        raise ModelError("a TensorRT engine needs the package tensorrt", hint="pip install tensorrt")


def built_by_ultralytics(
    weights: Path, side: int, precision: str, data: Path | None, *, load: Callable[[str], Any] = load_yolo
) -> Path:
    """An engine as ultralytics' exporter builds it; for int8 it is calibrated on photos of ``data``."""
    calibration: dict[str, Any] = {}
    if precision == "int8" and data is not None:
        listed = write_own_yaml(read_data_yaml(data), own_folder() / "calibration")
        calibration = {"int8": True, "data": str(listed)}
    try:
        with quiet(None):
            made = load(str(weights)).export(
                format="engine",
                imgsz=side,
                dynamic=True,
                batch=_BATCH,
                half=precision == "fp16",
                nms=False,
                device=0,
                **calibration,
            )
    except Exception as error:  # of CUDA, TensorRT and ultralytics
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FashionrecError(f"ultralytics cannot build the engine: {reason}", hint="--debug shows where") from error
    return Path(str(made))
