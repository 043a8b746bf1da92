"""Detectors of ultralytics (YOLOv8, YOLO11, YOLO12, YOLO26, RT-DETR): from a checkpoint to a graph with a raw head."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.detector.families import Graph
from fashionrec.detector.preprocess import letterbox
from fashionrec.detector.ultra import load_ultralytics, load_yolo, quiet, stamped

if TYPE_CHECKING:
    from PIL import Image


def to_graph(weights: Path, work: Path, imgsz: int | None = None) -> Graph:
    """Export a ``.pt`` (a pickle: only what you trust) for a square input of ``imgsz``, default that of its training.

    NMS is not in the graph: a graph with NMS made for one photo finds nothing in photos 2 to n of a batch, and confidence
    and overlap are to stay settings of the query. Raises :class:`ModelError`.
    """
    yolo = load_yolo(str(weights))
    side = int(imgsz or yolo.overrides.get("imgsz") or 640)
    shutil.copyfile(weights, work / "model.pt")  # the exporter writes beside its source
    with quiet(None):
        made = load_yolo(str(work / "model.pt")).export(
            format="onnx", imgsz=side, dynamic=True, simplify=False, opset=17, nms=False, device="cpu", batch=2
        )
    graph = work / "detect.onnx"
    Path(str(made)).rename(graph)
    spec: dict[str, Any] = {
        "imgsz": side,
        "resize": "letterbox",
        "pad": 114,
        "scale": 1 / 255,
        "channels": "RGB",
        "head": "end2end" if getattr(yolo.model, "end2end", False) else "yolo",
        "labels": {str(number): str(label) for number, label in yolo.names.items()},
        "input": "images",
    }
    pixels = stamped(yolo).get("pixels")
    if pixels:
        spec["pixels"] = pixels
    source = {
        "architecture": Path(str(yolo.model.yaml.get("yaml_file", "unknown"))).stem,
        "ultralytics": load_ultralytics().__version__,
    }
    return Graph(graph, spec, source, reference(yolo, side))


def reference(yolo: Any, side: int) -> Callable[[Image.Image], np.ndarray]:
    """What a checkpoint itself answers to one photo: OpenCV's resize in ultralytics' letterbox, then torch."""
    with quiet(None):
        yolo.fuse()
    network = yolo.model.eval().float().cpu()

    def answer(photo: Image.Image) -> np.ndarray:
        import torch
        from ultralytics.data.augment import LetterBox

        bgr = np.ascontiguousarray(np.asarray(photo)[..., ::-1])
        boxed: Any = LetterBox(new_shape=(side, side), auto=False)(image=bgr)
        # where Pillow and OpenCV round a pixel differently the source is fed ours: the network is compared here, not rounding
        ours = letterbox(photo, side)[0]
        theirs = np.ascontiguousarray(boxed[..., ::-1])
        if np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2:
            theirs = ours
        tensor = torch.from_numpy(np.ascontiguousarray(theirs.transpose(2, 0, 1))).float()[None] / 255
        with torch.no_grad():
            output = network(tensor)
        return np.asarray((output[0] if isinstance(output, (tuple, list)) else output).numpy())[0]

    return answer
