"""Half precision: the decoding stays in float32, on graphs small enough to compute by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fashionrec.detector.training.precision import decoding, kept_in_float, largest_activation, to_fp16, to_int8

PIXELS = np.full((1, 1, 4, 4), 1.25, np.float32)
#: What the decoding multiplies by: boxes in pixels, which half precision would round to whole ones.
SCALE = 1000.3


def graph(path: Path, *, scale: float = SCALE) -> Path:
    """images -> two convolutions -> a matrix of weights -> (decoding) times ``scale``, and that
    less a quarter.

    The convolutions change nothing, the matrix doubles. Both results of the decoding are outputs.
    """
    nodes = [
        helper.make_node("Conv", ["images", "one"], ["first"], name="first"),
        helper.make_node("Conv", ["first", "one"], ["last"], name="last"),
        helper.make_node("MatMul", ["last", "twice"], ["mixed"], name="mix"),
        helper.make_node("Mul", ["mixed", "scale"], ["boxes"], name="decode"),
        helper.make_node("Sub", ["boxes", "quarter"], ["moved"], name="move"),
    ]
    shape = ["batch", 1, 4, 4]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("boxes", "moved")],
        [
            numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "one"),
            numpy_helper.from_array(2 * np.eye(4, dtype=np.float32), "twice"),
            numpy_helper.from_array(np.array(scale, np.float32), "scale"),
            numpy_helper.from_array(np.array(0.25, np.float32), "quarter"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def answer(path: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(["boxes", "moved"], {"images": PIXELS}))


def test_boxes_in_pixels_keep_their_digits_in_half_precision(tmp_path: Path) -> None:
    found = to_fp16(graph(tmp_path / "g.onnx"), tmp_path / "half.onnx")
    assert found == {"nodes": 5, "nodes_kept_float32": 2}
    half = onnx.load(tmp_path / "half.onnx").graph
    kinds = {one.name: one.data_type for one in half.initializer}
    assert kinds == {
        "one": TensorProto.FLOAT16,
        "twice": TensorProto.FLOAT16,
        "scale": TensorProto.FLOAT,
        "quarter": TensorProto.FLOAT,
    }
    assert {one.type.tensor_type.elem_type for one in (*half.input, *half.output)} == {TensorProto.FLOAT}
    boxes, moved = answer(tmp_path / "half.onnx")
    assert moved.ravel().tolist() == pytest.approx([2.5 * SCALE - 0.25] * 16, abs=1e-3)
    assert boxes.ravel().tolist() == pytest.approx([2.5 * SCALE] * 16, abs=1e-3)
    rounded = float(np.float16(np.float16(2.5) * np.float16(SCALE)))
    assert abs(rounded - 2.5 * SCALE) > 0.2  # what it would be without


def test_the_decoding_is_what_comes_after_the_last_weights(tmp_path: Path) -> None:
    model = onnx.load(graph(tmp_path / "g.onnx"))
    assert decoding(model) == {"mix", "decode", "move"}  # after the last convolution
    assert decoding(model, frozenset({"Conv", "MatMul"})) == {"decode", "move"}
    assert kept_in_float(model) == {"last", "mix", "decode", "move"}  # in 8 bits the last convolution too


def test_8_bits_are_for_the_convolutions_before_the_last(tmp_path: Path) -> None:
    found = to_int8(graph(tmp_path / "g.onnx"), tmp_path / "q.onnx", lambda: [PIXELS, PIXELS[[0, 0]]])
    assert found == {"convolutions": 2, "convolutions_int8": 1, "calibrated_on": 3}
    assert answer(tmp_path / "q.onnx")[0].ravel().tolist() == pytest.approx([2.5 * SCALE] * 16, rel=0.01)


@pytest.mark.parametrize(("scale", "pixels"), [(0.5, 3.0), (0.5, -7.0), (0.5, 0.25), (1e6, 3.0)])
def test_the_largest_activation_is_that_before_the_decoding_and_of_all_weights(
    scale: float, pixels: float, tmp_path: Path
) -> None:
    batches = [np.full((2, 1, 4, 4), 0.5, np.float32), np.full((1, 1, 4, 4), pixels, np.float32)]
    found = largest_activation(graph(tmp_path / "g.onnx", scale=scale), lambda: batches)
    assert found == pytest.approx(max(abs(2 * pixels), 2.0, scale))
