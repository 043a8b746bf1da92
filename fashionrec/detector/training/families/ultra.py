"""Detectors of ultralytics (YOLOv8, YOLO11, YOLO12, YOLO26, RT-DETR): from a checkpoint to a graph
with a raw head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.detector.preprocess import letterbox, stretch
from fashionrec.detector.training.families import Graph
from fashionrec.detector.training.ultra import load_ultralytics, load_yolo, quiet, stamped

if TYPE_CHECKING:
    from PIL import Image

_STRIDE = 32  # sides of an input are multiples of it
_NEAR = 0.05  # pixels, or fractions of a score, by which outputs for noise may differ


def to_graph(weights: Path, work: Path, imgsz: int | None = None) -> Graph:
    """Export a ``.pt`` for a square input of ``imgsz``, default that of its training.

    NMS is not in the graph: a graph with NMS made for one photo finds nothing in photos 2 to n of a
    batch, and thresholds should stay settings of the query. Of the two heads of YOLO26 the one that
    needs NMS is exported, as in ultralytics' validation. Raises :class:`ModelError`.
    """
    yolo = load_yolo(str(weights))
    side = int(imgsz or yolo.overrides.get("imgsz") or 640)
    yolo.model.pt_path = str(work / "model.pt")  # the exporter writes next to its source
    with quiet(None):
        made = yolo.export(
            format="onnx", imgsz=side, dynamic=True, simplify=False, opset=17, nms=None, device="cpu", batch=2
        )
    graph = work / "detect.onnx"
    _without_date(Path(str(made)), graph)
    transformer = "RTDETR" in type(yolo.model.model[-1]).__name__
    if transformer:
        boxes_in_pixels(graph, side)
    answer = reference(yolo, side)
    spec: dict[str, Any] = {
        "imgsz": side,
        "resize": "stretch" if transformer else "letterbox",
        "pad": 114,
        "scale": 1 / 255,
        "channels": "RGB",
        "head": "end2end" if transformer or getattr(yolo.model, "end2end", False) else "yolo",
        "labels": {str(number): str(label) for number, label in yolo.names.items()},
        "input": "images",
    }
    if spec["head"] == "yolo" and takes_rectangles(yolo.model, graph, side):
        spec["rectangular"] = _STRIDE
    pixels = stamped(yolo).get("pixels")
    if pixels:
        spec["pixels"] = pixels
    source = {
        "architecture": Path(str(yolo.model.yaml.get("yaml_file", "unknown"))).stem,
        "ultralytics": load_ultralytics().__version__,
    }
    return Graph(graph, spec, source, answer)


def _without_date(made: Path, target: Path) -> None:
    """Write a graph without the time of its export, so that two exports of a checkpoint are
    identical.
    """
    import onnx

    model = onnx.load(str(made))
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != "date"]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(kept))
    onnx.save(model, str(target))
    made.unlink()


def takes_rectangles(network: Any, graph: Path, side: int) -> bool:
    """Return whether a graph matches the network (torch) on rectangular inputs.

    Tracing may have fixed the size it saw. Square inputs are compared by the gate.
    """
    import onnxruntime as ort
    import torch

    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    shorter = max(_STRIDE, side * 3 // 4 // _STRIDE * _STRIDE)
    rng = np.random.default_rng(0)
    for height, width in ((side, shorter), (shorter, side), (_STRIDE, side)):
        values = rng.random((2, 3, height, width), dtype=np.float32)
        with torch.no_grad():
            output = network(torch.from_numpy(values))
        expected = np.asarray((output[0] if isinstance(output, (tuple, list)) else output).numpy())
        try:
            found = session.run(None, {session.get_inputs()[0].name: values})[0]
        except Exception:  # onnxruntime's own: the graph only takes squares
            return False
        if found.shape != expected.shape or np.abs(found - expected).max() > _NEAR:
            return False
    return True


def reference(yolo: Any, side: int) -> Callable[[Image.Image], np.ndarray]:
    """Return a checkpoint's own answer to one photo: OpenCV's resize in ultralytics' letterbox,
    then torch.
    """
    with quiet(None):
        yolo.fuse()
    network = yolo.model.eval().float().cpu()
    transformer = "RTDETR" in type(network.model[-1]).__name__

    def answer(photo: Image.Image) -> np.ndarray:
        import torch

        theirs = square_by_ultralytics(photo, side, stretched=transformer)
        tensor = torch.from_numpy(np.ascontiguousarray(theirs.transpose(2, 0, 1))).float()[None] / 255
        with torch.no_grad():
            output = network(tensor)
        rows = np.asarray((output[0] if isinstance(output, (tuple, list)) else output).numpy())[0]
        if transformer:
            centre, half = rows[:, :2], rows[:, 2:4] / 2
            rows = np.concatenate([(centre - half) * side, (centre + half) * side, rows[:, 4:]], axis=1)
        result: np.ndarray = rows
        return result

    return answer


def boxes_in_pixels(graph: Path, side: int) -> None:
    """Convert the output of RT-DETR's graph to corners in pixels of the input, like other heads
    without NMS.

    It returns [n, 300, 6] of centre and size as fractions of the image, score and class.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(graph))
    (output,) = model.graph.output
    name = output.name
    raw = f"{name}_in_shares"
    for node in model.graph.node:
        node.output[:] = [raw if each == name else each for each in node.output]
    model.graph.initializer.extend(
        [
            helper.make_tensor("rtdetr_parts", TensorProto.INT64, [3], [2, 2, 2]),
            helper.make_tensor("rtdetr_half", TensorProto.FLOAT, [1], [0.5]),
            helper.make_tensor("rtdetr_side", TensorProto.FLOAT, [1], [float(side)]),
        ]
    )
    parts = ["rtdetr_centre", "rtdetr_size", "rtdetr_rest"]
    model.graph.node.append(helper.make_node("Split", [raw, "rtdetr_parts"], parts, axis=-1))
    steps = [
        ("Mul", ["rtdetr_size", "rtdetr_half"], ["rtdetr_reach"]),
        ("Sub", ["rtdetr_centre", "rtdetr_reach"], ["rtdetr_low"]),
        ("Add", ["rtdetr_centre", "rtdetr_reach"], ["rtdetr_high"]),
        ("Mul", ["rtdetr_low", "rtdetr_side"], ["rtdetr_low_px"]),
        ("Mul", ["rtdetr_high", "rtdetr_side"], ["rtdetr_high_px"]),
    ]
    for operation, inputs, outputs in steps:
        model.graph.node.append(helper.make_node(operation, inputs, outputs))
    model.graph.node.append(
        helper.make_node("Concat", ["rtdetr_low_px", "rtdetr_high_px", "rtdetr_rest"], [name], axis=-1)
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(graph))


def square_by_ultralytics(photo: Image.Image, side: int, *, stretched: bool = False) -> np.ndarray:
    """Return uint8 [side, side, 3], RGB: a photo letterboxed as in ultralytics' datasets, or
    stretched as for RT-DETR.

    Pixels that Pillow and OpenCV round differently are ours: networks are compared, not rounding.
    """
    import cv2
    from ultralytics.data.augment import LetterBox

    bgr = np.ascontiguousarray(np.asarray(photo)[..., ::-1])
    if not stretched:  # as BaseDataset.load_image does before the letterbox pads
        scale = side / max(photo.size)
        size = [min(math.ceil(length * scale), side) for length in photo.size]
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
    boxed: Any = LetterBox(new_shape=(side, side), auto=False, scale_fill=stretched)(image=bgr)
    square = stretch(photo, side)[0] if stretched else letterbox(photo, side)[0]
    ours, theirs = square, np.ascontiguousarray(boxed[..., ::-1])
    return ours if np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2 else theirs
