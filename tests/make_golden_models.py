"""Makes ``tests/data/golden/models/detector``: a detector whose boxes, classes and confidences all
differ.

python tests/make_golden_models.py        (needs onnx, of the extra "train"; the result is committed)

It looks at four places of a photo. What is red there is a top, blue is pants, green a dress, yellow
a skirt, and the purer the colour, the higher the confidence. No two coordinates of its boxes are
the same, so that a swapped side is seen.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fashionrec.models.bundle import write_bundle
from fashionrec.models.graphs import graph_files, with_optimized
from fashionrec.types import CLASS_NAMES

MODELS = Path(__file__).parent / "data" / "golden" / "models"
SIDE = 64
#: x1, y1, x2, y2 in the network's input; `golden_world.PLACES` are the same in a photo of 160 x 120
#: pixels.
PLACES = ((4, 10, 28, 34), (31, 13, 57, 29), (7, 37, 25, 53), (34, 33, 60, 51))
#: How much of red, green and blue makes each class.
COLOURS = {"top": (1, -0.5, -0.5), "pants": (-0.5, -0.5, 1), "dress": (-0.5, 1, -0.5), "skirt": (0.5, 0.5, -1)}


def detector_graph(path: Path) -> None:
    values: list[tuple[str, np.ndarray]] = [("zero", np.float32(0)), ("one", np.float32(1))]
    values += [("axes", np.array([2, 3])), ("fill", np.array([-1, 4, 3]))]
    nodes = []
    for n, (x1, y1, x2, y2) in enumerate(PLACES):
        values += [(f"from{n}", np.array([y1, x1])), (f"to{n}", np.array([y2, x2]))]
        nodes.append(helper.make_node("Slice", ["images", f"from{n}", f"to{n}", "axes"], [f"place{n}"]))
        nodes.append(helper.make_node("GlobalAveragePool", [f"place{n}"], [f"mean{n}"]))
    weights = np.array([COLOURS.get(name, (0, 0, 0)) for name in CLASS_NAMES], np.float32).T
    boxes = np.array([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] for x1, y1, x2, y2 in PLACES], np.float32)
    values += [("weights", weights), ("boxes", boxes[None])]
    nodes += [
        helper.make_node("Concat", [f"mean{n}" for n in range(len(PLACES))], ["means"], axis=1),
        helper.make_node("Reshape", ["means", "fill"], ["colours"]),
        helper.make_node("MatMul", ["colours", "weights"], ["raw"]),
        helper.make_node("Clip", ["raw", "zero", "one"], ["scores"]),
        helper.make_node("ReduceMax", ["colours"], ["most"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["most", "zero"], ["rows"]),
        helper.make_node("Add", ["rows", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["together"], axis=2),
        helper.make_node("Transpose", ["together"], ["output0"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "golden",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4 + len(CLASS_NAMES), len(PLACES)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def main() -> None:
    shutil.rmtree(MODELS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        detector_graph(work / "detect.onnx")
        write_bundle(
            MODELS / "detector",
            kind="detector",
            name="golden-detector",
            graphs=with_optimized({"detect": "detect.onnx"}, work),
            spec={
                "imgsz": SIDE,
                "resize": "letterbox",
                "pad": 114,
                "scale": 1 / 255,
                "channels": "RGB",
                "head": "yolo",
                "labels": {str(n): name for n, name in enumerate(CLASS_NAMES)},
                "input": "images",
            },
            source={"name": "tests/make_golden_models.py"},
            agreement={},
            files=graph_files(work / "detect.onnx"),
        )


if __name__ == "__main__":
    main()
